//! `kill -9` at each durable step, by its failpoint: one script passes them all, and whatever the
//! moment, what was acknowledged is there, nothing else is, the repository is at the old revision or
//! the new one, and no file is left that nobody accounts for.
//!
//! [`gateway`] does so to a publisher behind one. The short form kills at the first two passages of each point, `scripts/soak sweep`
//! (`PREPUB_SWEEP=all`) at every one.

mod gateway;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;

use crate::support::script::{Excuse, Run, prepared};
use crate::support::{REPO, skip_unless, workspace_root};

/// Passed in passing, some seconds after the last file that needs it.
const LATER: &[&str] = &["backing::remove", "fsimpl::sealed_synced"];
/// The points that the script passes, by the room they are in.
const STAGING: &[&str] = &[
    "journal::record",
    "journal::recorded",
    "journal::sync",
    "journal::synced",
    "backing::made",
    "backing::remove",
    "seal::store",
    "fsimpl::sealed_synced",
    "store::keep",
];
const COMMITTING: &[&str] = &[
    "txn::record",
    "txn::clear",
    "commit::frozen",
    "commit::noted",
    "commit::stored",
    "commit::leased",
    "commit::catalogs",
    "commit::visible",
    "hook::visible",
    "hook::retired",
];
const PUBLISHING: &[&str] = &[
    "stratum0::before_sync",
    "records::before_checksum",
    "stratum0::after_reflog",
    "stratum0::before_manifest",
    "store::write_root",
    "store::wrote_root",
    "stratum0::after_manifest",
    "tags::before_objects",
    "tags::before_manifest",
    "rollback::before_tags",
    "rollback::before_manifest",
];
/// The points of what the script does not do, and the tests that stop there.
const ELSEWHERE: &[(&str, &[&str])] = &[
    (
        "commit/tests/failpoints.rs",
        &[
            "mkfs::claimed",
            "mkfs::keys",
            "mkfs::storage",
            "mkfs::revision",
            "mkfs::registered",
            "rmfs::before_objects",
            "rmfs::before_keys",
            "rmfs::before_conf",
            "resign::before_manifest",
            "resign::after_manifest",
            "locks::owned",
            "locks::release",
        ],
    ),
    (
        "commit/tests/warm_steps.rs",
        &[
            "commit::warmed",
            "warm::begun",
            "warm::before_published",
            "warm::decided",
            "warm::told",
            "sites::authority",
            "sites::own",
            "sites::revoked",
            "sites::written",
        ],
    ),
    ("tests/sweep/gateway.rs", &["gateway::leftover_dropped"]),
    (
        "tests/space.rs",
        &[
            "fsimpl::drop_synced",
            "fsimpl::drop_recorded",
            "fsimpl::drop_journalled",
            "fsimpl::disk_full",
        ],
    ),
    (
        "fsimpl/tests/failpoints.rs",
        &["fsimpl::journal_sync", "fsimpl::journal_full"],
    ),
    (
        "store/tests/s3.rs",
        &["s3::put", "s3::write_root", "s3::wrote_root"],
    ),
    (
        "commit/tests/transacted.rs",
        &[
            "server::noted",
            "server::opened",
            "server::noted_open",
            "server::applying",
            "server::applied",
            "server::before_publish",
            "server::published",
            "server::asked",
            "server::before_abort",
            "server::aborted",
        ],
    ),
    (
        "receiver/tests/crash.rs",
        &[
            "ledger::named",
            "ledger::opened",
            "ledger::noted",
            "ledger::published",
            "vault::written",
            "vault::synced",
            "vault::named",
            "vault::sync",
            "expiry::given_up",
            "expiry::removed",
            "expiry::forgotten",
        ],
    ),
    // what a test decides of the machine, rather than a step that fails
    ("tests/clock.rs", &["clock"]),
    ("tests/doubt.rs", &["clock::boot_id"]),
    ("tests/progress.rs", &["engine::open"]),
];

/// Runs the script with a kill at the passage of `point` after `earlier` others; false if it came to
/// its end before that.
fn killed_at(point: &str, earlier: u64) -> bool {
    let mut sandbox = prepared();
    let config = sandbox.dir.path().join("config.toml");
    let fault = match earlier {
        0 => format!("{point}=return(kill)"),
        n => format!("{point}={n}*off->return(kill)"),
    };
    let context = format!("{point} after {earlier}");
    // named with whatever fails
    eprintln!("killed at {context}");
    let env = [
        ("PREPUB_CONFIG", config.to_str().unwrap()),
        ("FAILPOINTS", &fault),
    ];
    let started = sandbox.try_mount(REPO, &env);
    let mut run = Run::new(&mut sandbox, Excuse::Death);
    let died = match started {
        Ok(()) => run.script().is_err() || (LATER.contains(&point) && run.sandbox().has_died()),
        Err(status) => {
            assert_eq!(status.signal(), Some(9), "{context}: the daemon ended");
            true
        }
    };
    if died {
        run.restart();
        run.judge(&context);
    }
    run.finish(&context);
    died
}

fn sweep(points: &[&str]) {
    if skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
        || skip_unless(crate::support::can_mount(), "/dev/fuse")
    {
        return;
    }
    let all = std::env::var("PREPUB_SWEEP").is_ok_and(|how| how == "all");
    let passages = if all { 0..u64::MAX } else { 0..2 };
    for point in points {
        for earlier in passages.clone() {
            let died = killed_at(point, earlier);
            assert!(died || earlier > 0, "{point} was not passed");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn killed_while_staging() {
    sweep(STAGING);
}

#[test]
fn killed_while_committing() {
    sweep(COMMITTING);
}

#[test]
fn killed_while_publishing() {
    sweep(PUBLISHING);
}

/// The names in the sources.
fn points_in_the_sources() -> BTreeSet<String> {
    let root = workspace_root();
    let rooms = [
        "src",
        "fsimpl/src",
        "commit/src",
        "store/src",
        "receiver/src",
    ];
    let mut names = BTreeSet::new();
    for file in rooms
        .iter()
        .flat_map(|room| walkdir::WalkDir::new(root.join(room)))
    {
        let file = file.unwrap();
        if file.path().extension().is_none_or(|x| x != "rs") {
            continue;
        }
        let text = fs::read_to_string(file.path()).unwrap();
        for call in ["failpoint::pass(\"", "fail_point!(\""] {
            for passage in text.split(call).skip(1) {
                names.insert(passage.split('"').next().unwrap().to_owned());
            }
        }
    }
    names
}

#[test]
fn every_failpoint_has_a_test_that_stops_there() {
    let mut covered = BTreeSet::new();
    for points in [STAGING, COMMITTING, PUBLISHING, gateway::PUBLISHING] {
        covered.extend(points.iter().map(|point| (*point).to_owned()));
    }
    for (file, points) in ELSEWHERE {
        let text = fs::read_to_string(workspace_root().join(file)).unwrap();
        for point in *points {
            // in quotes, or with what it shall do
            let is_set = |after| text.contains(&format!("\"{point}{after}"));
            assert!(is_set('"') || is_set('='), "{file}: {point}");
            covered.insert((*point).to_owned());
        }
    }
    assert_eq!(points_in_the_sources(), covered);
}
