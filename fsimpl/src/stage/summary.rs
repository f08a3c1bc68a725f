//! What is staged, in figures, and waiting for it to be sealed.

use std::collections::HashSet;
use std::time::Duration;

use super::{OpenFile, Progress, SealFailure, Stage, StageSummary};
use crate::sync::{Instant, thread};
use crate::tree::{Data, Dir, SealFault, Tree, Under};
use crate::types::Ino;

/// How often a waiter is told how far sealing is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// A file that just lost its last writer is about to be queued.
const SETTLING: Duration = Duration::from_millis(1);

impl Stage {
    /// Whether changes can be recorded, after one could not: what that left is put right, so that it
    /// is known without anybody's writing.
    ///
    /// # Errors
    /// [`crate::FsError::Journal`] while they cannot.
    pub fn settle_journal(&self) -> Result<(), crate::FsError> {
        Ok(self.journal.settle()?)
    }

    /// What is staged.
    #[must_use]
    pub fn summary(&self) -> StageSummary {
        let tree = self.tree.read();
        let mut summary = StageSummary::default();
        tree.count_names(&mut summary);
        for (ino, node) in &tree.nodes {
            if node.names.is_empty() {
                continue;
            }
            let open = self.open.inode(*ino);
            let dirty = open.as_ref().and_then(|open| {
                let state = open.state.lock();
                state.dirty.then_some(state.size)
            });
            if let Some(file) = node.rec.file()
                && matches!(file.data, Data::Staged { .. })
            {
                let size = dirty.unwrap_or(file.size);
                summary.bytes += size;
                if node.rec.awaits_sealing() && dirty.is_none() {
                    summary.unsealed_files += 1;
                    summary.unsealed_bytes += size;
                }
            }
            let doubt = || node.rec.doubt().map(SealFault::from);
            if let Some(fault) = node.run.seal_error.as_deref().cloned().or_else(doubt) {
                // whoever looks for one of its names finds it
                for path in tree.paths_of(*ino) {
                    summary.errors.push(SealFailure::new(path, &fault));
                }
            }
        }
        for open in self.open.all() {
            let pid = open.state.lock().writers.first().map(|(_, pid)| *pid);
            if let Some((pid, path)) = pid.zip(tree.view_path(open.ino)) {
                summary.open_files.push(OpenFile::new(path, pid));
            }
        }
        summary.open_files.sort_by(|a, b| a.path.cmp(&b.path));
        summary.errors.sort_by(|a, b| a.path.cmp(&b.path));
        summary
    }

    /// Waits until every closed file is sealed; false if that takes longer, or one cannot be.
    pub fn wait_sealed(&self, timeout: Duration, progress: &dyn Progress) -> bool {
        let deadline = Instant::now() + timeout;
        let due: Vec<(Ino, u32)> = {
            // one that is half made would be sealed as an empty file, whatever is written to it
            let _made = self.open.none_half_made();
            let tree = self.tree.read();
            let unsealed = tree.nodes.iter().filter(|(_, node)| {
                node.rec.awaits_sealing() && !node.names.is_empty() && node.run.seal_error.is_none()
            });
            unsealed
                .map(|(ino, node)| (*ino, node.run.generation))
                .collect()
        };
        self.feed.urge(&due);
        loop {
            let mut seen = self.feed.progress();
            let (files, bytes, failed) = self.unsealed();
            progress.unsealed(files, bytes);
            if files == 0 {
                return true;
            }
            if files == failed && !self.feed.is_under_way() {
                return false;
            }
            let now = Instant::now();
            if now >= deadline {
                return false;
            }
            // counting visits every staged file: not after each one that is sealed
            let until = deadline.min(now + PROGRESS_EVERY);
            while self.feed.is_busy() && self.feed.wait_progress(seen, until) {
                seen = self.feed.progress();
            }
            if !self.feed.is_busy() {
                thread::sleep(SETTLING);
            }
        }
    }

    /// Closed files that are not sealed, their bytes, and how many of them failed.
    fn unsealed(&self) -> (u64, u64, u64) {
        let tree = self.tree.read();
        let mut left = (0, 0, 0);
        for (ino, node) in &tree.nodes {
            if !node.rec.is_unsealed() || node.names.is_empty() {
                continue;
            }
            if self.open.inode(*ino).is_some_and(|o| o.state.lock().dirty) {
                continue;
            }
            left.0 += 1;
            left.1 += node.rec.file().map_or(0, |file| file.size);
            left.2 += u64::from(node.run.seal_error.is_some() || node.rec.is_doubtful());
        }
        left
    }
}

impl Tree {
    fn count_names(&self, summary: &mut StageSummary) {
        let (mut vacated, mut fresh) = (HashSet::new(), HashSet::new());
        let dentries = || {
            let nodes = self.nodes.values();
            nodes.flat_map(|node| node.entries.as_deref().into_iter().flatten())
        };
        for (_, dentry) in dentries() {
            vacated.extend(dentry.home_of().filter(|_| dentry.white));
            fresh.extend(
                self.whose(dentry)
                    .filter(|_| dentry.under == Under::Nothing),
            );
        }
        for (_, dentry) in dentries().filter(|(_, dentry)| !dentry.clean) {
            let Some(node) = dentry.node().and_then(|ino| self.node(ino)) else {
                // one that was moved is counted where it is now
                let moved = dentry.home_of().is_some_and(|whose| fresh.contains(&whose));
                summary.removed += u64::from(dentry.under != Under::Nothing && !moved);
                continue;
            };
            let is_new = dentry.under == Under::Nothing;
            let silent = node.rec.dir().is_some_and(Dir::is_implicit);
            if is_new && vacated.contains(&node.rec.serial) {
                summary.renamed += 1;
            } else if is_new {
                summary.added += 1;
            } else if !silent {
                summary.modified += 1;
            }
        }
    }
}
