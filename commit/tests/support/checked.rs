//! `check`, as a verdict.

use std::sync::Arc;

use commit::Publisher;
use commit::check::{Options, Subject, Watch, check};
use commit::records::reflog_checksum;
use store::{Limits, Repository};

use super::repo::Repo;

struct Nobody;

impl Watch for Nobody {
    fn checked(&self, _: u64, _: u64, _: u64) {}
}

/// Panics unless every rule holds for what is published, read through a cache of its own.
#[track_caller]
pub fn assert_checks(repo: &Repo) {
    let scratch = tempfile::tempdir().unwrap();
    let home = repo.publisher.home();
    let storage = repo.publisher.storage().clone();
    let checksum = reflog_checksum(storage.as_ref(), &home.spool_dir).unwrap();
    let repository = Repository::new(
        &home.name,
        storage,
        home.public_keys().unwrap(),
        scratch.path().join("cache"),
        Limits::default(),
    );
    let subject = Subject {
        repository: &Arc::new(repository.unwrap()),
        reflog_checksum: checksum,
        scratch: scratch.path(),
        now: repo.now(),
    };
    let report = check(&subject, Options { data: true }, &Nobody);
    assert_eq!(report.findings, []);
}
