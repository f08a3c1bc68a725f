//! What a snapshot has, so that it can be told apart afterwards from what changed since.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use formats::{Name, RepoPath};
use serde::{Deserialize, Serialize};

use crate::tree::Serial;

/// A snapshot that was handed to a commit. Recorded, so that it survives a restart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct FrozenMark {
    pub(crate) id: u64,
    /// The tree's tick at its instant; what has a later one changed since.
    pub(crate) stamp: u64,
    /// The last serial given out by then; what has a later one was first staged since.
    pub(crate) serial: Serial,
    /// Directories of which it has all names, and where they were.
    pub(crate) whole: HashMap<Serial, RepoPath>,
    /// Directories published bare, only because something below them is.
    pub(crate) bare: HashMap<Serial, Bare>,
    /// Single names in other directories: the targets, and bare directories.
    pub(crate) names: BTreeMap<(Serial, Name), RepoPath>,
    /// Files left out.
    pub(crate) left_out: BTreeSet<Serial>,
    /// Targets that were not staged, but published anew: they are seen through a moved directory.
    pub(crate) unstaged: BTreeSet<RepoPath>,
    /// What was asked for.
    pub(crate) targets: Vec<RepoPath>,
    /// Published places that directories were moved away from, and that are not published as gone.
    pub(crate) sources: BTreeSet<RepoPath>,
}

/// A directory published bare.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bare {
    pub(crate) path: RepoPath,
    /// It refers to a published directory elsewhere, whose names were not published here.
    pub(crate) moved: bool,
}

impl FrozenMark {
    /// True if two snapshots cannot be published side by side: what becomes of one changes what the
    /// other has to say.
    pub(crate) fn is_entangled(&self, other: &Self) -> bool {
        let has = |dir: &Serial| other.whole.contains_key(dir) || other.bare.contains_key(dir);
        self.targets.iter().any(|place| other.aims_at(place))
            || self.sources.iter().any(|place| other.aims_at(place))
            || other.sources.iter().any(|place| self.aims_at(place))
            || self.whole.keys().chain(self.bare.keys()).any(has)
            || self.names.keys().any(|name| other.names.contains_key(name))
    }

    /// True if a target and a place lie one within the other.
    fn aims_at(&self, place: &RepoPath) -> bool {
        let mut targets = self.targets.iter();
        targets.any(|target| target.is_within(place) || place.is_within(target))
    }

    /// True if it has a name of a directory.
    pub(crate) fn has_name(&self, dir: Serial, name: &Name) -> bool {
        self.whole.contains_key(&dir)
            || (!self.names.is_empty() && self.names.contains_key(&(dir, name.clone())))
    }

    /// True if a target that was not staged lies below a path.
    pub(crate) fn leads_below(&self, path: &RepoPath) -> bool {
        let mut targets = self.unstaged.iter();
        targets.any(|target| target != path && target.is_within(path))
    }

    /// Where a directory was in the snapshot, if the published one of that place shows what the
    /// snapshot had of it.
    pub(crate) fn published_at(&self, dir: Serial) -> Option<&RepoPath> {
        let bare = || self.bare.get(&dir).filter(|bare| !bare.moved);
        self.whole
            .get(&dir)
            .or_else(|| bare().map(|bare| &bare.path))
    }
}
