//! Objects that wait to be sent: what a publisher has for a storage where it cannot write the real one.
//!
//! It answers like the Stratum 0 with the waiting objects added. An object of the stage is waited for
//! where it lies; what has no file yet (catalogs) grows in one nameless file that is gone with the
//! process. Nothing here sends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use formats::object::ObjectName;
use store::{ObjectStore, Pending, Result, StoreError, Stored};

use super::pack::Item;

/// See the module.
#[derive(Clone)]
pub(super) struct Outbox(Arc<Inner>);

struct Inner {
    /// What is published.
    stratum0: Arc<dyn ObjectStore>,
    /// For the nameless file; made when it is needed.
    dir: PathBuf,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    objects: BTreeMap<ObjectName, Object>,
    /// Published by now. No garbage collection takes what no revision ever had, so that nobody has to
    /// look for them again.
    sent: BTreeSet<ObjectName>,
    /// Counts objects, for their order.
    next: u64,
    spool: Option<Spool>,
}

struct Spool {
    file: Arc<File>,
    bytes: u64,
}

#[derive(Clone)]
struct Object {
    order: u64,
    bytes: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// A file that does not change.
    File(PathBuf),
    /// A part of the nameless file, by where it begins.
    Spooled(Arc<File>, u64),
}

/// True if an object is at the Stratum 0 in its full length. A receiver whose storage is full leaves
/// cut objects behind under their names, and takes them for stored from then on: nothing that is
/// sent mends them.
pub(super) fn is_whole(stratum0: &dyn ObjectStore, name: &ObjectName, bytes: u64) -> Result<bool> {
    match stratum0.stored_size(name)? {
        Some(found) if found != bytes => Err(StoreError::CutOff {
            name: *name,
            place: format!("{stratum0:?}"),
            found,
            wanted: bytes,
        }),
        found => Ok(found.is_some()),
    }
}

impl Outbox {
    pub(super) fn new(stratum0: Arc<dyn ObjectStore>, dir: PathBuf) -> Self {
        Self(Arc::new(Inner {
            stratum0,
            dir,
            waiting: Mutex::default(),
        }))
    }

    /// What waits, in the order in which it came.
    pub(super) fn items(&self) -> Vec<Item> {
        let waiting = self.0.waiting();
        let mut items: Vec<_> = waiting.objects.iter().collect();
        items.sort_unstable_by_key(|(_, object)| object.order);
        items
            .into_iter()
            .map(|(name, object)| (*name, object.bytes))
            .collect()
    }

    /// These are published now.
    pub(super) fn sent(&self, items: &[Item]) {
        let mut waiting = self.0.waiting();
        for (name, _) in items {
            waiting.objects.remove(name);
            waiting.sent.insert(*name);
        }
    }

    /// Nothing waits any more.
    pub(super) fn clear(&self) {
        *self.0.waiting() = Waiting::default();
    }
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // what a panic leaves is whole: every change is a single one
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn find(&self, name: &ObjectName) -> Option<Object> {
        self.waiting().objects.get(name).cloned()
    }

    fn is_ours(&self, name: &ObjectName) -> bool {
        let waiting = self.waiting();
        waiting.objects.contains_key(name) || waiting.sent.contains(name)
    }

    /// An object of so many bytes needs not be sent.
    fn is_there(&self, name: &ObjectName, bytes: u64) -> Result<bool> {
        Ok(self.is_ours(name) || is_whole(&*self.stratum0, name, bytes)?)
    }

    fn add(&self, name: &ObjectName, bytes: u64, place: Place) {
        let mut waiting = self.waiting();
        waiting.next += 1;
        let order = waiting.next;
        let object = Object {
            order,
            bytes,
            place,
        };
        waiting.objects.entry(*name).or_insert(object);
    }

    fn temp(&self) -> Result<File> {
        std::fs::create_dir_all(&self.dir)
            .and_then(|()| tempfile::tempfile_in(&self.dir))
            .map_err(|e| StoreError::io("make a file in", &self.dir, e))
    }

    /// Appends a file to the nameless one; where it begins there.
    fn spool(&self, from: &mut File, bytes: u64) -> Result<(Arc<File>, u64)> {
        let failed = |e| StoreError::io("write in", &self.dir, e);
        let mut waiting = self.waiting();
        if waiting.spool.is_none() {
            let file = Arc::new(self.temp()?);
            waiting.spool = Some(Spool { file, bytes: 0 });
        }
        let Some(spool) = waiting.spool.as_mut() else {
            unreachable!("it was just made");
        };
        let begin = spool.bytes;
        let mut to = spool.file.as_ref();
        from.rewind().map_err(failed)?;
        to.seek(io::SeekFrom::Start(begin)).map_err(failed)?;
        let copied = io::copy(from, &mut to).map_err(failed)?;
        debug_assert_eq!(copied, bytes);
        spool.bytes = begin + copied;
        Ok((Arc::clone(&spool.file), begin))
    }

    fn read_only(&self, action: &'static str) -> StoreError {
        let refused = io::Error::from(io::ErrorKind::Unsupported);
        StoreError::io(action, format!("{:?}", self.stratum0), refused)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0.stratum0)
    }
}

impl ObjectStore for Outbox {
    fn has(&self, name: &ObjectName) -> Result<bool> {
        Ok(self.0.is_ours(name) || self.0.stratum0.has(name)?)
    }

    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        match self.0.find(name) {
            Some(object) => Ok(Some(object.bytes)),
            None => self.0.stratum0.stored_size(name),
        }
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        let Some(object) = self.0.find(name) else {
            return self.0.stratum0.open(name);
        };
        match object.place {
            Place::File(path) => match File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(e) => Err(StoreError::io("open", path, e)),
            },
            Place::Spooled(file, at) => Ok(Box::new(Part {
                file,
                at,
                left: object.bytes,
            })),
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        Ok(Box::new(Growing {
            file: self.0.temp()?,
            bytes: 0,
            home: Arc::clone(&self.0),
        }))
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        Ok(self.0.waiting().objects.remove(name).is_some())
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        self.0.stratum0.read_root(file)
    }

    fn write_root(&self, _file: &str, _bytes: &[u8]) -> Result<()> {
        Err(self.0.read_only("write a root file in"))
    }

    fn remove_root(&self, _file: &str) -> Result<bool> {
        Err(self.0.read_only("remove a root file from"))
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        self.0.stratum0.for_each(visit)
    }

    /// What waits is needed by nobody after a power loss: it is staged still.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, file: &Path, name: &ObjectName) -> Result<Option<Stored>> {
        // whatever is wrong with the file, the copy that follows tells
        let Ok(metadata) = std::fs::symlink_metadata(file) else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        if self.0.is_there(name, metadata.len())? {
            return Ok(Some(Stored::Present));
        }
        self.0
            .add(name, metadata.len(), Place::File(file.to_path_buf()));
        Ok(Some(Stored::New))
    }
}

/// A part of a file, read by position.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(most);
        let n = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

struct Growing {
    file: File,
    bytes: u64,
    home: Arc<Inner>,
}

impl Write for Growing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Pending for Growing {
    fn keep(mut self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        if self.home.is_there(name, self.bytes)? {
            return Ok(Stored::Present);
        }
        let bytes = self.bytes;
        let home = Arc::clone(&self.home);
        let (file, at) = home.spool(&mut self.file, bytes)?;
        home.add(name, bytes, Place::Spooled(file, at));
        Ok(Stored::New)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::hash::{Algorithm, Hash};
    use formats::object::ObjectKind;
    use store::{DirStore, Durability, MemoryStore};

    fn name(bytes: &[u8]) -> ObjectName {
        ObjectName::new(Hash::of(Algorithm::Sha1, bytes), ObjectKind::Data)
    }

    #[test]
    fn waits_with_what_is_not_published() {
        let dir = tempfile::tempdir().unwrap();
        let stage = DirStore::create(dir.path().join("stage"), Durability::Batch).unwrap();
        let published = MemoryStore::new();
        store::put(&published, &name(b"old"), b"old").unwrap();
        let outbox = Outbox::new(Arc::new(published), dir.path().join("out"));
        for bytes in [b"old", b"new"] {
            store::put(&stage, &name(bytes), bytes).unwrap();
        }
        let take = |bytes| store::transfer(&stage, &outbox, &name(bytes), false).unwrap();
        assert_eq!(take(b"old"), Stored::Present);
        assert_eq!(take(b"new"), Stored::New);
        assert_eq!(take(b"new"), Stored::Present);
        for bytes in [&b"catalog 1"[..], b"catalog two"] {
            assert_eq!(
                store::put(&outbox, &name(bytes), bytes).unwrap(),
                Stored::New
            );
        }
        let waiting = outbox.items();
        let order = [
            (name(b"new"), 3),
            (name(b"catalog 1"), 9),
            (name(b"catalog two"), 11),
        ];
        assert_eq!(waiting, order);
        for (name, size) in &waiting {
            assert_eq!(store::verify(&outbox, name).unwrap(), *size);
        }
        outbox.sent(&waiting[..1]);
        assert_eq!(outbox.items(), order[1..]);
        assert!(
            outbox.has(&name(b"new")).unwrap(),
            "it is known to be there"
        );
        // what a full disk left there is not taken for the object
        store::put(&stage, &name(b"whole"), b"whole").unwrap();
        store::put(&*outbox.0.stratum0, &name(b"whole"), b"who").unwrap();
        let refused = store::transfer(&stage, &outbox, &name(b"whole"), false);
        let cut = matches!(
            refused,
            Err(StoreError::CutOff {
                found: 3,
                wanted: 5,
                ..
            })
        );
        assert!(cut, "{refused:?}");
        outbox.clear();
        assert!(outbox.items().is_empty());
        assert!(!outbox.has(&name(b"new")).unwrap());
        let left = std::fs::read_dir(dir.path().join("out")).unwrap().count();
        assert_eq!(left, 0, "a killed process leaves nothing");
    }
}
