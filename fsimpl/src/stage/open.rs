//! Opening a stage and closing it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};

use formats::Hash;
use store::content::ContentLimits;
use store::{ContentCache, DirStore, Durability, ObjectStore};

use super::feed::Feed;
use super::flush::Flush;
use super::readers::Readers;
use super::shed::Shedding;
use super::{
    FrozenMark, KnownContent, Notices, Pins, Progress, Seals, Stage, StageConfig, StageError, Usage,
};
use crate::backing::Backing;
use crate::error::FsError;
use crate::handle::OpenTable;
use crate::journal::{Batch, Journal, inode_key, meta_key};
use crate::lower::Revisions;
use crate::sync::{Mutex, RwLock};
use crate::tree::{Body, Dir, Origin, Raw, Record, RevId, Serial, Tree, mtime_of, restore};

const HEAD: &str = "head";
const ROOTS: &str = "roots";
const OURS: &str = "ours";
const REPOSITORY: &str = "repository";

impl Stage {
    /// Opens or makes a stage. What was staged before is there again; files that were not sealed
    /// are queued. After an unclean end of the machine, what was not synced is looked at first.
    ///
    /// # Errors
    /// When the directory, the journal or (for a new stage) the published root cannot be used.
    pub fn open(config: StageConfig, progress: &dyn Progress) -> Result<Arc<Self>, StageError> {
        let dir = config.dir;
        let io = |path: &Path, source| StageError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(&dir).map_err(|e| io(&dir, e))?;
        let journal = Journal::open(&dir.join("journal"), &config.space).map_err(FsError::from)?;
        // what is read now must not be older after a power loss: files are removed by it
        journal.sync().map_err(FsError::from)?;
        require_same_repository(&journal, &dir, &config.name)?;
        let backing = Backing::open(&dir.join("backing"))?;
        let objects = open_objects(&dir.join("objects"))?;
        let limits = ContentLimits {
            disk_bytes: config.content_cache_bytes,
            ..ContentLimits::default()
        };
        let store = Arc::clone(config.repository.store());
        let content = ContentCache::new(store, dir.join("cache").join("content"), limits)
            .map_err(StageError::Objects)?;
        let revisions = revisions(&journal, &config.repository, &config.root)?;
        let now = (config.clock)();
        let mut tree = restore(revisions, &journal, &backing, |revisions| {
            root_record(revisions, now)
        })?;
        load_marks(&mut tree, &journal)?;
        tree.drop_needless_whiteouts(&journal)?;
        let seals = Seals::restore(&tree, &journal)?;
        let notices = Notices::start(&config.name).map_err(|e| io(&dir, e))?;
        let stage = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            name: config.name,
            dir,
            repository: config.repository,
            params: config.params,
            clock: config.clock,
            policy: RwLock::new(config.policy),
            counted: Mutex::default(),
            tree: RwLock::new(tree),
            journal,
            backing,
            objects,
            content,
            open: OpenTable::default(),
            readers: Readers::default(),
            feed: Feed::new(config.sealer),
            known: Arc::new(KnownContent::default()),
            seals,
            flush: Flush::new(config.flush_after),
            pins: Pins::default(),
            notices,
            space: config.space,
            usage: Usage::default(),
            shedding: Shedding::default(),
            freezing: Mutex::new(()),
            moving: Mutex::new(()),
            held_params: Mutex::new(None),
        });
        stage.write_meta()?;
        stage.recover(&config.boot_id, progress)?;
        let came = |file| stage.usage.came(file);
        stage.tree.read().staged_files().for_each(came);
        stage.queue_unsealed();
        stage.flush.start(&stage).map_err(|e| io(&stage.dir, e))?;
        stage.feed.start(&stage).map_err(|e| io(&stage.dir, e))?;
        stage.offer_room();
        Ok(stage)
    }

    /// Stops sealing and makes everything recorded so far survive power loss. Staged changes stay
    /// for the next [`Stage::open`].
    ///
    /// # Errors
    /// When the system reports that something was lost.
    pub fn close(&self) -> Result<(), FsError> {
        self.feed.stop();
        self.flush.stop();
        self.all_closed();
        self.backing.sync_all()?;
        self.record_resting()?;
        self.sync_sealed()?;
        Ok(self.journal.sync()?)
    }

    /// The mount is gone: what was open in it is closed, also where the kernel let go before it said
    /// so of each file.
    pub fn all_closed(&self) {
        for inode in self.open.all() {
            inode.state.lock().writers.clear();
            self.settle(&inode);
        }
    }

    /// Times and sizes of unsealed files are asked of their backing files after a crash; a clean end
    /// writes them down, and vouches for the bytes, which were synced before. Of sealed ones that a
    /// later power loss could take back behind this it does, too.
    fn record_resting(&self) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        for (ino, node) in &mut tree.nodes {
            let named = !node.names.is_empty();
            // of one that is still open nobody knows whether it was written to since
            let rests = !self.open.is_open(*ino);
            let unsealed = node.rec.is_unsealed();
            if let Body::File(file) = &mut node.rec.body
                && named
            {
                let raw = file.data.backing().is_some() && file.raw == Raw::Unsynced;
                let vouch = rests && raw && (unsealed || file.former.is_some());
                if !vouch && !file.mtime_of_backing {
                    continue;
                }
                file.mtime_of_backing = false;
                if vouch {
                    (file.raw, file.former) = (Raw::Synced, None);
                }
                batch.put(inode_key(ino.0), &node.rec);
            }
        }
        Ok(self.journal.commit(batch)?)
    }

    /// The revisions in use, the head, and the rest that is not the tree.
    pub(super) fn meta_batch(tree: &Tree, batch: &mut Batch) {
        batch.put(meta_key(ROOTS), &tree.revisions.roots());
        batch.put(meta_key(OURS), &tree.revisions.ours());
        batch.put(meta_key(HEAD), &tree.revisions.head);
    }

    fn write_meta(&self) -> Result<(), StageError> {
        let tree = self.tree.read();
        let known: Option<Vec<(RevId, Hash)>> = self.journal.meta(ROOTS).map_err(FsError::from)?;
        let head: Option<RevId> = self.journal.meta(HEAD).map_err(FsError::from)?;
        if known == Some(tree.revisions.roots()) && head == Some(tree.revisions.head) {
            // a stage can be opened on a full disk, too
            return Ok(());
        }
        let mut batch = Batch::default();
        Self::meta_batch(&tree, &mut batch);
        batch.put(meta_key(REPOSITORY), &self.name);
        self.journal.commit(batch).map_err(FsError::from)?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.feed.stop();
        self.flush.stop();
    }
}

fn require_same_repository(journal: &Journal, dir: &Path, wanted: &str) -> Result<(), StageError> {
    match journal.meta::<String>(REPOSITORY).map_err(FsError::from)? {
        Some(found) if found != wanted => Err(StageError::OtherRepository {
            path: dir.to_owned(),
            found,
            wanted: wanted.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn open_objects(dir: &Path) -> Result<Arc<dyn ObjectStore>, StageError> {
    // one that was only half made is finished
    let store = DirStore::create(dir, Durability::Batch).map_err(StageError::Objects)?;
    store.clean_leftovers().map_err(StageError::Objects)?;
    Ok(Arc::new(store))
}

fn revisions(
    journal: &Journal,
    repository: &Arc<store::Repository>,
    root: &Hash,
) -> Result<Revisions, StageError> {
    let roots: Option<Vec<(RevId, Hash)>> = journal.meta(ROOTS).map_err(FsError::from)?;
    let ours: Option<Vec<(RevId, RevId)>> = journal.meta(OURS).map_err(FsError::from)?;
    let head: Option<RevId> = journal.meta(HEAD).map_err(FsError::from)?;
    let repository = Arc::clone(repository);
    Ok(match (roots, head) {
        (Some(roots), Some(head)) => {
            Revisions::new(repository, roots, ours.unwrap_or_default(), head)
        }
        _ => Revisions::new(repository, [(RevId(1), *root)], [], RevId(1)),
    })
}

/// The root as it is published.
fn root_record(revisions: &Revisions, now: crate::types::Time) -> Result<Record, FsError> {
    let root = formats::RepoPath::root();
    Ok(match revisions.find(revisions.head, &root)? {
        Some(row) => Record::from_entry(&row.entry, root, 0, Serial::ROOT),
        None => Record {
            body: Body::Directory(Box::new(Dir {
                origin: Origin::Inherit,
                ino_path: root,
                explicit: false,
                subdirs: 0,
            })),
            perm: 0o755,
            uid: 0,
            gid: 0,
            mtime: mtime_of(now),
            ctime: now,
            xattrs: None,
            stamp: 0,
            atime: None,
            serial: Serial::ROOT,
        },
    })
}

fn load_marks(tree: &mut Tree, journal: &Journal) -> Result<(), StageError> {
    let mut marks: Vec<FrozenMark> = Vec::new();
    journal.for_each(b'f', |_, mark: FrozenMark| {
        marks.push(mark);
        Ok::<_, FsError>(())
    })?;
    marks.sort_by_key(|mark| mark.id);
    for mark in &marks {
        tree.tick = tree.tick.max(mark.stamp);
        tree.last_serial = tree.last_serial.max(mark.serial);
    }
    tree.frozen = marks;
    Ok(())
}

impl Tree {
    fn staged_files(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let files = self.nodes.values().filter_map(|node| node.rec.file());
        files.filter_map(crate::tree::File::staged)
    }
}
