//! One file on its way through a worker.
//!
//! ```text
//! up to 1 MiB            read at once; known? else cut, compress, store, all in memory
//! larger, never cut      streamed by one worker
//! larger, may be cut     handed over to `parallel`
//! ```
//!
//! Larger files are hashed first where the stage may know their content; otherwise the hash is made
//! on the way, and one pass is saved.

use std::fs::File;
use std::sync::Arc;

use formats::chunk::Xor32;
use formats::object::{Chunk, Content, ObjectKind};
use store::ObjectStore;

use super::raw::{RawHash, RawHasher};
use super::sink::{Part, store_bytes, store_part};
use super::source::{Source, Span, Spans, Stamp};
use super::{
    CancelToken, Counters, Done, Generation, Known, SealError, SealParams, Sealed, parallel,
};
use crate::pool::{Handle, Pending};
use crate::sync::atomic::{AtomicBool, Ordering};

/// A file of at most this size is read at once: what two buffers of each worker hold.
pub(super) const WHOLE_BYTES_MAX: u64 = 1 << 20;

/// What one worker keeps between files. It never grows beyond a compressed small file.
pub(crate) struct Scratch {
    pub(super) input: Vec<u8>,
    pub(super) packed: Vec<u8>,
}

impl Scratch {
    pub fn new() -> Self {
        Self {
            input: vec![0; WHOLE_BYTES_MAX as usize],
            packed: Vec::with_capacity(WHOLE_BYTES_MAX as usize),
        }
    }
}

/// What has to be told at the end, whatever the end is.
pub(super) struct Ending {
    pub done: Done,
    /// Gone once the callback has returned.
    pub pending: Pending<Scratch>,
    pub forget: Box<dyn FnOnce() + Send>,
}

impl Ending {
    pub fn tell(self, counters: &Counters, result: Result<Sealed, SealError>) {
        counters.ended(&result);
        (self.forget)();
        (self.done)(result);
        drop(self.pending);
    }
}

/// What of a job its parts share.
pub(super) struct Brief {
    pub source: Source,
    pub params: Arc<SealParams>,
    pub objects: Arc<dyn ObjectStore>,
    pub cancel: CancelToken,
    pub generation: Generation,
    pub known: Arc<dyn Known>,
}

/// A job whose turn has come.
pub(super) struct Running {
    pub job: Brief,
    pub urgent: Arc<AtomicBool>,
    pub counters: Arc<Counters>,
    pub file: Arc<File>,
    pub stamp: Stamp,
    generation: u64,
}

impl Running {
    pub fn new(
        job: Brief,
        urgent: Arc<AtomicBool>,
        counters: Arc<Counters>,
    ) -> Result<Self, SealError> {
        let generation = job.generation.get();
        if job.cancel.is_cancelled() {
            return Err(SealError::Cancelled);
        }
        let file = job.source.open().map_err(SealError::from_read)?;
        let stamp = Stamp::of(&file).map_err(SealError::from_read)?;
        Ok(Self {
            job,
            urgent,
            counters,
            file,
            stamp,
            generation,
        })
    }

    /// Whether there is still a point in going on.
    pub fn alive(&self, pool: &Handle<Scratch>) -> Result<(), SealError> {
        if pool.stopping() {
            return Err(SealError::ShutDown);
        }
        if self.job.cancel.is_cancelled() {
            return Err(SealError::Cancelled);
        }
        Ok(())
    }

    /// The result, if the file is still what it was when the sealing began.
    pub fn sealed(&self, content: Content, raw: RawHash, known: bool) -> Result<Sealed, SealError> {
        let now = Stamp::of(&self.file).map_err(SealError::from_read)?;
        if self.job.cancel.is_cancelled() {
            return Err(SealError::Cancelled);
        }
        if !self.stamp.still(&now) || self.job.generation.get() != self.generation {
            return Err(SealError::Changed);
        }
        Ok(Sealed {
            size: self.stamp.size,
            content,
            raw_hash: raw,
            known,
        })
    }

    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// True if this file may become more than one object.
    fn may_cut(&self) -> bool {
        let sizes = self.job.params.chunking;
        sizes.is_some_and(|sizes| sizes.may_cut(self.stamp.size))
    }
}

/// Gives a job its turn.
pub(super) fn run(running: Running, ending: Ending, scratch: &mut Scratch, pool: &Handle<Scratch>) {
    let counters = running.counters.clone();
    if running.stamp.size <= WHOLE_BYTES_MAX {
        let result = whole(&running, scratch);
        return ending.tell(&counters, result);
    }
    match look_up(&running, scratch, pool) {
        Err(error) => ending.tell(&counters, Err(error)),
        Ok(Looked::Known(content, raw)) => {
            let result = running.sealed(content, raw, true);
            ending.tell(&counters, result);
        }
        Ok(Looked::New(raw)) if running.may_cut() => {
            parallel::begin(running, ending, raw, scratch, pool);
        }
        Ok(Looked::New(raw)) => {
            let result = stream(&running, raw, scratch, pool);
            ending.tell(&counters, result);
        }
    }
}

/// A file that fits into the worker's buffer.
fn whole(running: &Running, scratch: &mut Scratch) -> Result<Sealed, SealError> {
    // bounded by WHOLE_BYTES_MAX
    let content = &mut scratch.input[..running.stamp.size as usize];
    let mut spans = Spans::new(&running.stamp, 0, running.stamp.size);
    loop {
        // the part of the buffer that the next bytes belong to
        let at = spans.at() as usize;
        match spans
            .next(&running.file, &mut content[at..])
            .map_err(SealError::from_read)?
        {
            None => break,
            Some(Span::Bytes(_)) => {}
            Some(Span::Zeros(len)) => content[at..at + len as usize].fill(0),
        }
    }
    let content = &*content;
    let job = &running.job;
    let raw = RawHasher::of(&job.params, content);
    if let Some(known) = job.known.lookup(&raw) {
        return running.sealed(known, raw, true);
    }
    let mut store = |kind, bytes: &[u8]| {
        let objects = &*job.objects;
        store_bytes(
            objects,
            &job.params,
            kind,
            bytes,
            &mut scratch.packed,
            &running.counters,
        )
    };
    let mut pieces = Vec::new();
    if let Some(sizes) = job
        .params
        .chunking
        .filter(|sizes| sizes.may_cut(running.stamp.size))
    {
        let mut chunker = Xor32::new(sizes);
        let mut at = 0;
        while let Some(n) = chunker.scan(&content[at..]) {
            at += n;
            if at < content.len() {
                pieces.push(at);
            }
        }
    }
    if pieces.is_empty() {
        let hash = store(ObjectKind::Data, content)?;
        return running.sealed(Content::Whole(hash), raw, false);
    }
    pieces.push(content.len());
    let bulk = match job.params.bulk_chunks {
        true => Some(store(ObjectKind::Data, content)?),
        false => None,
    };
    let mut chunks = Vec::with_capacity(pieces.len());
    let mut begin = 0;
    for end in pieces {
        let hash = store(ObjectKind::Chunk, &content[begin..end])?;
        chunks.push(Chunk {
            offset: begin as u64,
            size: (end - begin) as u64,
            hash,
        });
        begin = end;
    }
    running.sealed(Content::Chunks { bulk, chunks }, raw, false)
}

enum Looked {
    Known(Content, RawHash),
    /// The hash, if the content was hashed at all.
    New(Option<RawHash>),
}

/// Hashes a large file, if the stage may know its content.
fn look_up(
    running: &Running,
    scratch: &mut Scratch,
    pool: &Handle<Scratch>,
) -> Result<Looked, SealError> {
    let job = &running.job;
    if !job.known.may_know_size(running.stamp.size) {
        return Ok(Looked::New(None));
    }
    let mut hasher = RawHasher::new();
    let mut spans = Spans::new(&running.stamp, 0, running.stamp.size);
    let buffer = &mut scratch.input[..];
    while let Some(span) = spans
        .next(&running.file, buffer)
        .map_err(SealError::from_read)?
    {
        running.alive(pool)?;
        match span {
            Span::Bytes(bytes) => hasher.update(bytes),
            Span::Zeros(len) => hasher.zeros(len),
        }
    }
    let raw = hasher.finish(&job.params);
    Ok(match job.known.lookup(&raw) {
        Some(content) => Looked::Known(content, raw),
        None => Looked::New(Some(raw)),
    })
}

/// A large file that becomes one object, whatever is in it.
fn stream(
    running: &Running,
    raw: Option<RawHash>,
    scratch: &mut Scratch,
    pool: &Handle<Scratch>,
) -> Result<Sealed, SealError> {
    let job = &running.job;
    let mut hasher = raw.is_none().then(RawHasher::new);
    let part = Part {
        file: &running.file,
        spans: Spans::new(&running.stamp, 0, running.stamp.size),
        kind: ObjectKind::Data,
        alive: &|| running.alive(pool),
    };
    let (objects, buffer) = (&*job.objects, &mut scratch.input[..]);
    let counters = &running.counters;
    let hash = store_part(
        objects,
        &job.params,
        part,
        buffer,
        hasher.as_mut(),
        counters,
    )?;
    let made = hasher.map(|hasher| hasher.finish(&job.params));
    let raw = raw.or(made).ok_or(SealError::Changed)?;
    running.sealed(Content::Whole(hash), raw, false)
}
