//! A client of the gateway that says exactly what it is told to, right or wrong.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use formats::{Algorithm, Hash, ObjectName};
use serde_json::{Value, json};

use crate::support::gateway::auth::authorization;

use super::draft::Made;

/// Who asks whom.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    repo: String,
    id: String,
    secret: String,
}

/// What a server says, or nothing.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Client {
    pub fn new(address: SocketAddr, repo: &str, id: &str, secret: &str) -> Self {
        Self {
            address,
            repo: repo.into(),
            id: id.into(),
            secret: secret.into(),
        }
    }

    /// The same client with another key.
    pub fn with_key(&self, id: &str, secret: &str) -> Self {
        Self::new(self.address, &self.repo, id, secret)
    }

    pub fn sign(&self, signed: &[u8]) -> String {
        authorization(&self.id, &self.secret, signed)
    }

    /// Sends a request. `headers` are lines; the length is announced unless one of them says how
    /// the body is sent.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut stream = TcpStream::connect(self.address)?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n");
        if !headers
            .iter()
            .any(|line| line.starts_with("Transfer-Encoding"))
        {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for line in headers {
            head += &format!("{line}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(closed)?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok(Response {
            status: status.ok_or_else(closed)?,
            body: body.to_owned(),
        })
    }

    /// A request with a signature over `signed`.
    pub fn ask(&self, method: &str, path: &str, signed: &[u8], body: &[u8]) -> io::Result<Value> {
        let headers = [format!("Authorization: {}", self.sign(signed))];
        let response = self.send(method, &format!("/api/v1{path}"), &headers, body)?;
        assert_eq!(response.status, 200, "{response:?}");
        Ok(response.json())
    }

    /// Asks for a lease on a path of the repository: `/` or `/some/path`.
    pub fn try_lease(&self, path: &str) -> Value {
        let path = format!("{}{path}", self.repo);
        let body = json!({"path": path, "api_version": "3", "hostname": "here"}).to_string();
        let answer = self.ask("POST", "/leases", body.as_bytes(), body.as_bytes());
        answer.unwrap()
    }

    /// A lease's token.
    #[track_caller]
    pub fn lease(&self, path: &str) -> String {
        let answer = self.try_lease(path);
        let token = answer["session_token"].as_str();
        token
            .unwrap_or_else(|| panic!("{path}: {answer}"))
            .to_owned()
    }

    pub fn drop_lease(&self, token: &str) -> Value {
        let path = format!("/leases/{token}");
        self.ask("DELETE", &path, token.as_bytes(), b"").unwrap()
    }

    /// Sends objects in one pack.
    #[track_caller]
    pub fn upload(&self, token: &str, objects: &[(ObjectName, Vec<u8>)]) {
        let answer = self.payload(token, &Pack::of(objects)).unwrap();
        assert_eq!(answer, json!({"status": "ok"}));
    }

    pub fn payload(&self, token: &str, pack: &Pack) -> io::Result<Value> {
        let message = pack.message(token);
        let headers = [
            format!("Authorization: {}", self.sign(token.as_bytes())),
            format!("Message-Size: {}", message.len()),
        ];
        let body = [message.as_bytes(), &pack.header, &pack.body].concat();
        let path = format!("/api/v1/payloads/{token}");
        Ok(self.send("POST", &path, &headers, &body)?.json())
    }

    pub fn commit(&self, token: &str, made: &Made, tag: &str) -> Value {
        self.try_commit(token, made, tag).unwrap()
    }

    pub fn try_commit(&self, token: &str, made: &Made, tag: &str) -> io::Result<Value> {
        let body = json!({
            "old_root_hash": format!("{}C", made.base),
            "new_root_hash": format!("{}C", made.root),
            "tag_name": tag,
            "tag_channel": 0,
            "tag_description": format!("about {tag}"),
        });
        let (path, body) = (format!("/leases/{token}"), body.to_string());
        self.ask("POST", &path, token.as_bytes(), body.as_bytes())
    }
}

/// Objects, packed; the parts can be tampered with.
pub struct Pack {
    pub header: Vec<u8>,
    pub body: Vec<u8>,
    pub digest: String,
}

impl Pack {
    pub fn of(objects: &[(ObjectName, Vec<u8>)]) -> Self {
        let bytes: usize = objects.iter().map(|(_, object)| object.len()).sum();
        let mut header = format!("V2\nS{bytes}\nN{}\n--\n", objects.len());
        for (name, object) in objects {
            header += &format!("C {name} {}\n", object.len());
        }
        let mut pack = Self {
            header: Vec::new(),
            body: objects
                .iter()
                .flat_map(|(_, object)| object.clone())
                .collect(),
            digest: String::new(),
        };
        pack.set_header(&header);
        pack
    }

    pub fn set_header(&mut self, header: &str) {
        self.header = header.as_bytes().to_vec();
        self.digest = Hash::of(Algorithm::Sha1, &self.header).to_string();
    }

    pub fn message(&self, token: &str) -> String {
        let header_size = self.header.len().to_string();
        json!({
            "session_token": token,
            "payload_digest": self.digest,
            "header_size": header_size,
            "api_version": "2",
        })
        .to_string()
    }
}
