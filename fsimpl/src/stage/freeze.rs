//! Making a snapshot.
//!
//! Its instant is when no file below the targets is open for writing (or such files are left out):
//! the tree is then walked with its lock held. Files that are not sealed yet are waited for; a
//! writer who comes meanwhile leaves the snapshot a copy. The snapshot stays until it is retired or
//! thawed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use formats::{Change, ChangeSet, Kind, RepoPath};

use super::bases::Bases;
use super::walk::{Item, Unsealed, Walk, What};
use super::{FreezeError, Frozen, OpenFile, OpenFiles, Progress, SealFailure, Stage, StageError};
use crate::error::FsError;
use crate::handle::OpenInode;
use crate::journal::{Batch, frozen_key};
use crate::lower::Revisions;
use crate::sync::Instant;
use crate::tree::{SealedData, Tree};
use crate::types::Ino;

/// How often a waiter is told how far sealing is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// How soon a freeze that waits for writers gives way to somebody else.
const GIVE_WAY_AFTER: Duration = Duration::from_millis(50);

/// A snapshot whose files may not be sealed yet.
struct Snapshot {
    id: u64,
    items: Vec<Item>,
    /// Those that the items speak of: the head may move on before they are looked up.
    revisions: Revisions,
    unsealed: Vec<Unsealed>,
    skipped: Vec<OpenFile>,
}

impl Stage {
    /// Makes a snapshot of what is staged at and below the targets. Writers may go on, and other
    /// snapshots may be made, published and retired meanwhile, as long as they have nothing to do
    /// with this one.
    ///
    /// # Errors
    /// See [`FreezeError`]; the stage is then as it was.
    pub fn freeze(
        &self,
        targets: &[RepoPath],
        open_files: OpenFiles,
        progress: &dyn Progress,
    ) -> Result<Frozen, FreezeError> {
        let _one = self.freezing.lock();
        let targets = sorted(targets)?;
        let _held = self.hold_params();
        self.unseal_stale(&targets, progress)?;
        let snapshot = self.snapshot(&targets, open_files, progress)?;
        let id = snapshot.id;
        let skipped = snapshot.skipped.clone();
        let made = self
            .seal_snapshot(&snapshot.unsealed, progress)
            .and_then(|()| self.assemble(snapshot.items, &snapshot.revisions))
            .and_then(|changes| self.keep_mark(id).map(|()| changes));
        self.unpin_all();
        match made {
            Ok(changes) => Ok(Frozen {
                id,
                change_set: ChangeSet {
                    repo: self.name.clone(),
                    targets,
                    changes,
                },
                objects: Arc::clone(&self.objects),
                skipped,
            }),
            Err(error) => {
                if let Err(error) = self.unfreeze(id) {
                    tracing::warn!(%error, "a snapshot that failed left traces");
                }
                Err(error)
            }
        }
    }

    /// What a freeze of this path would hand out now, without waiting for anything: files that are
    /// not sealed have a null hash.
    ///
    /// # Errors
    /// [`FreezeError::NotFound`], and those of reading the published tree.
    pub fn changes(&self, target: &RepoPath) -> Result<ChangeSet, FreezeError> {
        let size_of = |ino| self.dirty_size(ino);
        let (items, revisions) = {
            let tree = self.tree.read();
            let mut walk = Walk::new(&tree, BTreeSet::new(), &size_of);
            walk.target(target)?;
            (walk.items, tree.revisions.clone())
        };
        let mut bases = Bases::new(&revisions, self.params_now().hardlink_groups);
        let mut changes = Vec::with_capacity(items.len());
        for item in items {
            changes.extend(bases.change(item)?);
        }
        Ok(ChangeSet {
            repo: self.name.clone(),
            targets: vec![target.clone()],
            changes,
        })
    }

    /// The snapshots that were handed out and neither retired nor thawed.
    #[must_use]
    pub fn frozen(&self) -> Vec<u64> {
        let tree = self.tree.read();
        tree.frozen.iter().map(|mark| mark.id).collect()
    }

    /// The commit failed: everything is as if no snapshot had been made.
    ///
    /// # Errors
    /// [`StageError::UnknownSnapshot`], or when the journal cannot be written.
    pub fn thaw(&self, id: u64) -> Result<(), StageError> {
        if !self.frozen().contains(&id) {
            return Err(StageError::UnknownSnapshot(id));
        }
        Ok(self.unfreeze(id)?)
    }

    fn unfreeze(&self, id: u64) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        batch.remove(frozen_key(id));
        self.journal.commit(batch)?;
        tree.frozen.retain(|mark| mark.id != id);
        tree.drop_needless_whiteouts(&self.journal)
    }

    fn snapshot(
        &self,
        targets: &[RepoPath],
        open_files: OpenFiles,
        progress: &dyn Progress,
    ) -> Result<Snapshot, FreezeError> {
        let deadline = match open_files {
            OpenFiles::Wait(time) => Instant::now() + time,
            OpenFiles::Skip | OpenFiles::Fail => Instant::now(),
        };
        let waiting = self.open.wait_for_writers();
        loop {
            let seen = waiting.gone();
            let made = self.open.none_half_made();
            let mut tree = self.tree.write();
            let open = self.open_below(&tree, targets);
            if open.is_empty() || open_files == OpenFiles::Skip {
                return self.take(&mut tree, targets, open);
            }
            drop((tree, made));
            let in_the_way = || {
                let files = open.iter().map(|(_, file)| file.clone());
                FreezeError::OpenFiles(files.collect())
            };
            if open_files == OpenFiles::Fail {
                return Err(in_the_way());
            }
            while !waiting.for_another(seen, deadline.min(Instant::now() + GIVE_WAY_AFTER)) {
                if Instant::now() >= deadline || progress.gives_way() {
                    return Err(in_the_way());
                }
            }
        }
    }

    fn take(
        &self,
        tree: &mut Tree,
        targets: &[RepoPath],
        open: Vec<(Ino, OpenFile)>,
    ) -> Result<Snapshot, FreezeError> {
        tree.tick += 1;
        let size_of = |_| None;
        let open_nodes = open.iter().filter_map(|(ino, _)| tree.node(*ino));
        let left_out = open_nodes.map(|node| node.rec.serial).collect();
        let mut walk = Walk::new(tree, left_out, &size_of);
        for target in targets {
            walk.target(target)?;
        }
        let Walk {
            mut items,
            unsealed,
            doubtful,
            mut mark,
            ..
        } = walk;
        if !doubtful.is_empty() {
            return Err(FreezeError::Doubtful(doubtful));
        }
        mark.targets = targets.to_vec();
        mark.sources = items.iter().filter_map(Item::source).cloned().collect();
        if let Some(other) = tree.frozen.iter().find(|other| other.is_entangled(&mark)) {
            return Err(FreezeError::Frozen(other.id));
        }
        if targets.len() > 1 {
            items.sort_by(|a, b| a.path.cmp(&b.path));
            items.dedup_by(|a, b| a.path == b.path);
        }
        for file in &unsealed {
            self.pins
                .add(file.number, (file.ino, file.generation), file.size);
        }
        let id = mark.id;
        tree.frozen.push(mark);
        // what changes from now on has a later tick
        tree.tick += 1;
        // a published file that is open but unchanged is published as it is
        let changed = |ino| tree.node(ino).is_some_and(|node| tree.is_changed(node));
        let skipped = open.into_iter().filter(|(ino, _)| changed(*ino));
        Ok(Snapshot {
            id,
            items,
            revisions: tree.revisions.clone(),
            unsealed,
            skipped: skipped.map(|(_, file)| file).collect(),
        })
    }

    /// Files at or below the targets that are open for writing.
    fn open_below(&self, tree: &Tree, targets: &[RepoPath]) -> Vec<(Ino, OpenFile)> {
        let mut open = Vec::new();
        for inode in self.open.all() {
            let Some(pid) = writer_of(&inode) else {
                continue;
            };
            let below = |path: &RepoPath| targets.iter().any(|target| path.is_within(target));
            let paths = tree.paths_of(inode.ino);
            if let Some(path) = paths.into_iter().find(below) {
                open.push((inode.ino, OpenFile::new(path, pid)));
            }
        }
        open.sort_by(|a, b| a.1.path.cmp(&b.1.path));
        open
    }

    pub(super) fn dirty_size(&self, ino: Ino) -> Option<u64> {
        let inode = self.open.inode(ino)?;
        let state = inode.state.lock();
        state.dirty.then_some(state.size)
    }

    /// Waits until all files of the snapshot are sealed.
    fn seal_snapshot(
        &self,
        unsealed: &[Unsealed],
        progress: &dyn Progress,
    ) -> Result<(), FreezeError> {
        if unsealed.is_empty() {
            return Ok(());
        }
        let due: Vec<(Ino, u32)> = unsealed.iter().map(|u| (u.ino, u.generation)).collect();
        self.feed.urge(&due);
        loop {
            let seen = self.feed.progress();
            let (files, bytes) = self.pins.left();
            progress.unsealed(files, bytes);
            if files == 0 {
                return self.seal_failures();
            }
            self.feed
                .wait_progress(seen, Instant::now() + PROGRESS_EVERY);
        }
    }

    fn seal_failures(&self) -> Result<(), FreezeError> {
        let tree = self.tree.read();
        let pins = self.pins.0.lock();
        let mut failures: Vec<SealFailure> = pins
            .all
            .values()
            .filter_map(|pin| {
                let fault = pin.outcome.as_ref()?.as_ref().err()?;
                let path = tree.view_path(pin.ino).unwrap_or_default();
                Some(SealFailure::new(path, fault))
            })
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        failures.sort_by(|a, b| a.path.cmp(&b.path));
        Err(FreezeError::Unsealed(failures))
    }

    fn assemble(
        &self,
        items: Vec<Item>,
        revisions: &Revisions,
    ) -> Result<Vec<Change>, FreezeError> {
        let hardlink_groups = self.params_now().hardlink_groups;
        let mut changes = Vec::with_capacity(items.len());
        let mut bases = Bases::new(revisions, hardlink_groups);
        for mut item in items {
            self.fill_in(&mut item);
            changes.extend(bases.change(item)?);
        }
        Ok(changes)
    }

    fn fill_in(&self, item: &mut Item) {
        let What::Put {
            entry,
            unsealed: Some(number),
            ..
        } = &mut item.what
        else {
            return;
        };
        let pins = self.pins.0.lock();
        let outcome = pins.all.get(number).and_then(|pin| pin.outcome.as_ref());
        if let (Kind::Regular(file), Some(Ok(sealed))) = (&mut entry.kind, outcome) {
            let SealedData {
                content,
                compression,
                ..
            } = sealed;
            (file.content, file.compression) = (content.clone(), *compression);
        }
    }

    fn keep_mark(&self, id: u64) -> Result<(), FreezeError> {
        let tree = self.tree.read();
        let mut batch = Batch::default();
        if let Some(mark) = tree.frozen.iter().find(|mark| mark.id == id) {
            batch.put(frozen_key(mark.id), mark);
        }
        self.journal.commit(batch).map_err(FsError::from)?;
        drop(tree);
        // what is going to be published must not be forgotten by the stage: it would be staged again
        // as it was before
        self.journal.sync().map_err(FsError::from)?;
        Ok(())
    }
}

fn writer_of(inode: &OpenInode) -> Option<u32> {
    let state = inode.state.lock();
    match state.writers.first() {
        Some((_, pid)) => Some(*pid),
        None => state.dirty.then_some(0),
    }
}

fn sorted(targets: &[RepoPath]) -> Result<Vec<RepoPath>, FreezeError> {
    let mut targets = targets.to_vec();
    targets.sort();
    targets.dedup();
    // in this order, what lies within a path follows it
    for pair in targets.windows(2) {
        if pair[1].is_within(&pair[0]) {
            return Err(FreezeError::Nested(pair[0].clone(), pair[1].clone()));
        }
    }
    Ok(targets)
}

impl Tree {
    /// Everywhere an inode is seen.
    pub(crate) fn paths_of(&self, ino: Ino) -> Vec<RepoPath> {
        match self.node(ino) {
            Some(node) => node
                .names
                .iter()
                .filter_map(|(parent, name)| Some(self.view_path(parent)?.join(name)))
                .collect(),
            None => self.view_path(ino).into_iter().collect(),
        }
    }
}
