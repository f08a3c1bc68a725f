//! The daemon's end of `STATE/control.sock`: requests in, events out. See [`crate::api`].
//!
//! Who asks is known by the kernel's word (`SO_PEERCRED`, `SO_PEERGROUPS`). Work is done on blocking
//! threads; a caller that goes away does not end what it began.

use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Path, State as Shared};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::post;
use axum::serve::IncomingStream;
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::access;
use crate::api::{Event, Progress, Request, Watch};
use crate::engine::Engine;
use crate::peer::Peer;
use crate::report::{Context, Failure, Kind, Result};
use crate::users;

pub mod client;

/// Longest request; a commit of many targets is far below.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Events that wait for a slow caller; progress beyond that is left out, results never.
const EVENTS_WAITING: usize = 64;

/// Answers what is the daemon's own; nothing else.
pub type Own = Box<dyn Fn(&Request) -> Option<Result<Value>> + Send + Sync>;

/// What the API needs of the daemon.
pub struct Control {
    /// Does the work.
    pub engine: Arc<Engine>,
    /// True while `unmount` is being answered.
    pub ending: Arc<AtomicBool>,
    /// Told once it is answered.
    pub stop: mpsc::Sender<()>,
    /// Does what no engine does without a daemon.
    pub own: Own,
    /// Takes the mount off; called with everything staged settled.
    pub unmount: Box<dyn Fn() -> Result<()> + Send + Sync>,
}

/// Binds the socket, for its owner and the members of its group.
///
/// # Errors
/// When it cannot be made.
pub fn bind(path: &FilePath, group: Option<&str>) -> Result<UnixListener> {
    let gid = match group {
        Some(name) => Some(users::id_of(name, users::GROUPS).ok_or_else(|| {
            Failure::usage(format!("[control]: there is no group {name:?}"))
                .hint("make it, or take the key out of the configuration")
        })?),
        None => None,
    };
    // the state's lock is ours: whoever made this socket is gone
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).context(format_args!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener = client::with_short_path(path, |short| UnixListener::bind(short))
        .context(format_args!("cannot make {}", path.display()))?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))
            .context(format_args!("cannot give {} to the group", path.display()))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .context(format_args!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

/// The service.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/{verb}", post(answer))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

/// The caller, taken when the connection is accepted.
#[derive(Clone)]
pub struct Caller(Option<Peer>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(Peer::of(stream.io()).ok())
    }
}

async fn answer(
    Shared(control): Shared<Arc<Control>>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    Path(verb): Path<String>,
    body: Bytes,
) -> Response<Body> {
    let request = match admit(&control, peer.as_ref(), &verb, &body) {
        Ok(request) => request,
        Err(failure) => return refuse(failure),
    };
    let (events, receiver) = mpsc::channel(EVENTS_WAITING);
    tokio::task::spawn_blocking(move || work(&control, &request, events));
    let mut response = Response::new(Body::from_stream(Lines(receiver)));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response
}

fn admit(control: &Control, peer: Option<&Peer>, verb: &str, body: &[u8]) -> Result<Request> {
    let peer =
        peer.ok_or_else(|| Failure::new(Kind::Denied, "the kernel does not say who asks"))?;
    let request = Request::from_http(verb, body)?;
    let owner = rustix::process::geteuid().as_raw();
    access::check(&request, peer, owner, &control.engine.settings())
        .inspect_err(|failure| tracing::warn!(uid = peer.uid, verb, "refused: {failure}"))?;
    if !matches!(request, Request::Health | Request::Status(_)) {
        tracing::info!(uid = peer.uid, verb, "asked");
    }
    Ok(request)
}

fn work(control: &Control, request: &Request, events: mpsc::Sender<Event>) {
    let watch = Telling(events);
    let mut result = match (control.own)(request) {
        Some(result) => result,
        None => control.engine.handle(request, &watch),
    };
    let ends = matches!(request, Request::Unmount(_));
    if ends && result.is_ok() {
        // from here on a vanished mount is our doing, and the answer goes out first
        control.ending.store(true, Ordering::SeqCst);
        // what was committed or dropped stays so; a busy mount is no reason to do it again
        result = match (control.unmount)() {
            Ok(()) => result,
            Err(failure) => Err(failure),
        };
    }
    let stops = ends && result.is_ok();
    if ends && !stops {
        control.ending.store(false, Ordering::SeqCst);
    }
    let last = match result {
        Ok(value) => Event::Done(value),
        Err(failure) => Event::Error(failure),
    };
    // the caller may be gone
    let _ = watch.0.blocking_send(last);
    if stops {
        let _ = control.stop.blocking_send(());
    }
}

struct Telling(mpsc::Sender<Event>);

impl Watch for Telling {
    fn progress(&self, progress: Progress) {
        let _ = self.0.try_send(Event::Progress(progress));
    }

    fn note(&self, text: &str) {
        let _ = self.0.try_send(Event::Note(text.to_owned()));
    }
}

/// Events as lines of JSON.
struct Lines(mpsc::Receiver<Event>);

impl futures_core::Stream for Lines {
    type Item = std::result::Result<Bytes, std::convert::Infallible>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0
            .poll_recv(context)
            .map(|event| Some(Ok(line(&event?))))
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn refuse(failure: Failure) -> Response<Body> {
    let status = match failure.kind {
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Body::from(line(&Event::Error(failure))));
    *response.status_mut() = status;
    response
}
