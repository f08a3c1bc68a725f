//! The HTTP client that the AWS library is given: ours, with OpenSSL under it, and it listens for
//! silence.
//!
//! A request fails when nothing was sent and nothing came for as long as the configuration says, so
//! that a body of any size may take its time and a dead peer may not. Nothing here tries twice.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::config::{HttpClient, RuntimeComponents};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The peer says nothing.
#[derive(Debug, thiserror::Error)]
#[error("nothing was sent or received for {} s", .0.as_secs())]
pub(super) struct Silence(Duration);

/// See the module. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: reqwest::Client,
    silence: Duration,
}

impl Connector {
    /// Proxies are taken from the argument alone, and a redirect is an answer as any other.
    pub fn new(
        silence: Duration,
        connections: usize,
        proxy: Option<&str>,
    ) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(silence)
            .pool_max_idle_per_host(connections);
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy)?);
        }
        let client = builder.build()?;
        Ok(Self { client, silence })
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let ours = |e: BoxError| ConnectorError::user(e);
        let request = request.try_into_http1x().map_err(|e| ours(e.into()))?;
        let moved = Arc::new(AtomicU64::new(0));
        let (parts, body) = request.into_parts();
        let body = if body.is_end_stream() {
            reqwest::Body::from(Bytes::new())
        } else {
            let moved = Arc::clone(&moved);
            reqwest::Body::wrap(Counted { body, moved })
        };
        let mut request = reqwest::Request::try_from(http::Request::from_parts(parts, body))
            .map_err(|e| ours(e.into()))?;
        if matches!(
            *request.method(),
            reqwest::Method::GET | reqwest::Method::HEAD
        ) {
            *request.body_mut() = None;
        }
        let answered = unless_silent(self.client.execute(request), &moved, self.silence).await;
        let response = match answered {
            None => return Err(ConnectorError::timeout(Silence(self.silence).into())),
            Some(Err(e)) => return Err(ConnectorError::io(e.without_url().into())),
            Some(Ok(response)) => http::Response::<reqwest::Body>::from(response),
        };
        let silence = self.silence;
        let response = response.map(|body| SdkBody::from_body_1_x(Watched::new(body, silence)));
        HttpResponse::try_from(response).map_err(|e| ours(e.into()))
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for Connector {
    /// Who asks for more haste gets it: a search for credentials must not wait for an address that
    /// nobody has.
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let wanted = settings.read_timeout().map(|read| {
            let connect = settings.connect_timeout().unwrap_or_default();
            read.saturating_add(connect)
        });
        SharedHttpConnector::new(Self {
            client: self.client.clone(),
            silence: wanted.map_or(self.silence, |wanted| wanted.min(self.silence)),
        })
    }
}

/// What `work` yields; nothing once neither that nor a byte has come for so long.
async fn unless_silent<T>(
    work: impl Future<Output = T>,
    moved: &AtomicU64,
    silence: Duration,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut seen = 0;
    loop {
        if let Ok(done) = tokio::time::timeout(silence, &mut work).await {
            return Some(done);
        }
        match moved.load(Ordering::Relaxed) {
            same if same == seen => return None,
            more => seen = more,
        }
    }
}

/// A body on its way out, and how much of it is gone.
struct Counted {
    body: SdkBody,
    moved: Arc<AtomicU64>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

/// A body on its way in, which fails when it is waited for too long.
struct Watched {
    body: reqwest::Body,
    silence: Duration,
    alarm: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Watched {
    fn new(body: reqwest::Body, silence: Duration) -> Self {
        Self {
            body,
            silence,
            alarm: Box::pin(tokio::time::sleep(silence)),
            is_waiting: false,
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(cx) {
            self.is_waiting = false;
            return Poll::Ready(polled.map(|frame| frame.map_err(Into::into)));
        }
        // the reader's own pauses are none of the peer's
        if !self.is_waiting {
            self.is_waiting = true;
            let until = Instant::now() + self.silence;
            self.alarm.as_mut().reset(until);
        }
        match self.alarm.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Silence(self.silence).into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}
