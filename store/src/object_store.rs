//! The one trait, and what can be said of any store through it.
//!
//! Objects are immutable: a name, once present, keeps its bytes for ever, and no function here
//! overwrites or moves one. Root files (`.cvmfspublished` and its like) are replaced whole. Nothing
//! here knows what an object holds.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::path::Path;

use formats::{Hasher, ObjectName};

use crate::error::{Result, StoreError};

/// Bytes copied at a time between stores.
const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// Whether keeping an object added one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was not there before.
    New,
    /// It was there already; the bytes just written are gone.
    Present,
}

/// A place for objects by name and for a few root files. Blocking; shared by threads.
pub trait ObjectStore: Send + Sync + Debug {
    /// True if the object is there.
    ///
    /// # Errors
    /// When that cannot be found out, or something that is no object stands in its place.
    fn has(&self, name: &ObjectName) -> Result<bool> {
        Ok(self.stored_size(name)?.is_some())
    }

    /// How many bytes the object takes as stored; none if it is not there.
    ///
    /// # Errors
    /// As [`ObjectStore::has`].
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>>;

    /// The object's stored bytes, as they are: neither decompressed nor verified.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; later errors come from the reader.
    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>>;

    /// Begins an object whose name is known when its bytes are.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn begin(&self) -> Result<Box<dyn Pending>>;

    /// Removes an object; true if it was there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn delete(&self, name: &ObjectName) -> Result<bool>;

    /// A root file, whole.
    ///
    /// # Errors
    /// [`StoreError::RootNotFound`], [`StoreError::BadRootName`].
    fn read_root(&self, file: &str) -> Result<Vec<u8>>;

    /// Replaces a root file: at every instant it is the old or the new one, and when this returns
    /// the new one survives power loss.
    ///
    /// # Errors
    /// When the store cannot be written; the old file is then untouched.
    fn write_root(&self, file: &str, bytes: &[u8]) -> Result<()>;

    /// Removes a root file; true if it was there.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn remove_root(&self, file: &str) -> Result<bool>;

    /// Visits every object with its stored size, in no order. Files that are no objects are passed over.
    ///
    /// # Errors
    /// Those of the visitor, and of reading the store.
    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()>;

    /// Returns once every object kept so far survives power loss.
    ///
    /// # Errors
    /// When the system reports that something was lost.
    fn sync(&self) -> Result<()>;

    /// Removes what interrupted writers of ours left behind half made, and says how many files that
    /// were. What others are writing, or other programs left, stays.
    ///
    /// # Errors
    /// When it cannot be looked for or removed.
    fn clean_leftovers(&self) -> Result<u64> {
        Ok(0)
    }

    /// The storage directory, where there is one.
    fn local_dir(&self) -> Option<&Path> {
        None
    }

    /// How many more bytes fit, where that can be known.
    ///
    /// # Errors
    /// When the system cannot tell.
    fn available_bytes(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Forgets what it remembers of the objects that are there: others may have removed some since,
    /// and no more will until the caller is done.
    fn forget(&self) {}

    /// How many threads it serves best that store objects at the same time; none: as many as there
    /// are processors.
    fn writers(&self) -> Option<usize> {
        None
    }

    /// Takes an object that lies as a plain file on this machine without copying its bytes, if that
    /// can be done safely; `None` says "copy it yourself". The file must never change afterwards.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn adopt(&self, _file: &Path, _name: &ObjectName) -> Result<Option<Stored>> {
        Ok(None)
    }
}

/// An object being written. Dropping it discards the bytes.
pub trait Pending: Write + Send {
    /// Gives the bytes their name. The caller vouches that they hash to it.
    ///
    /// # Errors
    /// When the store cannot be written; nothing is kept then.
    fn keep(self: Box<Self>, name: &ObjectName) -> Result<Stored>;

    /// Hands what was written to the system, so that an [`ObjectStore::sync`] from now on makes the
    /// bytes durable before they have a name: many objects, one sync, and none is ever cut short.
    /// Where only whole objects are sent there is nothing to do.
    ///
    /// # Errors
    /// Those of writing.
    fn spill(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// As [`Pending::keep`], with the bytes synced before they get their name: whatever survives a
    /// power loss is whole. That it survives takes [`ObjectStore::sync`] all the same.
    ///
    /// # Errors
    /// As [`Pending::keep`].
    fn keep_whole(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        self.keep(name)
    }
}

/// Stores bytes that are all at hand, by [`Pending::keep_whole`].
///
/// # Errors
/// When the store cannot be written.
pub fn put_whole(store: &dyn ObjectStore, name: &ObjectName, bytes: &[u8]) -> Result<Stored> {
    let mut pending = store.begin()?;
    pending
        .write_all(bytes)
        .map_err(|e| write_error(store, name, e))?;
    pending.keep_whole(name)
}

/// Stores bytes that are all at hand.
///
/// # Errors
/// When the store cannot be written.
pub fn put(store: &dyn ObjectStore, name: &ObjectName, bytes: &[u8]) -> Result<Stored> {
    let mut pending = store.begin()?;
    pending
        .write_all(bytes)
        .map_err(|e| write_error(store, name, e))?;
    pending.keep(name)
}

/// Reads an object whole and checks its hash.
///
/// # Errors
/// [`StoreError::NotFound`], [`StoreError::Corrupt`], [`StoreError::TooLarge`].
pub fn get(store: &dyn ObjectStore, name: &ObjectName, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    store
        .open(name)?
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| read_error(store, name, e))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(StoreError::TooLarge {
            what: format!("object {name}"),
            limit: limit_bytes,
        });
    }
    let mut hasher = Hasher::new(name.hash.algorithm());
    hasher.update(&bytes);
    check(store, name, hasher)?;
    Ok(bytes)
}

/// Reads an object through and checks its hash; returns its stored size.
///
/// # Errors
/// [`StoreError::NotFound`], [`StoreError::Corrupt`].
pub fn verify(store: &dyn ObjectStore, name: &ObjectName) -> Result<u64> {
    let mut hasher = Hasher::new(name.hash.algorithm());
    let bytes = copy_hashed(store, name, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    check(store, name, hasher)?;
    Ok(bytes)
}

/// Brings an object from one store into another. Between directories on one filesystem no bytes are
/// copied. With `verify` the bytes are hashed on the way, and nothing damaged is kept.
///
/// # Errors
/// [`StoreError::NotFound`], [`StoreError::Corrupt`], and whatever either store reports.
pub fn transfer(
    from: &dyn ObjectStore,
    to: &dyn ObjectStore,
    name: &ObjectName,
    verify: bool,
) -> Result<Stored> {
    // where a link may do, trying it tells as much as looking first, in one call less
    let look_first = verify || from.local_dir().is_none();
    if look_first && to.has(name)? {
        return Ok(Stored::Present);
    }
    if let Some(dir) = from.local_dir() {
        // objects are immutable, so one verified now is still whole when it is linked
        if verify && same_device(from, to) {
            self::verify(from, name)?;
        }
        if (!verify || same_device(from, to))
            && let Some(stored) = to.adopt(&dir.join(name.storage_path()), name)?
        {
            return Ok(stored);
        }
    }
    if !look_first && to.has(name)? {
        return Ok(Stored::Present);
    }
    let mut pending = to.begin()?;
    let mut hasher = verify.then(|| Hasher::new(name.hash.algorithm()));
    copy_hashed(from, name, &mut |piece| {
        if let Some(hasher) = &mut hasher {
            hasher.update(piece);
        }
        pending
            .write_all(piece)
            .map_err(|e| write_error(to, name, e))
    })?;
    if let Some(hasher) = hasher {
        check(from, name, hasher)?;
    }
    pending.keep(name)
}

/// True if both lie on one filesystem of this machine: then a [`transfer`] need not copy.
#[must_use]
pub fn same_device(a: &dyn ObjectStore, b: &dyn ObjectStore) -> bool {
    let device = |store: &dyn ObjectStore| {
        use std::os::unix::fs::MetadataExt;
        let data = store.local_dir()?.join("data");
        Some(std::fs::metadata(data).ok()?.dev())
    };
    device(a).is_some_and(|dev| device(b) == Some(dev))
}

fn copy_hashed(
    from: &dyn ObjectStore,
    name: &ObjectName,
    piece: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut reader = from.open(name)?;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                piece(&buffer[..n])?;
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(read_error(from, name, e)),
        }
    }
}

fn check(store: &dyn ObjectStore, name: &ObjectName, hasher: Hasher) -> Result<()> {
    let actual = hasher.finish();
    if actual == name.hash {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        name: *name,
        place: place(store),
        actual,
    })
}

/// What to call a store in a message.
pub(crate) fn place(store: &dyn ObjectStore) -> String {
    match store.local_dir() {
        Some(dir) => dir.display().to_string(),
        None => format!("{store:?}"),
    }
}

/// The store's error inside an `io::Error` if it carries one, else the `io::Error` sorted.
fn unwrap_io(action: &'static str, path: String, error: io::Error) -> StoreError {
    match error.downcast::<StoreError>() {
        Ok(inner) => inner,
        Err(error) => StoreError::io(action, path, error),
    }
}

fn object_path(store: &dyn ObjectStore, name: &ObjectName) -> String {
    format!("{}/{}", place(store), name.storage_path())
}

/// What failing to read an object's bytes amounts to.
pub fn read_error(store: &dyn ObjectStore, name: &ObjectName, error: io::Error) -> StoreError {
    unwrap_io("read", object_path(store, name), error)
}

/// What failing to write an object's bytes amounts to.
pub fn write_error(store: &dyn ObjectStore, name: &ObjectName, error: io::Error) -> StoreError {
    unwrap_io("write", object_path(store, name), error)
}

/// Refuses what is not the plain name of a file in a storage's root.
pub(crate) fn check_root_name(file: &str) -> Result<()> {
    let bad = file.is_empty() || file == "." || file == ".." || file == "data";
    if bad || file.bytes().any(|b| matches!(b, b'/' | 0)) {
        return Err(StoreError::BadRootName(file.to_owned()));
    }
    Ok(())
}
