//! The end of a storage in a bucket. The bucket stays.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use formats::ObjectName;
use store::{ObjectStore, S3Store, StoreError, failpoint};

use super::{ROOT_FILE_PREFIX, Removed, RmfsError};
use crate::mkfs::WHITELIST;
use crate::stratum0::MANIFEST;

/// Objects that are removed before more are listed.
const REMOVED_AT_ONCE: usize = 10_000;

/// Removes what a repository consists of, in the order that the module above tells.
pub(super) fn empty(place: &str, store: &S3Store, removed: &mut Removed) -> Result<(), RmfsError> {
    let failed = |source| RmfsError::Storage {
        place: place.to_owned(),
        source,
    };
    store.remove_root(MANIFEST).map_err(failed)?;
    failpoint::pass("rmfs::before_objects")?;
    let mut objects = Vec::new();
    store
        .for_each(&mut |name, bytes| {
            removed.objects += 1;
            removed.bytes += bytes;
            objects.push(name);
            match objects.len() < REMOVED_AT_ONCE {
                true => Ok(()),
                false => remove(store, &std::mem::take(&mut objects)),
            }
        })
        .and_then(|()| remove(store, &objects))
        .map_err(failed)?;
    let mut files = Vec::new();
    store
        .files(&mut |file| {
            files.push(file.to_owned());
            Ok(ControlFlow::Continue(()))
        })
        .map_err(failed)?;
    for file in files {
        let is_root = file.starts_with(ROOT_FILE_PREFIX) && !file.contains('/');
        match is_root && file != WHITELIST {
            true => store.remove_file(&file).map_err(failed)?,
            false if file == WHITELIST => {}
            false => removed.left.push(format!("{place}/{file}")),
        }
    }
    store.remove_file(WHITELIST).map_err(failed)
}

/// As many at once as the store serves: each is a question and its answer.
fn remove(store: &S3Store, objects: &[ObjectName]) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let work = || {
        while let Some(name) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = store.remove_file(&name.storage_path()) {
                // the others have nothing left to take
                next.store(objects.len(), Ordering::Relaxed);
                *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                return;
            }
        }
    };
    let threads = store.writers().unwrap_or(1).min(objects.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    match failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
