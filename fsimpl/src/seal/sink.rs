//! Raw bytes in, a stored object out: compress, hash, keep.

use std::fs::File;
use std::io::{self, Write};

use formats::compress::{Compressor, compress_into};
use formats::object::{Compression, ObjectKind, ObjectName};
use formats::{Hash, Hasher};
use store::{ObjectStore, Pending, StoreError, Stored, failpoint};

use super::raw::{RawHasher, ZEROS};
use super::source::{Span, Spans};
use super::{Counters, SealError, SealParams};

/// A store object being written, hashed on the way.
struct Hashed {
    hasher: Hasher,
    pending: Box<dyn Pending>,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.pending.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pending.flush()
    }
}

/// Stores content that is in memory.
pub(super) fn store_bytes(
    objects: &dyn ObjectStore,
    params: &SealParams,
    kind: ObjectKind,
    content: &[u8],
    packed: &mut Vec<u8>,
    counters: &Counters,
) -> Result<Hash, SealError> {
    let stored = match params.compression {
        Compression::None => content,
        Compression::Zlib => {
            packed.clear();
            compress_into(params.compression, content, packed);
            packed
        }
    };
    let hash = Hash::of(params.algorithm, stored);
    let name = ObjectName::new(hash, kind);
    // the name is known before the bytes are written, so equal objects need not be
    let outcome = if objects.has(&name)? {
        Stored::Present
    } else {
        failpoint::pass("seal::store").map_err(StoreError::from)?;
        store::put(objects, &name, stored)?
    };
    counters.stored(outcome, stored.len() as u64);
    Ok(hash)
}

/// Part of a file, to become one object.
pub(super) struct Part<'a> {
    pub file: &'a File,
    pub spans: Spans,
    pub kind: ObjectKind,
    /// Asked at every span whether there is still a point.
    pub alive: &'a dyn Fn() -> Result<(), SealError>,
}

/// Reads part of a file and stores it as one object; feeds `raw` too, if given.
pub(super) fn store_part(
    objects: &dyn ObjectStore,
    params: &SealParams,
    part: Part<'_>,
    buffer: &mut [u8],
    mut raw: Option<&mut RawHasher>,
    counters: &Counters,
) -> Result<Hash, SealError> {
    let Part {
        file,
        mut spans,
        kind,
        alive,
    } = part;
    let hashed = Hashed {
        hasher: Hasher::new(params.algorithm),
        pending: objects.begin()?,
        bytes: 0,
    };
    let mut compressor = Compressor::new(params.compression, hashed);
    let refused = |error: io::Error| SealError::from_store_write(objects, error);
    while let Some(span) = spans.next(file, buffer).map_err(SealError::from_read)? {
        alive()?;
        match span {
            Span::Bytes(bytes) => {
                compressor.write_all(bytes).map_err(refused)?;
                if let Some(raw) = &mut raw {
                    raw.update(bytes);
                }
            }
            Span::Zeros(len) => {
                if let Some(raw) = &mut raw {
                    raw.zeros(len);
                }
                write_zeros(&mut compressor, len, alive, &refused)?;
            }
        }
    }
    let hashed = compressor.finish().map_err(refused)?;
    let hash = hashed.hasher.finish();
    failpoint::pass("seal::store").map_err(StoreError::from)?;
    let outcome = hashed.pending.keep(&ObjectName::new(hash, kind))?;
    counters.stored(outcome, hashed.bytes);
    Ok(hash)
}

fn write_zeros(
    to: &mut impl Write,
    mut len: u64,
    alive: &dyn Fn() -> Result<(), SealError>,
    refused: &impl Fn(io::Error) -> SealError,
) -> Result<(), SealError> {
    while len > 0 {
        let some = len.min(ZEROS.len() as u64);
        // no more than the length of an array
        to.write_all(&ZEROS[..some as usize]).map_err(refused)?;
        len -= some;
        alive()?;
    }
    Ok(())
}
