//! How many files may be staged.
//!
//! Counted are inodes that are new or changed, as a quota of a filesystem counts them: not names, not
//! removals, and not directories of which only something in them is staged. Counting looks at every
//! inode, so it is done only where there may be too many.

use super::Stage;
use crate::error::{FsError, Result};
use crate::tree::{Dir, Node, Tree};

/// What was counted last.
#[derive(Default)]
pub(crate) struct Counted {
    files: u64,
    /// The tree's tick then; each change since made one file at the most.
    tick: u64,
}

impl Stage {
    /// Before a file more is staged.
    ///
    /// # Errors
    /// [`FsError::Quota`].
    pub(crate) fn allow_file(&self, tree: &Tree) -> Result<()> {
        let Some(quota) = self.quota_files() else {
            return Ok(());
        };
        if (tree.nodes.len() as u64) < quota {
            return Ok(());
        }
        let mut counted = self.counted.lock();
        if counted.tick == 0 || counted.files + (tree.tick - counted.tick) >= quota {
            *counted = Counted {
                files: tree.count_files(),
                tick: tree.tick,
            };
        }
        match counted.files < quota {
            true => Ok(()),
            false => Err(FsError::Quota),
        }
    }

    /// Staged files, of as many as may be staged; none where any number may.
    pub(crate) fn files_of_quota(&self) -> Option<(u64, u64)> {
        let quota = self.quota_files()?;
        Some((self.tree.read().count_files(), quota))
    }
}

impl Tree {
    fn count_files(&self) -> u64 {
        let is_counted =
            |node: &&Node| !node.rec.dir().is_some_and(Dir::is_implicit) && self.is_changed(node);
        self.nodes.values().filter(is_counted).count() as u64
    }
}
