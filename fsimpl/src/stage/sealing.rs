//! Sealing the stage's files: handing them to the sealer, recording what came of it, and removing
//! objects that nobody needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use formats::ObjectName;
use store::{StoreError, failpoint};

use super::Stage;
use super::feed::RETRY_AFTER;
use crate::error::FsError;
use crate::journal::{Batch, Journal, inode_key, meta_key};
use crate::seal::{CancelToken, Generation, Known, SealError, SealJob, SealParams, Sealed, Source};
use crate::sync::Instant;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::tree::{Body, Data, Node, SealFault, SealedData, Tree};
use crate::types::Ino;

/// How many sealed files' objects survive a power loss.
const SYNCED: &str = "synced";

/// Sealed objects that nobody needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Stage {
    pub(super) fn queue_unsealed(&self) {
        let tree = self.tree.read();
        let now = Instant::now();
        for (ino, node) in &tree.nodes {
            if node.rec.awaits_sealing() && !node.names.is_empty() {
                self.feed.queue(*ino, node.run.generation, now);
            }
        }
    }

    /// There was no room for the objects of some files, and now there is.
    pub(super) fn queue_what_found_no_room(&self) {
        let tree = self.tree.read();
        let now = Instant::now();
        for (ino, node) in &tree.nodes {
            let full = node.run.seal_error.as_ref().is_some_and(|f| f.no_space);
            if full && node.rec.awaits_sealing() {
                self.feed.queue(*ino, node.run.generation, now);
            }
        }
    }

    /// A file is to be sealed when it has rested.
    pub(crate) fn queue_seal(&self, ino: Ino) {
        let generation = {
            let tree = self.tree.read();
            match tree.node(ino) {
                Some(node) if node.rec.awaits_sealing() => node.run.generation,
                _ => return,
            }
        };
        self.feed
            .queue(ino, generation, Instant::now() + self.settle_time());
    }

    /// How long to hold up whoever closes a file, because too many wait to be sealed.
    #[must_use]
    pub fn backpressure(&self) -> Option<std::time::Duration> {
        self.feed.backpressure()
    }

    /// Hands a file to the sealer, if it is still what was queued.
    pub(super) fn submit(&self, ino: Ino, generation: u32, urgent: bool) {
        if self.feed.is_sealing(ino, generation, urgent) {
            return;
        }
        let (number, size) = {
            let tree = self.tree.read();
            let Some(node) = tree.node(ino) else {
                return;
            };
            let Some(file) = node.rec.file() else {
                return;
            };
            if node.run.generation != generation || !node.rec.awaits_sealing() {
                return;
            }
            if self.open.inode(ino).is_some_and(|o| o.state.lock().dirty) {
                // its last writer will queue it
                return;
            }
            (file.data.backing().unwrap_or(0), file.size)
        };
        let made = matches!(self.backing.stat(number), Ok(Some(_)));
        let path = self.backing.path(if made { number } else { 0 });
        let params = self.params_now();
        let (job, cancel) = (self.feed.next_job(), CancelToken::new());
        self.feed.under_way(ino, generation, job, cancel.clone());
        let done = self.when_sealed(ino, generation, number, job, &params.seal);
        self.feed.sealer().submit(SealJob {
            id: job,
            source: Source::Path(path),
            size_hint: size,
            params: params.seal,
            objects: Arc::clone(&self.objects),
            cancel,
            generation: Generation::default(),
            not_before: Instant::now(),
            urgent,
            known: Arc::clone(&self.known) as Arc<dyn Known>,
            done,
        });
    }

    fn when_sealed(
        &self,
        ino: Ino,
        generation: u32,
        number: u64,
        job: u64,
        params: &Arc<SealParams>,
    ) -> crate::seal::Done {
        let stage = self.this.clone();
        let params = Arc::clone(params);
        Box::new(move |result| {
            let Some(stage) = stage.upgrade() else {
                return;
            };
            stage.sealed((ino, generation), number, &params, result);
            stage.feed.ended(ino, job);
        })
    }

    /// Records how sealing a file ended.
    fn sealed(
        &self,
        (ino, generation): (Ino, u32),
        number: u64,
        params: &SealParams,
        result: Result<Sealed, SealError>,
    ) {
        let mut tree = self.tree.write();
        let Some(node) = tree.nodes.get_mut(&ino) else {
            return;
        };
        let pin = if number == 0 { empty_pin(ino) } else { number };
        let named = !node.names.is_empty();
        let wanted = named || self.pins.needs(pin);
        // the number may be another inode's by now
        let bytes = node.rec.file().map(|file| file.data.backing().unwrap_or(0));
        let same = node.run.generation == generation && bytes == Some(number);
        if !same || !node.rec.awaits_sealing() || !wanted {
            return;
        }
        let current = |sealed: &Sealed| {
            let now = self.params_now().seal;
            now.fingerprint(sealed.size) == params.fingerprint(sealed.size)
        };
        match result {
            // the parameters changed meanwhile
            Ok(sealed) if !current(&sealed) => self.feed.queue(ino, generation, Instant::now()),
            Ok(sealed) if node.rec.file().is_some_and(|f| f.size == sealed.size) => {
                let data = self.seals.data(&sealed, params);
                self.known
                    .remember(&sealed.raw_hash, sealed.size, &sealed.content);
                let recorded = if named {
                    self.record_sealed(ino, node, data.clone())
                } else {
                    Ok(())
                };
                if let Err(error) = recorded {
                    tracing::warn!(ino = ino.0, %error, "a sealed file could not be recorded");
                    self.feed
                        .queue(ino, generation, Instant::now() + RETRY_AFTER);
                } else {
                    self.pins.settle(pin, generation, || Ok(data));
                    self.flush.sealed(sealed.size);
                    self.tell_droppable();
                }
            }
            Err(SealError::ShutDown) => {}
            Ok(_) | Err(SealError::Changed | SealError::Cancelled) => {
                self.feed
                    .queue(ino, generation, Instant::now() + self.settle_time());
            }
            Err(error) => {
                tracing::warn!(ino = ino.0, %error, "a file could not be sealed");
                let fault = fault(&error);
                if fault.no_space {
                    self.space.was_full();
                }
                node.run.seal_error = Some(Box::new(fault.clone()));
                self.pins.settle(pin, generation, || Err(fault));
                self.feed
                    .queue(ino, generation, Instant::now() + RETRY_AFTER);
            }
        }
    }

    fn record_sealed(&self, ino: Ino, node: &mut Node, data: SealedData) -> Result<(), FsError> {
        let before = node.rec.clone();
        if let Some(file) = node.rec.file_mut() {
            let backing = file.data.backing().unwrap_or(0);
            file.data = Data::Staged {
                backing,
                sealed: Some(Box::new(data)),
            };
            file.mtime_of_backing = false;
        }
        let mut batch = Batch::default();
        batch.put(inode_key(ino.0), &node.rec);
        if let Err(error) = self.journal.commit(batch) {
            node.rec = before;
            let mut undo = Batch::default();
            undo.put(inode_key(ino.0), &node.rec);
            self.journal.undo(undo);
            return Err(error.into());
        }
        node.run.seal_error = None;
        // it may have other objects now
        node.run.keep_raw = false;
        Ok(())
    }

    /// Seals every staged file again that refers to one of these objects: they were taken for
    /// published, or stored, and turned out to be missing. Returns how many files that are; those
    /// whose raw bytes are gone stay as they are.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn reseal(&self, missing: &HashSet<ObjectName>) -> Result<usize, FsError> {
        self.known.distrust(missing);
        let mut again = Vec::new();
        {
            let mut tree = self.tree.write();
            let mut batch = Batch::default();
            for (ino, node) in &mut tree.nodes {
                let Body::File(file) = &mut node.rec.body else {
                    continue;
                };
                let Data::Staged {
                    backing,
                    sealed: Some(sealed),
                } = &file.data
                else {
                    continue;
                };
                let lacks = sealed
                    .content
                    .objects()
                    .any(|object| missing.contains(&object));
                if !lacks || *backing == 0 && file.size > 0 || node.names.is_empty() {
                    continue;
                }
                file.data = Data::Staged {
                    backing: *backing,
                    sealed: None,
                };
                batch.put(inode_key(ino.0), &node.rec);
                again.push((*ino, node.run.generation));
            }
            // should the record be lost, the file is merely not sealed again
            self.journal.commit(batch)?;
        }
        self.feed.urge(&again);
        Ok(again.len())
    }

    /// Removes sealed objects that nobody needs, or with `dry` only looks for them; what they are. None
    /// where that cannot be told now, because a snapshot is made or published, or within this time.
    pub fn sweep(&self, dry: bool, within: Duration) -> Option<Swept> {
        self.feed.sweep(dry, Instant::now() + within)
    }

    /// Removes sealed objects that no staged file refers to and nobody reads. Nothing is being sealed meanwhile, and no
    /// snapshot is made: its copies might want what goes.
    pub(super) fn sweep_objects(&self, dry: bool) -> Option<Swept> {
        // whoever makes one waits for this thread; the end of its commit sweeps again
        let _none = self.freezing.try_lock()?;
        let needed = {
            let tree = self.tree.read();
            if !tree.frozen.is_empty() {
                return None;
            }
            let mut needed = tree.staged_objects();
            needed.extend(self.readers.objects());
            needed
        };
        if dry {
            return self.objects_but(&needed).map(|(_, swept)| swept);
        }
        // a record that a power loss brings back must find its objects
        if let Err(error) = self.journal.sync() {
            tracing::warn!(%error, "objects that nobody needs stay for now");
            return None;
        }
        self.remove_objects_but(&needed)
    }

    /// Removes backing files that no record refers to any more.
    pub(super) fn remove_backings(&self, numbers: &[u64]) {
        // a record that a power loss brings back must find its bytes
        if let Err(error) = self.journal.sync() {
            tracing::warn!(%error, "backing files that nobody needs stay for now");
            for number in numbers {
                self.feed.remove_later(*number);
            }
            return;
        }
        for number in numbers {
            self.backing.remove(*number);
        }
    }

    /// Makes the objects of all files that are sealed survive power loss. That this was done is
    /// recorded; the journal is not synced.
    pub(crate) fn sync_sealed(&self) -> Result<(), FsError> {
        match self.flush.take_failure() {
            Some(error) => Err(error),
            None => self.flush_sealed(),
        }
    }

    /// The same for whoever keeps the failure.
    pub(super) fn flush_sealed(&self) -> Result<(), FsError> {
        let count = self.seals.count.load(Ordering::SeqCst);
        self.objects
            .sync()
            .map_err(|error| self.objects_failed(error))?;
        if self.seals.is_synced(count) {
            return Ok(());
        }
        failpoint::pass("fsimpl::sealed_synced").map_err(|fault| self.objects_failed(fault))?;
        let mut batch = Batch::default();
        batch.put(meta_key(SYNCED), &count);
        self.journal.commit(batch)?;
        self.seals.synced.fetch_max(count, Ordering::SeqCst);
        Ok(())
    }

    /// The store for sealed objects failed.
    pub(super) fn objects_failed(&self, error: impl Into<StoreError>) -> FsError {
        FsError::Backing {
            path: self.dir.join("objects"),
            source: error.into().into(),
        }
    }

    /// All sealed objects but these. None where they cannot be listed.
    fn objects_but(&self, needed: &HashSet<ObjectName>) -> Option<(HashSet<ObjectName>, Swept)> {
        let (mut others, mut swept) = (HashSet::new(), Swept::default());
        let walked = self.objects.for_each(&mut |name, bytes| {
            if !needed.contains(&name) && others.insert(name) {
                swept.objects += 1;
                swept.bytes += bytes;
            }
            Ok(())
        });
        if let Err(error) = walked {
            tracing::warn!(%error, "cannot list the stage's objects");
            return None;
        }
        Some((others, swept))
    }

    /// Removes all sealed objects but these.
    pub(super) fn remove_objects_but(&self, needed: &HashSet<ObjectName>) -> Option<Swept> {
        let (gone, swept) = self.objects_but(needed)?;
        self.known.forget(&gone);
        for name in &gone {
            if let Err(error) = self.objects.delete(name) {
                tracing::warn!(%error, object = %name, "cannot remove an object");
            }
        }
        Some(swept)
    }
}

/// What pins an empty file that has no backing file: a number that no backing file has.
pub(super) fn empty_pin(ino: Ino) -> u64 {
    1 << 63 | ino.0
}

impl Tree {
    /// The objects that staged files refer to.
    pub(super) fn staged_objects(&self) -> HashSet<ObjectName> {
        let mut objects = HashSet::new();
        for node in self.nodes.values() {
            let Some(file) = node.rec.file() else {
                continue;
            };
            if file.data.backing().is_none() || !node.names.is_empty() {
                objects.extend(file.data.sealed_objects());
            }
            if let Some(former) = &file.former {
                objects.extend(former.data.sealed_objects());
            }
        }
        objects
    }
}

/// Counts the files that were sealed, so that those whose objects a power loss may have damaged can
/// be told from those that were synced.
#[derive(Default)]
pub(crate) struct Seals {
    /// All of them.
    pub(super) count: AtomicU64,
    /// Up to this one the objects were synced.
    pub(super) synced: AtomicU64,
}

impl Seals {
    /// As they were.
    pub(super) fn restore(tree: &Tree, journal: &Journal) -> Result<Self, FsError> {
        let synced = journal.meta(SYNCED)?.unwrap_or(0);
        let files = tree.nodes.values().filter_map(|node| node.rec.file());
        let counts = files.filter_map(|file| match &file.data {
            Data::Staged { sealed, .. } => sealed.as_ref().map(|sealed| sealed.at),
            Data::Published(_) => None,
        });
        let last = counts.max().unwrap_or(0).max(synced);
        Ok(Self {
            count: AtomicU64::new(last),
            synced: AtomicU64::new(synced),
        })
    }

    /// True if the objects of that file survive a power loss.
    pub(crate) fn is_synced(&self, at: u64) -> bool {
        at <= self.synced.load(Ordering::SeqCst)
    }

    /// What is recorded of a file whose objects were stored just now.
    pub(super) fn data(&self, sealed: &Sealed, params: &SealParams) -> SealedData {
        SealedData {
            content: sealed.content.clone(),
            compression: params.compression,
            params: params.fingerprint(sealed.size),
            at: self.count.fetch_add(1, Ordering::SeqCst) + 1,
        }
    }
}

/// An error with all that it stems from.
pub(super) fn fault(error: &SealError) -> SealFault {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        reason.push_str(": ");
        reason.push_str(&error.to_string());
        source = error.source();
    }
    SealFault {
        reason,
        no_space: error.is_out_of_space(),
    }
}
