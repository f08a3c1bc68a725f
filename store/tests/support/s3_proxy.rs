//! What stands between a client and its S3 server, and misbehaves on demand. It keeps a list of what
//! passed.
//!
//! A module of other rooms' tests too, so it names nothing of theirs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and answered with a status and an S3 error of this code.
    Answer(u16, &'static str),
    /// It is answered 503 `SlowDown` with `Retry-After`, in seconds.
    SlowDown(u32),
    /// The connection ends before anything is answered, and nothing is done.
    Cut,
    /// The connection ends after so many bytes of the request's body.
    CutRequest(usize),
    /// It is done, and the answer ends after so many bytes of its body.
    CutAnswer(usize),
    /// It is done, and the connection ends without an answer.
    LoseAnswer,
    /// It is not done, and answered as if it were.
    Lie,
    /// Nothing happens at all until the client goes.
    Hang,
}

struct Rule {
    /// Method and part of the path.
    fits: (&'static str, String),
    /// How many it is still for.
    times: usize,
    fault: Option<Fault>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body_bytes: usize,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, value)| &**value)
    }
}

/// Serves until it is dropped.
pub struct S3Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    server: u16,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    /// Requests under way, and the most there were at once.
    parallel: Mutex<(usize, usize)>,
    stop: AtomicBool,
}

impl S3Proxy {
    /// Before the server at this port.
    pub fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            server,
            rules: Mutex::default(),
            seen: Mutex::default(),
            parallel: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        Self { port, state }
    }

    /// The next so many requests of this method whose path contains this get the fault.
    pub fn fail(&self, method: &'static str, path: impl Into<String>, times: usize, fault: Fault) {
        self.state.rules.lock().unwrap().push(Rule {
            fits: (method, path.into()),
            times,
            fault: Some(fault),
        });
    }

    /// So many of these go as they are, before what is said later.
    pub fn pass(&self, method: &'static str, path: impl Into<String>, times: usize) {
        self.state.rules.lock().unwrap().push(Rule {
            fits: (method, path.into()),
            times,
            fault: None,
        });
    }

    /// No faults any more.
    pub fn behave(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// What came since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().unwrap())
    }

    /// How many requests of this method came since [`S3Proxy::take_seen`].
    pub fn count(&self, method: &str) -> usize {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method == method).count()
    }

    /// The most requests that were under way at once.
    pub fn most_parallel(&self) -> usize {
        self.state.parallel.lock().unwrap().1
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        // so that it looks
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

struct Request {
    seen: Seen,
    /// As it came, but for the header that keeps the connection.
    head: Vec<u8>,
    length: usize,
}

impl State {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        while let Some(request) = read_head(&mut reader) {
            {
                let mut parallel = self.parallel.lock().unwrap();
                parallel.0 += 1;
                parallel.1 = parallel.1.max(parallel.0);
            }
            let goes_on = self.answer(request, &mut reader, &mut out);
            self.parallel.lock().unwrap().0 -= 1;
            if goes_on.is_none() {
                return;
            }
        }
    }

    fn fault(&self, seen: &Seen) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0 && rule.fits.0 == seen.method && seen.path.contains(&rule.fits.1)
        })?;
        rule.times -= 1;
        rule.fault
    }

    /// None: the connection is to be closed.
    fn answer(
        &self,
        request: Request,
        reader: &mut BufReader<TcpStream>,
        out: &mut TcpStream,
    ) -> Option<()> {
        let fault = self.fault(&request.seen);
        self.seen.lock().unwrap().push(request.seen.clone());
        let is_head = request.seen.method == "HEAD";
        if let Some(Fault::CutRequest(bytes)) = fault {
            let mut part = vec![0; bytes.min(request.length)];
            reader.read_exact(&mut part).ok()?;
            return None;
        }
        let mut body = vec![0; request.length];
        reader.read_exact(&mut body).ok()?;
        match fault {
            Some(Fault::Cut) => return None,
            Some(Fault::Hang) => {
                // until the client closes its end
                let _ = reader.read(&mut [0]);
                return None;
            }
            Some(Fault::Lie) => {
                let answer = b"HTTP/1.1 200 OK\r\nETag: \"0\"\r\nContent-Length: 0\r\n\r\n";
                return out.write_all(answer).ok();
            }
            Some(Fault::Answer(status, code)) => return refuse(out, status, code, "", is_head),
            Some(Fault::SlowDown(seconds)) => {
                let pause = format!("Retry-After: {seconds}\r\n");
                return refuse(out, 503, "SlowDown", &pause, is_head);
            }
            _ => {}
        }
        let answer = self.forward(&request.head, &body)?;
        match fault {
            Some(Fault::LoseAnswer) => None,
            Some(Fault::CutAnswer(bytes)) => {
                let head = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
                out.write_all(&answer[..(head + bytes).min(answer.len())])
                    .ok()?;
                None
            }
            _ => out.write_all(&answer).ok(),
        }
    }

    /// The server's answer, as of a connection that goes on.
    fn forward(&self, head: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).ok()?;
        server.write_all(head).ok()?;
        server.write_all(body).ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..end].to_vec()).ok()?;
        let kept: Vec<&str> = head
            .split("\r\n")
            .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
            .collect();
        let mut whole = kept.join("\r\n").into_bytes();
        whole.extend_from_slice(&answer[end..]);
        Some(whole)
    }
}

fn refuse(
    out: &mut TcpStream,
    status: u16,
    code: &str,
    headers: &str,
    is_head: bool,
) -> Option<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>wanted by a test</Message></Error>"
    );
    let length = if is_head { 0 } else { body.len() };
    let head = format!(
        "HTTP/1.1 {status} Wanted\r\nContent-Type: application/xml\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    out.write_all(head.as_bytes()).ok()?;
    out.write_all(&body.as_bytes()[..length]).ok()
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut head = line.into_bytes();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        if name != "connection" {
            head.extend_from_slice(line.as_bytes());
        }
        headers.push((name, value.trim().to_owned()));
    }
    head.extend_from_slice(b"Connection: close\r\n\r\n");
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    Some(Request {
        seen: Seen {
            method,
            path,
            headers,
            body_bytes: length,
        },
        head,
        length,
    })
}
