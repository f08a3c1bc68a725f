//! A moved directory of which a part was published at its new place.
//!
//! It was one reference to an older place. From now on it is the published directory of the new
//! place, with what is not published of it staged name by name: so that the next part is an ordinary
//! commit. That costs as many names as the directories on the way to the published part have.

use formats::{Name, RepoPath, Row};

use super::Retiring;
use crate::error::Result;
use crate::tree::{Dentry, Origin, RevId, Serial, Tree, Txn, Under};
use crate::types::Ino;

impl Retiring<'_> {
    /// Turns a directory that was published bare at `place` into the published one there. One that
    /// was moved on since stays what it was.
    pub(super) fn unfold(&mut self, txn: &mut Txn<'_>, ino: Ino, place: &RepoPath) -> Result<()> {
        let Some((rev, from)) = txn.tree.origin(ino) else {
            return Ok(());
        };
        let Some(dentry) = self.still_at(txn.tree, ino, place) else {
            return Ok(());
        };
        let rows = txn.tree.revisions.list(rev, &from)?;
        for row in rows.iter().filter(|row| !row.hidden) {
            self.stage_row(txn, (ino, place), row)?;
        }
        let names = txn.tree.names_in(ino);
        for (name, below) in &names {
            if let Some(child) = below.node() {
                txn.pin_quietly(child, rev, from.join(name))?;
            }
        }
        if let Some(dir) = txn.record_quietly(ino)?.dir_mut() {
            dir.origin = Origin::At {
                rev: self.head,
                path: place.clone(),
            };
        }
        txn.settle_origin_quietly(ino)?;
        for (name, below) in names {
            let fresh = below.stamp == txn.tree.tick;
            let since = if fresh { dentry.rev } else { below.rev };
            self.rebase(
                txn,
                (ino, &name),
                place,
                Dentry {
                    rev: since,
                    ..below
                },
            )?;
        }
        self.shown.insert(txn.tree.serial(ino), place.clone());
        Ok(())
    }

    /// The name of a directory that is where it was published.
    fn still_at(&self, tree: &Tree, ino: Ino, place: &RepoPath) -> Option<Dentry> {
        let (parent, name) = tree.node(ino)?.names.first()?;
        let (rev, above) = tree.origin(parent)?;
        let same = rev == self.head && above.join(name) == *place;
        tree.dentry(parent, name).filter(|_| same)
    }

    /// Stages what is seen by reference only, unless it was just published as it is.
    fn stage_row(
        &mut self,
        txn: &mut Txn<'_>,
        (parent, place): (Ino, &RepoPath),
        row: &Row,
    ) -> Result<()> {
        let name = Name::new(&row.name)?;
        let path = place.join(&name);
        if txn.tree.dentry(parent, &name).is_some() || self.mark.unstaged.contains(&path) {
            return Ok(());
        }
        let child = txn.tree.know_lower(parent, &name, row, 0);
        txn.stage(child)?;
        if self.mark.leads_below(&path) {
            self.bare.insert(txn.tree.serial(child), path);
        }
        Ok(())
    }

    /// What a name of an unfolded directory is staged over: what the new place has there.
    fn rebase(
        &self,
        txn: &mut Txn<'_>,
        (parent, name): (Ino, &Name),
        place: &RepoPath,
        dentry: Dentry,
    ) -> Result<()> {
        let path = place.join(name);
        let under = self.published_type(txn.tree, &path)?;
        if dentry.white && under == Under::Nothing {
            return txn.uncover(parent, name);
        }
        let ours = self.mark.has_name(txn.tree.serial(parent), name)
            || self
                .mark
                .unstaged
                .iter()
                .any(|target| target.is_within(&path));
        let rebased = Dentry {
            published: Serial::default(),
            under,
            // what another publisher put there collides
            rev: match under {
                Under::File | Under::Directory if !ours => dentry.rev,
                _ => self.head,
            },
            ..dentry
        };
        txn.set_dentry(parent, name, Some(rebased))
    }
}

impl Txn<'_> {
    /// A directory that inherits refers to this published one from now on.
    fn pin_quietly(&mut self, ino: Ino, rev: RevId, path: RepoPath) -> Result<()> {
        let dir = self.tree.require(ino)?.rec.dir();
        if dir.is_some_and(|dir| dir.origin == Origin::Inherit)
            && let Some(dir) = self.record_quietly(ino)?.dir_mut()
        {
            dir.origin = Origin::At { rev, path };
        }
        Ok(())
    }
}
