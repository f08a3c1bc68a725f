//! One large file on all workers: one finds the cuts, whoever is free seals the pieces.
//!
//! A piece is a range of the file, read again by the worker that seals it: the bytes are in the page
//! cache, and no buffer has to wait for a worker. So memory does not depend on the size of files or
//! chunks. The pass that finds the cuts rests when it is [`PIECES_AHEAD_PER_WORKER`] ahead, and is
//! taken up by whoever finishes a piece; no worker ever waits for another.

use std::collections::HashMap;
use std::sync::Arc;

use formats::Hash;
use formats::object::{Chunk, Content, ObjectKind};

use super::cut::{Cutter, Piece};
use super::job::{Ending, Running, Scratch};
use super::raw::{RawHash, RawHasher};
use super::sink;
use super::source::Spans;
use super::{SealError, Sealed};
use crate::pool::{Handle, Turn};
use crate::sync::Mutex;

/// Pieces found but not sealed, for each worker: enough that none runs dry while the next cuts are
/// sought, and few enough that they are still in the page cache when their turn comes.
const PIECES_AHEAD_PER_WORKER: usize = 4;

/// Bytes read at a time while looking for cuts. What lies behind a cut is read again, so less than
/// the smallest common chunk.
const SCAN_BYTES: usize = 256 << 10;

/// Which object of the file.
#[derive(Clone, Copy)]
enum Part {
    Piece(usize),
    Bulk,
}

#[derive(Default)]
struct Progress {
    /// The pass over the file, while it rests.
    resting: Option<Cutter>,
    /// Some worker is at it.
    searching: bool,
    all_found: bool,
    pieces: Vec<(Piece, Option<Hash>)>,
    /// The first piece of each size that is all hole; its object is that of the others.
    holes: HashMap<u64, usize>,
    /// Parts handed out and not back.
    out: usize,
    bulk: Option<Hash>,
    raw: Option<RawHash>,
    error: Option<SealError>,
    ending: Option<Ending>,
}

struct Large {
    running: Running,
    progress: Mutex<Progress>,
}

/// Begins a file.
pub(super) fn begin(
    running: Running,
    ending: Ending,
    raw: Option<RawHash>,
    scratch: &mut Scratch,
    pool: &Handle<Scratch>,
) {
    let Some(sizes) = running.job.params.chunking else {
        let counters = running.counters.clone();
        return ending.tell(&counters, Err(SealError::Changed));
    };
    let cutter = Cutter::new(&running.stamp, sizes, raw.is_none().then(RawHasher::new));
    let progress = Progress {
        searching: true,
        raw,
        ending: Some(ending),
        ..Progress::default()
    };
    let large = Arc::new(Large {
        running,
        progress: Mutex::new(progress),
    });
    large.find(cutter, scratch, pool);
}

impl Large {
    /// Finds pieces and hands them out, until enough are out or there are no more.
    fn find(self: &Arc<Self>, mut cutter: Cutter, scratch: &mut Scratch, pool: &Handle<Scratch>) {
        let buffer = &mut scratch.input[..SCAN_BYTES];
        let ahead_max = PIECES_AHEAD_PER_WORKER * pool.workers();
        loop {
            let found = cutter.next(&self.running.file, buffer, &|| self.running.alive(pool));
            let mut progress = self.progress.lock();
            match found {
                Ok(Some(piece)) => self.found(&mut progress, piece, pool),
                Ok(None) => {
                    if let Some(raw) = cutter.raw.take() {
                        progress.raw = Some(raw.finish(&self.running.job.params));
                    }
                    progress.all_found = true;
                }
                Err(error) => progress.error = progress.error.take().or(Some(error)),
            }
            if progress.all_found || progress.error.is_some() {
                progress.searching = false;
                drop(progress);
                return self.end_if_done();
            }
            if progress.out >= ahead_max {
                progress.searching = false;
                progress.resting = Some(cutter);
                return;
            }
        }
    }

    fn found(self: &Arc<Self>, progress: &mut Progress, piece: Piece, pool: &Handle<Scratch>) {
        let index = progress.pieces.len();
        progress.pieces.push((piece, None));
        if index == 1 && self.running.job.params.bulk_chunks {
            self.hand_out(progress, Part::Bulk, pool);
        }
        let seen_before = piece.hole && *progress.holes.entry(piece.size).or_insert(index) != index;
        // a first piece that reaches the end is the whole file, and no chunk
        let sole = index == 0 && piece.size == self.running.stamp.size;
        if !seen_before || sole {
            self.hand_out(progress, Part::Piece(index), pool);
        }
    }

    fn hand_out(self: &Arc<Self>, progress: &mut Progress, part: Part, pool: &Handle<Scratch>) {
        progress.out += 1;
        let large = self.clone();
        let run = Box::new(move |turn: Turn<'_, Scratch>| large.take(part, turn));
        pool.submit_piece(self.running.is_urgent(), run);
    }

    /// Seals a part; then takes up the search for cuts, or ends the file, if either is due.
    fn take(self: &Arc<Self>, part: Part, turn: Turn<'_, Scratch>) {
        let Turn::Work(scratch, pool) = turn else {
            let mut progress = self.progress.lock();
            progress.out -= 1;
            progress.error = Some(SealError::ShutDown);
            drop(progress);
            return self.end_if_done();
        };
        let result = self.seal(part, scratch, pool);
        let mut progress = self.progress.lock();
        progress.out -= 1;
        match (part, result) {
            (Part::Piece(index), Ok(hash)) => progress.pieces[index].1 = Some(hash),
            (Part::Bulk, Ok(hash)) => progress.bulk = Some(hash),
            (_, Err(error)) => progress.error = progress.error.take().or(Some(error)),
        }
        let low = PIECES_AHEAD_PER_WORKER * pool.workers() / 2;
        let resume = progress.error.is_none() && progress.out <= low;
        let cutter = progress.resting.take_if(|_| resume);
        progress.searching |= cutter.is_some();
        drop(progress);
        match cutter {
            Some(cutter) => self.find(cutter, scratch, pool),
            None => self.end_if_done(),
        }
    }

    fn seal(
        &self,
        part: Part,
        scratch: &mut Scratch,
        pool: &Handle<Scratch>,
    ) -> Result<Hash, SealError> {
        let running = &self.running;
        let (kind, offset, size) = match part {
            Part::Bulk => (ObjectKind::Data, 0, running.stamp.size),
            Part::Piece(index) => {
                let progress = self.progress.lock();
                if progress.error.is_some() {
                    // somebody has reported why; this is not looked at
                    return Err(SealError::Cancelled);
                }
                let Piece { offset, size, .. } = progress.pieces[index].0;
                let sole = size == running.stamp.size;
                (
                    if sole {
                        ObjectKind::Data
                    } else {
                        ObjectKind::Chunk
                    },
                    offset,
                    size,
                )
            }
        };
        let part = sink::Part {
            file: &running.file,
            spans: Spans::new(&running.stamp, offset, offset + size),
            kind,
            alive: &|| running.alive(pool),
        };
        let (job, buffer) = (&running.job, &mut scratch.input[..]);
        sink::store_part(
            &*job.objects,
            &job.params,
            part,
            buffer,
            None,
            &running.counters,
        )
    }

    /// Tells the end once nothing is out and nothing will be.
    fn end_if_done(&self) {
        let mut progress = self.progress.lock();
        let over = progress.all_found || progress.error.is_some();
        if !over || progress.searching || progress.out > 0 {
            return;
        }
        let Some(ending) = progress.ending.take() else {
            return;
        };
        let last = std::mem::take(&mut *progress);
        drop(progress);
        ending.tell(&self.running.counters, self.result(last));
    }

    fn result(&self, progress: Progress) -> Result<Sealed, SealError> {
        if let Some(error) = progress.error {
            return Err(error);
        }
        let raw = progress.raw.ok_or(SealError::Changed)?;
        let mut chunks = Vec::with_capacity(progress.pieces.len());
        for (piece, hash) in &progress.pieces {
            let twin = || progress.pieces[*progress.holes.get(&piece.size)?].1;
            let hash = hash.or_else(|| if piece.hole { twin() } else { None });
            let hash = hash.ok_or(SealError::Changed)?;
            chunks.push(Chunk {
                offset: piece.offset,
                size: piece.size,
                hash,
            });
        }
        let content = match chunks.as_slice() {
            [sole] => Content::Whole(sole.hash),
            _ => Content::Chunks {
                bulk: progress.bulk,
                chunks,
            },
        };
        self.running.sealed(content, raw, false)
    }
}
