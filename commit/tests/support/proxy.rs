//! A way to a gateway on which connections are cut.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the connection of a commit is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the gateway hears of it.
    Before,
    /// When the gateway has answered.
    After,
}

/// Listens on loopback until the process ends; cuts the first commits.
pub struct Proxy {
    pub url: String,
    left: Arc<AtomicU32>,
}

impl Proxy {
    /// Leads to `url`, and cuts the first `times` commits.
    pub fn to(url: &str, cut: Cut, times: u32) -> Self {
        let (host, path) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once('/')
            .unwrap();
        let gateway: SocketAddr = host.parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/{path}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicU32::new(times));
        let counter = left.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, left) = (stream.unwrap(), counter.clone());
                std::thread::spawn(move || serve(stream, gateway, cut, &left));
            }
        });
        Self { url, left }
    }

    /// How many commits are still to be cut.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }
}

/// One request: a connection is not used for more.
fn serve(mut stream: TcpStream, gateway: SocketAddr, cut: Cut, left: &AtomicU32) {
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
    let is_commit = head.starts_with("POST /api/v1/leases/");
    let one_less = |left: u32| left.checked_sub(1);
    let cuts = is_commit
        && left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok();
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
