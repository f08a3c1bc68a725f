#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use formats::Hash;
use formats::chunk::Xor32;
use formats::compress::{compress, decompress_all};
use formats::object::{ObjectKind, ObjectName};
use formats::server_conf::ServerConf;
use store::faulty::{Fault, FaultyStore, Op, When};
use store::{DirStore, Durability, MemoryStore};

use super::*;

mod golden;

const LONG: Duration = Duration::from_secs(120);

/// Unlike any other content, and hard to compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn file_of(content: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    Arc::new(file)
}

fn small_chunks() -> Option<ChunkSizes> {
    Some(ChunkSizes::new(64 << 10, 128 << 10, 256 << 10).unwrap())
}

fn sealer(workers: usize) -> Sealer {
    Sealer::new(SealerLimits {
        workers,
        ..SealerLimits::default()
    })
    .unwrap()
}

type Heard = mpsc::Receiver<Result<Sealed, SealError>>;

fn job(source: impl Into<Source>, params: SealParams) -> (SealJob, Heard, Arc<dyn ObjectStore>) {
    let (to, heard) = mpsc::channel();
    let objects: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    let job = SealJob {
        id: 1,
        source: source.into(),
        size_hint: 1,
        params: Arc::new(params),
        objects: objects.clone(),
        cancel: CancelToken::new(),
        generation: Generation::default(),
        not_before: Instant::now(),
        urgent: false,
        known: Arc::new(|_: &RawHash| None),
        done: Box::new(move |result| to.send(result).unwrap()),
    };
    (job, heard, objects)
}

fn hear(heard: &Heard) -> Result<Sealed, SealError> {
    heard.recv_timeout(LONG).expect("the callback is called")
}

/// What the official pipeline would make of it, from the format's own pieces.
fn expected(params: &SealParams, content: &[u8]) -> Content {
    let name = |bytes: &[u8]| Hash::of(params.algorithm, &compress(params.compression, bytes));
    let mut cuts = vec![0];
    let mut at = 0;
    if let Some(sizes) = params.chunking.filter(|s| s.may_cut(content.len() as u64)) {
        let mut chunker = Xor32::new(sizes);
        while let Some(n) = chunker.scan(&content[at..]) {
            at += n;
            if at < content.len() {
                cuts.push(at);
            }
        }
    }
    if cuts.len() == 1 {
        return Content::Whole(name(content));
    }
    cuts.push(content.len());
    let chunk = |w: &[usize]| formats::object::Chunk {
        offset: w[0] as u64,
        size: (w[1] - w[0]) as u64,
        hash: name(&content[w[0]..w[1]]),
    };
    let bulk = params.bulk_chunks.then(|| name(content));
    Content::Chunks {
        bulk,
        chunks: cuts.windows(2).map(chunk).collect(),
    }
}

/// Reads a content back out of a store.
fn read_back(objects: &dyn ObjectStore, how: Compression, content: &Content) -> Vec<u8> {
    let read = |name: &ObjectName| {
        let mut stored = Vec::new();
        objects
            .open(name)
            .unwrap()
            .read_to_end(&mut stored)
            .unwrap();
        assert_eq!(Hash::of(name.hash.algorithm(), &stored), name.hash);
        decompress_all(how, &stored, usize::MAX >> 1).unwrap()
    };
    match content {
        Content::Whole(hash) => read(&ObjectName::new(*hash, ObjectKind::Data)),
        Content::Chunks { chunks, .. } => {
            let name = |c: &formats::object::Chunk| ObjectName::new(c.hash, ObjectKind::Chunk);
            chunks.iter().flat_map(|c| read(&name(c))).collect()
        }
    }
}

#[test]
fn objects_are_those_of_the_format() {
    let sealer = sealer(3);
    let text = b"a line that repeats itself, and so compresses well\n".repeat(60_000);
    let mut mixed = noise(1, 3 << 20);
    mixed.extend_from_slice(&text);
    mixed.resize(mixed.len() + (2 << 20), 0);
    let contents: [(&str, Vec<u8>); 10] = [
        ("empty", Vec::new()),
        ("small", b"hello".to_vec()),
        ("at the smallest chunk", noise(2, 64 << 10)),
        ("just above it", noise(3, (64 << 10) + 1)),
        ("chunked in memory", noise(4, 1 << 20)),
        ("just too large for that", noise(5, (1 << 20) + 1)),
        ("chunked in parallel", mixed),
        ("cut by the largest size alone", vec![b'7'; 3 << 20]),
        ("a multiple of the largest size", vec![b'7'; 1 << 20]),
        ("the same, in parallel", vec![b'7'; 2 << 20]),
    ];
    let huge_chunks = Some(ChunkSizes::new(1 << 20, 64 << 20, 128 << 20).unwrap());
    for compression in [Compression::Zlib, Compression::None] {
        for (chunking, bulk_chunks) in [
            (None, false),
            (small_chunks(), false),
            (small_chunks(), true),
            (huge_chunks, true),
        ] {
            let algorithm = if bulk_chunks {
                Algorithm::Shake128
            } else {
                Algorithm::Sha1
            };
            let params = SealParams {
                algorithm,
                compression,
                chunking,
                bulk_chunks,
            };
            for (what, content) in &contents {
                let (job, heard, objects) = job(file_of(content), params.clone());
                sealer.submit(job);
                let sealed = hear(&heard).unwrap();
                assert_eq!(
                    sealed.content,
                    expected(&params, content),
                    "{what}, {params:?}"
                );
                assert_eq!(sealed.size, content.len() as u64);
                assert_eq!(
                    sealed.raw_hash,
                    raw::RawHasher::of(&params, content),
                    "{what}"
                );
                let read = read_back(&*objects, compression, &sealed.content);
                assert!(read == *content, "{what}, {params:?}");
                for name in sealed.content.objects() {
                    assert!(objects.has(&name).unwrap(), "{what}: {name}");
                }
            }
        }
    }
    assert!(sealer.wait_idle(LONG));
    let metrics = sealer.metrics();
    assert_eq!((metrics.pending_files, metrics.sealed_files), (0, 80));
}

#[test]
fn known_content_is_not_sealed_again() {
    let sealer = sealer(2);
    for len in [100, 3 << 20] {
        for may_know in [true, false] {
            let content = noise(len as u64, len);
            let params = SealParams {
                chunking: small_chunks(),
                ..SealParams::default()
            };
            let (first, heard, _) = job(file_of(&content), params.clone());
            sealer.submit(first);
            let sealed = hear(&heard).unwrap();

            struct One(RawHash, Content, bool);
            impl Known for One {
                fn lookup(&self, raw: &RawHash) -> Option<Content> {
                    (*raw == self.0).then(|| self.1.clone())
                }
                fn may_know_size(&self, _: u64) -> bool {
                    self.2
                }
            }
            let (mut again, heard, objects) = job(file_of(&content), params);
            again.known = Arc::new(One(sealed.raw_hash, sealed.content.clone(), may_know));
            sealer.submit(again);
            let second = hear(&heard).unwrap();
            assert_eq!(second.content, sealed.content);
            assert_eq!(second.raw_hash, sealed.raw_hash);
            // a large file of a size that is not known is not even looked up
            let skipped = may_know || len == 100;
            assert_eq!(second.known, skipped);
            let name = second.content.objects().next().unwrap();
            assert_eq!(objects.has(&name).unwrap(), !skipped);
        }
    }
}

#[test]
fn equal_objects_are_stored_once() {
    let sealer = sealer(1);
    let (first, heard, objects) = job(file_of(b"twice"), SealParams::default());
    sealer.submit(first);
    hear(&heard).unwrap();
    let (mut second, heard, _) = job(file_of(b"twice"), SealParams::default());
    second.objects = objects;
    sealer.submit(second);
    hear(&heard).unwrap();
    assert!(sealer.wait_idle(LONG));
    let metrics = sealer.metrics();
    assert_eq!((metrics.objects_new, metrics.objects_present), (1, 1));
    assert_eq!(metrics.raw_bytes, 10);
}

/// 20 GiB with a few bytes of data: no matter how, it must not take the time of 20 GiB.
#[test]
fn a_huge_sparse_file_costs_its_data() {
    const SIZE: u64 = 20 << 30;
    let sealer = sealer(2);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&noise(7, 1 << 20), 0).unwrap();
    file.write_all_at(b"in the middle", SIZE / 2).unwrap();
    file.set_len(SIZE).unwrap();
    if file.metadata().unwrap().blocks() * 512 >= SIZE {
        eprintln!("skipped: the temporary directory's filesystem makes no sparse files");
        return;
    }
    let begun = Instant::now();
    let params = SealParams {
        chunking: Some(ChunkSizes::default()),
        ..SealParams::default()
    };
    let (job, heard, objects) = job(Arc::new(file), params);
    sealer.submit(job);
    let sealed = hear(&heard).unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
    let Content::Chunks { chunks, .. } = &sealed.content else {
        panic!("{:?}", sealed.content)
    };
    let mut at = 0;
    for chunk in chunks {
        assert_eq!(chunk.offset, at);
        at += chunk.size;
    }
    assert_eq!(at, SIZE);
    let names: BTreeSet<ObjectName> = sealed.content.objects().collect();
    assert!(
        names.len() < 8,
        "holes are one object, whatever their number: {}",
        names.len()
    );
    let hole = chunks.iter().find(|c| c.offset > 64 << 20).unwrap();
    let zeros = vec![0; usize::try_from(hole.size).unwrap()];
    let name = ObjectName::new(hole.hash, ObjectKind::Chunk);
    assert!(objects.has(&name).unwrap());
    assert_eq!(
        hole.hash,
        Hash::of(Algorithm::Sha1, &compress(Compression::Zlib, &zeros))
    );
}

#[test]
fn a_sparse_file_is_sealed_as_if_it_were_not() {
    let sealer = sealer(2);
    let content = {
        let mut content = noise(11, 700_000);
        content.resize(9 << 20, 0);
        content.extend_from_slice(&noise(12, 100_000));
        content.resize(13 << 20, 0);
        content
    };
    let sparse = tempfile::tempfile().unwrap();
    sparse.write_all_at(&content[..700_000], 0).unwrap();
    sparse
        .write_all_at(&content[9 << 20..(9 << 20) + 100_000], 9 << 20)
        .unwrap();
    sparse.set_len(content.len() as u64).unwrap();
    let sparse = Arc::new(sparse);
    for chunking in [None, small_chunks()] {
        let params = SealParams {
            chunking,
            bulk_chunks: true,
            ..SealParams::default()
        };
        let (job, heard, objects) = job(sparse.clone(), params.clone());
        sealer.submit(job);
        let sealed = hear(&heard).unwrap();
        assert_eq!(sealed.content, expected(&params, &content));
        assert_eq!(sealed.raw_hash, raw::RawHasher::of(&params, &content));
        assert!(read_back(&*objects, Compression::Zlib, &sealed.content) == content);
    }
}

#[test]
fn a_file_that_changes_is_noticed() {
    let sealer = sealer(2);
    for len in [1000_usize, 4 << 20] {
        for how in ["grown", "cut", "rewritten", "within a tick of the clock"] {
            let file = file_of(&noise(1, len));
            let params = SealParams {
                chunking: small_chunks(),
                ..SealParams::default()
            };
            let (mut job, heard, _) = job(file.clone(), params);
            let generation = job.generation.clone();
            let before = rustix::fs::fstat(&*file).unwrap();
            // runs after the file was read for the first time and before the end
            job.known = Arc::new(move |_: &RawHash| {
                match how {
                    "grown" => file.write_all_at(b"x", len as u64).unwrap(),
                    "cut" => file.set_len(len as u64 / 2).unwrap(),
                    _ => file.write_all_at(b"changed", 0).unwrap(),
                }
                let mtime = rustix::fs::Timespec {
                    tv_sec: before.st_mtime,
                    tv_nsec: before.st_mtime_nsec as _,
                };
                let later = rustix::fs::Timespec {
                    tv_sec: mtime.tv_sec + 1,
                    ..mtime
                };
                let shown = if how.starts_with("within") {
                    mtime
                } else {
                    later
                };
                let times = rustix::fs::Timestamps {
                    last_access: mtime,
                    last_modification: shown,
                };
                rustix::fs::futimens(&*file, &times).unwrap();
                generation.bump();
                None
            });
            sealer.submit(job);
            let result = hear(&heard);
            assert!(
                matches!(result, Err(SealError::Changed)),
                "{len}, {how}: {result:?}"
            );
        }
    }
    assert!(sealer.wait_idle(LONG));
    assert_eq!(sealer.metrics().changed_files, 8);
}

#[test]
fn cancelled_jobs_end_at_once() {
    let sealer = sealer(2);
    // queued, long before its time
    let (mut waiting, heard, _) = job(file_of(b"x"), SealParams::default());
    waiting.not_before = Instant::now() + LONG;
    let cancel = waiting.cancel.clone();
    sealer.submit(waiting);
    assert_eq!(sealer.metrics().delayed_files, 1);
    cancel.cancel();
    assert!(matches!(hear(&heard), Err(SealError::Cancelled)));

    // cancelled before it is submitted
    let (early, heard, _) = job(file_of(b"x"), SealParams::default());
    early.cancel.cancel();
    sealer.submit(early);
    assert!(matches!(hear(&heard), Err(SealError::Cancelled)));

    // running: each write takes its time, so that the whole would take minutes
    for chunking in [None, small_chunks()] {
        let (mut running, heard, objects) = job(
            file_of(&noise(1, 64 << 20)),
            SealParams {
                chunking,
                ..SealParams::default()
            },
        );
        let slow = FaultyStore::new(objects);
        slow.fail(
            Op::Write,
            When::Always,
            Fault::Delay(Duration::from_millis(50)),
        );
        running.objects = Arc::new(slow.clone());
        let cancel = running.cancel.clone();
        sealer.submit(running);
        while slow.calls(Op::Write) < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        cancel.cancel();
        assert!(matches!(hear(&heard), Err(SealError::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert!(sealer.wait_idle(LONG));
    assert_eq!(sealer.metrics().cancelled_files, 4);
}

#[test]
fn a_full_store_is_told_and_nothing_hangs() {
    let sealer = sealer(2);
    for (len, op, nth) in [
        (10, Op::Begin, 1),
        (10, Op::Keep, 1),
        (4 << 20, Op::Write, 5),
        (4 << 20, Op::Keep, 9),
    ] {
        let params = SealParams {
            chunking: small_chunks(),
            ..SealParams::default()
        };
        let (mut failing, heard, objects) = job(file_of(&noise(1, len)), params.clone());
        let full = FaultyStore::new(objects.clone());
        full.fail(op, When::From(nth), Fault::NoSpace);
        failing.objects = Arc::new(full.clone());
        sealer.submit(failing);
        let error = hear(&heard).unwrap_err();
        assert!(error.is_out_of_space(), "{op:?}: {error:?}");

        // with space again, the same file is sealed
        full.heal();
        let (mut again, heard, _) = job(file_of(&noise(1, len)), params.clone());
        again.objects = Arc::new(full);
        sealer.submit(again);
        let sealed = hear(&heard).unwrap();
        assert_eq!(sealed.content, expected(&params, &noise(1, len)));
        assert!(read_back(&*objects, Compression::Zlib, &sealed.content) == noise(1, len));
    }
    assert!(sealer.wait_idle(LONG));
}

#[test]
fn a_backing_file_that_is_gone_is_an_error() {
    let sealer = sealer(1);
    let (job, heard, _) = job(PathBuf::from("/nonexistent/backing"), SealParams::default());
    sealer.submit(job);
    assert!(matches!(hear(&heard), Err(SealError::Read(_))));
    assert!(sealer.wait_idle(LONG));
}

#[test]
fn what_is_urgent_comes_first() {
    let sealer = sealer(1);
    sealer.pause();
    let (to, heard) = mpsc::channel();
    for id in 0..5 {
        let (mut job, _, _) = job(file_of(b"x"), SealParams::default());
        job.id = id;
        job.not_before += if id == 3 { LONG } else { Duration::ZERO };
        job.urgent = id == 4;
        let to = to.clone();
        job.done = Box::new(move |result| to.send((id, result.is_ok())).unwrap());
        sealer.submit(job);
    }
    sealer.urge(3);
    sealer.urge(77);
    sealer.resume();
    let order: Vec<_> = (0..5).map(|_| heard.recv_timeout(LONG).unwrap()).collect();
    assert_eq!(order, [3, 4, 0, 1, 2].map(|id| (id, true)));

    let (mut later, heard, _) = job(file_of(b"x"), SealParams::default());
    later.not_before += LONG;
    sealer.submit(later);
    sealer.urge_all();
    hear(&heard).unwrap();
}

#[test]
fn back_pressure_is_bounded() {
    let limits = SealerLimits {
        workers: 1,
        pending_files_max: 2,
        pending_bytes_max: 100,
    };
    let sealer = Sealer::new(limits).unwrap();
    sealer.pause();
    assert!(sealer.admit(Duration::ZERO));
    let (mut heavy, heard, _) = job(file_of(b"x"), SealParams::default());
    heavy.size_hint = 100;
    sealer.submit(heavy);
    let begun = Instant::now();
    assert!(!sealer.admit(Duration::from_millis(30)));
    assert!((30..5000).contains(&begun.elapsed().as_millis()));
    sealer.resume();
    assert!(sealer.admit(LONG));
    hear(&heard).unwrap();
}

#[test]
fn shutdown_tells_every_job() {
    let sealer = sealer(2);
    let mut heard = Vec::new();
    for id in 0..50 {
        let len = if id % 10 == 0 { 8 << 20 } else { 1000 };
        let params = SealParams {
            chunking: small_chunks(),
            ..SealParams::default()
        };
        let (mut job, hear, objects) = job(file_of(&noise(id, len)), params);
        let slow = FaultyStore::new(objects);
        slow.fail(
            Op::Begin,
            When::Always,
            Fault::Delay(Duration::from_millis(20)),
        );
        job.id = id;
        job.objects = Arc::new(slow);
        job.not_before += if id % 3 == 0 { LONG } else { Duration::ZERO };
        sealer.submit(job);
        heard.push(hear);
    }
    std::thread::sleep(Duration::from_millis(100));
    sealer.shutdown();
    let results: Vec<_> = heard
        .iter()
        .map(|h| h.try_recv().expect("told by now"))
        .collect();
    let sealed = results.iter().filter(|r| r.is_ok()).count();
    let stopped = results
        .iter()
        .filter(|r| matches!(r, Err(SealError::ShutDown)))
        .count();
    assert_eq!(sealed + stopped, 50, "{results:?}");
    assert!(stopped > 17);
    let (late, hear_late, _) = job(file_of(b"x"), SealParams::default());
    sealer.submit(late);
    assert!(matches!(hear(&hear_late), Err(SealError::ShutDown)));
}

/// Many files of every path through the code at once, some cancelled, some urged.
#[test]
fn everything_at_once() {
    let sealer = Arc::new(sealer(4));
    let dir = tempfile::tempdir().unwrap();
    let objects: Arc<dyn ObjectStore> =
        Arc::new(DirStore::create(dir.path().join("objects"), Durability::Batch).unwrap());
    let params = SealParams {
        chunking: small_chunks(),
        ..SealParams::default()
    };
    let mut heard = Vec::new();
    for id in 0..300_u64 {
        let len = match id % 50 {
            0 => 3 << 20,
            1 => 900_000,
            _ => usize::try_from(id * 37 % 5000).unwrap(),
        };
        let content = noise(id / 2, len);
        let path = dir.path().join(id.to_string());
        std::fs::write(&path, &content).unwrap();
        let (mut job, hear, _) = job(path, params.clone());
        job.id = id;
        job.objects = objects.clone();
        job.not_before += Duration::from_millis(id % 40);
        let cancel = job.cancel.clone();
        sealer.submit(job);
        if id % 7 == 0 {
            cancel.cancel();
        }
        if id % 11 == 0 {
            sealer.urge(id);
        }
        heard.push((content, hear, id % 7 == 0));
    }
    for (content, heard, cancelled) in &heard {
        match hear(heard) {
            Ok(sealed) => assert_eq!(sealed.content, expected(&params, content)),
            Err(error) => assert!(
                *cancelled && matches!(error, SealError::Cancelled),
                "{error}"
            ),
        }
    }
    assert!(sealer.wait_idle(LONG));
    assert_eq!(sealer.queue.lock().len(), 0);
}
