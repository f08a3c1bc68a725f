//! The main job and its ends: write into the mount, look, commit, read back; and what a user meets
//! on the way when something is wrong.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{REPO, Sandbox, client, write};

fn served(sandbox: &Sandbox) -> String {
    let status = sandbox.json(["status"]);
    let repository = &status["repositories"][0];
    assert_eq!(repository["repo"], REPO);
    repository["url"]
        .as_str()
        .expect("the daemon serves it")
        .to_owned()
}

/// A tree with every kind of thing an ordinary user can make.
fn make_tree(root: &Path) {
    fs::create_dir_all(root).unwrap();
    write(&root.join("file"), b"content\n");
    write(&root.join("empty"), b"");
    write(&root.join("dir/deep/er/file"), b"deep\n");
    write(&root.join("big"), &noise(40 << 20));
    write(&root.join("zeros"), &vec![0; 30 << 20]);
    symlink("file", root.join("link")).unwrap();
    symlink("no/such/thing", root.join("dangling")).unwrap();
    write(&root.join("script"), b"#!/bin/sh\n");
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    write(&root.join("nested/.cvmfscatalog"), b"");
    write(&root.join("nested/inside/file"), b"in a nested catalog\n");
    for i in 0..500 {
        write(
            &root.join(format!("many/{i:03}")),
            format!("{i}\n").as_bytes(),
        );
    }
}

/// Bytes that do not compress and that chunk.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn written_committed_and_read_back_by_another_client() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let source = sandbox.dir.path().join("source");
    make_tree(&source);
    copy(&source, &sandbox.root().join("sw"));

    let before = sandbox.json(["status", REPO, "--wait"]);
    assert_eq!(before["repositories"][0]["unsealed_files"], 0);
    let outcome = sandbox.json(["commit", REPO, "-m", "first", "--tag", "v1"]);
    assert_eq!(outcome["repo"], REPO);
    assert_eq!(outcome["tag"], "v1");
    assert!(outcome["files"].as_u64().unwrap() >= 508, "{outcome}");
    assert!(outcome["objects_new"].as_u64().unwrap() > 500, "{outcome}");
    assert!(outcome["seconds"]["total"].is_number(), "{outcome}");
    client::assert_same(&served(&sandbox), &source, &["--below", "/sw"]);
    sandbox.check();

    // the mount shows the same after the commit, and again after a restart
    for _ in 0..2 {
        let same = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(&source)
            .arg(sandbox.root().join("sw"))
            .status()
            .unwrap();
        assert!(same.success());
        sandbox.unmount();
        sandbox.mount();
    }
    let staged = sandbox.json(["status", REPO])["repositories"][0]["staged"].clone();
    for what in ["added", "modified", "removed", "renamed", "bytes"] {
        assert_eq!(staged[what], 0, "{staged}");
    }
}

#[test]
fn no_change_no_revision() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"1");
    let first = sandbox.json(["commit", REPO]);
    let second = sandbox.json(["commit", REPO]);
    assert_eq!(second["revision"], first["revision"], "nothing was staged");

    // equal bytes written again with the same time are no change either
    let path = sandbox.root().join("file");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"1").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    let third = sandbox.json(["commit", REPO]);
    assert_eq!(
        third["revision"], first["revision"],
        "equal content, equal time"
    );

    let forced = sandbox.json(["commit", REPO, "--allow-empty"]);
    assert_eq!(
        forced["revision"].as_u64().unwrap(),
        first["revision"].as_u64().unwrap() + 1
    );
    sandbox.check();
}

#[test]
fn only_the_target_is_published() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("a/file"), b"a");
    write(&sandbox.root().join("b/file"), b"b");
    sandbox.ok(["commit", &format!("{REPO}/a")]);
    let diff = sandbox.ok(["diff", REPO]);
    assert!(
        diff.contains("b/file") && !diff.contains("a/file"),
        "{diff}"
    );
    // by path below the mount, too
    sandbox.ok(["commit".as_ref(), sandbox.root().join("b").as_os_str()]);
    assert_eq!(
        sandbox
            .ok(["diff", REPO])
            .lines()
            .filter(|l| l.contains("file"))
            .count(),
        0
    );
    sandbox.check();
}

#[test]
fn a_moved_directory_is_rows_only() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    make_tree(&sandbox.root().join("v1"));
    sandbox.ok(["commit", REPO]);
    fs::rename(sandbox.root().join("v1"), sandbox.root().join("v2")).unwrap();
    let outcome = sandbox.json(["commit", REPO]);
    assert_eq!(
        outcome["bytes_raw"], 0,
        "no file's bytes are touched: {outcome}"
    );
    assert!(!sandbox.root().join("v1").exists());
    assert_eq!(
        fs::read(sandbox.root().join("v2/dir/deep/er/file")).unwrap(),
        b"deep\n"
    );
    let source = sandbox.dir.path().join("source");
    copy(&sandbox.root().join("v2"), &source);
    client::assert_same(&served(&sandbox), &source, &["--below", "/v2"]);
    sandbox.check();
}

#[test]
fn abort_and_discard_bring_the_published_tree_back() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("kept/file"), b"published");
    sandbox.ok(["commit", REPO]);
    fs::remove_dir_all(sandbox.root().join("kept")).unwrap();
    write(&sandbox.root().join("new/file"), b"staged");
    sandbox.ok(["abort", &format!("{REPO}/new")]);
    assert!(!sandbox.root().join("new").exists());
    assert!(
        !sandbox.root().join("kept").exists(),
        "abort touches only its path"
    );
    sandbox.ok([
        "unmount".as_ref(),
        sandbox.mountpoint().as_os_str(),
        "--discard".as_ref(),
    ]);
    sandbox.wait_for_exit();
    sandbox.mount();
    assert_eq!(
        fs::read(sandbox.root().join("kept/file")).unwrap(),
        b"published"
    );
}

#[test]
fn unmount_keeps_or_commits() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"staged");
    sandbox.unmount();
    sandbox.mount();
    assert_eq!(
        fs::read(sandbox.root().join("file")).unwrap(),
        b"staged",
        "kept by default"
    );
    sandbox.ok([
        "unmount".as_ref(),
        sandbox.mountpoint().as_os_str(),
        "--commit".as_ref(),
    ]);
    sandbox.wait_for_exit();
    let diff = sandbox.ok(["diff", REPO]);
    assert!(!diff.contains("file"), "{diff}");
    sandbox.check();
}

#[test]
fn tags_and_rollback() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let file = sandbox.root().join("file");
    write(&file, b"one");
    sandbox.ok(["commit", REPO, "--tag", "v1", "-m", "the first"]);
    write(&file, b"two");
    sandbox.ok(["commit", REPO, "--tag", "v2"]);
    let tags = sandbox.ok(["tag", "list", REPO]);
    for name in ["v1", "v2", "trunk", "trunk-previous", "the first"] {
        assert!(tags.contains(name), "{name} is not in\n{tags}");
    }
    write(&sandbox.root().join("another"), b"x");
    let message = sandbox.fails(1, ["commit", REPO, "--tag", "v1"]);
    assert!(message.contains("v1"), "{message}");
    assert!(
        sandbox.root().join("another").exists(),
        "the stage survives a refused tag"
    );
    for bad in ["trunk", "with space", ""] {
        let output = sandbox.run(["commit", REPO, "--tag", bad]);
        assert!(!output.status.success(), "tag {bad:?} was taken");
    }
    sandbox.ok(["abort", REPO]);
    sandbox.ok(["rollback", REPO, "--tag", "v1"]);
    assert_eq!(fs::read(&file).unwrap(), b"one", "the mount follows");
    sandbox.check();
}

#[test]
fn metadata_links_and_types_go_through() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("a"), b"a");
    write(&root.join("becomes-dir"), b"file");
    write(&root.join("becomes-file/x"), b"x");
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    assert_eq!(fs::metadata(root.join("a")).unwrap().nlink(), 2);
    sandbox.ok(["commit", REPO]);
    fs::remove_file(root.join("becomes-dir")).unwrap();
    write(&root.join("becomes-dir/y"), b"y");
    fs::remove_dir_all(root.join("becomes-file")).unwrap();
    write(&root.join("becomes-file"), b"now a file");
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    assert_eq!(fs::metadata(root.join("a")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(root.join("becomes-dir/y")).unwrap(), b"y");
    assert_eq!(fs::read(root.join("becomes-file")).unwrap(), b"now a file");
}

#[test]
fn what_a_user_may_get_wrong() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("a/b/file"), b"x");
    let missing = sandbox.fails(1, ["commit", &format!("{REPO}/no/such/path")]);
    assert!(missing.contains("no/such/path"), "{missing}");
    sandbox.fails(2, ["commit", "/etc"]);
    sandbox.fails(2, ["commit"]);
    sandbox.fails(2, ["commit", "unknown.example.org"]);
    let other = "other.example.org";
    sandbox.ok(["mkfs", other]);
    sandbox.fails(2, ["commit", REPO, other]);
    // the nested target is within the first: one revision, nothing twice
    sandbox.ok(["commit", &format!("{REPO}/a"), &format!("{REPO}/a/b")]);
    sandbox.check();
}

#[test]
fn dry_run_publishes_nothing() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"x");
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    let text = sandbox.ok(["commit", REPO, "--dry-run"]);
    assert!(text.contains("file"), "{text}");
    assert_eq!(
        fs::read(sandbox.storage().join(".cvmfspublished")).unwrap(),
        manifest
    );
    assert!(sandbox.ok(["diff", REPO]).contains("file"));
}

#[test]
fn a_second_daemon_is_refused() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let second = sandbox.dir.path().join("second");
    fs::create_dir(&second).unwrap();
    let message = sandbox.fails(1, ["mount".as_ref(), second.as_os_str()]);
    assert!(
        message.contains(&sandbox.daemon_pid().to_string()),
        "{message}"
    );
}

#[test]
fn a_stale_mount_is_recovered() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"closed");
    sandbox.kill();
    assert!(
        fs::read_dir(sandbox.mountpoint()).is_err(),
        "the dead daemon's mount is still there"
    );
    sandbox.mount();
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"closed");
}
