//! Locks of a lease, taken in a fixed order and given back in the other.
//!
//! ```text
//! SPOOL/is_publishing.lock     flock    keeps other publishers out
//! SPOOL/is_collecting.lock     flock    keeps garbage collection and `cvmfs_server check` out
//! SPOOL/in_transaction.lock    exists   only for repositories of cvmfs_server: its sign of a
//!                                       transaction, without which it neither publishes nor tags,
//!                                       collects or rolls back
//! ```
//!
//! `cvmfs_server` unlinks the first two when it lets go of them [`cvmfs_server_util.sh:release_lock`],
//! so one is held only if its name still leads to the file that is locked. Its own sign of a
//! transaction is an empty file. Ours holds [`OURS`] from the instant it has its name, so that one
//! left by a crash is told from a transaction that somebody has open.

use std::fs::{self, File};
use std::io;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formats::hash::Hash;
use rustix::fs::{FlockOperation, flock};
use store::{Owner, failpoint};

use super::mounts::Mounts;
use crate::home::{HomeError, RepoHome, replace_file};
use crate::publisher::PublisherError;

const PUBLISHING: &str = "is_publishing.lock";
const COLLECTING: &str = "is_collecting.lock";
pub(crate) const TRANSACTION: &str = "in_transaction.lock";
/// What a [`TRANSACTION`] of ours holds.
const OURS: &[u8] = b"prepub\n";
/// Says that the next transaction starts from another revision than the newest.
pub(super) const CHECKOUT: &str = "checkout";
/// Pins the revision that `cvmfs_server`'s own mount shows.
const CLIENT_LOCAL: &str = "client.local";
/// `cvmfs_server` looks whether a lock is free by taking it for an instant, or for as long as it
/// repairs its mounts: that is not worth a refusal.
const TRIES: u32 = 30;
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Locks, held until dropped.
#[derive(Debug)]
pub(crate) struct Locks {
    foreign: Option<Foreign>,
    _publishing: File,
    _collecting: File,
}

/// What else there is to do for a repository of `cvmfs_server`.
#[derive(Debug)]
struct Foreign {
    repo: String,
    spool: PathBuf,
    mounts: Mounts,
    /// The union was writable, without a transaction, before us.
    was_writable: bool,
}

impl Locks {
    /// Takes all locks, or none.
    pub(crate) fn take(home: &RepoHome) -> Result<Self, PublisherError> {
        let spool = &home.spool_dir;
        let tries = match home.is_foreign {
            true => TRIES,
            false => {
                fs::create_dir_all(spool).map_err(write_error(spool))?;
                1
            }
        };
        let busy = |what: &str| PublisherError::Busy {
            repo: home.name.clone(),
            what: what.to_owned(),
        };
        if home.is_foreign {
            // before waiting for anything: this one stays
            theirs(home)?;
        }
        let publishing = lock(&spool.join(PUBLISHING), tries)?
            .ok_or_else(|| busy("another publication is under way"))?;
        let collecting = lock(&spool.join(COLLECTING), tries)?
            .ok_or_else(|| busy("a garbage collection or check is under way"))?;
        if home.is_foreign && spool.join(CHECKOUT).exists() {
            return Err(busy("a tag is checked out with `cvmfs_server checkout`"));
        }
        let foreign = match home.is_foreign {
            true => Some(Foreign::sign(home)?),
            false => None,
        };
        Ok(Self {
            foreign,
            _publishing: publishing,
            _collecting: collecting,
        })
    }

    /// Refuses to go on if somebody opened a transaction in the same instant as we did:
    /// `cvmfs_server` looks for the sign and makes it in two steps.
    pub(super) fn still_alone(&self) -> Result<(), PublisherError> {
        match &self.foreign {
            Some(foreign) if foreign.has_company() => Err(PublisherError::Busy {
                repo: foreign.repo.clone(),
                what: "cvmfs_server opened a transaction at the same time".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Tells `cvmfs_server` which revision its next transaction starts from. The revision is visible
    /// already; what cannot be done here makes its next transaction refuse or repair, and nothing
    /// worse.
    pub(super) fn published(&self, root: &Hash) {
        let Some(foreign) = &self.foreign else {
            return;
        };
        let file = foreign.spool.join(CLIENT_LOCAL);
        match pin(&file, root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), %error, "cannot pin the published revision");
            }
            _ => {}
        }
        if foreign.has_company() {
            return;
        }
        if let Err(error) = foreign.mounts.follow(root) {
            tracing::warn!(
                repo = foreign.repo,
                %error,
                "what cvmfs_server has mounted shows the revision before; it is in use, and goes on with the next transaction"
            );
        }
    }
}

impl Foreign {
    /// Makes the sign of a transaction.
    fn sign(home: &RepoHome) -> Result<Self, PublisherError> {
        let spool = &home.spool_dir;
        let mounts = Mounts::of(home);
        let was_writable = mounts.is_writable();
        let path = spool.join(TRANSACTION);
        // with is_publishing.lock in hand, one of ours is one that a crash left behind
        if !is_ours(&path) && !make_sign(spool, &path)? {
            theirs(home)?;
        }
        failpoint::pass("locks::owned")?;
        Ok(Self {
            repo: home.name.clone(),
            spool: spool.clone(),
            mounts,
            was_writable,
        })
    }

    fn has_company(&self) -> bool {
        !self.was_writable && self.mounts.is_writable()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if failpoint::pass("locks::release").is_err() {
            return;
        }
        let path = self.spool.join(TRANSACTION);
        let given_back = match self.has_company() {
            // it is the sign of their transaction, too
            true => File::create(&path).map(|_| ()),
            false => remove_ours(&path),
        };
        if let Err(error) = given_back {
            tracing::warn!(file = %path.display(), %error, "cannot give back a lock");
        }
    }
}

/// Removes the sign of a transaction that a crash of ours left behind; nothing, where nobody
/// crashed, or where one of us is at work.
pub(super) fn give_back(home: &RepoHome) -> Result<(), PublisherError> {
    let path = home.spool_dir.join(TRANSACTION);
    if !home.is_foreign || !is_ours(&path) {
        return Ok(());
    }
    let Some(_publishing) = lock(&home.spool_dir.join(PUBLISHING), 1)? else {
        return Ok(());
    };
    remove_ours(&path).map_err(write_error(&path))
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> PublisherError + '_ {
    move |source| {
        PublisherError::Home(HomeError::Write {
            path: path.to_path_buf(),
            source,
        })
    }
}

/// Locks a file that others may unlink; none if it is taken all the time.
fn lock(path: &Path, tries: u32) -> Result<Option<File>, PublisherError> {
    for attempt in 0..tries {
        if attempt > 0 {
            std::thread::sleep(TRY_EVERY);
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(write_error(path))?;
        give(&file, path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => continue,
            Err(error) => return Err(write_error(path)(error.into())),
        }
        let held = file.metadata().map_err(write_error(path))?.ino();
        match fs::symlink_metadata(path) {
            Ok(named) if named.ino() == held => return Ok(Some(file)),
            // whoever had it took its name away
            _ => {}
        }
    }
    Ok(None)
}

/// Lets the directory's owner have a file in it.
fn give(file: &File, path: &Path) -> Result<(), PublisherError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let owner = File::open(dir).and_then(|dir| Ok(Owner::of(&dir)?));
    match owner.map_err(write_error(dir))? {
        Some(owner) => owner
            .take(file)
            .map_err(|error| write_error(path)(error.into())),
        None => Ok(()),
    }
}

/// Refuses a repository in which `cvmfs_server` has a transaction open.
pub(crate) fn theirs(home: &RepoHome) -> Result<(), PublisherError> {
    let path = home.spool_dir.join(TRANSACTION);
    match fs::symlink_metadata(&path) {
        Ok(found) if !is_ours(&path) => Err(PublisherError::Transaction {
            repo: home.name.clone(),
            uid: found.uid(),
            since: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        }),
        _ => Ok(()),
    }
}

fn is_ours(path: &Path) -> bool {
    // one that we may not read is not ours
    fs::read(path).is_ok_and(|bytes| bytes == OURS)
}

fn remove_ours(path: &Path) -> io::Result<()> {
    match is_ours(path) {
        true => fs::remove_file(path),
        // an administrator's `cvmfs_server abort` was faster
        false => Ok(()),
    }
}

/// False if there is one already.
fn make_sign(spool: &Path, path: &Path) -> Result<bool, PublisherError> {
    let failed = write_error(path);
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(spool)
        .map_err(&failed)?;
    file.write_all(OURS).map_err(&failed)?;
    give(file.as_file(), path)?;
    file.as_file().sync_all().map_err(&failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error.error)),
    }
}

fn pin(file: &Path, root: &Hash) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let others = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("CVMFS_ROOT_HASH="));
    let mut pinned: String = others.flat_map(|line| [line, "\n"]).collect();
    pinned.push_str(&format!("CVMFS_ROOT_HASH={root}\n"));
    replace_file(file, pinned.as_bytes(), 0o644).map_err(io::Error::other)
}
