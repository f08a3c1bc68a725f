//! One object: opened, hashed as stored, decompressed into a writer.
//!
//! What is wrong with an object is told apart here, once: missing, cut short, other bytes than its
//! name promises, or the right bytes and no valid stream. The writer may have taken bytes before
//! any of that is known, so nothing may be used before this returns.

use std::io::{self, Read, Write};
use std::sync::Arc;

use formats::compress::{DecompressError, decompress};
use formats::{Compression, Hash, Hasher, ObjectName};

use crate::error::StoreError;
use crate::object_store::{ObjectStore, read_error};

/// Bytes handed to the writer at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why an object is of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectFault {
    /// It is not in the storage.
    #[error("it is missing from {place}")]
    Missing {
        /// Where it was looked for.
        place: String,
    },
    /// The stored bytes end before the stream does.
    #[error("it is truncated: only {stored_bytes} bytes are stored")]
    Truncated {
        /// How many bytes there are.
        stored_bytes: u64,
    },
    /// The stored bytes hash to something else.
    #[error("it is damaged: its {stored_bytes} stored bytes hash to {actual}")]
    Damaged {
        /// How many bytes there are.
        stored_bytes: u64,
        /// What they hash to.
        actual: Hash,
    },
    /// The bytes are those that were published, and they cannot be decompressed.
    #[error("its bytes have the right hash, but cannot be decompressed")]
    NotAStream(#[source] Arc<io::Error>),
    /// Other content length than recorded.
    #[error("its content is {actual} bytes long, {expected} are recorded")]
    WrongSize {
        /// What a catalog or manifest says.
        expected: u64,
        /// What it decompresses to; one more than expected stands for any more.
        actual: u64,
    },
    /// The storage failed.
    #[error("it cannot be read")]
    Store(#[source] StoreError),
    /// The copy on this machine cannot be written or read.
    #[error("the cache of this machine failed")]
    Cache(#[source] StoreError),
}

/// How long the content has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    /// So many bytes.
    Exactly(u64),
    /// Not known, but never more than this.
    AtMost(u64),
}

impl Size {
    fn limit(self) -> u64 {
        match self {
            Self::Exactly(n) | Self::AtMost(n) => n,
        }
    }
}

/// Writes an object's content and returns its length. `Err(Cache)` has `path` in it.
pub(crate) fn fetch(
    store: &dyn ObjectStore,
    name: &ObjectName,
    how: Compression,
    size: Size,
    (out, path): (&mut dyn Write, &std::path::Path),
) -> Result<u64, ObjectFault> {
    let stored = store.open(name).map_err(|e| match e {
        StoreError::NotFound { place, .. } => ObjectFault::Missing { place },
        e => ObjectFault::Store(e),
    })?;
    let mut stored = Hashing {
        inner: stored,
        hasher: Hasher::new(name.hash.algorithm()),
        bytes: 0,
        failed: None,
    };
    let copied = match copy(how, size, &mut stored, out) {
        Err(Stop::Write(e)) => {
            return Err(ObjectFault::Cache(StoreError::io("write", path, e)));
        }
        Err(Stop::Read(e)) => Err(Bad::Stream(e)),
        Err(Stop::Size { expected, actual }) => Err(Bad::Size { expected, actual }),
        Ok(length) => Ok(length),
    };
    // the hash says whether the storage or the publisher is to blame, so it is wanted in any case
    let drained = io::copy(&mut stored, &mut io::sink());
    if let Some(e) = stored.failed.take() {
        return Err(ObjectFault::Store(read_error(store, name, e)));
    }
    if let Err(e) = drained {
        return Err(ObjectFault::Store(read_error(store, name, e)));
    }
    let stored_bytes = stored.bytes;
    let actual = stored.hasher.finish();
    if actual != name.hash {
        return Err(match copied {
            Err(Bad::Stream(e)) if is_short(&e) => ObjectFault::Truncated { stored_bytes },
            _ => ObjectFault::Damaged {
                stored_bytes,
                actual,
            },
        });
    }
    match copied {
        Ok(length) => Ok(length),
        Err(Bad::Stream(e)) => Err(ObjectFault::NotAStream(Arc::new(e))),
        Err(Bad::Size { expected, actual }) => Err(ObjectFault::WrongSize { expected, actual }),
    }
}

/// What is wrong with the content.
enum Bad {
    Stream(io::Error),
    Size { expected: u64, actual: u64 },
}

/// Why copying stopped.
enum Stop {
    Read(io::Error),
    Write(io::Error),
    Size { expected: u64, actual: u64 },
}

fn copy(
    how: Compression,
    size: Size,
    stored: &mut (impl Read + Send),
    out: &mut dyn Write,
) -> Result<u64, Stop> {
    let mut content = decompress(how, stored);
    let mut buffer = vec![
        0;
        BUFFER_BYTES.min(
            usize::try_from(size.limit())
                .unwrap_or(usize::MAX)
                .saturating_add(1)
        )
    ];
    let mut total: u64 = 0;
    loop {
        let n = match content.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Stop::Read(e)),
        };
        total += n as u64;
        let done = n == 0;
        let wrong = match size {
            Size::Exactly(expected) => total > expected || (done && total != expected),
            Size::AtMost(limit) => total > limit,
        };
        if wrong {
            // what a stranger's stream expands to is not worth counting
            let actual = total.min(size.limit().saturating_add(1));
            return Err(Stop::Size {
                expected: size.limit(),
                actual,
            });
        }
        if done {
            return Ok(total);
        }
        out.write_all(&buffer[..n]).map_err(Stop::Write)?;
    }
}

fn is_short(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<DecompressError>());
    matches!(inner, Some(DecompressError::Truncated))
        || error.kind() == io::ErrorKind::UnexpectedEof
}

/// Hashes and counts what passes, and keeps an error of the store apart from one of the stream.
struct Hashing<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed.is_some() {
            return Ok(0);
        }
        match self.inner.read(buffer) {
            Ok(n) => {
                self.hasher.update(&buffer[..n]);
                self.bytes += n as u64;
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                // reported from here; the stream merely ends
                self.failed = Some(e);
                Ok(0)
            }
        }
    }
}
