//! After the machine stopped without a farewell: what was not synced is not trusted.
//!
//! The journal may be an older one, backing files and objects may be short, hold zeros, or be gone.
//! For each staged file whose bytes were not known to be on disk:
//!
//! | the journal says | and | then |
//! | --- | --- | --- |
//! | sealed | its objects hash to their names | they are the truth; raw bytes that were not synced go |
//! | sealed | they do not, but the raw bytes yield the same objects | those are there again |
//! | sealed | they do not, but the raw bytes were synced (the parameters have changed) | it is sealed again |
//! | sealed | they do not, but it is empty | it is sealed again |
//! | sealed | neither, but the objects are in the repository's storage | those are taken |
//! | sealed | nothing of that | it is in doubt |
//! | unsealed | its raw bytes were synced and not written to since | it is sealed as usual |
//! | unsealed | they were not | it is in doubt: nobody can tell what is missing |
//! | either, and in doubt | it had been published or sealed before it was changed | it is that again |
//!
//! A file in doubt shows what is left of it (or what it was before), is named by `status`, and keeps a
//! commit from being made until it is written again, removed, or accepted as it is. This runs before
//! anybody uses the stage.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use formats::{Content, Mtime, ObjectName};

use super::{Progress, Stage, StageError};
use crate::error::FsError;
use crate::journal::{Batch, inode_key, meta_key};
use crate::seal::{CancelToken, Generation, Known, RawHash, SealJob, Sealed, Source};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::channel::{Sender, unbounded};
use crate::sync::{Instant, Mutex, thread};
use crate::tree::{self, Body, Data, Raw};
use crate::types::Ino;

const BOOT: &str = "boot";
/// Files that are sealed again at a time, to compare.
const COMPARED_AT_ONCE: usize = 512;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// A sealed file whose objects are damaged, and whose raw bytes may be what they were made of.
struct Compared {
    ino: Ino,
    number: u64,
    content: Content,
}

impl Stage {
    /// Looks at what was not synced, if the machine was started since.
    pub(super) fn recover(&self, boot_id: &str, progress: &dyn Progress) -> Result<(), StageError> {
        let before: Option<String> = self.journal.meta(BOOT).map_err(FsError::from)?;
        if before.as_deref() == Some(boot_id) {
            return Ok(());
        }
        let is_new = before.is_none() && self.tree.read().nodes.len() == 1;
        if !is_new {
            // what is read may be of this boot, made again by a look that was killed: now it is on disk
            self.backing.sync_all()?;
            let same = self.distrust(progress)?;
            // nothing is looked at twice
            self.sync()?;
            self.vouch_for(&same)?;
        }
        if before.is_none() {
            self.sync_directories()?;
        }
        let mut batch = Batch::default();
        batch.put(meta_key(BOOT), &boot_id);
        self.journal.commit(batch).map_err(FsError::from)?;
        Ok(self.journal.sync().map_err(FsError::from)?)
    }

    /// A new stage's directories survive power loss: nobody syncs them later.
    fn sync_directories(&self) -> Result<(), StageError> {
        let own = ["", "backing", "objects", "objects/data"].map(|name| self.dir.join(name));
        let above = self.dir.parent().map(Path::to_owned);
        for dir in own.into_iter().chain(above) {
            let synced = File::open(&dir).and_then(|dir| dir.sync_all());
            synced.map_err(|source| StageError::Io { path: dir, source })?;
        }
        Ok(())
    }

    /// Judges all staged files; those whose objects were made again from their raw bytes.
    fn distrust(&self, progress: &dyn Progress) -> Result<HashSet<Ino>, FsError> {
        let unsound = self.unsound_objects(progress);
        let needed = self.tree.read().staged_objects();
        // one that nobody refers to would be taken for stored when equal bytes are sealed
        self.remove_objects_but(&needed);
        let compared = self.judge(&unsound)?;
        let same = self.seal_and_compare(&compared);
        for file in compared.iter().filter(|file| !same.contains(&file.ino)) {
            self.lose_objects(file.ino, &unsound)?;
        }
        self.judge_those_without_raw_bytes(&unsound)?;
        let doubtful = self
            .tree
            .read()
            .nodes
            .values()
            .filter(|n| n.rec.is_doubtful())
            .count();
        if doubtful > 0 {
            tracing::warn!(
                repository = %self.name,
                "the machine stopped before the bytes of {doubtful} file(s) were on disk; `prepub status` names them"
            );
        }
        Ok(same)
    }

    /// Raw bytes that hashed to what they should are synced by now, and so are the objects that were
    /// made of them. Until then a power loss may need what these files were before.
    fn vouch_for(&self, same: &HashSet<Ino>) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        for ino in same {
            if let Some(node) = tree.nodes.get_mut(ino)
                && let Body::File(file) = &mut node.rec.body
            {
                (file.raw, file.former) = (Raw::Synced, None);
                batch.put(inode_key(ino.0), &node.rec);
            }
        }
        Ok(self.journal.commit(batch)?)
    }

    /// Hashes all objects that were not synced; those that are not what their names say. Damaged ones
    /// are removed.
    fn unsound_objects(&self, progress: &dyn Progress) -> HashSet<ObjectName> {
        let mut names = HashSet::new();
        for file in self.tree.read().nodes.values().filter_map(|n| n.rec.file()) {
            let former = file.former.as_ref().map(|former| &former.data);
            for data in [&file.data].into_iter().chain(former) {
                if let Data::Staged {
                    sealed: Some(sealed),
                    ..
                } = data
                    && !self.seals.is_synced(sealed.at)
                {
                    names.extend(sealed.content.objects());
                }
            }
        }
        let names: Vec<ObjectName> = names.into_iter().collect();
        if names.is_empty() {
            return HashSet::new();
        }
        tracing::info!(
            repository = %self.name,
            "the machine was restarted: checking {} object(s) that had not been synced",
            names.len()
        );
        let next = AtomicUsize::new(0);
        let unsound = Mutex::new(HashSet::new());
        let told = Mutex::new(Instant::now());
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(name) = names.get(at) else {
                    return;
                };
                if !self.is_sound(name) {
                    unsound.lock().insert(*name);
                }
                if let Some(mut told) = told.try_lock()
                    && told.elapsed() >= PROGRESS_EVERY
                {
                    *told = Instant::now();
                    progress.rehashed(at as u64, names.len() as u64);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..self.feed.sealer().workers() {
                scope.spawn(work);
            }
            work();
        });
        progress.rehashed(names.len() as u64, names.len() as u64);
        unsound.into_inner()
    }

    fn is_sound(&self, name: &ObjectName) -> bool {
        match store::verify(&*self.objects, name) {
            Ok(_) => return true,
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(%error, object = %name, "damaged when the machine stopped");
                if let Err(error) = self.objects.delete(name) {
                    tracing::warn!(%error, object = %name, "cannot remove an object");
                }
            }
        }
        false
    }

    /// True if a file whose objects are not all sound here can do with those of the storage: equal
    /// bytes may have been published before. There, too, some may be damaged that an interrupted
    /// commit left. A storage that does not answer is asked again when the object is needed.
    fn is_in_storage(&self, content: &Content, unsound: &HashSet<ObjectName>) -> bool {
        let storage = self.repository.store();
        content
            .objects()
            .filter(|object| unsound.contains(object))
            .all(|object| {
                if matches!(self.objects.has(&object), Ok(true)) {
                    // it was made again
                    return true;
                }
                match storage.local_dir() {
                    Some(_) => store::verify(&**storage, &object).is_ok(),
                    None => !matches!(storage.has(&object), Ok(false)),
                }
            })
    }

    /// Decides what is to become of each staged file; those whose raw bytes have to be compared with
    /// their objects' names are returned.
    fn judge(&self, unsound: &HashSet<ObjectName>) -> Result<Vec<Compared>, FsError> {
        let mut tree = self.tree.write();
        let (mut batch, mut compared, mut gone) = (Batch::default(), Vec::new(), Vec::new());
        for (ino, node) in &mut tree.nodes {
            let rec = &mut node.rec;
            let Body::File(file) = &mut rec.body else {
                continue;
            };
            let Data::Staged { backing, sealed } = &mut file.data else {
                continue;
            };
            match sealed {
                None if *backing != 0 && (file.raw == Raw::Unsynced || file.former.is_some()) => {
                    let number = *backing;
                    if revert(file, &mut rec.mtime, unsound) {
                        gone.push(number);
                    } else {
                        file.raw = Raw::Doubtful;
                    }
                }
                None => continue,
                Some(sealed) if sealed.content.objects().all(|o| !unsound.contains(&o)) => {
                    if *backing != 0 && file.raw != Raw::Synced {
                        gone.push(std::mem::take(backing));
                    }
                    // what it was before is of no more use
                    file.former = None;
                }
                Some(sealed) if *backing != 0 => {
                    let content = sealed.content.clone();
                    compared.push(Compared {
                        ino: *ino,
                        number: *backing,
                        content,
                    });
                    continue;
                }
                // what is sealed again is nothing, and that is there
                Some(_) if file.size == 0 => (*sealed, file.former) = (None, None),
                Some(_) => continue,
            }
            batch.put(inode_key(ino.0), &node.rec);
        }
        self.journal.commit(batch)?;
        for number in gone {
            self.feed.remove_later(number);
        }
        Ok(compared)
    }

    /// Seals raw bytes that may be damaged; the files whose objects came out as recorded.
    fn seal_and_compare(&self, files: &[Compared]) -> HashSet<Ino> {
        let mut same = HashSet::new();
        for some in files.chunks(COMPARED_AT_ONCE) {
            let (done, results) = unbounded();
            for file in some {
                self.seal_apart(file, done.clone());
            }
            drop(done);
            let expected: HashMap<Ino, &Content> =
                some.iter().map(|file| (file.ino, &file.content)).collect();
            for (ino, sealed) in results {
                if expected
                    .get(&ino)
                    .is_some_and(|content| **content == sealed.content)
                {
                    same.insert(ino);
                }
            }
        }
        same
    }

    fn seal_apart(&self, file: &Compared, done: Sender<(Ino, Sealed)>) {
        let ino = file.ino;
        self.feed.sealer().submit(SealJob {
            id: self.feed.next_job(),
            source: Source::Path(self.backing.path(file.number)),
            size_hint: 0,
            params: self.params_now().seal,
            objects: Arc::clone(&self.objects),
            cancel: CancelToken::new(),
            generation: Generation::default(),
            not_before: Instant::now(),
            urgent: true,
            known: Arc::new(|_: &RawHash| None::<Content>) as Arc<dyn Known>,
            done: Box::new(move |result| {
                if let Ok(sealed) = result {
                    // the receiver waits for all senders to go
                    let _ = done.send((ino, sealed));
                }
            }),
        });
    }

    /// Sealing its raw bytes did not yield the objects it had. They are right if they were synced, and
    /// sealed by other parameters now; else they are not what they were, or it is what it was before.
    fn lose_objects(&self, ino: Ino, unsound: &HashSet<ObjectName>) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let Some(node) = tree.nodes.get_mut(&ino) else {
            return Ok(());
        };
        let rec = &mut node.rec;
        if let Body::File(file) = &mut rec.body {
            let number = file.data.backing().unwrap_or(0);
            let left = self.backing.stat(number)?.map_or(0, |m| m.len());
            if file.raw == Raw::Synced && left == file.size {
                file.data = Data::Staged {
                    backing: number,
                    sealed: None,
                };
            } else if let Data::Staged {
                backing,
                sealed: Some(sealed),
            } = &mut file.data
                && self.is_in_storage(&sealed.content, unsound)
            {
                *backing = 0;
                self.feed.remove_later(number);
            } else if revert(file, &mut rec.mtime, unsound) {
                self.feed.remove_later(number);
            } else if let Data::Staged { sealed, .. } = &mut file.data {
                *sealed = None;
                (file.size, file.raw) = (left, Raw::Doubtful);
            }
        }
        let mut batch = Batch::default();
        batch.put(inode_key(ino.0), &node.rec);
        Ok(self.journal.commit(batch)?)
    }

    /// Files that have their bytes in objects only, some of which are neither sound nor there again.
    fn judge_those_without_raw_bytes(&self, unsound: &HashSet<ObjectName>) -> Result<(), FsError> {
        let mut tree = self.tree.write();
        let mut batch = Batch::default();
        for (ino, node) in &mut tree.nodes {
            let rec = &mut node.rec;
            if let Body::File(file) = &mut rec.body
                && let Data::Staged {
                    backing: 0,
                    sealed: Some(sealed),
                } = &file.data
                && file.size > 0
                && !self.is_in_storage(&sealed.content, unsound)
            {
                if !revert(file, &mut rec.mtime, unsound) {
                    file.raw = Raw::Doubtful;
                }
                batch.put(inode_key(ino.0), &node.rec);
            }
        }
        Ok(self.journal.commit(batch)?)
    }
}

/// A file goes back to what it was before it was changed; false if that is not there, either.
fn revert(file: &mut tree::File, mtime: &mut Mtime, unsound: &HashSet<ObjectName>) -> bool {
    let Some(former) = file.former.take() else {
        return false;
    };
    if former
        .data
        .sealed_objects()
        .any(|object| unsound.contains(&object))
    {
        return false;
    }
    *mtime = former.mtime;
    file.size = former.size;
    file.data = former.data;
    file.mtime_of_backing = false;
    file.raw = Raw::Reverted;
    true
}
