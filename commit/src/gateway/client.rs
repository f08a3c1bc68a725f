//! The gateway's HTTP API. No other file speaks it.
//!
//! ```text
//! GET    /repos           which key may do what
//! POST   /leases          a lease on a path       -> token
//! POST   /leases/TOKEN    commit what was sent    -> revision
//! DELETE /leases/TOKEN    drop it
//! POST   /payloads        a pack of objects
//! ```
//!
//! A failure is HTTP 200 with `"status":"error"` and a reason. While any repository commits, the
//! gateway answers nothing about leases [gw/backend/lease_service.go: `leaseMutex`], so those requests
//! are patient. URLs of leases hold the token and appear in no message. Nothing is asked twice but
//! what never got through: what a lost reply means is for others to find out.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::{Body, RequestBuilder, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use reqwest::redirect::Policy;
use serde::Deserialize;
use store::ObjectStore;

use super::duration;
use super::error::GatewayError;
use super::key::{Key, Token};
use super::look::Standing;
use super::pack::Pack;

/// The version of the protocol that is spoken here, which is the official client's, and the oldest that
/// a gateway takes [gw/frontend/version.go].
pub(super) const API_VERSION: u64 = 2;
/// For a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer about leases: it waits for commits of others, which a big merge makes long. Giving up
/// early may leave a lease behind that nobody knows the token of.
const LEASE_TIMEOUT: Duration = Duration::from_secs(900);
/// After this long in silence the system asks whether the gateway is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often a connection is tried, a gateway that starts anew in mind.
const CONNECT_ATTEMPTS: u32 = 3;
/// The pause before the second attempt; it doubles.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// No answer comes near.
const REPLY_BYTES_MAX: u64 = 4 << 20;
/// A server's words that are repeated in a message.
const QUOTED_CHARS_MAX: usize = 200;

/// Asks one gateway about one repository.
pub(super) struct Client {
    http: reqwest::blocking::Client,
    /// Without a trailing slash.
    url: String,
    repo: String,
    key: Key,
    hostname: String,
}

/// What a commit says.
pub(super) struct Commit<'a> {
    /// The root catalog that the new one was made from, with its suffix.
    pub(super) old_root: String,
    pub(super) new_root: String,
    pub(super) tag: &'a str,
    pub(super) message: &'a str,
}

#[derive(Deserialize)]
struct Reply {
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    time_remaining: String,
    #[serde(default)]
    session_token: String,
    max_api_version: Option<u64>,
    final_revision: Option<u64>,
}

#[derive(Deserialize)]
struct Repositories {
    data: BTreeMap<String, Served>,
}

#[derive(Deserialize)]
struct Served {
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

impl Client {
    pub(super) fn new(
        url: &str,
        repo: &str,
        key: Key,
        hostname: &str,
    ) -> Result<Self, GatewayError> {
        let url = url.trim_end_matches('/').to_owned();
        let http = reqwest::blocking::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(LEASE_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            // requests are few, and one on a connection that has died in between would be lost
            .pool_max_idle_per_host(0)
            // signed requests go nowhere else
            .redirect(Policy::none())
            .user_agent(concat!("prepub/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| GatewayError::Client {
                url: url.clone(),
                source,
            })?;
        Ok(Self {
            http,
            url,
            repo: repo.to_owned(),
            key,
            hostname: hostname.to_owned(),
        })
    }

    /// The API's URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What it says of the key.
    pub(super) fn standing(&self) -> Result<Standing, GatewayError> {
        let what = "list repositories";
        let request = || self.http.get(format!("{}/repos", self.url));
        let response = self.ask(what, request)?;
        let date = response.headers().get(DATE);
        let date = date.and_then(|value| value.to_str().ok());
        let time = date.and_then(|text| httpdate::parse_http_date(text).ok());
        let (status, text) = read(what, response)?;
        let mut all: Repositories =
            serde_json::from_slice(&text).map_err(|_| strange(what, status, &text))?;
        let served =
            all.data
                .remove(&self.repo)
                .ok_or_else(|| GatewayError::UnknownRepository {
                    repo: self.repo.clone(),
                })?;
        match served.keys.get(self.key.id()) {
            Some(path) => Ok(Standing {
                path: path.clone(),
                time,
            }),
            None => Err(GatewayError::InvalidKey {
                id: self.key.id().to_owned(),
            }),
        }
    }

    /// Takes a lease on a path: `/` for the whole repository, else `/a/b`. With the version of the
    /// protocol that the gateway agreed to, if it says.
    pub(super) fn acquire(&self, path: &str) -> Result<(Token, Option<u64>), GatewayError> {
        let what = "lease a path";
        let reply = self.ask_for_lease(what, path)?;
        let token = Token::new(&reply.session_token).ok_or_else(|| GatewayError::Failed {
            what,
            reason: "it answered without a token".to_owned(),
        })?;
        Ok((token, reply.max_api_version))
    }

    /// How much longer our own lease on `path` lasts, by the gateway's clock: asking for it again is
    /// refused with what is left.
    pub(super) fn time_left(&self, path: &str) -> Result<Duration, GatewayError> {
        let what = "say how long a lease lasts";
        match self.ask_for_lease(what, path) {
            Err(GatewayError::Busy {
                left: Some(left), ..
            }) => Ok(left),
            Err(error) => Err(error),
            // it has expired in this very moment, and the new one is nobody's
            Ok(reply) => {
                if let Some(token) = Token::new(&reply.session_token) {
                    self.drop_lease(&token)?;
                }
                Ok(Duration::ZERO)
            }
        }
    }

    fn ask_for_lease(&self, what: &'static str, path: &str) -> Result<Reply, GatewayError> {
        let body = serde_json::json!({
            "path": format!("{}{path}", self.repo),
            "api_version": API_VERSION.to_string(),
            "hostname": self.hostname,
        })
        .to_string();
        let authorization = self.sign(body.as_bytes())?;
        let url = format!("{}/leases", self.url);
        let request = || {
            self.http
                .post(&url)
                .header(AUTHORIZATION, &authorization)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone())
        };
        self.judge(what, path, self.send(what, request)?)
    }

    /// Commits what was sent; the revision that the receiver made. `patience` is what is left of the
    /// lease: the gateway serves no request for longer.
    pub(super) fn commit(
        &self,
        token: &Token,
        commit: &Commit<'_>,
        patience: Duration,
    ) -> Result<u64, GatewayError> {
        let what = "commit";
        let body = serde_json::json!({
            "old_root_hash": commit.old_root,
            "new_root_hash": commit.new_root,
            "tag_name": commit.tag,
            "tag_channel": 0,
            "tag_description": commit.message,
        })
        .to_string();
        let authorization = self.sign(token.reveal().as_bytes())?;
        let url = format!("{}/leases/{}", self.url, token.reveal());
        let request = || {
            self.http
                .post(&url)
                .timeout(patience)
                .header(AUTHORIZATION, &authorization)
                .header(CONTENT_TYPE, "application/json")
                .body(body.clone())
        };
        let reply = self.judge(what, "", self.send(what, request)?)?;
        reply.final_revision.ok_or_else(|| GatewayError::Failed {
            what,
            reason: "it answered without a revision".to_owned(),
        })
    }

    /// Drops a lease. The answer comes when a commit on it that may be under way is over.
    pub(super) fn drop_lease(&self, token: &Token) -> Result<(), GatewayError> {
        let what = "drop a lease";
        let authorization = self.sign(token.reveal().as_bytes())?;
        let url = format!("{}/leases/{}", self.url, token.reveal());
        let request = || self.http.delete(&url).header(AUTHORIZATION, &authorization);
        match self.judge(what, "", self.send(what, request)?) {
            // expired, committed or dropped before: there is none any more, which is what was wanted
            Err(GatewayError::InvalidLease) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Sends a pack, its objects read from `store`. That it was accepted proves nothing.
    pub(super) fn payload(
        &self,
        token: &Token,
        pack: &Pack,
        store: &Arc<dyn ObjectStore>,
        patience: Duration,
    ) -> Result<(), GatewayError> {
        let what = "take a payload";
        let message = pack.message(token);
        let authorization = self.sign(&message)?;
        let url = format!("{}/payloads", self.url);
        let request = || {
            let reader =
                std::io::Cursor::new(message.clone()).chain(pack.reader(Arc::clone(store)));
            let bytes = message.len() as u64 + pack.len();
            self.http
                .post(&url)
                .timeout(patience)
                .header(AUTHORIZATION, &authorization)
                .header("Message-Size", message.len())
                .body(Body::sized(reader, bytes))
        };
        self.judge(what, "", self.send(what, request)?).map(drop)
    }

    fn sign(&self, message: &[u8]) -> Result<String, GatewayError> {
        self.key.authorize(message).map_err(GatewayError::Hmac)
    }

    /// Status and text of an answer.
    fn send(
        &self,
        what: &'static str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<(u16, Vec<u8>), GatewayError> {
        read(what, self.ask(what, request)?)
    }

    /// An answer that is not read yet. What did not even connect is tried again.
    fn ask(
        &self,
        what: &'static str,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<Response, GatewayError> {
        let mut pause = CONNECT_PAUSE;
        let mut attempt = 1;
        loop {
            match request().send() {
                Ok(response) => return Ok(response),
                Err(source) if source.is_connect() && attempt < CONNECT_ATTEMPTS => {
                    std::thread::sleep(pause);
                    pause *= 2;
                    attempt += 1;
                }
                Err(source) if source.is_connect() => {
                    return Err(GatewayError::Unreachable {
                        url: self.url.clone(),
                        source: source.without_url(),
                    });
                }
                Err(source) => return Err(lost(what, source)),
            }
        }
    }

    /// What an answer means.
    fn judge(
        &self,
        what: &'static str,
        path: &str,
        (status, text): (u16, Vec<u8>),
    ) -> Result<Reply, GatewayError> {
        let reply: Reply =
            serde_json::from_slice(&text).map_err(|_| strange(what, status, &text))?;
        let (id, repo) = (self.key.id().to_owned(), self.repo.clone());
        let (status, reason) = (reply.status.as_str(), reply.reason.as_str());
        Err(match (status, reason) {
            ("ok", _) => return Ok(reply),
            ("path_busy", _) => GatewayError::Busy {
                path: path.to_owned(),
                left: duration::parse(&reply.time_remaining),
            },
            (_, "invalid lease") => GatewayError::InvalidLease,
            (_, "invalid_hmac" | "invalid_key" | "authorization error: invalid_key") => {
                GatewayError::InvalidKey { id }
            }
            (_, "authorization error: invalid_path") => GatewayError::PathNotAllowed {
                id,
                path: path.to_owned(),
            },
            (_, "authorization error: invalid_repo") => GatewayError::UnknownRepository { repo },
            (_, reason) if reason.starts_with("incompatible request version") => {
                GatewayError::Protocol {
                    reason: quote(reason.as_bytes()),
                }
            }
            (_, "repo_disabled") => GatewayError::Disabled { repo },
            (_, reason) if reason.starts_with("repository not found") => {
                GatewayError::UnknownRepository { repo }
            }
            (_, reason) => GatewayError::Failed {
                what,
                reason: quote(reason.as_bytes()),
            },
        })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.repo, self.url)
    }
}

/// Status and text of an answer.
fn read(what: &'static str, response: Response) -> Result<(u16, Vec<u8>), GatewayError> {
    let status = response.status().as_u16();
    let mut text = Vec::new();
    match response.take(REPLY_BYTES_MAX).read_to_end(&mut text) {
        Ok(_) => Ok((status, text)),
        Err(error) => match error.downcast::<reqwest::Error>() {
            Ok(source) => Err(lost(what, source)),
            Err(_) => Err(strange(what, status, &text)),
        },
    }
}

fn lost(what: &'static str, source: reqwest::Error) -> GatewayError {
    GatewayError::NoReply {
        what,
        // the URL may hold a token
        source: source.without_url(),
    }
}

fn strange(what: &'static str, status: u16, text: &[u8]) -> GatewayError {
    GatewayError::Strange {
        what,
        status,
        text: quote(text),
    }
}

fn quote(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim().chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
