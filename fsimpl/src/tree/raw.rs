//! What a power loss may do, or has done, to a staged file's bytes.
//!
//! Nothing here decides what becomes of a file; `stage/recover.rs` does.

use formats::Mtime;
use serde::{Deserialize, Serialize};

use super::{Data, File, Record};

/// A file's content before it was changed: what a power loss leaves of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Former {
    pub(crate) size: u64,
    pub(crate) data: Data,
    pub(crate) mtime: Mtime,
}

/// What a power loss may have done to the raw bytes of a staged file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Raw {
    /// Anything: they were not synced since they changed. Also where there are none.
    #[default]
    Unsynced,
    /// Nothing: they were synced, and the size is theirs. Taken back, durably, before they change.
    Synced,
    /// It happened: the machine stopped before they were synced, and no bytes that are known to be
    /// right are left.
    Doubtful,
    /// It happened, and the file is what it was before it was changed.
    Reverted,
}

impl Raw {
    pub(crate) fn is_doubtful(self) -> bool {
        matches!(self, Self::Doubtful | Self::Reverted)
    }
}

impl File {
    /// What a power loss may go back to, should it be changed: content that needs no raw bytes.
    pub(crate) fn to_revert_to(&self, mtime: Mtime) -> Option<Box<Former>> {
        let in_objects = match &self.data {
            Data::Published(_) => true,
            Data::Staged { backing, sealed } => *backing == 0 && sealed.is_some(),
        };
        let former = || Former {
            size: self.size,
            data: self.data.clone(),
            mtime,
        };
        match in_objects && !self.raw.is_doubtful() {
            true => Some(Box::new(former())),
            false => self.former.clone(),
        }
    }
}

impl Record {
    /// A file whose bytes a power loss may have damaged; nobody has accepted or replaced them.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.file().is_some_and(|file| file.raw.is_doubtful())
    }

    /// In doubt, with something left that could be published.
    pub(crate) fn has_bytes_to_accept(&self) -> bool {
        let reverted = self.file().is_some_and(|file| file.raw == Raw::Reverted);
        reverted || self.is_doubtful() && self.is_unsealed()
    }

    /// What there is to say of a file that is in doubt.
    pub(crate) fn doubt(&self) -> Option<String> {
        let file = self.file().filter(|_| self.is_doubtful())?;
        let left = match file.raw {
            Raw::Reverted => "it is as it was before it was last changed".to_owned(),
            _ if self.is_unsealed() => format!(
                "{} bytes are there, and any of them may be missing or zero",
                file.size
            ),
            _ => "none are left".to_owned(),
        };
        Some(format!(
            "the machine stopped before its bytes were on disk: {left}"
        ))
    }
}
