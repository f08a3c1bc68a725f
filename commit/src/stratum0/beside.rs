//! What `cvmfs_server` makes of a repository at the moment. Looks, and changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use formats::hash::Hash;

use super::locks;
use super::mounts::Mounts;
use crate::home::{HomeError, RepoHome};
use crate::publisher::PublisherError;

/// The other program on a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// `CVMFS_USER`, whom everything of the repository belongs to.
    pub owner: u32,
    /// A transaction that somebody has open: who, and since when.
    pub transaction: Option<(u32, SystemTime)>,
    /// An older revision is checked out: the next transaction starts from it.
    pub is_checked_out: bool,
    /// The root catalog that its read-only mount shows; none if nothing is mounted.
    pub shown: Option<Hash>,
}

/// Looks at a repository of `cvmfs_server`.
///
/// # Errors
/// When its spool directory cannot be looked at.
pub fn beside(home: &RepoHome) -> Result<Beside, PublisherError> {
    let spool = &home.spool_dir;
    let found = fs::metadata(spool).map_err(|source| HomeError::Read {
        path: spool.clone(),
        source,
    })?;
    let transaction = match locks::theirs(home) {
        Err(PublisherError::Transaction { uid, since, .. }) => Some((uid, since)),
        looked => {
            looked?;
            None
        }
    };
    Ok(Beside {
        owner: found.uid(),
        transaction,
        is_checked_out: spool.join(locks::CHECKOUT).exists(),
        shown: Mounts::of(home).shown(),
    })
}
