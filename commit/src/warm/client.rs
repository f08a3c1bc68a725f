//! A receiver's HTTP API, from the publisher's side. The only file here that speaks HTTP.
//!
//! Both ends show certificates of the publisher's authority. An answer counts only if it came from the
//! site that was meant: role, name and serial of the certificate are looked at with each, in place of a
//! host's name, since two sites may share a host, and one host be the site of two publishers.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use formats::warm::bundle::{BUNDLE_TYPE, bundle_bytes};
use formats::warm::identity::{self, NodeName, Role, Serial};
use formats::warm::list::{LIST_TYPE, MISSING_BYTES_MAX, list_bytes};
use formats::warm::{Listed, Missing};
use openssl::x509::X509;
use reqwest::blocking::{Body, Client as Http, RequestBuilder, Response};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::tls::{Certificate, Identity, TlsInfo, Version};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use store::chain;

use super::address::Address;
use super::control::{Control, Trouble};
use super::push::{Push, Told};
use super::registry::OwnCredentials;

/// For a connection to come about, the handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// For an answer, beyond the time that the bytes take: a receiver looks for each name on its disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A site that takes fewer bytes a second on a connection than this counts as hanging.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// A receiver that looks for fewer names a second than this counts as hanging.
const NAMES_PER_SECOND_MIN: u64 = 2_000;

/// How long connections that nobody uses are kept: longer than the pauses between two commits of a
/// busy afternoon would be a waste at the other end.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer in JSON: each object of a bundle refused, with a sentence.
const JSON_BYTES_MAX: u64 = 4 << 20;

/// What carries a bundle's session.
const SESSION_HEADER: &str = "x-prepub-session";

/// What a receiver did with a bundle.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Taken {
    pub(super) kept: u64,
    pub(super) present: u64,
    #[serde(default)]
    pub(super) refused: Vec<Refusal>,
}

/// An object that it did not take.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) code: String,
    #[serde(default)]
    pub(super) error: String,
}

#[derive(Deserialize)]
struct About {
    time: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    error: String,
    code: String,
    room: Option<u64>,
}

#[derive(Serialize)]
struct Published<'a> {
    root_hash: &'a str,
    revision: u64,
    published_at: &'a str,
}

/// A site, as it can be called.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    url: String,
    name: NodeName,
    serial: Serial,
}

impl Client {
    pub(super) fn new(
        address: Address,
        (name, serial): (&NodeName, &Serial),
        own: &OwnCredentials,
        connections: usize,
    ) -> Result<Self, reqwest::Error> {
        let http = Http::builder()
            .no_proxy()
            .https_only(true)
            .tls_certs_only([Certificate::from_pem(&own.ca)?])
            .identity(Identity::from_pkcs8_pem(&own.certificate, &own.key)?)
            .tls_version_min(Version::TLS_1_2)
            .tls_info(true)
            // a certificate is looked at more closely than that: must_be_them
            .tls_danger_accept_invalid_hostnames(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(connections)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .dns_resolver(Arc::new(address.clone()))
            .user_agent(concat!("prepub/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            url: address.url,
            name: name.clone(),
            serial: serial.clone(),
        })
    }

    fn request(&self, method: Method, push: &Push, below: &str) -> RequestBuilder {
        let url = format!(
            "{}/v1/{}/transactions/{}{below}",
            self.url, push.repo, push.txn
        );
        self.http.request(method, url)
    }

    /// Asks it for itself; says what time it has, in seconds since 1970, if it tells.
    pub(super) fn about(&self) -> Result<Option<u64>, Trouble> {
        let request = self.http.get(format!("{}/v1/self", self.url));
        let about: About = json(self.send(request.timeout(CONNECT_TIMEOUT))?)?;
        Ok(about.time)
    }

    /// Sends objects one after another.
    pub(super) fn bundle(
        &self,
        push: &Push,
        session: &str,
        objects: &[Listed],
        body: impl Read + Send + 'static,
        least: Duration,
    ) -> Result<Taken, Trouble> {
        let bytes = bundle_bytes(objects.iter().copied());
        let patience = Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let request = self
            .request(Method::POST, push, "/bundle")
            .header(CONTENT_TYPE, BUNDLE_TYPE)
            .header(SESSION_HEADER, session)
            .body(Body::sized(body, bytes))
            .timeout(ANSWER_TIMEOUT + patience.max(least * 2));
        let answer = self.send(request)?;
        let taken: Taken = json(answer)?;
        let told = taken.kept.saturating_add(taken.present);
        match told.saturating_add(taken.refused.len() as u64) == objects.len() as u64 {
            true => Ok(taken),
            false => Err(Trouble::Nonsense("other than so many objects in a bundle")),
        }
    }

    /// Asks what it lacks now of what was announced.
    pub(super) fn ask(&self, push: &Push) -> Result<Missing, Trouble> {
        self.missing(push, self.request(Method::GET, push, ""))
    }

    fn missing(&self, push: &Push, request: RequestBuilder) -> Result<Missing, Trouble> {
        let patience = Duration::from_secs(u64::from(push.objects) / NAMES_PER_SECOND_MIN);
        let answer = self.send(request.timeout(ANSWER_TIMEOUT + patience))?;
        let mut bytes = Vec::new();
        let read = answer
            .take(MISSING_BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes);
        read.map_err(broke_off)?;
        let missing =
            Missing::parse(&bytes).map_err(|_| Trouble::Nonsense("no list of what it lacks"))?;
        match missing.absent.len() == push.objects {
            true => Ok(missing),
            false => Err(Trouble::Nonsense("a list of another length")),
        }
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = request
            .send()
            .map_err(|error| Trouble::unreachable(short(&chain(&error.without_url()))))?;
        self.must_be_them(&response)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        let problem: Problem = json(response).unwrap_or_default();
        Err(match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Trouble::Busy {
                after: after.map(Duration::from_secs),
            },
            StatusCode::INSUFFICIENT_STORAGE => Trouble::Full {
                needed: 0,
                room: problem.room.unwrap_or_default(),
            },
            StatusCode::NOT_FOUND => Trouble::Stale,
            StatusCode::FORBIDDEN if problem.code == "session" => Trouble::Stale,
            // it was cut on its way
            StatusCode::BAD_REQUEST if problem.code == "bundle" => {
                Trouble::Unreachable(short(&problem.error))
            }
            status if status.is_server_error() => {
                Trouble::Unreachable(format!("{status} {}", short(&problem.error)))
            }
            status => Trouble::Refused(format!("{status} {}", short(&problem.error))),
        })
    }

    fn must_be_them(&self, response: &Response) -> Result<(), Trouble> {
        let shown = response.extensions().get::<TlsInfo>();
        let shown = shown.and_then(TlsInfo::peer_certificate);
        let peer = shown
            .and_then(|der| X509::from_der(der).ok())
            .and_then(|x509| identity::peer(&x509).ok())
            .ok_or_else(|| Trouble::NotThem("without a name".into()))?;
        if peer.role != Role::Site || peer.name != self.name {
            return Err(Trouble::NotThem(format!("the {} {}", peer.role, peer.name)));
        }
        match peer.serial == self.serial {
            true => Ok(()),
            false => Err(Trouble::NotThem(
                "a certificate of that name which is not good any more".into(),
            )),
        }
    }
}

impl Control for Client {
    fn announce(&self, push: &Push) -> Result<Missing, Trouble> {
        let list = push.list_file().map_err(|e| Trouble::Ours(e.to_string()))?;
        let request = self
            .request(Method::POST, push, "")
            .header(CONTENT_TYPE, LIST_TYPE)
            .body(Body::sized(list, list_bytes(push.objects)));
        self.missing(push, request)
    }

    fn published(&self, push: &Push, told: &Told) -> Result<(), Trouble> {
        let body = Published {
            root_hash: &told.root_hash,
            revision: told.revision,
            published_at: &told.published_at,
        };
        let body = serde_json::to_vec(&body).map_err(|e| Trouble::Ours(e.to_string()))?;
        let request = self
            .request(Method::POST, push, "/published")
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        self.send(request.timeout(ANSWER_TIMEOUT)).map(drop)
    }

    fn give_up(&self, push: &Push) -> Result<(), Trouble> {
        let request = self.request(Method::DELETE, push, "");
        match self.send(request.timeout(ANSWER_TIMEOUT)) {
            // it knows of nothing
            Ok(_) | Err(Trouble::Stale) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(answer: Response) -> Result<T, Trouble> {
    let mut bytes = Vec::new();
    let read = answer.take(JSON_BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(broke_off)?;
    serde_json::from_slice(&bytes).map_err(|_| Trouble::Nonsense("no JSON of ours"))
}

fn broke_off(error: io::Error) -> Trouble {
    Trouble::unreachable(short(&chain(&error)))
}

/// A foreign text on one line, and not longer than a person reads.
fn short(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).take(300).collect()
}
