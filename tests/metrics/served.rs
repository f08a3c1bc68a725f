//! Both daemons, run so that each figure has a value, against docs/metrics.md.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use formats::warm::Enrolment;
use receiver::config::Config;
use receiver::daemon::Daemon;
use tokio::runtime::Runtime;

use super::listed::{Row, rows};
use super::text::{Family, lint, parse};
use super::{ANY_PORT, address, page, until, watched};
use crate::support::stratum1::Port;
use crate::support::{REPO, Sandbox, can_mount, skip_unless, workspace_root, write};

/// What is served is listed so, and what is listed is served.
fn compare(served: &BTreeMap<String, Family>, heading: &str) {
    let listed = [rows(heading), rows("Both")].concat();
    let by_name: BTreeMap<&str, &Row> = listed.iter().map(|row| (&*row.name, row)).collect();
    let aliases = listed
        .iter()
        .flat_map(|row| row.aliases.iter().map(move |alias| (&**alias, row)));
    let aliases: BTreeMap<&str, &Row> = aliases.collect();
    let doc = fs::read_to_string(workspace_root().join("docs/metrics.md")).unwrap();
    for (name, family) in served {
        let row = by_name.get(&**name).or_else(|| aliases.get(&**name));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md does not list {name}"));
        assert_eq!(family.kind, row.kind, "{name}");
        let labels = family.labels.iter().filter(|(label, _)| *label != "le");
        for (label, values) in labels {
            if row.name != *name {
                // what an alias has of its own is told in words
                for word in [label].into_iter().chain(values) {
                    let is_told = doc.contains(&format!("`{word}`")) || label == "stratum1";
                    assert!(is_told, "{name}: {word} is not told of");
                }
                continue;
            }
            let known = row.labels.get(label);
            let known = known.unwrap_or_else(|| panic!("{name}: {label} is not listed"));
            for value in values.iter().filter(|_| !known.is_empty()) {
                assert!(
                    known.contains(value),
                    "{name}: {label} {value} is not listed"
                );
            }
        }
        if row.name == *name {
            for (label, values) in &row.labels {
                let has = family.labels.get(label);
                let has = has.unwrap_or_else(|| panic!("{name} has no {label}"));
                for value in values {
                    assert!(has.contains(value), "{name}: {label} {value} is listed");
                }
            }
        }
    }
    for name in by_name.keys().chain(aliases.keys()) {
        assert!(
            served.contains_key(*name),
            "{name} is listed, and not served"
        );
    }
}

#[test]
fn the_publishers_figures_are_those_of_the_documentation() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    // a broker that is not there
    let warm = "[warm]\nname = \"stratum0\"\nbroker = \"mqtts://127.0.0.1:1\"\n";
    sandbox.configure(&format!("{ANY_PORT}{warm}"));
    sandbox.ok(["mkfs", REPO]);
    let port = Port::any();
    let file = sandbox.state().with_extension("cern");
    let place = file.to_str().unwrap();
    sandbox.ok([
        "site",
        "add",
        "cern",
        "--url",
        &port.url(),
        "--output",
        place,
    ]);
    let text = fs::read_to_string(&file).unwrap();
    let _site = port.serve(&Enrolment::parse(&text).unwrap());
    sandbox.mount();
    let at = address(&sandbox);
    write(&sandbox.root().join("dir/file"), &[7; 100_000]);
    sandbox.ok(["commit", REPO]);
    sandbox.ok(["commit", REPO]);
    write(&sandbox.root().join("dropped"), b"not published");
    sandbox.ok(["abort", REPO]);
    let own = format!("repo=\"{REPO}\"");
    let text = until(at, "/metrics", |_, text| {
        text.contains(&format!("prepub_base_revision{{{own}}} 2\n"))
            && text.contains("prepub_site_rate_bytes_per_second{")
            && text.contains("prepub_broker_connected 0\n")
    });
    let families = parse(&text);
    lint(&families);
    compare(&families, "Publisher");
    for line in [
        format!("prepub_commits_begun_total{{{own}}} 2"),
        format!("prepub_commits_total{{{own},outcome=\"published\"}} 1"),
        format!("prepub_commits_total{{{own},outcome=\"nothing\"}} 1"),
        format!("prepub_commits_total{{{own},outcome=\"failed\"}} 0"),
        format!("prepub_commit_step_seconds_count{{{own},step=\"total\"}} 1"),
        format!("prepub_committed_files_total{{{own}}} 1"),
        format!("prepub_committed_bytes_total{{{own}}} 100000"),
        format!("prepub_warm_quorum_total{{{own},result=\"met\"}} 1"),
        format!("prepub_aborts_total{{{own}}} 1"),
        format!("prepub_published_revision{{{own}}} 2"),
        format!("prepub_staged_paths{{{own},change=\"added\"}} 0"),
        "prepub_site_behind_objects{site=\"cern\"} 0".into(),
        "prepub_site_sent_objects_total{site=\"cern\"} 1".into(),
        "prepub_site_warm_seconds_count{site=\"cern\"} 1".into(),
        "prepub_site_connected{site=\"cern\"} 1".into(),
        "prepub_healthy 1".into(),
        "cvmfs_prepub_jobs_published_total 1".into(),
        "cvmfs_prepub_jobs_submitted_total 2".into(),
        "cvmfs_prepub_pipeline_abort_total 1".into(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    // who is gone is not counted on
    sandbox.ok(["site", "revoke", "cern"]);
    sandbox.ok(["rmfs", REPO, "--force"]);
    let (_, text) = page(at, "/metrics");
    assert!(!text.contains(&own) && !text.contains("\"cern\""), "{text}");
    sandbox.unmount();
}

/// Nobody leaves a trace by asking for what there is not.
#[test]
fn a_repository_that_is_none_has_no_figures() {
    let Some((mut sandbox, at)) = watched() else {
        return;
    };
    // as a client that does not look first
    let mut socket = UnixStream::connect(sandbox.state().join("control.sock")).unwrap();
    let body = "{\"repo\":\"none.example.org\"}";
    let length = body.len();
    write!(
        socket,
        "POST /v1/commit HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("none.example.org"), "{answer}");
    let (status, text) = page(at, "/metrics");
    assert_eq!(status, 200);
    assert!(!text.contains("none.example.org"), "{text}");
    assert!(
        text.contains("cvmfs_prepub_jobs_submitted_total 0\n"),
        "{text}"
    );
    sandbox.unmount();
}

#[test]
fn the_receivers_figures_are_those_of_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["enrolments", "srv", "srv/data", "srv/data/txn", "spool"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let text = format!(
        "state_dir = {:?}\nenrolments = {:?}\nlocal = \"127.0.0.1:0\"\nlisten = \"\"\n[keep]\nheadroom = \"1MiB\"\n\
         [repository.{REPO:?}]\nstorage = {:?}\nspool = {:?}\n",
        at("state"),
        at("enrolments"),
        at("srv"),
        at("spool"),
    );
    let config = Config::parse(&text, Path::new("receiver.toml")).unwrap();
    let runtime = Runtime::new().unwrap();
    let clock = receiver::Clock {
        wall: Arc::new(|| 1_700_000_000),
        steady: Arc::new(|| 0),
    };
    let daemon = runtime.block_on(Daemon::start(config, clock));
    let daemon = daemon.unwrap();
    let local: SocketAddr = daemon.local;
    let text = until(local, "/metrics", |_, text| {
        text.contains("prepub_receiver_room_bytes{")
    });
    let families = parse(&text);
    lint(&families);
    compare(&families, "Receiver");
    // nobody is enrolled
    let (status, body) = page(local, "/health");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("no publisher is enrolled"), "{body}");
    assert!(text.contains("prepub_receiver_healthy 0\n"), "{text}");
    drop(runtime.block_on(daemon.end()));
}
