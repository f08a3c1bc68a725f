//! `kill -9` of a daemon that publishes through a gateway, at each step of it: the repository is old or
//! new, what was staged is there, the next `prepub commit` needs no help, and no lease is left.

use std::fs;

use crate::support::behind::Behind;
use crate::support::gateway::MAX_LEASE;
use crate::support::{REPO, skip_unless};

/// The points of the publisher, in order.
pub const PUBLISHING: &[&str] = &[
    "gateway::before_lease",
    LOST,
    "gateway::noted",
    "gateway::before_payload",
    "gateway::after_payload",
    "gateway::before_drop",
    "gateway::after_drop",
    "gateway::brought",
    "gateway::before_commit",
    "gateway::after_commit",
];
/// Those that are passed where its storage is written from here, with what is done there before the lease
/// and under it.
const IN_ITS_STORAGE: &[&str] = &[
    "commit::frozen",
    "commit::noted",
    "commit::stored",
    "gateway::before_lease",
    LOST,
    "gateway::noted",
    "commit::leased",
    "commit::catalogs",
    "gateway::brought",
    "gateway::before_commit",
    "gateway::after_commit",
    "commit::visible",
];
/// The lease is granted, and its token noted nowhere: nobody can drop it any more.
const LOST: &str = "gateway::granted";

/// True where a kill cannot be had.
fn cannot_kill() -> bool {
    skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
}

impl Behind {
    /// Commits one more file in a daemon that is killed at `fault`; what is found afterwards is put
    /// right by nobody. False if it was not killed.
    fn survives(&mut self, fault: &str, name: &str) -> bool {
        // named with whatever fails
        eprintln!("killed at {fault}");
        let before = self.revision();
        self.sandbox.mount_with(&[("FAILPOINTS", fault)]);
        fs::write(self.sandbox.root().join(name), name).unwrap();
        let committed = self.sandbox.run(["commit", REPO]);
        let died = !committed.status.success();
        assert!(!died || self.sandbox.has_died(), "{fault}: {committed:?}");
        self.sandbox.kill();
        self.sandbox.mount();
        let is_new = self.revision() == before + 1;
        assert!(is_new || self.revision() == before, "{fault}");
        assert!(is_new || died, "{fault}: it was told");
        let file = self.sandbox.root().join(name);
        assert_eq!(fs::read_to_string(&file).unwrap(), name, "{fault}");
        let staged = self.sandbox.json(["diff", REPO]);
        let staged = staged["changes"].as_array().unwrap().len();
        assert_eq!(staged, usize::from(!is_new), "{fault}");
        if fault.starts_with(LOST) && died {
            assert_eq!(self.gateway.leases(), 1, "{fault}");
            self.gateway.advance(MAX_LEASE * 2);
        }
        assert_eq!(self.gateway.leases(), 0, "{fault}");
        self.sandbox.ok(["commit", REPO]);
        assert_eq!(self.revision(), before + 1, "{fault}: once");
        assert_eq!(self.gateway.leases(), 0, "{fault}");
        let staged = self.sandbox.json(["diff", REPO]);
        assert_eq!(staged["changes"].as_array().unwrap().len(), 0, "{fault}");
        self.sandbox.unmount();
        for place in ["txn", "spool"] {
            let left = walkdir::WalkDir::new(self.sandbox.state().join(place));
            let left = left.into_iter().map(Result::unwrap);
            let left: Vec<_> = left.filter(|e| e.file_type().is_file()).collect();
            assert!(left.is_empty(), "{fault}: {left:?}");
        }
        died
    }
}

fn sweep(mut world: Behind, points: &[&str]) {
    let all = std::env::var("PREPUB_SWEEP").is_ok_and(|how| how == "all");
    let passages = if all { 0..u64::MAX } else { 0..2 };
    for point in points {
        for earlier in passages.clone() {
            let fault = match earlier {
                0 => format!("{point}=return(kill)"),
                n => format!("{point}={n}*off->return(kill)"),
            };
            let name = format!("{}-{earlier}", point.replace("::", "-"));
            let died = world.survives(&fault, &name);
            assert!(died || earlier > 0, "{point} was not passed");
            if !died {
                break;
            }
        }
    }
    world.stratum0.check();
    let growing = fs::read_dir(world.stratum0.storage().join("data/txn")).unwrap();
    assert_eq!(growing.count(), 0, "what was begun is gone");
}

#[test]
fn killed_while_publishing() {
    if cannot_kill() {
        return;
    }
    if let Some(world) = Behind::new() {
        sweep(world, PUBLISHING);
    }
}

/// Objects and catalogs lie in the gateway's storage before it knows of them.
#[test]
fn killed_while_publishing_into_its_storage() {
    if cannot_kill() {
        return;
    }
    if let Some(world) = Behind::with_storage() {
        sweep(world, IN_ITS_STORAGE);
    }
}

/// What a killed process held is given back by the next, which may be killed at that.
#[test]
fn killed_while_a_leftover_is_dropped() {
    if cannot_kill() {
        return;
    }
    let Some(mut world) = Behind::new() else {
        return;
    };
    let noted = [("FAILPOINTS", "gateway::noted=return(kill)")];
    world.sandbox.mount_with(&noted);
    fs::write(world.sandbox.root().join("f"), "f").unwrap();
    assert!(!world.sandbox.run(["commit", REPO]).status.success());
    assert!(world.sandbox.has_died());
    assert_eq!(world.gateway.leases(), 1);
    let dropped = [("FAILPOINTS", "gateway::leftover_dropped=return(kill)")];
    assert!(world.sandbox.try_mount(REPO, &dropped).is_err());
    assert_eq!(world.gateway.leases(), 0);
    world.sandbox.mount();
    world.sandbox.ok(["commit", REPO]);
    assert_eq!(world.gateway.leases(), 0);
    world.sandbox.unmount();
    world.stratum0.check();
}
