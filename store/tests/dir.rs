//! What is particular to a storage directory: its layout, its modes, and who else is in it.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use formats::ObjectName;
use store::{DirStore, Durability, MemoryStore, ObjectStore, StoreError, Stored, put, transfer};

use crate::support::{list, name_of, noise, read};

fn create() -> (DirStore, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (
        DirStore::create(dir.path(), Durability::Batch).unwrap(),
        dir,
    )
}

fn place(dir: &Path, name: &ObjectName) -> PathBuf {
    dir.join(name.storage_path())
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn the_skeleton() {
    let (_, dir) = create();
    let data = dir.path().join("data");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 257);
    for sub in ["00", "7f", "ff", "txn"] {
        assert_eq!(mode(&data.join(sub)), 0o755);
    }
    // again is as good as once
    DirStore::create(dir.path(), Durability::Batch).unwrap();
    // deep paths are made
    let deep = dir.path().join("srv/cvmfs/x.org");
    DirStore::create(&deep, Durability::Batch).unwrap();
    assert!(deep.join("data/txn").is_dir());
}

#[test]
fn what_is_no_storage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for path in [dir.path().join("nowhere"), dir.path().to_path_buf(), file] {
        let error = DirStore::open(&path, Durability::Batch).unwrap_err();
        assert!(
            matches!(&error, StoreError::NotAStorage { path: p, .. } if *p == path),
            "{error}"
        );
        assert!(error.to_string().contains("mkfs"), "{error}");
    }
    // a copy without data/txn can be read, and says what it lacks when it is written
    let (store, dir) = create();
    put(&store, &name_of(b"x"), b"x").unwrap();
    std::fs::remove_dir(dir.path().join("data/txn")).unwrap();
    let store = DirStore::open(dir.path(), Durability::Batch).unwrap();
    assert_eq!(read(&store, &name_of(b"x")), b"x");
    for error in [
        put(&store, &name_of(b"y"), b"y").unwrap_err(),
        store.write_root("r", b"y").unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                StoreError::NotAStorage {
                    missing: "data/txn/",
                    ..
                }
            ),
            "{error}"
        );
    }
    // as does one that lacks the directory an object belongs in
    let (store, dir) = create();
    let name = name_of(b"z");
    std::fs::remove_dir(place(dir.path(), &name).parent().unwrap()).unwrap();
    let error = put(&store, &name, b"z").unwrap_err();
    assert!(matches!(error, StoreError::NotAStorage { .. }), "{error}");
    assert!(list(&store).is_empty());
}

#[test]
fn what_stands_in_the_place_of_an_object() {
    type Make = fn(&Path);
    let kinds: [(&str, Make); 4] = [
        ("directory", |path| std::fs::create_dir(path).unwrap()),
        ("symbolic link", |path| {
            symlink("/etc/passwd", path).unwrap()
        }),
        ("symbolic link", |path| symlink("nowhere", path).unwrap()),
        ("named pipe", |path| {
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }),
    ];
    for (what, make) in kinds {
        let (store, dir) = create();
        let name = name_of(b"x");
        make(&place(dir.path(), &name));
        let from = MemoryStore::new();
        put(&from, &name, b"x").unwrap();
        for error in [
            store.has(&name).unwrap_err(),
            store.stored_size(&name).unwrap_err(),
            store.open(&name).map(|_| ()).unwrap_err(),
            put(&store, &name, b"x").unwrap_err(),
            transfer(&from, &store, &name, true).unwrap_err(),
            store.delete(&name).unwrap_err(),
        ] {
            assert!(
                matches!(&error, StoreError::Occupied { path, what: w } if *w == what && *path == place(dir.path(), &name)),
                "{what}: {error}"
            );
        }
        // a large one is refused too, and none of it is listed
        let mut pending = store.begin().unwrap();
        pending.write_all(&noise(1, 100_000)).unwrap();
        assert!(pending.keep(&name).is_err());
        assert!(list(&store).is_empty());
    }
}

#[test]
fn strangers_in_the_storage_are_left_alone() {
    let (store, dir) = create();
    put(&store, &name_of(b"x"), b"x").unwrap();
    let data = dir.path().join("data");
    for stranger in ["00/tmp", "00/.x", "ab/short", "txn/chunk.AbCdEf", "README"] {
        std::fs::write(data.join(stranger), b"?").unwrap();
    }
    assert_eq!(list(&store), [(name_of(b"x"), 1)]);
    assert_eq!(store.clean_leftovers().unwrap(), 0);
    std::fs::write(data.join("txn/prepub.1.7"), b"?").unwrap();
    assert_eq!(store.clean_leftovers().unwrap(), 1);
    assert!(data.join("txn/chunk.AbCdEf").exists());
}

#[test]
fn nothing_is_left_in_txn() {
    let (store, dir) = create();
    let txn = || {
        std::fs::read_dir(dir.path().join("data/txn"))
            .unwrap()
            .count()
    };
    for len in [10, 200_000] {
        let bytes = noise(9, len);
        put(&store, &name_of(&bytes), &bytes).unwrap();
        put(&store, &name_of(&bytes), &bytes).unwrap();
        let mut pending = store.begin().unwrap();
        pending.write_all(&bytes).unwrap();
    }
    store.write_root("r", b"1").unwrap();
    assert_eq!(txn(), 0);
}

#[test]
fn root_files_and_what_stands_in_their_place() {
    let (store, dir) = create();
    std::fs::create_dir(dir.path().join("stats")).unwrap();
    let error = store.write_root("stats", b"").unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Occupied {
                what: "directory",
                ..
            }
        ),
        "{error}"
    );
    // a link is replaced, not followed
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(&elsewhere, b"old").unwrap();
    symlink(&elsewhere, dir.path().join(".cvmfspublished")).unwrap();
    store.write_root(".cvmfspublished", b"new").unwrap();
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"old");
    assert_eq!(store.read_root(".cvmfspublished").unwrap(), b"new");
}

#[test]
fn between_directories_objects_are_linked() {
    let (from, from_dir) = create();
    let (to, to_dir) = create();
    for (len, verify) in [(10, true), (10, false), (200_000, true)] {
        let bytes = noise(len as u64 + u64::from(verify), len);
        let name = name_of(&bytes);
        put(&from, &name, &bytes).unwrap();
        assert_eq!(transfer(&from, &to, &name, verify).unwrap(), Stored::New);
        assert_eq!(
            transfer(&from, &to, &name, verify).unwrap(),
            Stored::Present
        );
        let inode = |dir: &Path| std::fs::metadata(place(dir, &name)).unwrap().ino();
        assert_eq!(inode(from_dir.path()), inode(to_dir.path()));
        // the one goes, the other stays
        assert!(from.delete(&name).unwrap());
        assert_eq!(read(&to, &name), bytes);
    }
}

#[test]
fn what_cannot_be_linked_is_copied() {
    let (from, from_dir) = create();
    let (to, to_dir) = create();
    let bytes = noise(3, 100_000);
    let name = name_of(&bytes);
    put(&from, &name, &bytes).unwrap();
    let source = place(from_dir.path(), &name);
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(transfer(&from, &to, &name, true).unwrap(), Stored::New);
    let target = place(to_dir.path(), &name);
    assert_ne!(
        std::fs::metadata(source).unwrap().ino(),
        std::fs::metadata(&target).unwrap().ino()
    );
    assert_eq!(mode(&target), 0o644);
    assert_eq!(read(&to, &name), bytes);
}

#[test]
fn between_filesystems_objects_are_copied() {
    // skipped where there is no second filesystem
    let Ok(shm) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let (from, from_dir) = create();
    let device = |dir: &Path| std::fs::metadata(dir).unwrap().dev();
    if device(shm.path()) == device(from_dir.path()) {
        return;
    }
    let to = DirStore::create(shm.path(), Durability::Each).unwrap();
    let bytes = noise(4, 100_000);
    let name = name_of(&bytes);
    put(&from, &name, &bytes).unwrap();
    assert_eq!(transfer(&from, &to, &name, true).unwrap(), Stored::New);
    assert_eq!(read(&to, &name), bytes);
}

#[test]
fn a_damaged_source_is_not_linked() {
    let (from, dir) = create();
    let (to, _to_dir) = create();
    let name = name_of(b"right");
    put(&from, &name, b"right").unwrap();
    std::fs::write(place(dir.path(), &name), b"wrong").unwrap();
    let error = transfer(&from, &to, &name, true).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(!to.has(&name).unwrap());
    let error = transfer(&from, &to, &name_of(b"missing"), false).unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
fn space_is_known() {
    let (store, dir) = create();
    assert!(store.available_bytes().unwrap().unwrap() > 0);
    assert_eq!(store.local_dir(), Some(dir.path()));
    assert_eq!(MemoryStore::new().available_bytes().unwrap(), None);
}

#[test]
fn errors_of_the_system_have_their_own_names() {
    let io = |errno: rustix::io::Errno| StoreError::io("write", "/x", errno.into());
    use rustix::io::Errno;
    assert!(matches!(io(Errno::NOSPC), StoreError::NoSpace { .. }));
    assert!(matches!(io(Errno::DQUOT), StoreError::Quota { .. }));
    assert!(matches!(io(Errno::ACCESS), StoreError::Denied { .. }));
    assert!(matches!(io(Errno::PERM), StoreError::Denied { .. }));
    assert!(matches!(
        io(Errno::ROFS),
        StoreError::ReadOnlyFilesystem { .. }
    ));
    assert!(matches!(io(Errno::IO), StoreError::Io { .. }));
    for errno in [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::ACCESS,
        Errno::ROFS,
        Errno::IO,
    ] {
        assert!(io(errno).to_string().contains("/x"));
    }
    assert!(io(Errno::NOSPC).is_out_of_space() && io(Errno::DQUOT).is_out_of_space());
}

/// Handed to the system before they have a name: nothing is there until they are kept, and then all.
#[test]
fn many_are_synced_before_any_has_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = DirStore::create(dir.path().join("storage"), Durability::Batch).unwrap();
    let contents: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 10_000 * n as usize)).collect();
    let mut pending = Vec::new();
    for bytes in &contents {
        let mut object = store.begin().unwrap();
        object.write_all(bytes).unwrap();
        object.spill().unwrap();
        pending.push(object);
    }
    store.sync().unwrap();
    assert!(list(&store).is_empty());
    for (object, bytes) in pending.into_iter().zip(&contents) {
        assert_eq!(object.keep(&name_of(bytes)).unwrap(), Stored::New);
        assert_eq!(read(&store, &name_of(bytes)), *bytes);
    }
}
