//! The backing file that is sealed: opening it, noticing that it changed, reading it span by span.
//!
//! Only positioned reads: the descriptor may be shared with writers. Holes are told, not read, so
//! that a sparse file costs neither time nor page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Holes shorter than this are read like data: two system calls cost more than the bytes.
const HOLE_BYTES_MIN: u64 = 256 << 10;

/// Where the raw bytes are.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file that is opened when its turn comes, so that a long queue holds no descriptors.
    Path(PathBuf),
    /// An open file.
    File(Arc<File>),
}

impl From<Arc<File>> for Source {
    fn from(file: Arc<File>) -> Self {
        Self::File(file)
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl Source {
    pub(super) fn open(&self) -> io::Result<Arc<File>> {
        match self {
            Self::Path(path) => File::open(path).map(Arc::new),
            Self::File(file) => Ok(file.clone()),
        }
    }
}

/// What tells whether a file was written to meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size: u64,
    /// Allocated bytes; only says whether there may be holes.
    allocated: u64,
    mtime: (i64, i64),
}

impl Stamp {
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            size: meta.size(),
            allocated: meta.blocks() * 512,
            mtime: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// True unless somebody wrote. Allocation may settle late, on its own.
    pub fn still(&self, now: &Self) -> bool {
        (self.size, self.mtime) == (now.size, now.mtime)
    }
}

/// Part of a file's content.
pub(super) enum Span<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

impl Span<'_> {
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => *len,
        }
    }
}

/// Reads `at..end` of a file span by span.
pub(super) struct Spans {
    at: u64,
    end: u64,
    /// Up to here there is data, as far as asked.
    data_end: u64,
    /// Up to here there is a hole, as far as asked.
    hole_end: u64,
}

impl Spans {
    pub fn new(stamp: &Stamp, at: u64, end: u64) -> Self {
        let no_holes = stamp.allocated >= stamp.size;
        Self {
            at,
            end,
            data_end: if no_holes { end } else { at },
            hole_end: at,
        }
    }

    /// Where the next span begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes back, so that the next span begins at `at`, inside the last one.
    pub fn back_to(&mut self, at: u64) {
        debug_assert!(at <= self.at);
        self.at = at;
    }

    /// The next span; data in `buffer`. `None` at the end. `UnexpectedEof` if the file ends early.
    pub fn next<'b>(&mut self, file: &File, buffer: &'b mut [u8]) -> io::Result<Option<Span<'b>>> {
        if self.at == self.end {
            return Ok(None);
        }
        if self.at >= self.data_end && self.at >= self.hole_end {
            self.look(file)?;
        }
        if self.at < self.hole_end {
            let len = self.hole_end - self.at;
            self.at = self.hole_end;
            return Ok(Some(Span::Zeros(len)));
        }
        let left = usize::try_from(self.data_end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let n = read_at(file, &mut buffer[..wanted], self.at)?;
        self.at += n as u64;
        Ok(Some(Span::Bytes(&buffer[..n])))
    }

    /// Finds out what lies at `at`.
    fn look(&mut self, file: &File) -> io::Result<()> {
        let data = match rustix::fs::seek(file, SeekFrom::Data(self.at)) {
            Ok(data) => data.min(self.end),
            Err(Errno::NXIO) => self.end,
            // a filesystem that cannot tell has no holes
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.data_end = self.end;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if data > self.at && (data - self.at >= HOLE_BYTES_MIN || data == self.end) {
            self.hole_end = data;
            return Ok(());
        }
        let hole = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) => hole.min(self.end),
            Err(_) => self.end,
        };
        // punched meanwhile, at the worst: then the bytes read as zeros
        self.data_end = hole.max(self.at + 1);
        Ok(())
    }
}

/// Reads at least one byte; `UnexpectedEof` where there is none.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn spans_make_up_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let (hole, size) = (9 << 20, 20 << 20);
        file.write_all(&[7; 300_000]).unwrap();
        file.write_all_at(&[8; 5000], hole).unwrap();
        file.set_len(size).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let mut spans = Spans::new(&stamp, 0, size);
        let mut buffer = vec![0; 128 << 10];
        let mut content = Vec::new();
        let mut skipped = 0;
        while let Some(span) = spans.next(&file, &mut buffer).unwrap() {
            match span {
                Span::Bytes(bytes) => content.extend_from_slice(bytes),
                Span::Zeros(len) => {
                    skipped += len;
                    content.resize(content.len() + usize::try_from(len).unwrap(), 0);
                }
            }
            assert_eq!(spans.at(), content.len() as u64);
        }
        assert_eq!(content.len() as u64, size);
        assert!(content[..300_000].iter().all(|b| *b == 7));
        let at = usize::try_from(hole).unwrap();
        assert!(content[300_000..at].iter().all(|b| *b == 0));
        assert!(content[at..at + 5000].iter().all(|b| *b == 8));
        assert!(content[at + 5000..].iter().all(|b| *b == 0));
        // where the filesystem tells of holes at all, most of it was one
        assert!(skipped == 0 || skipped > size / 2, "{skipped}");
    }

    #[test]
    fn a_file_cut_short_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(&[1; 1000]).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let mut spans = Spans::new(&stamp, 0, 1000);
        file.set_len(0).unwrap();
        let error = spans.next(&file, &mut [0; 100]).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(!stamp.still(&Stamp::of(&file).unwrap()));
    }
}
