//! Bytes on their way to a bucket: in memory while they are few, else in a file without a name.
//!
//! S3 wants to know length and checksum before the first byte, and a request may have to be made
//! again; so nothing is sent before it is complete here. A crash leaves nothing behind, as there is
//! no name to leave.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use md5::{Digest, Md5};

/// Held back in memory per object: most objects of a software tree are smaller, and hundreds may be
/// on their way at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// Read and sent at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// An object that grows.
pub(super) struct Spool {
    dir: PathBuf,
    buffer: Vec<u8>,
    file: Option<File>,
    bytes: u64,
    md5: Md5,
}

impl Spool {
    /// Files are made in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
            buffer: Vec::new(),
            file: None,
            bytes: 0,
            md5: Md5::new(),
        }
    }

    /// All of it.
    pub fn finish(mut self) -> io::Result<Held> {
        let place = match self.file.take() {
            None => Place::Memory(Bytes::from(self.buffer)),
            Some(mut file) => {
                file.write_all(&self.buffer)?;
                Place::File(Arc::new(file))
            }
        };
        Ok(Held {
            place,
            bytes: self.bytes,
            md5: self.md5.finalize().into(),
        })
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            let file = match self.file.take() {
                Some(file) => file,
                None => tempfile::tempfile_in(&self.dir)?,
            };
            let file = self.file.insert(file);
            file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
        self.md5.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An object that is complete, and can be sent as often as need be.
pub(super) struct Held {
    place: Place,
    pub bytes: u64,
    /// What the server checks it with.
    pub md5: [u8; 16],
}

enum Place {
    Memory(Bytes),
    File(Arc<File>),
}

impl Held {
    /// Bytes that are all at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            md5: Md5::digest(bytes).into(),
            place: Place::Memory(Bytes::copy_from_slice(bytes)),
        }
    }

    /// A file that does not change any more.
    pub fn of_file(file: File) -> io::Result<Self> {
        let mut md5 = Md5::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        loop {
            match (&file).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    md5.update(&buffer[..n]);
                    bytes += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self {
            place: Place::File(Arc::new(file)),
            bytes,
            md5: md5.finalize().into(),
        })
    }

    /// The body of a request.
    pub fn body(&self) -> ByteStream {
        match &self.place {
            Place::Memory(bytes) => ByteStream::from(bytes.clone()),
            Place::File(file) => ByteStream::new(SdkBody::from_body_1_x(FileBody {
                file: Arc::clone(file),
                at: 0,
                end: self.bytes,
            })),
        }
    }
}

/// A file as a body. Reading it blocks, for as long as a page cache takes.
struct FileBody {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        let read = self.file.read_exact_at(&mut piece, self.at);
        self.at += piece.len() as u64;
        Poll::Ready(Some(read.map(|()| Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
