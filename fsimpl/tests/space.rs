//! A disk that fills up: raw bytes of sealed files are dropped and read from the objects; writers are
//! refused in time; limits are seen at the write.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use formats::LimitKind;
use fsimpl::OpenFlags;

use crate::support::{Bench, Published, ROOT, dir, file};

const MIB: u64 = 1 << 20;
/// Of the bench's disk of 64 MiB, dropping begins below this.
const LOW: u64 = 16 * MIB;
/// Dropping ends there.
const TARGET: u64 = 24 * MIB;
const FILE_BYTES: usize = 4 << 20;
const NAMES: [&str; 5] = ["/d/a", "/d/b", "/d/c", "/d/e", "/d/f"];

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/d", (dir(0o755), Vec::new())),
        ("/d/p", file(b"published")),
    ]))
}

/// The disk has so much left, and that is noticed. Returns what was given back.
fn left(bench: &Bench, bytes: u64) -> u64 {
    bench.available.store(bytes, Ordering::SeqCst);
    bench.space.look()
}

fn raw_files(bench: &Bench) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for sub in std::fs::read_dir(bench.dir.path().join("stage/backing")).unwrap() {
        let sub = sub.unwrap().path();
        if sub.is_dir() {
            let files = std::fs::read_dir(sub).unwrap();
            found.extend(files.map(|file| file.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Compressible, and each its own.
fn content(of: &str) -> Vec<u8> {
    let line = format!("{of} and so on\n").into_bytes();
    line.into_iter().cycle().take(FILE_BYTES).collect()
}

/// Written one after the other, and sealed.
fn write_all(bench: &Bench) {
    for name in NAMES {
        bench.write(name, &content(name));
        bench.wait_sealed();
    }
    assert_eq!(raw_files(bench).len(), NAMES.len());
}

fn read(bench: &Bench, name: &str) -> Vec<u8> {
    let handle = bench.open_read(name);
    let mut bytes = vec![0; FILE_BYTES + 1];
    let mut done = 0;
    loop {
        match bench
            .fs
            .read(handle, done as u64, &mut bytes[done..])
            .unwrap()
        {
            0 => break,
            n => done += n,
        }
    }
    bench.fs.release(handle).unwrap();
    bytes.truncate(done);
    bytes
}

#[track_caller]
fn reads_as_written(bench: &Bench) {
    for name in NAMES {
        assert!(read(bench, name) == content(name), "{name}");
    }
}

#[test]
fn what_has_not_changed_for_longest_goes_first_and_reads_the_same() {
    let mut bench = bench();
    write_all(&bench);
    let before = raw_files(&bench);
    assert_eq!(left(&bench, LOW), 0, "enough is left");
    // changed last, so that it goes last
    bench.chmod("/d/a", 0o600);
    let staged = bench.stage().summary();

    // three files make up what is wanted
    let given = left(&bench, LOW - 1);
    assert_eq!(given, 3 * FILE_BYTES as u64);
    let kept = [before[0].clone(), before[4].clone()];
    assert_eq!(raw_files(&bench), kept);
    reads_as_written(&bench);
    assert_eq!(
        bench.stage().summary(),
        staged,
        "staged and sealed as before"
    );
    bench.reopen();
    reads_as_written(&bench);
    assert_eq!(bench.stage().summary(), staged);
    assert_eq!(raw_files(&bench), kept);
    // all the rest, and then there is no more
    assert_eq!(left(&bench, 0), 2 * FILE_BYTES as u64);
    assert_eq!(left(&bench, 0), 0);
    reads_as_written(&bench);

    bench.available.store(TARGET, Ordering::SeqCst);
    let root = bench.commit("");
    for name in NAMES {
        assert!(bench.published.read(&root, name) == content(name));
    }
    reads_as_written(&bench);
    assert_eq!(bench.stage().summary().bytes, 0);
}

#[test]
fn written_again_the_bytes_come_back() {
    let mut bench = bench();
    write_all(&bench);
    left(&bench, 0);
    assert!(raw_files(&bench).is_empty());
    bench.available.store(4 * TARGET, Ordering::SeqCst);
    let staged = bench.stage().summary().bytes;

    let handle = bench.open_write("/d/b");
    bench.fs.write(&ROOT, handle, 5, b"BYTES").unwrap();
    let mut expected = content("/d/b");
    expected[5..10].copy_from_slice(b"BYTES");
    assert!(read(&bench, "/d/b") == expected, "while it is written");
    bench.fs.release(handle).unwrap();
    bench.truncate("/d/c", 7);
    bench.write("/d/e", b"anew");
    assert_eq!(raw_files(&bench).len(), 3);
    let lost = 2 * FILE_BYTES as u64 - 7 - 4;
    assert_eq!(bench.stage().summary().bytes, staged - lost);
    bench.reopen();
    bench.wait_sealed();
    assert!(read(&bench, "/d/b") == expected);
    assert_eq!(read(&bench, "/d/c"), &content("/d/c")[..7]);
    assert_eq!(read(&bench, "/d/e"), b"anew");
    assert!(read(&bench, "/d/f") == content("/d/f"));
    // sealed again, it goes again
    left(&bench, 0);
    assert!(raw_files(&bench).is_empty());
    assert!(read(&bench, "/d/b") == expected);
}

#[test]
fn open_and_unsealed_files_keep_their_raw_bytes() {
    let bench = bench();
    write_all(&bench);
    let reader = bench.open_read("/d/a");
    let writer = bench.open_write("/d/b");
    let unsealed = bench.create("/d/new").unwrap();
    bench
        .fs
        .write(&ROOT, unsealed, 0, b"being written")
        .unwrap();
    left(&bench, 0);
    assert_eq!(raw_files(&bench).len(), 3);
    bench.fs.release(reader).unwrap();
    bench.fs.release(writer).unwrap();
    left(&bench, 0);
    assert_eq!(raw_files(&bench).len(), 1);
    bench.fs.release(unsealed).unwrap();
    bench.wait_sealed();
    left(&bench, 0);
    assert!(raw_files(&bench).is_empty());
    assert_eq!(read(&bench, "/d/new"), b"being written");
    reads_as_written(&bench);
}

#[test]
fn a_file_whose_objects_are_elsewhere_keeps_its_raw_bytes() {
    let bench = bench();
    write_all(&bench);
    let own_objects = || {
        let mut own = 0;
        let mut count = |_, _| {
            own += 1;
            Ok(())
        };
        bench.stage().objects().for_each(&mut count).unwrap();
        own
    };
    // all goes after the commit, and the content is known from then on
    bench.commit("");
    while own_objects() > 0 || !raw_files(&bench).is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    bench.write("/d/again", &content("/d/a"));
    bench.wait_sealed();
    assert_eq!(own_objects(), 0, "nothing was compressed twice");
    assert_eq!(left(&bench, 0), 0);
    assert_eq!(raw_files(&bench).len(), 1);
    assert!(read(&bench, "/d/again") == content("/d/a"));
}

#[test]
fn a_limit_on_raw_bytes_holds_on_an_empty_disk() {
    let mut bench = bench();
    bench.close();
    bench.backing_max = Some(3 * FILE_BYTES as u64);
    bench.open();
    for name in NAMES {
        bench.write(name, &content(name));
        bench.wait_sealed();
    }
    bench.space.look();
    let kept = raw_files(&bench);
    assert!(kept.len() <= 3, "{kept:?}");
    reads_as_written(&bench);
    // a smaller limit is seen at the next start; seven eighths of it are kept
    bench.close();
    bench.backing_max = Some(2 * FILE_BYTES as u64 - 1);
    bench.open();
    bench.space.look();
    assert_eq!(raw_files(&bench).len(), 1);
    reads_as_written(&bench);
}

/// What is staged is counted the same whether its raw bytes are there or not, and over restarts.
#[test]
fn a_quota_does_not_depend_on_the_disk() {
    let mut bench = bench().with_quota(6 * FILE_BYTES as u64);
    write_all(&bench);
    for round in 0..2 {
        let one = vec![0; FILE_BYTES + 1];
        let handle = bench.create(&format!("/d/more{round}")).unwrap();
        let refused = bench.fs.write(&ROOT, handle, 0, &one);
        assert_eq!(refused.unwrap_err().to_errno(), libc::EDQUOT);
        bench.fs.write(&ROOT, handle, 0, &one[1..]).unwrap();
        bench.fs.release(handle).unwrap();
        bench.unlink(&format!("/d/more{round}")).unwrap();
        // cut and rewritten, it counts once
        bench.write("/d/a", &content("/d/a"));
        bench.wait_sealed();
        left(&bench, 0);
        bench.available.store(4 * TARGET, Ordering::SeqCst);
        if round == 0 {
            bench.reopen();
        }
    }
    for name in NAMES {
        bench.unlink(name).unwrap();
    }
    // until then somebody might still know them
    bench.reopen();
    let handle = bench.create("/d/large").unwrap();
    bench
        .fs
        .write(&ROOT, handle, 0, &vec![1; 6 * FILE_BYTES])
        .unwrap();
}

#[test]
fn a_full_disk_refuses_writers_and_nobody_else() {
    let mut bench = bench();
    write_all(&bench);
    let handle = bench.create("/d/open").unwrap();
    while left(&bench, 0) > 0 {}
    let refused = |result: fsimpl::Result<usize>| result.unwrap_err().to_errno();
    assert_eq!(
        refused(bench.fs.write(&ROOT, handle, 0, b"x")),
        libc::ENOSPC
    );
    assert_eq!(bench.mkdir("/d/dir").unwrap_err().to_errno(), libc::ENOSPC);
    reads_as_written(&bench);
    bench.unlink("/d/a").unwrap();
    bench.fs.release(handle).unwrap();
    bench.chmod("/d/b", 0o600);
    bench.wait_sealed();
    bench.reopen();
    assert_eq!(bench.list("/d"), ["b", "c", "e", "f", "open", "p"]);
    bench.stage().abort(&"/d/b".parse().unwrap()).unwrap();
    assert_eq!(bench.list("/d"), ["c", "e", "f", "open", "p"]);
    bench.available.store(TARGET, Ordering::SeqCst);
    bench.write("/d/open", b"there is room again");
}

#[test]
fn an_enforced_limit_on_files_is_efbig_at_the_write() {
    let mut bench = bench();
    bench.close();
    bench.limits.file_bytes = 2 * MIB;
    bench.limits.enforce = true;
    bench.open();
    let max = usize::try_from(2 * MIB).unwrap();
    let handle = bench.create("/d/large").unwrap();
    let errno = |result: fsimpl::Result<usize>| result.unwrap_err().to_errno();
    let byte = |offset| bench.fs.write(&ROOT, handle, offset, b"x");
    assert_eq!(
        errno(bench.fs.write(&ROOT, handle, 0, &vec![0; max + 1])),
        libc::EFBIG
    );
    assert_eq!(errno(byte(2 * MIB)), libc::EFBIG);
    assert_eq!(
        bench.find("/d/large").unwrap().size,
        0,
        "nothing was written"
    );
    bench.fs.write(&ROOT, handle, 0, &vec![0; max]).unwrap();
    byte(2 * MIB - 1).unwrap();
    let append = OpenFlags {
        write: true,
        append: true,
        ..OpenFlags::default()
    };
    let appender = bench.fs.open(&ROOT, bench.ino("/d/large"), append).unwrap();
    assert_eq!(errno(bench.fs.write(&ROOT, appender, 0, b"x")), libc::EFBIG);
    let longer = fsimpl::SetAttr {
        size: Some(2 * MIB + 1),
        ..fsimpl::SetAttr::default()
    };
    let cut = bench.fs.setattr(&ROOT, bench.ino("/d/large"), &longer);
    assert_eq!(cut.unwrap_err().to_errno(), libc::EFBIG);
    let allocated = bench
        .fs
        .fallocate(&ROOT, handle, 0, 2 * MIB + 1, fsimpl::Fallocate::Allocate);
    assert_eq!(allocated.unwrap_err().to_errno(), libc::EFBIG);
    assert_eq!(bench.find("/d/large").unwrap().size, 2 * MIB);
    assert!(bench.stage().oversized_files().is_empty());
}

#[test]
fn a_limit_on_files_that_is_not_enforced_is_told() {
    let mut bench = bench();
    bench.close();
    bench.limits.file_bytes = MIB;
    bench.open();
    bench.write("/d/small", &content("/d/a")[..1 << 20]);
    assert!(bench.stage().oversized_files().is_empty());
    let handle = bench.create("/d/large").unwrap();
    bench.fs.write(&ROOT, handle, 0, &content("/d/a")).unwrap();
    let told = bench.stage().oversized_files();
    assert_eq!(told.len(), 1, "while it is open");
    assert_eq!(told[0].limit, LimitKind::FileBytes);
    assert_eq!((told[0].value, told[0].max), (FILE_BYTES as u64, MIB));
    assert_eq!(told[0].path.to_string(), "/d/large");
    bench.fs.release(handle).unwrap();
    bench.wait_sealed();
    assert_eq!(bench.stage().oversized_files(), told);
    bench.unlink("/d/large").unwrap();
    assert!(bench.stage().oversized_files().is_empty());
}

#[test]
fn too_many_entries_are_foreseen_without_a_look_at_catalogs() {
    let mut bench = bench();
    bench.close();
    // the root, /d and /d/p are there
    bench.limits.root_entries = 6;
    bench.limits.nested_entries = 4;
    bench.open();
    let may = |bench: &Bench| bench.stage().entries_may_exceed().unwrap();
    for name in ["/d/1", "/d/2", "/d/3"] {
        bench.write(name, b"");
    }
    assert!(!may(&bench), "six entries");
    bench.symlink("x", "/4").unwrap();
    assert!(may(&bench));
    bench.unlink("/4").unwrap();
    // a new catalog of its own takes entries from the root's
    bench.mkdir("/new").unwrap();
    assert!(may(&bench));
    bench.unlink("/d/1").unwrap();
    bench.write("/new/.cvmfscatalog", b"");
    for name in ["/new/1", "/new/2", "/new/3"] {
        bench.write(name, b"");
    }
    assert!(!may(&bench));
    bench.write("/new/4", b"");
    assert!(may(&bench));
    bench.unlink("/new/4").unwrap();
    assert!(!may(&bench));
    // what a moved directory brings is not known here
    bench.rename("/d", "/moved").unwrap();
    assert!(may(&bench));
    bench.stage().abort(&formats::RepoPath::root()).unwrap();
    assert!(!may(&bench));
}
