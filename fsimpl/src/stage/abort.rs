//! Dropping staged changes: what is published shows again.
//!
//! Needs neither network nor mount. Open files keep what they have, as unlinked ones do; the kernel
//! is told of every name that went.

use std::collections::HashMap;

use formats::{Name, RepoPath};

use super::retire::Vanished;
use super::{AbortError, Stage};
use crate::error::Result;
use crate::tree::{Dentry, Dir, File, Origin, Record, Serial, Tree, Txn, Under, group_of, type_of};
use crate::types::{FileType, Ino};

/// What an abort did.
#[derive(Default)]
struct Dropped {
    /// Names that went, and whose they were.
    names: Vec<(Ino, Name)>,
    inodes: Vec<Ino>,
    /// Those that were staged for their own sake.
    count: usize,
    /// Names at which an inode is published that was changed there or went away; what is in a
    /// directory comes before it.
    homes: Vec<(Ino, Name, Serial)>,
    /// The same, of those that are there.
    at_home: Vec<(Ino, Name, Serial)>,
    /// Inodes that are at home again.
    home: Vec<Ino>,
    /// Those of them that are not staged any more; what is in a directory comes before it.
    restored: Vec<Vanished>,
    /// Backing files (0 for none), and sizes, of inodes that are at home again.
    unstaged: Vec<(u64, u64)>,
}

impl Stage {
    /// Drops what is staged at and below a path; returns how many names that were, without the
    /// directories that were staged for the sake of others alone. They go, too. The mount shows it
    /// when this returns; not to be called from a request of the mount.
    ///
    /// # Errors
    /// [`AbortError::Frozen`]; when the journal cannot be written. Nothing was dropped then.
    pub fn abort(&self, path: &RepoPath) -> Result<usize, AbortError> {
        let dropped = {
            let mut tree = self.tree.write();
            if let Some(mark) = tree.frozen.first() {
                return Err(AbortError::Frozen(mark.id));
            }
            let Some((parent, name)) = tree.staged_place(path) else {
                return Ok(0);
            };
            let mut txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
            let mut dropped = Dropped::default();
            match &name {
                Some(name) => {
                    let at_home = txn.tree.is_at_home(parent);
                    txn.drop_name((parent, at_home), name, &mut dropped)?;
                }
                None => txn.drop_all(&mut dropped)?,
            }
            // an open file keeps its number with its content; the published one gets another
            txn.bring_home(&mut dropped, &|ino| self.open.is_open(ino))?;
            if name.is_some() {
                txn.drop_implicit(parent, &mut dropped)?;
            }
            let mut staged = txn.commit()?;
            let restored = std::mem::take(&mut dropped.restored);
            let stays = |ino: &Ino| !restored.iter().any(|one| one.ino == *ino);
            staged.orphans.retain(stays);
            self.settle_vanished(&mut tree, restored);
            self.reap(&mut tree, staged);
            tree.forget_links();
            for ino in &dropped.home {
                self.feed.cancel(*ino);
            }
            dropped
        };
        for file in dropped.unstaged {
            self.unstage(file);
        }
        for (parent, name) in &dropped.names {
            self.notices.entry(*parent, name);
        }
        for ino in &dropped.inodes {
            self.notices.inode(*ino);
        }
        // what was dropped does not come back with a power loss
        self.sync_journal()?;
        self.feed.sweep_later();
        Ok(dropped.count)
    }
}

impl Txn<'_> {
    /// Drops a staged name and all below it. A name that is as published, in a directory that is
    /// (`at_home`), is kept for its number or links alone and stays.
    fn drop_name(
        &mut self,
        (parent, at_home): (Ino, bool),
        name: &Name,
        dropped: &mut Dropped,
    ) -> Result<()> {
        let Some(dentry) = self.tree.dentry(parent, name) else {
            return Ok(());
        };
        let stays = at_home && self.tree.shows_published(parent, name, &dentry)?;
        let mut implicit = false;
        if let Some(ino) = dentry.node() {
            let dir = self.tree.node(ino).and_then(|node| node.rec.dir());
            implicit = dir.is_some_and(|dir| !dir.explicit);
            self.drop_below((ino, stays), dropped)?;
        }
        if dentry.clean && stays {
            return Ok(());
        }
        let home = dentry.home_of().map(|whose| (parent, name.clone(), whose));
        match stays {
            true => dropped.at_home.extend(home),
            false => dropped.homes.extend(home),
        }
        dropped.inodes.extend(dentry.node());
        let more = -self.tree.subdirs_more(parent, name);
        self.uncover(parent, name)?;
        if more != 0
            && let Some(dir) = self.record_quietly(parent)?.dir_mut()
        {
            dir.subdirs += more;
        }
        dropped.names.push((parent, name.clone()));
        dropped.count += usize::from(!(stays && implicit));
        Ok(())
    }

    fn drop_below(&mut self, (ino, at_home): (Ino, bool), dropped: &mut Dropped) -> Result<()> {
        for (name, _) in self.tree.names_in(ino) {
            self.drop_name((ino, at_home), &name, dropped)?;
        }
        Ok(())
    }

    fn drop_all(&mut self, dropped: &mut Dropped) -> Result<()> {
        self.drop_below((Ino::ROOT, true), dropped)?;
        let head = self.tree.revisions.head;
        let row = self.tree.revisions.find(head, &RepoPath::root())?;
        if let Some(row) = row {
            let fresh = Record::from_entry(&row.entry, RepoPath::root(), 0, Serial::ROOT);
            self.becomes(Ino::ROOT, fresh)?;
        }
        dropped.inodes.push(Ino::ROOT);
        Ok(())
    }

    /// Lets inodes that have no name any more be what is published where they come from.
    fn bring_home(&mut self, dropped: &mut Dropped, is_open: &dyn Fn(Ino) -> bool) -> Result<()> {
        let mut back = Vec::new();
        let nameless = self.tree.nodes.iter().filter(|(_, n)| n.names.is_empty());
        let nameless = nameless.map(|(ino, node)| (node.rec.serial, *ino));
        let nameless: HashMap<Serial, Ino> = nameless.collect();
        // what is published at several places belongs where it was; a directory comes home before
        // what is in it
        let at_home = std::mem::take(&mut dropped.at_home).into_iter().rev();
        let homes = std::mem::take(&mut dropped.homes).into_iter().rev();
        for (parent, name, whose) in at_home.chain(homes) {
            let Some(ino) = nameless.get(&whose).copied() else {
                continue;
            };
            if !is_open(ino) && self.bring_back(parent, &name, ino, dropped)? {
                dropped.home.push(ino);
                back.push((parent, name, ino));
            }
        }
        for (parent, name, ino) in back.into_iter().rev() {
            if self.tree.needs_no_node(parent, &name, ino) {
                let node = self.tree.require(ino)?;
                let vanished = Vanished::new(ino, parent, name.clone(), node);
                dropped.restored.push(vanished);
                self.uncover(parent, &name)?;
            }
        }
        Ok(())
    }

    /// An inode is as published from now on, which is a change of it.
    fn becomes(&mut self, ino: Ino, published: Record) -> Result<()> {
        let now = self.now;
        let rec = self.record_quietly(ino)?;
        let ctime = rec.ctime.max(now);
        *rec = Record { ctime, ..published };
        Ok(())
    }

    /// Makes a nameless inode what is published at a name, kept for its number; false if it cannot
    /// be that.
    fn bring_back(
        &mut self,
        parent: Ino,
        name: &Name,
        ino: Ino,
        dropped: &mut Dropped,
    ) -> Result<bool> {
        let nameless = self.tree.node(ino).filter(|node| node.names.is_empty());
        let Some(node) = nameless.filter(|_| !self.tree.is_gone(parent)) else {
            return Ok(false);
        };
        let Some(row) = self.tree.lower_row(parent, name)? else {
            return Ok(false);
        };
        let kind = type_of(&row.entry);
        if kind != node.rec.file_type() || group_of(&row) != 0 {
            return Ok(false);
        }
        let file = node.rec.file();
        dropped.unstaged.extend(file.and_then(File::staged));
        let lent = node.rec.dir().map(|dir| dir.ino_path.clone());
        let (lent, serial) = (lent.unwrap_or_default(), node.rec.serial);
        let published = Record::from_entry(&row.entry, lent, self.tree.tick, serial);
        self.becomes(ino, published)?;
        if let Some(node) = self.tree.nodes.get_mut(&ino) {
            node.run.seal_error = None;
        }
        let clean = Dentry {
            ino: ino.0,
            white: false,
            clean: true,
            under: match kind {
                FileType::Directory => Under::Directory,
                _ => Under::File,
            },
            rev: self.tree.revisions.head,
            stamp: self.tree.tick,
            published: serial,
        };
        self.name_again(parent, name, clean)?;
        Ok(true)
    }

    /// Drops directories that were staged for the sake of what is below them.
    fn drop_implicit(&mut self, ino: Ino, dropped: &mut Dropped) -> Result<()> {
        let mut at = ino;
        while at != Ino::ROOT {
            let node = self.tree.require(at)?;
            let Some((parent, name)) = node.names.first().map(|(p, n)| (p, n.clone())) else {
                return Ok(());
            };
            let implicit = node.rec.dir().is_some_and(Dir::is_implicit);
            let known = self.tree.dentry(parent, &name);
            let own = known.is_some_and(|dentry| self.tree.is_own(&dentry));
            if !implicit || !own || !self.tree.needs_no_node(parent, &name, at) {
                return Ok(());
            }
            let vanished = Vanished::new(at, parent, name.clone(), node);
            dropped.restored.push(vanished);
            dropped.inodes.push(at);
            self.uncover(parent, &name)?;
            at = parent;
        }
        Ok(())
    }
}

impl Tree {
    /// True if a directory shows the published one of its own path.
    fn is_at_home(&self, ino: Ino) -> bool {
        let Some((rev, path)) = self.origin(ino) else {
            return false;
        };
        rev == self.revisions.head && self.view_path(ino) == Some(path)
    }

    /// True if a name in a directory that is at home holds what is published there, changed or not.
    fn shows_published(&self, parent: Ino, name: &Name, dentry: &Dentry) -> Result<bool> {
        let node = dentry.node().and_then(|ino| self.node(ino));
        let Some(node) = node.filter(|_| self.is_own(dentry)) else {
            return Ok(false);
        };
        let moved = |dir: &Dir| dir.origin != Origin::Inherit;
        if node.rec.dir().is_some_and(moved) {
            return Ok(false);
        }
        let row = self.lower_row(parent, name)?;
        Ok(row.is_some_and(|row| type_of(&row.entry) == node.rec.file_type()))
    }

    /// The staged name of a path, if it has one: directory and name, no name for the root.
    fn staged_place(&self, path: &RepoPath) -> Option<(Ino, Option<Name>)> {
        let Some(last) = path.name() else {
            return Some((Ino::ROOT, None));
        };
        let mut at = Ino::ROOT;
        for name in path.parent()?.components() {
            at = self.dentry(at, &name)?.node()?;
        }
        self.dentry(at, &last)?;
        Some((at, Some(last)))
    }
}
