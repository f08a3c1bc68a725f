//! A way to a gateway on which connections are cut.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Where a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the gateway hears of it.
    Before,
    /// When the gateway has answered.
    After,
}

/// Which requests, in the order in which they come: the first is 0.
type Which = Box<dyn FnMut(usize, Asked) -> bool + Send>;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Repositories,
    Lease,
    Payload,
    Commit,
    Drop,
}

impl Asked {
    fn of(head: &str) -> Self {
        match head.split_once("/api/v1/").unwrap() {
            ("GET ", _) => Self::Repositories,
            ("DELETE ", _) => Self::Drop,
            (_, rest) if rest.starts_with("leases/") => Self::Commit,
            (_, rest) if rest.starts_with("leases") => Self::Lease,
            _ => Self::Payload,
        }
    }
}

/// Listens on loopback until the process ends.
pub struct Proxy {
    pub url: String,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    which: Which,
    all: Vec<Asked>,
    cut: Vec<Asked>,
}

impl Proxy {
    /// Leads to `url`, and cuts these requests as they come in this order, others in between or not.
    pub fn cutting(url: &str, cut: Cut, these: &[Asked]) -> Self {
        let mut due = Vec::from(these).into_iter().peekable();
        let which = move |_, asked| due.next_if_eq(&asked).is_some();
        Self::to(url, cut, Box::new(which))
    }

    /// Leads to `url`, and cuts one request.
    pub fn cutting_nth(url: &str, cut: Cut, nth: usize) -> Self {
        Self::to(url, cut, Box::new(move |at, _| at == nth))
    }

    fn to(url: &str, cut: Cut, which: Which) -> Self {
        let (host, path) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        let gateway: SocketAddr = host.parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/{path}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen {
            which,
            all: Vec::new(),
            cut: Vec::new(),
        }));
        let seeing = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen) = (stream.unwrap(), seeing.clone());
                std::thread::spawn(move || serve(stream, gateway, cut, &seen));
            }
        });
        Self { url, seen }
    }

    /// What was asked for, and not answered.
    pub fn cut(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().cut.clone()
    }
}

impl Seen {
    /// Another request; true if it is to be cut.
    fn sees(&mut self, asked: Asked) -> bool {
        let cuts = (self.which)(self.all.len(), asked);
        self.all.push(asked);
        if cuts {
            self.cut.push(asked);
        }
        cuts
    }
}

/// One request: a connection is not used for more.
fn serve(mut stream: TcpStream, gateway: SocketAddr, cut: Cut, seen: &Mutex<Seen>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() == 0 {
            return;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        let is_end = line.trim().is_empty();
        if is_end {
            head += "Connection: close\r\n";
        }
        head += &line;
        if is_end {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let cuts = seen.lock().unwrap().sees(Asked::of(&head));
    if cuts && cut == Cut::Before {
        return;
    }
    let mut upstream = TcpStream::connect(gateway).unwrap();
    upstream.write_all(head.as_bytes()).unwrap();
    upstream.write_all(&body).unwrap();
    let mut reply = Vec::new();
    upstream.read_to_end(&mut reply).unwrap();
    if !cuts {
        let _ = stream.write_all(&reply);
    }
}
