//! Inodes that are as published: unstaged again, or kept for their number.

use formats::Name;

use crate::error::Result;
use crate::stage::Stage;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::tree::{Dentry, File, LowerNode, Names, Node, Tree};
use crate::types::Ino;

/// Inodes kept in the tree for their numbers or links alone; about 400 bytes each. Beyond it, a
/// published file gets another number when it is next looked up.
const MAX_CLEAN: usize = 100_000;

/// An inode that is published and no longer staged.
pub(in crate::stage) struct Vanished {
    pub(in crate::stage) ino: Ino,
    pub(in crate::stage) parent: Ino,
    pub(in crate::stage) name: Name,
    pub(in crate::stage) is_dir: bool,
    /// Its backing file (0 for none) and size, if it is staged.
    pub(in crate::stage) staged: Option<(u64, u64)>,
}

impl Vanished {
    /// An inode that goes on as the unstaged one of its place.
    pub(in crate::stage) fn new(ino: Ino, parent: Ino, name: Name, node: &Node) -> Self {
        Self {
            ino,
            parent,
            name,
            is_dir: node.rec.dir().is_some(),
            staged: node.rec.file().and_then(File::staged),
        }
    }
}

impl Stage {
    /// Inodes that went become unstaged ones of the same number, where somebody knows them. Children
    /// come before parents, so that a parent still counts them.
    pub(in crate::stage) fn settle_vanished(&self, tree: &mut Tree, vanished: Vec<Vanished>) {
        for gone in vanished {
            let Some(node) = tree.nodes.remove(&gone.ino) else {
                continue;
            };
            self.feed.cancel(gone.ino);
            if let Some(staged) = gone.staged {
                self.unstage(staged);
            }
            let lookups = node.run.lookups.load(Ordering::Relaxed);
            if lookups > 0 || node.run.kids > 0 || self.open.is_open(gone.ino) {
                let lower = LowerNode {
                    parent: gone.parent,
                    name: gone.name,
                    group: 0,
                    is_dir: gone.is_dir,
                    lends_number: false,
                    lookups: AtomicU64::new(lookups),
                    kids: node.run.kids,
                    detached: None,
                    unpublished: node.rec.unpublished(),
                };
                tree.put_lower(gone.ino, lower);
            }
        }
    }

    /// Forgets clean inodes beyond their limit.
    pub(in crate::stage) fn trim_clean(&self) -> Result<()> {
        let clean: Vec<(Ino, Name)> = {
            let tree = self.tree.read();
            let all = tree.nodes.iter().flat_map(|(ino, node)| {
                let entries = node.entries.as_deref().into_iter().flatten();
                entries
                    .filter(|(_, dentry)| dentry.clean && tree.is_plain_clean(dentry))
                    .map(|(name, _)| (*ino, name.clone()))
            });
            all.collect()
        };
        let surplus = clean.len().saturating_sub(MAX_CLEAN);
        if surplus == 0 {
            return Ok(());
        }
        self.change(|txn| {
            for (parent, name) in clean.iter().take(surplus) {
                txn.uncover(*parent, name)?;
            }
            Ok(())
        })
    }
}

impl Tree {
    /// A clean inode that a trim may drop: nobody knows it, and nothing is staged below it.
    fn is_plain_clean(&self, dentry: &Dentry) -> bool {
        let node = dentry.node().and_then(|ino| self.node(ino));
        node.is_some_and(|node| {
            matches!(node.names, Names::One(..))
                && node.run.lookups.load(Ordering::Relaxed) == 0
                && node
                    .entries
                    .as_ref()
                    .is_none_or(|entries| entries.is_empty())
        })
    }
}
