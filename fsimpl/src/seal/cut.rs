//! Where the chunks of a file begin and end, found in one pass over its bytes.

use std::fs::File;

use formats::chunk::{ChunkSizes, Xor32};

use super::SealError;
use super::raw::RawHasher;
use super::source::{Span, Spans, Stamp};

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: u64,
    pub size: u64,
    /// All of it is a hole: pieces of one size are then one object.
    pub hole: bool,
}

/// The pass; it can rest between cuts, and holds no buffer while it does.
pub(super) struct Cutter {
    spans: Spans,
    chunker: Xor32,
    end: u64,
    begin: u64,
    hole: bool,
    /// Hashes on the way, if nobody has before.
    pub raw: Option<RawHasher>,
}

impl Cutter {
    pub fn new(stamp: &Stamp, sizes: ChunkSizes, raw: Option<RawHasher>) -> Self {
        Self {
            spans: Spans::new(stamp, 0, stamp.size),
            chunker: Xor32::new(sizes),
            end: stamp.size,
            begin: 0,
            hole: true,
            raw,
        }
    }

    /// The next piece; `None` after the last. `alive` is asked at every span.
    pub fn next(
        &mut self,
        file: &File,
        buffer: &mut [u8],
        alive: &dyn Fn() -> Result<(), SealError>,
    ) -> Result<Option<Piece>, SealError> {
        loop {
            alive()?;
            let from = self.spans.at();
            let Some(span) = self
                .spans
                .next(file, buffer)
                .map_err(SealError::from_read)?
            else {
                return Ok((self.begin < self.end).then(|| self.piece(self.end)));
            };
            let cut = match span {
                Span::Bytes(bytes) => self.chunker.scan(bytes).map(|n| n as u64),
                Span::Zeros(len) => self.chunker.scan_zeros(len),
            };
            let taken = cut.unwrap_or(span.len());
            self.hole &= taken == 0 || matches!(span, Span::Zeros(_));
            if let Some(raw) = &mut self.raw {
                match span {
                    // the cut lies within the span
                    Span::Bytes(bytes) => raw.update(&bytes[..taken as usize]),
                    Span::Zeros(_) => raw.zeros(taken),
                }
            }
            // a cut at the very end is none: the last piece is not empty
            if cut.is_some() && from + taken < self.end {
                self.spans.back_to(from + taken);
                return Ok(Some(self.piece(from + taken)));
            }
        }
    }

    fn piece(&mut self, until: u64) -> Piece {
        let piece = Piece {
            offset: self.begin,
            size: until - self.begin,
            hole: self.hole,
        };
        self.begin = until;
        self.hole = true;
        piece
    }
}
