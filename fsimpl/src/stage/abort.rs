//! Dropping staged changes: what is published shows again.
//!
//! Needs neither network nor mount. Open files keep what they have, as unlinked ones do; the kernel
//! is told of every name that went.

use formats::{Name, RepoPath};

use super::retire::Vanished;
use super::{AbortError, Stage};
use crate::error::Result;
use crate::tree::{Dentry, Origin, Tree, Txn, Under};
use crate::types::Ino;

/// What an abort did.
#[derive(Default)]
struct Dropped {
    /// Names that went, and whose they were.
    names: Vec<(Ino, Name)>,
    inodes: Vec<Ino>,
    /// Inodes that are published at the place they were staged at.
    restored: Vec<Vanished>,
}

impl Stage {
    /// Drops what is staged at and below a path; returns how many names that were. Directories
    /// above it that were staged for its sake alone go, too.
    ///
    /// # Errors
    /// When the journal cannot be written; nothing was dropped then.
    pub fn abort(&self, path: &RepoPath) -> Result<usize, AbortError> {
        let dropped = {
            let mut tree = self.tree.write();
            let Some((parent, name)) = tree.staged_place(path) else {
                return Ok(0);
            };
            let mut txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
            let mut dropped = Dropped::default();
            match name {
                Some(name) => {
                    txn.drop_name(parent, &name, &mut dropped)?;
                    txn.drop_implicit(parent, &mut dropped)?;
                }
                None => txn.drop_all(&mut dropped)?,
            }
            let mut staged = txn.commit()?;
            let restored = std::mem::take(&mut dropped.restored);
            let mut vanished = Vec::new();
            for one in restored {
                let open = self.open.is_open(one.ino);
                // an open file keeps its number with its content; the published one gets another
                if !open && tree.node(one.ino).is_some_and(|n| n.names.is_empty()) {
                    staged.orphans.retain(|ino| *ino != one.ino);
                    vanished.push(one);
                }
            }
            self.settle_vanished(&mut tree, vanished);
            self.reap(&mut tree, staged);
            tree.forget_links();
            dropped
        };
        for (parent, name) in &dropped.names {
            self.notices.entry(*parent, name);
        }
        for ino in &dropped.inodes {
            self.notices.inode(*ino);
        }
        self.feed.sweep_later();
        Ok(dropped.names.len())
    }
}

impl Txn<'_> {
    /// Drops a staged name and all below it.
    fn drop_name(&mut self, parent: Ino, name: &Name, dropped: &mut Dropped) -> Result<()> {
        let Some(dentry) = self.tree.dentry(parent, name) else {
            return Ok(());
        };
        if let Some(ino) = dentry.node() {
            self.drop_below(ino, dropped)?;
            if let Some(restored) = self.restored(parent, name, &dentry, ino)? {
                dropped.restored.push(restored);
            }
            dropped.inodes.push(ino);
        }
        self.uncover(parent, name)?;
        let more = i32::from(dentry.under == Under::Directory)
            - i32::from(
                dentry
                    .node()
                    .is_some_and(|ino| self.tree.is_dir(ino).unwrap_or(false)),
            );
        if more != 0
            && let Some(dir) = self.record_quietly(parent)?.dir_mut()
        {
            dir.subdirs += more;
        }
        dropped.names.push((parent, name.clone()));
        Ok(())
    }

    fn drop_below(&mut self, ino: Ino, dropped: &mut Dropped) -> Result<()> {
        let entries = self.tree.node(ino).and_then(|node| node.entries.as_deref());
        let names: Vec<Name> = entries.map_or_else(Vec::new, |e| e.keys().cloned().collect());
        for name in names {
            self.drop_name(ino, &name, dropped)?;
        }
        Ok(())
    }

    fn drop_all(&mut self, dropped: &mut Dropped) -> Result<()> {
        self.drop_below(Ino::ROOT, dropped)?;
        let head = self.tree.revisions.head;
        let row = self.tree.revisions.find(head, &RepoPath::root())?;
        if let Some(row) = row {
            let fresh = crate::tree::Record::from_entry(&row.entry, RepoPath::root(), 0);
            *self.record_quietly(Ino::ROOT)? = fresh;
        }
        dropped.inodes.push(Ino::ROOT);
        Ok(())
    }

    /// Drops directories that were staged for the sake of what is below them.
    fn drop_implicit(&mut self, ino: Ino, dropped: &mut Dropped) -> Result<()> {
        let mut at = ino;
        while at != Ino::ROOT {
            let node = self.tree.require(at)?;
            let Some((parent, name)) = node.names.first().map(|(p, n)| (p, n.clone())) else {
                return Ok(());
            };
            let implicit = node.rec.dir().is_some_and(|dir| {
                dir.origin == Origin::Inherit
                    && !dir.explicit
                    && node
                        .entries
                        .as_ref()
                        .is_none_or(|entries| entries.is_empty())
            });
            let dentry = self.tree.dentry(parent, &name);
            let Some(dentry) = dentry.filter(|d| implicit && d.under == Under::Directory) else {
                return Ok(());
            };
            let Some(restored) = self.restored(parent, &name, &dentry, at)? else {
                return Ok(());
            };
            dropped.restored.push(restored);
            dropped.inodes.push(at);
            self.uncover(parent, &name)?;
            at = parent;
        }
        Ok(())
    }

    /// The inode as the unstaged one of its place, if it can be that.
    fn restored(
        &self,
        parent: Ino,
        name: &Name,
        dentry: &Dentry,
        ino: Ino,
    ) -> Result<Option<Vanished>> {
        let node = self.tree.require(ino)?;
        let is_dir = node.rec.dir().is_some();
        let same_type = match dentry.under {
            Under::Nothing => false,
            Under::File => !is_dir,
            Under::Directory => is_dir,
        };
        let home = node
            .rec
            .dir()
            .is_none_or(|dir| dir.origin == Origin::Inherit);
        let natural = node.names.len() == 1 && self.tree.is_natural(ino, parent, name);
        if !(same_type && home && natural) {
            return Ok(None);
        }
        Ok(Some(Vanished::new(ino, parent, name.clone(), node)))
    }
}

impl Tree {
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

impl Vanished {
    /// An inode that goes on as the unstaged one of its place.
    pub(super) fn new(ino: Ino, parent: Ino, name: Name, node: &crate::tree::Node) -> Self {
        Self {
            ino,
            parent,
            name,
            is_dir: node.rec.dir().is_some(),
            staged: node.rec.file().and_then(crate::tree::File::staged),
        }
    }
}
