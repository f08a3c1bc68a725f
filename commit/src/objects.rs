//! The objects of a change set, brought into the publisher's storage before anything is locked.
//!
//! An object that is there already is not looked at again; one that is nowhere stops the commit.
//! Nothing here syncs: a publisher does that once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use formats::changeset::{ChangeSet, Op};
use formats::object::ObjectName;
use formats::path::RepoPath;
use store::{ObjectStore, StoreError, Stored};

use crate::publish::{Progress, Step};

/// Threads that link or copy objects: the work is system calls, a few overlap well.
const WORKERS_MAX: usize = 8;
/// Objects that a thread takes at a time, and after which progress is told. Neighbours in the sorted
/// list share a directory, which the threads then do not take from one another.
const TAKEN_AT_ONCE: usize = 256;
/// The same where each object is waited for, and threads are many.
const TAKEN_OF_REMOTE: usize = 4;
/// What a filesystem gives out at a time.
const BLOCK_BYTES: u64 = 4096;

/// Why the objects could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// A file whose bytes are not sealed.
    #[error("{0} has no content yet; wait until it is sealed, and try again")]
    Unsealed(RepoPath),
    /// An object that neither the stage nor the storage has.
    #[error(
        "{path} needs object {name}, which is neither staged nor published any more; write the file again"
    )]
    Missing {
        /// A file that needs it.
        path: RepoPath,
        /// The object.
        name: ObjectName,
    },
    /// The storage has no room for them; nothing was copied.
    #[error("{objects} new objects need {needed} bytes in {place}, which has room for {available}")]
    NoRoom {
        /// How many are new.
        objects: u64,
        /// Bytes they take.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// The storage.
        place: String,
    },
    /// An object could not be stored.
    #[error("cannot store object {name}, which {path} needs")]
    Store {
        /// A file that needs it.
        path: RepoPath,
        /// The object.
        name: ObjectName,
        /// Why.
        source: StoreError,
    },
}

/// What storing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredObjects {
    pub(crate) new: u64,
    pub(crate) reused: u64,
    /// Bytes of the new ones, as stored.
    pub(crate) bytes: u64,
}

/// Every object that the change set's files need, once, and the change that needs it.
pub(crate) fn needed(change_set: &ChangeSet) -> Result<Vec<(ObjectName, usize)>, ObjectsError> {
    let mut names = Vec::new();
    for (at, change) in change_set.changes.iter().enumerate() {
        let Op::Put { entry, .. } = &change.op else {
            continue;
        };
        let Some(file) = entry.regular() else {
            continue;
        };
        for name in file.content.objects() {
            if name.hash.is_null() {
                return Err(ObjectsError::Unsealed(change.path.clone()));
            }
            if !file.external {
                names.push((name, at));
            }
        }
    }
    names.sort_unstable();
    names.dedup_by_key(|(name, _)| *name);
    Ok(names)
}

/// Brings the objects that `change_set` needs, its `names`, from `staged` into `storage`.
pub(crate) fn store_all(
    change_set: &ChangeSet,
    names: &[(ObjectName, usize)],
    staged: &dyn ObjectStore,
    storage: &dyn ObjectStore,
    progress: &dyn Progress,
) -> Result<StoredObjects, ObjectsError> {
    require_room(names, change_set, staged, storage)?;
    let total = names.len() as u64;
    let (workers, taken) = crew(names.len(), storage);
    let next = AtomicUsize::new(0);
    let (new, reused, bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let failed: Mutex<Option<ObjectsError>> = Mutex::new(None);
    let fail = |(name, change): (ObjectName, usize), source: StoreError| {
        stop.store(true, Ordering::Relaxed);
        let path = change_set.changes[change].path.clone();
        let error = if source.is_not_found() {
            ObjectsError::Missing { path, name }
        } else {
            ObjectsError::Store { path, name, source }
        };
        // the first failure is the one that is told
        let mut failed = failed.lock().unwrap_or_else(|e| e.into_inner());
        failed.get_or_insert(error);
    };
    let work = || {
        loop {
            let at = next.fetch_add(taken, Ordering::Relaxed);
            if at >= names.len() {
                return;
            }
            for needed in &names[at..names.len().min(at + taken)] {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match store_one(&needed.0, staged, storage) {
                    Ok(Some(size)) => {
                        new.fetch_add(1, Ordering::Relaxed);
                        bytes.fetch_add(size, Ordering::Relaxed);
                    }
                    Ok(None) => {
                        reused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(source) => return fail(*needed, source),
                }
            }
            progress.step(Step::Store, at as u64, total);
        }
    };
    if workers <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    progress.step(Step::Store, total, total);
    if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    Ok(StoredObjects {
        new: new.into_inner(),
        reused: reused.into_inner(),
        bytes: bytes.into_inner(),
    })
}

/// How many threads store so many objects, and how many of them each takes at a time.
fn crew(objects: usize, storage: &dyn ObjectStore) -> (usize, usize) {
    let (workers, taken) = match storage.writers() {
        Some(writers) => (writers, TAKEN_OF_REMOTE),
        None => {
            let processors = std::thread::available_parallelism().map_or(2, usize::from);
            (processors.min(WORKERS_MAX), TAKEN_AT_ONCE)
        }
    };
    (workers.min(objects.div_ceil(taken)), taken)
}

/// Refuses what cannot fit before anything is copied. On the stage's own filesystem objects are
/// linked, and take no room.
fn require_room(
    names: &[(ObjectName, usize)],
    change_set: &ChangeSet,
    staged: &dyn ObjectStore,
    storage: &dyn ObjectStore,
) -> Result<(), ObjectsError> {
    // where that cannot be told, storing them will tell
    let Ok(Some(available)) = storage.available_bytes() else {
        return Ok(());
    };
    if store::same_device(staged, storage) {
        return Ok(());
    }
    let (mut objects, mut needed) = (0_u64, 0_u64);
    for (name, change) in names {
        let failed = |source| ObjectsError::Store {
            path: change_set.changes[*change].path.clone(),
            name: *name,
            source,
        };
        if storage.has(name).map_err(failed)? {
            continue;
        }
        let bytes = staged.stored_size(name).map_err(failed)?;
        objects += 1;
        needed += bytes.unwrap_or_default().next_multiple_of(BLOCK_BYTES);
    }
    if needed <= available {
        return Ok(());
    }
    Err(ObjectsError::NoRoom {
        objects,
        needed,
        available,
        place: storage
            .local_dir()
            .map_or_else(|| format!("{storage:?}"), |dir| dir.display().to_string()),
    })
}

/// The stored size of an object that is new; none for one that was there.
fn store_one(
    name: &ObjectName,
    staged: &dyn ObjectStore,
    storage: &dyn ObjectStore,
) -> Result<Option<u64>, StoreError> {
    match store::transfer(staged, storage, name, false)? {
        Stored::New => Ok(Some(staged.stored_size(name)?.unwrap_or_default())),
        Stored::Present => Ok(None),
    }
}

/// The stored size of an object, from the first of the places that has it.
pub(crate) fn size(
    name: &ObjectName,
    path: &RepoPath,
    places: &[Arc<dyn ObjectStore>],
) -> Result<u64, ObjectsError> {
    for place in places {
        let size = place
            .stored_size(name)
            .map_err(|source| ObjectsError::Store {
                path: path.clone(),
                name: *name,
                source,
            })?;
        if let Some(size) = size {
            return Ok(size);
        }
    }
    Err(ObjectsError::Missing {
        path: path.clone(),
        name: *name,
    })
}

/// After a commit that was not done: its objects are in the storage for the next one, which takes
/// them as they are. `survived` says that the machine has not stopped since, so that a sync is enough;
/// otherwise they are hashed again, and damaged ones removed.
///
/// # Errors
/// When the storage cannot be synced, read or changed.
pub(crate) fn settle(
    names: &[ObjectName],
    storage: &dyn ObjectStore,
    survived: bool,
) -> Result<(), StoreError> {
    if names.is_empty() {
        return Ok(());
    }
    if survived {
        return storage.sync();
    }
    tracing::info!(
        "hashing {} object(s) of a commit that the machine interrupted",
        names.len()
    );
    for name in names {
        match store::verify(storage, name) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::warn!(%error, "damaged when the machine stopped; removed");
                storage.delete(name)?;
            }
            Err(error) => return Err(error),
        }
    }
    // none of those that were removed comes back when nobody suspects it any more
    storage.sync()
}

/// Looks whether objects are there that rows of an older revision refer to.
pub(crate) fn check_referred(
    referred: &[(ObjectName, RepoPath)],
    storage: &dyn ObjectStore,
) -> Result<(), ObjectsError> {
    for (name, path) in referred {
        check_one(name, path, storage)?;
    }
    Ok(())
}

fn check_one(
    name: &ObjectName,
    path: &RepoPath,
    storage: &dyn ObjectStore,
) -> Result<(), ObjectsError> {
    match storage.has(name) {
        Ok(true) => Ok(()),
        Ok(false) => Err(ObjectsError::Missing {
            path: path.clone(),
            name: *name,
        }),
        Err(source) => Err(ObjectsError::Store {
            path: path.clone(),
            name: *name,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use formats::hash::{Algorithm, Hash};
    use formats::object::ObjectKind;
    use store::faulty::{Fault, Op, When};
    use store::{FaultyStore, MemoryStore};

    use super::*;

    /// What the sites are told of is whole, or an error.
    #[test]
    fn a_size_is_found_or_an_error() {
        let bytes = b"an object";
        let name = ObjectName::new(Hash::of(Algorithm::Sha1, bytes), ObjectKind::Data);
        let path: RepoPath = "/file".parse().unwrap();
        let (empty, full) = (MemoryStore::new(), MemoryStore::new());
        store::put(&full, &name, bytes).unwrap();
        let faulty = Arc::new(FaultyStore::new(Arc::new(full)));
        let places: Vec<Arc<dyn ObjectStore>> = vec![Arc::new(empty), faulty.clone()];
        assert_eq!(size(&name, &path, &places).unwrap(), bytes.len() as u64);
        let nowhere = size(&name, &path, &places[..1]);
        assert!(matches!(nowhere, Err(ObjectsError::Missing { .. })));
        faulty.fail(Op::Look, When::Always, Fault::Fail);
        let unknown = size(&name, &path, &places);
        assert!(matches!(unknown, Err(ObjectsError::Store { .. })));
    }
}
