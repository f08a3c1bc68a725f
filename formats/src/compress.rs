//! How an object's bytes are stored: a zlib stream, or the bytes as they are.
//!
//! An object's name is the hash of what this module writes, so the stream must be classic zlib's
//! bit for bit: level 6, window 15, memory level 8, one stream, no flush in between
//! [CVMFS `compression.cc:CompressInit`]. No other module names `flate2`, and no other deflate
//! engine than the C zlib may ever be linked in here: tests/names.rs compares with published
//! objects.
//!
//! A deflate state takes about 270 KiB, and where several threads allocate them, getting one from
//! the system takes longer than compressing a small file (2 KB on two threads: 80 us an object
//! with new states, 20 us with kept ones). States are therefore kept and reset
//! ([`MAX_IDLE_STATES`]); that is invisible in the output.

use std::io::{self, Read, Write};
use std::sync::Mutex;

use flate2::write::GzEncoder;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use crate::object::Compression;

/// Bytes of compressed output gathered before they are handed on.
const OUT_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes of compressed input read at a time.
const IN_BUFFER_BYTES: usize = 32 * 1024;

/// Idle deflate states kept for the next object, in the whole process: enough for a thread on each
/// core of a large machine, and at most 11 MiB.
const MAX_IDLE_STATES: usize = 32;

static IDLE: Mutex<Vec<Engine>> = Mutex::new(Vec::new());

/// A deflate state and its output buffer.
struct Engine {
    deflate: Compress,
    out: Vec<u8>,
}

impl Engine {
    fn take() -> Self {
        let idle = IDLE.lock().map_or(None, |mut idle| idle.pop());
        idle.unwrap_or_else(|| Self {
            deflate: Compress::new(flate2::Compression::new(6), true),
            out: Vec::with_capacity(OUT_BUFFER_BYTES),
        })
    }

    fn give_back(mut self) {
        // resetting touches 64 KiB of hash table; a lock held for it would be held long
        self.deflate.reset();
        self.out.clear();
        if let Ok(mut idle) = IDLE.lock()
            && idle.len() < MAX_IDLE_STATES
        {
            idle.push(self);
        }
    }

    /// Feeds `input` and hands full buffers on to `sink`.
    fn write(&mut self, mut input: &[u8], sink: &mut impl Write) -> io::Result<()> {
        while !input.is_empty() {
            let before = self.deflate.total_in();
            self.step(input, FlushCompress::None, sink)?;
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn finish(&mut self, sink: &mut impl Write) -> io::Result<()> {
        while self.step(&[], FlushCompress::Finish, sink)? != Status::StreamEnd {}
        sink.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn step(
        &mut self,
        input: &[u8],
        flush: FlushCompress,
        sink: &mut impl Write,
    ) -> io::Result<Status> {
        if self.out.len() == self.out.capacity() {
            sink.write_all(&self.out)?;
            self.out.clear();
        }
        self.deflate
            .compress_vec(input, &mut self.out, flush)
            .map_err(io::Error::other)
    }
}

/// Stores `bytes` in one call.
#[must_use]
pub fn compress(how: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(match how {
        Compression::None => bytes.len(),
        Compression::Zlib => bytes.len() / 3 + 64,
    });
    compress_into(how, bytes, &mut out);
    out
}

/// A file as gzip(1) has it; nothing of CVMFS's.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    // a vector takes every write
    let done = encoder.write_all(bytes).and_then(|()| encoder.finish());
    debug_assert!(done.is_ok(), "deflate refused its input");
    done.unwrap_or_default()
}

/// Stores `bytes` in one call, appending to `out`.
pub fn compress_into(how: Compression, bytes: &[u8], out: &mut Vec<u8>) {
    if how == Compression::None {
        out.extend_from_slice(bytes);
        return;
    }
    let mut engine = Engine::take();
    // a vector takes every write, and deflate fails only when it is misused
    let done = engine.write(bytes, out).and_then(|()| engine.finish(out));
    debug_assert!(done.is_ok(), "deflate refused its input");
    engine.give_back();
}

/// Compresses what is written to it into `W`.
///
/// Dropped without [`Compressor::finish`], it leaves a truncated stream behind.
pub struct Compressor<W: Write> {
    // absent for `Compression::None`, and once given back
    engine: Option<Engine>,
    sink: W,
}

impl<W: Write> Compressor<W> {
    /// Starts a stream into `sink`.
    pub fn new(how: Compression, sink: W) -> Self {
        let engine = (how == Compression::Zlib).then(Engine::take);
        Self { engine, sink }
    }

    /// Ends the stream and hands the sink back. The sink is not flushed.
    ///
    /// # Errors
    /// What the sink answers to the last bytes.
    pub fn finish(self) -> io::Result<W> {
        let Self { engine, mut sink } = self;
        if let Some(mut engine) = engine {
            engine.finish(&mut sink)?;
            engine.give_back();
        }
        Ok(sink)
    }

    /// The sink, into which not everything has been written yet.
    pub fn get_ref(&self) -> &W {
        &self.sink
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.engine {
            Some(engine) => {
                engine.write(bytes, &mut self.sink)?;
                Ok(bytes.len())
            }
            None => self.sink.write(bytes),
        }
    }

    /// Flushes the sink. What the compressor holds stays: a flush inside the stream would change
    /// its bytes, and with them the object's name.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Why stored bytes cannot be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The zlib stream is malformed or its checksum is wrong.
    #[error("corrupt zlib stream")]
    Corrupt,
    /// The bytes end before the stream does.
    #[error("truncated zlib stream")]
    Truncated,
    /// There are bytes after the stream's end.
    #[error("bytes after the end of the zlib stream")]
    Trailing,
    /// The content is longer than the caller takes.
    #[error("content longer than {0} bytes")]
    TooLong(usize),
}

impl From<DecompressError> for io::Error {
    fn from(error: DecompressError) -> Self {
        let kind = match error {
            DecompressError::Truncated => io::ErrorKind::UnexpectedEof,
            DecompressError::TooLong(_) => io::ErrorKind::FileTooLarge,
            DecompressError::Corrupt | DecompressError::Trailing => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

/// Reads stored bytes back.
///
/// The reader holds a fixed amount of memory. A malformed, truncated or over-long stream is an
/// [`io::Error`] that wraps a [`DecompressError`]; bytes after the end are noticed by the read that
/// would otherwise have returned 0.
pub fn decompress<'a, R: Read + Send + 'a>(
    how: Compression,
    input: R,
) -> Box<dyn Read + Send + 'a> {
    match how {
        Compression::None => Box::new(input),
        Compression::Zlib => Box::new(Inflater {
            input,
            inflate: Decompress::new(true),
            buffer: vec![0; IN_BUFFER_BYTES].into_boxed_slice(),
            begin: 0,
            end: 0,
            state: State::Running,
        }),
    }
}

/// Reads stored bytes back in one call, if they make no more than `limit` bytes.
///
/// # Errors
/// [`DecompressError`]; with [`Compression::None`] only [`DecompressError::TooLong`].
pub fn decompress_all(
    how: Compression,
    stored: &[u8],
    limit: usize,
) -> Result<Vec<u8>, DecompressError> {
    let mut content = Vec::new();
    let more_than_all = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match decompress(how, stored)
        .take(more_than_all)
        .read_to_end(&mut content)
    {
        Ok(_) if content.len() > limit => Err(DecompressError::TooLong(limit)),
        Ok(_) => Ok(content),
        Err(error) => Err(error
            .downcast::<DecompressError>()
            .unwrap_or(DecompressError::Corrupt)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    StreamEnded,
    InputEnded,
    Failed(DecompressError),
}

struct Inflater<R> {
    input: R,
    inflate: Decompress,
    buffer: Box<[u8]>,
    // what of the buffer is still to be taken
    begin: usize,
    end: usize,
    state: State,
}

impl<R: Read> Inflater<R> {
    /// Makes sure that the buffer holds something, if anything is left; true if it does.
    fn fill(&mut self) -> io::Result<bool> {
        while self.begin == self.end {
            match self.input.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(n) => (self.begin, self.end) = (0, n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn fail(&mut self, error: DecompressError) -> io::Result<usize> {
        self.state = State::Failed(error);
        Err(error.into())
    }
}

impl<R: Read> Read for Inflater<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Running => {}
                State::InputEnded => return Ok(0),
                State::Failed(error) => return Err(error.into()),
                State::StreamEnded => {
                    if self.fill()? {
                        return self.fail(DecompressError::Trailing);
                    }
                    self.state = State::InputEnded;
                    return Ok(0);
                }
            }
            let more = self.fill()?;
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(
                &self.buffer[self.begin..self.end],
                out,
                FlushDecompress::None,
            );
            // both are bounded by the slices handed in
            let taken = (self.inflate.total_in() - before_in) as usize;
            let made = (self.inflate.total_out() - before_out) as usize;
            self.begin += taken;
            match status {
                Err(_) => return self.fail(DecompressError::Corrupt),
                Ok(Status::StreamEnd) => self.state = State::StreamEnded,
                Ok(_) if made == 0 && !more => return self.fail(DecompressError::Truncated),
                Ok(_) if made == 0 && taken == 0 => return self.fail(DecompressError::Corrupt),
                Ok(_) => {}
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

#[cfg(test)]
mod tests;
