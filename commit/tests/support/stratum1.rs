//! The double of a receiver: real TLS with client certificates, the receiver's HTTP, and objects in
//! memory, which it verifies. It can be away, full, slow to the point of hanging, busy; it can lie,
//! cut connections and spoil what arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use formats::hash::{Hash, Hasher};
use formats::warm::{Bits, BundleReader, Enrolment, ListReader, Missing};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;

/// How a test waits for what must come: it fails only if that never does.
const NEVER: Duration = Duration::from_secs(60);

/// What is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Connections are taken and closed.
    Away,
    /// It has so many bytes of room.
    Full(u64),
    /// It keeps nothing, and says that it does.
    Lies,
    /// It keeps nothing, and always says that it has everything: nobody can know.
    LiesWell,
    /// So many bundles are cut in their middle.
    Cuts(u32),
    /// So many bundles arrive with a bit turned over.
    Spoils(u32),
    /// Whoever sends a bundle waits for ever.
    Hangs,
    /// So many questions are answered with "come again".
    Busy(u32),
    /// So many bundles are answered as if nothing had been announced.
    Forgets(u32),
    /// Its clock is so many seconds ahead.
    Skewed(u64),
}

#[derive(Debug, Default)]
struct Inside {
    fault: Fault,
    kept: BTreeSet<String>,
    announced: BTreeMap<String, BTreeSet<String>>,
    published: Vec<String>,
    given_up: BTreeSet<String>,
    bundles: u32,
    connections: u32,
    bytes: u64,
}

pub struct Stratum1 {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    ended: Arc<AtomicBool>,
}

impl Drop for Stratum1 {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // wakes whoever waits for a connection
        let _ = TcpStream::connect(self.address);
    }
}

/// A port that is ours, before there is a certificate for it.
pub struct Port(TcpListener);

impl Port {
    pub fn any() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.0.local_addr().unwrap())
    }

    /// Serves there.
    pub fn serve(self, enrolment: &Enrolment) -> Stratum1 {
        self.serve_at(enrolment, SystemTime::now())
    }

    /// The same on a machine whose clock says so when certificates are looked at.
    pub fn serve_at(self, enrolment: &Enrolment, clock: SystemTime) -> Stratum1 {
        let address = self.0.local_addr().unwrap();
        let inside: Arc<Mutex<Inside>> = Arc::default();
        let ended: Arc<AtomicBool> = Arc::default();
        let acceptor = Arc::new(acceptor(enrolment, clock));
        let (shared, over) = (Arc::clone(&inside), Arc::clone(&ended));
        std::thread::spawn(move || {
            for socket in self.0.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (acceptor, inside) = (Arc::clone(&acceptor), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let socket = socket.unwrap();
                    inside.lock().unwrap().connections += 1;
                    if inside.lock().unwrap().fault != Fault::Away
                        && let Ok(stream) = acceptor.accept(socket)
                    {
                        let _ = answer_all(BufReader::new(stream), &inside);
                    }
                });
            }
        });
        Stratum1 {
            address,
            inside,
            ended,
        }
    }
}

fn acceptor(enrolment: &Enrolment, clock: SystemTime) -> SslAcceptor {
    let ours = enrolment.credentials().unwrap();
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&ours.certificate).unwrap();
    acceptor.set_private_key(&ours.key).unwrap();
    let mut trusted = X509StoreBuilder::new().unwrap();
    trusted.add_cert(ours.ca).unwrap();
    acceptor.set_cert_store(trusted.build());
    let since = clock.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let param = acceptor.verify_param_mut();
    param.set_time(since.as_secs().try_into().unwrap());
    acceptor.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
    acceptor.build()
}

impl Stratum1 {
    pub fn set(&self, fault: Fault) {
        self.inside.lock().unwrap().fault = fault;
    }

    pub fn kept(&self) -> BTreeSet<String> {
        self.inside.lock().unwrap().kept.clone()
    }

    pub fn published(&self) -> Vec<String> {
        self.inside.lock().unwrap().published.clone()
    }

    pub fn given_up(&self) -> usize {
        self.inside.lock().unwrap().given_up.len()
    }

    pub fn bundles(&self) -> u32 {
        self.inside.lock().unwrap().bundles
    }

    pub fn connections(&self) -> u32 {
        self.inside.lock().unwrap().connections
    }

    /// Bytes of bodies that arrived.
    pub fn bytes(&self) -> u64 {
        self.inside.lock().unwrap().bytes
    }

    /// Returns when it is so.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < NEVER, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Question {
    method: String,
    path: String,
    session: String,
    length: usize,
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Question>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut question = Question {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        session: String::new(),
        length: 0,
    };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else {
            return Ok(Some(question));
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => question.length = value.trim().parse().unwrap(),
            "x-prepub-session" => question.session = value.trim().to_owned(),
            _ => {}
        }
    }
}

fn answer_all(
    mut stream: BufReader<SslStream<TcpStream>>,
    inside: &Mutex<Inside>,
) -> io::Result<()> {
    while let Some(question) = read_head(&mut stream)? {
        let (status, body) = match answer(&mut stream, &question, inside)? {
            Some(answer) => answer,
            // cut
            None => return Ok(()),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body)?;
        stream.flush()?;
    }
    Ok(())
}

type Answer = Option<(u16, Vec<u8>)>;

fn answer(
    stream: &mut impl BufRead,
    question: &Question,
    inside: &Mutex<Inside>,
) -> io::Result<Answer> {
    let fault = inside.lock().unwrap().fault;
    if fault == Fault::Away {
        return Ok(None);
    }
    let parts: Vec<&str> = question.path.trim_start_matches('/').split('/').collect();
    if let (Fault::Busy(more), "POST") = (fault, question.method.as_str()) {
        let left = more.checked_sub(1).map_or(Fault::None, Fault::Busy);
        inside.lock().unwrap().fault = left;
        io::copy(&mut stream.take(question.length as u64), &mut io::sink())?;
        return Ok(Some((503, b"{}".to_vec())));
    }
    match (question.method.as_str(), parts.as_slice()) {
        ("GET", ["v1", "self"]) => {
            let Fault::Skewed(ahead) = fault else {
                return Ok(Some((200, b"{}".to_vec())));
            };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            let body = format!("{{\"time\":{}}}", now.unwrap().as_secs() + ahead);
            Ok(Some((200, body.into_bytes())))
        }
        ("POST", ["v1", _, "transactions", _, "bundle"]) => bundle(stream, question, fault, inside),
        ("POST", ["v1", _, "transactions", txn, "published"]) => {
            let mut body = String::new();
            stream
                .take(question.length as u64)
                .read_to_string(&mut body)?;
            let mut inside = inside.lock().unwrap();
            if !inside.announced.contains_key(*txn) {
                return Ok(Some((404, b"{}".to_vec())));
            }
            inside.published.push(body);
            Ok(Some((204, Vec::new())))
        }
        ("POST", ["v1", _, "transactions", txn]) => {
            let list = ListReader::new(stream.take(question.length as u64)).unwrap();
            let names = list
                .map(|listed| listed.unwrap().name.to_string())
                .collect();
            announce(inside, txn, names, fault)
        }
        ("GET", ["v1", _, "transactions", txn]) => {
            let names = inside.lock().unwrap().announced.get(*txn).cloned();
            match names {
                Some(names) => announce(inside, txn, names.into_iter().collect(), fault),
                None => Ok(Some((404, b"{}".to_vec()))),
            }
        }
        ("DELETE", ["v1", _, "transactions", txn]) => {
            inside.lock().unwrap().given_up.insert((*txn).to_owned());
            Ok(Some((204, Vec::new())))
        }
        _ => Ok(Some((400, b"{}".to_vec()))),
    }
}

fn announce(
    inside: &Mutex<Inside>,
    txn: &str,
    names: Vec<String>,
    fault: Fault,
) -> io::Result<Answer> {
    let mut inside = inside.lock().unwrap();
    let mut absent = Bits::none_of(names.len() as u32);
    for (at, name) in (0..).zip(&names) {
        if !inside.kept.contains(name) && fault != Fault::LiesWell {
            absent.set(at);
        }
    }
    inside
        .announced
        .insert(txn.to_owned(), names.into_iter().collect());
    let missing = Missing {
        session: format!("session-of-{txn}"),
        room: match fault {
            Fault::Full(room) => Some(room),
            _ => None,
        },
        absent,
    };
    Ok(Some((200, missing.render().unwrap())))
}

fn bundle(
    stream: &mut impl BufRead,
    question: &Question,
    fault: Fault,
    inside: &Mutex<Inside>,
) -> io::Result<Answer> {
    inside.lock().unwrap().bundles += 1;
    let txn = question
        .session
        .trim_start_matches("session-of-")
        .to_owned();
    match fault {
        Fault::Hangs => {
            while inside.lock().unwrap().fault == Fault::Hangs {
                std::thread::sleep(Duration::from_millis(5));
            }
            return Ok(None);
        }
        Fault::Cuts(more) => {
            inside.lock().unwrap().fault = match more {
                0 | 1 => Fault::None,
                more => Fault::Cuts(more - 1),
            };
            let half = stream.take(question.length as u64 / 2);
            take(half, &txn, fault, inside);
            return Ok(None);
        }
        Fault::Forgets(more) => {
            inside.lock().unwrap().fault = match more {
                0 | 1 => Fault::None,
                more => Fault::Forgets(more - 1),
            };
            io::copy(&mut stream.take(question.length as u64), &mut io::sink())?;
            return Ok(Some((404, b"{}".to_vec())));
        }
        _ => {}
    }
    let (kept, refused) = take(stream.take(question.length as u64), &txn, fault, inside);
    let refused: Vec<String> = refused
        .iter()
        .map(|name| {
            format!(r#"{{"name":"{name}","code":"corrupt","error":"it hashes to another name"}}"#)
        })
        .collect();
    let text = format!(
        r#"{{"kept":{kept},"present":0,"refused":[{}]}}"#,
        refused.join(",")
    );
    Ok(Some((200, text.into_bytes())))
}

/// Reads a bundle to its end or to where it is cut, and keeps what verifies.
fn take(body: impl Read, txn: &str, fault: Fault, inside: &Mutex<Inside>) -> (u64, Vec<String>) {
    let (mut kept, mut refused) = (0, Vec::new());
    let Ok(mut reader) = BundleReader::new(body) else {
        return (kept, refused);
    };
    while let Ok(Some(listed)) = reader.next_object() {
        let mut bytes = Vec::new();
        let read = reader.content().read_to_end(&mut bytes).unwrap_or_default();
        if read as u64 != listed.bytes {
            break;
        }
        let mut inside = inside.lock().unwrap();
        inside.bytes += listed.bytes;
        if let Fault::Spoils(more) = inside.fault {
            bytes.push(0);
            inside.fault = more
                .checked_sub(1)
                .filter(|n| *n > 0)
                .map_or(Fault::None, Fault::Spoils);
        }
        let name = listed.name.to_string();
        let is_it = hash_of(&bytes, &listed.name.hash) == listed.name.hash;
        let was_announced = inside.announced[txn].contains(&name);
        assert!(was_announced, "{name} was sent without being announced");
        match is_it {
            true => {
                kept += 1;
                if !matches!(fault, Fault::Lies | Fault::LiesWell) {
                    inside.kept.insert(name);
                }
            }
            false => refused.push(name),
        }
    }
    (kept, refused)
}

fn hash_of(bytes: &[u8], like: &Hash) -> Hash {
    let mut hasher = Hasher::new(like.algorithm());
    hasher.update(bytes);
    hasher.finish()
}
