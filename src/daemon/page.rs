//! `/metrics` and `/health`, over plain HTTP, for this machine's own monitoring.
//!
//! `/health` answers 200 where staging and publishing go on and 503 where not, and says what is wrong.
//! Nothing here waits for a storage: of what is published it is known what was last read of it. What
//! a disk or a tree's lock stand behind is looked at on threads of its own ([`looks`]); one that hangs is
//! told of, and not waited for. What is shown of it all is in [`moment`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use store::figures::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::clock;
use crate::engine::Engine;
use crate::engine::repo::Repo;

mod looks;
mod moment;

use looks::Looks;

/// How long a page waits for what is looked at: a busy disk answers sooner, and whoever collects
/// figures waits for 10 s as a rule.
const PATIENCE: Duration = Duration::from_secs(1);

/// The published head is read every `refresh_interval`, unless a commit is under way. A storage where that
/// failed for so much longer hangs.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);

struct Page {
    engine: Weak<Engine>,
    looks: Looks,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, engine: Weak<Engine>) {
    let page = Page {
        engine,
        looks: Looks::default(),
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(Arc::new(page));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::warn!("/metrics and /health ended: {error}");
    }
}

async fn metrics(Shared(page): Shared<Arc<Page>>) -> Response {
    let Some(engine) = page.look().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let is_healthy = problems(&engine, &page.looks).is_empty();
    let moment = moment::figures(&engine, &page.looks, is_healthy);
    let text = engine.metrics().text(moment);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

async fn health(Shared(page): Shared<Arc<Page>>) -> Response {
    let problems = match page.look().await {
        Some(engine) => problems(&engine, &page.looks),
        None => vec!["the daemon is ending".to_owned()],
    };
    let status = match problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::json!({
        "ok": problems.is_empty(),
        "version": env!("CARGO_PKG_VERSION"),
        "problems": problems,
    });
    (status, Json(body)).into_response()
}

impl Page {
    /// Looks at everything anew, as far as that answers soon. None: the daemon ends.
    async fn look(&self) -> Option<Arc<Engine>> {
        self.looks.begin(&*self.engine.upgrade()?);
        let _ = timeout(PATIENCE, self.looks.ended()).await;
        self.engine.upgrade()
    }
}

/// What keeps staging or publishing from going on.
fn problems(engine: &Engine, looks: &Looks) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, why) in engine.left_out() {
        let why = why.lines().next().unwrap_or_default();
        problems.push(format!("{name} is not mounted: {why}"));
    }
    let space = looks.space.seen();
    let dir = engine.state().stages();
    let answers = space.answers();
    match space.last {
        _ if !answers => problems.push(format!("{} does not answer", dir.display())),
        Some(Err(e)) => problems.push(format!("{}: {e}", dir.display())),
        Some(Ok(report)) if report.is_full() => {
            problems.push(format!("{} has no room: writers get ENOSPC", dir.display()))
        }
        Some(Ok(_)) | None => {}
    }
    for repo in engine.open_repos() {
        let mut add = |what: String| problems.push(format!("{}: {what}", repo.name()));
        let stage = looks.stage(repo.name()).look.seen();
        if !stage.answers() {
            add("the stage does not answer".into());
        } else if let Some(trouble) = stage.last.and_then(|stage| stage.trouble) {
            add(format!("changes cannot be recorded: {trouble}"));
        }
        let known = repo.published.known();
        if let Some(trouble) = known.trouble {
            add(trouble.lines().next().unwrap_or_default().to_owned());
        } else if let Some(seconds) = silent_for(engine, &repo) {
            add(format!(
                "what is published could not be read for {seconds} s"
            ));
        }
    }
    problems
}

/// For how many seconds the head was not read, if it should have been by now.
fn silent_for(engine: &Engine, repo: &Repo) -> Option<u64> {
    let head = repo.published.known().head?;
    let most = HEAD_PATIENCE + engine.settings().file.stage.refresh_interval.0;
    // a clock that is set back says nothing
    let ago = clock::wall().duration_since(head.read).ok()?;
    (ago > most && repo.commits.seen().is_empty()).then_some(ago.as_secs())
}
