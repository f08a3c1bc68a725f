//! What a snapshot has, so that it can be told apart afterwards from what changed since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use formats::{Name, RepoPath};
use serde::{Deserialize, Serialize};

use crate::tree::Dentry;
use crate::types::Ino;

/// A snapshot that was handed to a commit. Recorded, so that it survives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FrozenMark {
    pub(crate) id: u64,
    /// The tree's tick at its instant; what has a later one changed since.
    pub(crate) stamp: u64,
    /// Directories of which it has all names, and where they were.
    pub(crate) whole: HashMap<u64, RepoPath>,
    /// Directories published bare, only because something below them is.
    pub(crate) bare: HashMap<u64, Bare>,
    /// Single names in other directories: the targets, and bare directories.
    pub(crate) names: BTreeMap<(u64, Name), RepoPath>,
    /// Files left out.
    pub(crate) skipped: BTreeSet<u64>,
    /// Targets that were not staged, but published anew: they are seen through a moved directory.
    pub(crate) unstaged: BTreeSet<RepoPath>,
}

/// A directory published bare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) path: RepoPath,
    /// It refers to a published directory elsewhere, whose names were not published here.
    pub(crate) moved: bool,
}

impl FrozenMark {
    /// True if the snapshot has this name as it is now.
    pub(crate) fn includes(&self, parent: Ino, name: &Name, dentry: &Dentry) -> bool {
        dentry.stamp <= self.stamp && !self.leaves_out(dentry) && self.may_have(parent, name)
    }

    /// True if the snapshot has all names of a directory, or this one. What is at the name now may
    /// have come there since.
    pub(crate) fn may_have(&self, parent: Ino, name: &Name) -> bool {
        self.whole.contains_key(&parent.0)
            || (!self.names.is_empty() && self.names.contains_key(&(parent.0, name.clone())))
    }

    /// True if the file of a name is being written; of a name that is gone, the file that is
    /// published there.
    pub(crate) fn leaves_out(&self, dentry: &Dentry) -> bool {
        let file = dentry.node().or(dentry.home_of());
        file.is_some_and(|ino| self.skipped.contains(&ino.0))
    }

    /// True if a target that was not staged lies below a path.
    pub(crate) fn leads_below(&self, path: &RepoPath) -> bool {
        let mut targets = self.unstaged.iter();
        targets.any(|target| target != path && target.is_within(path))
    }

    /// Where a directory was in the snapshot, if the published one of that place shows what the
    /// snapshot had of it.
    pub(crate) fn published_at(&self, ino: Ino) -> Option<&RepoPath> {
        let bare = || self.bare.get(&ino.0).filter(|bare| !bare.moved);
        self.whole
            .get(&ino.0)
            .or_else(|| bare().map(|bare| &bare.path))
    }
}
