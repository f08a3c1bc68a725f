//! Parameters that change while files are staged: a commit publishes what a stage that had the new
//! ones from the beginning would.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use formats::{Algorithm, ChunkSizes, Compression, Content, Op};
use fsimpl::seal::SealParams;
use fsimpl::{Frozen, Progress};
use parking_lot::Mutex;

use crate::support::bench::{DISK_BYTES, path};
use crate::support::{Bench, Published, dir};

const SMALL: usize = 3000;

fn bench(params: &SealParams) -> Bench {
    let published = Published::new(vec![("/a", (dir(0o755), Vec::new()))]);
    let mut bench = Bench::with(published, Duration::ZERO, false);
    bench.seal = Arc::new(Mutex::new(params.clone()));
    bench.reopen();
    bench
}

fn chunked(min: u64) -> SealParams {
    SealParams {
        chunking: Some(ChunkSizes::new(min, 2 * min, 4 * min).unwrap()),
        ..SealParams::default()
    }
}

/// Bytes that a chunker finds something in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| byte()).collect()
}

fn stage_files(bench: &Bench) {
    bench.write("/a/empty", b"");
    bench.write("/a/small", &noise(SMALL));
    bench.write("/a/large", &noise(200_000));
    bench.link("/a/large", "/a/linked").unwrap();
}

/// What is published of each file.
fn contents(frozen: &Frozen) -> BTreeMap<String, (Content, Compression)> {
    let files = frozen.change_set.changes.iter().filter_map(|change| {
        let Op::Put { entry, .. } = &change.op else {
            return None;
        };
        let file = entry.regular()?;
        for object in file.content.objects() {
            store::verify(&*frozen.objects, &object).unwrap();
        }
        let what = (file.content.clone(), file.compression);
        Some((change.path.to_string(), what))
    });
    files.collect()
}

fn fresh(params: &SealParams) -> BTreeMap<String, (Content, Compression)> {
    let bench = bench(params);
    stage_files(&bench);
    contents(&bench.freeze("").unwrap())
}

fn changed() -> Vec<SealParams> {
    let plain = SealParams::default();
    vec![
        SealParams {
            compression: Compression::None,
            ..plain.clone()
        },
        SealParams {
            algorithm: Algorithm::Shake128,
            ..plain.clone()
        },
        chunked(16_384),
        SealParams {
            bulk_chunks: true,
            ..chunked(16_384)
        },
        SealParams {
            algorithm: Algorithm::Rmd160,
            compression: Compression::None,
            ..chunked(1024)
        },
    ]
}

fn files_sealed(bench: &Bench) -> u64 {
    let metrics = bench.sealer.metrics();
    metrics.sealed_files + metrics.known_files
}

#[test]
fn what_was_sealed_by_others_is_sealed_again() {
    for restart in [false, true] {
        for params in changed() {
            let mut bench = bench(&SealParams::default());
            stage_files(&bench);
            bench.wait_sealed();
            *bench.seal.lock() = params.clone();
            if restart {
                bench.reopen();
            }
            let frozen = bench.freeze("").unwrap();
            assert_eq!(contents(&frozen), fresh(&params), "{params:?} {restart}");
            let root = bench.published.commit(&bench.stage().base_root(), &frozen);
            bench.stage().retire(frozen.id, &root).unwrap();
            assert_eq!(bench.read("/a/large"), noise(200_000));
        }
    }
}

#[test]
fn raw_bytes_that_are_gone_are_read_from_the_objects() {
    for params in changed() {
        let mut bench = bench(&chunked(32_768));
        stage_files(&bench);
        bench.wait_sealed();
        bench.close();
        fs::remove_dir_all(bench.dir.path().join("stage/backing")).unwrap();
        *bench.seal.lock() = params.clone();
        bench.open();
        let frozen = bench.freeze("").unwrap();
        assert_eq!(contents(&frozen), fresh(&params), "{params:?}");
    }
}

/// Space runs out when the files to be sealed again have been chosen.
struct ShortOfSpace<'a>(&'a Bench);

impl Progress for ShortOfSpace<'_> {
    fn unsealed(&self, _: u64, _: u64) {
        self.0.available.store(0, Ordering::SeqCst);
        self.0.space.look();
        self.0.available.store(DISK_BYTES, Ordering::SeqCst);
    }
    fn rehashed(&self, _: u64, _: u64) {}
}

#[test]
fn raw_bytes_that_are_dropped_meanwhile_are_read_from_the_objects() {
    for params in changed() {
        let bench = bench(&chunked(32_768));
        stage_files(&bench);
        bench.wait_sealed();
        *bench.seal.lock() = params.clone();
        let frozen = bench
            .stage()
            .freeze(&[path("")], fsimpl::OpenFiles::Fail, &ShortOfSpace(&bench))
            .unwrap();
        assert_eq!(contents(&frozen), fresh(&params), "{params:?}");
        assert_eq!(bench.read("/a/large"), noise(200_000));
    }
}

/// The most that was said to be left.
#[derive(Default)]
struct Most(AtomicU64);

impl Progress for Most {
    fn unsealed(&self, files: u64, _: u64) {
        self.0.fetch_max(files, Ordering::Relaxed);
    }
    fn rehashed(&self, _: u64, _: u64) {}
}

#[test]
fn what_would_come_out_the_same_is_left_alone() {
    let bench = bench(&chunked(16_384));
    stage_files(&bench);
    bench.wait_sealed();
    let before = files_sealed(&bench);
    assert_eq!(before, 3);
    // other chunks: files that are too small to be cut are right as they are
    *bench.seal.lock() = chunked(8192);
    let most = Most::default();
    let frozen = bench
        .stage()
        .freeze(&[path("")], fsimpl::OpenFiles::Fail, &most)
        .unwrap();
    assert_eq!(files_sealed(&bench) - before, 1);
    assert_eq!(most.0.into_inner(), 1);
    assert_eq!(contents(&frozen), fresh(&chunked(8192)));
    bench.stage().thaw(frozen.id).unwrap();
    // and a second freeze finds everything right
    let frozen = bench.freeze("").unwrap();
    assert_eq!(files_sealed(&bench) - before, 1);
    assert_eq!(contents(&frozen), fresh(&chunked(8192)));
}

#[test]
fn only_what_is_committed_is_sealed_again() {
    let bench = bench(&SealParams::default());
    stage_files(&bench);
    bench.mkdir("/b").unwrap();
    bench.write("/b/other", b"other");
    bench.wait_sealed();
    let before = files_sealed(&bench);
    bench.seal.lock().algorithm = Algorithm::Rmd160;
    bench.commit("/b");
    assert_eq!(files_sealed(&bench) - before, 1);
}

#[test]
fn a_freeze_that_is_refused_loses_nothing() {
    let mut bench = bench(&SealParams::default());
    stage_files(&bench);
    bench.wait_sealed();
    bench.seal.lock().algorithm = Algorithm::Rmd160;
    let open = bench.create("/a/open").unwrap();
    assert!(bench.freeze("").is_err());
    bench.fs.release(open).unwrap();
    bench.power_loss(|_| {});
    // the raw bytes were synced before the objects were let go of
    let in_doubt: Vec<String> = bench
        .stage()
        .summary()
        .errors
        .iter()
        .map(|e| e.path.to_string())
        .filter(|path| path != "/a/open")
        .collect();
    assert!(in_doubt.is_empty(), "{in_doubt:?}");
    assert_eq!(bench.read("/a/large"), noise(200_000));
}
