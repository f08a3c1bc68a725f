//! The parameters that files are sealed by, and files that were sealed by others.
//!
//! A repository's parameters may change at any time. All files of a snapshot are sealed by those
//! that hold when it is begun: what was sealed by others is sealed again, from its raw bytes or,
//! where those are gone, from its objects. Files that would come out the same are left alone.

use std::os::unix::fs::FileExt;

use formats::{Regular, RepoPath};

use super::{Progress, Stage, StageParams};
use crate::error::FsError;
use crate::journal::{Batch, inode_key};
use crate::seal::SealParams;
use crate::sync::Instant;
use crate::tree::{Data, Raw, SealedData, Tree};
use crate::types::Ino;

/// Bytes read from objects at a time.
const COPY_BYTES: usize = 1 << 20;

/// A sealed file that would come out otherwise now.
struct Stale {
    ino: Ino,
    generation: u32,
    size: u64,
    sealed: SealedData,
    /// Its raw bytes are there, and whether they survive a power loss.
    raw: Option<Raw>,
}

/// Holds a stage's parameters until it is dropped.
pub(super) struct Held<'a>(&'a Stage);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.held_params.lock() = None;
    }
}

impl Stage {
    /// What files are sealed by.
    pub(super) fn params_now(&self) -> StageParams {
        let held = self.held_params.lock().clone();
        held.unwrap_or_else(|| (self.params)())
    }

    /// Reads the parameters afresh; they hold until the guard goes.
    pub(super) fn hold_params(&self) -> Held<'_> {
        let params = (self.params)();
        *self.held_params.lock() = Some(params);
        Held(self)
    }

    /// Files at and below the targets that were sealed by other parameters are unsealed again, with
    /// their raw bytes at hand.
    pub(super) fn unseal_stale(
        &self,
        targets: &[RepoPath],
        progress: &dyn Progress,
    ) -> Result<(), FsError> {
        let params = self.params_now().seal;
        let stale = self.tree.read().stale(&params, targets);
        if stale.is_empty() {
            return Ok(());
        }
        tracing::info!(
            repository = %self.name,
            "sealing {} file(s) again: the repository's parameters have changed",
            stale.len()
        );
        // the record lets go of the objects: from then on the raw bytes are all there is
        if stale.iter().any(|file| file.raw == Some(Raw::Unsynced)) {
            self.backing.sync_all()?;
        }
        let mut left = (
            stale.len() as u64,
            stale.iter().map(|f| f.size).sum::<u64>(),
        );
        for file in &stale {
            progress.unsealed(left.0, left.1);
            let has_raw = file.raw.is_some() && self.unseal(file, None)?;
            if !has_raw {
                let number = self.restore_raw_bytes(file)?;
                self.unseal(file, Some(number))?;
            }
            left = (left.0 - 1, left.1 - file.size);
        }
        Ok(())
    }

    /// A backing file with the bytes of a sealed file, synced.
    fn restore_raw_bytes(&self, file: &Stale) -> Result<u64, FsError> {
        self.claim_room(file.size)?;
        let number = self.backing.fresh();
        let regular = Regular {
            size: file.size,
            content: file.sealed.content.clone(),
            compression: file.sealed.compression,
            external: false,
            direct_io: false,
            link_group: 0,
        };
        let copied = self.copy_from_objects(&regular, number);
        match copied.and_then(|()| self.backing.sync_name(number)) {
            Ok(()) => Ok(number),
            Err(error) => {
                self.backing.remove(number);
                Err(error)
            }
        }
    }

    fn copy_from_objects(&self, regular: &Regular, number: u64) -> Result<(), FsError> {
        let content = self.open_sealed(&self.tree.read(), regular)?;
        let to = self.backing.create(number)?;
        let failed = |error| self.backing.failed(number, error);
        let mut buffer = vec![0; COPY_BYTES];
        let mut at = 0;
        loop {
            let got = content.read_at(&mut buffer, at)?;
            if got == 0 {
                return to.sync_all().map_err(failed);
            }
            to.write_all_at(&buffer[..got], at).map_err(failed)?;
            at += got as u64;
        }
    }

    /// Records that a file is not sealed any more, unless it changed meanwhile. `restored` is a
    /// backing file that was made for it. False if it would be left without any bytes: its raw ones
    /// were dropped meanwhile.
    fn unseal(&self, stale: &Stale, restored: Option<u64>) -> Result<bool, FsError> {
        let mut tree = self.tree.write();
        let node = tree.nodes.get_mut(&stale.ino);
        let as_it_was = node.filter(|node| {
            let sealed = node.rec.file().and_then(|file| match &file.data {
                Data::Staged { sealed, .. } => sealed.as_deref(),
                Data::Published(_) => None,
            });
            node.run.generation == stale.generation && sealed == Some(&stale.sealed)
        });
        let Some(node) = as_it_was else {
            if let Some(number) = restored {
                self.backing.remove(number);
            }
            return Ok(true);
        };
        let before = node.rec.clone();
        if let Some(file) = node.rec.file_mut() {
            let backing = restored.or(file.data.backing()).unwrap_or(0);
            if backing == 0 && file.size > 0 {
                return Ok(false);
            }
            file.data = Data::Staged {
                backing,
                sealed: None,
            };
            if backing != 0 {
                file.raw = Raw::Synced;
                file.former = None;
            }
        }
        let mut batch = Batch::default();
        batch.put(inode_key(stale.ino.0), &node.rec);
        if let Err(error) = self.journal.commit(batch) {
            node.rec = before;
            let mut undo = Batch::default();
            undo.put(inode_key(stale.ino.0), &node.rec);
            self.journal.undo(undo);
            return Err(error.into());
        }
        if let Some(number) = restored {
            self.usage.came((number, stale.size));
            self.usage.went((0, stale.size));
        }
        self.feed.queue(stale.ino, stale.generation, Instant::now());
        Ok(true)
    }
}

impl Tree {
    /// Sealed files at and below the targets of which other parameters would make something else.
    fn stale(&self, params: &SealParams, targets: &[RepoPath]) -> Vec<Stale> {
        let below = |path: &RepoPath| targets.iter().any(|target| path.is_within(target));
        // there are two at the most: for files that may be cut, and for all others
        let (whole, cut) = (params.fingerprint(0), params.fingerprint(u64::MAX));
        let fingerprint = |size| match params.chunking {
            Some(sizes) if sizes.may_cut(size) => cut,
            _ => whole,
        };
        let stale = self.nodes.iter().filter_map(|(ino, node)| {
            let file = node.rec.file()?;
            let Data::Staged {
                sealed: Some(sealed),
                ..
            } = &file.data
            else {
                return None;
            };
            if sealed.params == fingerprint(file.size) || file.raw.is_doubtful() {
                return None;
            }
            if !self.paths_of(*ino).iter().any(below) {
                return None;
            }
            let has_raw = file.data.backing().is_some() || file.size == 0;
            Some(Stale {
                ino: *ino,
                generation: node.run.generation,
                size: file.size,
                sealed: (**sealed).clone(),
                raw: has_raw.then_some(file.raw),
            })
        });
        stale.collect()
    }
}
