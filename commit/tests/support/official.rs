//! The official server tool as a judge, where it is installed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use commit::home::KeyFile;

use super::repo::Repo;

const TOOL: &str = "cvmfs_swissknife";

/// False where the tool is missing; then the test says so and ends.
pub fn is_installed() -> bool {
    let found = has_tool();
    if !found {
        eprintln!("skipped: {TOOL} is not on PATH");
    }
    found
}

/// False where the tool is missing.
pub fn has_tool() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(TOOL).is_file())
}

/// Panics unless the official check finds manifest, signatures, tags, reflog, catalogs and objects
/// in order. It goes by the real time of day.
#[track_caller]
pub fn assert_official_check(repo: &Repo) {
    let home = repo.publisher.home();
    let storage = home.storage_dir().unwrap();
    let server = Server::start(&storage);
    assert_official_check_at(repo, &server.url());
    let mut scrub = Command::new(TOOL);
    run(scrub.args(["scrub", "-r"]).arg(storage.join("data")));
}

/// The same of what is read at a URL, of which only the web server knows where it lies.
#[track_caller]
pub fn assert_official_check_at(repo: &Repo, url: &str) {
    let home = repo.publisher.home();
    let scratch = tempfile::tempdir().unwrap();
    let mut check = Command::new(TOOL);
    check
        .args(["check", "-c", "-l", "2", "-N", &home.name])
        .args(["-r", url])
        .arg("-t")
        .arg(scratch.path())
        .arg("-k")
        .arg(home.key_file(KeyFile::Public))
        .arg("-R")
        .arg(home.spool_dir.join("reflog.chksum"));
    run(&mut check);
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{command:?}\n{text}");
}

/// A storage directory on loopback, until dropped.
pub struct Server {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (root, stopped) = (root.to_path_buf(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (stream, root) = (stream.unwrap(), root.clone());
                // a client may keep a connection that it does not use
                std::thread::spawn(move || serve(&stream, &root));
            }
        });
        Self {
            port,
            stop,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers requests until the client hangs up.
fn serve(mut stream: &TcpStream, root: &Path) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| line.is_ok_and(|l| !l.is_empty()))
        {}
        let mut words = request.split(' ');
        let is_head = words.next() == Some("HEAD");
        let path = PathBuf::from(words.next().unwrap_or_default());
        let inside: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        let (status, body) = match fs::read(root.join(inside)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let body = if is_head { &[][..] } else { &body };
        let sent = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
        if sent.is_err() {
            return;
        }
    }
}
