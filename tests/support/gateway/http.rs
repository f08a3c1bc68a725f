//! The gateway's HTTP: requests to [`Service`], replies in the form that Go's server gives them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

use super::service::{self, Reply, Service};

/// A server that answers until it is dropped.
pub struct Server {
    runtime: Option<Runtime>,
    pub address: SocketAddr,
}

impl Server {
    /// Listens on loopback; port 0 for any.
    pub fn start(service: Arc<Service>, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let bind = tokio::net::TcpListener::bind(("127.0.0.1", port));
        let listener = runtime.block_on(bind).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                let answer = service_fn(move |request| answer(service.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer);
                // a connection that fails concerns its client alone
                tokio::spawn(async { drop(connection.await) });
            }
        });
        Self {
            runtime: Some(runtime),
            address,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // the port is free for the next one only when the listener is gone
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed on purpose")
    }
}

impl std::error::Error for Closed {}

type Answer = Response<Full<Bytes>>;

async fn answer(service: Arc<Service>, request: Request<Incoming>) -> Result<Answer, Closed> {
    let header = |name: &str| {
        let value = request.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let mut asked = service::Request {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        authorization: header(AUTHORIZATION.as_str()),
        message_size: header("message-size"),
        chunked: header(TRANSFER_ENCODING.as_str()).is_some()
            && header(CONTENT_LENGTH.as_str()).is_none(),
        body: Vec::new(),
    };
    let body = request.into_body().collect().await;
    asked.body = body.map_err(|_| Closed)?.to_bytes().into();
    let date = httpdate::fmt_http_date(service.clock.now());
    // a commit takes its time, and a request that stands still takes even more
    let answered = tokio::task::spawn_blocking(move || service.answer(&asked));
    let mut response = match answered.await.map_err(|_| Closed)? {
        Reply::Json(value) => plain(200, value.to_string()),
        Reply::Text(status, text) => {
            let mut response = plain(status, text);
            let nosniff = hyper::header::HeaderValue::from_static("nosniff");
            let name = hyper::header::X_CONTENT_TYPE_OPTIONS;
            response.headers_mut().insert(name, nosniff);
            response
        }
        Reply::Gone => return Err(Closed),
    };
    let date = hyper::header::HeaderValue::try_from(date).map_err(|_| Closed)?;
    response.headers_mut().insert(hyper::header::DATE, date);
    Ok(response)
}

fn plain(status: u16, body: String) -> Answer {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "text/plain; charset=utf-8");
    response.body(Full::new(Bytes::from(body))).unwrap()
}
