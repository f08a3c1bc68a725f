//! `prepub drain`: nothing new is published, what runs comes to its end.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{REPO, Sandbox, write};

/// What does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

fn spawn(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_runs_ends_and_nothing_new_begins() {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let mut open = File::create(sandbox.root().join("open")).unwrap();
    // waits for the file to be closed
    let running = spawn(&sandbox, &["commit", REPO, "--wait", "300", "--json"]);
    until("the commit runs", || {
        sandbox.json(["status"])["running"] == 1
    });

    let drained = sandbox.json(["drain"]);
    assert_eq!(
        (&drained["drained"], &drained["running"]),
        (&true.into(), &1.into())
    );
    let status = sandbox.json(["status"]);
    assert_eq!(status["drained"], true);
    assert!(
        sandbox
            .ok(["status"])
            .contains("drained: no new commits, 1 commit is under way")
    );
    let target = format!("{REPO}/other");
    write(&sandbox.root().join("other/file"), b"staging goes on");
    for refused in [
        &["commit", &target][..],
        &["tag", "add", REPO, "now"],
        &["tag", "remove", REPO, "now"],
        &["rollback", REPO],
        &["unmount", "--commit"],
    ] {
        let said = sandbox.fails(4, refused);
        assert!(
            said.contains("prepub drain --resume"),
            "{refused:?}: {said}"
        );
    }
    sandbox.ok(["commit", &target, "--dry-run"]);

    let mut waiting = spawn(&sandbox, &["drain", "--wait", "--json"]);
    assert!(waiting.try_wait().unwrap().is_none());
    open.write_all(b"closed at last").unwrap();
    drop(open);
    let committed = running.wait_with_output().unwrap();
    assert!(committed.status.success());
    let committed: serde_json::Value = serde_json::from_slice(&committed.stdout).unwrap();
    assert_eq!(committed["published"], true);
    let waited = waiting.wait_with_output().unwrap();
    let waited: serde_json::Value = serde_json::from_slice(&waited.stdout).unwrap();
    assert_eq!(
        (&waited["drained"], &waited["running"]),
        (&true.into(), &0.into())
    );
    // whatever else it finds here
    let doctor = sandbox.run(["doctor"]).stdout;
    assert!(String::from_utf8_lossy(&doctor).contains("drained: none is let in"));
}

/// `on_unmount` is a commit too; a restart in the middle of maintenance publishes nothing.
#[test]
fn it_holds_across_restarts_and_without_a_daemon() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.unmount();
    sandbox.configure("[stage]\non_unmount = \"commit\"\n");
    sandbox.mount();
    write(&sandbox.root().join("file"), b"kept");
    sandbox.ok(["drain", "--wait"]);
    sandbox.unmount();
    let said = sandbox.fails(4, ["commit", REPO]);
    assert!(said.contains("what is staged is kept"), "{said}");
    sandbox.mount();
    sandbox.fails(4, ["commit", REPO]);
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"kept");
    sandbox.unmount();
    // by a command of its own, too
    let resumed = sandbox.json(["drain", "--undo"]);
    assert_eq!(resumed["drained"], false);
    assert_eq!(sandbox.json(["commit", REPO])["published"], true);
    sandbox.check();
}
