//! Opening a stage, sealing its files, and closing it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Weak};

use formats::{Hash, ObjectName};
use parking_lot::{Mutex, RwLock};
use store::content::ContentLimits;
use store::{ContentCache, DirStore, Durability, ObjectStore};

use super::feed::Feed;
use super::{
    Dropped, FrozenMark, KnownContent, Notices, Pins, Stage, StageConfig, StageError, Usage,
};
use crate::backing::Backing;
use crate::error::FsError;
use crate::handle::OpenTable;
use crate::journal::{Batch, Journal, frozen_key, inode_key, meta_key};
use crate::lower::Revisions;
use crate::tree::{Body, Data, Dir, Origin, Record, RevId, Tree, mtime_of, restore};

const HEAD: &str = "head";
const ROOTS: &str = "roots";
const REPOSITORY: &str = "repository";
const BOOT: &str = "boot";
/// Changes with every start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

impl Stage {
    /// Opens or makes a stage. What was staged before is there again; files that were not sealed
    /// are queued.
    ///
    /// # Errors
    /// When the directory, the journal or (for a new stage) the published root cannot be used.
    pub fn open(config: StageConfig) -> Result<Arc<Self>, StageError> {
        let dir = config.dir;
        let io = |path: &Path, source| StageError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(&dir).map_err(|e| io(&dir, e))?;
        let journal = Journal::open(&dir.join("journal"), &config.space).map_err(FsError::from)?;
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
        load_mark(&mut tree, &journal)?;
        tree.drop_needless_whiteouts(&journal)?;
        let notices = Notices::start(&config.name).map_err(|e| io(&dir, e))?;
        let usage = Usage::of(tree.staged_files());
        let stage = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            name: config.name,
            dir,
            repository: config.repository,
            params: config.params,
            clock: config.clock,
            settle: config.settle,
            quota_bytes: config.quota_bytes,
            tree: RwLock::new(tree),
            journal,
            backing,
            objects,
            content,
            open: OpenTable::default(),
            feed: Feed::new(config.sealer),
            known: Arc::new(KnownContent::default()),
            pins: Pins::default(),
            notices,
            space: config.space,
            backing_max_bytes: config.backing_max_bytes,
            usage,
            dropped: Mutex::new(Dropped::default()),
            freezing: Mutex::new(()),
        });
        stage.write_meta()?;
        stage.distrust_after_a_crash()?;
        stage.queue_unsealed();
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
        for inode in self.open.all() {
            inode.state.lock().writers.clear();
            self.settle(&inode);
        }
        self.record_times()?;
        self.sync()
    }

    /// Times of unsealed files are asked of their backing files after a crash; a clean end writes
    /// them down.
    fn record_times(&self) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        for (ino, node) in &mut tree.nodes {
            let named = !node.names.is_empty();
            if let Body::File(file) = &mut node.rec.body
                && file.mtime_of_backing
                && named
            {
                file.mtime_of_backing = false;
                batch.put(inode_key(ino.0), &node.rec);
            }
        }
        Ok(self.journal.commit(batch)?)
    }

    /// The revisions in use, the head, and the rest that is not the tree.
    pub(super) fn meta_batch(tree: &Tree, batch: &mut Batch) {
        batch.put(meta_key(ROOTS), &tree.revisions.roots());
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

    /// After a crash of the machine, objects and bytes that were not synced may be damaged: what
    /// does not hash to its name is sealed again.
    fn distrust_after_a_crash(&self) -> Result<(), StageError> {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let before: Option<String> = self.journal.meta(BOOT).map_err(FsError::from)?;
        if before.as_ref() == Some(&boot) {
            return Ok(());
        }
        if before.is_some() {
            self.verify_sealed()?;
        }
        let mut batch = Batch::default();
        batch.put(meta_key(BOOT), &boot);
        self.journal.commit(batch).map_err(FsError::from)?;
        Ok(())
    }

    fn verify_sealed(&self) -> Result<(), StageError> {
        tracing::info!(repository = %self.name, "the machine was restarted: checking sealed files");
        let mut sound: HashSet<ObjectName> = HashSet::new();
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        for (ino, node) in &mut tree.nodes {
            let Body::File(file) = &mut node.rec.body else {
                continue;
            };
            let Data::Staged {
                backing,
                sealed: Some(sealed),
            } = &file.data
            else {
                continue;
            };
            let whole = sealed.content.objects().all(|object| {
                sound.contains(&object) || {
                    let good = store::verify(&*self.objects, &object).is_ok();
                    good && sound.insert(object)
                }
            });
            if whole {
                continue;
            }
            let size = self.backing.stat(*backing)?.map_or(0, |m| m.len());
            if *backing == 0 || size != file.size {
                let fault = "its bytes were lost when the machine stopped";
                node.run.seal_error = Some(Box::new(fault.into()));
            }
            file.data = Data::Staged {
                backing: *backing,
                sealed: None,
            };
            batch.put(inode_key(ino.0), &node.rec);
        }
        self.journal.commit(batch).map_err(FsError::from)?;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.feed.stop();
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
    let store = match DirStore::open(dir, Durability::Batch) {
        Ok(store) => store,
        Err(_) => DirStore::create(dir, Durability::Batch).map_err(StageError::Objects)?,
    };
    store.clean_leftovers().map_err(StageError::Objects)?;
    Ok(Arc::new(store))
}

fn revisions(
    journal: &Journal,
    repository: &Arc<store::Repository>,
    root: &Hash,
) -> Result<Revisions, StageError> {
    let roots: Option<Vec<(RevId, Hash)>> = journal.meta(ROOTS).map_err(FsError::from)?;
    let head: Option<RevId> = journal.meta(HEAD).map_err(FsError::from)?;
    let repository = Arc::clone(repository);
    Ok(match (roots, head) {
        (Some(roots), Some(head)) => Revisions::new(repository, roots, head),
        _ => Revisions::new(repository, [(RevId(1), *root)], RevId(1)),
    })
}

/// The root as it is published.
fn root_record(revisions: &Revisions, now: crate::types::Time) -> Result<Record, FsError> {
    let root = formats::RepoPath::root();
    Ok(match revisions.find(revisions.head, &root)? {
        Some(row) => Record::from_entry(&row.entry, root, 0),
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
        },
    })
}

fn load_mark(tree: &mut Tree, journal: &Journal) -> Result<(), StageError> {
    let mut marks: Vec<FrozenMark> = Vec::new();
    journal.for_each(b'f', |_, mark: FrozenMark| {
        marks.push(mark);
        Ok::<_, FsError>(())
    })?;
    marks.sort_by_key(|mark| mark.id);
    tree.frozen = marks.pop();
    tree.tick = tree
        .tick
        .max(tree.frozen.as_ref().map_or(0, |mark| mark.stamp));
    let mut stale = Batch::default();
    for mark in marks {
        stale.remove(frozen_key(mark.id));
    }
    journal.commit(stale).map_err(FsError::from)?;
    Ok(())
}

impl Tree {
    fn staged_files(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let files = self.nodes.values().filter_map(|node| node.rec.file());
        files.filter_map(crate::tree::File::staged)
    }
}
