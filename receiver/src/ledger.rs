//! What each transaction announced and what it brought, on disk, so that nothing is forgotten.
//!
//! ```text
//! STATE/format                         the layout's number
//! STATE/ledger/REPO/AUTHORITY/TXN/
//!   record.json    who opened it, when, its session, its state; replaced whole
//!   names          every object that was announced, sorted
//!   brought        the objects that were absent and came, appended to before they get their names
//! ```
//! AUTHORITY is the publisher's, as a fingerprint: two publishers may give one name to two transactions.
//!
//! What `brought` says is never less than what the storage got through the transaction: a line that
//! names an object which did not come does no harm, since whoever removes objects looks who else needs
//! them. A published transaction keeps its names for as long as an older one may still expire, because
//! that one may have brought an object which both announced.

mod record;
mod restamp;
mod transaction;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::path::is_repository_name;
use formats::warm::is_transaction_name;
use parking_lot::Mutex;
use store::failpoint::{self, Injected};

use crate::names::List;

pub use record::{Record as About, State};
pub use transaction::{Noted, Transaction};

/// The layout's number.
const FORMAT: &str = "1\n";
/// Transactions in the ledger, all repositories together; a publisher has a few, and one that has
/// thousands is out of order.
pub const TRANSACTIONS_MAX: usize = 10_000;
/// Names of one transaction on disk: eager pushing announces again and again.
pub const NAMES_TOGETHER_MAX: u64 = 8_000_000;

/// Why the ledger cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Written by a newer program, or by none of ours.
    #[error(
        "{path}: the ledger's format is {found:?}, and this program knows {FORMAT:?}; install the version that wrote it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Too many.
    #[error("{TRANSACTIONS_MAX} transactions are open; let them be published or given up first")]
    TooMany,
    /// Too many names in one.
    #[error(
        "more than {NAMES_TOGETHER_MAX} objects in one transaction; announce the rest in another"
    )]
    TooLong,
    /// Another receiver has it.
    #[error("{0} is in use by another prepub-receiver")]
    Locked(PathBuf),
    /// A test.
    #[error(transparent)]
    Injected(#[from] Injected),
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LedgerError {
    let path = path.to_path_buf();
    move |source| LedgerError::Io {
        action,
        path,
        source,
    }
}

type Result<T, E = LedgerError> = std::result::Result<T, E>;

/// What names a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The repository.
    pub repo: String,
    /// The publisher's authority.
    pub authority: String,
    /// The publisher's own name for it.
    pub txn: String,
}

/// All transactions. One process has a ledger at a time.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    open: Mutex<BTreeMap<Key, Arc<Transaction>>>,
    /// One list is sorted at a time: a million names are 29 MB then.
    announcing: Mutex<()>,
    _lock: File,
}

impl Ledger {
    /// Opens or makes the ledger below `state`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(state: &Path) -> Result<Self> {
        let dir = state.join("ledger");
        fs::create_dir_all(&dir).map_err(io_error("create", &dir))?;
        let lock = lock(state)?;
        let format = state.join("format");
        match fs::read_to_string(&format) {
            Ok(found) if found == FORMAT => {}
            Ok(found) => {
                let found = found.trim().chars().take(16).collect();
                return Err(LedgerError::Format {
                    path: format,
                    found,
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => replace(&format, FORMAT.as_bytes())?,
            Err(e) => return Err(io_error("read", &format)(e)),
        }
        let open = found(&dir)?;
        Ok(Self {
            dir,
            open: Mutex::new(open),
            announcing: Mutex::new(()),
            _lock: lock,
        })
    }

    /// The transaction, if there is one.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Arc<Transaction>> {
        self.open.lock().get(key).map(Arc::clone)
    }

    /// Those of a repository, in the order of their names.
    #[must_use]
    pub fn of(&self, repo: &str) -> Vec<Arc<Transaction>> {
        let open = self.open.lock();
        let all = open.values().filter(|txn| txn.key.repo == repo);
        all.map(Arc::clone).collect()
    }

    /// How many there are, by state.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        let open = self.open.lock();
        open.values().filter(|t| t.about().state == state).count()
    }

    /// Opens a transaction, or opens it again, with more names.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn announce(
        &self,
        key: &Key,
        names: &List,
        publisher: &str,
        now: u64,
        session: impl FnOnce() -> String,
    ) -> Result<Arc<Transaction>> {
        let _one = self.announcing.lock();
        let known = self.get(key);
        if known.is_none() && self.open.lock().len() >= TRANSACTIONS_MAX {
            return Err(LedgerError::TooMany);
        }
        let txn = known.unwrap_or_else(|| {
            Arc::new(Transaction {
                dir: self.dir.join(&key.repo).join(&key.authority).join(&key.txn),
                key: key.clone(),
                about: Mutex::new(About::new(publisher, session(), now)),
                appending: Mutex::new(()),
            })
        });
        fs::create_dir_all(&txn.dir).map_err(io_error("create", &txn.dir))?;
        txn.add_names(names)?;
        failpoint::pass("ledger::named")?;
        txn.change(|about| {
            about.state = State::Open;
            about.touched = about.touched.max(now);
        })?;
        failpoint::pass("ledger::opened")?;
        self.open.lock().insert(key.clone(), Arc::clone(&txn));
        Ok(txn)
    }

    /// Forgets a transaction whose objects are gone, or somebody's.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn forget(&self, txn: &Transaction) -> Result<()> {
        self.open.lock().remove(&txn.key);
        // the record goes first: what has none was never opened
        for file in ["record.json", "brought", "names", "names.new"] {
            let path = txn.dir.join(file);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &path)(e));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&txn.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &txn.dir)(e)),
            _ => Ok(()),
        }
    }
}

/// One receiver has a state at a time.
fn lock(state: &Path) -> Result<File> {
    let path = state.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(&path);
    let file = file.map_err(io_error("open", &path))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked(state.to_path_buf())),
        Err(e) => Err(io_error("lock", &path)(e.into())),
    }
}

/// Every transaction that has a record. One without was never told of, and can be made again.
fn found(dir: &Path) -> Result<BTreeMap<Key, Arc<Transaction>>> {
    let mut all = BTreeMap::new();
    for repo in children(dir)?.filter(|name| is_repository_name(name)) {
        for authority in children(&dir.join(&repo))? {
            let at = dir.join(&repo).join(&authority);
            for txn in children(&at)?.filter(|name| is_transaction_name(name)) {
                let dir = at.join(&txn);
                let path = dir.join("record.json");
                let bytes = match fs::read(&path) {
                    Ok(bytes) => bytes,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(io_error("read", &path)(e)),
                };
                let about = About::parse(&bytes);
                let about =
                    about.map_err(|e| io_error("understand", &path)(io::Error::other(e)))?;
                let key = Key {
                    repo: repo.clone(),
                    authority: authority.clone(),
                    txn,
                };
                let txn = Transaction {
                    key: key.clone(),
                    dir,
                    about: Mutex::new(about),
                    appending: Mutex::new(()),
                };
                all.insert(key, Arc::new(txn));
            }
        }
    }
    Ok(all)
}

fn children(dir: &Path) -> Result<impl Iterator<Item = String>> {
    let entries = fs::read_dir(dir).map_err(io_error("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", dir))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names.into_iter())
}

/// At every instant, a power loss included, the file is the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(io_error("write", path))?;
    sync_dir(path.parent().unwrap_or(path))
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error("sync", dir))
}

#[cfg(test)]
mod tests;
