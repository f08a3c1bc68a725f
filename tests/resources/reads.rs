//! Bytes that cannot be read, and caches that say what is not true.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use rustix::io::Errno;

use super::world::{Guard, World, stage};
use crate::support::layer::Tree;
use crate::support::layer::faults::{Call, Fault, Harm};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

/// Files rest until somebody asks for them: what is read comes from backing files.
const CONFIG: &str = "[stage]\nsettle = \"1h\"\n";

#[test]
fn staged_bytes_that_cannot_be_read() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut world = World::of(Sandbox::new(), Tree::new());
    world.sandbox.ok(["mkfs", REPO]);
    fs::write(world.sandbox.dir.path().join("config.toml"), CONFIG).unwrap();
    world.mount();
    let root = world.sandbox.root();
    write(&root.join("good"), b"good");
    write(&root.join("bad"), b"bad");
    let bad = backing_of(&world, b"bad");
    // nothing of it is remembered by the kernel
    world.sandbox.kill();
    let faults = world.faults();
    faults.add(Fault::lasting(&[Call::Read], bad, Harm::Fails(Errno::IO)));
    world.mount();
    let guard = Guard::over(&world);
    let error = fs::read(root.join("bad")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert_eq!(fs::read(root.join("good")).unwrap(), b"good");
    write(&root.join("more"), b"more");

    // sealing fails for that file alone, and everybody who asks is told
    world.sandbox.ok(["status", "--wait"]);
    let status = world.sandbox.json(["status", REPO]);
    let errors = status["repositories"][0]["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["path"], "/bad");
    let said = errors[0].to_string();
    assert!(said.contains("Input/output error"), "{said}");
    let message = world.sandbox.fails(1, ["commit", REPO]);
    assert!(message.contains("/bad"), "{message}");
    let open = fs::File::open(root.join("bad")).unwrap();
    let error = open.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    write(&root.join("d/part"), b"part");
    world.sandbox.ok(["commit", &format!("{REPO}/d")]);

    faults.clear();
    assert_eq!(fs::read(root.join("bad")).unwrap(), b"bad");
    world.sandbox.ok(["commit", REPO]);
    let status = world.sandbox.json(["status", REPO]);
    assert_eq!(status["repositories"][0]["errors"], serde_json::json!([]));
    open.sync_all().unwrap();
    world.sandbox.check();
    drop(guard);
    world.end();
}

/// While changes cannot be recorded, `status` says so, and says so no longer when they can.
#[test]
fn changes_that_cannot_be_recorded() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut world = World::of(Sandbox::new(), Tree::new());
    world.sandbox.ok(["mkfs", REPO]);
    fs::write(world.sandbox.dir.path().join("config.toml"), CONFIG).unwrap();
    world.mount();
    let guard = Guard::over(&world);
    let root = world.sandbox.root();
    let errors = |world: &World| {
        let status = world.sandbox.json(["status", REPO]);
        status["repositories"][0]["errors"].clone()
    };
    write(&root.join("staged"), b"staged");
    for (fault, said) in [
        (Errno::IO, "Input/output error"),
        (Errno::NOSPC, "no space left"),
        (Errno::DQUOT, "no space left"),
    ] {
        let faults = world.faults();
        let journal = stage().join("journal");
        faults.add(Fault::lasting(&Call::GROWING, journal, Harm::Fails(fault)));
        let error = fs::create_dir(root.join("dir")).unwrap_err();
        let full = Errno::NOSPC.raw_os_error();
        let expected = if fault == Errno::IO {
            fault.raw_os_error()
        } else {
            full
        };
        assert_eq!(error.raw_os_error(), Some(expected));
        assert_eq!(fs::read(root.join("staged")).unwrap(), b"staged");
        let told = errors(&world).to_string();
        assert!(told.contains("changes cannot be recorded"), "{told}");
        assert!(told.contains(said), "{told}");
        faults.clear();
        assert_eq!(errors(&world), serde_json::json!([]));
        assert!(!root.join("dir").exists());
        fs::create_dir(root.join("dir")).unwrap();
        fs::remove_dir(root.join("dir")).unwrap();
    }
    world.sandbox.ok(["commit", REPO]);
    world.sandbox.check();
    drop(guard);
    world.end();
}

/// Where a staged file's bytes lie, from the layer's root.
fn backing_of(world: &World, bytes: &[u8]) -> PathBuf {
    let backing = stage().join("backing");
    let files = walkdir::WalkDir::new(world.sandbox.state().join(&backing));
    let found = files
        .into_iter()
        .map(Result::unwrap)
        .find(|entry| entry.file_type().is_file() && fs::read(entry.path()).unwrap() == bytes);
    let found = found.expect("a backing file");
    let path = found.path();
    path.strip_prefix(world.sandbox.state()).unwrap().to_owned()
}

/// Each file of the cache, damaged in some way, is made again from what is published.
#[test]
fn a_cache_is_not_believed() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    let whole = vec![b'w'; 300_000];
    write(&root.join("file"), &whole);
    write(&root.join("nested/.cvmfscatalog"), b"");
    write(&root.join("nested/file"), b"nested");
    sandbox.ok(["commit", REPO]);
    let caches = [
        sandbox.state().join("stage").join(REPO).join("cache"),
        sandbox.state().join("cache").join(REPO),
    ];
    let damages: [fn(&mut Vec<u8>); 4] = [
        Vec::clear,
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        |bytes| bytes.fill(0),
    ];
    let mut damaged = 0;
    for damage in damages {
        // all of it is there
        assert!(fs::read(root.join("file")).unwrap() == whole);
        assert_eq!(fs::read(root.join("nested/file")).unwrap(), b"nested");
        sandbox.unmount();
        let files = caches.iter().flat_map(walkdir::WalkDir::new);
        for entry in files.filter_map(Result::ok) {
            if !entry.file_type().is_file() || entry.metadata().unwrap().len() == 0 {
                continue;
            }
            let mut bytes = fs::read(entry.path()).unwrap();
            damage(&mut bytes);
            let mut file = fs::File::create(entry.path()).unwrap();
            file.write_all(&bytes).unwrap();
            damaged += 1;
        }
        sandbox.mount();
        assert!(fs::read(root.join("file")).unwrap() == whole);
        assert_eq!(fs::read(root.join("nested/file")).unwrap(), b"nested");
        write(&root.join("new"), b"new");
        sandbox.ok(["commit", REPO]);
        sandbox.check();
        fs::remove_file(root.join("new")).unwrap();
    }
    assert!(damaged >= 4, "nothing was cached: {damaged}");
}
