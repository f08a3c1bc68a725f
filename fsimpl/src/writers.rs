//! Who may change what, beside the permissions that the kernel checks.
//!
//! Modes and owners of a published tree are often of no use here: everything belongs to one user,
//! and is to be shown so. A rule of the site's own is asked, where there is one, before a path is
//! changed; it names paths as they are when it is asked. What a rule says is the caller's affair.

use formats::{Name, RepoPath};

use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::types::{Caller, Ino};

/// A rule.
pub trait Writers: Send + Sync {
    /// True if the caller may make, change or remove what is at this path.
    fn may_write(&self, caller: &Caller, path: &RepoPath) -> bool;
}

impl Stage {
    /// Before a name in a directory is made or removed.
    ///
    /// # Errors
    /// [`FsError::Access`].
    pub(crate) fn allow_name(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<()> {
        let Some(writers) = self.writers() else {
            return Ok(());
        };
        // a name that cannot be, and a directory that is gone, are refused for that
        let Ok(name) = Name::new(name) else {
            return Ok(());
        };
        match self.tree.read().view_path(parent) {
            Some(parent) if !writers.may_write(caller, &parent.join(&name)) => Err(FsError::Access),
            _ => Ok(()),
        }
    }

    /// Before an inode is changed: by all of its names. One without a name was opened when it had some.
    ///
    /// # Errors
    /// [`FsError::Access`].
    pub(crate) fn allow_inode(&self, caller: &Caller, ino: Ino) -> Result<()> {
        let Some(writers) = self.writers() else {
            return Ok(());
        };
        let paths = self.tree.read().paths_of(ino);
        match paths.iter().all(|path| writers.may_write(caller, path)) {
            true => Ok(()),
            false => Err(FsError::Access),
        }
    }
}
