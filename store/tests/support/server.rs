//! A web server of a few lines: files below a directory, and faults on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Serves until it is dropped.
pub struct Server {
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    root: PathBuf,
    /// Answers still to be given instead of the right one.
    statuses: Mutex<Vec<u16>>,
    /// Bodies still to be broken off, and after how many bytes.
    breaks: Mutex<Vec<usize>>,
    /// Answers range requests with the whole.
    no_ranges: std::sync::atomic::AtomicBool,
    requests: AtomicUsize,
    body_bytes: AtomicU64,
    stop: std::sync::atomic::AtomicBool,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/repo", listener.local_addr().unwrap());
        let state = Arc::new(State {
            root: root.to_path_buf(),
            ..State::default()
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
        Self { url, state }
    }

    /// The next requests get these statuses, the first first.
    pub fn answer_with(&self, statuses: &[u16]) {
        *self.state.statuses.lock().unwrap() = statuses.iter().rev().copied().collect();
    }

    /// The next bodies break off after so many bytes, the first first.
    pub fn break_after(&self, bytes: &[usize]) {
        *self.state.breaks.lock().unwrap() = bytes.iter().rev().copied().collect();
    }

    pub fn without_ranges(&self) {
        self.state.no_ranges.store(true, Ordering::SeqCst);
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Bytes of bodies sent so far.
    pub fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut out = stream;
        while let Some((method, path, from)) = read_request(&mut reader) {
            self.requests.fetch_add(1, Ordering::SeqCst);
            if self.answer(&mut out, &method, &path, from).is_none() {
                return;
            }
        }
    }

    /// None: the connection is to be closed.
    fn answer(&self, out: &mut TcpStream, method: &str, path: &str, from: usize) -> Option<()> {
        if let Some(status) = self.statuses.lock().unwrap().pop() {
            let text = format!("HTTP/1.1 {status} Wanted\r\nContent-Length: 0\r\n\r\n");
            return out.write_all(text.as_bytes()).ok();
        }
        let file = self
            .root
            .join(path.strip_prefix("/repo/").unwrap_or("none"));
        let Ok(bytes) = std::fs::read(file) else {
            return out
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
                .ok();
        };
        let from = if self.no_ranges.load(Ordering::SeqCst) {
            0
        } else {
            from
        };
        let status = if from > 0 {
            "206 Partial Content"
        } else {
            "200 OK"
        };
        let body = &bytes[from.min(bytes.len())..];
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        out.write_all(head.as_bytes()).ok()?;
        if method == "HEAD" {
            return Some(());
        }
        if let Some(after) = self.breaks.lock().unwrap().pop() {
            let part = &body[..after.min(body.len())];
            self.body_bytes
                .fetch_add(part.len() as u64, Ordering::SeqCst);
            out.write_all(part).ok()?;
            return None;
        }
        self.body_bytes
            .fetch_add(body.len() as u64, Ordering::SeqCst);
        out.write_all(body).ok()
    }
}

/// Method, path and first byte of a request.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, usize)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut from = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Some((method, path, from));
        }
        if let Some(range) = header.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
}
