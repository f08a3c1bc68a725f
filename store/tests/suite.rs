//! What every store does, whatever it is made of.

use std::io::Write;
use std::sync::{Arc, Barrier};

use formats::{Algorithm, Hash, ObjectKind, ObjectName, S3Conf};
use store::{DirStore, Durability, FaultyStore, HttpOptions, HttpStore, Injected, MemoryStore};
use store::{ObjectStore, S3Store, StoreError, Stored, get, put, transfer, verify};

use crate::support::s3::S3Server;
use crate::support::server::Server;
use crate::support::{list, name_of, noise, read, shared};

/// A store under test and what keeps it alive. `reader` sees what `writer` wrote.
struct Fixture {
    writer: Arc<dyn ObjectStore>,
    reader: Arc<dyn ObjectStore>,
    _dir: Option<tempfile::TempDir>,
    _server: Option<Server>,
    _s3: Option<S3Server>,
}

impl Fixture {
    fn same(store: Arc<dyn ObjectStore>, dir: Option<tempfile::TempDir>) -> Self {
        Self {
            reader: Arc::clone(&store),
            writer: store,
            _dir: dir,
            _server: None,
            _s3: None,
        }
    }
}

fn memory() -> Fixture {
    Fixture::same(shared(MemoryStore::new()), None)
}

fn dir_with(durability: Durability) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::create(dir.path().join("storage"), durability).unwrap();
    Fixture::same(shared(store), Some(dir))
}

fn dir_batch() -> Fixture {
    dir_with(Durability::Batch)
}

fn dir_each() -> Fixture {
    dir_with(Durability::Each)
}

fn passthrough() -> Fixture {
    Fixture::same(shared(FaultyStore::new(shared(MemoryStore::new()))), None)
}

fn http() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let writer = DirStore::create(dir.path(), Durability::Batch).unwrap();
    let server = Server::start(dir.path());
    let reader = HttpStore::new(&server.url, HttpOptions::default()).unwrap();
    Fixture {
        writer: shared(writer),
        reader: shared(reader),
        _dir: Some(dir),
        _server: Some(server),
        _s3: None,
    }
}

fn s3_with(more: &str) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(&dir.path().join("bucket"));
    let conf = S3Conf::parse(server.conf(more).as_bytes()).unwrap();
    let store = S3Store::open(conf, "sub/repo.example.org", dir.path()).unwrap();
    Fixture {
        _s3: Some(server),
        ..Fixture::same(shared(store), Some(dir))
    }
}

fn s3() -> Fixture {
    s3_with("")
}

/// What another wrote, and with other settings.
fn s3_other() -> Fixture {
    let site = s3_with("CVMFS_S3_REGION=eu-central-1\nCVMFS_S3_X_AMZ_ACL=\n");
    let server = site._s3.as_ref().unwrap();
    let conf = S3Conf::parse(server.conf("").as_bytes()).unwrap();
    let dir = site._dir.as_ref().unwrap().path();
    let reader = S3Store::open(conf, "/sub/repo.example.org/", dir).unwrap();
    Fixture {
        reader: shared(reader),
        ..site
    }
}

/// One test per property and store.
macro_rules! suite {
    ($fixtures:tt: $($property:ident),* $(,)?) => { $(suite!(@ $property $fixtures);)* };
    (@ $property:ident [$($fixture:ident),*]) => {
        mod $property {
            $(
                #[test]
                fn $fixture() {
                    super::$property(&super::$fixture());
                }
            )*
        }
    };
}

suite!([memory, dir_batch, dir_each, passthrough, http, s3, s3_other]:
    what_is_kept_is_read_back,
    what_is_not_there_is_not_found,
    what_is_damaged_is_noticed,
    root_files_are_read,
    it_is_a_source,
);

suite!([memory, dir_batch, dir_each, passthrough, s3, s3_other]:
    nothing_is_overwritten,
    what_is_dropped_is_gone,
    of_many_writers_one_adds,
    what_is_deleted_can_come_again,
    root_files_are_replaced,
    all_objects_are_listed,
    pieces_of_any_size_add_up,
    it_is_a_target,
);

fn what_is_kept_is_read_back(at: &Fixture) {
    for (seed, len) in [0, 1, 100, 65_535, 65_536, 65_537, 1_000_000]
        .into_iter()
        .enumerate()
    {
        let bytes = noise(seed as u64, len);
        let name = name_of(&bytes);
        assert!(!at.reader.has(&name).unwrap());
        assert_eq!(put(at.writer.as_ref(), &name, &bytes).unwrap(), Stored::New);
        assert!(at.reader.has(&name).unwrap());
        assert_eq!(at.reader.stored_size(&name).unwrap(), Some(len as u64));
        assert_eq!(read(at.reader.as_ref(), &name), bytes);
        assert_eq!(get(at.reader.as_ref(), &name, len as u64).unwrap(), bytes);
        assert_eq!(verify(at.reader.as_ref(), &name).unwrap(), len as u64);
    }
    at.reader.sync().unwrap();
}

fn what_is_not_there_is_not_found(at: &Fixture) {
    let name = name_of(b"nobody has this");
    assert!(!at.reader.has(&name).unwrap());
    assert_eq!(at.reader.stored_size(&name).unwrap(), None);
    let error = at.reader.open(&name).map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StoreError::NotFound { name: n, .. } if *n == name),
        "{error}"
    );
    assert!(error.is_not_found());
    assert!(
        get(at.reader.as_ref(), &name, 10)
            .unwrap_err()
            .is_not_found()
    );
}

fn what_is_damaged_is_noticed(at: &Fixture) {
    let name = name_of(b"promised");
    put(at.writer.as_ref(), &name, b"delivered").unwrap();
    let actual = Hash::of(Algorithm::Sha1, b"delivered");
    for error in [
        get(at.reader.as_ref(), &name, 100).map(|_| ()).unwrap_err(),
        verify(at.reader.as_ref(), &name).map(|_| ()).unwrap_err(),
        transfer(at.reader.as_ref(), &MemoryStore::new(), &name, true)
            .map(|_| ())
            .unwrap_err(),
    ] {
        assert!(
            matches!(&error, StoreError::Corrupt { name: n, actual: a, .. } if *n == name && *a == actual),
            "{error}"
        );
    }
    let error = get(at.reader.as_ref(), &name, 8).unwrap_err();
    assert!(
        matches!(error, StoreError::TooLarge { limit: 8, .. }),
        "{error}"
    );
}

fn root_files_are_read(at: &Fixture) {
    let error = at.reader.read_root(".cvmfspublished").unwrap_err();
    assert!(matches!(&error, StoreError::RootNotFound { file, .. } if file == ".cvmfspublished"));
    assert!(error.is_not_found());
    at.writer.write_root(".cvmfspublished", b"C..").unwrap();
    assert_eq!(at.reader.read_root(".cvmfspublished").unwrap(), b"C..");
    at.writer.write_root("empty", b"").unwrap();
    assert_eq!(at.reader.read_root("empty").unwrap(), b"");
    for bad in ["", ".", "..", "data", "a/b", "/etc/passwd", "../x", "a\0"] {
        let error = at.reader.read_root(bad).unwrap_err();
        assert!(
            matches!(error, StoreError::BadRootName(_)),
            "{bad:?}: {error}"
        );
    }
}

fn it_is_a_source(at: &Fixture) {
    let bytes = noise(5, 300_000);
    let name = name_of(&bytes);
    put(at.writer.as_ref(), &name, &bytes).unwrap();
    for verify in [true, false] {
        let to = MemoryStore::new();
        assert_eq!(
            transfer(at.reader.as_ref(), &to, &name, verify).unwrap(),
            Stored::New
        );
        assert_eq!(
            transfer(at.reader.as_ref(), &to, &name, verify).unwrap(),
            Stored::Present
        );
        assert_eq!(read(&to, &name), bytes);
    }
}

fn it_is_a_target(at: &Fixture) {
    let from = MemoryStore::new();
    let bytes = noise(6, 300_000);
    let name = name_of(&bytes);
    put(&from, &name, &bytes).unwrap();
    assert_eq!(
        transfer(&from, at.writer.as_ref(), &name, true).unwrap(),
        Stored::New
    );
    assert_eq!(read(at.writer.as_ref(), &name), bytes);
    // a damaged one is not let in, and leaves nothing behind
    let bad = name_of(b"right");
    put(&from, &bad, b"wrong").unwrap();
    assert!(transfer(&from, at.writer.as_ref(), &bad, true).is_err());
    assert!(!at.writer.has(&bad).unwrap());
    assert_eq!(list(at.writer.as_ref()).len(), 1);
}

fn nothing_is_overwritten(at: &Fixture) {
    let store = at.writer.as_ref();
    let name = name_of(b"first");
    assert_eq!(put(store, &name, b"first").unwrap(), Stored::New);
    for other in [&b"second"[..], b"", &noise(1, 200_000)] {
        assert_eq!(put(store, &name, other).unwrap(), Stored::Present);
        assert_eq!(read(store, &name), b"first");
    }
}

fn what_is_dropped_is_gone(at: &Fixture) {
    for len in [0, 10, 1_000_000] {
        let mut pending = at.writer.begin().unwrap();
        pending.write_all(&noise(2, len)).unwrap();
        drop(pending);
    }
    assert_eq!(list(at.writer.as_ref()), []);
}

fn of_many_writers_one_adds(at: &Fixture) {
    const WRITERS: usize = 8;
    for len in [10, 100_000] {
        let bytes = noise(3, len);
        let name = name_of(&bytes);
        let start = Barrier::new(WRITERS);
        let added = std::thread::scope(|scope| {
            let write = || {
                start.wait();
                put(at.writer.as_ref(), &name, &bytes).unwrap()
            };
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(write)).collect();
            let results = writers.into_iter().map(|w| w.join().unwrap());
            results.filter(|r| *r == Stored::New).count()
        });
        assert_eq!(added, 1);
        assert_eq!(read(at.writer.as_ref(), &name), bytes);
    }
}

fn what_is_deleted_can_come_again(at: &Fixture) {
    let store = at.writer.as_ref();
    let name = name_of(b"x");
    assert!(!store.delete(&name).unwrap());
    put(store, &name, b"x").unwrap();
    assert!(store.delete(&name).unwrap());
    assert!(!store.has(&name).unwrap());
    assert_eq!(put(store, &name, b"x").unwrap(), Stored::New);
}

fn root_files_are_replaced(at: &Fixture) {
    let store = at.writer.as_ref();
    for bytes in [&b"one"[..], b"", &noise(4, 100_000)] {
        store.write_root(".cvmfsreflog", bytes).unwrap();
        assert_eq!(store.read_root(".cvmfsreflog").unwrap(), bytes);
    }
    assert!(store.remove_root(".cvmfsreflog").unwrap());
    assert!(!store.remove_root(".cvmfsreflog").unwrap());
    assert!(store.read_root(".cvmfsreflog").unwrap_err().is_not_found());
    for bad in ["", "..", "a/b", "data"] {
        assert!(matches!(
            store.write_root(bad, b"").unwrap_err(),
            StoreError::BadRootName(_)
        ));
        assert!(matches!(
            store.remove_root(bad).unwrap_err(),
            StoreError::BadRootName(_)
        ));
    }
}

fn all_objects_are_listed(at: &Fixture) {
    use ObjectKind::{Catalog, Certificate, Chunk, Data, History, MetaInfo};
    let mut expected = Vec::new();
    for algorithm in [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128] {
        for (n, kind) in [Data, Chunk, Catalog, History, Certificate, MetaInfo]
            .into_iter()
            .enumerate()
        {
            let bytes = noise(n as u64, n * 7);
            let name = ObjectName::new(Hash::of(algorithm, &bytes), kind);
            put(at.writer.as_ref(), &name, &bytes).unwrap();
            expected.push((name, bytes.len() as u64));
        }
    }
    expected.sort();
    assert_eq!(list(at.writer.as_ref()), expected);
    // a visitor's error ends it
    let mut seen = 0;
    let error = at.writer.for_each(&mut |_, _| {
        seen += 1;
        Err(StoreError::Injected(Injected("visitor")))
    });
    assert!(matches!(
        error,
        Err(StoreError::Injected(Injected("visitor")))
    ));
    assert_eq!(seen, 1);
}

fn pieces_of_any_size_add_up(at: &Fixture) {
    let bytes = noise(7, 500_000);
    for step in [977, 65_536, 65_537, 200_000] {
        let name = ObjectName::new(
            Hash::of(Algorithm::Sha1, &[step as u8, 1]),
            ObjectKind::Chunk,
        );
        let mut pending = at.writer.begin().unwrap();
        for piece in bytes.chunks(step) {
            pending.write_all(piece).unwrap();
        }
        pending.flush().unwrap();
        // what is not kept yet is nowhere
        assert!(!at.writer.has(&name).unwrap());
        assert_eq!(pending.keep(&name).unwrap(), Stored::New);
        assert_eq!(read(at.writer.as_ref(), &name), bytes);
    }
}
