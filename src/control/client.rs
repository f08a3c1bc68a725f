//! The CLI's end of the control socket.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::api::{Event, Request, Watch};
use crate::report::{Context, Failure, Kind, Result};

/// `sun_path` holds 108 bytes with its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long a daemon may take to begin an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A daemon that answers.
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client, if a daemon listens on the socket.
    ///
    /// # Errors
    /// A socket that is there and may not be used.
    pub fn connect(socket: &Path) -> Result<Option<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start")?;
        match runtime.block_on(connect(socket)) {
            Ok(_) => Ok(Some(Self {
                socket: socket.to_owned(),
                runtime,
            })),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Failure::new(
                Kind::Denied,
                format!("you may not use {}", socket.display()),
            )
            .because(&e)
            .hint("become a member of the socket's group ([control] in the configuration), or use sudo")),
            Err(e) => Err(silent(socket).because(&e)),
        }
    }

    /// Asks, tells `watch` what comes on the way, returns the answer.
    ///
    /// # Errors
    /// The daemon's own failure, or [`Kind::Unreachable`] if it dies meanwhile.
    pub fn ask(&self, request: &Request, watch: &dyn Watch) -> Result<Value> {
        self.runtime.block_on(ask(&self.socket, request, watch))
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(socket, |short| {
        std::os::unix::net::UnixStream::connect(short)
    })?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Calls `f` with a path to the same socket that fits into a socket address.
///
/// # Errors
/// Those of `f`, and of opening the directory.
pub fn with_short_path<T>(path: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return f(path);
    }
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return f(path);
    };
    let dir = std::fs::File::open(dir)?;
    f(&PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

fn lost(error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Kind::Unreachable, "the daemon went away before it answered")
        .because(error)
        .hint("staged changes are kept; STATE/log/prepub.log may say why, and `prepub mount` starts it again")
}

fn silent(socket: &Path) -> Failure {
    Failure::new(
        Kind::Unreachable,
        format!("the daemon does not answer on {}", socket.display()),
    )
    .hint("`prepub doctor` may say why; if the daemon is ended, staged changes are kept")
}

async fn ask(socket: &Path, request: &Request, watch: &dyn Watch) -> Result<Value> {
    let stream = connect(socket).await.map_err(|e| lost(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| lost(&e))?;
    tokio::spawn(connection);
    let mut body = serde_json::to_value(request).context("cannot write the request as JSON")?;
    if let Some(object) = body.as_object_mut() {
        object.remove("verb");
    }
    let http = axum::http::Request::post(format!("/v1/{}", request.verb()))
        .header("host", "prepub")
        .body(Full::new(Bytes::from(body.to_string())))
        .context("cannot write the request")?;
    // answers begin at once, however long they take: a daemon that is silent hangs
    let response = tokio::time::timeout(ANSWER_WAIT, sender.send_request(http))
        .await
        .map_err(|_| silent(socket))?
        .map_err(|e| lost(&e))?;
    listen(response.into_body(), watch).await
}

async fn listen(mut body: Incoming, watch: &dyn Watch) -> Result<Value> {
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| lost(&e))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        // an answer may be one line of many megabytes: what was looked at is not looked at again
        let mut looked = buffer.len();
        buffer.extend_from_slice(data);
        while let Some(end) = buffer[looked..].iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = buffer.drain(..=looked + end).collect();
            looked = 0;
            let event = serde_json::from_slice(&line).map_err(|e| {
                Failure::new(Kind::Unreachable, "the daemon speaks another language")
                    .because(&e)
                    .hint("is it another version of prepub? `prepub unmount` and `prepub mount` start this one")
            })?;
            match event {
                Event::Progress(progress) => watch.progress(progress),
                Event::Note(text) => watch.note(&text),
                Event::Done(value) => return Ok(value),
                Event::Error(failure) => return Err(failure),
            }
        }
    }
    Err(lost(&io::Error::from(ErrorKind::UnexpectedEof)))
}
