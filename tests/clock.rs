//! A clock that jumps: revisions keep their order, nothing waits for it, nothing is lost.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::golden::manifest_field;
use crate::support::{REPO, Sandbox, write};

/// The manifest's time and revision: neither ever goes back.
fn published(sandbox: &Sandbox) -> (u64, u64) {
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    let number = |key| manifest_field(&manifest, key).unwrap().parse().unwrap();
    (number(b'T'), number(b'S'))
}

/// Uses the daemon for all that looks at the clock.
fn work(sandbox: &Sandbox, name: &str) {
    let before = published(sandbox);
    let path = sandbox.root().join(name);
    write(&path, name.as_bytes());
    sandbox.ok(["status", REPO, "--wait"]);
    write(&path, &name.as_bytes().repeat(2));
    sandbox.ok(["commit", REPO, "--tag", name]);
    let after = published(sandbox);
    assert!(after.0 >= before.0, "{name}: {before:?} {after:?}");
    assert_eq!(after.1, before.1 + 1, "{name}");
    sandbox.ok(["tag", "add", REPO, &format!("{name}-again")]);
    assert!(published(sandbox).0 >= after.0, "{name}");
    sandbox.check();
}

#[test]
fn a_clock_that_was_set_back_holds_nobody_up() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    work(&sandbox, "before");
    let before = fs::metadata(sandbox.root().join("before")).unwrap().mtime();
    write(&sandbox.root().join("staged"), b"staged");
    sandbox.unmount();

    // ten days back: before the whitelist was signed, and before everything staged
    sandbox.mount_with(&[("FAILPOINTS", "clock=return(-864000)")]);
    assert_eq!(fs::read(sandbox.root().join("staged")).unwrap(), b"staged");
    work(&sandbox, "back");
    let back = fs::metadata(sandbox.root().join("back")).unwrap().mtime();
    assert!(
        back <= before - 863_000,
        "{before} {back}: files have the time that the clock says"
    );
    let looked = sandbox
        .command(["doctor", REPO])
        .env("FAILPOINTS", "clock=return(-864000)")
        .output()
        .unwrap();
    let looked = String::from_utf8_lossy(&looked.stdout).into_owned();
    assert!(looked.contains("ahead of this machine's clock"), "{looked}");
    sandbox.ok(["rollback", REPO, "--tag", "before"]);
    sandbox.ok(["resign", REPO]);
    sandbox.check();
    sandbox.unmount();

    sandbox.mount();
    work(&sandbox, "after");
}

#[test]
fn a_clock_that_jumps_back_in_the_middle() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.unmount();
    // right for its first 30 looks, then an hour back, a year back, and right again
    let jumps = "clock=30*off->20*return(-3600)->20*return(-31536000)->off";
    sandbox.mount_with(&[("FAILPOINTS", jumps)]);
    for round in 0..12 {
        work(&sandbox, &format!("round{round}"));
    }
    sandbox.unmount();
    sandbox.mount();
    for round in 0..12 {
        assert!(sandbox.root().join(format!("round{round}")).is_file());
    }
}

#[test]
fn a_clock_that_is_ahead_stops_commits_and_loses_nothing() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.unmount();
    // past the end of the whitelist
    sandbox.mount_with(&[("FAILPOINTS", "clock=return(3456000)")]);
    write(&sandbox.root().join("file"), b"content");
    let refused = sandbox.fails(1, ["commit", REPO]);
    assert!(
        refused.contains("expired") && refused.contains("prepub resign"),
        "{refused}"
    );
    sandbox.unmount();
    sandbox.mount();
    sandbox.ok(["commit", REPO]);
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"content");
    sandbox.check();
}
