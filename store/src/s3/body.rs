//! An object on its way from a bucket: it goes on where it was after an interruption.
//!
//! Nothing here checks what the bytes are; whoever reads does.

use std::io::{self, Read};
use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};

use super::bucket::Bucket;
use super::error::S3Error;
use crate::error::StoreError;

/// See the module.
pub(super) struct Body {
    bucket: Arc<Bucket>,
    file: String,
    /// Until it is dropped, which takes the library's own threads.
    stream: Option<ByteStream>,
    piece: Bytes,
    done: u64,
    length: Option<u64>,
    /// Since the last bytes that arrived.
    failures: u32,
}

impl Body {
    pub fn new(bucket: Arc<Bucket>, file: String, answer: GetObjectOutput) -> Self {
        let length = answer.content_length().and_then(|n| u64::try_from(n).ok());
        Self {
            bucket,
            file,
            stream: Some(answer.body),
            piece: Bytes::new(),
            done: 0,
            length,
            failures: 0,
        }
    }

    /// The next bytes; none at the end.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let stream = self.stream.as_mut().expect("there until it is dropped");
            let failure: super::error::Shared = match self.bucket.block_on(stream.next()) {
                Some(Ok(piece)) => {
                    self.failures = 0;
                    return Ok(Some(piece));
                }
                None if self.length.is_some_and(|length| self.done < length) => {
                    Arc::new(io::Error::from(io::ErrorKind::UnexpectedEof))
                }
                None => return Ok(None),
                Some(Err(error)) => Arc::new(error),
            };
            if self.failures >= self.bucket.retries() {
                let error = S3Error::Unreachable {
                    what: format!("GET {}", self.bucket.address(&self.file)),
                    how: "the answer breaks off",
                    attempts: self.failures + 1,
                    source: failure,
                };
                return Err(StoreError::S3(error).into());
            }
            self.bucket.pause(self.failures);
            self.failures += 1;
            self.resume()?;
        }
    }

    /// Asks for the rest.
    fn resume(&mut self) -> io::Result<()> {
        let broken = |why: &str| {
            let place = self.bucket.address(&self.file);
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("{place}: {why}"))
        };
        let answer = self
            .bucket
            .get(&self.file, self.done)
            .map_err(StoreError::S3)?;
        let Some(answer) = answer else {
            return Err(broken("it is gone since its first bytes were sent"));
        };
        if self.done > 0 && answer.content_range().is_none() {
            return Err(broken(
                "the answer broke off, and the server cannot send the rest alone",
            ));
        }
        let _runtime = self.bucket.enter();
        self.stream = Some(answer.body);
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            match self.next()? {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..n]);
        self.done += n as u64;
        Ok(n)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let _runtime = self.bucket.enter();
        self.stream = None;
    }
}
