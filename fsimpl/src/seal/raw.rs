//! The hash by which equal raw content is known again.
//!
//! ```text
//! segment   4 MiB of the file (the last one shorter)
//! RawHash   BLAKE3( BLAKE3(segment) ... , size: u64 LE, parameters )
//! ```
//!
//! Segments let a hole count without being read. The parameters are those that decide what objects
//! the content becomes, so one `RawHash` always means one [`formats::Content`]. It is for this
//! stage alone: nothing published may depend on it.

use std::fmt;
use std::sync::OnceLock;

use super::SealParams;

/// Bytes hashed into one inner digest: large enough that the outer hash is free, small enough that
/// a hole of a few megabytes is worth something.
const SEGMENT_BYTES: usize = 4 << 20;

/// Zero bytes to hash or compress where a hole has no bytes to read.
pub(super) static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Names raw content together with the parameters that it is sealed by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RawHash(pub [u8; 32]);

impl fmt::Debug for RawHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes a file's content, in order.
pub(super) struct RawHasher {
    outer: blake3::Hasher,
    segment: blake3::Hasher,
    in_segment: usize,
    size: u64,
}

impl RawHasher {
    pub fn new() -> Self {
        Self {
            outer: blake3::Hasher::new(),
            segment: blake3::Hasher::new(),
            in_segment: 0,
            size: 0,
        }
    }

    pub fn of(params: &SealParams, bytes: &[u8]) -> RawHash {
        let mut hasher = Self::new();
        hasher.update(bytes);
        hasher.finish(params)
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let fits = bytes.len().min(SEGMENT_BYTES - self.in_segment);
            let (now, later) = bytes.split_at(fits);
            self.segment.update(now);
            self.in_segment += fits;
            if self.in_segment == SEGMENT_BYTES {
                self.end_segment();
            }
            bytes = later;
        }
    }

    /// As [`Self::update`] with `len` zero bytes.
    pub fn zeros(&mut self, mut len: u64) {
        while len > 0 {
            if self.in_segment == 0 && len >= SEGMENT_BYTES as u64 {
                self.outer.update(zero_segment());
                self.size += SEGMENT_BYTES as u64;
                len -= SEGMENT_BYTES as u64;
                continue;
            }
            let some = len
                .min(ZEROS.len() as u64)
                .min((SEGMENT_BYTES - self.in_segment) as u64);
            // no more than the length of an array
            self.update(&ZEROS[..some as usize]);
            len -= some;
        }
    }

    pub fn finish(mut self, params: &SealParams) -> RawHash {
        if self.in_segment > 0 {
            self.end_segment();
        }
        self.outer.update(&self.size.to_le_bytes());
        self.outer.update(params.tag(self.size).as_bytes());
        RawHash(*self.outer.finalize().as_bytes())
    }

    fn end_segment(&mut self) {
        self.outer.update(self.segment.finalize().as_bytes());
        self.segment.reset();
        self.in_segment = 0;
    }
}

/// The digest of a segment of zeros.
fn zero_segment() -> &'static [u8; 32] {
    static DIGEST: OnceLock<[u8; 32]> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let mut hasher = blake3::Hasher::new();
        for _ in 0..SEGMENT_BYTES / ZEROS.len() {
            hasher.update(&ZEROS);
        }
        *hasher.finalize().as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use formats::Algorithm;
    use formats::chunk::ChunkSizes;

    use super::*;

    #[test]
    fn zeros_hash_as_bytes_do() {
        let params = SealParams::default();
        for (before, zeros, after) in [
            (0, 0, 0),
            (5, 70_000, 3),
            (0, SEGMENT_BYTES, 0),
            (1, 2 * SEGMENT_BYTES, 9),
            (SEGMENT_BYTES - 1, 3 * SEGMENT_BYTES + 5, 1),
        ] {
            let mut content = vec![1; before];
            content.resize(before + zeros, 0);
            content.resize(before + zeros + after, 2);
            let mut sparse = RawHasher::new();
            sparse.update(&content[..before]);
            sparse.zeros(zeros as u64);
            sparse.update(&content[before + zeros..]);
            let whole = RawHasher::of(&params, &content);
            assert_eq!(sparse.finish(&params), whole, "{before} {zeros} {after}");
        }
    }

    #[test]
    fn parameters_and_size_count() {
        let plain = SealParams::default();
        let other = SealParams {
            algorithm: Algorithm::Rmd160,
            ..plain.clone()
        };
        assert_ne!(RawHasher::of(&plain, b"x"), RawHasher::of(&other, b"x"));
        let cut = SealParams {
            chunking: Some(ChunkSizes::new(32, 33, 34).unwrap()),
            ..plain.clone()
        };
        assert_eq!(RawHasher::of(&plain, b"x"), RawHasher::of(&cut, b"x"));
        let long = [7; 33];
        assert_ne!(RawHasher::of(&plain, &long), RawHasher::of(&cut, &long));
        assert_ne!(RawHasher::of(&plain, b""), RawHasher::of(&plain, b"\0"));
    }
}
