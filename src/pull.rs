//! The listener for sites that allow no inbound connection: they ask here for their work.
//!
//! ```text
//! GET  /v1/work?wait=SECONDS                  what to fetch, what became visible; 204: nothing
//! GET  /v1/REPO/transactions/TXN/objects      the list       POST .../missing   the answer to it
//! POST /v1/REPO/transactions/TXN/bundle       names -> objects, as many as go into one
//! POST /v1/REPO/transactions/TXN/kept         acknowledged   POST .../seen      heard how it ended
//! ```
//! TLS and who is who are `store::peer`'s, what a site may have is `commit::warm::pull`'s: here bytes are
//! passed on and answers worded.

use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use commit::warm::Warmer;
use commit::warm::pull::{PullError, Pulling};
use formats::warm::bundle::BUNDLE_TYPE;
use formats::warm::list::{LIST_TYPE, MISSING_BYTES_MAX, list_bytes};
use formats::warm::{ListReader, Missing};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::json;
use store::peer::{Acceptor, Host, ListenLimits, Peer, PeerError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

/// Bundles that are sent at one time: each takes a thread that may block.
const BUNDLES: usize = 16;

/// The longest that a site waits for work in one question.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a site that waits is looked for work for.
const LOOK: Duration = Duration::from_millis(500);

/// How soon after the first site there is somebody to let in, and how often our own certificate is looked
/// at, which is renewed in time.
const FIRST_SITE: Duration = Duration::from_secs(2);
const RENEWED: Duration = Duration::from_secs(3600);

/// Which receiver of a site's name asks.
const INSTANCE_HEADER: &str = "x-prepub-instance";

/// Names that a site asks for or acknowledges at once.
const NAMES: u32 = 65_536;

/// A piece of what is sent, and how many may lie ready.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 4;

/// Serves until the runtime ends.
pub async fn serve(warmer: Arc<Warmer>, listener: TcpListener) {
    // before the first site there is no certificate to show
    let acceptor = loop {
        if let Some(acceptor) = acceptor(&warmer) {
            break acceptor;
        }
        tokio::time::sleep(FIRST_SITE).await;
    };
    let (renew, acceptors) = watch::channel(acceptor);
    let (_never, stop) = watch::channel(false);
    let door = Arc::new(Door::new(Arc::clone(&warmer)));
    let listening = store::peer::listen(listener, acceptors, ListenLimits::default(), door, stop);
    let renewing = async {
        loop {
            tokio::time::sleep(RENEWED).await;
            if let Some(acceptor) = self::acceptor(&warmer) {
                let _ = renew.send(acceptor);
            }
        }
    };
    tokio::select! {
        () = listening => {}
        () = renewing => {}
    }
}

fn acceptor(warmer: &Warmer) -> Option<Acceptor> {
    let own = warmer
        .credentials()
        .inspect_err(|e| tracing::error!("{e}"))
        .ok()??;
    let parsed = own.parsed().inspect_err(|e| tracing::error!("{e}")).ok()?;
    Acceptor::new(&[parsed])
        .inspect_err(|e| tracing::error!("{e}"))
        .ok()
}

#[derive(Clone)]
struct Shared {
    warmer: Arc<Warmer>,
    bundles: Arc<Semaphore>,
}

struct Door(Router);

impl Door {
    fn new(warmer: Arc<Warmer>) -> Self {
        let shared = Shared {
            warmer,
            bundles: Arc::new(Semaphore::new(BUNDLES)),
        };
        let router = Router::new()
            .route("/v1/work", get(work))
            .route("/v1/{repo}/transactions/{txn}/objects", get(objects))
            .route("/v1/{repo}/transactions/{txn}/missing", post(missing))
            .route("/v1/{repo}/transactions/{txn}/bundle", post(bundle))
            .route("/v1/{repo}/transactions/{txn}/kept", post(kept))
            .route("/v1/{repo}/transactions/{txn}/seen", post(seen))
            .with_state(shared);
        Self(router)
    }
}

impl Host for Door {
    type Service = TowerToHyperService<Router>;
    type Body = Body;

    fn service(&self, peer: Peer) -> Self::Service {
        TowerToHyperService::new(self.0.clone().layer(Extension(peer)))
    }

    fn refused(&self, from: SocketAddr, why: &PeerError) {
        tracing::info!("{from} was not let in: {why}");
    }
}

/// Why a site is not served.
enum Refusal {
    Pull(PullError),
    Malformed(&'static str),
    Busy,
    Internal,
}

impl From<PullError> for Refusal {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, text) = match &self {
            Self::Pull(error @ PullError::NotASite(_)) => {
                (StatusCode::FORBIDDEN, "stranger", error.to_string())
            }
            Self::Pull(error @ PullError::Duplicate(_)) => {
                (StatusCode::CONFLICT, "duplicate", error.to_string())
            }
            Self::Pull(error @ PullError::Unknown) => {
                (StatusCode::NOT_FOUND, "no_transaction", error.to_string())
            }
            Self::Pull(error @ PullError::Unfit) => {
                (StatusCode::BAD_REQUEST, "malformed", error.to_string())
            }
            Self::Pull(error) => (StatusCode::INTERNAL_SERVER_ERROR, "io", error.to_string()),
            Self::Malformed(what) => (StatusCode::BAD_REQUEST, "malformed", (*what).to_owned()),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "come again".to_owned(),
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "io", "failed".to_owned()),
        };
        tracing::debug!(code, "refused: {text}");
        let after = [(header::RETRY_AFTER, "1")];
        (status, after, Json(json!({ "error": text, "code": code }))).into_response()
    }
}

type Named = Path<(String, String)>;
type Answer = Result<Response, Refusal>;

/// Does what blocks elsewhere, for the site that the certificate names.
async fn for_site<T: Send + 'static>(
    shared: &Shared,
    peer: &Peer,
    work: impl FnOnce(&Pulling<'_>) -> Result<T, PullError> + Send + 'static,
) -> Result<T, Refusal> {
    let (warmer, identity) = (Arc::clone(&shared.warmer), peer.identity.clone());
    let done = tokio::task::spawn_blocking(move || work(&warmer.pulling(&identity)?));
    Ok(done.await.map_err(|_| Refusal::Internal)??)
}

#[derive(Deserialize)]
struct Wait {
    #[serde(default)]
    wait: u64,
}

async fn work(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Query(asked): Query<Wait>,
    headers: HeaderMap,
) -> Answer {
    let instance = headers.get(INSTANCE_HEADER).and_then(|it| it.to_str().ok());
    let instance = instance.map(str::to_owned);
    let deadline = Instant::now() + Duration::from_secs(asked.wait).min(WAIT_MAX);
    loop {
        let instance = instance.clone();
        let work = for_site(&shared, &peer, move |site| {
            site.arrives(instance.as_deref())?;
            Ok(site.work())
        });
        let work = work.await?;
        if !work.is_empty() {
            return Ok(Json(work).into_response());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

async fn objects(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
) -> Answer {
    let (file, length) = for_site(&shared, &peer, move |site| site.objects(&repo, &txn)).await?;
    let head = [
        (header::CONTENT_TYPE, LIST_TYPE.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((head, stream(file, None)).into_response())
}

async fn missing(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    body: Body,
) -> Answer {
    let bytes = whole(body, MISSING_BYTES_MAX).await?;
    let missing =
        Missing::parse(&bytes).map_err(|_| Refusal::Malformed("no list of what is absent"))?;
    for_site(&shared, &peer, move |site| {
        site.missing(&repo, &txn, &missing)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn bundle(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    body: Body,
) -> Answer {
    let names = names(body).await?;
    let turn = Arc::clone(&shared.bundles)
        .try_acquire_owned()
        .map_err(|_| Refusal::Busy)?;
    let bundle = for_site(&shared, &peer, move |site| {
        site.bundle(&repo, &txn, names.into_iter())
    });
    let head = [(header::CONTENT_TYPE, BUNDLE_TYPE)];
    Ok((head, stream(bundle.await?, Some(turn))).into_response())
}

async fn kept(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    body: Body,
) -> Answer {
    let names = names(body).await?;
    for_site(&shared, &peer, move |site| {
        site.kept(&repo, &txn, names.into_iter())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn seen(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
) -> Answer {
    for_site(&shared, &peer, move |site| site.seen(&repo, &txn)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn whole(body: Body, most: usize) -> Result<Bytes, Refusal> {
    let bytes = to_bytes(body, most).await;
    bytes.map_err(|_| Refusal::Malformed("a body that is cut short, or too long"))
}

async fn names(body: Body) -> Result<Vec<formats::ObjectName>, Refusal> {
    let most = usize::try_from(list_bytes(NAMES)).unwrap_or(usize::MAX);
    let bytes = whole(body, most).await?;
    let malformed = |_| Refusal::Malformed("no list of objects");
    let list = ListReader::new(&bytes[..]).map_err(malformed)?;
    let names = list.map(|listed| Ok(listed?.name));
    names.collect::<Result<_, _>>().map_err(malformed)
}

/// What a thread reads, as a body; one that fails in its middle is cut there. `keep` lives as long.
fn stream(
    mut input: impl Read + Send + 'static,
    keep: Option<tokio::sync::OwnedSemaphorePermit>,
) -> Body {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let _keep = keep;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    piece.truncate(read);
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    Body::from_stream(Pieces(pieces))
}

struct Pieces(mpsc::Receiver<std::io::Result<Bytes>>);

impl futures_core::Stream for Pieces {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
