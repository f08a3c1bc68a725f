//! A machine that stopped, met through the program: files that were not on disk are named, are not
//! published by mistake, and there are ways out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;

use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

/// Tells the daemon that the machine was started anew.
const ANOTHER_BOOT: (&str, &str) = ("FAILPOINTS", "clock::boot_id=return(another)");

/// A mounted repository whose files are not sealed before somebody waits for it.
fn unhurried() -> Option<(Sandbox, String)> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let config = sandbox.dir.path().join("config.toml");
    fs::write(&config, "[stage]\nsettle = \"1h\"\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    sandbox.mount_with(&[("PREPUB_CONFIG", &config)]);
    Some((sandbox, config))
}

#[test]
fn files_that_were_not_on_disk_are_named_and_refused() {
    if skip_unless(cfg!(feature = "failpoints"), "the feature failpoints") {
        return;
    }
    let Some((mut sandbox, config)) = unhurried() else {
        return;
    };
    let root = sandbox.root();
    fs::create_dir(root.join("d")).unwrap();
    let mut synced = fs::File::create(root.join("d/synced")).unwrap();
    synced.write_all(b"synced").unwrap();
    synced.sync_all().unwrap();
    drop(synced);
    write(&root.join("d/lost"), &[b'l'; 10_000]);
    write(&root.join("d/torn"), &[b't'; 10_000]);
    write(&root.join("d/fine"), &[b'f'; 10_000]);
    sandbox.kill();
    let backing = sandbox.state().join("stage").join(REPO).join("backing");
    for entry in walkdir::WalkDir::new(backing) {
        let path = entry.unwrap().into_path();
        match fs::read(&path) {
            Ok(bytes) if bytes.first() == Some(&b'l') => fs::write(&path, b"").unwrap(),
            Ok(bytes) if bytes.first() == Some(&b't') => fs::File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all_at(&[0; 4096], 4096)
                .unwrap(),
            _ => {}
        }
    }
    sandbox.mount_with(&[("PREPUB_CONFIG", &config), ANOTHER_BOOT]);

    assert_eq!(fs::read(root.join("d/synced")).unwrap(), b"synced");
    let status = sandbox.json(["status", REPO]);
    let errors = status["repositories"][0]["errors"].as_array().unwrap();
    let named: Vec<&str> = errors.iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(named, ["/d/fine", "/d/lost", "/d/torn"]);
    let said = sandbox.ok(["status", REPO]);
    assert!(said.contains("/d/lost: the machine stopped"), "{said}");
    let said = sandbox.fails(1, ["commit", REPO]);
    for part in ["/d/fine", "/d/lost", "/d/torn", "--accept-unsynced"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("/d/synced"), "{said}");

    write(&root.join("d/lost"), b"written again");
    fs::remove_file(root.join("d/torn")).unwrap();
    let committed = sandbox.json(["commit", REPO, "--accept-unsynced"]);
    assert_eq!(committed["files"], 3);
    assert_eq!(fs::read(root.join("d/fine")).unwrap(), [b'f'; 10_000]);
    assert_eq!(fs::read(root.join("d/lost")).unwrap(), b"written again");
    let status = sandbox.json(["status", REPO]);
    assert!(
        status["repositories"][0]["errors"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    sandbox.check();
}
