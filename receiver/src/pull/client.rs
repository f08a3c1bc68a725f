//! HTTP to a publisher: one connection, one request at a time.

use std::io::{self, Read};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use store::peer::{PeerError, connect};

use crate::api::fed;
use crate::doctor::http_date;
use crate::refusal::Refusal;
use crate::trust::Enrolled;

/// How long a connection may take to stand.
const CONNECT_WAIT: Duration = Duration::from_secs(15);
/// How long an answer may take to begin; a question for work is kept open for less.
const ANSWER_WAIT: Duration = Duration::from_secs(90);
/// The longest answer in JSON.
const JSON_BYTES_MAX: usize = 4 << 20;
/// Two receivers of one enrolment are told apart by it.
const INSTANCE_HEADER: &str = "x-prepub-instance";
/// Of a failure's body so much is shown.
const SHOWN_BYTES: usize = 500;

/// Why nothing, or no more, was fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A URL that is none.
    #[error("publisher_url {0:?} is no https://HOST:PORT; have the enrolment made again")]
    Url(String),
    /// The connection.
    #[error("{url}: the publisher cannot be reached")]
    Connect {
        /// Where.
        url: String,
        /// Why.
        source: PeerError,
    },
    /// Somebody else is there.
    #[error("{url}: {name} answers there, not the publisher {wanted}")]
    SomebodyElse {
        /// Where.
        url: String,
        /// Who.
        name: String,
        /// Who should.
        wanted: String,
    },
    /// The connection broke.
    #[error("{url}: the connection broke")]
    Broken {
        /// Where.
        url: String,
        /// How.
        source: hyper::Error,
    },
    /// Nothing came.
    #[error("{0}: no answer came")]
    Silent(String),
    /// It did not do it.
    #[error("{what}: the publisher answered {status}: {said}")]
    Status {
        /// What was asked.
        what: String,
        /// What it answered.
        status: StatusCode,
        /// In words.
        said: String,
    },
    /// An answer of another kind.
    #[error("{0}: the answer cannot be understood")]
    Answer(String),
    /// Objects were asked for, and none came that could be kept.
    #[error("no object of several bundles could be kept: {0}")]
    Fruitless(String),
    /// Our own side.
    #[error(transparent)]
    Refusal(#[from] Refusal),
}

/// An answer that went well.
pub enum Taken {
    /// 204.
    Nothing,
    /// 200.
    Body(Response<Incoming>),
}

/// See the module.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    url: String,
    host: HeaderValue,
    /// Who of this name we are; none: somebody who only looks.
    instance: Option<HeaderValue>,
    /// What the last answer said.
    date: Option<SystemTime>,
}

impl Client {
    /// Connects to a publisher, and to nobody else.
    pub async fn connect(
        who: &Enrolled,
        url: &str,
        instance: Option<&str>,
    ) -> Result<Self, PullError> {
        let bad = || PullError::Url(url.to_owned());
        let uri: axum::http::Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?;
        let port = uri.port_u16().unwrap_or(443);
        let connected = connect(&who.credentials, host, port, CONNECT_WAIT).await;
        let (stream, peer) = connected.map_err(|source| PullError::Connect {
            url: url.to_owned(),
            source,
        })?;
        if !who.is(&peer) {
            return Err(PullError::SomebodyElse {
                url: url.to_owned(),
                name: format!("the {} {}", peer.identity.role, peer.identity.name),
                wanted: who.enrolment.publisher.to_string(),
            });
        }
        let broken = |source| PullError::Broken {
            url: url.to_owned(),
            source,
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // it ends with the sender
        tokio::spawn(connection);
        Ok(Self {
            sender,
            host: HeaderValue::from_str(&format!("{host}:{port}")).map_err(|_| bad())?,
            instance: instance.and_then(|instance| HeaderValue::from_str(instance).ok()),
            url: url.trim_end_matches('/').to_owned(),
            date: None,
        })
    }

    /// The publisher's time when it last answered.
    pub fn their_time(&self) -> Option<SystemTime> {
        self.date
    }

    /// Asks.
    pub async fn get(&mut self, path: &str) -> Result<Taken, PullError> {
        self.send(Request::get(path), path, Vec::new()).await
    }

    /// Tells.
    pub async fn post(
        &mut self,
        path: &str,
        form: &'static str,
        body: Vec<u8>,
    ) -> Result<Taken, PullError> {
        let request = Request::post(path).header(header::CONTENT_TYPE, form);
        self.send(request, path, body).await
    }

    async fn send(
        &mut self,
        request: axum::http::request::Builder,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Taken, PullError> {
        let what = format!("{}{path}", self.url);
        let mut request = request.header(header::HOST, &self.host);
        if let Some(instance) = &self.instance {
            request = request.header(INSTANCE_HEADER, instance);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|_| PullError::Answer(what.clone()))?;
        let broken = |source| PullError::Broken {
            url: self.url.clone(),
            source,
        };
        let sent = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let answer = tokio::time::timeout(ANSWER_WAIT, sent).await;
        let answer = answer.map_err(|_| PullError::Silent(what.clone()))?;
        let answer = answer.map_err(broken)?;
        let date = answer.headers().get(header::DATE);
        self.date = date.and_then(|date| http_date(date.to_str().ok()?));
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Taken::Nothing),
            StatusCode::OK => Ok(Taken::Body(answer)),
            status => {
                let body = Limited::new(answer.into_body(), JSON_BYTES_MAX)
                    .collect()
                    .await;
                let bytes = body
                    .map(http_body_util::Collected::to_bytes)
                    .unwrap_or_default();
                let said = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
                Err(PullError::Status {
                    what,
                    status,
                    said: said.into_owned(),
                })
            }
        }
    }

    /// Reads an answer in JSON.
    pub async fn json<T: serde::de::DeserializeOwned>(
        &self,
        answer: Response<Incoming>,
    ) -> Result<T, PullError> {
        let unclear = || PullError::Answer(self.url.clone());
        let body = Limited::new(answer.into_body(), JSON_BYTES_MAX).collect();
        let body = tokio::time::timeout(ANSWER_WAIT, body).await;
        let body = body.map_err(|_| unclear())?.map_err(|_| unclear())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| unclear())
    }

    /// Hands an answer to work that blocks.
    pub async fn fed<T: Send + 'static>(
        &self,
        answer: Response<Incoming>,
        work: impl FnOnce(&mut dyn Read) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, PullError> {
        let body = Body::new(answer.into_body());
        Ok(fed(body, move |mut reader| work(&mut reader)).await?)
    }
}

/// Refuses an answer of another kind.
pub fn expect(answer: &Response<Incoming>, form: &str) -> Result<(), PullError> {
    let is = answer.headers().get(header::CONTENT_TYPE);
    match is.is_some_and(|is| is.as_bytes() == form.as_bytes()) {
        true => Ok(()),
        false => Err(PullError::Answer(format!("a body that is no {form}"))),
    }
}

impl From<io::Error> for PullError {
    fn from(error: io::Error) -> Self {
        Self::Refusal(Refusal::Malformed(error.to_string()))
    }
}
