//! The program before a gateway's double.

mod doctor;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::double::client::Client;
use crate::support::behind::Behind;
use crate::support::gateway::MAX_LEASE;
use crate::support::gateway::faults::{At, Fault};
use crate::support::{REPO, Sandbox};

/// `diff` and `commit --dry-run` show what the publisher would refuse.
#[test]
fn what_is_refused_is_shown_before() {
    let Some(mut behind) = Behind::new() else {
        return;
    };
    behind.sandbox.mount();
    let sandbox = &behind.sandbox;
    let fifo = sandbox.root().join("pipe");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    fs::write(sandbox.root().join("file"), "1").unwrap();
    let said = "/pipe: a fifo, socket or device is or was here";
    for ask in [&["diff", REPO][..], &["commit", REPO, "--dry-run"]] {
        let text = sandbox.ok(ask);
        assert!(
            text.contains(&format!("refused by the publisher:\n  {said}\n")),
            "{text}"
        );
        assert!(text.contains("/file"), "{text}");
        assert_eq!(sandbox.json(ask)["refused"], json!([said]));
    }
    let before = behind.revision();
    let text = sandbox.fails(1, ["commit", REPO]);
    assert!(text.contains(said), "{text}");
    assert_eq!(behind.revision(), before);
    fs::remove_file(&fifo).unwrap();
    assert_eq!(sandbox.json(["diff", REPO])["refused"], json!([]));
    sandbox.ok(["commit", REPO]);
    assert_eq!(behind.revision(), before + 1);
    assert_eq!(behind.gateway.leases(), 0);
    behind.stratum0.check();
}

/// At each request of a commit: what was staged is published or staged still, and nobody has to see
/// to it.
#[test]
fn a_network_that_fails() {
    let Some(mut behind) = Behind::new() else {
        return;
    };
    behind.sandbox.mount();
    for at in [At::Lease, At::Payload, At::Commit, At::Drop] {
        for fault in [Fault::Cut, Fault::LostReply] {
            let context = format!("{at:?}, {fault:?}");
            let (sandbox, before) = (&behind.sandbox, behind.revision());
            let name = format!("{at:?}-{fault:?}");
            fs::write(sandbox.root().join(&name), &name).unwrap();
            behind.gateway.faults().add(at, fault);
            let committed = sandbox.run(["commit", REPO]);
            let is_new = behind.revision() == before + 1;
            assert_eq!(
                committed.status.success(),
                is_new,
                "{context}: {committed:?}"
            );
            let staged = sandbox.json(["diff", REPO]);
            let staged = staged["changes"].as_array().unwrap().len();
            assert_eq!(staged, usize::from(!is_new), "{context}");
            // its token was in the answer, and nowhere else
            let lost = (at, fault) == (At::Lease, Fault::LostReply);
            assert_eq!(behind.gateway.leases(), usize::from(lost), "{context}");
            behind.gateway.advance(MAX_LEASE * 2);
            sandbox.ok(["commit", REPO]);
            assert_eq!(behind.revision(), before + 1, "{context}: once");
            assert_eq!(behind.gateway.leases(), 0, "{context}");
            assert_eq!(
                fs::read(sandbox.root().join(&name)).unwrap(),
                name.as_bytes()
            );
        }
    }
    behind.stratum0.check();
}

fn begin(sandbox: &Sandbox, args: &[&str]) -> Child {
    let mut command = sandbox.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn end(commit: Child) {
    let output = commit.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// One waits for a path that somebody else has leased, the other is published meanwhile.
#[test]
fn commits_of_one_machine_go_on_side_by_side() {
    let Some(mut behind) = Behind::new() else {
        return;
    };
    behind.sandbox.mount();
    let (sandbox, root) = (&behind.sandbox, behind.sandbox.root());
    for dir in ["a", "b", "x", "xy"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    sandbox.ok(["commit", REPO]);
    for dir in ["a", "b", "x", "xy"] {
        fs::write(root.join(dir).join("new"), dir).unwrap();
    }
    let at = |path: &str| format!("{REPO}{path}");
    let other = Client::new(behind.gateway.address(), REPO, "key", "secret");
    let theirs = other.lease("/a");
    let mut waits = begin(sandbox, &["commit", &at("/a"), "--wait", "60"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let step = || sandbox.json(["status", REPO])["repositories"][0]["commits"][0]["step"].clone();
    while step() != "store" {
        assert!(Instant::now() < deadline, "{}", sandbox.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = behind.revision();
    sandbox.ok(["commit", &at("/b")]);
    assert_eq!(behind.revision(), before + 1);
    assert!(
        waits.try_wait().unwrap().is_none(),
        "it waits for the lease"
    );
    other.drop_lease(&theirs);
    end(waits);
    assert_eq!(behind.revision(), before + 2);
    // to the gateway one of these is within the other: ours is waited for without being asked to
    let both = ["/x", "/xy"].map(|path| begin(sandbox, &["commit", &at(path)]));
    both.into_iter().for_each(end);
    assert_eq!(behind.revision(), before + 4);
    assert_eq!(sandbox.json(["diff", REPO])["changes"], json!([]));
    assert_eq!(behind.gateway.leases(), 0);
    behind.stratum0.check();
}

/// A process that died without a commit leaves no record of one, and a lease all the same.
#[test]
fn what_a_look_left_behind_is_dropped_by_the_next_mount() {
    let Some(mut behind) = Behind::new() else {
        return;
    };
    behind.sandbox.mount();
    behind.sandbox.unmount();
    let mut doctor = behind.sandbox.command(["doctor", REPO]);
    let killed = doctor.env("FAILPOINTS", "gateway::noted=return(kill)");
    assert!(!killed.output().unwrap().status.success());
    assert_eq!(behind.gateway.leases(), 1);
    behind.sandbox.mount();
    assert_eq!(behind.gateway.leases(), 0);
}
