//! The stage's record of itself, in an embedded engine with a write-ahead log.
//!
//! One atomic batch for each operation, handed to the operating system before the operation is
//! answered; [`Journal::sync`] makes what came before survive power loss. Keys:
//!
//! ```text
//! n <ino, 8 bytes>             inode: Record
//! d <ino, 8 bytes> <name>      name in a directory: Dentry
//! m <key>                      about the stage
//! f <id, 8 bytes>              a snapshot handed to a commit
//! ```
//!
//! Values begin with a version byte. The engine refuses all further writes once one has failed, be it
//! ours or what its own thread writes (the disk was full): it is then opened anew. As long as there is
//! a reserve, some of it is let go and the batch is written again; where even that fails, what the
//! operation may have left in the log is undone before anything else. Nothing here knows what the
//! records mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::{Injected, failpoint};

use crate::space::Space;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Version of the values.
const VERSION: u8 = 3;
/// Changes kept in memory until they are written as a sorted table.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// Blocks of tables kept in memory: the journal is read once, at the start.
const CACHE_BYTES: u64 = 4 << 20;
/// The log's largest size; the engine's smallest possible.
const LOG_BYTES: u64 = 128 << 20;
/// What the engine adds to a key and its value in the log.
const ITEM_BYTES: usize = 32;
/// How often the engine's own threads are given time to let go of its files.
const REOPEN_TRIES: u32 = 20;
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// Why the journal could not take or give a record.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk is full.
    #[error("no space left for the journal in {0}; free some space there")]
    NoSpace(PathBuf),
    /// The engine failed.
    #[error("journal {dir}")]
    Engine {
        /// Where it lies.
        dir: PathBuf,
        /// Why.
        #[source]
        source: Box<fjall::Error>,
    },
    /// A record is not what this version writes.
    #[error("journal {dir}: record {key} cannot be read: {reason}")]
    Record {
        /// Where it lies.
        dir: PathBuf,
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl JournalError {
    /// True where more space is the way out.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace(_))
    }

    /// True where the engine had stopped before, because something failed that it writes on its own.
    fn is_poisoned(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if matches!(**source, fjall::Error::Poisoned))
    }
}

/// Records to put and to remove, as one.
#[derive(Default)]
pub(crate) struct Batch {
    items: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: &impl Serialize) {
        self.items.push((key, Some(encode(value))));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.items.push((key, None));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What it takes in the log, about.
    fn bytes(&self) -> u64 {
        let lengths = self.items.iter().map(|(key, value)| {
            let value = value.as_ref().map_or(0, Vec::len);
            key.len() + value + ITEM_BYTES
        });
        lengths.sum::<usize>() as u64
    }
}

/// The key of an inode.
pub(crate) fn inode_key(ino: u64) -> Vec<u8> {
    numbered(b'n', ino, &[])
}

/// The key of a name.
pub(crate) fn name_key(parent: u64, name: &[u8]) -> Vec<u8> {
    numbered(b'd', parent, name)
}

/// The key of a snapshot.
pub(crate) fn frozen_key(id: u64) -> Vec<u8> {
    numbered(b'f', id, &[])
}

/// The key of something about the stage.
pub(crate) fn meta_key(what: &str) -> Vec<u8> {
    [b"m", what.as_bytes()].concat()
}

fn numbered(prefix: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// The number in a key, and what follows it.
pub(crate) fn split_key(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let out = vec![VERSION];
    // a Vec takes all there is, and our records hold nothing that cannot be written
    postcard::to_extend(value, out).unwrap_or_default()
}

struct Engine {
    database: Database,
    records: Keyspace,
}

/// See the module's head.
pub(crate) struct Journal {
    dir: PathBuf,
    space: Arc<Space>,
    state: Mutex<State>,
    /// Batches recorded, those of earlier processes counting as one.
    recorded: AtomicU64,
    /// How many of them survive power loss; held while more are made to.
    synced: Mutex<u64>,
}

struct State {
    engine: Option<Engine>,
    /// What failed operations may have left in the log; put right when it is opened again.
    to_undo: Batch,
}

impl Journal {
    /// Opens or makes the journal in `dir`, on the filesystem that `space` watches.
    pub(crate) fn open(dir: &Path, space: &Arc<Space>) -> Result<Self, JournalError> {
        if !dir.exists() {
            make(dir)?;
        }
        let engine = open_unlocked(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            space: Arc::clone(space),
            state: Mutex::new(State {
                engine: Some(engine),
                to_undo: Batch::default(),
            }),
            recorded: AtomicU64::new(1),
            synced: Mutex::new(0),
        })
    }

    /// Records a batch; when it returns, it survives this process. If it fails, the caller owes an
    /// [`Journal::undo`].
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), JournalError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.space.before_recording(batch.bytes());
        let mut state = self.state.lock();
        let mut done = self.attempt(&mut state, &batch);
        // the same records once more: what of them is there already does no harm
        if done.as_ref().is_err_and(JournalError::is_poisoned) {
            if self.space.is_full() {
                self.space.let_reserve_go();
            }
            done = self.attempt(&mut state, &batch);
        }
        while done.as_ref().is_err_and(JournalError::is_no_space) && self.space.let_reserve_go() > 0
        {
            done = self.attempt(&mut state, &batch);
        }
        match done {
            Err(error) if error.is_poisoned() && self.space.is_full() => {
                Err(JournalError::NoSpace(self.dir.clone()))
            }
            done => done,
        }
    }

    fn attempt(&self, state: &mut State, batch: &Batch) -> Result<(), JournalError> {
        failpoint::pass("journal::record")?;
        let engine = self.revive(state)?;
        let Err(source) = engine.commit(batch) else {
            self.recorded.fetch_add(1, Ordering::SeqCst);
            failpoint::pass("journal::recorded")?;
            return Ok(());
        };
        tracing::warn!(dir = %self.dir.display(), error = ?source, "journal write failed");
        state.engine = None;
        Err(wrap(&self.dir, source))
    }

    /// Puts records back as they were before a batch that failed: its bytes may have reached the
    /// log. Done when the engine is opened again, before anything else.
    pub(crate) fn undo(&self, batch: Batch) {
        self.state.lock().to_undo.items.extend(batch.items);
        // a sync has something to do
        self.recorded.fetch_add(1, Ordering::SeqCst);
    }

    /// Makes everything recorded so far survive power loss. Costs nothing where it does already; of
    /// several callers one does the work for all.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        let wanted = self.recorded.load(Ordering::SeqCst);
        let mut synced = self.synced.lock();
        if *synced >= wanted {
            return Ok(());
        }
        let covered = self.recorded.load(Ordering::SeqCst);
        failpoint::pass("journal::sync")?;
        fail::fail_point!("fsimpl::journal_sync", |_| Err(JournalError::NoSpace(
            self.dir.clone()
        )));
        let mut done = self.persist();
        if done.as_ref().is_err_and(JournalError::is_poisoned) {
            // it had stopped before, for what it writes on its own
            done = self.persist();
        }
        done?;
        failpoint::pass("journal::synced")?;
        *synced = covered;
        Ok(())
    }

    fn persist(&self) -> Result<(), JournalError> {
        let database = {
            let mut state = self.state.lock();
            self.revive(&mut state)?.database.clone()
        };
        database.persist(PersistMode::SyncAll).map_err(|source| {
            self.state.lock().engine = None;
            wrap(&self.dir, source)
        })
    }

    /// Puts right what a failed operation left, if any did; an error if that cannot be done yet.
    pub(crate) fn settle(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        if state.engine.is_some() && state.to_undo.is_empty() {
            return Ok(());
        }
        self.revive(&mut state).map(|_| ())
    }

    /// Visits every record whose key begins with `prefix`, by key.
    pub(crate) fn for_each<T: DeserializeOwned, E: From<JournalError>>(
        &self,
        prefix: u8,
        mut visit: impl FnMut(&[u8], T) -> Result<(), E>,
    ) -> Result<(), E> {
        let records = {
            let mut state = self.state.lock();
            self.revive(&mut state)?.records.clone()
        };
        for item in records.prefix([prefix]) {
            let (key, value) = item
                .into_inner()
                .map_err(|source| wrap(&self.dir, source))?;
            let value = self.decode(&key, &value)?;
            visit(&key, value)?;
        }
        Ok(())
    }

    /// Something about the stage.
    pub(crate) fn meta<T: DeserializeOwned>(&self, what: &str) -> Result<Option<T>, JournalError> {
        let records = {
            let mut state = self.state.lock();
            self.revive(&mut state)?.records.clone()
        };
        let key = meta_key(what);
        match records.get(&key) {
            Ok(Some(value)) => self.decode(&key, &value).map(Some),
            Ok(None) => Ok(None),
            Err(source) => Err(wrap(&self.dir, source)),
        }
    }

    /// A record that was read and cannot be right.
    pub(crate) fn impossible(&self, key: &[u8], reason: impl Into<String>) -> JournalError {
        JournalError::Record {
            dir: self.dir.clone(),
            key: key.escape_ascii().to_string(),
            reason: reason.into(),
        }
    }

    fn decode<T: DeserializeOwned>(&self, key: &[u8], value: &[u8]) -> Result<T, JournalError> {
        let failed = |reason: String| self.impossible(key, reason);
        match value.split_first() {
            Some((&VERSION, bytes)) => {
                postcard::from_bytes(bytes).map_err(|error| failed(error.to_string()))
            }
            Some((version, _)) => Err(failed(format!(
                "it is of version {version}; this program knows {VERSION}"
            ))),
            None => Err(failed("it is empty".to_owned())),
        }
    }

    fn revive<'a>(&self, state: &'a mut State) -> Result<&'a Engine, JournalError> {
        let engine = match state.engine.take() {
            Some(engine) => engine,
            None => open_unlocked(&self.dir)?,
        };
        if !state.to_undo.is_empty() {
            let undo = Batch {
                items: state.to_undo.items.clone(),
            };
            engine
                .commit(&undo)
                .map_err(|source| wrap(&self.dir, source))?;
            self.recorded.fetch_add(1, Ordering::SeqCst);
            state.to_undo = Batch::default();
        }
        Ok(state.engine.insert(engine))
    }
}

/// Makes an empty journal. The engine cannot go on with one that it had only half made: it gets its
/// name when all of it is there and synced.
fn make(dir: &Path) -> Result<(), JournalError> {
    let failed = |source: io::Error| wrap(dir, source.into());
    let new = dir.with_extension("new");
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let engine = Engine::open(&new).map_err(|source| wrap(dir, source))?;
    let synced = engine.database.persist(PersistMode::SyncAll);
    synced.map_err(|source| wrap(dir, source))?;
    drop(engine);
    // of its files' names the engine takes care
    for made in [&new.join("keyspaces"), &new] {
        sync_dir(made).map_err(failed)?;
    }
    fs::rename(&new, dir).map_err(failed)?;
    sync_dir(dir.parent().unwrap_or(dir)).map_err(failed)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Opens the engine, as soon as the threads of one that was there before have let go of its files.
fn open_unlocked(dir: &Path) -> Result<Engine, JournalError> {
    let mut tries = 0;
    loop {
        match Engine::open(dir) {
            Err(fjall::Error::Locked) if tries < REOPEN_TRIES => {
                tries += 1;
                // theirs is real time, in a simulation, too
                std::thread::sleep(REOPEN_PAUSE);
            }
            other => return other.map_err(|source| wrap(dir, source)),
        }
    }
}

impl Engine {
    fn open(dir: &Path) -> fjall::Result<Self> {
        let database = Database::builder(dir)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(LOG_BYTES)
            .worker_threads(1)
            .open()?;
        let records = database.keyspace("stage", || {
            KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
        })?;
        Ok(Self { database, records })
    }

    fn commit(&self, batch: &Batch) -> fjall::Result<()> {
        fail::fail_point!("fsimpl::journal_full", |how| Err(match how.as_deref() {
            Some("poisoned") => fjall::Error::Poisoned,
            _ => io::Error::from_raw_os_error(libc::ENOSPC).into(),
        }));
        let mut write = self.database.batch().durability(Some(PersistMode::Buffer));
        for (key, value) in &batch.items {
            match value {
                Some(value) => write.insert(&self.records, key.as_slice(), value.as_slice()),
                None => write.remove(&self.records, key.as_slice()),
            }
        }
        write.commit()
    }
}

fn wrap(dir: &Path, source: fjall::Error) -> JournalError {
    if is_full(&source) {
        return JournalError::NoSpace(dir.to_owned());
    }
    JournalError::Engine {
        dir: dir.to_owned(),
        source: Box::new(source),
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
    let here = error.downcast_ref::<io::Error>().is_some_and(full);
    here || error.source().is_some_and(is_full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Journal {
        let space = Space::open(dir).unwrap();
        Journal::open(&dir.join("journal"), &space).unwrap()
    }

    #[test]
    fn records_survive_reopening_and_come_by_key() {
        let dir = tempfile::tempdir().unwrap();
        {
            let journal = open(dir.path());
            let mut batch = Batch::default();
            batch.put(name_key(7, b"b"), &2u32);
            batch.put(name_key(7, b"a"), &1u32);
            batch.put(name_key(3, b"z"), &0u32);
            batch.put(inode_key(1), &9u32);
            batch.put(meta_key("head"), &"x".to_owned());
            journal.commit(batch).unwrap();
            let mut batch = Batch::default();
            batch.remove(name_key(3, b"z"));
            journal.commit(batch).unwrap();
        }
        let journal = open(dir.path());
        let mut seen = Vec::new();
        journal
            .for_each(b'd', |key, value: u32| {
                let (parent, name) = split_key(key).unwrap();
                seen.push((parent, name.to_vec(), value));
                Ok::<_, JournalError>(())
            })
            .unwrap();
        assert_eq!(seen, [(7, b"a".to_vec(), 1), (7, b"b".to_vec(), 2)]);
        assert_eq!(journal.meta::<String>("head").unwrap().unwrap(), "x");
        assert_eq!(journal.meta::<String>("tail").unwrap(), None);
    }

    #[test]
    fn a_failed_write_is_undone_when_the_engine_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        let put = |value: u32| {
            let mut batch = Batch::default();
            batch.put(inode_key(5), &value);
            batch
        };
        journal.commit(put(1)).unwrap();
        // as after a failed write whose bytes reached the log all the same
        journal.commit(put(2)).unwrap();
        {
            journal.state.lock().engine = None;
            journal.undo(put(1));
        }
        let mut seen = Vec::new();
        journal
            .for_each(b'n', |_, value: u32| {
                seen.push(value);
                Ok::<_, JournalError>(())
            })
            .unwrap();
        assert_eq!(seen, [1]);
    }
}
