//! What a script sees: exit codes, and the fields of `--json`, whose names are a promise.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::support::{REPO, Sandbox, write};

/// All of `names` are fields of `object`.
#[track_caller]
fn has(object: &Value, names: &str) {
    let fields: BTreeSet<&str> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    for name in names.split_whitespace() {
        assert!(fields.contains(name), "{name} is none of {fields:?}");
    }
}

#[test]
fn every_promised_field_is_there() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("sw/file"), b"content");
    let _open = fs::File::create(sandbox.root().join("open")).unwrap();
    let status = sandbox.json(["status"]);
    has(&status, "daemon stale_mount state_dir repositories");
    let repository = &status["repositories"][0];
    has(
        repository,
        "repo url path base_revision published_revision root_hash staged unsealed_files \
         unsealed_bytes open_files commits errors whitelist_days on_unmount",
    );
    has(
        &repository["staged"],
        "added modified removed renamed bytes",
    );
    has(&repository["open_files"][0], "path pid command");

    let diff = sandbox.json(["diff", &format!("{REPO}/sw")]);
    has(
        &diff,
        "repo revision changes summary catalogs dropped_xattrs dropped_xattrs_more special_skipped \
         broken_links limits \
         conflicts",
    );
    has(
        &diff["changes"][0],
        "path what directory size size_before catalog",
    );

    let arguments = ["commit", &format!("{REPO}/sw"), "--tag", "v1", "-m", "text"];
    let committed = sandbox.json(arguments);
    has(
        &committed,
        "repo path published revision root_hash previous_root_hash tag files directories removed \
         bytes_raw objects_new objects_reused bytes_stored catalogs dropped_xattrs broken_links \
         special_skipped skipped warnings stratum1 seconds",
    );
    has(
        &committed["seconds"],
        "freeze store warm lease_held catalogs total",
    );
    let tags = sandbox.json(["tag", "list", REPO]);
    has(
        &tags["tags"][0],
        "name revision root_hash timestamp description",
    );
    has(&sandbox.json(["abort", REPO]), "repo path dropped");
    has(
        &sandbox.json(["check", REPO]),
        "repo healthy revision root_hash problems problem_count",
    );
    has(
        &sandbox.json(["resign", REPO]),
        "repo revision root_hash whitelist_days",
    );
    has(&sandbox.json(["doctor"]), "healthy findings");
}

/// What somebody publishes while we have staged something else, here by going back to a tag.
#[test]
fn a_conflict_is_exit_code_3() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("file"), b"one");
    write(&root.join("same"), b"same");
    sandbox.ok(["commit", REPO, "--tag", "v1"]);
    write(&root.join("file"), b"two");
    sandbox.ok(["commit", REPO]);
    write(&root.join("file"), b"three");
    write(&root.join("new"), b"new");
    sandbox.ok(["rollback", REPO, "--tag", "v1"]);

    assert!(
        sandbox
            .ok(["diff", REPO])
            .contains("conflicts with the newest revision")
    );
    let message = sandbox.fails(3, ["commit", REPO]);
    assert!(
        message.contains("/file") && !message.contains("/new"),
        "{message}"
    );
    assert!(message.contains("--on-conflict ours"), "{message}");
    let output = sandbox.run(["commit", REPO, "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&error["error"]["kind"], &error["error"]["exit_code"]),
        (&"conflict".into(), &3.into())
    );
    assert_eq!(
        fs::read(root.join("file")).unwrap(),
        b"three",
        "all is staged as before"
    );
    // what does not collide can go alone
    sandbox.ok(["commit", &format!("{REPO}/new")]);
    sandbox.ok(["commit", REPO, "--on-conflict", "ours"]);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"three");
    sandbox.check();
}

#[test]
fn a_publication_under_way_is_exit_code_4() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    write(&sandbox.root().join("file"), b"content");
    // cvmfs_server and other tools hold the same lock
    let lock = sandbox
        .state()
        .join("spool")
        .join(REPO)
        .join("is_publishing.lock");
    let lock = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(lock)
        .unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    for args in [
        &["commit", REPO][..],
        &["tag", "add", REPO, "v1"],
        &["rollback", REPO],
    ] {
        let message = sandbox.fails(4, args);
        assert!(
            message.contains("another publication is under way"),
            "{args:?}: {message}"
        );
    }
    flock(&lock, FlockOperation::Unlock).unwrap();
    assert_eq!(sandbox.json(["commit", REPO])["published"], true);
}

#[test]
fn a_writer_is_waited_for() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let path = sandbox.root().join("open");
    let mut open = fs::File::create(&path).unwrap();
    open.write_all(b"half").unwrap();
    let message = sandbox.fails(5, ["commit", REPO, "--wait", "0"]);
    assert!(
        message.contains("/open") && message.contains("--open-files skip"),
        "{message}"
    );

    let mut commit = sandbox
        .command(["commit", REPO, "--wait", "300"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(commit.stderr.take().unwrap()).lines();
    let waiting = said.find(|line| line.as_ref().unwrap().starts_with("waiting for files"));
    assert!(waiting.unwrap().unwrap().ends_with("/open"));
    open.write_all(b" and whole").unwrap();
    drop(open);
    assert!(commit.wait().unwrap().success());
    assert!(
        !sandbox.ok(["diff", REPO]).contains("open"),
        "it was published"
    );
    assert_eq!(fs::read(&path).unwrap(), b"half and whole");
    sandbox.check();
}
