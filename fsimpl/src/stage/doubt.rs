//! Files in doubt, and taking them as they are.
//!
//! `recover.rs` says which files those are; other ways out are to write them again, or to remove them.

use formats::RepoPath;

use super::Stage;
use crate::error::FsError;
use crate::journal::{Batch, inode_key};
use crate::tree::Raw;
use crate::types::Ino;

impl Stage {
    /// Files in doubt at and below the targets are taken as they are from now on; how many. One that
    /// has no bytes left at all, in objects that are gone, cannot be.
    ///
    /// # Errors
    /// When the journal cannot be written; nothing was accepted then.
    pub fn accept_doubtful(&self, targets: &[RepoPath]) -> Result<usize, FsError> {
        let mut due = Vec::new();
        {
            let mut tree = self.tree.write();
            let doubtful = tree
                .nodes
                .iter()
                .filter(|(_, node)| node.rec.has_bytes_to_accept() && !node.names.is_empty());
            let inos: Vec<Ino> = doubtful.map(|(ino, _)| *ino).collect();
            let below = |path: &RepoPath| targets.iter().any(|target| path.is_within(target));
            let (mut batch, mut before) = (Batch::default(), Vec::new());
            for ino in inos {
                if !tree.paths_of(ino).iter().any(below) {
                    continue;
                }
                let Some(node) = tree.nodes.get_mut(&ino) else {
                    continue;
                };
                before.push((ino, node.rec.clone()));
                if let Some(file) = node.rec.file_mut() {
                    file.raw = Raw::Unsynced;
                }
                batch.put(inode_key(ino.0), &node.rec);
                due.push((ino, node.run.generation));
            }
            if let Err(error) = self.journal.commit(batch) {
                let mut undo = Batch::default();
                for (ino, rec) in before {
                    undo.put(inode_key(ino.0), &rec);
                    if let Some(node) = tree.nodes.get_mut(&ino) {
                        node.rec = rec;
                    }
                }
                self.journal.undo(undo);
                return Err(error.into());
            }
        }
        self.feed.urge(&due);
        Ok(due.len())
    }
}
