//! Catalogs on this machine: fetched once, verified, decompressed, kept as files while there is room.
//!
//! ```text
//! DIR/<hash>          the decompressed SQLite file
//! DIR/<hash>.sum      its length and SHA-1, as text, written before it
//! DIR/tmp.<pid>.<n>   on its way
//! ```
//!
//! A catalog's own hash is that of its compressed bytes, so a kept file is checked against `.sum`
//! when it is first used after a start; one that does not match is fetched again. A file in use is
//! never removed. One process uses a directory at a time. Nothing here knows which catalog belongs
//! where in a tree.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formats::catalog::CatalogError;
use formats::{
    Algorithm, Catalog, Compression, Hash, Hasher, NestedRef, ObjectKind, ObjectName, RepoPath,
};
use parking_lot::Mutex;

use super::error::CatalogFault;
use crate::error::StoreError;
use crate::fetch::{ObjectFault, Size, fetch};
use crate::flight::Flights;
use crate::lru::Lru;
use crate::object_store::ObjectStore;

/// SQLite connections kept open for the next reader; each holds up to 2 MiB of pages.
const IDLE_CONNECTIONS: usize = 24;
/// Bytes moved at a time when a file is hashed or copied.
const BUFFER_BYTES: usize = 128 * 1024;

type Result<T, E = CatalogFault> = std::result::Result<T, E>;

/// The catalogs of one storage.
#[derive(Debug)]
pub(super) struct Catalogs {
    store: Arc<dyn ObjectStore>,
    dir: PathBuf,
    /// How much the files may take together; those in use may exceed it.
    max_disk_bytes: u64,
    /// How long a catalog may be that nothing says the length of.
    max_catalog_bytes: u64,
    counter: AtomicU64,
    /// By hash and the length that is due, which failures may depend on.
    flights: Flights<(Hash, Option<u64>), Result<Arc<CatalogFile>>>,
    /// Files by catalog; without a handle where they lie there from before. Weighs bytes.
    files: Mutex<Lru<Hash, Option<Arc<CatalogFile>>>>,
    idle: Arc<Idle>,
}

/// Open connections that nobody uses at the moment, the latest used last.
#[derive(Default)]
struct Idle(Mutex<VecDeque<(Hash, Catalog)>>);

impl std::fmt::Debug for Idle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} idle connections", self.0.lock().len())
    }
}

/// A verified, decompressed catalog. While one of these lives its file stays.
#[derive(Debug)]
pub struct CatalogFile {
    object: ObjectName,
    size: u64,
    root_prefix: RepoPath,
    nested: Vec<NestedRef>,
    bound: Vec<NestedRef>,
    /// Into `nested`, then `bound`, by path.
    transitions: HashMap<Box<[u8]>, usize>,
    file: PathBuf,
    idle: Arc<Idle>,
}

impl Catalogs {
    pub fn new(
        store: Arc<dyn ObjectStore>,
        dir: PathBuf,
        max_disk_bytes: u64,
        max_catalog_bytes: u64,
    ) -> Result<Self, StoreError> {
        std::fs::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        let files = Mutex::new(find_kept(&dir)?);
        let catalogs = Self {
            store,
            dir,
            max_disk_bytes,
            max_catalog_bytes,
            counter: AtomicU64::new(0),
            flights: Flights::new(),
            files,
            idle: Arc::default(),
        };
        catalogs.make_room();
        Ok(catalogs)
    }

    /// A catalog by its hash; fetched if it is not here.
    pub fn get(&self, hash: &Hash, expected_bytes: Option<u64>) -> Result<Arc<CatalogFile>> {
        let expected = expected_bytes.filter(|n| *n > 0);
        let (here, over) = {
            let mut files = self.files.lock();
            let here = files.get(hash).and_then(|file| file.clone());
            // somebody may have cleared the directory
            let here = here.filter(|catalog| catalog.file.exists());
            (here, files.weight() > self.max_disk_bytes)
        };
        if over {
            // those that were in use when the last one came may go by now
            self.make_room();
        }
        let catalog = match here {
            Some(catalog) => catalog,
            None => {
                let flight = (*hash, expected);
                self.flights.run(&flight, || self.load(hash, expected))?
            }
        };
        match expected {
            Some(expected) if expected != catalog.size => Err(ObjectFault::WrongSize {
                expected,
                actual: catalog.size,
            }
            .into()),
            _ => Ok(catalog),
        }
    }

    /// Writes a catalog's content to a file of the caller's, which must not exist.
    pub fn copy(&self, hash: &Hash, to: &Path) -> Result<u64> {
        let catalog = self.get(hash, None)?;
        let failed = |action, path: &Path, e| CatalogFault::from(StoreError::io(action, path, e));
        let mut from = File::open(&catalog.file).map_err(|e| failed("open", &catalog.file, e))?;
        let mut target = File::options()
            .write(true)
            .create_new(true)
            .open(to)
            .map_err(|e| failed("create", to, e))?;
        io::copy(&mut from, &mut target).map_err(|e| failed("write", to, e))
    }

    fn load(&self, hash: &Hash, expected: Option<u64>) -> Result<Arc<CatalogFile>> {
        // somebody may have landed between the look at `files` and this flight
        let here = self.files.lock().get(hash).and_then(|file| file.clone());
        if let Some(catalog) = here.filter(|catalog| catalog.file.exists()) {
            return Ok(catalog);
        }
        let object = ObjectName::new(*hash, ObjectKind::Catalog);
        let path = self.dir.join(hash.to_string());
        loop {
            let size = match kept_size(&path) {
                Some(size) => size,
                None => self.fetch(&object, &path, expected)?,
            };
            let catalog = Arc::new(CatalogFile::open(object, path.clone(), size, &self.idle)?);
            let mut files = self.files.lock();
            // room may have been made between fetching and now; under the lock it is not
            if path.exists() {
                files.insert(*hash, Some(Arc::clone(&catalog)), size);
                drop(files);
                self.make_room();
                return Ok(catalog);
            }
        }
    }

    /// Brings a catalog's content here.
    fn fetch(&self, object: &ObjectName, path: &Path, expected: Option<u64>) -> Result<u64> {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let temp = self.dir.join(format!("tmp.{}.{count}", std::process::id()));
        let done = self.fetch_to(object, &temp, path, expected);
        if done.is_err() {
            // nothing but room is lost if it stays
            let _ = std::fs::remove_file(&temp);
        }
        done
    }

    fn fetch_to(
        &self,
        object: &ObjectName,
        temp: &Path,
        path: &Path,
        expected: Option<u64>,
    ) -> Result<u64> {
        let failed = |action, path: &Path, e| CatalogFault::from(StoreError::io(action, path, e));
        let mut out = Summing {
            file: File::create(temp).map_err(|e| failed("create", temp, e))?,
            sum: Hasher::new(Algorithm::Sha1),
        };
        let size = match expected {
            Some(bytes) => Size::Exactly(bytes),
            None => Size::AtMost(self.max_catalog_bytes),
        };
        let store = self.store.as_ref();
        let bytes = fetch(store, object, Compression::Zlib, size, (&mut out, temp))?;
        let sum = sum_path(path);
        std::fs::write(&sum, sum_text(bytes, &out.sum.finish()))
            .map_err(|e| failed("write", &sum, e))?;
        std::fs::rename(temp, path).map_err(|e| failed("rename", temp, e))?;
        Ok(bytes)
    }

    /// Removes files that nobody uses until the rest fits.
    fn make_room(&self) {
        self.shrink_to(self.max_disk_bytes);
    }

    fn shrink_to(&self, bytes: u64) {
        let mut files = self.files.lock();
        while files.weight() > bytes {
            let Some((gone, _)) = files.pop_oldest(is_unused) else {
                return;
            };
            self.idle.0.lock().retain(|(hash, _)| *hash != gone);
            remove_kept(&self.dir.join(gone.to_string()));
        }
    }

    /// How many nobody uses at the moment, and their bytes.
    pub fn unused(&self) -> (u64, u64) {
        let files = self.files.lock();
        let unused = files.iter().filter(|(_, file, _)| is_unused(file));
        unused.fold((0, 0), |(n, sum), (_, _, bytes)| (n + 1, sum + bytes))
    }

    /// Removes what nobody uses at the moment.
    pub fn drop_unused(&self) {
        self.shrink_to(0);
    }
}

/// Nobody but the collection has a handle on it.
fn is_unused(file: &Option<Arc<CatalogFile>>) -> bool {
    file.as_ref().is_none_or(|f| Arc::strong_count(f) == 1)
}

impl CatalogFile {
    fn open(object: ObjectName, file: PathBuf, size: u64, idle: &Arc<Idle>) -> Result<Self> {
        let bad = |e| CatalogFault::NotACatalog(Arc::new(e));
        let catalog = Catalog::open(&file).map_err(bad)?;
        let nested = catalog.nested().map_err(bad)?;
        let bound = catalog.bind_mountpoints().map_err(bad)?;
        let paths = nested
            .iter()
            .chain(&bound)
            .map(|r| r.path.as_bytes().into());
        let opened = Self {
            object,
            size,
            root_prefix: catalog.root_prefix().clone(),
            transitions: paths.zip(0..).collect(),
            nested,
            bound,
            file,
            idle: Arc::clone(idle),
        };
        opened.give_back(catalog);
        Ok(opened)
    }

    /// The catalog's hash, without the letter.
    #[must_use]
    pub fn hash(&self) -> &Hash {
        &self.object.hash
    }

    /// The catalog's object.
    #[must_use]
    pub fn object(&self) -> &ObjectName {
        &self.object
    }

    /// The length of its database file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The directory at which it says it begins.
    #[must_use]
    pub fn root_prefix(&self) -> &RepoPath {
        &self.root_prefix
    }

    /// The catalogs nested directly in it, by path.
    #[must_use]
    pub fn nested(&self) -> &[NestedRef] {
        &self.nested
    }

    /// The catalogs of other revisions bound into it, by path.
    #[must_use]
    pub fn bound(&self) -> &[NestedRef] {
        &self.bound
    }

    /// The database file; it stays as long as `self` does, and nobody may change it.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The reference that a path at or below a transition leads to, and whether it is a bound one.
    pub(crate) fn transition(&self, path: &RepoPath) -> Option<(&NestedRef, bool)> {
        if self.transitions.is_empty() {
            return None;
        }
        let bytes = path.as_bytes();
        let begin = self.root_prefix.as_bytes().len() + 1;
        let slashes = (begin..bytes.len()).filter(|at| bytes[*at] == b'/');
        // the first on the way down: references below it are the nested catalog's business
        slashes.chain([bytes.len()]).find_map(|end| {
            let at = *self.transitions.get(bytes.get(..end)?)?;
            let bound = at.checked_sub(self.nested.len());
            Some(match bound {
                None => (&self.nested[at], false),
                Some(at) => (&self.bound[at], true),
            })
        })
    }

    /// Lends a connection. Several threads read at once, each with its own.
    ///
    /// # Errors
    /// [`CatalogFault::Malformed`] with what `read` returns.
    pub fn with<T>(
        &self,
        read: impl FnOnce(&Catalog) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogFault> {
        let found = {
            let mut idle = self.idle.0.lock();
            let at = idle.iter().rposition(|(hash, _)| hash == self.hash());
            at.and_then(|at| idle.remove(at))
        };
        let malformed = |e| CatalogFault::Malformed(Arc::new(e));
        let catalog = match found {
            Some((_, catalog)) => catalog,
            None => Catalog::open(&self.file).map_err(malformed)?,
        };
        let value = read(&catalog).map_err(malformed)?;
        self.give_back(catalog);
        Ok(value)
    }

    fn give_back(&self, catalog: Catalog) {
        let mut idle = self.idle.0.lock();
        idle.push_back((*self.hash(), catalog));
        let surplus = if idle.len() > IDLE_CONNECTIONS {
            idle.pop_front()
        } else {
            None
        };
        drop(idle);
        // closing takes a while and needs no lock
        drop(surplus);
    }
}

/// What an earlier run left, by hash; anything else in the directory that is ours goes.
fn find_kept(dir: &Path) -> Result<Lru<Hash, Option<Arc<CatalogFile>>>, StoreError> {
    let failed = |e| StoreError::io("list", dir, e);
    let own_temp = format!("tmp.{}.", std::process::id());
    let mut kept = Lru::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Ok(hash) = name.parse::<Hash>() {
            let bytes = entry.metadata().map_err(failed)?.len();
            kept.insert(hash, None, bytes);
        } else if name.starts_with("tmp.") && !name.starts_with(&own_temp) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(kept)
}

/// The length of a file kept from before, if it is what `.sum` says; else it is removed.
fn kept_size(path: &Path) -> Option<u64> {
    let found = (|| {
        let expected = std::fs::read_to_string(sum_path(path)).ok()?;
        let mut file = File::open(path).ok()?;
        let bytes = file.metadata().ok()?.len();
        // the cheap half first
        if expected.split(' ').next()? != bytes.to_string() {
            return None;
        }
        let mut sum = Hasher::new(Algorithm::Sha1);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            match file.read(&mut buffer).ok()? {
                0 => break,
                n => sum.update(&buffer[..n]),
            }
        }
        (sum_text(bytes, &sum.finish()) == expected).then_some(bytes)
    })();
    if found.is_none() {
        remove_kept(path);
    }
    found
}

fn remove_kept(path: &Path) {
    // what cannot be removed is checked before it is used
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_file(sum_path(path));
}

fn sum_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sum");
    name.into()
}

fn sum_text(bytes: u64, sum: &Hash) -> String {
    format!("{bytes} {sum}\n")
}

/// A file whose bytes are summed as they are written.
struct Summing {
    file: File,
    sum: Hasher,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.sum.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
