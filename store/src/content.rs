//! Content of published files, verified and ready to be read anywhere in.
//!
//! An object is fetched whole before any of its bytes is handed out, because only then its hash is
//! known to be right. Small content stays in memory, the rest in files of `dir` that have no name:
//! a crash leaves nothing behind. Where the disk is full, larger content goes to memory as well, up to
//! a size. Both are bounded; what was used longest ago goes first. A large file that is open keeps its
//! one object, so that the bound can be exceeded by files in use; a chunked file keeps one chunk.
//! Nothing here writes to a store or knows a path.

mod shelf;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formats::{Compression, Content, ObjectKind, ObjectName, Regular};
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::fetch::{ObjectFault, Size, fetch};
use crate::flight::Flights;
use crate::object_store::ObjectStore;
use shelf::Shelf;

/// The largest object that is read even where no file can be written: the largest chunk of CVMFS's
/// default parameters. A few such objects stay in memory, within its limit.
pub const MEMORY_PIECE_BYTES_MAX: u64 = 16 << 20;

/// How much content is kept on this machine.
#[derive(Clone, Debug)]
pub struct ContentLimits {
    /// In files.
    pub disk_bytes: u64,
    /// In how many files: each holds a descriptor.
    pub disk_files: u64,
    /// In memory.
    pub memory_bytes: u64,
    /// Up to this length content goes into memory.
    pub small_bytes: u64,
}

impl Default for ContentLimits {
    fn default() -> Self {
        Self {
            disk_bytes: 4 << 30,
            // a quarter of the usual soft limit of descriptors
            disk_files: 256,
            memory_bytes: 32 << 20,
            // most files of a software tree
            small_bytes: 64 << 10,
        }
    }
}

/// Why content cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContentError {
    /// One of its objects is of no use.
    #[error("object {object} cannot be used")]
    Object {
        /// Which object.
        object: ObjectName,
        /// What is wrong with it.
        #[source]
        fault: Box<ObjectFault>,
    },
    /// The bytes lie outside the repository's storage.
    #[error("external data: the bytes are not in the repository's storage")]
    External,
    /// The file has no object at all.
    #[error("the catalog names no object for the file's content")]
    Nothing,
    /// The chunks leave gaps, overlap, or do not reach the end.
    #[error("the chunks do not make up the file: {found} where {expected} bytes are due")]
    Untiled {
        /// Where the next chunk had to begin, or how long the file is.
        expected: u64,
        /// Where it begins, or where the last one ends.
        found: u64,
    },
    /// The copy on this machine cannot be read back.
    #[error("the cached content of object {object} cannot be read")]
    Cache {
        /// Of which object.
        object: ObjectName,
        /// Why.
        source: StoreError,
    },
}

impl ContentError {
    /// True where more space on this machine is the way out.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Object { fault, .. } => {
                matches!(&**fault, ObjectFault::Cache(error) if error.is_out_of_space())
            }
            Self::Cache { source, .. } => source.is_out_of_space(),
            Self::External | Self::Nothing | Self::Untiled { .. } => false,
        }
    }
}

type Result<T, E = ContentError> = std::result::Result<T, E>;

/// Objects' contents, shared by threads.
#[derive(Clone, Debug)]
pub struct ContentCache(Arc<Inner>);

/// An object's content and how it is stored: what is fetched once for all.
type Key = (ObjectName, Compression);

/// A fetch, with what its failure may depend on: the length wanted and which store is asked.
type Flight = (Key, u64, usize);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    dir: PathBuf,
    limits: ContentLimits,
    flights: Flights<Flight, Result<Arc<Cached>, ObjectFault>>,
    shelf: Mutex<Shelf>,
    /// Bytes in files, those included that only an open file still holds.
    disk_bytes: Arc<AtomicU64>,
}

/// One object's whole content.
#[derive(Debug)]
struct Cached {
    body: Body,
    bytes: u64,
}

#[derive(Debug)]
enum Body {
    Memory(Box<[u8]>),
    /// A nameless file; the count is that of all of them.
    Disk(File, Arc<AtomicU64>),
}

impl Drop for Cached {
    fn drop(&mut self) {
        if let Body::Disk(_, total) = &self.body {
            total.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl ContentCache {
    /// A cache over a store, with its files in `dir`, which is made if need be.
    ///
    /// # Errors
    /// When `dir` cannot be used.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        dir: impl Into<PathBuf>,
        limits: ContentLimits,
    ) -> Result<Self, StoreError> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir).map_err(|e| StoreError::io("create", &dir, e))?;
        Ok(Self(Arc::new(Inner {
            store,
            dir,
            limits,
            flights: Flights::new(),
            shelf: Mutex::new(Shelf::new()),
            disk_bytes: Arc::default(),
        })))
    }

    /// A file's content. Nothing is fetched before it is read.
    ///
    /// # Errors
    /// [`ContentError`] when the row makes no sense or the content is not in the storage.
    pub fn open(&self, file: &Regular) -> Result<Arc<ContentFile>> {
        self.open_from(&self.0.store, file)
    }

    /// As [`ContentCache::open`], with the objects of another store, as those of a stage are.
    ///
    /// # Errors
    /// As [`ContentCache::open`].
    pub fn open_from(
        &self,
        store: &Arc<dyn ObjectStore>,
        file: &Regular,
    ) -> Result<Arc<ContentFile>> {
        if file.external {
            return Err(ContentError::External);
        }
        Ok(Arc::new(ContentFile {
            cache: self.clone(),
            store: Arc::clone(store),
            compression: file.compression,
            size: file.size,
            pieces: pieces(file)?,
            held: Mutex::new(None),
        }))
    }

    /// Bytes that the files take at the moment.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.0.disk_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that small contents take in memory at the moment.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.shelf.lock().memory_bytes()
    }

    /// How many files no open file holds, and their bytes.
    #[must_use]
    pub fn unused(&self) -> (u64, u64) {
        self.0.shelf.lock().unused()
    }

    /// Forgets everything that no open file holds, to give the disk space back.
    pub fn clear(&self) {
        self.0.shelf.lock().clear();
    }
}

impl Inner {
    fn get(
        &self,
        store: &dyn ObjectStore,
        piece: &Piece,
        how: Compression,
    ) -> Result<Arc<Cached>, ObjectFault> {
        let key = (piece.object, how);
        let here = self.shelf.lock().get(&key);
        let cached = match here {
            Some(cached) => cached,
            None => {
                let store_id = std::ptr::from_ref(store).addr();
                let flight = (key, piece.size, store_id);
                let load = || self.load(store, &key, piece.size);
                self.flights.run(&flight, load)?
            }
        };
        if cached.bytes == piece.size {
            return Ok(cached);
        }
        Err(ObjectFault::WrongSize {
            expected: piece.size,
            actual: cached.bytes,
        })
    }

    fn load(
        &self,
        store: &dyn ObjectStore,
        key: &Key,
        size: u64,
    ) -> Result<Arc<Cached>, ObjectFault> {
        // somebody may have landed between the look at the shelf and this flight
        if let Some(cached) = self.shelf.lock().get(key) {
            return Ok(cached);
        }
        let body = if size <= self.limits.small_bytes {
            self.load_into_memory(store, key, size)?
        } else {
            match self.load_onto_disk(store, key, size) {
                Err(ObjectFault::Cache(e))
                    if e.is_out_of_space() && size <= MEMORY_PIECE_BYTES_MAX =>
                {
                    self.load_into_memory(store, key, size)?
                }
                done => done?,
            }
        };
        let cached = Arc::new(Cached { body, bytes: size });
        self.shelf.lock().insert(*key, &cached, &self.limits);
        Ok(cached)
    }

    fn load_into_memory(
        &self,
        store: &dyn ObjectStore,
        (object, how): &Key,
        size: u64,
    ) -> Result<Body, ObjectFault> {
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        let out = (&mut bytes as &mut dyn io::Write, Path::new("memory"));
        fetch(store, object, *how, Size::Exactly(size), out)?;
        Ok(Body::Memory(bytes.into()))
    }

    fn load_onto_disk(
        &self,
        store: &dyn ObjectStore,
        key: &Key,
        size: u64,
    ) -> Result<Body, ObjectFault> {
        self.shelf
            .lock()
            .make_room(size, self.disk_bytes.load(Ordering::Relaxed), &self.limits);
        match self.try_onto_disk(store, key, size) {
            Err(ObjectFault::Cache(e)) if e.is_out_of_space() => {
                // what is kept for later is worth less than what is read now
                self.shelf.lock().clear();
                self.try_onto_disk(store, key, size)
            }
            done => done,
        }
    }

    fn try_onto_disk(
        &self,
        store: &dyn ObjectStore,
        (object, how): &Key,
        size: u64,
    ) -> Result<Body, ObjectFault> {
        let failed = |e| ObjectFault::Cache(StoreError::io("create a file in", &self.dir, e));
        let mut file = tempfile::tempfile_in(&self.dir).map_err(failed)?;
        fetch(
            store,
            object,
            *how,
            Size::Exactly(size),
            (&mut file, &self.dir),
        )?;
        self.disk_bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Body::Disk(file, Arc::clone(&self.disk_bytes)))
    }
}

/// A part of a file that is one object.
#[derive(Clone, Debug)]
struct Piece {
    offset: u64,
    size: u64,
    object: ObjectName,
}

/// A file's pieces in order, without gaps.
fn pieces(file: &Regular) -> Result<Vec<Piece>> {
    let chunks = match &file.content {
        Content::Whole(hash) if hash.is_null() => return Err(ContentError::Nothing),
        Content::Whole(hash) => {
            let object = ObjectName::new(*hash, ObjectKind::Data);
            return Ok(vec![Piece {
                offset: 0,
                size: file.size,
                object,
            }]);
        }
        Content::Chunks { chunks, .. } => chunks,
    };
    let mut end: u64 = 0;
    let mut pieces = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        if chunk.offset != end || chunk.size == 0 {
            return Err(ContentError::Untiled {
                expected: end,
                found: chunk.offset,
            });
        }
        end = end.saturating_add(chunk.size);
        pieces.push(Piece {
            offset: chunk.offset,
            size: chunk.size,
            object: ObjectName::new(chunk.hash, ObjectKind::Chunk),
        });
    }
    if end != file.size {
        return Err(ContentError::Untiled {
            expected: file.size,
            found: end,
        });
    }
    Ok(pieces)
}

/// A published file's content, to be read at any offset by any thread.
#[derive(Debug)]
pub struct ContentFile {
    cache: ContentCache,
    store: Arc<dyn ObjectStore>,
    compression: Compression,
    size: u64,
    pieces: Vec<Piece>,
    /// The piece read last.
    held: Mutex<Option<(usize, Arc<Cached>)>>,
}

impl ContentFile {
    /// How long it is.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The objects that it is read from, when they are needed.
    pub fn objects(&self) -> impl Iterator<Item = ObjectName> {
        self.pieces.iter().map(|piece| piece.object)
    }

    /// Reads from `offset` on until `buffer` is full or the file ends; returns how many bytes.
    ///
    /// # Errors
    /// [`ContentError`]; bytes before the bad object are lost with it.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            if at >= self.size {
                break;
            }
            // the piece that begins last among those that begin at or before `at`
            let index = self.pieces.partition_point(|p| p.offset <= at) - 1;
            let piece = &self.pieces[index];
            let within = at - piece.offset;
            let left = usize::try_from(piece.size - within).unwrap_or(usize::MAX);
            let want = left.min(buffer.len() - done);
            let cached = self.piece(index)?;
            cached
                .read_exact_at(&mut buffer[done..done + want], within)
                .map_err(|e| ContentError::Cache {
                    object: piece.object,
                    source: StoreError::io("read a file in", &self.cache.0.dir, e),
                })?;
            done += want;
        }
        Ok(done)
    }

    fn piece(&self, index: usize) -> Result<Arc<Cached>> {
        if let Some((held, cached)) = &*self.held.lock()
            && *held == index
        {
            return Ok(Arc::clone(cached));
        }
        let piece = &self.pieces[index];
        let cached = self
            .cache
            .0
            .get(self.store.as_ref(), piece, self.compression)
            .map_err(|fault| ContentError::Object {
                object: piece.object,
                fault: Box::new(fault),
            })?;
        // what should have gone to a file, and could not, must not pile up with open files
        let spilt = matches!(cached.body, Body::Memory(_))
            && cached.bytes > self.cache.0.limits.small_bytes;
        *self.held.lock() = (!spilt).then(|| (index, Arc::clone(&cached)));
        Ok(cached)
    }
}

impl Cached {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.body {
            Body::Disk(file, _) => file.read_exact_at(buffer, offset),
            Body::Memory(bytes) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = bytes.get(begin..).and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}
