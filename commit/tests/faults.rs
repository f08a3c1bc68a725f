//! A storage that fails at every one of its operations in turn: nothing or everything is published,
//! and the next attempt succeeds.

use std::sync::Arc;

use commit::{CommitError, NoProgress, Outcome, Publisher, PublisherError, Resumed, Stratum0};
use formats::changeset::ChangeSet;
use store::faulty::{Fault, Op, When};
use store::{FaultyStore, ObjectStore};

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::repo::{BOOT, Repo};

const OPS: [Op; 9] = [
    Op::Look,
    Op::Open,
    Op::Read,
    Op::Begin,
    Op::Write,
    Op::Keep,
    Op::ReadRoot,
    Op::WriteRoot,
    Op::Sync,
];

fn begun() -> Repo {
    let repo = Repo::new();
    repo.publish(
        repo.changes()
            .dir("/n")
            .file("/n/.cvmfscatalog", b"")
            .file("/n/old", b"old")
            .done(),
    );
    repo
}

fn changes(repo: &Repo) -> ChangeSet {
    repo.changes().file("/n/new", b"new").done()
}

/// A publisher of its own over a storage that can be made to fail.
fn faulty(repo: &Repo, cache: &std::path::Path) -> (Stratum0, FaultyStore) {
    let storage = FaultyStore::new(repo.publisher.storage().clone());
    let home = repo.publisher.home().clone();
    let shared: Arc<dyn ObjectStore> = Arc::new(storage.clone());
    (
        Stratum0::with_storage(home, shared, cache).unwrap(),
        storage,
    )
}

fn is_published(repo: &Repo) -> bool {
    let there = repo.head().lookup(&path("/n/new")).unwrap();
    there.is_some()
}

/// One attempt with one fault, and another after it; false if the fault was never met.
fn attempt(op: Op, nth: u64, fault: Fault) -> bool {
    let repo = begun();
    let set = changes(&repo);
    let cache = tempfile::tempdir().unwrap();
    let (publisher, storage) = faulty(&repo, cache.path());
    storage.fail(op, When::Nth(nth), fault);
    let before = storage.calls(op);
    let request = repo.request(set);
    repo.later();
    let outcome = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress);
    let met = storage.calls(op) - before >= nth;
    storage.heal();
    let what = format!("{op:?} {nth} {fault:?}: {outcome:?}");
    assert_checks(&repo);
    let resumed = commit::resume(&repo.txn_dir(), &publisher, repo.now(), BOOT).unwrap();
    let published = match &outcome {
        Ok(Outcome::Visible(_)) => true,
        Ok(Outcome::Nothing) => panic!("{what}"),
        Err(_) => matches!(resumed, Resumed::Done { .. }),
    };
    assert_eq!(is_published(&repo), published, "{what}");
    commit::txn::clear(&repo.txn_dir()).unwrap();
    repo.later();
    let again = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress).unwrap();
    assert_eq!(matches!(again, Outcome::Nothing), published, "{what}");
    commit::txn::clear(&repo.txn_dir()).unwrap();
    assert!(is_published(&repo), "{what}");
    met
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

#[test]
fn every_operation_of_the_storage_fails_once() {
    for op in OPS {
        for fault in [Fault::Fail, Fault::ApplyThenFail] {
            let met = (1..).take_while(|nth| attempt(op, *nth, fault)).count();
            assert!(met > 0, "{op:?} is never asked for");
        }
    }
}

#[test]
fn a_full_storage_is_said_to_be_full() {
    let repo = begun();
    let cache = tempfile::tempdir().unwrap();
    let (publisher, storage) = faulty(&repo, cache.path());
    storage.fail(Op::Keep, When::Always, Fault::NoSpace);
    let request = repo.request(changes(&repo));
    let error = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress).unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("/n/new") && text.contains("no space left"),
        "{text}"
    );
    storage.heal();
    repo.publish(request.change_set);
}

#[test]
fn damage_is_named() {
    let repo = begun();
    let set = changes(&repo);
    let cache = tempfile::tempdir().unwrap();
    let (publisher, storage) = faulty(&repo, cache.path());
    storage.fail(Op::ReadRoot, When::Always, Fault::Truncate(20));
    let request = repo.request(set.clone());
    let error = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress).unwrap_err();
    assert!(matches!(
        error,
        CommitError::Publisher(PublisherError::Head { .. })
    ));
    storage.heal();
    // whatever object is damaged, certificate, catalogs or tags: it is named
    for nth in 1..4 {
        let cache = tempfile::tempdir().unwrap();
        let (publisher, storage) = faulty(&repo, cache.path());
        storage.fail(Op::Open, When::Nth(nth), Fault::Flip(40));
        let outcome = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress);
        let text = chain(&outcome.unwrap_err());
        let is_hex =
            |word: &str| word.len() >= 40 && word[..40].bytes().all(|b| b.is_ascii_hexdigit());
        assert!(text.split_whitespace().any(is_hex), "{text}");
        assert!(!is_published(&repo));
    }
    repo.publish(set);
}

#[test]
fn an_object_that_is_nowhere_stops_the_commit() {
    let repo = begun();
    let mut request = repo.request(changes(&repo));
    request.objects = Arc::new(store::MemoryStore::new());
    let error = repo.try_publish(&request).unwrap_err();
    assert!(error.to_string().contains("/n/new"), "{error}");
    assert!(!is_published(&repo));
}
