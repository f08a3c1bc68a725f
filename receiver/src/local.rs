//! `/health` and `/metrics`, over plain HTTP, for this machine's own monitoring.
//!
//! `/health` answers 200 where objects can be taken in and 503 where not, and says what is wrong. What a
//! disk has to say is looked at on threads of its own: one that hangs is told of, and not waited for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use store::figures::{self, CONTENT_TYPE, Figures, Look};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::ledger;
use crate::site::Site;

/// How long a page waits for what is looked at: a busy disk answers sooner, and whoever collects
/// figures waits for 10 s as a rule.
const PATIENCE: Duration = Duration::from_secs(1);

/// States of a transaction, as they are named.
const STATES: [(ledger::State, &str); 3] = [
    (ledger::State::Open, "open"),
    (ledger::State::Published, "published"),
    (ledger::State::GivenUp, "given_up"),
];

/// Bytes that may still come, if that can be told; or why not.
type Room = Result<Option<u64>, String>;

struct Page {
    site: Arc<Site>,
    transactions: Look<[u64; STATES.len()]>,
    rooms: BTreeMap<String, Look<Room>>,
}

/// Serves until `stop` says so.
pub async fn serve(listener: TcpListener, site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let names = site.repos().keys().cloned();
    let page = Page {
        rooms: names.map(|name| (name, Look::default())).collect(),
        transactions: Look::default(),
        site,
    };
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(page));
    let until = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(until);
    if let Err(error) = served.await {
        tracing::warn!("/health and /metrics ended: {error}");
    }
}

async fn metrics(State(page): State<Arc<Page>>) -> Response {
    page.look().await;
    let text = page.site.metrics.text(page.moment());
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

async fn health(State(page): State<Arc<Page>>) -> Response {
    page.look().await;
    let problems = page.problems();
    let status = match problems.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "ok": problems.is_empty(),
        "version": env!("CARGO_PKG_VERSION"),
        "problems": problems,
    });
    (status, Json(body)).into_response()
}

impl Page {
    /// Looks at everything anew, as far as that answers soon.
    async fn look(&self) {
        let site = Arc::clone(&self.site);
        self.transactions
            .begin(move || STATES.map(|(state, _)| site.ledger.count(state) as u64));
        for (name, look) in &self.rooms {
            if let Some(repo) = self.site.repos().get(name).map(Arc::clone) {
                look.begin(move || repo.vault.headroom.room().map_err(|e| e.to_string()));
            }
        }
        let all = async {
            self.transactions.ended().await;
            for look in self.rooms.values() {
                look.ended().await;
            }
        };
        let _ = timeout(PATIENCE, all).await;
    }

    /// Figures of this moment.
    fn moment(&self) -> Figures {
        let mut figures = Figures::default();
        let counted = self.transactions.seen().last.into_iter().flatten();
        let states = STATES.map(|(_, word)| [word.to_owned()]);
        figures.gauge(
            "prepub_receiver_transactions",
            "transactions by state",
            ["state"],
            states.into_iter().zip(counted),
        );
        figures.gauge(
            "prepub_receiver_enrolments",
            "publishers that may send",
            [],
            [([], self.site.trust().enrolled.len() as u64)],
        );
        let rooms = self.rooms.iter();
        figures.gauge(
            "prepub_receiver_room_bytes",
            "bytes that may still come",
            ["repo"],
            rooms.filter_map(|(name, look)| {
                Some(([name.clone()], look.seen().last?.ok().flatten()?))
            }),
        );
        figures.gauge(
            "prepub_receiver_healthy",
            "1 if objects can be taken in, as /health says it",
            [],
            [([], self.problems().is_empty().into())],
        );
        figures::process(&mut figures);
        figures
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.site.trust().enrolled.is_empty() {
            let dir = self.site.config.enrolments.display();
            problems.push(format!("no publisher is enrolled in {dir}"));
        }
        if !self.transactions.seen().answers() {
            let dir = self.site.config.state_dir.display();
            problems.push(format!("the ledger in {dir} does not answer"));
        }
        for (name, look) in &self.rooms {
            let seen = look.seen();
            let answers = seen.answers();
            match seen.last {
                _ if !answers => {
                    problems.push(format!("{name}: the storage does not answer"));
                }
                Some(Ok(Some(0))) => problems.push(format!("{name}: there is no room for more")),
                Some(Err(e)) => problems.push(format!("{name}: {e}")),
                Some(Ok(_)) | None => {}
            }
        }
        problems
    }
}
