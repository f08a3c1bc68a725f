//! A publisher's end: its authority, its certificates, and HTTP to a site.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode};
use formats::warm::enrolment::{Credentials, Enrolment};
use formats::warm::identity::{Authority, Issued, Subject, certificate, private_key};
use formats::warm::{Missing, NodeName, Role};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use receiver::vault::Outcome;
use store::peer::connect;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::{Object, REPO, bundle, list};

pub const PUBLISHER: &str = "publisher.example.org";
pub const SITE: &str = "stratum1-a";

/// An authority of its own.
pub struct Publisher {
    pub authority: Authority,
}

impl Publisher {
    pub fn new() -> Self {
        Self {
            authority: Authority::generate(SystemTime::now()).unwrap(),
        }
    }

    pub fn issue(&self, role: Role, name: &str, made: SystemTime) -> Issued {
        let name: NodeName = name.parse().unwrap();
        let hosts = &["127.0.0.1", "localhost"][..];
        let subject = Subject {
            role,
            name: &name,
            hosts,
        };
        self.authority.issue(subject, made).unwrap()
    }

    /// What its own end shows, or whoever's.
    pub fn credentials(&self, role: Role, name: &str, made: SystemTime) -> Credentials {
        let issued = self.issue(role, name, made);
        Credentials {
            ca: self.authority.certificate().clone(),
            certificate: certificate(&issued.certificate).unwrap(),
            key: private_key(&issued.key).unwrap(),
        }
    }

    pub fn own(&self) -> Credentials {
        self.credentials(Role::Publisher, PUBLISHER, SystemTime::now())
    }

    /// The file that makes a receiver its site.
    pub fn enrolment(&self, url: Option<String>, repositories: &[&str]) -> Enrolment {
        let issued = self.issue(Role::Site, SITE, SystemTime::now());
        let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
        Enrolment {
            site: SITE.parse().unwrap(),
            publisher: PUBLISHER.parse().unwrap(),
            publisher_url: url,
            broker: None,
            broker_ca: None,
            repositories: repositories.iter().map(|name| (*name).into()).collect(),
            ca: text(self.authority.certificate_pem().unwrap()),
            certificate: text(issued.certificate),
            key: text(issued.key),
        }
    }
}

/// A connection to a site; a request at a time.
pub struct Caller {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: bool,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Caller {
    /// None if the site does not let us in.
    pub fn connect(as_whom: &Credentials, to: SocketAddr) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let sender = runtime.block_on(async {
            let host = to.ip().to_string();
            let wait = Duration::from_secs(20);
            let (stream, _) = connect(as_whom, &host, to.port(), wait).await.ok()?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            Some(sender)
        })?;
        Some(Self { runtime, sender })
    }

    /// None if the connection broke before there was an answer.
    pub fn ask(
        &mut self,
        method: Method,
        path: &str,
        session: Option<&str>,
        body: Vec<u8>,
    ) -> Option<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "s");
        if let Some(session) = session {
            request = request.header("x-prepub-session", session);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.runtime.block_on(async {
            self.sender.ready().await.ok()?;
            let answer = self.sender.send_request(request).await.ok()?;
            let (head, body) = answer.into_parts();
            Some(Answer {
                status: head.status,
                retry_after: head.headers.contains_key("retry-after"),
                body: body.collect().await.ok()?.to_bytes(),
            })
        })
    }

    pub fn post(&mut self, path: &str, body: Vec<u8>) -> Answer {
        self.ask(Method::POST, path, None, body).unwrap()
    }

    pub fn announce(&mut self, txn: &str, objects: &[Object]) -> Missing {
        let path = format!("/v1/{REPO}/transactions/{txn}");
        let answer = self.post(&path, list(objects));
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        Missing::parse(&answer.body).unwrap()
    }

    /// What is absent now, in the order of their keys.
    pub fn ask_again(&mut self, txn: &str) -> Answer {
        let path = format!("/v1/{REPO}/transactions/{txn}");
        self.ask(Method::GET, &path, None, Vec::new()).unwrap()
    }

    /// As it is: a bundle, or part of one.
    pub fn send_raw(&mut self, txn: &str, session: &str, bytes: Vec<u8>) -> Option<Answer> {
        let path = format!("/v1/{REPO}/transactions/{txn}/bundle");
        self.ask(Method::POST, &path, Some(session), bytes)
    }

    pub fn send(&mut self, txn: &str, session: &str, objects: &[Object]) -> Outcome {
        let answer = self.send_raw(txn, session, bundle(objects)).unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Announces and sends whatever is absent.
    pub fn push(&mut self, txn: &str, objects: &[Object]) {
        let missing = self.announce(txn, objects);
        let absent: Vec<Object> = missing
            .absent
            .ones()
            .map(|at| objects[at as usize].clone())
            .collect();
        let outcome = self.send(txn, &missing.session, &absent);
        assert_eq!(outcome.kept as usize, absent.len(), "{outcome:?}");
    }

    pub fn published(&mut self, txn: &str) {
        let path = format!("/v1/{REPO}/transactions/{txn}/published");
        let body = format!(
            "{{\"root_hash\":\"{}\",\"revision\":7,\"published_at\":\"2026-01-01T00:00:00Z\"}}",
            "ab".repeat(20)
        );
        let answer = self.post(&path, body.into_bytes());
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    }

    pub fn give_up(&mut self, txn: &str) {
        let path = format!("/v1/{REPO}/transactions/{txn}");
        let answer = self.ask(Method::DELETE, &path, None, Vec::new()).unwrap();
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    }
}

/// A bundle that was begun and does not go on; dropped, it breaks off.
pub struct Stalled {
    _runtime: Runtime,
    _stream: tokio_openssl::SslStream<tokio::net::TcpStream>,
}

impl Stalled {
    pub fn begin(
        whom: &Credentials,
        at: SocketAddr,
        txn: &str,
        session: &str,
        with: &[u8],
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let head = format!(
            "POST /v1/{REPO}/transactions/{txn}/bundle HTTP/1.1\r\nhost: s\r\n\
             x-prepub-session: {session}\r\ncontent-length: 1000000\r\n\r\n"
        );
        let stream = runtime.block_on(async {
            let host = at.ip().to_string();
            let wait = Duration::from_secs(20);
            let (mut stream, _) = connect(whom, &host, at.port(), wait).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(with).await.unwrap();
            stream.flush().await.unwrap();
            stream
        });
        Self {
            _runtime: runtime,
            _stream: stream,
        }
    }
}
