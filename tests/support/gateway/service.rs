//! What the gateway answers: one function per request, the request's bytes in, the reply out.
//!
//! Two locks, as in the gateway: one for all that has to do with leases, which a commit holds as
//! long as it takes, and the table, for which uploads need no more than a moment.

use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Clock;
use super::auth::{self, Key};
use super::faults::{At, Fault, Faults};
use super::halt::Halt;
use super::leases::{Lease, Leases, go_duration, go_time};
use super::pack::unpack;
use super::receiver::{Receiver, Wish};

/// The newest protocol it speaks, and the oldest.
const API_VERSIONS: [i64; 2] = [3, 2];

/// What goes back.
pub enum Reply {
    Json(Value),
    /// A status other than 200, with a line of text.
    Text(u16, String),
    /// Nothing: the connection is closed.
    Gone,
}

/// A request, as far as it matters.
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub authorization: Option<String>,
    pub message_size: Option<String>,
    /// Its length was not announced.
    pub chunked: bool,
    pub body: Vec<u8>,
}

/// A gateway's state.
pub struct Service {
    pub receiver: Receiver,
    pub keys: Vec<Key>,
    /// How long a lease is granted for.
    pub lease: Duration,
    pub leases: Mutex<Leases>,
    pub gate: Mutex<()>,
    pub clock: Clock,
    pub faults: Faults,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NewLease {
    path: String,
    api_version: String,
    hostname: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Payload {
    session_token: String,
    payload_digest: String,
    header_size: String,
}

fn bad(text: &str) -> Reply {
    Reply::Text(400, format!("{text}\n"))
}

fn error(reason: impl Into<String>) -> Reply {
    Reply::Json(json!({"status": "error", "reason": reason.into()}))
}

fn ok() -> Reply {
    Reply::Json(json!({"status": "ok"}))
}

/// The first JSON value of some bytes; what follows it is not read.
fn first<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .next()?
        .ok()
}

impl Service {
    /// Answers, and lets go wrong what should.
    pub fn answer(&self, request: &Request) -> Reply {
        let route = request.path.strip_prefix("/api/v1").unwrap_or("/");
        let parts: Vec<&str> = route.split('/').skip(1).collect();
        let method = request.method.as_str();
        let at = match (method, parts.as_slice()) {
            ("GET", [""] | []) => {
                let welcome = "You are in an open field on the west side of a white house with a boarded front door.";
                return Reply::Json(json!({ "welcome": welcome }));
            }
            ("GET", ["repos"]) => return self.repositories(),
            ("GET", ["repos", name]) => return self.repository(name),
            ("GET", ["leases"]) => return self.list(),
            ("GET", ["leases", token]) => return self.show(token),
            ("POST", ["leases"]) => At::Lease,
            ("POST", ["leases", _]) => At::Commit,
            ("DELETE", ["leases", _]) => At::Drop,
            ("POST", ["payloads"] | ["payloads", _]) => At::Payload,
            (_, ["leases" | "payloads" | "repos"]) => {
                return Reply::Text(405, "Method Not Allowed\n".into());
            }
            _ => return Reply::Text(404, "404 page not found\n".into()),
        };
        let fault = self.faults.take(at);
        match fault {
            Some(Fault::Cut) => return Reply::Gone,
            Some(Fault::Stall) if at != At::Commit => self.faults.stall(),
            _ => {}
        }
        let token = parts.get(1).copied();
        let reply = self.authorized(request, token, |key| match (at, token) {
            (At::Commit, Some(token)) => self.commit(token, &request.body, fault),
            (At::Drop, Some(token)) => self.drop_lease(token),
            (At::Payload, token) => self.payload(token, request, fault),
            _ => self.new_lease(key, &request.body),
        });
        match fault {
            Some(Fault::LostReply) => Reply::Gone,
            _ => reply,
        }
    }

    /// Checks the signature, which is over the token, or else over what comes first in the body.
    fn authorized(
        &self,
        request: &Request,
        token: Option<&str>,
        act: impl FnOnce(&Key) -> Reply,
    ) -> Reply {
        let signed = match token {
            Some(token) => token.as_bytes(),
            None if request.path.ends_with("/payloads") => {
                let Some(bytes) = request.message_bytes() else {
                    return bad("missing message-size header");
                };
                match request.body.get(..bytes) {
                    Some(message) => message,
                    None => return Reply::Text(500, "could not read request body\n".into()),
                }
            }
            // the gateway allots a buffer of -1 bytes, and its handler does not survive that
            None if request.chunked => return Reply::Gone,
            None => &request.body,
        };
        match auth::signer(&self.keys, request.authorization.as_deref(), signed) {
            Some(key) => act(key),
            None => error("invalid_hmac"),
        }
    }

    fn repositories(&self) -> Reply {
        let name = self.receiver.home.name.clone();
        let all: Map<String, Value> = [(name, self.describe())].into_iter().collect();
        Reply::Json(json!({"status": "ok", "data": all}))
    }

    fn repository(&self, name: &str) -> Reply {
        if name != self.receiver.home.name {
            return error("invalid_repo");
        }
        Reply::Json(json!({"status": "ok", "data": self.describe()}))
    }

    fn describe(&self) -> Value {
        let keys = self
            .keys
            .iter()
            .map(|key| (key.id.clone(), key.path.clone().into()));
        json!({"enabled": true, "keys": keys.collect::<Map<_, Value>>()})
    }

    fn describe_lease(&self, lease: &Lease) -> Value {
        json!({
            "key_id": lease.key_id,
            "path": format!("{}{}", self.receiver.home.name, lease.path),
            "expires": go_time(lease.expires),
            "hostname": lease.hostname,
        })
    }

    fn list(&self) -> Reply {
        let _gate = self.gate.lock();
        let leases = self.leases.lock();
        let described = leases.active(self.clock.now()).map(|lease| {
            let path = format!("{}{}", self.receiver.home.name, lease.path);
            (path, self.describe_lease(lease))
        });
        Reply::Json(json!({"status": "ok", "data": described.collect::<Map<_, _>>()}))
    }

    fn show(&self, token: &str) -> Reply {
        let _gate = self.gate.lock();
        match self.leases.lock().valid(token, self.clock.now()) {
            Some(lease) => Reply::Json(json!({"data": self.describe_lease(lease)})),
            None => Reply::Text(500, "invalid lease\n".into()),
        }
    }

    fn new_lease(&self, key: &Key, body: &[u8]) -> Reply {
        let asked = first::<NewLease>(body);
        let version = asked
            .as_ref()
            .and_then(|asked| asked.api_version.parse::<i64>().ok());
        let (Some(asked), Some(version)) = (asked, version) else {
            return bad("invalid request body");
        };
        let [newest, oldest] = API_VERSIONS;
        if version < oldest {
            let text = format!("{version}, min version: {oldest}");
            return error(format!("incompatible request version: {text}"));
        }
        let _gate = self.gate.lock();
        if asked.path.starts_with('/') {
            return error("input has leading slash");
        }
        let Some(slash) = asked.path.find('/') else {
            return error("missing repository name or subpath");
        };
        let (repo, path) = asked.path.split_at(slash);
        if repo != self.receiver.home.name {
            return error("repository not found: %!w(<nil>)");
        }
        if !auth::may_lease(key, path) {
            return error("authorization error: invalid_path");
        }
        let now = self.clock.now();
        let mut leases = self.leases.lock();
        if let Some(left) = leases.busy(path, now) {
            let left = go_duration(left);
            return Reply::Json(json!({"status": "path_busy", "time_remaining": left}));
        }
        let lease = Lease {
            token: String::new(),
            path: path.to_owned(),
            key_id: key.id.clone(),
            hostname: asked.hostname,
            expires: now + self.lease,
            counted: true,
        };
        let token = leases.grant(lease, now);
        let version = version.min(newest);
        Reply::Json(json!({"status": "ok", "session_token": token, "max_api_version": version}))
    }

    fn drop_lease(&self, token: &str) -> Reply {
        let _gate = self.gate.lock();
        let dropped = self.leases.lock().drop_lease(token);
        if dropped {
            ok()
        } else {
            error("invalid lease")
        }
    }

    fn payload(&self, token: Option<&str>, request: &Request, fault: Option<Fault>) -> Reply {
        const CALL: &str = "payload submission";
        let Some(bytes) = request.message_bytes() else {
            return bad("missing message-size header");
        };
        let (message, pack) = request.body.split_at(bytes.min(request.body.len()));
        // of a body of unknown length the gateway keeps what it signed, where that is in the body
        let pack = if token.is_none() && request.chunked {
            &[]
        } else {
            pack
        };
        let Some(message) = first::<Payload>(message) else {
            return bad("invalid request body");
        };
        let Ok(header_bytes) = message.header_size.parse() else {
            return bad("invalid header_size");
        };
        let token = token.unwrap_or(&message.session_token);
        if self.leases.lock().valid(token, self.clock.now()).is_none() {
            return error("invalid lease");
        }
        let unpacked = unpack(pack, &message.payload_digest, header_bytes);
        let kept = match fault {
            Some(Fault::Crash) => Err(Halt::Crash),
            Some(Fault::Full) => self.receiver.keep_what_fits(&unpacked),
            _ => self.receiver.keep_all(&unpacked),
        };
        match kept {
            Ok(()) => ok(),
            Err(halt) => error(halt.reason(CALL)),
        }
    }

    fn commit(&self, token: &str, body: &[u8], fault: Option<Fault>) -> Reply {
        let Some(wish) = first::<Wish>(body) else {
            return bad("invalid request body");
        };
        let _gate = self.gate.lock();
        let now = self.clock.now();
        let path = {
            let mut leases = self.leases.lock();
            let Some(lease) = leases.valid(token, now) else {
                return error("invalid lease");
            };
            let path = lease.path.trim_start_matches('/').to_owned();
            if !std::mem::take(&mut lease.counted) {
                let lease = format!("{}/{path}", self.receiver.home.name);
                let missing = format!("no statistics counters for lease {lease}");
                return error(format!("could not obtain statistics counters: {missing}"));
            }
            path
        };
        let stop = (fault == Some(Fault::Crash)).then_some(Halt::Crash);
        match fault {
            Some(Fault::Stall) => self.faults.stall(),
            Some(Fault::Full) => {
                let catalog = wish.new_root_hash;
                let text =
                    format!("failed to load {catalog} from Stratum 0 (1 - local I/O failure)");
                return error(Halt::panic(text).reason("commit"));
            }
            _ => {}
        }
        let committed = match self.receiver.commit(path.as_bytes(), &wish, now, stop) {
            Ok(_) if fault == Some(Fault::CrashAfter) => Err(Halt::Crash),
            committed => committed,
        };
        match committed {
            Ok(revision) => {
                self.leases.lock().drop_lease(token);
                Reply::Json(json!({"status": "ok", "final_revision": revision}))
            }
            Err(halt) => error(halt.reason("commit")),
        }
    }
}

impl Request {
    fn message_bytes(&self) -> Option<usize> {
        self.message_size.as_ref()?.parse().ok()
    }
}
