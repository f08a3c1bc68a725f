//! Which transaction is ours.
//!
//! ```text
//! SPOOL/transaction         JSON: the mark of a commit, and its transaction's sign once that is open
//! SPOOL/transaction.held    locked by the process whose commit that is
//! ```
//!
//! Written before `cvmfs_server transaction`, gone after the transaction is: whoever finds it unlocked
//! finds a commit that died. `in_transaction.lock` is `cvmfs_server`'s sign of any transaction, an empty
//! file; ours is told from others by inode and time. Nothing here runs anything.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::home::{HomeError, RepoHome, replace_file};
use crate::stratum0::locks::TRANSACTION;

const RECORD: &str = "transaction";
const HELD: &str = "transaction.held";
/// What has been written in a transaction, below the repository's spool directory.
const SCRATCH: &str = "scratch/current";

/// What a commit noted of its transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What runs for it are marked with.
    pub mark: String,
    /// The sign of its transaction; none while that is being opened.
    pub sign: Option<Sign>,
}

/// A file that is the sign of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sign {
    inode: u64,
    seconds: i64,
    nanos: i64,
}

impl Sign {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec(),
        }
    }
}

/// Where it is noted.
#[derive(Debug)]
pub(super) struct Ours {
    dir: PathBuf,
    sign: PathBuf,
    scratch: PathBuf,
}

/// The right to have a transaction of ours: one process at a time.
#[derive(Debug)]
pub(super) struct Held {
    _locked: File,
}

fn write(path: &Path) -> impl Fn(io::Error) -> HomeError + '_ {
    move |source| HomeError::Write {
        path: path.to_path_buf(),
        source,
    }
}

fn read(path: &Path) -> impl Fn(io::Error) -> HomeError + '_ {
    move |source| HomeError::Read {
        path: path.to_path_buf(),
        source,
    }
}

impl Ours {
    pub(super) fn new(home: &RepoHome, dir: PathBuf) -> Self {
        Self {
            dir,
            sign: home.spool_dir.join(TRANSACTION),
            scratch: home.spool_dir.join(SCRATCH),
        }
    }

    /// None while another process, or another thread of this one, has it.
    pub(super) fn hold(&self) -> Result<Option<Held>, HomeError> {
        fs::create_dir_all(&self.dir).map_err(write(&self.dir))?;
        let path = self.dir.join(HELD);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(write(&path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Held { _locked: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(write(&path)(error.into())),
        }
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join(RECORD)
    }

    /// What a commit that is not over has noted.
    pub(super) fn noted(&self) -> Result<Option<Record>, HomeError> {
        let path = self.record_path();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(read(&path))?,
        };
        let record = serde_json::from_slice(&bytes);
        record.map(Some).map_err(|e| read(&path)(e.into()))
    }

    pub(super) fn note(&self, record: &Record) -> Result<(), HomeError> {
        let bytes = serde_json::to_vec(record).map_err(|e| write(&self.record_path())(e.into()))?;
        replace_file(&self.record_path(), &bytes, 0o600)
    }

    pub(super) fn forget(&self) -> Result<(), HomeError> {
        let path = self.record_path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write(&path)(error)),
            _ => Ok(()),
        }
    }

    /// The sign of the transaction that is open; none if none is.
    pub(super) fn sign(&self) -> Result<Option<Sign>, HomeError> {
        Ok(self.look(&self.sign)?.as_ref().map(Sign::of))
    }

    fn look(&self, path: &Path) -> Result<Option<fs::Metadata>, HomeError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some).map_err(read(path)),
        }
    }

    /// True if the transaction that is open is the one that was noted. Of one that was being opened when
    /// its process died, the sign is not known: it is ours if it was made since, by our user, and nothing
    /// has been written in it. Whoever opened one in those moments loses nothing but the empty
    /// transaction.
    pub(super) fn is_open(&self, record: &Record) -> Result<bool, HomeError> {
        let Some(found) = self.look(&self.sign)? else {
            return Ok(false);
        };
        if let Some(sign) = record.sign {
            return Ok(sign == Sign::of(&found));
        }
        let Some(noted) = self.look(&self.record_path())? else {
            return Ok(false);
        };
        let since = |file: &fs::Metadata| (file.mtime(), file.mtime_nsec());
        let is_empty = fs::read_dir(&self.scratch)
            .map(|mut entries| entries.next().is_none())
            .map_err(read(&self.scratch))?;
        let me = rustix::process::geteuid().as_raw();
        Ok(since(&found) >= since(&noted) && found.uid() == me && is_empty)
    }
}
