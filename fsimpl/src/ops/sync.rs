//! Making bytes and names survive power loss.
//!
//! After a power loss the journal may be an older one than we left, and a backing file may hold any
//! mixture of what was written since it was last synced. So the journal *vouches* for a file's bytes
//! ([`Raw::Synced`]) only while nothing was written since they were synced: it says so in the very
//! sync that ends an fsync, and takes it back, durably, before the next byte changes.

use std::fs::File as RawFile;
use std::sync::Arc;

use crate::error::{FsError, Result};
use crate::handle::{Bytes, OpenInode, OpenState};
use crate::journal::{Batch, inode_key};
use crate::stage::Stage;
use crate::tree::{Data, Node, Raw, Record};
use crate::types::{Handle, Ino};

impl Stage {
    pub(crate) fn fsync(&self, handle: Handle, data_only: bool) -> Result<()> {
        let open = self.open.file(handle)?;
        let synced = self.sync_bytes(&open.inode, data_only)?;
        self.vouch(&open.inode, synced)?;
        self.sync_journal()?;
        let tree = self.tree.read();
        let failed = tree
            .node(open.inode.ino)
            .and_then(|node| node.run.seal_error.clone());
        match failed {
            Some(fault) if fault.no_space => Err(FsError::NoSpace),
            Some(fault) => Err(FsError::Backing {
                path: self.dir.join("objects"),
                source: std::io::Error::other(fault.reason),
            }),
            None => Ok(()),
        }
    }

    pub(crate) fn sync_journal(&self) -> Result<()> {
        Ok(self.journal.sync()?)
    }

    /// Syncs a file's bytes, wherever they are, and the name of its backing file. Returns the
    /// version that was synced, and in which backing file, if in any.
    fn sync_bytes(&self, inode: &OpenInode, data_only: bool) -> Result<(u64, Option<u64>)> {
        let (version, named) = {
            let state = inode.state.lock();
            (state.syncs.version, state.syncs.named)
        };
        let backing = match &*inode.bytes.read() {
            Bytes::Backing {
                number,
                file: Some(file),
            } => (*number, Arc::clone(file)),
            Bytes::Backing { file: None, .. } => return Ok((version, None)),
            Bytes::Objects(_) => {
                self.sync_objects_of(inode.ino)?;
                return Ok((version, None));
            }
        };
        let (number, file) = backing;
        sync_file(&file, data_only).map_err(|error| self.backing.failed(number, error))?;
        if !named {
            self.backing.sync_name(number)?;
            inode.state.lock().syncs.named = true;
        }
        Ok((version, Some(number)))
    }

    /// Objects that are the only place of a staged file's bytes are synced with all others.
    fn sync_objects_of(&self, ino: Ino) -> Result<()> {
        let at = {
            let tree = self.tree.read();
            match tree.node(ino).and_then(|node| node.rec.file()) {
                Some(file) => match &file.data {
                    Data::Staged {
                        sealed: Some(sealed),
                        ..
                    } => sealed.at,
                    _ => 0,
                },
                None => 0,
            }
        };
        if self.seals.is_synced(at) {
            return Ok(());
        }
        self.sync_sealed()
    }

    /// The journal vouches for the bytes, if they are still those that were synced.
    fn vouch(&self, inode: &OpenInode, (version, number): (u64, Option<u64>)) -> Result<()> {
        // nobody is in the middle of a write
        let _still = inode.bytes.write();
        let mut tree = self.tree.write();
        let mut state = inode.state.lock();
        let Some(node) = tree.nodes.get_mut(&inode.ino) else {
            return Ok(());
        };
        let still = state.syncs.version == version;
        if still {
            state.syncs.synced = Some(version);
        }
        if !still || state.syncs.is_log {
            return self.keep_what_is_synced(inode.ino, node, number);
        }
        self.record_vouched(inode.ino, node, &mut state)
    }

    /// A power loss must not take a file back behind bytes that were synced in a backing file, even
    /// where they are not vouched for.
    fn keep_what_is_synced(&self, ino: Ino, node: &mut Node, number: Option<u64>) -> Result<()> {
        let before = node.rec.clone();
        let Some(file) = node.rec.file_mut() else {
            return Ok(());
        };
        if number.is_none() || file.data.backing() != number || file.former.take().is_none() {
            return Ok(());
        }
        self.record(ino, node, before)
    }

    /// The last writer is gone from a file that was not vouched for while it was written. Recorded
    /// at the next sync at the latest; if that comes too late, the file is merely in doubt.
    pub(crate) fn vouch_at_last(&self, ino: Ino, node: &mut Node, state: &mut OpenState) {
        if !state.syncs.is_log || state.syncs.synced != Some(state.syncs.version) {
            return;
        }
        if let Err(error) = self.record_vouched(ino, node, state) {
            tracing::debug!(ino = ino.0, %error, "a synced file is not vouched for");
        }
    }

    fn record_vouched(&self, ino: Ino, node: &mut Node, state: &mut OpenState) -> Result<()> {
        let before = node.rec.clone();
        let Some(file) = node.rec.file_mut() else {
            return Ok(());
        };
        if file.data.backing().is_none() || file.raw != Raw::Unsynced {
            return Ok(());
        }
        file.raw = Raw::Synced;
        file.former = None;
        if state.dirty {
            file.size = state.size;
        }
        self.record(ino, node, before)?;
        state.syncs.vouched = true;
        Ok(())
    }

    /// Records what a file is now; if that fails, it is as before.
    fn record(&self, ino: Ino, node: &mut Node, before: Record) -> Result<()> {
        if node.names.is_empty() {
            return Ok(());
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
        Ok(())
    }
}

fn sync_file(file: &RawFile, data_only: bool) -> std::io::Result<()> {
    if data_only {
        file.sync_data()
    } else {
        file.sync_all()
    }
}
