//! Following the published head.
//!
//! Unstaged paths show the new revision; what is staged stays over it and remembers what it was
//! staged over. The kernel is told what it knows and what has changed. An unstaged file that is open
//! while its content changes loses its number to the new one: the open handle keeps its content.

use std::sync::Arc;

use formats::{Hash, Mtime, Name, RepoPath, Row};

use super::retire::Vanished;
use super::{Stage, StageError};
use crate::error::{FsError, Result};
use crate::handle::OpenInode;
use crate::journal::{Batch, Journal, name_key};
use crate::lower::Revisions;
use crate::tree::{Dentry, Dir, RevId, Tree, Txn, Under, Unpublished, group_of, type_of};
use crate::types::Ino;

/// An unstaged inode, as the head moves.
pub(super) struct Unstaged {
    ino: Ino,
    /// Where its row is.
    was: (RevId, RepoPath),
    /// Who had it open reads that.
    open: Option<Arc<OpenInode>>,
}

impl Stage {
    /// Lets unstaged paths show the revision with this root catalog.
    ///
    /// # Errors
    /// [`StageError::Frozen`] while a snapshot is being published; when the revision cannot be read
    /// or the journal cannot be written, everything is as it was.
    pub fn refresh(&self, root: &Hash) -> Result<(), StageError> {
        if self.base_root() == *root {
            return Ok(());
        }
        let _one = self.moving.lock();
        let revision = self.repository.revision(root).map_err(FsError::from)?;
        revision.find(&RepoPath::root()).map_err(FsError::from)?;
        let before = self.tree.read().revisions.clone();
        let (changed, known) = {
            let mut tree = self.tree.write();
            if let Some(mark) = tree.frozen.first() {
                return Err(StageError::Frozen(mark.id));
            }
            let head = tree.revisions.add(revision);
            let mut txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
            let (gone, changed) = txn.follow(head)?;
            Self::meta_batch(txn.tree, &mut txn.extra);
            // what vanished is seen to below, and nothing else lost its name
            let _: crate::tree::Staged = txn.commit()?;
            self.settle_vanished(&mut tree, gone);
            tree.prune_revisions();
            tree.forget_links();
            let mut known = self.unstaged(&tree);
            known.retain(|known| known.was.0 == head);
            for known in &mut known {
                known.was.0 = before.head;
            }
            (changed, known)
        };
        for ino in changed {
            self.notices.inode(ino);
        }
        self.after_new_head(&before, known);
        Ok(())
    }

    /// The unstaged inodes, and what each is now. To be asked with the tree locked, as the head
    /// moves: who becomes known or is opened later has what the new head shows.
    pub(super) fn unstaged(&self, tree: &Tree) -> Vec<Unstaged> {
        let attached = tree.lower.iter().filter(|(_, l)| l.detached.is_none());
        let unstaged = attached.filter_map(|(ino, _)| {
            Some(Unstaged {
                ino: *ino,
                was: tree.origin(*ino)?,
                open: self.open.inode(*ino),
            })
        });
        unstaged.collect()
    }

    /// Tells the kernel what it knows and what the new head has changed of it. Best effort: what
    /// cannot be read is told as changed.
    pub(super) fn after_new_head(&self, before: &Revisions, known: Vec<Unstaged>) {
        let (after, known) = {
            let tree = self.tree.read();
            if tree.revisions.head == before.head {
                return;
            }
            let now = |known: Unstaged| Some((tree.origin(known.ino)?, known));
            let known: Vec<_> = known.into_iter().filter_map(now).collect();
            (tree.revisions.clone(), known)
        };
        for ((rev, published), known) in known {
            if rev != after.head {
                // it was moved, and stays with the revision it was moved in
                continue;
            }
            let old = before.find(known.was.0, &known.was.1);
            let new = after.find(rev, &published);
            if let (Ok(Some(old)), Ok(Some(new))) = (&old, &new)
                && old.entry == new.entry
                && old.linkcount == new.linkcount
            {
                continue;
            }
            tracing::debug!(path = %published, "changed by another publisher");
            self.tell_changed(before, known, (old.ok().flatten(), new.ok().flatten()));
        }
        // names that were missing may be there now
        self.notices.inode(Ino::ROOT);
    }

    fn tell_changed(
        &self,
        before: &Revisions,
        Unstaged { ino, was, open }: Unstaged,
        (old, new): (Option<Arc<Row>>, Option<Arc<Row>>),
    ) {
        let same_type = match (&old, &new) {
            (Some(old), Some(new)) => {
                type_of(&old.entry) == type_of(&new.entry) && group_of(old) == group_of(new)
            }
            _ => false,
        };
        let same_content = match (&old, &new) {
            (Some(old), Some(new)) => old.entry.kind == new.entry.kind,
            _ => false,
        };
        let now = (self.clock)();
        let mut guard = self.tree.write();
        let still_open = || match (&open, self.open.inode(ino)) {
            (Some(was), Some(now)) => Arc::ptr_eq(was, &now),
            _ => false,
        };
        let must_lose_place = !same_type || (!same_content && still_open());
        let tree = &mut *guard;
        let Some(lower) = tree.lower.get_mut(&ino) else {
            return;
        };
        let (parent, name) = (lower.parent, lower.name.clone());
        if must_lose_place && lower.detached.is_none() {
            // nothing referred to that revision for a moment
            tree.revisions.remember(was.0, before);
            lower.detached = Some(Box::new(was));
        }
        // its row may be older than what was there
        let known = lower.unpublished.as_deref();
        let ctime = known.map_or(now, |known| known.ctime.max(now));
        let atime = known.and_then(|known| known.atime);
        lower.unpublished = Some(Box::new(Unpublished { atime, ctime }));
        drop(guard);
        self.notices.inode(ino);
        self.notices.inode(parent);
        self.notices.entry(parent, &name);
    }
}

impl Txn<'_> {
    /// The head moves on; what is kept for its number alone goes where its place has changed, but for
    /// directories, which change (the inodes).
    fn follow(&mut self, head: RevId) -> Result<(Vec<Vanished>, Vec<Ino>)> {
        let old_head = self.tree.revisions.head;
        self.set_head(head, false);
        let (mut gone, mut changed) = (Vec::new(), Vec::new());
        for (parent, name) in self.tree.clean_names() {
            let Some(path) = self.tree.view_path(parent).map(|dir| dir.join(&name)) else {
                continue;
            };
            let revisions = &self.tree.revisions;
            let (old, new) = (
                revisions.find(old_head, &path)?,
                revisions.find(head, &path)?,
            );
            let same = match (&old, &new) {
                (Some(old), Some(new)) => old.entry == new.entry,
                _ => false,
            };
            if same {
                continue;
            }
            let dentry = self.tree.dentry(parent, &name);
            let ino = dentry.and_then(|d| d.node());
            if let (Some(dentry), Some(ino), Some(new)) = (dentry, ino, &new)
                && new.entry.is_dir()
                && self.tree.is_dir(ino)?
            {
                // what is below it has its numbers from it
                let now = self.now;
                self.record_quietly(ino)?.follow(&new.entry, now);
                changed.push(ino);
                let rev = head;
                self.set_dentry(parent, &name, Some(Dentry { rev, ..dentry }))?;
                continue;
            }
            // with something left in it, it is more than a number
            if ino.is_some_and(|ino| self.tree.has_entries(ino)) {
                continue;
            }
            self.uncover(parent, &name)?;
            if let Some(ino) = ino
                && let node = self.tree.require(ino)?
                && node.names.is_empty()
            {
                gone.push(Vanished::new(ino, parent, name, node));
            }
        }
        for ino in self.tree.implicit_dirs() {
            changed.extend(self.follow_implicit(ino, old_head)?);
        }
        Ok((gone, changed))
    }

    /// A directory that is staged for what is in it follows the metadata that is published, but for
    /// an mtime that a staged change gave it. The inode, if it has changed.
    fn follow_implicit(&mut self, ino: Ino, old_head: RevId) -> Result<Option<Ino>> {
        let revisions = &self.tree.revisions;
        let Some((rev, path)) = self.tree.origin(ino) else {
            return Ok(None);
        };
        if rev != revisions.head {
            // it is in one that was moved, and stays with the revision it was moved in
            return Ok(None);
        }
        let (old, new) = (
            revisions.find(old_head, &path)?,
            revisions.find(rev, &path)?,
        );
        let (Some(old), Some(new)) = (old, new) else {
            return Ok(None);
        };
        if old.entry == new.entry || !new.entry.is_dir() {
            return Ok(None);
        }
        let now = self.now;
        let has_changes = self.tree.has_changes_in(ino);
        let rec = self.record_quietly(ino)?;
        let own = rec.mtime;
        rec.follow(&new.entry, now);
        // what was published may have been cut to whole seconds
        let as_published = |own: Mtime| own.secs == old.entry.mtime.secs;
        if has_changes && !as_published(own) {
            rec.mtime = own;
        }
        Ok(Some(ino))
    }
}

impl Tree {
    fn has_entries(&self, ino: Ino) -> bool {
        let entries = self.node(ino).and_then(|node| node.entries.as_deref());
        entries.is_some_and(|entries| !entries.is_empty())
    }

    /// Directories of which nothing is staged themselves.
    fn implicit_dirs(&self) -> Vec<Ino> {
        let mut dirs = self.descendants(Ino::ROOT);
        dirs.retain(|ino| self.is_implicit(*ino));
        dirs
    }

    fn is_implicit(&self, ino: Ino) -> bool {
        let dir = self.node(ino).and_then(|node| node.rec.dir());
        dir.is_some_and(Dir::is_implicit)
    }

    /// True if names in this very directory come or go, or were replaced.
    fn has_changes_in(&self, ino: Ino) -> bool {
        let entries = self.node(ino).and_then(|node| node.entries.as_deref());
        let is_change = |dentry: &Dentry| {
            !dentry.clean && !dentry.node().is_some_and(|child| self.is_implicit(child))
        };
        entries.is_some_and(|entries| entries.values().any(is_change))
    }

    /// Names that are kept for their inode's number or links alone, children before parents.
    fn clean_names(&self) -> Vec<(Ino, Name)> {
        let mut clean = Vec::new();
        for ino in self.descendants(Ino::ROOT).into_iter().rev() {
            let entries = self.node(ino).and_then(|node| node.entries.as_deref());
            for (name, dentry) in entries.into_iter().flatten() {
                if dentry.clean {
                    clean.push((ino, name.clone()));
                }
            }
        }
        clean
    }

    /// Removes whiteouts that hide nothing: they were kept for a snapshot.
    pub(super) fn drop_needless_whiteouts(&mut self, journal: &Journal) -> Result<()> {
        if !self.frozen.is_empty() {
            return Ok(());
        }
        let mut needless = Vec::new();
        for (ino, node) in &self.nodes {
            for (name, dentry) in node.entries.as_deref().into_iter().flatten() {
                if dentry.white && dentry.under == Under::Nothing {
                    needless.push((*ino, name.clone()));
                }
            }
        }
        let mut batch = Batch::default();
        for (ino, name) in &needless {
            batch.remove(name_key(ino.0, name.as_bytes()));
        }
        journal.commit(batch)?;
        for (ino, name) in &needless {
            let node = self.nodes.get_mut(ino);
            if let Some(entries) = node.and_then(|node| node.entries.as_mut()) {
                entries.remove(name);
            }
        }
        Ok(())
    }
}
