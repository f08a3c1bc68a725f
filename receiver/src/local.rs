//! `/health` and `/metrics`, over plain HTTP, for this machine's own monitoring.
//!
//! `/health` answers 200 where objects can be taken in and 503 where not, and says what is wrong.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::site::Site;

/// Serves until `stop` says so.
pub async fn serve(listener: TcpListener, site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .with_state(site);
    let until = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(until);
    if let Err(error) = served.await {
        tracing::warn!("/health and /metrics ended: {error}");
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let text = tokio::task::spawn_blocking(move || site.metrics.render(&site.gauges())).await;
    let text = text.unwrap_or_default();
    let form = "text/plain; version=0.0.4";
    ([(header::CONTENT_TYPE, form)], text).into_response()
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    let problems = tokio::task::spawn_blocking(move || problems(&site)).await;
    let problems = problems.unwrap_or_else(|e| vec![e.to_string()]);
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

fn problems(site: &Site) -> Vec<String> {
    let mut problems = Vec::new();
    let trust = site.trust();
    if trust.enrolled.is_empty() {
        let dir = site.config.enrolments.display();
        problems.push(format!("no publisher is enrolled in {dir}"));
    }
    for (name, repo) in site.repos() {
        match repo.vault.headroom.room() {
            Ok(Some(0)) => problems.push(format!("{name}: there is no room for more")),
            Ok(_) => {}
            Err(e) => problems.push(format!("{name}: {e}")),
        }
    }
    problems
}
