//! The staged tree: what lies over the published one.
//!
//! ```text
//! nodes    staged inodes. A staged directory lists the names that differ from its origin.
//! lower    unstaged inodes that the kernel or an open file knows, by their place below a parent
//! ```
//!
//! An unstaged inode has no path of its own: its parent's origin and its name give the published
//! path, so that a directory moves with all that is below it. Numbers are kept when an unstaged
//! inode is staged and when a staged one is published. Changes go through [`Txn`] only. The tree
//! does no I/O but to look up rows, and knows nothing of open files.

mod ino;
mod numbers;
mod over;
mod raw;
mod record;
mod restore;
mod sane;
mod stat;
mod txn;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use formats::{Name, RepoPath, Row};

use crate::error::{FsError, Result};
use crate::lower::Revisions;
use crate::stage::FrozenMark;
use crate::sync::atomic::{AtomicU32, AtomicU64};
use crate::types::{Ino, Time};

pub(crate) use raw::Raw;
pub(crate) use record::{
    Body, Data, Dentry, Dir, File, Names, Origin, Record, RevId, SealedData, Serial, Under,
    mtime_of, rdev_of, time_of, type_of,
};
pub(crate) use restore::restore;
pub(crate) use stat::lower_attr;
pub(crate) use txn::{Staged, Txn};

/// Inode numbers are hashes already; this only spreads their bits.
#[derive(Default)]
pub(crate) struct InoHasher(u64);

impl Hasher for InoHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map from inode numbers.
pub(crate) type InoMap<T> = HashMap<Ino, T, BuildHasherDefault<InoHasher>>;

/// The names of a staged directory that differ from its origin.
pub(crate) type Entries = BTreeMap<Name, Dentry>;

/// Why a file could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealFault {
    /// In words.
    pub(crate) reason: String,
    /// The disk was full: it is tried again.
    pub(crate) no_space: bool,
}

impl From<String> for SealFault {
    fn from(reason: String) -> Self {
        Self {
            reason,
            no_space: false,
        }
    }
}

/// What of a staged inode dies with us.
#[derive(Default)]
pub(crate) struct Runtime {
    /// Lookups that the kernel has not taken back.
    pub(crate) lookups: AtomicU64,
    /// Unstaged inodes known below it.
    pub(crate) kids: u32,
    /// Counts the times its bytes began to change.
    pub(crate) generation: u32,
    /// Link count of the origin's row, once asked for; 0 before.
    pub(crate) lower_links: AtomicU32,
    /// Why it could not be sealed.
    pub(crate) seal_error: Option<Box<SealFault>>,
    /// Its raw bytes must stay, or take no room: not asked again before it changes.
    pub(crate) keep_raw: bool,
}

/// A staged inode: what is recorded, its names, a directory's entries, and what dies with us.
pub(crate) struct Node {
    pub(crate) rec: Record,
    pub(crate) names: Names,
    pub(crate) entries: Option<Box<Entries>>,
    pub(crate) run: Runtime,
}

/// What an unstaged inode has that no catalog has a place for.
#[derive(Clone, Copy)]
pub(crate) struct Unpublished {
    /// The access time, where one was set.
    pub(crate) atime: Option<Time>,
    pub(crate) ctime: Time,
}

/// An unstaged inode.
pub(crate) struct LowerNode {
    pub(crate) parent: Ino,
    pub(crate) name: Name,
    /// The group of hard links it is; 0 for none.
    pub(crate) group: u32,
    pub(crate) is_dir: bool,
    /// A directory that lends its children no path, but its number.
    pub(crate) lends_number: bool,
    pub(crate) lookups: AtomicU64,
    pub(crate) kids: u32,
    /// It has lost its place; this is what it was.
    pub(crate) detached: Option<Box<(RevId, RepoPath)>>,
    /// Remembered for as long as the inode is known, so that a commit is not seen by `stat`.
    pub(crate) unpublished: Option<Box<Unpublished>>,
}

/// What a name in a directory is.
pub(crate) enum Child {
    /// Nothing.
    Absent,
    /// A staged inode.
    Staged(Ino),
    /// A published row, not staged.
    Lower(Arc<Row>),
}

/// See the module's head.
pub(crate) struct Tree {
    pub(crate) nodes: InoMap<Node>,
    pub(crate) lower: InoMap<LowerNode>,
    /// Numbers of unstaged inodes that were not the first choice; kept when nobody knows them.
    salted: HashMap<(Ino, Name), Ino>,
    pub(crate) revisions: Revisions,
    /// Counts changes.
    pub(crate) tick: u64,
    /// The last serial that was given out.
    pub(crate) last_serial: Serial,
    /// The snapshots that are being published, oldest first; none has to do with another.
    pub(crate) frozen: Vec<FrozenMark>,
}

impl Tree {
    pub(crate) fn new(revisions: Revisions) -> Self {
        Self {
            nodes: InoMap::default(),
            lower: InoMap::default(),
            salted: HashMap::new(),
            revisions,
            tick: 1,
            last_serial: Serial::ROOT,
            frozen: Vec::new(),
        }
    }

    pub(crate) fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(crate) fn require(&self, ino: Ino) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(FsError::Stale(ino.0))
    }

    /// A serial that no inode has had.
    pub(crate) fn fresh_serial(&mut self) -> Serial {
        self.last_serial.0 += 1;
        self.last_serial
    }

    /// The serial of a staged inode.
    pub(crate) fn serial(&self, ino: Ino) -> Serial {
        self.node(ino)
            .map_or_else(Serial::default, |n| n.rec.serial)
    }

    /// Whose a staged name is: the inode's that has it; of one that is gone, the inode's that is
    /// published there.
    pub(crate) fn whose(&self, dentry: &Dentry) -> Option<Serial> {
        match dentry.node() {
            Some(ino) => Some(self.serial(ino)),
            None => dentry.home_of(),
        }
    }

    /// True if a name has the inode that is published there, changed or not.
    pub(crate) fn is_own(&self, dentry: &Dentry) -> bool {
        let home = dentry.home_of().filter(|_| !dentry.white);
        home.is_some() && home == self.whose(dentry)
    }

    /// The published directory that an inode's place comes from (or the published path of a file).
    /// None if nothing is published there.
    pub(crate) fn origin(&self, ino: Ino) -> Option<(RevId, RepoPath)> {
        let mut tail: Vec<&Name> = Vec::new();
        let mut at = ino;
        let (rev, base) = loop {
            if at == Ino::ROOT {
                break (self.revisions.head, RepoPath::root());
            }
            if let Some(node) = self.nodes.get(&at) {
                match node.rec.dir().map(|dir| &dir.origin) {
                    Some(Origin::Empty) => return None,
                    Some(Origin::At { rev, path }) => break (*rev, path.clone()),
                    Some(Origin::Inherit) | None => {}
                }
                let (parent, name) = node.names.first()?;
                tail.push(name);
                at = parent;
            } else {
                let lower = self.lower.get(&at)?;
                if let Some(detached) = &lower.detached {
                    break (detached.0, detached.1.clone());
                }
                tail.push(&lower.name);
                at = lower.parent;
            }
        };
        Some((rev, join(base, &tail)))
    }

    /// Where an inode is seen; none if it has no name any more.
    pub(crate) fn view_path(&self, ino: Ino) -> Option<RepoPath> {
        let mut tail: Vec<&Name> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            if let Some(node) = self.nodes.get(&at) {
                let (parent, name) = node.names.first()?;
                tail.push(name);
                at = parent;
            } else {
                let lower = self.lower.get(&at)?;
                if lower.detached.is_some() {
                    return None;
                }
                tail.push(&lower.name);
                at = lower.parent;
            }
        }
        Some(join(RepoPath::root(), &tail))
    }

    /// The row at `name` in a directory's origin, whatever is staged over it.
    pub(crate) fn lower_row(&self, parent: Ino, name: &Name) -> Result<Option<Arc<Row>>> {
        match self.origin(parent) {
            Some((rev, dir)) => Ok(self.revisions.find(rev, &dir.join(name))?),
            None => Ok(None),
        }
    }

    /// The row of an unstaged inode.
    pub(crate) fn row_of(&self, ino: Ino) -> Result<Arc<Row>> {
        let (rev, path) = self.origin(ino).ok_or(FsError::Stale(ino.0))?;
        let row = self.revisions.find(rev, &path)?;
        row.ok_or(FsError::Stale(ino.0))
    }

    /// Whether an inode is a directory.
    pub(crate) fn is_dir(&self, ino: Ino) -> Result<bool> {
        if let Some(node) = self.nodes.get(&ino) {
            return Ok(node.rec.dir().is_some());
        }
        let lower = self.lower.get(&ino).ok_or(FsError::Stale(ino.0))?;
        Ok(lower.is_dir)
    }

    /// Errors unless an inode is a directory that still has a place.
    pub(crate) fn require_dir(&self, ino: Ino) -> Result<()> {
        if self.is_dir(ino)? {
            Ok(())
        } else {
            Err(FsError::NotDirectory)
        }
    }

    /// True for a directory that was removed but is still known.
    pub(crate) fn is_gone(&self, ino: Ino) -> bool {
        if ino == Ino::ROOT {
            return false;
        }
        match (self.nodes.get(&ino), self.lower.get(&ino)) {
            (Some(node), _) => node.names.is_empty(),
            (None, Some(lower)) => lower.detached.is_some(),
            (None, None) => true,
        }
    }

    /// The staged name in a directory, if there is one.
    pub(crate) fn dentry(&self, parent: Ino, name: &Name) -> Option<Dentry> {
        let entries = self.nodes.get(&parent)?.entries.as_ref()?;
        entries.get(name).copied()
    }

    /// The staged names of a directory.
    pub(crate) fn names_in(&self, ino: Ino) -> Vec<(Name, Dentry)> {
        let entries = self.node(ino).and_then(|node| node.entries.as_deref());
        let all = entries.into_iter().flatten();
        all.map(|(name, dentry)| (name.clone(), *dentry)).collect()
    }

    /// What a name in a directory is.
    pub(crate) fn child(&self, parent: Ino, name: &Name) -> Result<Child> {
        self.require_dir(parent)?;
        if let Some(dentry) = self.dentry(parent, name) {
            return Ok(dentry.node().map_or(Child::Absent, Child::Staged));
        }
        if self.is_gone(parent) {
            return Ok(Child::Absent);
        }
        Ok(self
            .lower_row(parent, name)?
            .map_or(Child::Absent, Child::Lower))
    }

    fn add_kids(&mut self, parent: Ino, more: i32) {
        let kids = match (self.nodes.get_mut(&parent), self.lower.get_mut(&parent)) {
            (Some(node), _) => &mut node.run.kids,
            (None, Some(lower)) => &mut lower.kids,
            (None, None) => return,
        };
        *kids = kids.saturating_add_signed(more);
    }

    /// Visits an inode's staged descendants and itself, parents first.
    pub(crate) fn descendants(&self, ino: Ino) -> Vec<Ino> {
        let mut all = vec![ino];
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            if let Some(entries) = self.nodes.get(&at).and_then(|n| n.entries.as_ref()) {
                all.extend(entries.values().filter_map(Dentry::node));
            }
        }
        all
    }
}

/// The group of hard links a row belongs to; 0 for none.
pub(crate) fn group_of(row: &Row) -> u32 {
    if row.linkcount > 1 && row.entry.regular().is_some() {
        row.link_group
    } else {
        0
    }
}

fn join(base: RepoPath, reversed: &[&Name]) -> RepoPath {
    base.join_all(reversed.iter().rev().copied())
}
