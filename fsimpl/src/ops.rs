//! The operations of one repository, on inode numbers and handles of its own.
//!
//! Each changes the tree through one [`Txn`], which is recorded before the operation returns.
//! Published rows that it will need are looked up before the tree is locked ([`Stage::warm`]), so
//! that a slow storage holds up nobody else.

mod attr;
mod io;
mod names;
mod range;
mod readdir;
mod rename;
mod sync;
mod write;
mod xattr;

use std::sync::Arc;

use formats::Name;

use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::sync::atomic::Ordering;
use crate::tree::{Child, Staged, Tree, Txn};
use crate::types::{Attr, Ino};

/// The name in the repository's root that belongs to CVMFS: nobody changes it or what is below.
const RESERVED: &[u8] = b".cvmfs";
/// What a metadata change takes of the free space, at the most.
const METADATA_BYTES: u64 = 16 << 10;

impl Stage {
    /// Makes one change, records it and clears up.
    pub(crate) fn change<T>(&self, make: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let mut tree = self.tree.write();
        let mut txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
        let value = make(&mut txn)?;
        let staged = txn.commit()?;
        self.reap(&mut tree, staged);
        Ok(value)
    }

    /// As [`Stage::change`], for changes that add something: refused when space is short.
    pub(crate) fn add<T>(&self, make: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        self.space.claim(METADATA_BYTES)?;
        self.change(make)
    }

    /// Forgets inodes without a name that nobody has open or knows.
    pub(crate) fn reap(&self, tree: &mut Tree, staged: Staged) {
        for ino in staged.orphans {
            self.reap_one(tree, ino);
        }
    }

    fn reap_one(&self, tree: &mut Tree, ino: Ino) {
        let Some(node) = tree.node(ino) else {
            return;
        };
        if ino == Ino::ROOT || !node.names.is_empty() {
            return;
        }
        let file = node.rec.file();
        let number = file.and_then(|file| file.data.backing());
        if node.rec.is_unsealed() && self.is_pinned(ino, number) {
            return;
        }
        self.feed.cancel(ino);
        if node.run.lookups.load(Ordering::Relaxed) > 0 || self.open.is_open(ino) {
            return;
        }
        if let Some(staged) = file.and_then(crate::tree::File::staged) {
            self.unstage(staged);
        }
        tree.nodes.remove(&ino);
    }

    /// Nobody has this inode open any more.
    pub(crate) fn closed(&self, ino: Ino) {
        {
            let tree = self.tree.read();
            let idle = match (tree.node(ino), tree.lower.get(&ino)) {
                (Some(node), _) => !node.names.is_empty(),
                (None, Some(lower)) => lower.lookups.load(Ordering::Relaxed) > 0,
                (None, None) => true,
            };
            if idle {
                return;
            }
        }
        let mut tree = self.tree.write();
        self.reap_one(&mut tree, ino);
        tree.drop_unknown(ino, &|ino| self.open.is_open(ino));
    }

    /// Takes back lookups.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        {
            let tree = self.tree.read();
            let lookups = match (tree.node(ino), tree.lower.get(&ino)) {
                (Some(node), _) => &node.run.lookups,
                (None, Some(lower)) => &lower.lookups,
                (None, None) => return,
            };
            let take = |have: u64| Some(have.saturating_sub(count));
            let had = lookups
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .unwrap_or(0);
            let named = tree.node(ino).is_some_and(|node| !node.names.is_empty());
            if had > count || named {
                return;
            }
        }
        let mut tree = self.tree.write();
        self.reap_one(&mut tree, ino);
        tree.drop_unknown(ino, &|ino| self.open.is_open(ino));
    }

    /// Looks up the published row that a name in a directory may need, before the tree is locked.
    pub(crate) fn warm(&self, parent: Ino, name: &Name) -> Result<()> {
        let (revision, path) = {
            let tree = self.tree.read();
            if tree.dentry(parent, name).is_some() {
                return Ok(());
            }
            let Some((rev, dir)) = tree.origin(parent) else {
                return Ok(());
            };
            (tree.revisions.get(rev)?, dir.join(name))
        };
        revision.find(&path)?;
        Ok(())
    }

    /// Lists the published directory that an inode may need, before the tree is locked.
    pub(crate) fn warm_listing(&self, ino: Ino) -> Result<()> {
        let (revision, path) = {
            let tree = self.tree.read();
            let Some((rev, path)) = tree.origin(ino) else {
                return Ok(());
            };
            (tree.revisions.get(rev)?, path)
        };
        // a file, or nothing, is found out under the lock
        drop(revision.listing(&path));
        Ok(())
    }

    /// Looks up the published row of an unstaged inode, before the tree is locked.
    pub(crate) fn warm_inode(&self, ino: Ino) -> Result<()> {
        let (revision, path) = {
            let tree = self.tree.read();
            if tree.node(ino).is_some() {
                return Ok(());
            }
            let (rev, path) = tree.origin(ino).ok_or(FsError::Stale(ino.0))?;
            (tree.revisions.get(rev)?, path)
        };
        revision.find(&path)?;
        Ok(())
    }

    /// The attributes of an inode, with what an open file knows better.
    pub(crate) fn attr_of(&self, tree: &Tree, ino: Ino) -> Result<Attr> {
        let mut attr = tree.attr(ino)?;
        if attr.kind == crate::types::FileType::Regular
            && let Some(open) = self.open.inode(ino)
        {
            let state = open.state.lock();
            if state.dirty {
                attr.size = state.size;
                attr.mtime = state.mtime;
                if tree.node(ino).is_none_or(|node| node.rec.atime.is_none()) {
                    attr.atime = state.mtime;
                }
                attr.ctime = attr.ctime.max(state.ctime);
                attr.blocks = state.size.div_ceil(512);
            }
        }
        Ok(attr)
    }
}

/// A name that may be made, removed or moved in a directory.
pub(crate) fn changeable(parent: Ino, name: &[u8]) -> Result<Name> {
    if parent == Ino::ROOT && name == RESERVED {
        return Err(FsError::NotPermitted(
            "/.cvmfs belongs to CernVM-FS and cannot be changed",
        ));
    }
    Ok(Name::new(name)?)
}

/// Errors if an inode lies below the reserved name.
pub(crate) fn require_changeable(tree: &Tree, ino: Ino) -> Result<()> {
    let mut at = ino;
    while at != Ino::ROOT {
        let (parent, name) = match (tree.node(at), tree.lower.get(&at)) {
            (Some(node), _) => match node.names.first() {
                Some(place) => place,
                None => return Ok(()),
            },
            (None, Some(lower)) if lower.detached.is_none() => (lower.parent, &lower.name),
            _ => return Ok(()),
        };
        if parent == Ino::ROOT && name.as_bytes() == RESERVED {
            return Err(FsError::NotPermitted(
                "/.cvmfs belongs to CernVM-FS and cannot be changed",
            ));
        }
        at = parent;
    }
    Ok(())
}

/// What a name in a directory is, as an inode that is known: an unstaged one is made known, without
/// a lookup.
pub(crate) fn known_child(tree: &mut Tree, parent: Ino, name: &Name) -> Result<Option<Ino>> {
    Ok(match tree.child(parent, name)? {
        Child::Absent => None,
        Child::Staged(ino) => Some(ino),
        Child::Lower(row) => Some(tree.know_lower(parent, name, &Arc::clone(&row), 0)),
    })
}
