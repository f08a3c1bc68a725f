//! Sealing the stage's files: handing them to the sealer, recording what came of it, and removing
//! objects that nobody needs.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use formats::ObjectName;
use formats::path::PathHash;

use super::Stage;
use super::feed::RETRY_AFTER;
use crate::error::FsError;
use crate::journal::{Batch, inode_key};
use crate::seal::{CancelToken, Generation, Known, SealError, SealJob, SealParams, Sealed, Source};
use crate::tree::{Body, Data, Node, SealFault, SealedData};
use crate::types::Ino;

impl Stage {
    pub(super) fn queue_unsealed(&self) {
        let tree = self.tree.read();
        let now = Instant::now();
        for (ino, node) in &tree.nodes {
            if node.rec.is_unsealed() && !node.names.is_empty() {
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
            if full && node.rec.is_unsealed() {
                self.feed.queue(*ino, node.run.generation, now);
            }
        }
    }

    /// A file is to be sealed when it has rested.
    pub(crate) fn queue_seal(&self, ino: Ino) {
        let generation = {
            let tree = self.tree.read();
            match tree.node(ino) {
                Some(node) if node.rec.is_unsealed() => node.run.generation,
                _ => return,
            }
        };
        self.feed
            .queue(ino, generation, Instant::now() + self.settle);
    }

    /// How long to hold up whoever closes a file, because too many wait to be sealed.
    #[must_use]
    pub fn backpressure(&self) -> Option<std::time::Duration> {
        self.feed.backpressure()
    }

    /// Hands a file to the sealer, if it is still what was queued.
    pub(super) fn submit(&self, ino: Ino, generation: u32, urgent: bool) {
        let (number, size) = {
            let tree = self.tree.read();
            let Some(node) = tree.node(ino) else {
                return;
            };
            let Some(file) = node.rec.file() else {
                return;
            };
            if node.run.generation != generation || !node.rec.is_unsealed() {
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
        let params = (self.params)();
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
        let (fingerprint, compression) = (fingerprint(params), params.compression);
        Box::new(move |result| {
            let Some(stage) = stage.upgrade() else {
                return;
            };
            let result = result.map(|sealed| {
                let data = SealedData {
                    content: sealed.content.clone(),
                    compression,
                    params: fingerprint,
                };
                (sealed, data)
            });
            stage.sealed((ino, generation), number, result);
            stage.feed.ended(ino, job);
        })
    }

    /// Records how sealing a file ended.
    fn sealed(
        &self,
        (ino, generation): (Ino, u32),
        number: u64,
        result: Result<(Sealed, SealedData), SealError>,
    ) {
        let mut tree = self.tree.write();
        let Some(node) = tree.nodes.get_mut(&ino) else {
            return;
        };
        let pin = if number == 0 { empty_pin(ino) } else { number };
        let named = !node.names.is_empty();
        let wanted = named || self.pins.needs(pin);
        if node.run.generation != generation || !node.rec.is_unsealed() || !wanted {
            return;
        }
        match result {
            Ok((sealed, data)) if node.rec.file().is_some_and(|f| f.size == sealed.size) => {
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
                    self.pins.settle(pin, Some(generation), || Ok(data));
                    self.tell_droppable();
                }
            }
            Err(SealError::ShutDown) => {}
            Ok(_) | Err(SealError::Changed | SealError::Cancelled) => {
                self.feed
                    .queue(ino, generation, Instant::now() + self.settle);
            }
            Err(error) => {
                tracing::warn!(ino = ino.0, %error, "a file could not be sealed");
                let fault = fault(&error);
                if fault.no_space {
                    self.space.was_full();
                }
                node.run.seal_error = Some(Box::new(fault.clone()));
                self.pins.settle(pin, Some(generation), || Err(fault));
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

    /// Removes sealed objects that no staged file refers to. Nothing is being sealed meanwhile.
    pub(super) fn sweep_objects(&self) {
        let mut needed: HashSet<ObjectName> = HashSet::new();
        {
            let tree = self.tree.read();
            if tree.frozen.is_some() {
                return;
            }
            for node in tree.nodes.values() {
                if let Some(Data::Staged {
                    sealed: Some(sealed),
                    backing,
                }) = node.rec.file().map(|file| &file.data)
                    && (*backing == 0 || !node.names.is_empty())
                {
                    needed.extend(sealed.content.objects());
                }
            }
        }
        let mut gone = HashSet::new();
        let walked = self.objects.for_each(&mut |name, _| {
            if !needed.contains(&name) {
                gone.insert(name);
            }
            Ok(())
        });
        if let Err(error) = walked {
            tracing::warn!(%error, "cannot list the stage's objects");
            return;
        }
        self.known.forget(&gone);
        for name in &gone {
            if let Err(error) = self.objects.delete(name) {
                tracing::warn!(%error, object = %name, "cannot remove an object");
            }
        }
    }
}

/// What pins an empty file that has no backing file: a number that no backing file has.
pub(super) fn empty_pin(ino: Ino) -> u64 {
    1 << 63 | ino.0
}

/// Tells sealing parameters apart, over restarts too.
pub(super) fn fingerprint(params: &SealParams) -> u64 {
    PathHash::of(format!("{params:?}").as_bytes())
        .0
        .cast_unsigned()
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
