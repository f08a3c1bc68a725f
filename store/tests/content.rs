//! Content: at any offset, by any number of threads, whole and verified or not at all.

use std::sync::{Arc, Barrier};

use formats::{Chunk, Compression, Content, Hash, ObjectKind, ObjectName, Regular};
use store::faulty::{Fault, FaultyStore, Op, When};
use store::{ContentCache, ContentError, ContentFile, ContentLimits, MemoryStore};
use store::{ObjectFault, ObjectStore, put};

use crate::support::made::{regular, store_zlib};
use crate::support::{chain, noise, read, shared};

fn cache(store: Arc<dyn ObjectStore>, limits: ContentLimits) -> (ContentCache, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (
        ContentCache::new(store, dir.path().join("content"), limits).unwrap(),
        dir,
    )
}

fn whole(store: &dyn ObjectStore, bytes: &[u8]) -> Regular {
    let object = store_zlib(store, bytes, ObjectKind::Data);
    regular(bytes.len() as u64, Content::Whole(object.hash))
}

fn chunked(store: &dyn ObjectStore, bytes: &[u8], sizes: &[usize]) -> Regular {
    let mut offset = 0;
    let mut chunks = Vec::new();
    for size in sizes {
        let object = store_zlib(store, &bytes[offset..offset + size], ObjectKind::Chunk);
        chunks.push(Chunk {
            offset: offset as u64,
            size: *size as u64,
            hash: object.hash,
        });
        offset += size;
    }
    assert_eq!(offset, bytes.len());
    regular(offset as u64, Content::Chunks { bulk: None, chunks })
}

fn all(file: &ContentFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.size()).unwrap() + 7];
    let n = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(n);
    bytes
}

/// Everything in memory, or everything in files.
fn both() -> [ContentLimits; 2] {
    [u64::MAX, 0].map(|small_bytes| ContentLimits {
        small_bytes,
        ..ContentLimits::default()
    })
}

#[test]
fn any_part_of_any_file() {
    for limits in both() {
        let store = MemoryStore::new();
        let bytes = noise(1, 10_000);
        let files = [
            whole(&store, &bytes),
            chunked(&store, &bytes, &[1, 4999, 3000, 2000]),
            chunked(&store, &bytes, &[5000, 5000]),
        ];
        let (cache, _dir) = cache(shared(store), limits);
        for file in &files {
            let file = cache.open(file).unwrap();
            assert_eq!(all(&file), bytes);
            for (from, len) in [
                (0, 1),
                (0, 5000),
                (1, 4999),
                (4999, 2),
                (9999, 5),
                (7, 9993),
            ] {
                let mut part = vec![0; len];
                let n = file.read_at(&mut part, from).unwrap();
                let from = usize::try_from(from).unwrap();
                assert_eq!(part[..n], bytes[from..(from + len).min(bytes.len())]);
            }
            for beyond in [10_000, 10_001, u64::MAX] {
                assert_eq!(file.read_at(&mut [0; 8], beyond).unwrap(), 0);
            }
            assert_eq!(file.read_at(&mut [], 5).unwrap(), 0);
        }
    }
}

#[test]
fn empty_and_uncompressed_files() {
    for limits in both() {
        let store = MemoryStore::new();
        let empty = whole(&store, b"");
        let bytes = noise(2, 100_000);
        let object = ObjectName::new(Hash::of(Default::default(), &bytes), ObjectKind::Data);
        put(&store, &object, &bytes).unwrap();
        let mut plain = regular(100_000, Content::Whole(object.hash));
        plain.compression = Compression::None;
        let (cache, _dir) = cache(shared(store), limits);
        assert_eq!(all(&cache.open(&empty).unwrap()), b"");
        assert_eq!(all(&cache.open(&plain).unwrap()), bytes);
    }
}

#[test]
fn nothing_is_fetched_before_it_is_read_or_twice() {
    let store = MemoryStore::new();
    let bytes = noise(3, 9000);
    let row = chunked(&store, &bytes, &[3000, 3000, 3000]);
    let counting = FaultyStore::new(shared(store));
    let (cache, _dir) = cache(shared(counting.clone()), ContentLimits::default());
    let file = cache.open(&row).unwrap();
    assert_eq!(counting.calls(Op::Open), 0);
    file.read_at(&mut [0; 10], 3500).unwrap();
    assert_eq!(counting.calls(Op::Open), 1);
    for _ in 0..3 {
        assert_eq!(all(&cache.open(&row).unwrap()), bytes);
    }
    assert_eq!(counting.calls(Op::Open), 3);
}

#[test]
fn many_readers_one_fetch() {
    for limits in both() {
        let store = MemoryStore::new();
        let bytes = noise(4, 200_000);
        let row = whole(&store, &bytes);
        let counting = FaultyStore::new(shared(store));
        counting.fail(
            Op::Open,
            When::Always,
            Fault::Delay(std::time::Duration::from_millis(50)),
        );
        let (cache, _dir) = cache(shared(counting.clone()), limits);
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let file = cache.open(&row).unwrap();
                    start.wait();
                    assert_eq!(all(&file), bytes);
                });
            }
        });
        assert_eq!(counting.calls(Op::Open), 1);
    }
}

#[test]
fn bounds_are_kept() {
    let store = MemoryStore::new();
    let files: Vec<_> = (0..50)
        .map(|n| {
            let bytes = noise(n, 10_000);
            (whole(&store, &bytes), bytes)
        })
        .collect();
    let store = shared(store);
    let in_memory = ContentLimits {
        memory_bytes: 35_000,
        ..ContentLimits::default()
    };
    let on_disk = ContentLimits {
        small_bytes: 0,
        disk_bytes: 35_000,
        ..ContentLimits::default()
    };
    let few = ContentLimits {
        small_bytes: 0,
        disk_files: 2,
        ..ContentLimits::default()
    };
    for limits in [in_memory, on_disk, few] {
        let (cache, dir) = cache(store.clone(), limits);
        for _ in 0..2 {
            for (row, bytes) in &files {
                assert_eq!(&all(&cache.open(row).unwrap()), bytes);
                assert!(cache.memory_bytes() <= 35_000 && cache.disk_bytes() <= 35_000);
            }
        }
        // nameless: a crash leaves nothing behind
        let content = dir.path().join("content");
        assert_eq!(std::fs::read_dir(content).unwrap().count(), 0);
        cache.clear();
        assert_eq!((cache.memory_bytes(), cache.disk_bytes()), (0, 0));
    }
}

#[test]
fn an_open_file_keeps_its_bytes() {
    let store = MemoryStore::new();
    let (first, second) = (noise(1, 10_000), noise(2, 10_000));
    let rows = [whole(&store, &first), whole(&store, &second)];
    let limits = ContentLimits {
        small_bytes: 0,
        disk_bytes: 10_000,
        ..ContentLimits::default()
    };
    let (cache, _dir) = cache(shared(store.clone()), limits);
    let held = cache.open(&rows[0]).unwrap();
    assert_eq!(all(&held), first);
    assert_eq!(all(&cache.open(&rows[1]).unwrap()), second);
    cache.clear();
    // even when the storage has lost it since
    for object in rows[0].content.objects() {
        store.delete(&object).unwrap();
    }
    assert_eq!(all(&held), first);
    drop(held);
    assert_eq!(cache.disk_bytes(), 0);
}

/// The fault of the one object of a file.
fn fault(error: &ContentError, object: &ObjectName) -> ObjectFault {
    let ContentError::Object {
        object: named,
        fault,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(named, object);
    assert!(error.to_string().contains(&object.to_string()));
    ObjectFault::clone(fault)
}

#[test]
fn damage_is_named_and_nothing_of_it_is_read() {
    for limits in both() {
        let store = MemoryStore::new();
        let bytes = noise(5, 20_000);
        let row = whole(&store, &bytes);
        let object = row.content.objects().next().unwrap();
        let stored = read(&store, &object);
        let (cache, _dir) = cache(shared(store.clone()), limits);
        let file = cache.open(&row).unwrap();
        let faulty = |damage: &dyn Fn()| {
            damage();
            let mut buffer = [0x55; 100];
            let error = file.read_at(&mut buffer, 0).unwrap_err();
            assert_eq!(buffer, [0x55; 100]);
            fault(&error, &object)
        };
        let found = faulty(&|| drop(store.delete(&object)));
        assert!(matches!(found, ObjectFault::Missing { .. }), "{found}");
        let found = faulty(&|| store.overwrite(&object, &stored[..stored.len() - 10]));
        assert!(matches!(found, ObjectFault::Truncated { .. }), "{found}");
        // the first bytes are right, the last is not
        let mut last = stored.clone();
        *last.last_mut().unwrap() ^= 1;
        let found = faulty(&|| store.overwrite(&object, &last));
        assert!(matches!(found, ObjectFault::Damaged { .. }), "{found}");
        let longer = [stored.as_slice(), b"x"].concat();
        let found = faulty(&|| store.overwrite(&object, &longer));
        assert!(matches!(found, ObjectFault::Damaged { .. }), "{found}");
        // and whole again
        store.overwrite(&object, &stored);
        assert_eq!(all(&file), bytes);
    }
}

#[test]
fn a_damaged_chunk_spoils_its_own_bytes_alone() {
    let store = MemoryStore::new();
    let bytes = noise(6, 9000);
    let row = chunked(&store, &bytes, &[3000, 3000, 3000]);
    let second = row.content.objects().nth(1).unwrap();
    store.overwrite(&second, b"");
    let (cache, _dir) = cache(shared(store), ContentLimits::default());
    let file = cache.open(&row).unwrap();
    let mut part = [0; 3000];
    for offset in [0, 6000] {
        assert_eq!(file.read_at(&mut part, offset).unwrap(), 3000);
        assert_eq!(part[..], bytes[usize::try_from(offset).unwrap()..][..3000]);
    }
    let error = file.read_at(&mut part, 2999).unwrap_err();
    assert!(matches!(
        fault(&error, &second),
        ObjectFault::Truncated { .. }
    ));
}

#[test]
fn rows_that_make_no_sense() {
    let store = MemoryStore::new();
    let good = chunked(&store, &noise(7, 300), &[100, 200]);
    let (cache, _dir) = cache(shared(store.clone()), ContentLimits::default());
    let with = |change: &dyn Fn(&mut Vec<Chunk>)| {
        let mut row = good.clone();
        if let Content::Chunks { chunks, .. } = &mut row.content {
            change(chunks);
        }
        cache.open(&row).map(|_| ()).unwrap_err()
    };
    for error in [
        with(&|chunks| chunks[1].offset = 99),
        with(&|chunks| chunks[1].offset = 101),
        with(&|chunks| chunks[1].size = 201),
        with(&|chunks| chunks[1].size = u64::MAX),
        with(&|chunks| chunks.truncate(1)),
        with(&|chunks| chunks.clear()),
    ] {
        assert!(matches!(error, ContentError::Untiled { .. }), "{error}");
    }
    let nothing = regular(5, Content::Whole(Hash::null()));
    assert!(matches!(cache.open(&nothing), Err(ContentError::Nothing)));
    let mut external = whole(&store, b"abc");
    external.external = true;
    assert!(matches!(cache.open(&external), Err(ContentError::External)));
    // the same object at two lengths: one of them is wrong, before and after the other is cached
    for (size, fits) in [
        (2, false),
        (4, false),
        (3, true),
        (2, false),
        (4, false),
        (1 << 40, false),
    ] {
        let row = Regular {
            size,
            external: false,
            ..external.clone()
        };
        let read = cache.open(&row).unwrap().read_at(&mut [0; 8], 0);
        match read {
            Ok(n) => assert!(fits && n == 3),
            Err(error) => {
                let text = chain(&error);
                assert!(
                    !fits && text.contains("3 bytes long") || text.contains("recorded"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn objects_of_a_stage() {
    let (published, staged) = (MemoryStore::new(), MemoryStore::new());
    let row = whole(&staged, b"not published yet");
    let (cache, _dir) = cache(shared(published), ContentLimits::default());
    assert!(cache.open(&row).unwrap().read_at(&mut [0; 4], 0).is_err());
    let file = cache.open_from(&shared(staged), &row).unwrap();
    assert_eq!(all(&file), b"not published yet");
}
