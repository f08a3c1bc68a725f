//! What needs a process of its own: a filesystem that fills up, one that is read-only, a umask.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use formats::ObjectKind;
use store::content::MEMORY_PIECE_BYTES_MAX;
use store::{ContentCache, ContentLimits, DirStore, Durability, Limits};
use store::{MemoryStore, ObjectStore, RepoError, StoreError, Stored, put};

use crate::support::made::{regular, store_zlib, tree};
use crate::support::{chain, list, name_of, noise, read, shared};

/// Where a test of the other process has its filesystem.
const PLACE: &str = "STORE_TEST_PLACE";
/// As large as the filesystem is.
const TINY_BYTES: usize = 2 << 20;

/// Runs an ignored test of this binary in a process of its own, after some shell commands.
pub fn alone(test: &str, wrap: &[&str], before: &str) {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(r#"{before} && exec "$0" --exact "$1" --ignored --nocapture"#);
    let mut argv: Vec<&str> = wrap.to_vec();
    argv.extend(["sh", "-c", &script]);
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(PLACE, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{output:?}"
    );
}

/// Runs it with a filesystem of [`TINY_BYTES`]; not at all where namespaces are forbidden.
fn on_a_tiny_disk(test: &str) {
    let unshare = ["unshare", "--mount", "--map-root-user"];
    let mount = format!(r#"mount -t tmpfs -o size={TINY_BYTES},mode=755 tiny "${PLACE}""#);
    let probe = format!("{mount} && umount \"${PLACE}\"");
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(unshare[0]);
    command
        .args(&unshare[1..])
        .args(["sh", "-c", &probe])
        .env(PLACE, dir.path());
    match command.output() {
        Ok(output) if output.status.success() => alone(test, &unshare, &mount),
        _ => {}
    }
}

fn the_place() -> PathBuf {
    std::env::var_os(PLACE).unwrap().into()
}

fn fill(dir: &Path) {
    let mut file = std::fs::File::create(dir.join("filler")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    while file.write_all(&[1; 1]).is_ok() {}
}

#[test]
fn a_full_disk() {
    on_a_tiny_disk("tiny::inside_a_full_disk");
}

#[test]
#[ignore = "run by a_full_disk"]
fn inside_a_full_disk() {
    let place = the_place();
    let store = DirStore::create(place.join("storage"), Durability::Batch).unwrap();
    let (small, large) = (noise(1, 5000), noise(2, 300_000));
    put(&store, &name_of(&small), &small).unwrap();
    store.write_root(".cvmfspublished", b"old").unwrap();
    // make the temporary kind known first: a probe on a full disk is another matter
    fill(&place);
    let no_space = |error: StoreError| {
        let text = error.to_string();
        assert!(
            matches!(&error, StoreError::NoSpace { path } if path.starts_with(&place)),
            "{text}"
        );
        assert!(text.contains("free some space"), "{text}");
    };
    no_space(put(&store, &name_of(&large), &large).unwrap_err());
    let other = noise(3, 5000);
    no_space(put(&store, &name_of(&other), &other).unwrap_err());
    no_space(store.write_root(".cvmfspublished", &large).unwrap_err());
    // nothing half is there, the old is whole, and what is there needs no space
    assert_eq!(list(&store).len(), 1);
    assert_eq!(read(&store, &name_of(&small)), small);
    assert_eq!(store.read_root(".cvmfspublished").unwrap(), b"old");
    assert_eq!(
        put(&store, &name_of(&small), &small).unwrap(),
        Stored::Present
    );
    assert!(store.available_bytes().unwrap().unwrap() < 5000);

    full_caches(&place);

    std::fs::remove_file(place.join("filler")).unwrap();
    assert_eq!(put(&store, &name_of(&large), &large).unwrap(), Stored::New);
    store.write_root(".cvmfspublished", &large).unwrap();
}

fn full_caches(place: &Path) {
    let tree = tree();
    let repository = store::Repository::new(
        "x.org",
        shared(tree.store.clone()),
        vec![],
        place.join("catalogs"),
        Limits::default(),
    );
    let error = std::sync::Arc::new(repository.unwrap())
        .revision(&tree.root.hash)
        .unwrap_err();
    assert!(matches!(error, RepoError::Catalog { .. }));
    assert!(chain(&error).contains("no space left"), "{}", chain(&error));

    // what is read now goes to memory, as much of it as may be there
    let store = MemoryStore::new();
    let sizes = [
        300_000,
        300_001,
        300_002,
        MEMORY_PIECE_BYTES_MAX as usize + 1,
    ];
    let rows = sizes.map(|size| {
        let bytes = noise(4, size);
        let object = store_zlib(&store, &bytes, ObjectKind::Data);
        (
            regular(size as u64, formats::Content::Whole(object.hash)),
            bytes,
        )
    });
    let limits = ContentLimits {
        memory_bytes: 700_000,
        ..ContentLimits::default()
    };
    let cache = ContentCache::new(shared(store), place.join("content"), limits).unwrap();
    let open = rows.each_ref().map(|(row, _)| cache.open(row).unwrap());
    for round in 0..2 {
        for (file, (_, bytes)) in open.iter().zip(&rows).take(3) {
            let mut read = vec![0; bytes.len()];
            assert_eq!(file.read_at(&mut read, 0).unwrap(), bytes.len());
            assert!(read == *bytes, "round {round}");
            assert!(cache.memory_bytes() <= 700_000, "open files hold nothing");
        }
    }
    let error = open[3].read_at(&mut [0; 10], 0).unwrap_err();
    assert!(error.is_out_of_space(), "{}", chain(&error));
}

#[test]
fn a_cache_makes_room_on_a_full_disk() {
    on_a_tiny_disk("tiny::inside_a_cache_that_is_full");
}

#[test]
#[ignore = "run by a_cache_makes_room_on_a_full_disk"]
fn inside_a_cache_that_is_full() {
    // the bound is far above what there is
    let store = MemoryStore::new();
    let rows: Vec<_> = (0..20)
        .map(|n| {
            let bytes = noise(n, 300_000);
            let object = store_zlib(&store, &bytes, ObjectKind::Data);
            (
                regular(300_000, formats::Content::Whole(object.hash)),
                bytes,
            )
        })
        .collect();
    let limits = ContentLimits::default();
    let cache = ContentCache::new(shared(store), the_place(), limits).unwrap();
    for (row, bytes) in &rows {
        let mut read = vec![0; bytes.len()];
        assert_eq!(
            cache.open(row).unwrap().read_at(&mut read, 0).unwrap(),
            bytes.len()
        );
        assert_eq!(&read, bytes);
    }
    assert!(cache.disk_bytes() <= TINY_BYTES as u64);
}

#[test]
fn a_read_only_filesystem() {
    on_a_tiny_disk("tiny::inside_a_read_only_filesystem");
}

#[test]
#[ignore = "run by a_read_only_filesystem"]
fn inside_a_read_only_filesystem() {
    let place = the_place();
    let store = DirStore::create(&place, Durability::Batch).unwrap();
    put(&store, &name_of(b"x"), b"x").unwrap();
    let status = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&place)
        .status()
        .unwrap();
    assert!(status.success());
    // opened before and opened since
    for store in [store, DirStore::open(&place, Durability::Each).unwrap()] {
        assert_eq!(read(&store, &name_of(b"x")), b"x");
        for error in [
            put(&store, &name_of(b"y"), b"y").unwrap_err(),
            store.write_root("r", b"").unwrap_err(),
            store.delete(&name_of(b"x")).unwrap_err(),
        ] {
            assert!(
                matches!(error, StoreError::ReadOnlyFilesystem { .. }),
                "{error}"
            );
        }
    }
    let error = DirStore::create(place.join("new"), Durability::Batch).unwrap_err();
    assert!(
        matches!(error, StoreError::ReadOnlyFilesystem { .. }),
        "{error}"
    );
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for umask in ["077", "000", "022"] {
        alone("tiny::inside_a_umask", &[], &format!("umask {umask}"));
    }
}

#[test]
#[ignore = "run by modes_do_not_depend_on_the_umask"]
fn inside_a_umask() {
    use std::os::unix::fs::PermissionsExt;
    let place = the_place();
    let mode = |at: &str| {
        let metadata = std::fs::symlink_metadata(place.join(at)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    let store = DirStore::create(&place, Durability::Batch).unwrap();
    for len in [10, 200_000] {
        let bytes = noise(5, len);
        let name = name_of(&bytes);
        put(&store, &name, &bytes).unwrap();
        assert_eq!(mode(&name.storage_path()), 0o644);
    }
    store.write_root(".cvmfspublished", b"x").unwrap();
    assert_eq!(mode(".cvmfspublished"), 0o644);
    for dir in ["data", "data/ab", "data/txn"] {
        assert_eq!(mode(dir), 0o755);
    }
}

#[test]
fn without_permission() {
    // root is refused nothing
    if rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::create(dir.path(), Durability::Batch).unwrap();
    let txn = dir.path().join("data/txn");
    std::fs::set_permissions(&txn, std::fs::Permissions::from_mode(0o555)).unwrap();
    let error = put(&store, &name_of(b"x"), b"x").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
}

/// Failpoints are the whole process's.
#[cfg(feature = "failpoints")]
#[test]
fn stopped_halfway() {
    alone("tiny::inside_stopped_halfway", &[], "true");
}

#[cfg(feature = "failpoints")]
#[test]
#[ignore = "run by stopped_halfway"]
fn inside_stopped_halfway() {
    let place = the_place();
    let store = DirStore::create(&place, Durability::Each).unwrap();
    store.write_root(".cvmfspublished", b"old").unwrap();
    let stopped = |at: &'static str, run: &dyn Fn() -> Option<StoreError>| {
        fail::cfg(at, "return").unwrap();
        let error = run().unwrap();
        fail::remove(at);
        assert!(
            matches!(error, StoreError::Injected(store::Injected(point)) if point == at),
            "{error}"
        );
        assert_eq!(
            std::fs::read_dir(place.join("data/txn")).unwrap().count(),
            0
        );
    };
    for len in [10, 200_000] {
        let bytes = noise(6, len);
        stopped("store::keep", &|| {
            put(&store, &name_of(&bytes), &bytes).err()
        });
        assert!(!store.has(&name_of(&bytes)).unwrap());
    }
    stopped("store::write_root", &|| {
        store.write_root(".cvmfspublished", b"new").err()
    });
    assert_eq!(store.read_root(".cvmfspublished").unwrap(), b"old");
    // after the rename the new one is there, though the caller was not told
    stopped("store::wrote_root", &|| {
        store.write_root(".cvmfspublished", b"new").err()
    });
    assert_eq!(store.read_root(".cvmfspublished").unwrap(), b"new");
}
