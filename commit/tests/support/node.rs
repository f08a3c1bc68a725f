//! A machine that publishes through a gateway: what it keeps outlives its process.

use std::path::PathBuf;

use commit::{CommitError, Gateway, NoProgress, Outcome, Request, Resumed};
use tempfile::TempDir;

use super::gateway::{Behind, Way};
use super::repo::BOOT;

/// See the module.
pub struct Node<'s> {
    site: &'s Behind,
    own: TempDir,
    way: Way,
}

impl<'s> Node<'s> {
    pub fn new(site: &'s Behind, way: Way) -> Self {
        let own = tempfile::tempdir_in(site.repo.dir.path()).unwrap();
        Self { site, own, way }
    }

    fn txn(&self) -> PathBuf {
        self.own.path().join("txn")
    }

    /// The publisher of another process.
    fn publisher(&self, url: &str) -> Gateway {
        self.site.publisher_in(self.own.path(), url, self.way)
    }

    /// Publishes in a process of its own, which ends well or not.
    pub fn commit(&self, request: &Request) -> Result<Outcome, CommitError> {
        self.commit_at(&self.site.url, request)
    }

    /// The same, where the gateway is reached at another URL.
    pub fn commit_at(&self, url: &str, request: &Request) -> Result<Outcome, CommitError> {
        let txn = self.txn();
        let outcome = commit::publish(request, &self.publisher(url), &txn, &NoProgress)?;
        commit::txn::clear(&txn).unwrap();
        Ok(outcome)
    }

    /// What the next process finds out: true if the commit was done.
    #[track_caller]
    pub fn was_done(&self) -> bool {
        let (txn, now) = (self.txn(), self.site.repo.now());
        let publisher = self.publisher(&self.site.url);
        match commit::resume(&txn, &publisher, now, BOOT).unwrap() {
            Resumed::Done { .. } => {
                commit::txn::clear(&txn).unwrap();
                true
            }
            Resumed::NotDone { .. } | Resumed::None => false,
        }
    }

    /// Nothing is noted of a lease.
    #[track_caller]
    pub fn assert_no_token(&self) {
        let noted = std::fs::read_dir(self.own.path().join("spool/leases"));
        assert_eq!(noted.map_or(0, Iterator::count), 0, "tokens are left");
    }
}
