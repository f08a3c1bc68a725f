//! A forwarding HTTP front on loopback, for one client.
//!
//! The `cvmfs` crate asks for a replica's two marker files and waits some 25 seconds on each that
//! is missing, as they are on every Stratum 0. This front answers those two itself and passes all
//! else on unchanged.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

const REPLICA_MARKERS: [&str; 2] = ["/.cvmfs_last_snapshot", "/.cvmfs_is_snapshotting"];

/// Starts the front before `url` (`http://host:port/path`) and returns its own URL.
pub fn start(url: &str) -> io::Result<String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| io::Error::other("only http:// can be fronted"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let own = format!("http://{}/{path}", listener.local_addr()?);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let host = host.clone();
            std::thread::spawn(move || forward(client, &host));
        }
    });
    Ok(own)
}

fn forward(mut client: TcpStream, host: &str) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    if REPLICA_MARKERS.iter().any(|marker| path.ends_with(marker)) {
        return client
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut server = TcpStream::connect(host)?;
    write!(
        server,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    io::copy(&mut server, &mut client)?;
    Ok(())
}
