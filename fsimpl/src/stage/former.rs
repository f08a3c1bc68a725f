//! A stage of a repository that is not served any more: whether anything is lost with it.

use std::path::Path;
use std::sync::Arc;

use super::{FrozenMark, Stage};
use crate::error::Result;
use crate::journal::{Journal, split_key};
use crate::space::Space;
use crate::tree::{Dentry, Dir, Record};
use crate::types::Ino;

impl Stage {
    /// True if the stage in `dir`, which nobody has open, holds changes that were neither published nor
    /// dropped, or a snapshot of some. In doubt it does.
    ///
    /// # Errors
    /// When its journal cannot be read.
    pub fn holds_changes(dir: &Path, space: &Arc<Space>) -> Result<bool> {
        let journal = dir.join("journal");
        if !journal.exists() {
            return Ok(false);
        }
        let journal = Journal::open(&journal, space)?;
        let mut holds = false;
        journal.for_each(b'f', |_, _: FrozenMark| {
            holds = true;
            Ok::<_, crate::FsError>(())
        })?;
        journal.for_each(b'd', |_, dentry: Dentry| {
            holds |= !dentry.clean;
            Ok::<_, crate::FsError>(())
        })?;
        // the root has no name that would tell
        journal.for_each(b'n', |key, rec: Record| {
            let is_root = split_key(key).is_some_and(|(ino, _)| Ino(ino) == Ino::ROOT);
            holds |= is_root && !rec.dir().is_some_and(Dir::is_implicit);
            Ok::<_, crate::FsError>(())
        })?;
        Ok(holds)
    }
}
