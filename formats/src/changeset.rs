//! A change set: what a commit publishes, frozen.
//!
//! It is declarative, an overlay: sorted paths, and for each what stands there afterwards. A
//! directory's unlisted children come from a published directory: the one at the same path, another
//! one (a rename moves a subtree without listing it), or none. A path that was moved away or deleted
//! is listed as removed; that may have been published by an earlier change set.
//!
//! ```text
//! /new            Put(dir, Children::None)
//! /new/file       Put(regular)
//! /old            Remove
//! /renamed        Put(dir, Children::From("/old"))
//! /renamed/x      Remove                       # the base's /old/x
//! ```
//!
//! Each change remembers the base row that it overlays, and a move since when its source is gone, so
//! that a collision with another publisher is found path by path.

use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::hash::Hash;
use crate::path::RepoPath;

/// What a commit publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// The repository's fully qualified name.
    pub repo: String,
    /// The paths that were asked for; every change lies within one of them or is a bare staged
    /// ancestor directory of one.
    pub targets: Vec<RepoPath>,
    /// Sorted by path, each path once, a directory before what is in it.
    pub changes: Vec<Change>,
}

/// One path of a change set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where.
    pub path: RepoPath,
    /// What stands there afterwards.
    pub op: Op,
    /// The row that was published at `path` when the path was first staged; none if there was none.
    pub base: Option<Box<Entry>>,
    /// The root catalog of the revision that `base` speaks of.
    pub base_root: Hash,
}

/// What stands at a path afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Nothing: the path, and all below it, is gone.
    Remove,
    /// This entry.
    Put {
        /// Type, metadata, content. A regular file's objects are in the stage's own store, or
        /// published already.
        entry: Entry,
        /// For a directory: where unlisted children come from. [`Children::None`] for all else.
        children: Children,
        /// False for a directory whose only change is an `mtime` that followed from a change of
        /// its children: such a change never collides.
        explicit: bool,
    },
}

/// Where the unlisted children of a directory come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Children {
    /// There are none: a new directory, or one that replaced what was there.
    None,
    /// The directory at the same path of the revision that is published at commit time.
    Same,
    /// A published directory that was moved here.
    From(Box<Source>),
}

/// The published directory that a move takes along.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The root catalog of the revision whose rows it is: not always the newest, for the path may
    /// be gone there.
    pub root: Hash,
    /// Where it is in that revision.
    pub path: RepoPath,
    /// While its removal is staged: the root catalog of the revision that the removal is staged
    /// over. What another publisher changed there since collides with the move. None if its removal
    /// is published, or was taken back.
    pub removed_over: Option<Hash>,
}

impl ChangeSet {
    /// True if there is nothing to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
