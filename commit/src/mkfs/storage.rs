//! The storage of a repository that is being made: chosen, claimed, and laid out.
//!
//! One that holds something already is refused, unless an interrupted run of ours had begun it: the
//! claim in the spool directory says so, until the repository is registered.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::{DirStore, Durability, ObjectStore, S3Store, StoreError};

use super::{MkfsError, NewRepository, absolute, io_error};
use crate::home::{RepoHome, replace_file};
use crate::place::{NewBucket, Place};

/// Names the storage that is being made, until it is registered.
const CLAIM: &str = "mkfs.unfinished";
/// Its presence allows replication.
const MASTER_REPLICA: &str = ".cvmfs_master_replica";
const MASTER_REPLICA_TEXT: &[u8] = b"This file marks the repository as replicatable to stratum 1\n";

/// Where a new repository's storage shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewStorage {
    /// In a directory, empty or still to be made.
    Directory(PathBuf),
    /// In a bucket, which is made where it is missing if the second says so.
    Bucket(NewBucket, bool),
}

/// A storage in the making.
pub(super) struct Site {
    pub place: Place,
    /// Where everybody reads it, if it is in a bucket.
    pub url: Option<String>,
    kind: Kind,
    claim: PathBuf,
}

enum Kind {
    Directory(PathBuf),
    Bucket { store: S3Store, creates: bool },
}

impl Site {
    /// What is wanted, or a directory below the state. Nothing is made but a bucket's
    /// configuration.
    pub fn choose(
        state_dir: &Path,
        home: &RepoHome,
        wanted: &NewRepository,
    ) -> Result<Self, MkfsError> {
        let claim = home.spool_dir.join(CLAIM);
        let dir = match &wanted.storage {
            Some(NewStorage::Bucket(bucket, creates)) => {
                let tmp = absolute(&home.spool_dir.join("tmp"))?;
                fs::create_dir_all(&tmp).map_err(io_error("create", &tmp))?;
                let conf_dir = home.conf_file.parent().unwrap_or(Path::new("/"));
                let place = bucket.place(&absolute(conf_dir)?, tmp)?;
                return Ok(Self {
                    url: Some(place.conf()?.url(&place.alias)),
                    kind: Kind::Bucket {
                        store: place.open(&home.name)?,
                        creates: *creates,
                    },
                    place: Place::Bucket(place),
                    claim,
                });
            }
            Some(NewStorage::Directory(dir)) => absolute(dir)?,
            None => absolute(&state_dir.join("srv/cvmfs").join(&wanted.name))?,
        };
        Ok(Self {
            place: Place::Directory(dir.clone()),
            url: None,
            kind: Kind::Directory(dir),
            claim,
        })
    }

    /// Refuses a storage in use. One that an interrupted run of ours has begun is emptied: no
    /// repository was registered for it.
    pub fn claim(&self) -> Result<(), MkfsError> {
        let claimed = self.place.describe();
        let is_ours = fs::read(&self.claim).is_ok_and(|begun| begun == claimed.as_bytes());
        let in_use = match &self.kind {
            Kind::Directory(dir) => claim_directory(dir, is_ours)?,
            Kind::Bucket { store, creates } => {
                let claim = claim_bucket(store, is_ours, *creates);
                claim.map_err(self.failed())?
            }
        };
        if in_use {
            return Err(MkfsError::StorageInUse { place: claimed });
        }
        Ok(replace_file(&self.claim, claimed.as_bytes(), 0o644)?)
    }

    /// Lays the storage out.
    pub fn make(&self) -> Result<Arc<dyn ObjectStore>, MkfsError> {
        let storage: Arc<dyn ObjectStore> = match &self.kind {
            Kind::Bucket { store, .. } => Arc::new(store.clone()),
            Kind::Directory(dir) => {
                let made = DirStore::create(dir, Durability::Batch);
                Arc::new(made.map_err(self.failed())?)
            }
        };
        storage
            .write_root(MASTER_REPLICA, MASTER_REPLICA_TEXT)
            .map_err(self.failed())?;
        Ok(storage)
    }

    fn failed(&self) -> impl FnOnce(StoreError) -> MkfsError {
        let place = self.place.describe();
        move |source| MkfsError::Storage { place, source }
    }

    /// The repository is registered, and the storage its own.
    pub fn registered(&self) -> Result<(), MkfsError> {
        fs::remove_file(&self.claim).map_err(io_error("remove", &self.claim))
    }
}

/// Makes the bucket where that is wanted; true if it holds something below the prefix.
fn claim_bucket(store: &S3Store, is_ours: bool, creates: bool) -> Result<bool, StoreError> {
    if creates
        && store.create_bucket()?
        && let Err(error) = store.let_everybody_read()
    {
        // many stores have no policies, and there each object says who may read it
        tracing::warn!(
            %error,
            "the new bucket has no policy by which everybody may read; what is in it can be read where the store honours CVMFS_S3_X_AMZ_ACL"
        );
    }
    let mut files = Vec::new();
    store.files(&mut |file| {
        files.push(file.to_owned());
        Ok(match is_ours {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    if !is_ours {
        return Ok(!files.is_empty());
    }
    for file in files {
        store.remove_file(&file)?;
    }
    Ok(false)
}

/// True if it holds something.
fn claim_directory(dir: &Path, is_ours: bool) -> Result<bool, MkfsError> {
    if is_ours {
        match fs::remove_dir_all(dir) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", dir)(source));
            }
            _ => {}
        }
    }
    Ok(fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()))
}
