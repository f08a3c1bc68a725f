//! After a commit: what equals the snapshot is staged no longer, what changed since stays.
//!
//! Going down from the root, every staged directory gets its new origin: one that is in the snapshot
//! refers to where it was published, wherever it is now. A name that is as in the snapshot goes, if
//! the published one shows in its place; inode numbers stay. A staged inode that cannot give its
//! number to an unstaged one (it was renamed before it was published, or has several names) stays in
//! the tree, marked as clean, up to a limit.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formats::{Hash, Name, ObjectName, RepoPath};

use super::{FrozenMark, Stage, StageError};
use crate::error::{FsError, Result};
use crate::journal::frozen_key;
use crate::tree::{
    Data, Dentry, LowerNode, Names, Origin, RevId, Staged, Tree, Txn, Under, type_of,
};
use crate::types::{FileType, Ino};

/// Inodes kept in the tree for their numbers or links alone; about 400 bytes each. Beyond it, a
/// published file gets another number when it is next looked up.
const MAX_CLEAN: usize = 100_000;

/// An inode that is published and no longer staged.
pub(super) struct Vanished {
    pub(super) ino: Ino,
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) is_dir: bool,
    /// Its backing file (0 for none) and size.
    pub(super) staged: Option<(u64, u64)>,
}

impl Stage {
    /// The commit of a snapshot is visible as the revision with this root catalog.
    ///
    /// # Errors
    /// [`StageError::UnknownSnapshot`]; when the new revision cannot be read or the journal cannot
    /// be written, nothing has changed and the call may be made again.
    pub fn retire(&self, id: u64, new_root: &Hash) -> Result<(), StageError> {
        let _one = self.freezing.lock();
        let revision = self.repository.revision(new_root).map_err(FsError::from)?;
        // it must be readable before anything relies on it
        revision.find(&RepoPath::root()).map_err(FsError::from)?;
        let before = self.tree.read().revisions.clone();
        // nothing but our own commit lies between the two heads
        let alone;
        {
            let mut tree = self.tree.write();
            let mark = tree.frozen.clone().filter(|mark| mark.id == id);
            let mark = mark.ok_or(StageError::UnknownSnapshot(id))?;
            alone = previous_of(&revision) == Some(before.root_of(before.head));
            let head = tree.revisions.add(revision);
            let txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
            let done = retire(txn, &mark, (head, alone))?;
            tree.frozen = None;
            self.settle_vanished(&mut tree, done.gone);
            done.unstaged
                .into_iter()
                .for_each(|file| self.unstage(file));
            tree.prune_revisions();
            tree.forget_links();
            self.known.published(&done.objects);
        }
        self.trim_clean()?;
        self.feed.sweep_later();
        // else all that the kernel knows is as it was
        if !alone {
            self.after_new_head(&before);
        }
        Ok(())
    }

    /// Inodes that went become unstaged ones of the same number, where somebody knows them.
    pub(super) fn settle_vanished(&self, tree: &mut Tree, vanished: Vec<Vanished>) {
        // children before parents, so that a parent still counts them
        for gone in vanished.into_iter().rev() {
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
                    lookups: AtomicU64::new(lookups),
                    kids: node.run.kids,
                    detached: None,
                };
                tree.put_lower(gone.ino, lower);
            }
        }
    }

    /// Forgets clean inodes beyond their limit.
    pub(super) fn trim_clean(&self) -> Result<(), FsError> {
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

/// The root catalog of the revision that one was made upon.
fn previous_of(revision: &store::Revision) -> Option<Hash> {
    let catalog = Arc::clone(revision.root_catalog());
    let previous = catalog.with(|catalog| Ok(catalog.previous_revision()));
    previous.ok().flatten()
}

fn retire(mut txn: Txn<'_>, mark: &FrozenMark, (head, alone): (RevId, bool)) -> Result<Retired> {
    let moves = txn.tree.frozen_moves(mark);
    let parted = txn.tree.parted(mark, &moves);
    let old_head = txn.tree.revisions.head;
    txn.set_head(head);
    let mut retiring = Retiring {
        mark,
        head,
        advances: alone.then_some(old_head),
        moves,
        parted,
        done: Retired::default(),
    };
    retiring.directory(&mut txn, Ino::ROOT)?;
    let Retiring { done, .. } = retiring;
    txn.extra.remove(frozen_key(mark.id));
    Stage::meta_batch(txn.tree, &mut txn.extra);
    // what vanished is seen to by the caller, and nothing else lost its name
    let _: Staged = txn.commit()?;
    Ok(done)
}

/// A published directory that a snapshot moved.
struct Move {
    ino: Ino,
    rev: RevId,
    from: RepoPath,
    to: RepoPath,
}

/// The move that took a published directory along, if one did.
fn move_of<'m>(moves: &'m [Move], rev: RevId, path: &RepoPath) -> Option<&'m Move> {
    let along = moves
        .iter()
        .filter(|m| m.rev == rev && path.is_within(&m.from));
    along.max_by_key(|m| m.from.as_bytes().len())
}

struct Retiring<'m> {
    mark: &'m FrozenMark,
    head: RevId,
    /// The former head, if our own commit is all that lies between: who was staged over that one is
    /// staged over the new one, and what the commit changed is nobody else's doing.
    advances: Option<RevId>,
    moves: Vec<Move>,
    /// Directories that had been taken out of a moved one before the snapshot.
    parted: HashSet<Ino>,
    done: Retired,
}

/// What a retirement leaves to do.
#[derive(Default)]
struct Retired {
    gone: Vec<Vanished>,
    /// Backing files, and sizes, of inodes that stay and are published now.
    unstaged: Vec<(u64, u64)>,
    /// Objects that are published now.
    objects: HashSet<ObjectName>,
}

impl Retiring<'_> {
    /// Rebases a staged directory, and then its names.
    fn directory(&mut self, txn: &mut Txn<'_>, ino: Ino) -> Result<()> {
        if let Some(origin) = self.new_origin(txn.tree, ino)? {
            if let Some(dir) = txn.record_quietly(ino)?.dir_mut() {
                dir.origin = origin;
            }
            txn.settle_origin_quietly(ino)?;
        }
        let now = txn.tree.origin(ino);
        let was = self.frozen_place(txn.tree, ino);
        let shows = match (&now, &was) {
            (Some((rev, path)), Some(was)) => *rev == self.head && path == was,
            _ => false,
        };
        let entries = txn.tree.node(ino).and_then(|node| node.entries.as_deref());
        let names: Vec<(Name, Dentry)> = entries
            .map(|entries| entries.iter().map(|(n, d)| (n.clone(), *d)).collect())
            .unwrap_or_default();
        let mut subdirs = 0;
        for (name, dentry) in names {
            self.name(txn, (ino, &name), dentry, shows, was.as_ref())?;
            subdirs += txn.tree.subdirs_more(ino, &name);
        }
        let unpublished = txn.tree.require(ino)?.rec.dir().map(|dir| dir.subdirs);
        if unpublished != Some(subdirs)
            && let Some(dir) = txn.record_quietly(ino)?.dir_mut()
        {
            dir.subdirs = subdirs;
        }
        if self.is_frozen_record(txn.tree, ino)
            && let Some(dir) = txn.record_quietly(ino)?.dir_mut()
        {
            dir.explicit = false;
        }
        Ok(())
    }

    /// The snapshot has the directory's own metadata as they are.
    fn is_frozen_record(&self, tree: &Tree, ino: Ino) -> bool {
        let known = self.mark.whole.contains_key(&ino.0) || self.mark.bare.contains_key(&ino.0);
        let explicit = |stamp: u64, explicit: bool| explicit && stamp <= self.mark.stamp;
        known
            && tree.node(ino).is_some_and(|node| {
                let dir = node.rec.dir();
                dir.is_some_and(|dir| explicit(node.rec.stamp, dir.explicit))
            })
    }

    /// Where the names of a directory were published from, if the snapshot has any.
    fn frozen_place(&self, tree: &Tree, ino: Ino) -> Option<RepoPath> {
        if let Some(path) = self.mark.published_at(ino) {
            return Some(path.clone());
        }
        if self.mark.bare.contains_key(&ino.0) {
            return None;
        }
        // a directory above the targets, published as it was
        let below = (ino.0, Name::new(b"\x01").ok()?);
        let mut names = self.mark.names.range(below..);
        let direct = names.next().filter(|((parent, _), _)| *parent == ino.0);
        match direct {
            Some((_, path)) => path.parent(),
            None => tree.origin(ino).map(|(_, path)| path),
        }
    }

    /// A directory's origin, where it must change.
    fn new_origin(&self, tree: &Tree, ino: Ino) -> Result<Option<Origin>> {
        let Some(dir) = tree.require(ino)?.rec.dir() else {
            return Ok(None);
        };
        if dir.origin == Origin::Inherit {
            return Ok(None);
        }
        if let Some(path) = self.mark.published_at(ino) {
            return Ok(Some(Origin::At {
                rev: self.head,
                path: path.clone(),
            }));
        }
        let Origin::At { rev, path } = &dir.origin else {
            return Ok(None);
        };
        // moved since, or elsewhere: what it refers to may have moved with the snapshot
        let moved = move_of(&self.moves, *rev, path).filter(|_| !self.parted.contains(&ino));
        if let Some(Move { from, to, .. }) = moved {
            let rest = path.below(from).unwrap_or_default();
            return Ok(Some(Origin::At {
                rev: self.head,
                path: to.concat(&rest),
            }));
        }
        // not in the snapshot: what it refers to stays as it was then
        Ok(None)
    }

    fn name(
        &mut self,
        txn: &mut Txn<'_>,
        (parent, name): (Ino, &Name),
        dentry: Dentry,
        shows: bool,
        place: Option<&RepoPath>,
    ) -> Result<()> {
        let node = dentry.node();
        if let Some(ino) = node
            && txn.tree.is_dir(ino)?
        {
            self.directory(txn, ino)?;
        }
        let included = self.mark.includes(parent, name, &dentry);
        if included && shows {
            return match node {
                None => txn.uncover(parent, name),
                Some(ino) => self.published(txn, (parent, name), dentry, ino),
            };
        }
        let in_snapshot = included || self.mark.whole.contains_key(&parent.0);
        if let Some(place) = place.filter(|_| in_snapshot && shows) {
            let row = txn.tree.revisions.find(self.head, &place.join(name))?;
            let under = match row {
                None => Under::Nothing,
                Some(row) if type_of(&row.entry) == FileType::Directory => Under::Directory,
                Some(_) => Under::File,
            };
            if dentry.white && under == Under::Nothing {
                return txn.uncover(parent, name);
            }
            let rev = self.head;
            txn.set_dentry(
                parent,
                name,
                Some(Dentry {
                    under,
                    rev,
                    ..dentry
                }),
            )?;
        } else if dentry.under == Under::Directory && self.advances == Some(dentry.rev) {
            let rev = self.head;
            txn.set_dentry(parent, name, Some(Dentry { rev, ..dentry }))?;
        }
        Ok(())
    }

    /// A name that the snapshot has, and whose published place shows here.
    fn published(
        &mut self,
        txn: &mut Txn<'_>,
        (parent, name): (Ino, &Name),
        dentry: Dentry,
        ino: Ino,
    ) -> Result<()> {
        let node = txn.tree.require(ino)?;
        let unchanged = node.rec.stamp <= self.mark.stamp && !node.rec.is_unsealed();
        let dir = node.rec.dir();
        let kept_entries = node
            .entries
            .as_ref()
            .is_some_and(|entries| !entries.is_empty());
        let natural = node.names.len() == 1
            && txn.tree.is_natural(ino, parent, name)
            && dir.is_none_or(|dir| dir.ino_path == txn.tree.ino_path(parent).join(name));
        let inherits = dir.is_none_or(|dir| dir.origin == Origin::Inherit);
        let staged = node.rec.file().and_then(crate::tree::File::staged);
        if unchanged
            && let Some(Data::Staged {
                sealed: Some(sealed),
                ..
            }) = node.rec.file().map(|file| &file.data)
        {
            self.done.objects.extend(sealed.content.objects());
        }
        if unchanged && natural && inherits && !kept_entries {
            self.done.gone.push(Vanished {
                ino,
                parent,
                name: name.clone(),
                is_dir: dir.is_some(),
                staged,
            });
            return txn.uncover(parent, name);
        }
        let under = if dir.is_some() {
            Under::Directory
        } else {
            Under::File
        };
        if unchanged && let Some(file) = node.rec.file() {
            let (regular, size) = (file.data.regular(file.size), file.size);
            if let (Some(regular), Some(file)) = (regular, txn.record_quietly(ino)?.file_mut()) {
                file.data = Data::Published(Box::new(regular));
                file.size = size;
                self.done.unstaged.extend(staged);
            }
        }
        let clean = unchanged && !kept_entries;
        let kept = Dentry {
            clean,
            under,
            rev: self.head,
            ..dentry
        };
        txn.set_dentry(parent, name, Some(kept))
    }
}

impl Txn<'_> {
    /// As [`Txn::settle_origin`], without counting as a change.
    fn settle_origin_quietly(&mut self, ino: Ino) -> Result<()> {
        let node = self.tree.require(ino)?;
        let Some(Origin::At { rev, path }) = node.rec.dir().map(|dir| &dir.origin) else {
            return Ok(());
        };
        let Some((parent, name)) = node.names.first() else {
            return Ok(());
        };
        let at_home = self
            .tree
            .origin(parent)
            .is_some_and(|(r, dir)| r == *rev && dir.join(name) == *path);
        if at_home && let Some(dir) = self.record_quietly(ino)?.dir_mut() {
            dir.origin = Origin::Inherit;
        }
        Ok(())
    }
}

impl Tree {
    /// Published directories that a snapshot moved.
    fn frozen_moves(&self, mark: &FrozenMark) -> Vec<Move> {
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
    fn parted(&self, mark: &FrozenMark, moves: &[Move]) -> HashSet<Ino> {
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

    /// What a staged name adds to its directory's subdirectories.
    pub(super) fn subdirs_more(&self, parent: Ino, name: &Name) -> i32 {
        let Some(dentry) = self.dentry(parent, name) else {
            return 0;
        };
        let is = dentry
            .node()
            .and_then(|ino| self.node(ino))
            .is_some_and(|node| node.rec.dir().is_some());
        i32::from(is) - i32::from(dentry.under == Under::Directory)
    }

    /// Link counts of origins are asked for again.
    pub(super) fn forget_links(&mut self) {
        for node in self.nodes.values_mut() {
            *node.run.lower_links.get_mut() = 0;
        }
    }

    /// Forgets revisions that nothing refers to.
    pub(super) fn prune_revisions(&mut self) {
        let mut used = HashSet::new();
        for node in self.nodes.values() {
            if let Some(Origin::At { rev, .. }) = node.rec.dir().map(|dir| &dir.origin) {
                used.insert(*rev);
            }
            let entries = node.entries.as_deref().into_iter().flatten();
            used.extend(entries.map(|(_, dentry)| dentry.rev));
        }
        for lower in self.lower.values() {
            used.extend(lower.detached.as_ref().map(|detached| detached.0));
        }
        self.revisions.retain(|rev| used.contains(&rev));
    }

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
