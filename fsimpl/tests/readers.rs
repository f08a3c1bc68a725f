//! Files without raw bytes that are open while their objects are needed for nothing else.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use formats::{ChunkSizes, ObjectName};
use fsimpl::seal::SealParams;
use parking_lot::Mutex;

use crate::support::bench::DISK_BYTES;
use crate::support::{Bench, Published, ROOT, dir};

const FILE_BYTES: usize = 1 << 20;

fn chunked(min: u64) -> SealParams {
    SealParams {
        chunking: Some(ChunkSizes::new(min, 2 * min, 4 * min).unwrap()),
        ..SealParams::default()
    }
}

fn bench() -> Bench {
    let published = Published::new(vec![("/d", (dir(0o755), Vec::new()))]);
    let mut bench = Bench::with(published, Duration::ZERO, false);
    bench.seal = Arc::new(Mutex::new(chunked(32 << 10)));
    bench.reopen();
    bench
}

/// Each its own, and of many chunks.
fn content(of: &str) -> Vec<u8> {
    let lines = (0..).flat_map(|n| format!("{of}, line {n}\n").into_bytes());
    lines.take(FILE_BYTES).collect()
}

fn write_sealed(bench: &Bench, name: &str) {
    bench.write(name, &content(name));
    bench.wait_sealed();
}

/// Sealed files are in their objects only, and nothing of those is kept elsewhere.
fn drop_raw_bytes(bench: &Bench) {
    bench.available.store(0, Ordering::SeqCst);
    bench.space.look();
    bench.available.store(DISK_BYTES, Ordering::SeqCst);
}

fn own_objects(bench: &Bench) -> HashSet<ObjectName> {
    let mut own = HashSet::new();
    let mut add = |name, _| {
        own.insert(name);
        Ok(())
    };
    bench.stage().objects().for_each(&mut add).unwrap();
    own
}

/// A sweep removes these, and has ended.
fn wait_swept(bench: &Bench, gone: &HashSet<ObjectName>) {
    while !own_objects(bench).is_disjoint(gone) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // no snapshot is made while one is under way
    let frozen = bench.freeze("").unwrap();
    bench.stage().thaw(frozen.id).unwrap();
}

#[test]
fn a_file_that_is_open_over_its_commit_is_read_to_the_end() {
    let bench = bench();
    write_sealed(&bench, "/d/read");
    let of_reader = own_objects(&bench);
    assert!(of_reader.len() >= 8, "many chunks");
    write_sealed(&bench, "/d/other");
    let of_other: HashSet<_> = &own_objects(&bench) - &of_reader;
    drop_raw_bytes(&bench);
    let reader = bench.open_read("/d/read");
    let mut first = [0; 8];
    bench.fs.read(reader, 0, &mut first).unwrap();
    bench.commit("");
    wait_swept(&bench, &of_other);
    assert!(bench.read_handle(reader) == content("/d/read"));
    bench.fs.release(reader).unwrap();
    // nobody reads them any more
    bench.write("/d/next", b"next");
    bench.commit("");
    wait_swept(&bench, &of_reader);
    assert!(bench.read("/d/read") == content("/d/read"));
}

#[test]
fn a_file_that_is_open_while_it_is_sealed_anew_is_read_to_the_end() {
    let bench = bench();
    write_sealed(&bench, "/d/read");
    let before = own_objects(&bench);
    drop_raw_bytes(&bench);
    let reader = bench.open_read("/d/read");
    *bench.seal.lock() = chunked(16 << 10);
    let frozen = bench.freeze("").unwrap();
    bench.stage().thaw(frozen.id).unwrap();
    write_sealed(&bench, "/d/other");
    let of_others = &own_objects(&bench) - &before;
    bench.commit("");
    wait_swept(&bench, &of_others);
    // it was read to be sealed
    drop_raw_bytes(&bench);
    assert!(bench.read_handle(reader) == content("/d/read"));
    bench.fs.release(reader).unwrap();
    assert!(bench.read("/d/read") == content("/d/read"));
}

/// A file without names keeps its raw bytes, not its objects: no other may rely on those.
#[test]
fn a_copy_of_a_removed_file_has_bytes_of_its_own() {
    let bench = bench();
    write_sealed(&bench, "/d/removed");
    let objects = own_objects(&bench);
    let reader = bench.open_read("/d/removed");
    bench.unlink("/d/removed").unwrap();
    bench.write("/d/gone", b"gone");
    bench.stage().abort(&"/d/gone".parse().unwrap()).unwrap();
    wait_swept(&bench, &objects);
    let copy = bench.create("/d/copy").unwrap();
    let mut done = 0;
    while done < FILE_BYTES as u64 {
        let (from, to) = ((reader, done), (copy, done));
        let left = FILE_BYTES as u64 - done;
        done += bench.fs.copy_file_range(&ROOT, from, to, left).unwrap();
    }
    bench.fs.release(copy).unwrap();
    bench.fs.release(reader).unwrap();
    assert!(bench.read("/d/copy") == content("/d/removed"));
    bench.wait_sealed();
    let root = bench.commit("");
    assert!(bench.published.read(&root, "/d/copy") == content("/d/removed"));
}
