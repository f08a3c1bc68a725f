//! Where a large file is cut: CVMFS's xor32 rolling checksum.
//!
//! Within a chunk that begins at offset 0, the first `min - 32` bytes are not looked at; the next
//! 32 fill the window; from then on each byte is taken in and tested, and where the test holds the
//! byte becomes the first of the next chunk. A chunk of `max` bytes is cut untested
//! [CVMFS `chunk_detector.cc:Xor32Detector`]. The cuts decide object names: this module must never
//! depend on how the data is split into calls.

/// Bytes that the 32-bit checksum remembers.
const WINDOW: u64 = 32;

/// A window of zeros.
const ZEROS: [u8; WINDOW as usize] = [0; WINDOW as usize];

/// The value around which a checksum cuts.
const MAGIC: u32 = 0x7fff_ffff;

/// Why three numbers are not chunk sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chunk sizes must be 32 <= minimum < average < maximum, not {min}, {avg}, {max}")]
pub struct ChunkSizesError {
    /// As given.
    pub min: u64,
    /// As given.
    pub avg: u64,
    /// As given.
    pub max: u64,
}

/// The three sizes, in bytes, that a repository chunks by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkSizes {
    min: u64,
    avg: u64,
    max: u64,
}

impl ChunkSizes {
    /// Checks and takes the sizes.
    ///
    /// # Errors
    /// [`ChunkSizesError`] unless 32 <= min < avg < max.
    pub fn new(min: u64, avg: u64, max: u64) -> Result<Self, ChunkSizesError> {
        if min < WINDOW || min >= avg || avg >= max {
            return Err(ChunkSizesError { min, avg, max });
        }
        Ok(Self { min, avg, max })
    }

    /// No chunk but the last is smaller, and no file of this size or less is cut.
    #[must_use]
    pub fn min(&self) -> u64 {
        self.min
    }

    /// What random data is cut into on average.
    #[must_use]
    pub fn avg(&self) -> u64 {
        self.avg
    }

    /// No chunk is larger.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// True if a file of `size` bytes may be cut at all.
    #[must_use]
    pub fn may_cut(&self, size: u64) -> bool {
        size > self.min
    }
}

impl Default for ChunkSizes {
    /// 4, 8 and 16 MiB.
    fn default() -> Self {
        Self {
            min: 4 << 20,
            avg: 8 << 20,
            max: 16 << 20,
        }
    }
}

/// Finds the cuts in data that arrives in pieces.
#[derive(Debug, Clone)]
pub struct Xor32 {
    sizes: ChunkSizes,
    // bytes of the current chunk seen so far
    seen: u64,
    checksum: u32,
    // the test, as one unsigned comparison: checksum - low < width
    low: u32,
    width: u32,
}

impl Xor32 {
    /// Starts at the beginning of a file.
    #[must_use]
    pub fn new(sizes: ChunkSizes) -> Self {
        // CVMFS: wrapping |checksum - MAGIC| < threshold, in signed 32-bit arithmetic. That is the
        // open interval of checksums around MAGIC, and, where the difference wraps to its own
        // negation, the checksum of all ones.
        let threshold = u32::try_from(u64::from(u32::MAX) / sizes.avg).unwrap_or(0);
        Self {
            sizes,
            seen: 0,
            checksum: 0,
            low: MAGIC.wrapping_sub(threshold).wrapping_add(1),
            width: (2 * threshold).saturating_sub(1),
        }
    }

    /// Takes the next bytes of the file, up to the first cut in them.
    ///
    /// `Some(n)`: a chunk ends after the first `n` bytes of `data`, and the next begins there; call
    /// again with the rest. `n` may be 0, when the chunk ends where `data` begins. `None`: all of
    /// `data` belongs to the current chunk. The file's end ends its last chunk, without a cut.
    pub fn scan(&mut self, data: &[u8]) -> Option<usize> {
        let ChunkSizes { min, max, .. } = self.sizes;
        let fill_from = min - WINDOW;
        let at = |chunk_offset: u64, seen: u64| {
            usize::try_from(chunk_offset.saturating_sub(seen))
                .unwrap_or(usize::MAX)
                .min(data.len())
        };
        let fill = at(fill_from, self.seen);
        let test = at(min, self.seen);
        let end = at(max, self.seen);

        let mut checksum = self.checksum;
        for byte in &data[fill..test] {
            checksum = (checksum << 1) ^ u32::from(*byte);
        }
        let (low, width) = (self.low, self.width);
        let hit = data[test..end].iter().position(|byte| {
            checksum = (checksum << 1) ^ u32::from(*byte);
            checksum.wrapping_sub(low) < width || checksum == u32::MAX
        });
        let cut = match hit {
            Some(n) => test + n,
            None if end < data.len() => end,
            None => {
                self.checksum = checksum;
                self.seen += data.len() as u64;
                return None;
            }
        };
        self.checksum = 0;
        self.seen = 0;
        Some(cut)
    }

    /// Takes `len` zero bytes, as [`Xor32::scan`] would take them from a buffer, but in no time: a
    /// hole in a sparse file need not be read.
    pub fn scan_zeros(&mut self, len: u64) -> Option<u64> {
        let mut done = 0;
        // a whole window of zeros leaves a checksum of 0, which never cuts and never changes
        while self.checksum != 0 && done < len {
            let piece = usize::try_from(len - done).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            match self.scan(&ZEROS[..piece]) {
                Some(cut) => return Some(done + cut as u64),
                None => done += piece as u64,
            }
        }
        let room = self.sizes.max - self.seen;
        if len - done > room {
            self.seen = 0;
            return Some(done + room);
        }
        self.seen += len - done;
        None
    }
}

#[cfg(test)]
mod tests;
