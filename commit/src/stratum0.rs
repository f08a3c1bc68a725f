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
//! This module makes no catalogs and judges no change.

pub(crate) mod locks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::hash::Hash;
use formats::history::{Head as TagHead, History, Tag};
use formats::manifest::Manifest;
use formats::object::{ObjectKind, ObjectName};
use formats::path::RepoPath;
use formats::reflog::{RefKind, Reference};
use formats::server_conf::Params;
use formats::trust::{sign_manifest, verify_listed};
use store::{Head, ObjectStore, Repository, StoreError};

use crate::home::{HomeError, KeyFile, RepoHome};
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError, Record};
use crate::records::{self, RecordsError};
use locks::Locks;

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

    /// The published tags; none if there is no tag database yet.
    ///
    /// # Errors
    /// When the head or the tag database cannot be read.
    pub fn history(&self, now: SystemTime) -> Result<Option<History>, PublisherError> {
        let (head, _) = self.head(now)?;
        let work = self.work()?;
        self.read_history(head.manifest().history, work.path())
    }

    fn read_history(
        &self,
        hash: Option<Hash>,
        work: &Path,
    ) -> Result<Option<History>, PublisherError> {
        records::read_history(self.storage.as_ref(), hash, work).map_err(|e| self.records(e))
    }

    pub(crate) fn work(&self) -> Result<tempfile::TempDir, PublisherError> {
        let make = || {
            std::fs::create_dir_all(&self.work_dir)?;
            tempfile::tempdir_in(&self.work_dir)
        };
        make().map_err(|source| {
            PublisherError::Home(HomeError::Write {
                path: self.work_dir.clone(),
                source,
            })
        })
    }

    pub(crate) fn records(&self, source: RecordsError) -> PublisherError {
        match source {
            RecordsError::History(source) => PublisherError::Tags {
                repo: self.home.name.clone(),
                source,
            },
            source => PublisherError::Reflog {
                repo: self.home.name.clone(),
                source,
            },
        }
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
        let repo = || self.home.name.clone();
        let head = self.repository.head(now).map_err(|source| {
            if source.is_expired() {
                return PublisherError::WhitelistExpired { repo: repo() };
            }
            PublisherError::Head {
                repo: repo(),
                source,
            }
        })?;
        let left = head.whitelist().remaining(now);
        match left {
            Some(left) => Ok((head, left)),
            None => Err(PublisherError::WhitelistExpired { repo: repo() }),
        }
    }

    fn lease<'a>(
        &'a self,
        _targets: &[RepoPath],
        now: SystemTime,
    ) -> Result<Box<dyn Lease + 'a>, PublisherError> {
        Ok(Box::new(self.lease_now(now)?))
    }

    fn landed(&self, revision: &NewRevision, now: SystemTime) -> Result<bool, PublisherError> {
        let repo = || self.home.name.clone();
        // an expired whitelist does not make a revision less visible
        let head = match self.head(now) {
            Ok((head, _)) => head,
            Err(PublisherError::WhitelistExpired { .. }) => self
                .repository
                .unverified_head()
                .map_err(|source| PublisherError::Head {
                    repo: repo(),
                    source,
                })?,
            Err(error) => return Err(error),
        };
        let mut root = head.manifest().root_catalog;
        for _ in 0..CHAIN_MAX {
            if root == revision.root_hash {
                return Ok(true);
            }
            let ancestry = self
                .repository
                .catalog(&root, None)
                .ok()
                .and_then(|catalog| {
                    let read = |catalog: &formats::Catalog| {
                        Ok((catalog.revision(), catalog.previous_revision()))
                    };
                    catalog.with(read).ok()
                });
            let Some((number, previous)) = ancestry else {
                // collected as garbage: what is older than this was superseded long ago
                return Ok(false);
            };
            match previous {
                Some(previous) if number > revision.revision => root = previous,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }
}

/// The right to publish: locks, and the head they protect.
pub(crate) struct Stratum0Lease<'a> {
    publisher: &'a Stratum0,
    head: Head,
    locks: Locks,
}

/// What else happens to the tags when a revision is published.
pub(crate) enum TagEdit<'t> {
    /// The usual: a tag if one is wanted, and the trunk tags follow.
    Publish,
    /// Nothing: there is no new tag database.
    Keep,
    /// Something else.
    Other(&'t mut dyn FnMut(&mut formats::history::HistoryWriter, &TagHead) -> TagResult),
}

type TagResult = Result<(), formats::history::HistoryError>;

impl Stratum0Lease<'_> {
    fn edit_tags(
        &self,
        revision: &NewRevision,
        params: &Params,
        edit: TagEdit<'_>,
        work: &Path,
    ) -> Result<Option<Hash>, PublisherError> {
        let head = TagHead {
            hash: revision.root_hash,
            size: revision.root_bytes,
            revision: revision.revision,
            timestamp: revision.timestamp,
        };
        let mut usual = |writer: &mut formats::history::HistoryWriter, head: &TagHead| {
            if let Some(before) = auto_tags_before(params, revision.timestamp) {
                writer.remove_auto_tags(before)?;
            }
            let name = match &revision.tag {
                Some(name) => Some(name.clone()),
                None if params.auto_tag => Some(formats::history::auto_tag_name(
                    revision.timestamp,
                    |name| matches!(writer.tag(name), Ok(Some(_))),
                )),
                None => None,
            };
            if let Some(name) = name {
                writer.insert(&Tag {
                    name,
                    hash: head.hash,
                    size: head.size,
                    revision: head.revision,
                    timestamp: head.timestamp,
                    description: revision.message.clone(),
                    branch: String::new(),
                })?;
            }
            writer.set_trunk(head)
        };
        let edit: &mut dyn FnMut(&mut formats::history::HistoryWriter, &TagHead) -> TagResult =
            match edit {
                TagEdit::Publish => &mut usual,
                TagEdit::Keep => return Ok(self.head.manifest().history),
                TagEdit::Other(other) => other,
            };
        records::edit_history(
            self.publisher.storage.as_ref(),
            &self.publisher.home.name,
            self.head.manifest().history,
            params.algorithm,
            work,
            &mut |writer| edit(writer, &head),
        )
        .map(Some)
        .map_err(|e| self.publisher.records(e))
    }

    /// Publishes `revision`, which may be the published one with other tags.
    pub(crate) fn publish(
        self,
        revision: NewRevision,
        edit: TagEdit<'_>,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        let publisher = self.publisher;
        let storage = publisher.storage.as_ref();
        let params = publisher.params()?;
        let work = publisher.work()?;
        let certificate = publisher.home.certificate()?;
        let key = publisher.home.private_key(KeyFile::Key)?;
        certificate
            .verify_key(&key)
            .and_then(|()| verify_listed(self.head.whitelist(), &certificate))
            .map_err(publisher.sign_error())?;
        let history = self.edit_tags(&revision, &params, edit, work.path())?;
        let algorithm = params.algorithm;
        let certificate_hash = records::store_bytes(
            storage,
            algorithm,
            ObjectKind::Certificate,
            certificate.pem(),
        )
        .map_err(|e| publisher.records(e))?;
        fail_at("stratum0::before_sync")?;
        storage.sync().map_err(publisher.storage_error("sync"))?;

        let before = self.head.manifest();
        // clients refuse a manifest that is older than the one they have, whatever our clock does
        let published = seconds(now).max(before.published);
        let reference = |hash, kind| Reference {
            hash,
            kind,
            timestamp: published.cast_signed(),
        };
        let mut references = vec![
            reference(revision.root_hash, RefKind::Catalog),
            reference(certificate_hash, RefKind::Certificate),
        ];
        references.extend(history.map(|hash| reference(hash, RefKind::History)));
        references.extend(
            before
                .meta_info
                .map(|hash| reference(hash, RefKind::MetaInfo)),
        );
        let reflog = records::append_reflog(
            storage,
            &publisher.home.spool_dir,
            algorithm,
            before.reflog,
            &references,
            work.path(),
        )
        .map_err(|e| publisher.records(e))?;
        fail_at("stratum0::after_reflog")?;

        let mut manifest = Manifest {
            root_catalog: revision.root_hash,
            catalog_bytes: revision.root_bytes,
            ttl_seconds: revision.ttl_seconds,
            revision: revision.revision,
            garbage_collectable: params.garbage_collection,
            alt_paths: params.alt_paths,
            micro_catalog: before.micro_catalog,
            name: publisher.home.name.clone(),
            certificate: Some(certificate_hash),
            history,
            published,
            meta_info: before.meta_info,
            reflog: Some(reflog),
        };
        manifest.alt_paths = params.alt_paths && publisher.place_alt_links(&manifest)?;
        let bytes = sign_manifest(manifest, algorithm, &key)
            .map_err(publisher.sign_error())?
            .to_bytes()
            .map_err(|source| PublisherError::Manifest {
                repo: publisher.home.name.clone(),
                source,
            })?;
        record(&revision).map_err(PublisherError::Record)?;
        fail_at("stratum0::before_manifest")?;
        storage
            .write_root(MANIFEST, &bytes)
            .map_err(publisher.storage_error("publish in"))?;
        fail_at("stratum0::after_manifest")?;
        self.locks.published(&revision.root_hash);
        Ok(revision)
    }
}

impl Lease for Stratum0Lease<'_> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn check_tag(&self, name: &str) -> Result<(), PublisherError> {
        let work = self.publisher.work()?;
        let history = self
            .publisher
            .read_history(self.head.manifest().history, work.path())?;
        let taken = match history {
            Some(history) => history.tag(name).map_err(|source| PublisherError::Tags {
                repo: self.publisher.home.name.clone(),
                source,
            })?,
            None => None,
        };
        match taken {
            Some(tag) => Err(PublisherError::TagExists {
                name: tag.name,
                revision: tag.revision,
            }),
            None => Ok(()),
        }
    }

    fn submit(
        self: Box<Self>,
        revision: NewRevision,
        now: SystemTime,
        record: Record<'_>,
    ) -> Result<NewRevision, PublisherError> {
        self.publish(revision, TagEdit::Publish, now, record)
    }
}

impl Stratum0 {
    /// Makes root catalog, certificate, tags and meta information reachable by their other names,
    /// which clients of protected repositories use. False where the storage cannot.
    fn place_alt_links(&self, manifest: &Manifest) -> Result<bool, PublisherError> {
        let Some(dir) = self.storage.local_dir() else {
            return Ok(false);
        };
        let objects = [
            (Some(manifest.root_catalog), ObjectKind::Catalog),
            (manifest.certificate, ObjectKind::Certificate),
            (manifest.history, ObjectKind::History),
            (manifest.meta_info, ObjectKind::MetaInfo),
        ];
        for (hash, kind) in objects {
            let Some(hash) = hash else {
                continue;
            };
            let name = ObjectName::new(hash, kind);
            let link = dir.join(format!(".cvmfsalt-{name}"));
            match std::os::unix::fs::symlink(name.storage_path(), &link) {
                Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(HomeError::Write { path: link, source }.into());
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

/// From when on automatic tags are kept; none if all are.
fn auto_tags_before(params: &Params, now: i64) -> Option<i64> {
    crate::timespan::before(&params.auto_tag_timespan, now)
}

/// Seconds since 1970; 0 for times before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A named place at which tests make a publication fail.
fn fail_at(name: &'static str) -> Result<(), PublisherError> {
    fail::fail_point!(name, |_| Err(PublisherError::Record(
        crate::txn::TxnError::Injected(name)
    )));
    let _ = name;
    Ok(())
}
