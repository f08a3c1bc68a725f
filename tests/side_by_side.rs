//! Two commits of one repository at a time: those of different paths do not wait for one another's
//! writers, those of overlapping ones queue.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{REPO, Sandbox, write};

fn begin(sandbox: &Sandbox, path: &str) -> Child {
    let target = format!("{REPO}{path}");
    let mut command = sandbox.command(["commit", &target, "--wait", "60", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// What a commit that has come to its end said.
fn end(child: Child) -> serde_json::Value {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Until the daemon was asked for so many commits.
fn until_asked(sandbox: &Sandbox, commits: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while sandbox.log().matches("verb=\"commit\"").count() < commits {
        assert!(Instant::now() < deadline, "{}", sandbox.log());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_commit_does_not_wait_for_writers_of_another_path() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("a/closed"), b"a");
    write(&root.join("b/closed"), b"b");
    let mut open = File::create(root.join("a/open")).unwrap();
    open.write_all(b"first").unwrap();
    let mut waiting = begin(&sandbox, "/a");
    until_asked(&sandbox, 1);
    // all that needs the turn has it meanwhile
    let beside = end(begin(&sandbox, "/b"));
    assert_eq!(beside["files"], 1);
    sandbox.ok(["tag", "add", REPO, "beside"]);
    write(&root.join("c/unwanted"), b"c");
    sandbox.ok(["abort", &format!("{REPO}/c")]);
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "it waits for the writer"
    );
    open.write_all(b" and last").unwrap();
    drop(open);
    let waited = end(waiting);
    assert_eq!(waited["files"], 2);
    assert_eq!(fs::read(root.join("a/open")).unwrap(), b"first and last");
    sandbox.check();
}

#[test]
fn commits_of_overlapping_paths_queue() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("a/closed"), b"a");
    let open = File::create(root.join("a/open")).unwrap();
    let commits: Vec<Child> = ["/a", "", "/a"].map(|path| begin(&sandbox, path)).into();
    until_asked(&sandbox, commits.len());
    drop(open);
    let done: Vec<serde_json::Value> = commits.into_iter().map(end).collect();
    // whoever was first published both files, and nobody published them again
    let published = done.iter().filter(|commit| commit["published"] == true);
    let files: u64 = published
        .map(|commit| commit["files"].as_u64().unwrap())
        .sum();
    assert_eq!(files, 2, "{done:?}");
    sandbox.check();
}
