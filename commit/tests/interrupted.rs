//! A commit that is cut short at each of its steps: the old revision or the new one is published,
//! the record says which, and the next commit goes on from there.

use std::panic::{AssertUnwindSafe, catch_unwind};

use commit::{CommitError, NoProgress, Outcome, Publisher, Resumed};
use fail::FailScenario;
use formats::changeset::ChangeSet;
use store::Revision;

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::repo::{BOOT, Repo};

/// Every step of a commit in order, and whether the revision is visible after it.
const STEPS: [(&str, bool); 11] = [
    ("commit::frozen", false),
    ("commit::noted", false),
    ("commit::stored", false),
    ("commit::leased", false),
    ("commit::catalogs", false),
    ("stratum0::before_sync", false),
    ("records::before_checksum", false),
    ("stratum0::after_reflog", false),
    ("stratum0::before_manifest", false),
    ("stratum0::after_manifest", true),
    ("commit::visible", true),
];

fn begun() -> Repo {
    begun_with(&[])
}

fn begun_with(settings: &[(&str, &str)]) -> Repo {
    let repo = Repo::with(settings);
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
    repo.changes()
        .file("/n/new", b"new")
        .remove("/n/old")
        .file("/also", b"also")
        .done()
}

fn is_new(revision: &Revision) -> bool {
    let there = |at: &str| revision.lookup(&path(at)).unwrap().is_some();
    let seen = (there("/n/new"), there("/also"), !there("/n/old"));
    assert!(
        seen == (true, true, true) || seen == (false, false, false),
        "{seen:?}"
    );
    seen.0
}

fn head(repo: &Repo) -> std::sync::Arc<Revision> {
    let publisher = repo.reopened();
    let (head, _) = publisher.head(repo.now()).unwrap();
    publisher.repository().revision_of(&head).unwrap()
}

/// Whatever happened: find out, and bring it to its end.
fn finish(repo: &Repo, set: &ChangeSet, visible: bool) {
    let publisher = repo.reopened();
    assert_checks(repo);
    assert_eq!(is_new(&head(repo)), visible);
    match commit::resume(&repo.txn_dir(), &publisher, repo.now(), BOOT).unwrap() {
        Resumed::Done {
            snapshot,
            visible: found,
        } => {
            assert!(visible);
            assert_eq!(snapshot, 1);
            assert_eq!(found.root_hash, *head(repo).root_hash());
            commit::txn::clear(&repo.txn_dir()).unwrap();
        }
        Resumed::NotDone { snapshot } => {
            assert!(!visible);
            assert_eq!(snapshot, 1);
        }
        Resumed::None => panic!("the record is gone"),
    }
    repo.later();
    let request = repo.request(set.clone());
    let again = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress).unwrap();
    assert_eq!(matches!(again, Outcome::Nothing), visible);
    commit::txn::clear(&repo.txn_dir()).unwrap();
    assert!(is_new(&head(repo)));
    assert_checks(repo);
    // nobody is kept out
    repo.publish(repo.changes().file("/after", b"after").done());
    assert_checks(repo);
}

#[test]
fn a_crash_at_each_step() {
    crash_at_each_step(&[], None);
}

/// With a revision on top, which shows the tags: both are there or none.
#[test]
fn a_crash_at_each_step_of_two_revisions() {
    crash_at_each_step(&[("CVMFS_VIRTUAL_DIR", "true")], Some("v1"));
}

fn crash_at_each_step(settings: &[(&str, &str)], tag: Option<&str>) {
    let _alone = crate::alone();
    for (step, visible) in STEPS {
        let repo = begun_with(settings);
        let set = changes(&repo);
        let mut request = repo.request(set.clone());
        request.tag = tag.map(str::to_owned);
        repo.later();
        let scenario = FailScenario::setup();
        fail::cfg(step, "panic").unwrap();
        let crashed = catch_unwind(AssertUnwindSafe(|| {
            commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress)
        }));
        scenario.teardown();
        assert!(crashed.is_err(), "{step} was never passed");
        if let Some(tag) = tag {
            let shown = path(&format!("/.cvmfs/snapshots/{tag}"));
            let shown = head(&repo).lookup(&shown).unwrap();
            assert_eq!(shown.is_some(), visible, "{step}");
        }
        finish(&repo, &set, visible);
    }
}

#[test]
fn a_second_commit_does_not_run_over_an_interrupted_one() {
    let _alone = crate::alone();
    let repo = begun();
    let request = repo.request(changes(&repo));
    let scenario = FailScenario::setup();
    fail::cfg("stratum0::before_manifest", "panic").unwrap();
    let crashed = catch_unwind(AssertUnwindSafe(|| {
        commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress)
    }));
    scenario.teardown();
    assert!(crashed.is_err());
    let error = commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress);
    assert!(matches!(
        error.unwrap_err(),
        CommitError::Txn(commit::txn::TxnError::Unfinished { .. })
    ));
    finish(&repo, &request.change_set, false);
}

#[test]
fn an_error_at_each_step_leaves_nothing_or_everything() {
    let _alone = crate::alone();
    for (step, visible) in STEPS {
        let repo = begun();
        let set = changes(&repo);
        let request = repo.request(set.clone());
        repo.later();
        let scenario = FailScenario::setup();
        fail::cfg(step, "return").unwrap();
        let outcome = commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress);
        scenario.teardown();
        assert_checks(&repo);
        assert_eq!(is_new(&head(&repo)), visible, "{step}");
        match outcome {
            // the manifest is in place, whatever was reported afterwards
            Ok(Outcome::Visible(_)) => assert_eq!(step, "stratum0::after_manifest"),
            Ok(Outcome::Nothing) => panic!("{step}"),
            Err(_) => {}
        }
        let resumed = commit::resume(&repo.txn_dir(), &repo.reopened(), repo.now(), BOOT).unwrap();
        match resumed {
            Resumed::Done { .. } => assert!(visible, "{step}"),
            Resumed::None | Resumed::NotDone { .. } => assert!(!visible, "{step}"),
        }
        commit::txn::clear(&repo.txn_dir()).unwrap();
        repo.later();
        let again = commit::publish(&request, &repo.reopened(), &repo.txn_dir(), &NoProgress);
        assert_eq!(
            matches!(again.unwrap(), Outcome::Nothing),
            visible,
            "{step}"
        );
        assert_checks(&repo);
    }
}

#[test]
fn a_commit_that_somebody_built_upon_was_done() {
    let _alone = crate::alone();
    let repo = begun();
    let set = changes(&repo);
    let request = repo.request(set);
    repo.later();
    let scenario = FailScenario::setup();
    fail::cfg("stratum0::after_manifest", "panic").unwrap();
    let crashed = catch_unwind(AssertUnwindSafe(|| {
        commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress)
    }));
    scenario.teardown();
    assert!(crashed.is_err());
    // others publish before we come back
    let elsewhere = tempfile::tempdir().unwrap();
    for file in ["/x", "/y", "/z"] {
        repo.later();
        let request = repo.request(repo.changes().file(file, b"theirs").done());
        commit::publish(&request, &repo.reopened(), elsewhere.path(), &NoProgress).unwrap();
        commit::txn::clear(elsewhere.path()).unwrap();
    }
    let resumed = commit::resume(&repo.txn_dir(), &repo.reopened(), repo.now(), BOOT).unwrap();
    assert!(matches!(resumed, Resumed::Done { .. }), "{resumed:?}");
}

/// The data objects that the interrupted commit stored, in the storage.
fn stored(repo: &Repo, set: &ChangeSet) -> Vec<std::path::PathBuf> {
    let storage = repo.publisher.storage().local_dir().unwrap().to_owned();
    let files = set.changes.iter().filter_map(|change| match &change.op {
        formats::Op::Put { entry, .. } => entry.regular().cloned(),
        formats::Op::Remove => None,
    });
    files
        .flat_map(|file| file.content.objects().collect::<Vec<_>>())
        .map(|object| storage.join(object.storage_path()))
        .collect()
}

#[test]
fn objects_that_a_power_loss_damaged_are_not_taken_for_stored() {
    let _alone = crate::alone();
    for step in ["commit::stored", "commit::leased", "commit::catalogs"] {
        let repo = begun();
        let set = changes(&repo);
        let request = repo.request(set.clone());
        repo.later();
        let scenario = FailScenario::setup();
        fail::cfg(step, "panic").unwrap();
        let crashed = catch_unwind(AssertUnwindSafe(|| {
            commit::publish(&request, &repo.publisher, &repo.txn_dir(), &NoProgress)
        }));
        scenario.teardown();
        assert!(crashed.is_err());
        let objects = stored(&repo, &set);
        assert_eq!(objects.len(), 2);
        for (at, object) in objects.iter().enumerate() {
            let length = std::fs::metadata(object).unwrap().len();
            let left = if at == 0 { 0 } else { length };
            std::fs::write(object, vec![0; usize::try_from(left).unwrap()]).unwrap();
        }
        let publisher = repo.reopened();
        let resumed = commit::resume(&repo.txn_dir(), &publisher, repo.now(), "another boot");
        assert!(matches!(resumed.unwrap(), Resumed::NotDone { .. }));
        repo.later();
        let again = commit::publish(&request, &publisher, &repo.txn_dir(), &NoProgress);
        assert!(matches!(again.unwrap(), Outcome::Visible(_)));
        commit::txn::clear(&repo.txn_dir()).unwrap();
        assert!(is_new(&head(&repo)));
        assert_checks(&repo);
        for object in stored(&repo, &set) {
            assert_ne!(std::fs::metadata(object).unwrap().len(), 0, "{step}");
        }
        assert!(!repo.txn_dir().exists(), "nothing is left of it");
    }
}
