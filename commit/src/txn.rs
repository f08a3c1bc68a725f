//! The durable state of one commit.
//!
//! ```text
//! TXN/              made when it begins, synced; gone when it is over
//! TXN/state.json    the record below, replaced as a whole, synced
//! TXN/objects       names of all objects that go into the storage, a line each, synced before they do
//! TXN/new           one of these two in the making
//! TXN/work/         catalogs in the making; anything in it may go at any time
//! ```
//!
//! | state | what a restart owes |
//! | --- | --- |
//! | none | nothing |
//! | frozen, stored, warmed, leased | nothing is visible: thaw the stage, the commit was not done |
//! | submitted | ask the world: the manifest is the old one or ours |
//! | visible | retire the stage |
//!
//! Objects that were stored for a commit that was not done stay; they are found again by the next
//! one, so they are synced, or hashed again, before the commit is forgotten. Nothing here talks to a
//! repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use formats::object::ObjectName;
use serde::{Deserialize, Serialize};
use store::{Injected, failpoint};

use crate::publish::Visible;
use crate::publisher::NewRevision;

const STATE_FILE: &str = "state.json";
const OBJECTS_FILE: &str = "objects";
const WORK_DIR: &str = "work";
/// What is to be one of the files above, when it is whole.
const NEW_FILE: &str = "new";
/// Of the record; a newer one is refused.
const FORMAT: u32 = 1;

/// Why a commit's state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A file of it.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The record is unreadable.
    #[error("{path} is damaged")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The record was written by a newer program.
    #[error("{path} has format {found}, this program knows {FORMAT}; use the newer program")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A commit is under way, or its end was never looked at.
    #[error("{path}: an earlier commit was interrupted and not resumed")]
    Unfinished {
        /// Which file.
        path: PathBuf,
    },
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// How far a commit has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum State {
    /// The change set is frozen.
    Frozen,
    /// All objects are in the storage.
    Stored,
    /// As many Stratum 1s have them as are waited for.
    Warmed,
    /// Other publishers are kept out.
    Leased,
    /// All but the last step is done: it may be visible.
    Submitted {
        revision: NewRevision,
        report: Box<Visible>,
    },
    /// It is visible.
    Visible { report: Box<Visible> },
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    repo: String,
    /// The stage's id of the snapshot.
    snapshot: u64,
    /// The start of the machine that it ran in.
    boot: String,
    #[serde(flatten)]
    state: State,
}

/// A commit's state, on disk.
#[derive(Debug)]
pub(crate) struct Txn {
    dir: PathBuf,
    repo: String,
    snapshot: u64,
    boot: String,
}

impl Txn {
    /// Begins a commit in `dir`, which must hold none.
    pub(crate) fn begin(
        dir: &Path,
        repo: &str,
        snapshot: u64,
        boot: &str,
    ) -> Result<Self, TxnError> {
        let state = dir.join(STATE_FILE);
        if state.exists() {
            return Err(TxnError::Unfinished { path: state });
        }
        let work = dir.join(WORK_DIR);
        clear(dir)?;
        fs::create_dir_all(&work).map_err(io_error("create", &work))?;
        // without its directory the record would be lost
        sync_dir(dir.parent().unwrap_or(dir))?;
        let txn = Self {
            dir: dir.to_path_buf(),
            repo: repo.to_owned(),
            snapshot,
            boot: boot.to_owned(),
        };
        txn.set(State::Frozen)?;
        Ok(txn)
    }

    /// Where the record lies.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// An empty directory for catalogs in the making.
    pub(crate) fn work_dir(&self, name: &str) -> Result<PathBuf, TxnError> {
        let work = self.dir.join(WORK_DIR).join(name);
        remove_dir(&work)?;
        fs::create_dir_all(&work).map_err(io_error("create", &work))?;
        Ok(work)
    }

    /// Writes the state; when this returns it survives power loss.
    pub(crate) fn set(&self, state: State) -> Result<(), TxnError> {
        let path = self.dir.join(STATE_FILE);
        let record = Record {
            format: FORMAT,
            repo: self.repo.clone(),
            snapshot: self.snapshot,
            boot: self.boot.clone(),
            state,
        };
        let text = serde_json::to_vec_pretty(&record).map_err(|source| TxnError::Damaged {
            path: path.clone(),
            source,
        })?;
        self.replace(&path, &text)
    }

    /// Notes which objects are about to be stored; when this returns it survives power loss.
    pub(crate) fn note_objects<'n>(
        &self,
        names: impl Iterator<Item = &'n ObjectName>,
    ) -> Result<(), TxnError> {
        let mut text = Vec::new();
        for name in names {
            text.extend_from_slice(name.to_string().as_bytes());
            text.push(b'\n');
        }
        self.replace(&self.dir.join(OBJECTS_FILE), &text)
    }

    fn replace(&self, path: &Path, text: &[u8]) -> Result<(), TxnError> {
        let new = self.dir.join(NEW_FILE);
        let mut file = fs::File::create(&new).map_err(io_error("write", &new))?;
        io::Write::write_all(&mut file, text).map_err(io_error("write", &new))?;
        file.sync_all().map_err(io_error("sync", &new))?;
        failpoint::pass("txn::record")?;
        fs::rename(&new, path).map_err(io_error("write", path))?;
        sync_dir(&self.dir)
    }

    /// Ends a commit of which nothing is visible.
    pub(crate) fn abandon(&self) -> Result<(), TxnError> {
        clear(&self.dir)
    }

    /// Drops the catalogs in the making.
    pub(crate) fn drop_work(&self) -> Result<(), TxnError> {
        remove_dir(&self.dir.join(WORK_DIR))
    }
}

/// An interrupted commit, as found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) snapshot: u64,
    pub(crate) boot: String,
    pub(crate) state: State,
}

/// The objects that an interrupted commit stored or was about to store.
pub(crate) fn noted_objects(dir: &Path) -> Result<Vec<ObjectName>, TxnError> {
    let path = dir.join(OBJECTS_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    // it was synced before it got its name, so a line that is no name is none of ours
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Reads what an earlier commit left in `dir`.
pub(crate) fn find(dir: &Path) -> Result<Option<Found>, TxnError> {
    let path = dir.join(STATE_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", &path)(source)),
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |source| TxnError::Damaged {
        path: path.clone(),
        source,
    };
    let format: Format = serde_json::from_slice(&text).map_err(damaged)?;
    if format.format > FORMAT {
        return Err(TxnError::Newer {
            path,
            found: format.format,
        });
    }
    let record: Record = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(Some(Found {
        snapshot: record.snapshot,
        boot: record.boot,
        state: record.state,
    }))
}

/// Forgets the commit in `dir`: it is not done, or done and retired.
///
/// # Errors
/// When the record cannot be removed.
pub fn clear(dir: &Path) -> Result<(), TxnError> {
    remove_dir(&dir.join(WORK_DIR))?;
    // in this order: a record without its list would be believed to have stored nothing
    for file in [STATE_FILE, OBJECTS_FILE, NEW_FILE] {
        let path = dir.join(file);
        match fs::remove_file(&path) {
            Ok(()) => {
                sync_dir(dir)?;
                failpoint::pass("txn::clear")?;
            }
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove", &path)(source)),
        }
    }
    // an empty one that a power loss brings back tells nothing
    let _ = fs::remove_dir(dir);
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<(), TxnError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", dir)(source))
        }
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<(), TxnError> {
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}

fn io_error<'p>(action: &'static str, path: &'p Path) -> impl Fn(io::Error) -> TxnError + 'p {
    move |source| TxnError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}
