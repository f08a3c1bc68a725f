//! A transaction of `cvmfs_server` (its double) that is cut short at each step: ended by ourselves where
//! a step fails, by the next process where ours is gone. Whatever happened, the revision is the old one
//! or the new one, nobody else is kept out, and the next commit works.

use commit::{CommitError, NoProgress, Outcome, Publisher, Resumed};
use fail::FailScenario;

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::repo::BOOT;
use crate::support::server::{Server, WAYS, Way, mine};

/// Every step that leaves something behind, in order; whether the revision is visible after it, and
/// whether the transaction is open.
const STEPS: [(&str, bool, bool); 7] = [
    ("server::noted", false, false),
    ("server::opened", false, true),
    ("server::noted_open", false, true),
    ("server::applying", false, true),
    ("server::applied", false, true),
    ("server::before_publish", false, true),
    ("server::published", true, false),
];

fn is_new(server: &Server) -> bool {
    let head = server.repo.head();
    head.lookup(&path("/new")).unwrap().is_some()
}

fn begun() -> (Server, commit::Request) {
    let server = Server::new(&[]);
    let changes = server.repo.changes().file("/old", b"old").dir("/d");
    let changes = changes.file("/d/file", b"1").done();
    server.publish(&server.publisher(Way::Grafts), changes);
    let changes = server.repo.changes().file("/new", b"new").remove("/d");
    let request = server.repo.request(mine(changes.remove("/old").done()));
    (server, request)
}

/// Publishes, with stops at `steps`.
fn stopped(
    server: &Server,
    publisher: &dyn Publisher,
    request: &commit::Request,
    steps: &[&str],
) -> Result<Outcome, CommitError> {
    let scenario = FailScenario::setup();
    for step in steps {
        fail::cfg(*step, "return").unwrap();
    }
    server.later();
    let outcome = commit::publish(request, publisher, &server.repo.txn_dir(), &NoProgress);
    scenario.teardown();
    outcome
}

/// As a process does that comes after: finds out what became of it.
fn finish(server: &Server, way: Way, request: &commit::Request, visible: bool, at: &str) {
    let publisher = server.publisher(way);
    let txn = server.repo.txn_dir();
    let resumed = commit::resume(&txn, &publisher, server.repo.now(), BOOT).unwrap();
    match resumed {
        Resumed::Done { visible: found, .. } => {
            assert!(visible, "{at}");
            assert_eq!(found.root_hash, *server.repo.head().root_hash(), "{at}");
            commit::txn::clear(&txn).unwrap();
        }
        Resumed::NotDone { .. } | Resumed::None => assert!(!visible, "{at}"),
    }
    assert!(!server.is_signed(), "{at}: a transaction is left open");
    assert_eq!(is_new(server), visible, "{at}");
    // nobody is kept out
    server.ok(&["transaction"]);
    server.ok(&["abort", "-f"]);
    let again = server.try_publish(&publisher, request).unwrap();
    assert_eq!(matches!(again, Outcome::Nothing), visible, "{at}");
    assert!(is_new(server), "{at}");
    assert_checks(&server.repo);
}

#[test]
fn a_step_that_fails_ends_the_transaction() {
    let _alone = crate::alone();
    for (step, visible, _) in STEPS {
        let (server, request) = begun();
        let publisher = server.publisher(Way::Grafts);
        let outcome = stopped(&server, &publisher, &request, &[step]);
        // what is visible all the same is found to be so
        assert_eq!(outcome.is_ok(), visible, "{step}: {outcome:?}");
        assert!(!server.is_signed(), "{step}");
        finish(&server, Way::Grafts, &request, visible, step);
    }
}

/// As if the process were gone: nothing of ours is undone.
#[test]
fn a_transaction_of_a_process_that_is_gone_is_ended_by_the_next() {
    let _alone = crate::alone();
    for way in WAYS {
        for (step, visible, is_open) in STEPS {
            let (server, request) = begun();
            let publisher = server.publisher(way);
            // asking the world is another process's part, too
            let steps = [step, "server::before_abort", "server::asked"];
            let outcome = stopped(&server, &publisher, &request, &steps);
            assert!(outcome.is_err(), "{step}: {outcome:?}");
            drop(publisher);
            assert_eq!(server.is_signed(), is_open, "{step}");
            finish(&server, way, &request, visible, step);
        }
    }
}

/// An abort that ended between the transaction and our note of it.
#[test]
fn an_abort_that_was_not_noted_is_no_harm() {
    let _alone = crate::alone();
    let (server, request) = begun();
    let publisher = server.publisher(Way::Grafts);
    let steps = ["server::noted_open", "server::aborted"];
    stopped(&server, &publisher, &request, &steps).unwrap_err();
    assert!(!server.is_signed());
    // somebody else opens one since, which is not ours
    std::fs::write(server.spool().join("keeps the inode"), b"").unwrap();
    server.ok(&["transaction"]);
    server.publisher(Way::Grafts).give_back().unwrap();
    assert!(server.is_signed(), "it is theirs");
    server.ok(&["abort", "-f"]);
    finish(&server, Way::Grafts, &request, false, "server::aborted");
}

/// Somebody's transaction that was opened while ours was being opened, when our process died, and that
/// has something in it.
#[test]
fn a_transaction_that_may_be_ours_and_is_not_empty_stays() {
    let _alone = crate::alone();
    let (server, request) = begun();
    let publisher = server.publisher(Way::Grafts);
    let steps = ["server::opened", "server::before_abort"];
    stopped(&server, &publisher, &request, &steps).unwrap_err();
    assert!(server.is_signed());
    let written = server.spool().join("scratch/current/file");
    std::fs::write(&written, b"").unwrap();
    server.publisher(Way::Grafts).give_back().unwrap();
    assert!(server.is_signed(), "it may be theirs");
    server.ok(&["abort", "-f"]);
    std::fs::remove_file(written).unwrap();
    finish(&server, Way::Grafts, &request, false, "server::opened");
}
