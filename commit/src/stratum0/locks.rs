//! Locks of a lease, taken in a fixed order and given back in the other.
//!
//! `in_transaction.lock` is another program's file: that it is ours is written down, durably, before
//! it is made, so that one left by a crash is told from a transaction that somebody has open.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use formats::hash::Hash;
use rustix::fs::{FlockOperation, flock};
use store::failpoint;

use crate::home::{HomeError, RepoHome, replace_file};
use crate::publisher::PublisherError;

const PUBLISHING: &str = "is_publishing.lock";
const COLLECTING: &str = "is_collecting.lock";
const TRANSACTION: &str = "in_transaction.lock";
/// Says that [`TRANSACTION`] is ours.
const OWNED: &str = "in_transaction.prepub";
/// Says that the next transaction starts from another revision than the newest.
const CHECKOUT: &str = "checkout";
/// Pins the revision that `cvmfs_server`'s own mount shows.
const CLIENT_LOCAL: &str = "client.local";

/// Locks, held until dropped.
#[derive(Debug)]
pub(crate) struct Locks {
    spool: PathBuf,
    is_foreign: bool,
    _publishing: File,
    _collecting: File,
}

impl Locks {
    /// Takes all locks, or none.
    pub(crate) fn take(home: &RepoHome) -> Result<Self, PublisherError> {
        let spool = &home.spool_dir;
        if !home.is_foreign {
            fs::create_dir_all(spool).map_err(write_error(spool))?;
        }
        let busy = |what: &str| PublisherError::Busy {
            repo: home.name.clone(),
            what: what.to_owned(),
        };
        let publishing = try_flock(&spool.join(PUBLISHING))?
            .ok_or_else(|| busy("another publication is under way"))?;
        let collecting = try_flock(&spool.join(COLLECTING))?
            .ok_or_else(|| busy("a garbage collection or check is under way"))?;
        if home.is_foreign && spool.join(CHECKOUT).exists() {
            return Err(busy("a tag is checked out with `cvmfs_server checkout`"));
        }
        if home.is_foreign && !open_transaction(spool)? {
            return Err(busy("a transaction of cvmfs_server is open"));
        }
        Ok(Self {
            spool: spool.clone(),
            is_foreign: home.is_foreign,
            _publishing: publishing,
            _collecting: collecting,
        })
    }

    /// Tells `cvmfs_server` which revision its next transaction starts from. The revision is visible
    /// already; a pin that cannot be written makes its next transaction refuse, and nothing worse.
    pub(super) fn published(&self, root: &Hash) {
        let file = self.spool.join(CLIENT_LOCAL);
        if !self.is_foreign {
            return;
        }
        let pinned = fs::read_to_string(&file).and_then(|text| {
            let others = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("CVMFS_ROOT_HASH="));
            let mut pinned: String = others.flat_map(|line| [line, "\n"]).collect();
            pinned.push_str(&format!("CVMFS_ROOT_HASH={root}\n"));
            replace_file(&file, pinned.as_bytes(), 0o644).map_err(io::Error::other)
        });
        if let Err(error) = pinned
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "cannot pin the published revision");
        }
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        if !self.is_foreign {
            return;
        }
        for name in [TRANSACTION, OWNED] {
            if failpoint::pass("locks::release").is_err() {
                return;
            }
            let file = self.spool.join(name);
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(file = %file.display(), %error, "cannot give back a lock");
            }
        }
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> PublisherError + '_ {
    move |source| {
        PublisherError::Home(HomeError::Write {
            path: path.to_path_buf(),
            source,
        })
    }
}

fn try_flock(path: &Path) -> Result<Option<File>, PublisherError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(write_error(path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(write_error(path)(error.into())),
    }
}

/// False if somebody else has a transaction open.
fn open_transaction(spool: &Path) -> Result<bool, PublisherError> {
    let lock = spool.join(TRANSACTION);
    let owned = spool.join(OWNED);
    // with is_publishing.lock in hand, a file marked as ours is one that a crash left behind
    let is_left_over = owned.exists();
    if lock.exists() && !is_left_over {
        return Ok(false);
    }
    replace_file(&owned, b"in_transaction.lock was made by prepub\n", 0o644)?;
    failpoint::pass("locks::owned")?;
    match File::create_new(&lock) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_left_over => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&owned).map_err(write_error(&owned))?;
            Ok(false)
        }
        Err(error) => Err(write_error(&lock)(error)),
    }
}
