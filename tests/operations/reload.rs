//! A daemon takes up another configuration, and logs more or less, while it runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{REPO, Sandbox, by, can_mount, is_root, skip_unless, write};

/// What does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);
const QUOTA: &str = "[stage]\nquota = \"1MiB\"\n";

/// A mount with a configuration; none where nothing can be mounted.
fn mounted_with(config: &str) -> Option<Sandbox> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    let mut sandbox = Sandbox::new();
    sandbox.configure(config);
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    Some(sandbox)
}

fn names(value: &serde_json::Value) -> Vec<&str> {
    let all = value.as_array().unwrap().iter();
    all.map(|name| name.as_str().unwrap()).collect()
}

fn hang_up(sandbox: &Sandbox) {
    let pid = Pid::from_raw(i32::try_from(sandbox.daemon_pid()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
}

fn until_logged(sandbox: &Sandbox, words: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !sandbox.log().contains(words) {
        assert!(
            Instant::now() < deadline,
            "{words} is not in the log:\n{}",
            sandbox.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn fits(sandbox: &Sandbox, name: &str) -> bool {
    let file = sandbox.root().join(name);
    let written = fs::write(&file, vec![7; 2 << 20]).is_ok();
    fs::remove_file(&file).unwrap();
    written
}

#[test]
fn what_can_change_at_once_does_and_the_rest_is_named() {
    let Some(mut sandbox) = mounted_with("") else {
        return;
    };
    assert!(fits(&sandbox, "a"));
    sandbox.configure(QUOTA);
    assert_eq!(names(&sandbox.json(["reload"])["changed"]), ["stage.quota"]);
    assert!(!fits(&sandbox, "b"));
    sandbox.configure("[serve]\nenabled = false\n[commit]\nwait = \"1s\"\n");
    // named until there was a restart
    for changed in [&["commit.wait", "stage.quota"][..], &[]] {
        let reloaded = sandbox.json(["reload"]);
        assert_eq!(names(&reloaded["changed"]), changed);
        assert_eq!(names(&reloaded["restart"]), ["serve.enabled"]);
    }
    assert!(
        sandbox
            .ok(["reload"])
            .contains("restart needed for: serve.enabled")
    );
    until_logged(&sandbox, "restart needed for: serve.enabled");
    assert!(fits(&sandbox, "c"));
    // a signal does the same, and ends nobody
    sandbox.configure(&format!("{QUOTA}settle = \"100ms\"\n"));
    hang_up(&sandbox);
    until_logged(
        &sandbox,
        "changed=[\"commit.wait\", \"stage.quota\", \"stage.settle\"]",
    );
    assert!(!fits(&sandbox, "d"));
    assert!(sandbox.is_alive());
    sandbox.unmount();
}

#[test]
fn a_wrong_file_is_refused_and_the_former_one_holds() {
    let Some(mut sandbox) = mounted_with(QUOTA) else {
        return;
    };
    for wrong in ["[stage]\nqota = \"1TiB\"\n", "[stage\n"] {
        sandbox.configure(wrong);
        let output = sandbox.run(["reload"]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("every.toml, line"), "{said}");
    }
    hang_up(&sandbox);
    until_logged(
        &sandbox,
        "the configuration is refused, and the former one holds",
    );
    assert!(!fits(&sandbox, "a") && sandbox.is_alive());
    sandbox.configure("");
    sandbox.ok(["reload"]);
    assert!(fits(&sandbox, "b"));
    sandbox.unmount();
    let said = sandbox.fails(7, ["reload"]);
    assert!(said.contains("no daemon runs"), "{said}");
    sandbox.fails(7, ["log-level"]);
}

#[test]
fn rights_change_at_once() {
    if skip_unless(is_root(), "root") {
        return;
    }
    let Some(sandbox) = mounted_with("") else {
        return;
    };
    for place in [sandbox.dir.path(), &sandbox.root()] {
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let may_write = |name: &str| {
        let mut touch = by([65534, 65534]);
        touch.arg("touch").arg(sandbox.root().join(name));
        touch.output().unwrap().status.success()
    };
    let allow = |user: &str| {
        sandbox.configure(&format!(
            "[[repository.\"{REPO}\".allow]]\nusers = [\"{user}\"]\nmay = [\"write\"]\n"
        ));
        let reloaded = sandbox.json(["reload"]);
        assert!(names(&reloaded["restart"]).is_empty(), "{reloaded}");
    };
    assert!(may_write("a"));
    allow("4711");
    assert!(!may_write("b"));
    allow("65534");
    assert!(may_write("c"));
}

#[test]
fn what_is_logged_changes_and_comes_back() {
    let Some(sandbox) = mounted_with("") else {
        return;
    };
    let commit = |name: &str| {
        write(&sandbox.root().join(name), name.as_bytes());
        let before = sandbox.log().matches(" committed").count();
        sandbox.ok(["commit", REPO]);
        sandbox.log().matches(" committed").count() - before
    };
    assert_eq!(commit("a"), 1);
    assert_eq!(sandbox.json(["log-level"])["filter"], "info");
    let level = sandbox.json(["log-level", "error,fsimpl=debug"]);
    assert_eq!(level["configured"], "info");
    let filter = level["filter"].as_str().unwrap();
    assert!(
        filter.contains("fsimpl=debug") && filter.contains("error"),
        "{filter}"
    );
    assert_eq!(commit("b"), 0);
    let said = sandbox.fails(2, ["log-level", "fsimpl=loud"]);
    assert!(said.contains("no log level"), "{said}");
    assert_eq!(sandbox.json(["log-level"])["filter"], filter);
    sandbox.ok(["reload"]);
    assert_eq!(commit("c"), 1);
}
