//! What publishers call, over HTTPS.
//!
//! ```text
//! POST   /v1/REPO/transactions/TXN            a list of objects -> which are absent
//! GET    /v1/REPO/transactions/TXN            the same of what was announced, without sending it again
//! POST   /v1/REPO/transactions/TXN/bundle     objects (header x-prepub-session) -> what became of each
//! POST   /v1/REPO/transactions/TXN/published  {"root_hash", "revision", "published_at"}
//! DELETE /v1/REPO/transactions/TXN            it came to nothing
//! GET    /v1/self                             who we are
//! ```
//! Failures are `{"error": text, "code": word}`. Here bytes are passed on and answers worded; what is
//! allowed is decided in [`crate::site`].

mod body;

pub(crate) use body::fed;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use formats::warm::Missing;
use formats::warm::list::MISSING_TYPE;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use store::chain;
use store::peer::{Host, Peer, PeerError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal::Refusal;
use crate::site::{Published, Site, Visit};

/// The header with a session's token.
pub const SESSION_HEADER: &str = "x-prepub-session";
/// Lists that are read at one time, each in up to 33 MB of memory.
const LISTS: usize = 2;
/// How long a request waits for its turn before it is told to come again.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// What it is told.
const COME_AGAIN_SECONDS: &str = "1";
/// A small request's body.
const SMALL_BYTES: usize = 64 * 1024;

/// Serves publishers.
#[derive(Debug)]
pub struct Door {
    router: Router,
    site: Arc<Site>,
}

#[derive(Clone)]
struct Shared {
    site: Arc<Site>,
    bundles: Arc<Semaphore>,
    lists: Arc<Semaphore>,
}

impl Door {
    /// To a site.
    #[must_use]
    pub fn new(site: Arc<Site>) -> Self {
        let shared = Shared {
            bundles: Arc::new(Semaphore::new(site.config.limits.bundles)),
            lists: Arc::new(Semaphore::new(LISTS)),
            site: Arc::clone(&site),
        };
        let router = Router::new()
            .route("/v1/self", get(whoami))
            .route(
                "/v1/{repo}/transactions/{txn}",
                post(announce).get(ask).delete(give_up),
            )
            .route("/v1/{repo}/transactions/{txn}/bundle", post(bundle))
            .route("/v1/{repo}/transactions/{txn}/published", post(published))
            .with_state(shared);
        Self { router, site }
    }
}

impl Host for Door {
    type Service = TowerToHyperService<Router>;
    type Body = Body;

    fn service(&self, peer: Peer) -> Self::Service {
        TowerToHyperService::new(self.router.clone().layer(Extension(peer)))
    }

    fn refused(&self, from: std::net::SocketAddr, why: &PeerError) {
        self.site.metrics.strangers.one();
        tracing::info!("{from} was not let in: {why}");
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (code, status) = self.code();
        let mut body = json!({"error": chain(&self), "code": code});
        if let Self::NoRoom { room } = &self {
            body["room"] = (*room).into();
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let again = HeaderValue::from_static(COME_AGAIN_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, again);
        }
        response
    }
}

type Named = Path<(String, String)>;

/// Counts and logs what is refused.
fn told(site: &Site, answer: Result<Response, Refusal>) -> Response {
    answer.unwrap_or_else(|refusal| {
        let (code, status) = refusal.code();
        site.metrics.refusals.one(code);
        if status >= 500 {
            tracing::warn!("refused ({code}): {}", chain(&refusal));
        } else {
            tracing::info!("refused ({code}): {}", chain(&refusal));
        }
        refusal.into_response()
    })
}

/// Runs what blocks elsewhere.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Refusal::Internal(e.to_string())),
    }
}

/// Goes along with the work, which may outlive whoever asked for it.
async fn turn(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    match tokio::time::timeout(TURN_WAIT, Arc::clone(of).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Refusal::Busy),
    }
}

async fn announce(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    list: Body,
) -> Response {
    let site = &shared.site;
    let answer = async {
        let visit = site.admit(&peer, &repo, &txn)?;
        let turn = turn(&shared.lists).await?;
        let here = Arc::clone(site);
        let missing = fed(list, move |list| {
            let _turn = turn;
            here.announce(&visit, list)
        });
        lacks(&missing.await?)
    };
    told(site, answer.await)
}

async fn ask(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
) -> Response {
    let site = &shared.site;
    let answer = async {
        let visit = site.admit(&peer, &repo, &txn)?;
        let turn = turn(&shared.lists).await?;
        let here = Arc::clone(site);
        let missing = blocking(move || {
            let _turn = turn;
            here.ask(&visit)
        });
        lacks(&missing.await?)
    };
    told(site, answer.await)
}

fn lacks(missing: &Missing) -> Result<Response, Refusal> {
    let bytes = missing.render()?;
    Ok(([(header::CONTENT_TYPE, MISSING_TYPE)], bytes).into_response())
}

async fn bundle(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    headers: HeaderMap,
    objects: Body,
) -> Response {
    let site = &shared.site;
    let answer = async {
        let visit = site.admit(&peer, &repo, &txn)?;
        let session = headers.get(SESSION_HEADER).and_then(|it| it.to_str().ok());
        let session = session.ok_or(Refusal::Session)?.to_owned();
        let turn = turn(&shared.bundles).await?;
        let here = Arc::clone(site);
        let taken = fed(objects, move |objects| {
            let _turn = turn;
            here.bundle(&visit, &session, objects)
        });
        Ok(Json(taken.await?).into_response())
    };
    told(site, answer.await)
}

async fn published(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
    said: Body,
) -> Response {
    let site = &shared.site;
    let answer = async {
        let visit = site.admit(&peer, &repo, &txn)?;
        let bytes = small(said).await?;
        let said: Published = serde_json::from_slice(&bytes)
            .map_err(|e| Refusal::Malformed(format!("what was published: {e}")))?;
        let here = Arc::clone(site);
        blocking(move || here.published(&visit, &said)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    told(site, answer.await)
}

async fn give_up(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    Path((repo, txn)): Named,
) -> Response {
    let site = &shared.site;
    let answer = async {
        let visit: Visit = site.admit(&peer, &repo, &txn)?;
        let here = Arc::clone(site);
        blocking(move || here.give_up(&visit)).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    told(site, answer.await)
}

async fn whoami(State(shared): State<Shared>, Extension(peer): Extension<Peer>) -> Response {
    let site = &shared.site;
    let answer = async {
        let who = site.who(&peer)?;
        let here = Arc::clone(site);
        let rooms = blocking(move || {
            let mut rooms = Vec::new();
            for (name, repo) in here.repos().iter().filter(|(name, _)| who.may_send(name)) {
                rooms.push(json!({"name": name, "room": repo.vault.headroom.room()?}));
            }
            Ok(json!({
                "site": who.enrolment.site.as_str(),
                "version": env!("CARGO_PKG_VERSION"),
                "repositories": rooms,
                "time": here.clock.now(),
            }))
        });
        Ok(Json(rooms.await?).into_response())
    };
    told(site, answer.await)
}

async fn small(body: Body) -> Result<Bytes, Refusal> {
    let bytes = to_bytes(body, SMALL_BYTES).await;
    bytes.map_err(|e| Refusal::Malformed(format!("a body that cannot be read: {e}")))
}
