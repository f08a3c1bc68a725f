//! Every step at which a repository's upkeep can be cut short: the old state or the new one is
//! found, whole, and the same call made again brings it to an end.
//!
//! A binary of its own, since failpoints are the whole process's.

#[allow(dead_code, reason = "what all test binaries of this crate share")]
#[allow(clippy::print_stderr, reason = "a test that skips says so")]
mod support;

mod gateway_steps;
mod interrupted;
mod transacted;
mod warm_steps;

use std::sync::{Mutex, MutexGuard, PoisonError};

use commit::resign::resign_with_new_keys;
use commit::rmfs::rmfs;
use commit::rollback::{self, rollback};
use commit::tags::{self, NewTag};
use commit::{MkfsError, Publisher, PublisherError, RepoHome, Stratum0, mkfs};
use fail::FailScenario;
use formats::manifest::SignedManifest;
use support::bucket::{Ground, InBucket, address};
use support::checked::assert_checks;
use support::repo::Repo;

/// From the first new object to the manifest, in order, with what is visible after a stop there.
const STEPS: [(&str, bool); 6] = [
    ("stratum0::before_sync", false),
    ("records::before_checksum", false),
    ("stratum0::after_reflog", false),
    ("stratum0::before_manifest", false),
    ("stratum0::after_manifest", true),
    ("", true),
];

fn manifest(repo: &Repo) -> SignedManifest {
    repo.reopened().head(repo.now()).unwrap().0.manifest
}

/// One test at a time: even what a test does without a stop passes the failpoints of the others.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `action` with a stop at `step`; what it returned if there was none.
fn stopped_at<T, E: std::fmt::Debug>(
    step: &str,
    action: impl FnOnce() -> Result<T, E>,
) -> Option<T> {
    let scenario = FailScenario::setup();
    if !step.is_empty() {
        fail::cfg(step, "return").unwrap();
    }
    let result = action();
    scenario.teardown();
    assert_eq!(result.is_ok(), step.is_empty(), "{step}: not reached");
    result.ok()
}

/// Two revisions, tagged.
fn repo() -> Repo {
    let repo = Repo::new();
    for (file, tag) in [("/a", "v1"), ("/b", "v2")] {
        let mut request = repo.request(repo.changes().file(file, b"x").done());
        request.tag = Some(tag.to_owned());
        repo.try_publish(&request).unwrap();
    }
    repo
}

fn has_tag(publisher: &Stratum0, repo: &Repo, name: &str) -> bool {
    let tags = repo.tags_of(publisher);
    tags.iter().any(|tag| tag.name == name)
}

#[test]
fn a_tag_is_there_or_not() {
    let _alone = alone();
    let steps = STEPS.iter().copied();
    let own = [
        ("tags::before_objects", false),
        ("tags::before_manifest", false),
    ];
    for (step, is_new) in steps.chain(own) {
        let repo = repo();
        let before = manifest(&repo);
        repo.later();
        let wanted = NewTag {
            name: "chosen".to_owned(),
            message: String::new(),
            root: None,
        };
        stopped_at(step, || tags::add(&repo.publisher, &wanted, repo.now()));
        assert_eq!(manifest(&repo) != before, is_new, "{step}");
        assert_eq!(has_tag(&repo.reopened(), &repo, "chosen"), is_new, "{step}");
        assert_checks(&repo);
        repo.later();
        if !is_new {
            tags::add(&repo.reopened(), &wanted, repo.now()).unwrap();
        }
        assert!(has_tag(&repo.reopened(), &repo, "chosen"), "{step}");
        assert_checks(&repo);
        repo.publish(repo.changes().file("/c", b"c").done());
        assert_checks(&repo);
    }
}

#[test]
fn a_rollback_is_done_or_not() {
    let _alone = alone();
    let steps = STEPS.iter().copied();
    let own = [
        ("rollback::before_tags", false),
        ("rollback::before_manifest", false),
    ];
    for (step, is_new) in steps.chain(own) {
        let repo = repo();
        let before = manifest(&repo);
        repo.later();
        stopped_at(step, || rollback(&repo.publisher, Some("v1"), repo.now()));
        assert_eq!(manifest(&repo) != before, is_new, "{step}");
        assert_eq!(has_tag(&repo.reopened(), &repo, "v2"), !is_new, "{step}");
        assert_checks(&repo);
        repo.later();
        let again = rollback(&repo.reopened(), Some("v1"), repo.now()).unwrap();
        assert_eq!(
            matches!(again, rollback::Outcome::Nothing(_)),
            is_new,
            "{step}"
        );
        let after = manifest(&repo).manifest;
        assert_eq!(after.revision, before.manifest.revision + 1, "{step}");
        assert_checks(&repo);
    }
}

#[test]
fn new_keys_are_in_force_or_can_be_put_in_force() {
    let _alone = alone();
    let steps = STEPS.iter().copied();
    let own = [
        ("resign::before_manifest", false),
        ("resign::after_manifest", true),
    ];
    for (step, is_new) in steps.chain(own) {
        let repo = repo();
        let before = manifest(&repo);
        repo.replace_keys();
        let fresh = repo.reopened();
        stopped_at(step, || resign_with_new_keys(&fresh, 30, repo.now()));
        // the new public key verifies the head at every step, old manifest or new
        assert_eq!(manifest(&repo) != before, is_new, "{step}");
        assert_checks(&repo);
        resign_with_new_keys(&repo.reopened(), 30, repo.now()).unwrap();
        let (head, _) = repo.reopened().head(repo.now()).unwrap();
        assert_eq!(head.whitelist().fingerprints.len(), 1, "{step}");
        assert_checks(&repo);
    }
}

#[test]
fn a_removal_that_was_cut_short_is_finished_by_the_next() {
    let _alone = alone();
    for step in [
        "rmfs::before_objects",
        "rmfs::before_keys",
        "rmfs::before_conf",
    ] {
        let repo = repo();
        let home = repo.publisher.home().clone();
        let storage = home.storage_dir().unwrap();
        stopped_at(step, || rmfs(&home, true));
        assert!(home.exists() && !storage.join(".cvmfspublished").exists());
        assert!(rmfs(&home, true).unwrap().anything);
        assert!(!home.exists() && !storage.exists() && !home.spool_dir.exists());
        repo.mkfs_again();
    }
}

#[test]
fn a_repository_that_was_half_made_is_made_by_the_next() {
    let _alone = alone();
    for (step, is_made) in [
        ("mkfs::claimed", false),
        ("mkfs::keys", false),
        ("mkfs::storage", false),
        ("mkfs::revision", false),
        ("mkfs::registered", true),
    ] {
        let dir = support::repo::fast_dir();
        let wanted = support::repo::wanted(&[]);
        stopped_at(step, || mkfs(dir.path(), &wanted, Repo::begin()));
        let again = mkfs(dir.path(), &wanted, Repo::begin());
        assert_eq!(
            matches!(again, Err(MkfsError::Exists { .. })),
            is_made,
            "{step}"
        );
        let home = RepoHome::embedded(dir.path(), &wanted.name).unwrap();
        let repo = Repo::of(dir, home);
        assert_checks(&repo);
        repo.publish(repo.changes().file("/a", b"a").done());
        assert_checks(&repo);
    }
}

/// The same of a bucket, in which an interrupted run left files.
#[test]
fn one_in_a_bucket_that_was_half_made_is_made_by_the_next() {
    let _alone = alone();
    for (step, is_made) in [
        ("mkfs::claimed", false),
        ("s3::write_root", false),
        ("s3::wrote_root", false),
        ("s3::put", false),
        ("mkfs::revision", false),
        ("mkfs::registered", true),
    ] {
        let ground = Ground::new("");
        let state = ground.dir.path();
        let wanted = ground.wanted(&address(), false, &[]);
        stopped_at(step, || mkfs(state, &wanted, Repo::begin()));
        let again = mkfs(state, &wanted, Repo::begin());
        let exists = matches!(again, Err(MkfsError::Exists { .. }));
        assert_eq!(exists, is_made, "{step}");
        let home = RepoHome::embedded(state, &wanted.name).unwrap();
        let site = InBucket::of(ground, home);
        assert_checks(&site.repo);
        site.repo
            .publish(site.repo.changes().file("/a", b"a").done());
        assert_checks(&site.repo);
    }
}

#[test]
fn a_revision_in_a_bucket_is_there_or_not() {
    let _alone = alone();
    // after the manifest the publisher itself finds that it is there
    let before = STEPS
        .iter()
        .filter(|(_, is_new)| !is_new)
        .map(|(step, _)| *step);
    for step in before.chain(["s3::put", "s3::write_root"]) {
        let site = InBucket::new();
        let repo = &site.repo;
        let before = manifest(repo);
        let request = repo.request(repo.changes().file("/a", b"a").done());
        stopped_at(step, || repo.try_publish(&request));
        commit::resume(
            &repo.txn_dir(),
            &repo.publisher,
            repo.now(),
            support::repo::BOOT,
        )
        .unwrap();
        commit::txn::clear(&repo.txn_dir()).unwrap();
        assert_eq!(manifest(repo), before, "{step}");
        assert_checks(repo);
        repo.try_publish(&request).unwrap();
        assert_ne!(manifest(repo), before, "{step}");
        assert_checks(repo);
    }
}

#[test]
fn a_removal_from_a_bucket_that_was_cut_short_is_finished_by_the_next() {
    let _alone = alone();
    for step in [
        "rmfs::before_objects",
        "rmfs::before_keys",
        "rmfs::before_conf",
    ] {
        let site = InBucket::new();
        let home = site.repo.publisher.home().clone();
        stopped_at(step, || rmfs(&home, true));
        assert!(home.exists() && !site.kept().join(".cvmfspublished").exists());
        assert!(rmfs(&home, true).unwrap().anything);
        assert!(!home.exists() && !home.spool_dir.exists());
        assert_eq!(
            support::bucket::files(&site.kept()),
            Vec::<std::path::PathBuf>::new()
        );
        site.repo.mkfs_again();
    }
}

/// A repository of `cvmfs_server`, beside whose lock files ours are told from a transaction of its.
#[test]
fn lock_files_that_a_crash_left_are_known_as_ours() {
    let _alone = alone();
    for step in ["locks::owned", "locks::release"] {
        let mut repo = Repo::new();
        let mut home = repo.publisher.home().clone();
        home.is_foreign = true;
        repo.publisher = Stratum0::open(home, &repo.dir.path().join("beside")).unwrap();
        let spool = repo.publisher.home().spool_dir.clone();
        let scenario = FailScenario::setup();
        fail::cfg(step, "return").unwrap();
        let _ = repo.publisher.lease(&repo.changes().done(), repo.now());
        scenario.teardown();
        let lock = spool.join("in_transaction.lock");
        assert!(lock.exists(), "{step}");
        // the next takes it over, and leaves none
        repo.publish(repo.changes().file("/a", b"a").done());
        assert!(!lock.exists(), "{step}");
        // or it is given back without one
        fail::cfg(step, "return").unwrap();
        let _ = repo.publisher.lease(&repo.changes().done(), repo.now());
        fail::remove(step);
        assert!(lock.exists(), "{step}");
        repo.publisher.give_back().unwrap();
        assert!(!lock.exists(), "{step}");
        // while one that is not ours is neither taken nor given back
        std::fs::write(&lock, b"").unwrap();
        let refused = repo
            .publisher
            .lease(&repo.changes().done(), repo.now())
            .err()
            .unwrap();
        assert!(
            matches!(refused, PublisherError::Transaction { .. }),
            "{refused}"
        );
        repo.publisher.give_back().unwrap();
        assert!(lock.exists(), "{step}");
    }
}
