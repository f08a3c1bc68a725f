//! Sealing: a staged file's raw bytes become objects, as the official tools would make them.
//!
//! ```text
//! SealJob -> pool -> read -> known by its raw hash?  -> done
//!                       \-> cut -> compress -> hash -> store -> unchanged? -> done
//! ```
//!
//! The steps are rooms below this one: [`source`](Source) reads, `raw` hashes raw content, `cut`
//! finds chunks, `sink` compresses and stores, `job` does a small file, `parallel` a large one.
//!
//! Memory is a fixed amount per worker, whatever the size and number of files. The names of objects
//! are the format's affair (`formats`); this module must not influence them. It keeps no state of
//! files: what was sealed is told to the job's callback, and to nobody else.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use formats::PathHash;
use formats::chunk::ChunkSizes;
use formats::hash::Algorithm;
use formats::object::{Compression, Content};
use store::{ObjectStore, StoreError, Stored};

use crate::pool::{Handle, Pool, PoolLimits, Run, Ticket, Turn};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Instant, Mutex, thread};

mod cut;
mod job;
mod parallel;
mod raw;
mod sink;
mod source;

use job::{Brief, Ending, Running, Scratch};
pub use raw::RawHash;
pub use source::Source;

/// Files waiting before [`Sealer::admit`] makes writers wait: some tens of megabytes of queue.
pub const PENDING_FILES_MAX: u64 = 65_536;

/// Raw bytes waiting before [`Sealer::admit`] makes writers wait: a few minutes of two cores. They
/// lie on disk; the bound keeps a commit from having to wait much longer than that.
pub const PENDING_BYTES_MAX: u64 = 16 << 30;

/// How much a sealing worker yields to the threads that answer the kernel.
pub const WORKER_NICE: u8 = 5;

/// How a file becomes objects: a repository's parameters, as far as they decide names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealParams {
    /// Hashes the stored bytes.
    pub algorithm: Algorithm,
    /// Makes them.
    pub compression: Compression,
    /// Sizes of chunks; none: every file is one object.
    pub chunking: Option<ChunkSizes>,
    /// A chunked file is stored as one object too.
    pub bulk_chunks: bool,
}

impl SealParams {
    /// Everything that decides what objects come of a content of `size` bytes, as text that stays
    /// the same from version to version: parameters of chunks say nothing of a file that is too
    /// small to be cut.
    fn tag(&self, size: u64) -> String {
        let compression = match self.compression {
            Compression::None => "none",
            Compression::Zlib => "zlib",
        };
        let mut tag = format!("{} {compression}", self.algorithm.name());
        if let Some(sizes) = self.chunking.filter(|sizes| sizes.may_cut(size)) {
            let (min, avg, max) = (sizes.min(), sizes.avg(), sizes.max());
            let bulk = if self.bulk_chunks { " bulk" } else { "" };
            tag.push_str(&format!(" {min}-{avg}-{max}{bulk}"));
        }
        tag
    }

    /// Tells apart, over restarts too, parameters that would make something else of a file of
    /// `size` bytes.
    pub(crate) fn fingerprint(&self, size: u64) -> u64 {
        PathHash::of(self.tag(size).as_bytes()).0.cast_unsigned()
    }
}

impl From<&formats::server_conf::Params> for SealParams {
    fn from(params: &formats::server_conf::Params) -> Self {
        Self {
            algorithm: params.algorithm,
            compression: params.compression,
            chunking: params.chunking,
            bulk_chunks: params.bulk_chunks,
        }
    }
}

/// What a file was sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Raw bytes.
    pub size: u64,
    /// The objects, all of them in the job's store unless `known`.
    pub content: Content,
    /// By which equal content is known again.
    pub raw_hash: RawHash,
    /// The stage knew the content; nothing was compressed or stored.
    pub known: bool,
}

/// Why a file was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Its [`CancelToken`] said so.
    #[error("cancelled")]
    Cancelled,
    /// The sealer shuts down; the file has to be queued again at the next start.
    #[error("interrupted by a shutdown")]
    ShutDown,
    /// It was written to meanwhile.
    #[error("the file changed while it was sealed")]
    Changed,
    /// The backing file cannot be read.
    #[error("cannot read the staged bytes")]
    Read(#[source] io::Error),
    /// The objects cannot be stored.
    #[error("cannot store an object")]
    Store(#[source] StoreError),
}

impl SealError {
    /// True if sealing may succeed once there is space.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_out_of_space())
    }

    fn from_read(error: io::Error) -> Self {
        match error.kind() {
            // it was longer a moment ago
            io::ErrorKind::UnexpectedEof => Self::Changed,
            _ => Self::Read(error),
        }
    }

    fn from_store_write(objects: &dyn ObjectStore, error: io::Error) -> Self {
        Self::Store(match error.downcast::<StoreError>() {
            Ok(error) => error,
            Err(error) => {
                let place = objects
                    .local_dir()
                    .map_or_else(Default::default, ToOwned::to_owned);
                StoreError::io("write an object in", place, error)
            }
        })
    }
}

impl From<StoreError> for SealError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Calls a job off. Clones are one token.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Token>);

#[derive(Default)]
struct Token {
    cancelled: AtomicBool,
    /// The queued job, whose delay has no point any more once it is cancelled.
    queued: Mutex<Option<(Handle<Scratch>, Ticket)>>,
}

impl CancelToken {
    /// A token that nobody has used.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls the job off: a queued one is taken out by the next free worker, a running one gives up
    /// at its next block. Its callback is called either way, on a worker. Takes no time, and may be called under
    /// any lock that the callback takes.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        if let Some((pool, ticket)) = self.0.queued.lock().take() {
            pool.expedite(ticket);
        }
    }

    /// True once it was.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    fn bind(&self, pool: &Handle<Scratch>, ticket: Ticket) {
        *self.0.queued.lock() = Some((pool.clone(), ticket));
        if self.is_cancelled() {
            self.cancel();
        }
    }

    fn unbind(&self) {
        *self.0.queued.lock() = None;
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelToken")
            .field(&self.is_cancelled())
            .finish()
    }
}

/// Counts writes to a backing file. A clock's tick may be longer than the time between two writes;
/// with this, neither is overlooked. Clones are one counter.
#[derive(Clone, Debug, Default)]
pub struct Generation(Arc<AtomicU64>);

impl Generation {
    /// To be called before or after each write and truncation, before it is answered.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How often it was.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the stage has sealed before. A closure from hash to content is one, too.
pub trait Known: Send + Sync {
    /// The content sealed for this hash, if its objects are at hand.
    fn lookup(&self, raw: &RawHash) -> Option<Content>;

    /// False if no content of this size is known: a large file is then read once less.
    fn may_know_size(&self, size: u64) -> bool {
        let _ = size;
        true
    }
}

impl<F: Fn(&RawHash) -> Option<Content> + Send + Sync> Known for F {
    fn lookup(&self, raw: &RawHash) -> Option<Content> {
        self(raw)
    }
}

/// Is told once, on a worker's thread, with no lock of the sealer's held.
pub type Done = Box<dyn FnOnce(Result<Sealed, SealError>) + Send>;

/// A file to seal.
pub struct SealJob {
    /// What [`Sealer::urge`] calls it.
    pub id: u64,
    /// Its bytes.
    pub source: Source,
    /// How many, about: counts towards [`PENDING_BYTES_MAX`].
    pub size_hint: u64,
    /// What to make of them.
    pub params: Arc<SealParams>,
    /// Where to put it.
    pub objects: Arc<dyn ObjectStore>,
    /// Calls it off.
    pub cancel: CancelToken,
    /// Counts writes to the file.
    pub generation: Generation,
    /// When it may begin, unless it is urgent.
    pub not_before: Instant,
    /// Somebody waits for it.
    pub urgent: bool,
    /// Finds content that needs no sealing.
    pub known: Arc<dyn Known>,
    /// Hears how it ended.
    pub done: Done,
}

/// Bounds of a sealer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealerLimits {
    /// Threads.
    pub workers: usize,
    /// See [`PENDING_FILES_MAX`].
    pub pending_files_max: u64,
    /// See [`PENDING_BYTES_MAX`].
    pub pending_bytes_max: u64,
}

impl Default for SealerLimits {
    /// A worker for each core.
    fn default() -> Self {
        Self {
            workers: thread::available_parallelism().map_or(1, usize::from),
            pending_files_max: PENDING_FILES_MAX,
            pending_bytes_max: PENDING_BYTES_MAX,
        }
    }
}

#[derive(Default)]
struct Counters {
    sealed: AtomicU64,
    known: AtomicU64,
    cancelled: AtomicU64,
    changed: AtomicU64,
    failed: AtomicU64,
    raw_bytes: AtomicU64,
    known_bytes: AtomicU64,
    objects_new: AtomicU64,
    objects_present: AtomicU64,
    stored_bytes: AtomicU64,
}

impl Counters {
    fn stored(&self, outcome: Stored, bytes: u64) {
        match outcome {
            Stored::New => {
                self.objects_new.fetch_add(1, Ordering::Relaxed);
                self.stored_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Stored::Present => {
                self.objects_present.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn ended(&self, result: &Result<Sealed, SealError>) {
        let (count, bytes) = match result {
            Ok(sealed) if sealed.known => (&self.known, Some((&self.known_bytes, sealed.size))),
            Ok(sealed) => (&self.sealed, Some((&self.raw_bytes, sealed.size))),
            Err(SealError::Cancelled | SealError::ShutDown) => (&self.cancelled, None),
            Err(SealError::Changed) => (&self.changed, None),
            Err(SealError::Read(_) | SealError::Store(_)) => (&self.failed, None),
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Some((counter, bytes)) = bytes {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// A sealer's figures since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealMetrics {
    /// Files queued or running.
    pub pending_files: u64,
    /// Their bytes, by their hints.
    pub pending_bytes: u64,
    /// Files that wait for their time.
    pub delayed_files: u64,
    /// Files sealed.
    pub sealed_files: u64,
    /// Files whose content was known.
    pub known_files: u64,
    /// Files called off.
    pub cancelled_files: u64,
    /// Files that changed meanwhile.
    pub changed_files: u64,
    /// Files that could not be sealed.
    pub failed_files: u64,
    /// Raw bytes of sealed files.
    pub raw_bytes: u64,
    /// Raw bytes of files whose content was known.
    pub known_bytes: u64,
    /// Objects added to the stores.
    pub objects_new: u64,
    /// Objects that were there already.
    pub objects_present: u64,
    /// Bytes of the objects added.
    pub stored_bytes: u64,
    /// Time that each worker was not idle.
    pub busy: Vec<Duration>,
}

/// A queued or running job, to those who want to hurry it.
struct Queued {
    ticket: Ticket,
    urgent: Arc<AtomicBool>,
}

type Queue = Arc<Mutex<HashMap<u64, Queued>>>;

/// Seals files on a pool of workers.
pub struct Sealer {
    pool: Pool<Scratch>,
    counters: Arc<Counters>,
    queue: Queue,
}

impl Sealer {
    /// Starts the workers.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(limits: SealerLimits) -> io::Result<Self> {
        let pool = PoolLimits {
            workers: limits.workers,
            pending_max: limits.pending_files_max,
            pending_weight_max: limits.pending_bytes_max,
            nice: WORKER_NICE,
        };
        Ok(Self {
            pool: Pool::new(pool, "seal", Scratch::new)?,
            counters: Arc::default(),
            queue: Queue::default(),
        })
    }

    /// Queues a file. Never waits; see [`Sealer::admit`].
    pub fn submit(&self, job: SealJob) {
        let pool = self.pool.handle();
        let (id, ticket) = (job.id, pool.ticket());
        let urgent = Arc::new(AtomicBool::new(job.urgent));
        let cancel = job.cancel.clone();
        let not_before = if job.urgent {
            Instant::now()
        } else {
            job.not_before
        };
        let queued = Queued {
            ticket,
            urgent: urgent.clone(),
        };
        let is_urgent = job.urgent;
        self.queue.lock().insert(id, queued);

        let run = self.task(job, ticket, urgent);
        if let Some(refused) = pool.submit(ticket, not_before, run) {
            // the workers are gone, and the caller may hold locks that the callback takes
            thread::spawn(move || refused(Turn::Stop));
            return;
        }
        if is_urgent {
            pool.urge(ticket);
        }
        cancel.bind(pool, ticket);
    }

    fn task(&self, job: SealJob, ticket: Ticket, urgent: Arc<AtomicBool>) -> Run<Scratch> {
        let pending = self.pool.handle().pend(job.size_hint);
        let (queue, id) = (self.queue.clone(), job.id);
        let forget = Box::new(move || {
            let mut queue = queue.lock();
            // the id may be that of a newer job by now
            if queue.get(&id).is_some_and(|queued| queued.ticket == ticket) {
                queue.remove(&id);
            }
        });
        let counters = self.counters.clone();
        Box::new(move |turn| {
            job.cancel.unbind();
            let ending = Ending {
                done: job.done,
                pending,
                forget,
            };
            let brief = Brief {
                source: job.source,
                params: job.params,
                objects: job.objects,
                cancel: job.cancel,
                generation: job.generation,
                known: job.known,
            };
            let Turn::Work(scratch, pool) = turn else {
                return ending.tell(&counters, Err(SealError::ShutDown));
            };
            match Running::new(brief, urgent, counters.clone()) {
                Ok(running) => job::run(running, ending, scratch, pool),
                Err(error) => ending.tell(&counters, Err(error)),
            }
        })
    }

    /// Waits until the queue has room, at most `max_wait`; false if it is full even then. For
    /// writers that just closed a file: a few short calls slow them down, none hangs.
    pub fn admit(&self, max_wait: Duration) -> bool {
        self.pool.admit(max_wait)
    }

    /// Puts a job before all that nobody waits for, whatever its `not_before`.
    pub fn urge(&self, id: u64) {
        let found = self.queue.lock().get(&id).map(|queued| {
            queued.urgent.store(true, Ordering::Relaxed);
            queued.ticket
        });
        if let Some(ticket) = found {
            self.pool.handle().urge(ticket);
        }
    }

    /// [`Sealer::urge`] for every job there is.
    pub fn urge_all(&self) {
        let mut tickets: Vec<Ticket> = self.queue.lock().values().map(|q| q.ticket).collect();
        tickets.sort_unstable();
        for ticket in tickets {
            self.pool.handle().urge(ticket);
        }
    }

    /// Waits until no file is queued or running, at most `max_wait`; false if one still is.
    pub fn wait_idle(&self, max_wait: Duration) -> bool {
        self.pool.wait_idle(max_wait)
    }

    /// Begins no more files until [`Sealer::resume`].
    pub fn pause(&self) {
        self.pool.pause(true);
    }

    /// Ends [`Sealer::pause`].
    pub fn resume(&self) {
        self.pool.pause(false);
    }

    /// The figures.
    #[must_use]
    pub fn metrics(&self) -> SealMetrics {
        let depth = self.pool.depth();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        SealMetrics {
            pending_files: depth.pending,
            pending_bytes: depth.pending_weight,
            delayed_files: depth.delayed,
            sealed_files: get(&counters.sealed),
            known_files: get(&counters.known),
            cancelled_files: get(&counters.cancelled),
            changed_files: get(&counters.changed),
            failed_files: get(&counters.failed),
            raw_bytes: get(&counters.raw_bytes),
            known_bytes: get(&counters.known_bytes),
            objects_new: get(&counters.objects_new),
            objects_present: get(&counters.objects_present),
            stored_bytes: get(&counters.stored_bytes),
            busy: self.pool.busy(),
        }
    }

    /// Workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.pool.handle().workers()
    }

    /// Tells every job that has not ended [`SealError::ShutDown`] and ends the workers. Nothing is
    /// lost: what was not sealed is still in its backing file. Dropping the sealer does the same.
    pub fn shutdown(&self) {
        self.pool.shutdown();
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("metrics", &self.metrics())
            .finish()
    }
}

#[cfg(test)]
mod tests;
