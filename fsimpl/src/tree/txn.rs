//! One change of the tree: made in memory, recorded, or undone whole.
//!
//! A [`Txn`] remembers what it touched. [`Txn::commit`] writes the touched records as one batch;
//! when that fails, or when the transaction is dropped, the tree is as it was. It holds the tree's
//! write lock for as long as it lives, and does no I/O but to look up rows and write the batch.

use std::sync::Arc;

use formats::{Name, Row};

use super::{
    Dentry, Entries, InoMap, LowerNode, Names, Node, Origin, Record, RevId, Runtime, Serial, Tree,
    Under, group_of, mtime_of,
};
use crate::error::{FsError, Result};
use crate::journal::{Batch, Journal, inode_key, name_key};
use crate::lower::Revisions;
use crate::stage::FrozenMark;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{Ino, Time};

/// See the module's head.
pub(crate) struct Txn<'a> {
    pub(crate) tree: &'a mut Tree,
    journal: &'a Journal,
    pub(crate) now: Time,
    undo: Vec<Undo>,
    saved: InoMap<()>,
    /// Records beside those of the tree.
    pub(crate) extra: Batch,
}

enum Undo {
    Record(Ino, Box<Record>),
    Inserted(Ino),
    Staged(Ino, Box<LowerNode>),
    Detached(Ino),
    Dentry(Ino, Name, Option<Dentry>),
    Names(Ino, Names),
    Head(Box<Revisions>),
}

/// What a committed change leaves to do: inodes without names.
#[must_use]
#[derive(Default)]
pub(crate) struct Staged {
    pub(crate) orphans: Vec<Ino>,
}

impl<'a> Txn<'a> {
    pub(crate) fn begin(tree: &'a mut Tree, journal: &'a Journal, now: Time) -> Self {
        tree.tick += 1;
        Self {
            tree,
            journal,
            now,
            undo: Vec::new(),
            saved: InoMap::default(),
            extra: Batch::default(),
        }
    }

    fn save_record(&mut self, ino: Ino) -> Result<()> {
        if self.saved.contains_key(&ino) {
            return Ok(());
        }
        let node = self.tree.require(ino)?;
        let record = Box::new(node.rec.clone());
        let clean: Vec<(Ino, Name)> = node
            .names
            .iter()
            .filter(|(parent, name)| self.tree.dentry(*parent, name).is_some_and(|d| d.clean))
            .map(|(parent, name)| (parent, name.clone()))
            .collect();
        self.saved.insert(ino, ());
        self.undo.push(Undo::Record(ino, record));
        for (parent, name) in clean {
            if let Some(dentry) = self.tree.dentry(parent, &name) {
                let clean = false;
                self.set_dentry(parent, &name, Some(Dentry { clean, ..dentry }))?;
            }
        }
        Ok(())
    }

    /// A staged inode's record, to change.
    pub(crate) fn record(&mut self, ino: Ino) -> Result<&mut Record> {
        self.save_record(ino)?;
        let tick = self.tree.tick;
        let node = self.tree.nodes.get_mut(&ino);
        let rec = &mut node.ok_or(FsError::Stale(ino.0))?.rec;
        rec.stamp = tick;
        Ok(rec)
    }

    /// As [`Txn::record`], for changes that leave what the inode is: a snapshot taken before still
    /// has it as it is.
    pub(crate) fn record_quietly(&mut self, ino: Ino) -> Result<&mut Record> {
        if !self.saved.contains_key(&ino) {
            let record = Box::new(self.tree.require(ino)?.rec.clone());
            self.saved.insert(ino, ());
            self.undo.push(Undo::Record(ino, record));
        }
        let node = self.tree.nodes.get_mut(&ino);
        Ok(&mut node.ok_or(FsError::Stale(ino.0))?.rec)
    }

    /// Unstaged paths follow another revision from now on; one that a commit of ours made of the
    /// former, where `ours` says so.
    pub(crate) fn set_head(&mut self, head: RevId, ours: bool) {
        let revisions = &mut self.tree.revisions;
        self.undo.push(Undo::Head(Box::new(revisions.clone())));
        if ours {
            revisions.followed_by_ours(revisions.head, head);
        }
        revisions.head = head;
    }

    /// Takes a name from a staged inode and leaves nothing behind: what is published shows.
    pub(crate) fn uncover(&mut self, parent: Ino, name: &Name) -> Result<()> {
        let old = self.tree.dentry(parent, name);
        self.set_dentry(parent, name, None)?;
        if let Some(ino) = old.and_then(|d| d.node()) {
            self.change_names(ino, |names| names.remove(parent, name))?;
        }
        Ok(())
    }

    /// A new inode without a name.
    pub(crate) fn insert(&mut self, ino: Ino, rec: Record, run: Runtime) {
        let entries = rec.dir().map(|_| Box::new(Entries::new()));
        let node = Node {
            rec,
            names: Names::None,
            entries,
            run,
        };
        self.tree.nodes.insert(ino, node);
        self.saved.insert(ino, ());
        self.undo.push(Undo::Inserted(ino));
    }

    pub(crate) fn set_dentry(
        &mut self,
        parent: Ino,
        name: &Name,
        dentry: Option<Dentry>,
    ) -> Result<()> {
        let node = self.tree.nodes.get_mut(&parent);
        let entries = node.and_then(|n| n.entries.as_mut());
        let entries = entries.ok_or(FsError::Stale(parent.0))?;
        let before = match dentry {
            Some(dentry) => entries.insert(name.clone(), dentry),
            None => entries.remove(name),
        };
        self.undo.push(Undo::Dentry(parent, name.clone(), before));
        Ok(())
    }

    fn change_names(&mut self, ino: Ino, change: impl FnOnce(&mut Names)) -> Result<()> {
        let node = self.tree.nodes.get_mut(&ino);
        let node = node.ok_or(FsError::Stale(ino.0))?;
        let before = node.names.clone();
        change(&mut node.names);
        self.undo.push(Undo::Names(ino, before));
        Ok(())
    }

    /// Gives a name that shows what is published to a staged inode that is just that.
    pub(crate) fn name_again(&mut self, parent: Ino, name: &Name, dentry: Dentry) -> Result<()> {
        self.set_dentry(parent, name, Some(dentry))?;
        self.tree.forget_salted(parent, name);
        self.change_names(Ino(dentry.ino), |names| names.add(parent, name.clone()))
    }

    /// Gives a name to a staged inode. Whatever had it is gone already.
    pub(crate) fn occupy(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<()> {
        let dentry = Dentry {
            ino: ino.0,
            ..self.gone(parent, name)?
        };
        let dentry = Dentry {
            white: false,
            ..dentry
        };
        self.set_dentry(parent, name, Some(dentry))?;
        self.tree.forget_salted(parent, name);
        self.change_names(ino, |names| names.add(parent, name.clone()))
    }

    /// Takes a name away, from a staged inode or from an unstaged one.
    pub(crate) fn vacate(&mut self, parent: Ino, name: &Name) -> Result<()> {
        let old = self.tree.dentry(parent, name);
        let white = self.gone(parent, name)?;
        // what goes may itself have come since the snapshot, over a name that the snapshot has
        let frozen = old.is_some_and(|d| !d.white) && self.tree.is_frozen(parent, name);
        let needed = white.under != Under::Nothing || frozen;
        self.set_dentry(parent, name, needed.then_some(white))?;
        if let Some(ino) = old.and_then(|d| d.node()) {
            self.change_names(ino, |names| names.remove(parent, name))?;
        }
        Ok(())
    }

    /// A name as gone: what was published there when it was first staged, and in which revision.
    fn gone(&self, parent: Ino, name: &Name) -> Result<Dentry> {
        let gone = Dentry {
            ino: 0,
            white: true,
            clean: false,
            under: Under::Nothing,
            rev: self.tree.revisions.head,
            stamp: self.tree.tick,
            published: Serial::default(),
        };
        if let Some(dentry) = self.tree.dentry(parent, name) {
            return Ok(Dentry {
                under: dentry.under,
                rev: self.tree.staged_over(&dentry),
                published: dentry.published,
                ..gone
            });
        }
        let row = self.tree.lower_row(parent, name)?;
        Ok(Dentry {
            under: under_of(row.as_ref()),
            ..gone
        })
    }

    /// Drops all whiteouts of a directory that goes.
    pub(crate) fn clear_entries(&mut self, ino: Ino) -> Result<()> {
        let entries = self.tree.node(ino).and_then(|n| n.entries.as_ref());
        let names: Vec<Name> = entries.map_or_else(Vec::new, |e| e.keys().cloned().collect());
        for name in names {
            self.set_dentry(ino, &name, None)?;
        }
        Ok(())
    }

    /// Stages an inode as it is published, and the directories above it.
    pub(crate) fn stage(&mut self, ino: Ino) -> Result<()> {
        let mut chain = Vec::new();
        let mut at = ino;
        while !self.tree.nodes.contains_key(&at) {
            let lower = self.tree.lower.get(&at).ok_or(FsError::Stale(at.0))?;
            chain.push(at);
            if lower.detached.is_some() {
                break;
            }
            at = lower.parent;
        }
        while let Some(at) = chain.pop() {
            self.stage_one(at)?;
        }
        Ok(())
    }

    fn stage_one(&mut self, ino: Ino) -> Result<()> {
        let row = self.tree.row_of(ino)?;
        let serial = self.tree.fresh_serial();
        let lent = self.tree.ino_path(ino);
        let mut rec = Record::from_entry(&row.entry, lent, self.tree.tick, serial);
        let lower = self.tree.lower.get(&ino).ok_or(FsError::Stale(ino.0))?;
        if let Some(known) = lower.unpublished.as_deref() {
            rec.atime = known.atime;
            rec.ctime = rec.ctime.max(known.ctime);
        }
        let parent = lower.parent;
        let names = if lower.detached.is_some() {
            Vec::new()
        } else if self.tree.dentry(parent, &lower.name).is_some() {
            return Err(FsError::Stale(ino.0));
        } else if lower.group == 0 {
            vec![lower.name.clone()]
        } else {
            self.members(parent, lower.group)?
        };
        let under = under_of(Some(&row));
        let lower = self.tree.take_lower(ino).ok_or(FsError::Stale(ino.0))?;
        let run = Runtime {
            lookups: AtomicU64::new(lower.lookups.load(Ordering::Relaxed)),
            kids: lower.kids,
            ..Runtime::default()
        };
        self.undo.push(Undo::Staged(ino, Box::new(lower)));
        self.insert(ino, rec, run);
        for name in names {
            let dentry = Dentry {
                ino: ino.0,
                white: false,
                clean: false,
                under,
                rev: self.tree.revisions.head,
                stamp: self.tree.tick,
                published: serial,
            };
            self.set_dentry(parent, &name, Some(dentry))?;
            self.change_names(ino, |names| names.add(parent, name.clone()))?;
        }
        Ok(())
    }

    /// The names in a directory that are one published inode, as far as they still stand.
    fn members(&self, parent: Ino, group: u32) -> Result<Vec<Name>> {
        let Some((rev, dir)) = self.tree.origin(parent) else {
            return Ok(Vec::new());
        };
        let rows = self.tree.revisions.list(rev, &dir)?;
        let mut names = Vec::new();
        for row in rows.iter().filter(|row| group_of(row) == group) {
            let name = Name::new(&row.name)?;
            if self.tree.dentry(parent, &name).is_none() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// An unstaged inode loses its place but stays known. A group loses it with its last name.
    pub(crate) fn detach(&mut self, ino: Ino) {
        let Some(origin) = self.tree.origin(ino) else {
            return;
        };
        if let Some(lower) = self.tree.lower.get_mut(&ino)
            && lower.detached.is_none()
        {
            lower.detached = Some(Box::new(origin));
            self.undo.push(Undo::Detached(ino));
        }
    }

    /// A directory's content changed.
    pub(crate) fn touch_dir(&mut self, ino: Ino) -> Result<()> {
        let now = self.now;
        let rec = self.record(ino)?;
        rec.mtime = mtime_of(now);
        rec.ctime = now;
        Ok(())
    }

    /// A directory has one subdirectory more, or fewer.
    pub(crate) fn count_subdir(&mut self, ino: Ino, more: i32) -> Result<()> {
        if let Some(dir) = self.record(ino)?.dir_mut() {
            dir.subdirs += more;
        }
        Ok(())
    }

    /// Before a directory moves: what it inherits is written down. That is nothing, where another
    /// publisher removed the published one meanwhile.
    pub(crate) fn pin_origin(&mut self, ino: Ino) -> Result<()> {
        let inherits = |dir: &super::Dir| dir.origin == Origin::Inherit;
        let node = self.tree.require(ino)?;
        if node.rec.dir().is_some_and(inherits)
            && let Some((rev, path)) = self.tree.origin(ino)
        {
            let row = self.tree.revisions.find(rev, &path)?;
            let stands = row.is_some_and(|row| row.entry.is_dir());
            if let Some(dir) = self.record(ino)?.dir_mut() {
                dir.origin = match stands {
                    true => Origin::At { rev, path },
                    false => Origin::Empty,
                };
            }
        }
        Ok(())
    }

    /// After a directory moved: one that is back in its place inherits again.
    pub(crate) fn settle_origin(&mut self, ino: Ino) -> Result<()> {
        if self.is_back(ino)?
            && let Some(dir) = self.record(ino)?.dir_mut()
        {
            dir.origin = Origin::Inherit;
        }
        Ok(())
    }

    /// True for a directory that says where it comes from, and is there.
    pub(crate) fn is_back(&self, ino: Ino) -> Result<bool> {
        let node = self.tree.require(ino)?;
        let Some(Origin::At { rev, path }) = node.rec.dir().map(|dir| &dir.origin) else {
            return Ok(false);
        };
        let Some((parent, name)) = node.names.first() else {
            return Ok(false);
        };
        let around = self.tree.origin(parent);
        Ok(around.is_some_and(|(r, dir)| r == *rev && dir.join(name) == *path))
    }

    /// Records the change.
    pub(crate) fn commit(mut self) -> Result<Staged> {
        let (inodes, names) = self.touched();
        let mut batch = std::mem::take(&mut self.extra);
        self.tree.write_records(&inodes, &names, &mut batch);
        if let Err(error) = self.journal.commit(batch) {
            self.roll_back();
            let mut undo = Batch::default();
            self.tree.write_records(&inodes, &names, &mut undo);
            self.journal.undo(undo);
            return Err(error.into());
        }
        self.undo.clear();
        let orphan = |ino: &Ino| {
            *ino != Ino::ROOT && self.tree.node(*ino).is_some_and(|n| n.names.is_empty())
        };
        Ok(Staged {
            orphans: inodes.into_iter().filter(orphan).collect(),
        })
    }

    fn touched(&self) -> (Vec<Ino>, Vec<(Ino, Name)>) {
        let (mut inodes, mut names) = (Vec::new(), Vec::new());
        for undo in &self.undo {
            match undo {
                Undo::Record(ino, _) | Undo::Inserted(ino) | Undo::Names(ino, _) => {
                    inodes.push(*ino);
                }
                Undo::Dentry(parent, name, _) => names.push((*parent, name.clone())),
                Undo::Staged(..) | Undo::Detached(_) | Undo::Head(_) => {}
            }
        }
        inodes.sort_unstable();
        inodes.dedup();
        if names.len() > 1 {
            names.sort_unstable();
            names.dedup();
        }
        (inodes, names)
    }

    fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Record(ino, record) => {
                    if let Some(node) = self.tree.nodes.get_mut(&ino) {
                        node.rec = *record;
                    }
                }
                Undo::Inserted(ino) => {
                    self.tree.nodes.remove(&ino);
                }
                Undo::Staged(ino, lower) => self.tree.put_lower(ino, *lower),
                Undo::Detached(ino) => {
                    if let Some(lower) = self.tree.lower.get_mut(&ino) {
                        lower.detached = None;
                    }
                }
                Undo::Head(before) => self.tree.revisions = *before,
                Undo::Dentry(parent, name, before) => {
                    let node = self.tree.nodes.get_mut(&parent);
                    if let Some(entries) = node.and_then(|n| n.entries.as_mut()) {
                        match before {
                            Some(dentry) => entries.insert(name, dentry),
                            None => entries.remove(&name),
                        };
                    }
                }
                Undo::Names(ino, before) => {
                    if let Some(node) = self.tree.nodes.get_mut(&ino) {
                        node.names = before;
                    }
                }
            }
        }
    }
}

impl Drop for Txn<'_> {
    fn drop(&mut self) {
        self.roll_back();
    }
}

impl Tree {
    /// True if a snapshot that is being published may have this name in this directory.
    pub(crate) fn is_frozen(&self, parent: Ino, name: &Name) -> bool {
        let mut marks = self.frozen.iter();
        marks.any(|mark| mark.has_name(self.serial(parent), name))
    }

    /// True if a snapshot has this name as it is now.
    pub(crate) fn is_in(
        &self,
        mark: &FrozenMark,
        parent: Ino,
        name: &Name,
        dentry: &Dentry,
    ) -> bool {
        let left_out = |whose: Serial| mark.left_out.contains(&whose);
        dentry.stamp <= mark.stamp
            && !self.whose(dentry).is_some_and(left_out)
            && mark.has_name(self.serial(parent), name)
    }

    /// The records of inodes and names as they now are.
    pub(crate) fn write_records(&self, inodes: &[Ino], names: &[(Ino, Name)], batch: &mut Batch) {
        for ino in inodes {
            let key = inode_key(ino.0);
            match self.nodes.get(ino) {
                Some(node) if *ino == Ino::ROOT || !node.names.is_empty() => {
                    batch.put(key, &node.rec);
                }
                _ => batch.remove(key),
            }
        }
        for (parent, name) in names {
            let key = name_key(parent.0, name.as_bytes());
            match self.dentry(*parent, name) {
                Some(dentry) => batch.put(key, &dentry),
                None => batch.remove(key),
            }
        }
    }
}

fn under_of(row: Option<&Arc<Row>>) -> Under {
    match row {
        None => Under::Nothing,
        Some(row) if row.entry.is_dir() => Under::Directory,
        Some(_) => Under::File,
    }
}
