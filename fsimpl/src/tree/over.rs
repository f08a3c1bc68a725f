//! Which revision staged names are laid over: what another publisher changed since may collide.

use formats::RepoPath;

use super::{Dentry, Origin, RevId, Tree, Under};
use crate::types::Ino;

impl Tree {
    /// The revision that a staged name is laid over. A directory that is seen as it is published
    /// follows the head, but for what was staged in it before.
    pub(super) fn staged_over(&self, dentry: &Dentry) -> RevId {
        let head = self.revisions.head;
        let dir = |dentry: &Dentry| {
            let ino = dentry.node().filter(|_| self.is_own(dentry))?;
            Some((ino, self.node(ino)?.rec.dir()?))
        };
        let follows = |dentry: &Dentry| match dir(dentry)?.1.origin {
            Origin::Inherit => Some(head),
            // about to move
            Origin::At { rev, .. } => Some(rev),
            Origin::Empty => None,
        };
        if dentry.under != Under::Directory || follows(dentry) != Some(head) {
            return self.revisions.base_of(dentry.rev);
        }
        let mut oldest = head;
        let mut pending = vec![*dentry];
        while let Some(at) = pending.pop() {
            if at.under == Under::Nothing {
                continue;
            }
            let inner = dir(&at).filter(|_| follows(&at) == Some(head));
            // a clean name is as published, whenever it was first staged
            if !at.clean && inner.is_none_or(|(_, dir)| dir.explicit) {
                oldest = oldest.min(self.revisions.base_of(at.rev));
            }
            let Some((ino, _)) = inner else {
                continue;
            };
            let entries = self.node(ino).and_then(|node| node.entries.as_deref());
            pending.extend(entries.into_iter().flatten().map(|(_, below)| *below));
        }
        oldest
    }

    /// The revision over which the removal of a published directory is staged; none if it is seen
    /// at its place, or nothing is published there that is staged over.
    pub(crate) fn removed_over(&self, path: &RepoPath) -> Option<RevId> {
        let mut at = Ino::ROOT;
        for name in path.components() {
            let dentry = self.dentry(at, &name)?;
            let stands = dentry.node().filter(|ino| {
                let dir = self.node(*ino).and_then(|node| node.rec.dir());
                dir.is_some_and(|dir| dir.origin == Origin::Inherit)
            });
            match stands {
                Some(ino) => at = ino,
                None if dentry.under == Under::Nothing => return None,
                None => return Some(self.revisions.base_of(dentry.rev)),
            }
        }
        None
    }
}
