//! Which number an inode has, and the unstaged inodes that have one.
//!
//! An inode has the number of the path at which it was first seen ([`ino::number`]), and keeps it
//! wherever it moves. So the number of a path may be taken by what was moved away from there: another
//! one is tried then. Two directories never lend their children the same path: one whose own number
//! was not the first choice lends that number instead. What is below two directories of one origin
//! (one was moved, and the other came back by an abort) is told apart by that.

use std::borrow::Cow;

use formats::{Name, RepoPath, Row};

use super::{Dir, LowerNode, Tree, group_of, ino};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::Ino;

/// Tries for a free inode number before the search is given up as a fault.
const MAX_SALT: u32 = 1 << 20;
/// Second choices that are remembered though nobody knows the inode; about 100 bytes each. Beyond
/// it, such an inode may have the first choice when it is next seen, if that is free by then.
const MAX_SALTED: usize = 100_000;

impl Tree {
    /// The path that the numbers of a directory's children are made from.
    pub(crate) fn ino_path(&self, ino: Ino) -> RepoPath {
        let mut tail: Vec<Cow<'_, Name>> = Vec::new();
        let mut at = ino;
        let base = loop {
            if let Some(dir) = self.nodes.get(&at).and_then(|node| node.rec.dir()) {
                break dir.ino_path.clone();
            }
            let Some(lower) = self.lower.get(&at) else {
                break RepoPath::root();
            };
            tail.push(match lent_name(at).filter(|_| lower.lends_number) {
                Some(lent) => Cow::Owned(lent),
                None => Cow::Borrowed(&lower.name),
            });
            at = lower.parent;
        };
        base.join_all(tail.iter().rev().map(AsRef::as_ref))
    }

    /// The path that a new directory lends its children.
    pub(crate) fn path_to_lend(&self, parent: Ino, name: &Name, ino: Ino) -> RepoPath {
        let above = self.ino_path(parent);
        match lent_name(ino).filter(|_| !self.is_natural(ino, parent, name)) {
            Some(lent) => above.join(&lent),
            None => above.join(name),
        }
    }

    /// The number of an unstaged child as it is or would be, in a directory with this path for
    /// numbers.
    pub(crate) fn lower_ino_in(&self, at: (Ino, &RepoPath), name: &Name, group: u32) -> Ino {
        self.place_lower(at.0, at.1, name, group).0
    }

    fn place_lower(
        &self,
        parent: Ino,
        ino_path: &RepoPath,
        name: &Name,
        group: u32,
    ) -> (Ino, bool, bool) {
        let usable = |ino: Ino| {
            if self.nodes.contains_key(&ino) {
                return None;
            }
            let same = |lower: &LowerNode| {
                lower.parent == parent
                    && lower.detached.is_none()
                    && lower.group == group
                    && (group != 0 || lower.name == *name)
            };
            let known = self.lower.get(&ino).map(same);
            (known != Some(false)).then_some((ino, known.is_some()))
        };
        if group == 0
            && !self.salted.is_empty()
            && let Some(before) = self.salted.get(&(parent, name.clone()))
            && let Some((ino, known)) = usable(*before)
        {
            return (ino, known, true);
        }
        let mut tries = (0..MAX_SALT).map(|salt| {
            let ino = match group {
                0 => ino::number(ino_path, name, salt),
                _ => ino::group_number(ino_path, group, salt),
            };
            let (ino, known) = usable(ino)?;
            Some((ino, known, salt != 0))
        });
        let found = tries.find_map(|found| found);
        found.unwrap_or((Ino(0), false, false))
    }

    /// Makes an unstaged child known and counts `lookups` for it.
    pub(crate) fn know_lower(&mut self, parent: Ino, name: &Name, row: &Row, lookups: u64) -> Ino {
        let group = group_of(row);
        let ino_path = self.ino_path(parent);
        let (ino, known, salted) = self.place_lower(parent, &ino_path, name, group);
        if known {
            if let Some(lower) = self.lower.get(&ino) {
                lower.lookups.fetch_add(lookups, Ordering::Relaxed);
            }
            return ino;
        }
        if salted && group == 0 {
            self.salted.insert((parent, name.clone()), ino);
        }
        let lower = LowerNode {
            parent,
            name: name.clone(),
            group,
            is_dir: row.entry.is_dir(),
            lends_number: salted && row.entry.is_dir(),
            lookups: AtomicU64::new(lookups),
            kids: 0,
            detached: None,
            unpublished: None,
        };
        self.lower.insert(ino, lower);
        self.add_kids(parent, 1);
        ino
    }

    /// Takes an unstaged inode out of the table, for its number goes elsewhere; its parent's count
    /// of kids is settled.
    pub(crate) fn take_lower(&mut self, ino: Ino) -> Option<LowerNode> {
        let lower = self.lower.remove(&ino)?;
        self.forget_salted(lower.parent, &lower.name);
        self.add_kids(lower.parent, -1);
        Some(lower)
    }

    /// Another inode has this name from now on.
    pub(crate) fn forget_salted(&mut self, parent: Ino, name: &Name) {
        if !self.salted.is_empty() {
            self.salted.remove(&(parent, name.clone()));
        }
    }

    /// Puts an unstaged inode into the table under a given number.
    pub(crate) fn put_lower(&mut self, ino: Ino, mut lower: LowerNode) {
        let salted = lower.group == 0 && !self.is_natural(ino, lower.parent, &lower.name);
        if lower.detached.is_none() {
            self.forget_salted(lower.parent, &lower.name);
            if salted {
                self.salted.insert((lower.parent, lower.name.clone()), ino);
            }
        }
        lower.lends_number = salted && lower.is_dir;
        self.add_kids(lower.parent, 1);
        self.lower.insert(ino, lower);
    }

    /// Drops unstaged inodes that nobody knows, from this one upwards.
    pub(crate) fn drop_unknown(&mut self, ino: Ino, is_open: &dyn Fn(Ino) -> bool) {
        let mut at = ino;
        while let Some(lower) = self.lower.get(&at) {
            if lower.kids > 0 || lower.lookups.load(Ordering::Relaxed) > 0 || is_open(at) {
                return;
            }
            let (parent, name) = (lower.parent, lower.name.clone());
            self.lower.remove(&at);
            self.add_kids(parent, -1);
            if self.salted.len() > MAX_SALTED {
                self.forget_salted(parent, &name);
            }
            at = parent;
        }
    }

    /// A free number for a new inode.
    pub(crate) fn fresh_ino(&self, parent: Ino, name: &Name) -> Ino {
        let ino_path = self.ino_path(parent);
        (0..MAX_SALT)
            .map(|salt| ino::number(&ino_path, name, salt))
            .find(|ino| !self.nodes.contains_key(ino) && !self.lower.contains_key(ino))
            .unwrap_or(Ino(0))
    }

    /// True if an unstaged inode at this place would have this very number.
    pub(crate) fn is_natural(&self, ino: Ino, parent: Ino, name: &Name) -> bool {
        ino::number(&self.ino_path(parent), name, 0) == ino
    }

    /// True if a staged inode at this place may go on as an unstaged one of the same number, that
    /// lends its children the same path.
    pub(crate) fn needs_no_node(&self, parent: Ino, name: &Name, ino: Ino) -> bool {
        let Some(node) = self.nodes.get(&ino) else {
            return true;
        };
        let lends_its_path = |dir: &Dir| dir.ino_path == self.ino_path(parent).join(name);
        let entries = node.entries.as_ref();
        node.names.len() == 1
            && self.is_natural(ino, parent, name)
            && node.rec.dir().is_none_or(lends_its_path)
            && entries.is_none_or(|entries| entries.is_empty())
    }
}

/// A name that no path has, for a directory that lends its number.
fn lent_name(ino: Ino) -> Option<Name> {
    Name::new(format!("\u{1}{:x}", ino.0).as_bytes()).ok()
}
