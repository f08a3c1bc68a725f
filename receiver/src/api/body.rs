//! A body that comes over the network, for a thread that reads it as it likes.
//!
//! Between the two are a few pieces, so memory does not depend on how much comes. One that stops
//! coming, or breaks off, ends: whoever reads it knows from the form of what is in it.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::blocking;
use crate::refusal::Refusal;

/// Pieces that were received and not read.
const PIECES: usize = 4;
/// How long the next piece may take.
const PIECE_WAIT: Duration = Duration::from_secs(60);
/// Of a body that nobody reads any more, so much is still taken: then its sender can hear why.
const REST_BYTES: usize = 32 << 20;

/// The reading end.
pub(crate) struct Reader {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = buffer.len().min(self.piece.len());
        buffer[..taken].copy_from_slice(&self.piece.split_to(taken));
        Ok(taken)
    }
}

/// Runs `work` on a thread where it may block, with the body to read from.
pub(crate) async fn fed<T: Send + 'static>(
    mut body: Body,
    work: impl FnOnce(Reader) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let reader = Reader {
        pieces,
        piece: Bytes::new(),
    };
    let working = tokio::spawn(blocking(move || work(reader)));
    let mut unread = 0;
    loop {
        let frame = match tokio::time::timeout(PIECE_WAIT, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            // the end, or none that will come
            _ => break,
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        let length = piece.len();
        if sender.send(piece).await.is_err() {
            unread += length;
            if unread > REST_BYTES {
                break;
            }
        }
    }
    drop(sender);
    match working.await {
        Ok(done) => done,
        Err(e) => Err(Refusal::Internal(e.to_string())),
    }
}
