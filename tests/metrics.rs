//! What both daemons show to monitoring: each figure that docs/metrics.md lists is served, each that is
//! served is listed, under good names; the dashboard and the alerts ask for nothing else. And when
//! `/health` turns bad.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

mod listed;
mod monitoring;
mod promql;
mod served;
mod text;

/// How a test waits for what must come: it fails only if that never does.
const NEVER: Duration = Duration::from_secs(60);

/// A configuration whose daemon shows its figures at any port, and reads what is published often.
const ANY_PORT: &str =
    "[metrics]\nlisten = \"127.0.0.1:0\"\n[stage]\nrefresh_interval = \"50ms\"\n";

/// A page over plain HTTP: its status and its body.
fn page(at: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Where the daemon says that its figures are.
fn address(sandbox: &Sandbox) -> SocketAddr {
    let status = sandbox.json(["status"]);
    let url = status["daemon"]["metrics"].as_str().unwrap();
    url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// Waits until a page is as it should be, and returns it.
fn until(at: SocketAddr, path: &str, is_so: impl Fn(u16, &str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let (status, body) = page(at, path);
        if is_so(status, &body) {
            return body;
        }
        assert!(begun.elapsed() < NEVER, "never: {path} is {status}\n{body}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn until_problem(at: SocketAddr, what: &str) {
    let body = until(at, "/health", |status, body| {
        status == 503 && body.contains(what)
    });
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["ok"], false);
    let (_, text) = page(at, "/metrics");
    assert!(text.contains("\nprepub_healthy 0\n"), "{text}");
}

fn until_healthy(at: SocketAddr) {
    let body = until(at, "/health", |status, _| status == 200);
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["ok"], true);
    assert_eq!(health["problems"], serde_json::json!([]));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
}

/// A mounted repository, and where its daemon shows that all is well; none where nothing can be mounted.
fn watched() -> Option<(Sandbox, SocketAddr)> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    let mut sandbox = Sandbox::new();
    sandbox.configure(ANY_PORT);
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let at = address(&sandbox);
    until_healthy(at);
    Some((sandbox, at))
}

/// The daemon's storage is a file that nobody can read to its end: a server or a disk that hangs.
fn hang(manifest: &Path) -> fs::File {
    use rustix::fs::{Mode, OFlags, mknodat};
    fs::rename(manifest, manifest.with_extension("aside")).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    mknodat(rustix::fs::CWD, manifest, kind, Mode::from(0o644), 0).unwrap();
    let begun = Instant::now();
    loop {
        // opens only once somebody reads there
        match rustix::fs::open(manifest, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
            Ok(end) => return end.into(),
            Err(error) => assert!(begun.elapsed() < NEVER, "nobody reads: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_storage_that_hangs_or_is_gone_is_told_of_and_holds_nothing_up() {
    let Some((mut sandbox, at)) = watched() else {
        return;
    };
    let manifest = sandbox.storage().join(".cvmfspublished");
    let hanging = hang(&manifest);
    // its reader sits in read(2) for good, and what is staged is counted all the same
    write(&sandbox.root().join("new"), b"staged");
    let staged = format!("prepub_staged_paths{{repo=\"{REPO}\",change=\"added\"}} 1\n");
    let text = until(at, "/metrics", |_, text| text.contains(&staged));
    assert!(
        text.contains(&format!("prepub_published_revision{{repo=\"{REPO}\"}} 1\n")),
        "as it was last read: {text}"
    );
    fs::remove_file(&manifest).unwrap();
    drop(hanging);
    until_problem(at, REPO);
    fs::rename(manifest.with_extension("aside"), &manifest).unwrap();
    until_healthy(at);
    sandbox.ok(["commit", REPO]);
    until(at, "/metrics", |_, text| {
        text.contains(&format!("prepub_published_revision{{repo=\"{REPO}\"}} 2\n"))
    });
    sandbox.unmount();
}

#[test]
fn a_repository_that_is_not_mounted_is_a_problem() {
    const OTHER: &str = "other.example.org";
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.configure(ANY_PORT);
    sandbox.ok(["mkfs", REPO]);
    sandbox.ok(["mkfs", OTHER]);
    let manifest = sandbox
        .storage()
        .with_file_name(OTHER)
        .join(".cvmfspublished");
    fs::rename(&manifest, manifest.with_extension("aside")).unwrap();
    sandbox.mount();
    let at = address(&sandbox);
    until_problem(at, "other.example.org is not mounted");
    // it is, as soon as somebody asks for it and it can be
    fs::rename(manifest.with_extension("aside"), &manifest).unwrap();
    sandbox.ok(["status", OTHER]);
    until_healthy(at);
    sandbox.unmount();
}

#[test]
fn what_ends_writing_or_publishing_is_a_problem_while_it_lasts() {
    if skip_unless(cfg!(feature = "failpoints"), "the feature failpoints") {
        return;
    }
    let Some((mut sandbox, at)) = watched() else {
        return;
    };
    write(&sandbox.root().join("staged"), b"staged");
    sandbox.expire_whitelist();
    until_problem(at, "the whitelist of test.example.org has expired");
    sandbox.ok(["resign", REPO]);
    until_healthy(at);
    sandbox.unmount();
    for (fault, problem) in [
        ("fsimpl::disk_full=return(1048576)", "has no room"),
        ("fsimpl::journal_full=return", "changes cannot be recorded"),
    ] {
        sandbox.mount_with(&[("FAILPOINTS", fault)]);
        let refused = fs::create_dir(sandbox.root().join("dir")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull, "{fault}");
        until_problem(address(&sandbox), problem);
        sandbox.kill();
    }
    sandbox.mount();
    until_healthy(address(&sandbox));
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}

#[test]
fn a_port_that_is_taken_costs_the_figures_alone() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let mut sandbox = Sandbox::new();
    sandbox.configure(&format!("[metrics]\nlisten = \"{at}\"\n"));
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    assert!(
        sandbox
            .log()
            .contains("/metrics and /health are not served")
    );
    assert!(sandbox.json(["status"])["daemon"]["metrics"].is_null());
    write(&sandbox.root().join("file"), b"all the same");
    sandbox.ok(["commit", REPO]);
    sandbox.unmount();
    sandbox.configure("[metrics]\nenabled = false\n");
    sandbox.mount();
    assert!(sandbox.json(["status"])["daemon"]["metrics"].is_null());
    sandbox.unmount();
}
