//! Published directories that a snapshot moved, and what moved with them.
//!
//! A staged directory may refer to a published one below the source of such a move. It follows the
//! move if it was there when the snapshot was made, and stays with the older revision if it had been
//! taken out before.

use std::collections::HashSet;

use formats::RepoPath;

use crate::stage::FrozenMark;
use crate::tree::{Origin, RevId, Tree};
use crate::types::Ino;

/// A published directory that a snapshot moved.
pub(super) struct Move {
    ino: Ino,
    rev: RevId,
    pub(super) from: RepoPath,
    pub(super) to: RepoPath,
}

/// The move that took a published directory along, if one did.
pub(super) fn move_of<'m>(moves: &'m [Move], rev: RevId, path: &RepoPath) -> Option<&'m Move> {
    let along = moves
        .iter()
        .filter(|m| m.rev == rev && path.is_within(&m.from));
    along.max_by_key(|m| m.from.as_bytes().len())
}

impl Tree {
    /// Published directories that a snapshot moved.
    pub(super) fn frozen_moves(&self, mark: &FrozenMark) -> Vec<Move> {
        let moved = mark.whole.iter().filter_map(|(ino, to)| {
            let ino = Ino(*ino);
            let Origin::At { rev, path } = &self.node(ino)?.rec.dir()?.origin else {
                return None;
            };
            Some(Move {
                ino,
                rev: *rev,
                from: path.clone(),
                to: to.clone(),
            })
        });
        moved.collect()
    }

    /// Directories that are not in the snapshot and had been taken out of one that is, and was moved,
    /// before: they did not move with it.
    pub(super) fn parted(&self, mark: &FrozenMark, moves: &[Move]) -> HashSet<Ino> {
        if moves.is_empty() {
            return HashSet::new();
        }
        let parted = self.nodes.iter().filter(|(ino, node)| {
            let origin = node.rec.dir().map(|dir| &dir.origin);
            let Some(Origin::At { rev, path }) =
                origin.filter(|_| !mark.whole.contains_key(&ino.0))
            else {
                return false;
            };
            move_of(moves, *rev, path).is_some_and(|m| {
                let rest = path.below(&m.from).unwrap_or_default();
                self.hid(mark, m.ino, &rest)
            })
        });
        parted.map(|(ino, _)| *ino).collect()
    }

    /// True if a directory of the snapshot had something else, or nothing, where its origin has the
    /// directory `rest`.
    fn hid(&self, mark: &FrozenMark, dir: Ino, rest: &RepoPath) -> bool {
        let mut at = dir;
        for name in rest.components() {
            let Some(dentry) = self.dentry(at, &name) else {
                return false;
            };
            let at_home = dentry.node().filter(|ino| {
                let dir = self.node(*ino).and_then(|node| node.rec.dir());
                dir.is_some_and(|dir| dir.origin == Origin::Inherit)
            });
            match at_home {
                Some(ino) => at = ino,
                None => return dentry.stamp <= mark.stamp,
            }
        }
        false
    }
}
