//! Objects on their way into a replica's storage: verified, durable, noted, and only then named.
//!
//! A bundle is taken in batches. Of each object the bytes are hashed on their way into a file without a
//! name; then, for a batch at once:
//!
//! 1. the ledger notes what is about to come, so that nothing stays for which nobody answers,
//! 2. the bytes and the note are synced, so that whatever has a name is whole and accounted for even
//!    after a power loss; where both lie on one filesystem, by one sync,
//! 3. the files get their names.
//!
//! What is wrong with one object is told of that object, and the rest goes on. Neither an object nor a
//! bundle is ever held in memory.

mod sync;

use std::io::{self, Read};
use std::sync::Arc;

use formats::Hasher;
use formats::object::ObjectName;
use formats::warm::{BundleError, BundleReader, Listed};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use store::failpoint;
use store::{ObjectStore, Pending, StoreError, Stored};

use crate::headroom::{Headroom, Taken};
use crate::ledger::{State, Transaction};
use crate::names::{Record, Sorted, record};
use crate::refusal::{Refusal, is_full};
use sync::Syncer;

/// Objects that get their names together: each is an open file until then.
const BATCH_OBJECTS: usize = 1024;
/// Bytes that get their names together; one object may be larger.
const BATCH_BYTES: u64 = 32 << 20;
/// Moved at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Objects of one bundle that are refused before the rest of it is.
pub const REFUSED_MAX: usize = 4096;

/// What became of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Objects that came and are there now.
    pub kept: u64,
    /// Objects that were there before.
    pub present: u64,
    /// The rest.
    pub refused: Vec<Refused>,
    /// Bytes of those that were kept.
    #[serde(skip)]
    pub bytes: u64,
}

/// An object that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub name: String,
    /// `corrupt`, `not_announced`, `no_room` or `io`.
    pub code: Why,
    /// A sentence.
    pub error: String,
}

/// Why an object was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Its bytes are others than its name says.
    Corrupt,
    /// The transaction did not announce it, or not with this size.
    NotAnnounced,
    /// It does not fit.
    NoRoom,
    /// The storage failed.
    Io,
}

impl Why {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Corrupt, Self::NotAnnounced, Self::NoRoom, Self::Io];

    /// As figures name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::NotAnnounced => "not_announced",
            Self::NoRoom => "no_room",
            Self::Io => "io",
        }
    }
}

/// One replica's.
#[derive(Debug)]
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    /// Room in it.
    pub headroom: Arc<Headroom>,
    /// Held to read by whoever relies on what is there, to write by whoever removes it.
    pub gate: RwLock<()>,
    syncer: Syncer,
}

/// An object that waits for its name.
struct Waiting {
    listed: Listed,
    pending: Box<dyn Pending>,
    _room: Taken,
}

impl Vault {
    /// Over a storage of which `keep` bytes are to stay free.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, keep: u64) -> Self {
        Self {
            headroom: Arc::new(Headroom::new(Arc::clone(&store), keep)),
            store,
            gate: RwLock::new(()),
            syncer: Syncer::default(),
        }
    }

    /// The storage.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Returns once whatever is there stays after a power loss, under its name.
    ///
    /// # Errors
    /// When the system reports that something was lost.
    pub fn sync(&self) -> store::Result<()> {
        failpoint::pass("vault::sync")?;
        self.syncer.sync(self.store.as_ref())
    }

    /// Takes a bundle of a transaction in. What came whole before a bundle broke off is kept. `heard`
    /// is told of the outcome so far whenever objects have got their names.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn take(
        &self,
        txn: &Transaction,
        input: impl Read,
        heard: &mut dyn FnMut(&Outcome),
    ) -> Result<Outcome, Refusal> {
        let names = txn.names()?.ok_or(Refusal::NoTransaction)?;
        let mut taking = Taking {
            vault: self,
            txn,
            names,
            waiting: Vec::new(),
            bytes: 0,
            outcome: Outcome::default(),
            buffer: vec![0; PIECE_BYTES],
        };
        let mut reader = BundleReader::new(input)?;
        let end = loop {
            match reader.next_object() {
                Ok(Some(listed)) => match taking.object(&listed, &mut reader) {
                    Ok(()) => {}
                    Err(Refusal::Bundle(e)) => break Err(e),
                    Err(refusal) => return Err(refusal),
                },
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
            if taking.waiting.len() >= BATCH_OBJECTS || taking.bytes >= BATCH_BYTES {
                taking.name_all()?;
                heard(&taking.outcome);
            }
        };
        taking.name_all()?;
        heard(&taking.outcome);
        end?;
        Ok(taking.outcome)
    }
}

/// A bundle that is coming in.
struct Taking<'a> {
    vault: &'a Vault,
    txn: &'a Transaction,
    names: Sorted,
    waiting: Vec<Waiting>,
    /// Of those.
    bytes: u64,
    outcome: Outcome,
    buffer: Vec<u8>,
}

impl Taking<'_> {
    fn object<R: Read>(
        &mut self,
        listed: &Listed,
        reader: &mut BundleReader<R>,
    ) -> Result<(), Refusal> {
        let name = &listed.name;
        let announced = self.names.find(name).map_err(|e| Refusal::names(&e))?;
        if announced != Some(listed.bytes) {
            let error = "this transaction did not announce it with this size; announce it first";
            return self.refuse(name, Why::NotAnnounced, error.into());
        }
        match self.vault.store.has(name) {
            Ok(false) => {}
            Ok(true) => {
                self.outcome.present += 1;
                return Ok(());
            }
            Err(e) => return self.refuse(name, Why::Io, e.to_string()),
        }
        let Some(room) = self.vault.headroom.take(listed.bytes)? else {
            let room = self.vault.headroom.room()?.unwrap_or(0);
            let error = format!("{} bytes do not fit: {room} may come", listed.bytes);
            return self.refuse(name, Why::NoRoom, error);
        };
        let mut pending = match self.vault.store.begin() {
            Ok(pending) => pending,
            Err(e) => return self.failed(name, &e),
        };
        match self.copy(listed, reader, pending.as_mut())? {
            Ok(true) => {}
            Ok(false) => {
                let error = "its bytes hash to something else; it is damaged where it comes from, or was on the way";
                return self.refuse(name, Why::Corrupt, error.into());
            }
            Err(e) => {
                let e = store::write_error(self.vault.store.as_ref(), name, e);
                return self.failed(name, &e);
            }
        }
        self.bytes += listed.bytes;
        self.waiting.push(Waiting {
            listed: *listed,
            pending,
            _room: room,
        });
        Ok(())
    }

    /// Whether the bytes are the name's, or what writing them failed with.
    fn copy<R: Read>(
        &mut self,
        listed: &Listed,
        reader: &mut BundleReader<R>,
        pending: &mut dyn Pending,
    ) -> Result<io::Result<bool>, Refusal> {
        let mut hasher = Hasher::new(listed.name.hash.algorithm());
        let mut content = reader.content();
        let mut left = listed.bytes;
        while left > 0 {
            let read = match content.read(&mut self.buffer) {
                Ok(0) => return Err(BundleError::Cut.into()),
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(BundleError::Io(e).into()),
            };
            left -= read as u64;
            hasher.update(&self.buffer[..read]);
            if let Err(e) = pending.write_all(&self.buffer[..read]) {
                return Ok(Err(e));
            }
        }
        if hasher.finish() != listed.name.hash {
            return Ok(Ok(false));
        }
        // at once: a batch of them in memory is more than a receiver may take
        Ok(pending.spill().map(|()| true))
    }

    /// Gives the batch its names.
    fn name_all(&mut self) -> Result<(), Refusal> {
        self.bytes = 0;
        let ready = std::mem::take(&mut self.waiting);
        if ready.is_empty() {
            return Ok(());
        }
        failpoint::pass("vault::written")?;
        // over the sync, too: what is noted here must not be forgotten before it has its name
        let _stays = self.vault.gate.read();
        if self.txn.about().state != State::Open {
            return Err(Refusal::NoTransaction);
        }
        let noted: Vec<Record> = ready.iter().map(|w| record(&w.listed)).collect();
        let noted = self.txn.append(&noted)?;
        self.vault.syncer.sync(self.vault.store.as_ref())?;
        failpoint::pass("vault::synced")?;
        noted.sync()?;
        for (listed, kept) in keep(self.vault.store.as_ref(), ready) {
            failpoint::pass("vault::named")?;
            match kept {
                Ok(Stored::New) => {
                    self.outcome.kept += 1;
                    self.outcome.bytes += listed.bytes;
                }
                Ok(Stored::Present) => self.outcome.present += 1,
                Err(e) => self.failed(&listed.name, &e)?,
            }
        }
        Ok(())
    }

    fn failed(&mut self, name: &ObjectName, error: &StoreError) -> Result<(), Refusal> {
        tracing::warn!("object {name} was not kept: {error}");
        let why = match is_full(error) {
            true => Why::NoRoom,
            false => Why::Io,
        };
        self.refuse(name, why, error.to_string())
    }

    fn refuse(&mut self, name: &ObjectName, code: Why, error: String) -> Result<(), Refusal> {
        if self.outcome.refused.len() >= REFUSED_MAX {
            let text = format!("more than {REFUSED_MAX} objects of one bundle were refused");
            return Err(Refusal::Malformed(text));
        }
        self.outcome.refused.push(Refused {
            name: name.to_string(),
            code,
            error,
        });
        Ok(())
    }
}

/// Names objects: one by one in a directory, where that is a call each; many at once where each is a
/// request to a server.
fn keep(store: &dyn ObjectStore, ready: Vec<Waiting>) -> Vec<(Listed, store::Result<Stored>)> {
    let one = |waiting: Waiting| (waiting.listed, waiting.pending.keep(&waiting.listed.name));
    let threads = store.writers().unwrap_or(1).min(ready.len());
    if threads <= 1 {
        return ready.into_iter().map(one).collect();
    }
    let next = parking_lot::Mutex::new(ready.into_iter());
    let done = parking_lot::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let Some(waiting) = next.lock().next() else {
                        break;
                    };
                    let kept = one(waiting);
                    done.lock().push(kept);
                }
            });
        }
    });
    done.into_inner()
}
