//! The embedded publisher: storage, tags, reflog and the signed manifest, written by ourselves.
//!
//! Order of a submission: tag database, certificate; one sync of the storage; reflog and its
//! checksum; the caller's record; the manifest. Replacing the manifest is the single instant at
//! which anything becomes visible.
//!
//! Locks, held as long as a lease:
//!
//! ```text
//! SPOOL/is_publishing.lock     flock, keeps other publishers out
//! SPOOL/is_collecting.lock     flock, keeps a garbage collection out
//! SPOOL/in_transaction.lock    only for repositories of cvmfs_server: its sign of a transaction
//! ```
//!
//! A garbage collection of `cvmfs_server` needs the second and refuses while there is the third. What
//! one took before the lease, a commit stores again under it.
//!
//! This module makes no catalogs and judges no change.

mod beside;
mod lease;
pub(crate) mod locks;
pub(crate) mod mounts;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::object::{ObjectKind, ObjectName};
use formats::server_conf::Params;
use store::{Head, ObjectStore, Repository, StoreError};

use crate::head;
use crate::home::RepoHome;
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError};
use crate::records::RecordsError;
use locks::Locks;

pub use beside::{Beside, beside};
pub(crate) use lease::{Stratum0Lease, TagEdit};

/// The manifest's name in the storage's root.
pub(crate) const MANIFEST: &str = ".cvmfspublished";
/// Longest chain of revisions that is searched for one of ours after a crash.
const CHAIN_MAX: usize = 10_000;

/// Publishes into a storage that this machine writes itself.
#[derive(Debug)]
pub struct Stratum0 {
    home: RepoHome,
    storage: Arc<dyn ObjectStore>,
    repository: Arc<Repository>,
    work_dir: PathBuf,
}

impl Stratum0 {
    /// Opens a repository for publishing. `cache_dir` keeps catalogs, and files in the making.
    ///
    /// # Errors
    /// When its configuration, keys or storage cannot be used.
    pub fn open(home: RepoHome, cache_dir: &Path) -> Result<Self, PublisherError> {
        let storage = home.storage()?;
        Self::with_storage(home, storage, cache_dir)
    }

    /// As [`Stratum0::open`], with a storage at hand.
    ///
    /// # Errors
    /// When its configuration or keys cannot be used.
    pub fn with_storage(
        home: RepoHome,
        storage: Arc<dyn ObjectStore>,
        cache_dir: &Path,
    ) -> Result<Self, PublisherError> {
        let keys = home.public_keys()?;
        let repository = Repository::new(
            home.name.clone(),
            storage.clone(),
            keys,
            cache_dir.join("catalogs"),
            store::Limits::default(),
        )
        .map_err(|source| PublisherError::Storage {
            repo: home.name.clone(),
            what: "open the catalog cache of",
            source,
        })?;
        Ok(Self::with_repository(home, Arc::new(repository), cache_dir))
    }

    /// As [`Stratum0::open`], sharing a reader's cache of catalogs.
    #[must_use]
    pub fn with_repository(home: RepoHome, repository: Arc<Repository>, cache_dir: &Path) -> Self {
        Self {
            storage: repository.store().clone(),
            home,
            repository,
            work_dir: cache_dir.join("publish"),
        }
    }

    /// The repository's places.
    #[must_use]
    pub fn home(&self) -> &RepoHome {
        &self.home
    }

    pub(crate) fn work(&self) -> Result<tempfile::TempDir, PublisherError> {
        head::work(&self.work_dir)
    }

    pub(crate) fn records(&self, source: RecordsError) -> PublisherError {
        PublisherError::records(&self.home.name, source)
    }

    fn storage_error(&self, what: &'static str) -> impl FnOnce(StoreError) -> PublisherError {
        let repo = self.home.name.clone();
        move |source| PublisherError::Storage { repo, what, source }
    }

    fn sign_error(&self) -> impl FnOnce(formats::trust::TrustError) -> PublisherError {
        let repo = self.home.name.clone();
        move |source| PublisherError::Sign { repo, source }
    }

    /// Takes the locks, then reads the newest head.
    pub(crate) fn lease_now(&self, now: SystemTime) -> Result<Stratum0Lease<'_>, PublisherError> {
        self.lease_with(self.lock()?, now)
    }

    /// Keeps other publishers out; reads nothing yet.
    pub(crate) fn lock(&self) -> Result<Locks, PublisherError> {
        Locks::take(&self.home)
    }

    /// With the locks in hand, reads the newest head.
    pub(crate) fn lease_with(
        &self,
        locks: Locks,
        now: SystemTime,
    ) -> Result<Stratum0Lease<'_>, PublisherError> {
        self.storage
            .clean_leftovers()
            .map_err(self.storage_error("clean"))?;
        let (head, _) = self.head(now)?;
        Ok(Stratum0Lease {
            publisher: self,
            head,
            locks,
        })
    }
}

impl Publisher for Stratum0 {
    fn name(&self) -> &str {
        &self.home.name
    }

    fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    fn params(&self) -> Result<Params, PublisherError> {
        Ok(self.home.params()?)
    }

    fn storage(&self) -> &Arc<dyn ObjectStore> {
        &self.storage
    }

    fn head(&self, now: SystemTime) -> Result<(Head, Duration), PublisherError> {
        head::verified(&self.repository, now)
    }

    fn lease<'a>(
        &'a self,
        _change_set: &ChangeSet,
        now: SystemTime,
    ) -> Result<Box<dyn Lease + 'a>, PublisherError> {
        Ok(Box::new(self.lease_now(now)?))
    }

    fn landed(
        &self,
        revision: &NewRevision,
        now: SystemTime,
    ) -> Result<Option<NewRevision>, PublisherError> {
        let repo = || self.home.name.clone();
        let head = head::visible(&self.repository, now)?;
        let mut root = head.manifest().root_catalog;
        for _ in 0..CHAIN_MAX {
            if root == revision.root_hash {
                return Ok(Some(revision.clone()));
            }
            let name = ObjectName::new(root, ObjectKind::Catalog);
            if !self
                .storage
                .has(&name)
                .map_err(self.storage_error("read"))?
            {
                // collected as garbage: what is older than this was superseded long ago
                return Ok(None);
            }
            let chain = |source| PublisherError::Chain {
                repo: repo(),
                source,
            };
            let catalog = self.repository.catalog(&root, None);
            let catalog = catalog.map_err(|error| chain(error.into()))?;
            let (number, previous) = catalog
                .with(|catalog| Ok((catalog.revision(), catalog.previous_revision())))
                .map_err(|error| chain(error.into()))?;
            match previous {
                Some(previous) if number > revision.revision => root = previous,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn give_back(&self) -> Result<(), PublisherError> {
        locks::give_back(&self.home)
    }
}

/// Seconds since 1970; 0 for times before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
