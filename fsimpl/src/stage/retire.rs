//! After a commit: what equals the snapshot is staged no longer, what changed since stays.
//!
//! Going down from the root, every staged directory gets its new origin: one that is in the snapshot
//! refers to where it was published, wherever it is now; one whose place the snapshot took away, and that
//! came back to it since, to where that was. A name that is as in the snapshot goes, if
//! the published one shows in its place; inode numbers stay. A staged inode that cannot give its
//! number to an unstaged one (it was renamed before it was published, or has several names) stays in
//! the tree, marked as clean, up to a limit.

mod clean;
mod unfold;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use formats::{Hash, Name, ObjectName, RepoPath};

use super::{FrozenMark, Stage, StageError};
use crate::error::{FsError, Result};
use crate::journal::frozen_key;
use crate::tree::{Data, Dentry, Origin, Raw, RevId, Serial, Staged, Tree, Txn, Under};
use crate::types::Ino;

pub(super) use clean::Vanished;

impl Stage {
    /// The commit of a snapshot is visible as the revision with this root catalog.
    ///
    /// # Errors
    /// [`StageError::UnknownSnapshot`]; when the new revision cannot be read or the journal cannot
    /// be written, nothing has changed and the call may be made again.
    pub fn retire(&self, id: u64, new_root: &Hash) -> Result<(), StageError> {
        let one = self.moving.lock();
        let revision = self.repository.revision(new_root).map_err(FsError::from)?;
        // it must be readable before anything relies on it
        revision.find(&RepoPath::root()).map_err(FsError::from)?;
        let before = self.tree.read().revisions.clone();
        // nothing but our own commit lies between the two heads
        let alone;
        let (known, dirs) = {
            let mut tree = self.tree.write();
            let mut marks = tree.frozen.iter();
            let mark = marks.find(|mark| mark.id == id).cloned();
            let mark = mark.ok_or(StageError::UnknownSnapshot(id))?;
            alone = previous_of(&revision) == Some(before.root_of(before.head));
            // not what is unstaged from now on: that is as it was
            let known = match alone {
                true => Vec::new(),
                false => self.unstaged(&tree),
            };
            let head = tree.revisions.add(revision);
            let txn = Txn::begin(&mut tree, &self.journal, (self.clock)());
            let done = retire(txn, &mark, (head, alone))?;
            tree.frozen.retain(|mark| mark.id != id);
            let dirs = done.gone.iter().filter(|gone| gone.is_dir);
            let dirs: Vec<Ino> = dirs.map(|gone| gone.ino).collect();
            self.settle_vanished(&mut tree, done.gone);
            done.unstaged
                .into_iter()
                .for_each(|file| self.unstage(file));
            tree.prune_revisions();
            tree.forget_links();
            self.known.published(&done.objects);
            (known, dirs)
        };
        self.trim_clean()?;
        // a power loss must not bring back as staged what is published, once the caller has
        // forgotten its commit
        self.journal.sync().map_err(FsError::from)?;
        drop(one);
        self.feed.sweep_later();
        // else all that the kernel knows is as it was
        if !alone {
            // others may have changed what is in them
            for dir in dirs {
                self.notices.inode(dir);
            }
            self.after_new_head(&before, known);
        }
        Ok(())
    }
}

/// The root catalog of the revision that one was made upon.
fn previous_of(revision: &store::Revision) -> Option<Hash> {
    let catalog = Arc::clone(revision.root_catalog());
    let previous = catalog.with(|catalog| Ok(catalog.previous_revision()));
    previous.ok().flatten()
}

fn retire(mut txn: Txn<'_>, mark: &FrozenMark, (head, alone): (RevId, bool)) -> Result<Retired> {
    let bare = mark.bare.iter().filter(|(_, bare)| bare.moved);
    let bare = bare.map(|(dir, bare)| (*dir, bare.path.clone()));
    let before = txn.tree.origin(Ino::ROOT);
    txn.set_head(head, alone);
    let mut retiring = Retiring {
        mark,
        head,
        bare: bare.collect(),
        shown: HashMap::new(),
        done: Retired::default(),
    };
    retiring.directory(&mut txn, Ino::ROOT, before)?;
    let Retiring { done, .. } = retiring;
    txn.extra.remove(frozen_key(mark.id));
    Stage::meta_batch(txn.tree, &mut txn.extra);
    // what vanished is seen to by the caller, and nothing else lost its name
    let _: Staged = txn.commit()?;
    Ok(done)
}

struct Retiring<'m> {
    mark: &'m FrozenMark,
    head: RevId,
    /// Moved directories, published bare, and where.
    bare: HashMap<Serial, RepoPath>,
    /// Those of them that are what is published there from now on.
    shown: HashMap<Serial, RepoPath>,
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
    /// Rebases a staged directory, and then its names. `before`: what it referred to so far.
    fn directory(
        &mut self,
        txn: &mut Txn<'_>,
        ino: Ino,
        before: Option<(RevId, RepoPath)>,
    ) -> Result<()> {
        if let Some(place) = self.bare.get(&txn.tree.serial(ino)).cloned() {
            self.unfold(txn, ino, &place)?;
        }
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
        let mut subdirs = 0;
        for (name, dentry) in txn.tree.names_in(ino) {
            if let Some(child) = dentry.node()
                && txn.tree.is_dir(child)?
            {
                let before = self.hold(txn, (ino, &name), child, before.as_ref())?;
                self.directory(txn, child, before)?;
            }
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

    /// What a directory referred to so far, where `above` is what the one above it did. One that stands
    /// where the snapshot has something else goes on referring to it: it was away when that was frozen,
    /// came home since, and would take what is published there now for its own.
    fn hold(
        &self,
        txn: &mut Txn<'_>,
        (parent, name): (Ino, &Name),
        ino: Ino,
        above: Option<&(RevId, RepoPath)>,
    ) -> Result<Option<(RevId, RepoPath)>> {
        let node = txn.tree.require(ino)?;
        let before = match node.rec.dir().map(|dir| &dir.origin) {
            Some(Origin::At { rev, path }) => return Ok(Some((*rev, path.clone()))),
            Some(Origin::Inherit) => above.map(|(rev, path)| (*rev, path.join(name))),
            Some(Origin::Empty) | None => return Ok(None),
        };
        let serial = node.rec.serial;
        // one that was first staged since was where it is published
        let was_away = serial <= self.mark.serial && self.mark.published_at(serial).is_none();
        if was_away
            && self.mark.has_name(txn.tree.serial(parent), name)
            && let Some((rev, path)) = before.clone()
            && let Some(dir) = txn.record_quietly(ino)?.dir_mut()
        {
            dir.origin = Origin::At { rev, path };
        }
        Ok(before)
    }

    /// The snapshot has the directory's own metadata as they are.
    fn is_frozen_record(&self, tree: &Tree, ino: Ino) -> bool {
        let dir = tree.serial(ino);
        let known = self.mark.whole.contains_key(&dir) || self.mark.bare.contains_key(&dir);
        let explicit = |stamp: u64, explicit: bool| explicit && stamp <= self.mark.stamp;
        known
            && tree.node(ino).is_some_and(|node| {
                let dir = node.rec.dir();
                dir.is_some_and(|dir| explicit(node.rec.stamp, dir.explicit))
            })
    }

    /// Where the names of a directory were published from, if the snapshot has any.
    fn frozen_place(&self, tree: &Tree, ino: Ino) -> Option<RepoPath> {
        let dir = tree.serial(ino);
        if let Some(path) = self.mark.published_at(dir).or(self.shown.get(&dir)) {
            return Some(path.clone());
        }
        if self.bare.contains_key(&dir) {
            return None;
        }
        // a directory above the targets, published as it was
        let below = (dir, Name::new(b"\x01").ok()?);
        let mut names = self.mark.names.range(below..);
        let direct = names.next().filter(|((parent, _), _)| *parent == dir);
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
        // what is not in the snapshot, or was not staged then, refers to what it did
        let Some(path) = self.mark.published_at(tree.serial(ino)) else {
            return Ok(None);
        };
        let published = (self.head, path.clone());
        // one that is home again inherits, but was published where it was meanwhile
        if dir.origin == Origin::Inherit && tree.origin(ino).as_ref() == Some(&published) {
            return Ok(None);
        }
        let (rev, path) = published;
        Ok(Some(Origin::At { rev, path }))
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
        let included = txn.tree.is_in(self.mark, parent, name, &dentry);
        if included && shows {
            return match node {
                None => txn.uncover(parent, name),
                Some(ino) => self.published(txn, (parent, name), dentry, ino),
            };
        }
        let in_snapshot = self.mark.has_name(txn.tree.serial(parent), name);
        if let Some(place) = place.filter(|_| in_snapshot && shows) {
            let under = self.published_type(txn.tree, &place.join(name))?;
            if dentry.white && under == Under::Nothing {
                return txn.uncover(parent, name);
            }
            // what was left out is as before, and what was first staged since has not changed below
            // it; of all else the snapshot had another
            let left_out = dentry.stamp <= self.mark.stamp;
            let own = left_out || dentry.published > self.mark.serial;
            let rebased = Dentry {
                under,
                rev: self.head,
                published: if own {
                    dentry.published
                } else {
                    Serial::default()
                },
                ..dentry
            };
            txn.set_dentry(parent, name, Some(rebased))?;
        }
        Ok(())
    }

    /// What the new revision has at a path.
    fn published_type(&self, tree: &Tree, path: &RepoPath) -> Result<Under> {
        let row = tree.revisions.find(self.head, path)?;
        Ok(match row {
            None => Under::Nothing,
            Some(row) if row.entry.is_dir() => Under::Directory,
            Some(_) => Under::File,
        })
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
        let serial = node.rec.serial;
        let unchanged = node.rec.stamp <= self.mark.stamp && !node.rec.is_unsealed();
        let dir = node.rec.dir();
        let entries = node.entries.as_ref();
        let kept_entries = entries.is_some_and(|entries| !entries.is_empty());
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
        if unchanged && inherits && txn.tree.needs_no_node(parent, name, ino) {
            let vanished = Vanished::new(ino, parent, name.clone(), node);
            self.done.gone.push(vanished);
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
                file.raw = Raw::Unsynced;
                file.former = None;
                self.done.unstaged.extend(staged);
            }
        }
        let clean = unchanged && !kept_entries;
        let kept = Dentry {
            clean,
            under,
            published: serial,
            rev: self.head,
            ..dentry
        };
        txn.set_dentry(parent, name, Some(kept))
    }
}

impl Txn<'_> {
    /// As [`Txn::settle_origin`], without counting as a change.
    fn settle_origin_quietly(&mut self, ino: Ino) -> Result<()> {
        if self.is_back(ino)?
            && let Some(dir) = self.record_quietly(ino)?.dir_mut()
        {
            dir.origin = Origin::Inherit;
        }
        Ok(())
    }
}

impl Tree {
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
        self.revisions.retain(used);
    }
}
