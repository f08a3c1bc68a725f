//! One transaction's files: what it announced, what it brought, what has become of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use parking_lot::Mutex;
use store::failpoint;

use super::{
    About, Key, LedgerError, NAMES_TOGETHER_MAX, Result, State, io_error, replace, sync_dir,
};
use crate::names::{List, RECORD_BYTES, Record, Records, Sorted};

/// A transaction.
#[derive(Debug)]
pub struct Transaction {
    pub(super) key: Key,
    pub(super) dir: PathBuf,
    pub(super) about: Mutex<About>,
    /// Held while a line is appended: lines are whole.
    pub(super) appending: Mutex<()>,
}

/// What was noted, and is not durable yet.
#[derive(Debug)]
#[must_use]
pub struct Noted {
    file: File,
    path: PathBuf,
}

impl Noted {
    /// Makes it durable. After a sync of the filesystem that it is on there is nothing left to do.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn sync(self) -> Result<()> {
        let synced = self.file.sync_data();
        synced.map_err(io_error("write", &self.path))?;
        failpoint::pass("ledger::noted")?;
        Ok(())
    }
}

impl Transaction {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What is known of it.
    #[must_use]
    pub fn about(&self) -> About {
        self.about.lock().clone()
    }

    /// When something was last heard of it.
    #[must_use]
    pub fn touched(&self) -> u64 {
        let appended = fs::metadata(self.dir.join("brought")).and_then(|meta| meta.modified());
        let appended = appended.ok().and_then(|time| {
            let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(since.as_secs())
        });
        self.about.lock().touched.max(appended.unwrap_or(0))
    }

    /// What it announced.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn names(&self) -> Result<Option<Sorted>> {
        let path = self.dir.join("names");
        Sorted::open(&path).map_err(io_error("open", &path))
    }

    /// What it brought, in no order, some perhaps twice.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn brought(&self) -> Result<Records> {
        let path = self.dir.join("brought");
        match File::open(&path) {
            Ok(file) => Ok(Records::of(Some(file))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Records::of(None)),
            Err(e) => Err(io_error("open", &path)(e)),
        }
    }

    /// Notes durably what is about to get its name.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn note(&self, records: &[Record]) -> Result<()> {
        self.append(records)?.sync()
    }

    /// Notes what is about to get its name, which must not happen before [`Noted::sync`].
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn append(&self, records: &[Record]) -> Result<Noted> {
        let path = self.dir.join("brought");
        let failed = || io_error("write", &path);
        let _one = self.appending.lock();
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(&path);
        let mut file = file.map_err(failed())?;
        let length = file.metadata().map_err(failed())?.len();
        // one that a crash or a full disk tore is no line, and must not shift those that follow
        let torn = length % RECORD_BYTES as u64;
        if torn != 0 {
            file.set_len(length - torn).map_err(failed())?;
        }
        file.write_all(&records.concat()).map_err(failed())?;
        if is_new {
            // under the lock: whoever notes next takes it for there
            sync_dir(&self.dir)?;
        }
        Ok(Noted { file, path })
    }

    /// The objects are the replica's from now on.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn published(&self, now: u64) -> Result<()> {
        self.change(|about| {
            about.state = State::Published;
            about.ended = Some(now);
            about.touched = about.touched.max(now);
        })?;
        failpoint::pass("ledger::published")?;
        let path = self.dir.join("brought");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Nobody wants the objects any more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn give_up(&self, now: u64) -> Result<()> {
        self.change(|about| {
            about.state = State::GivenUp;
            about.ended = Some(now);
        })
    }

    pub(super) fn add_names(&self, names: &List) -> Result<()> {
        let (path, new) = (self.dir.join("names"), self.dir.join("names.new"));
        let older = self.names()?;
        if let Some(older) = &older
            && older.has_all(names).map_err(io_error("read", &path))?
        {
            return Ok(());
        }
        let most = older.as_ref().map_or(0, Sorted::len) + u64::from(names.len());
        if most > NAMES_TOGETHER_MAX {
            return Err(LedgerError::TooLong);
        }
        Sorted::merge(older.as_ref(), names, &new).map_err(io_error("write", &new))?;
        fs::rename(&new, &path).map_err(io_error("write", &path))?;
        sync_dir(&self.dir)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut About)) -> Result<()> {
        let mut about = self.about.lock();
        let mut changed = about.clone();
        change(&mut changed);
        let path = self.dir.join("record.json");
        replace(&path, &changed.render())?;
        *about = changed;
        Ok(())
    }
}
