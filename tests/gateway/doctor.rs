//! What `doctor` finds out about a gateway, its storage and its receiver.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::double::client::Client;
use crate::support::behind::Behind;
use crate::support::gateway::MAX_LEASE;
use crate::support::{REPO, Sandbox};

/// What is found about the repository: weight and words.
fn findings(sandbox: &Sandbox) -> Vec<(String, String)> {
    let output = sandbox.run(["doctor", REPO, "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = told["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ours = all.filter(|finding| finding["subject"] == REPO);
    ours.map(|finding| {
        let words = format!("{} ({})", text(&finding["found"]), text(&finding["hint"]));
        (text(&finding["weight"]), words)
    })
    .collect()
}

/// The state is there, and nothing is mounted.
fn at_rest(behind: Option<Behind>) -> Option<Behind> {
    let mut behind = behind?;
    behind.sandbox.mount();
    behind.sandbox.unmount();
    Some(behind)
}

#[track_caller]
fn finds(sandbox: &Sandbox, weight: &str, words: &[&str]) {
    let all = findings(sandbox);
    let found = all
        .iter()
        .any(|(w, found)| w == weight && words.iter().all(|word| found.contains(word)));
    assert!(found, "no {weight} of {words:?} in {all:#?}");
}

fn set(sandbox: &Sandbox, lines: &str) {
    let file = sandbox.server_conf();
    let conf = fs::read_to_string(&file).unwrap();
    fs::write(file, format!("{conf}{lines}")).unwrap();
}

#[test]
fn what_the_gateway_grants() {
    let Some(behind) = at_rest(Behind::new()) else {
        return;
    };
    let sandbox = &behind.sandbox;
    let terms = ["publish below /", "last 7200 s", "protocol version 2"];
    finds(sandbox, "ok", &terms);
    finds(sandbox, "ok", &["objects go through the gateway"]);
    assert_eq!(behind.gateway.leases(), 0);
    // nobody else's lease is in the way of the look, but for one on everything
    let other = Client::new(behind.gateway.address(), REPO, "key", "secret");
    let theirs = other.lease("/a");
    finds(sandbox, "ok", &terms);
    other.drop_lease(&theirs);
    let theirs = other.lease("/");
    finds(sandbox, "warning", &["the whole repository is leased"]);
    other.drop_lease(&theirs);
    behind.gateway.advance(Duration::from_secs(86_400));
    finds(sandbox, "warning", &["s ahead of this machine's", "NTP"]);
    let key = sandbox.state().join(format!("keys/{REPO}.gw"));
    fs::write(&key, "plain_text key another\n").unwrap();
    finds(sandbox, "failure", &["does not accept key \"key\""]);
    fs::write(&key, "plain_text nobody secret\n").unwrap();
    finds(sandbox, "failure", &["does not accept key \"nobody\""]);
}

#[test]
fn a_gateway_that_is_down() {
    let Some(Behind {
        gateway, sandbox, ..
    }) = at_rest(Behind::new())
    else {
        return;
    };
    drop(gateway);
    finds(&sandbox, "failure", &["cannot be reached"]);
}

#[test]
fn leases_that_are_short() {
    let Some(behind) = at_rest(Behind::with_leases(MAX_LEASE / 100)) else {
        return;
    };
    finds(
        &behind.sandbox,
        "warning",
        &["leases last 72 s", "max_lease_time"],
    );
}

/// The storage that the configuration names has to be the gateway's.
#[test]
fn whose_storage_it_is() {
    let Some(mut behind) = at_rest(Behind::with_storage()) else {
        return;
    };
    let storage = behind.stratum0.storage();
    let same = ["is the gateway's storage, and can be written"];
    finds(&behind.sandbox, "ok", &same);
    let shelf = storage.join("data/txn");
    fs::remove_dir_all(&shelf).unwrap();
    finds(&behind.sandbox, "failure", &["cannot write to", "data/txn"]);
    fs::create_dir(&shelf).unwrap();
    finds(&behind.sandbox, "ok", &same);
    // one that was copied, and stays behind
    let copy = behind.stratum0.dir.path().join("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&storage, &copy])
        .status();
    assert!(copied.unwrap().success());
    behind.sandbox.mount();
    fs::write(behind.sandbox.root().join("f"), "f").unwrap();
    behind.sandbox.ok(["commit", REPO]);
    behind.sandbox.unmount();
    finds(&behind.sandbox, "ok", &same);
    fs::rename(&storage, behind.stratum0.dir.path().join("theirs")).unwrap();
    fs::rename(&copy, &storage).unwrap();
    let config = behind.sandbox.dir.path().join("every.toml");
    let text = fs::read_to_string(&config).unwrap();
    let theirs = crate::support::web::serve(behind.stratum0.dir.path().join("theirs"));
    let lines = text.lines().map(|line| match line.starts_with("stratum0") {
        true => format!("stratum0 = \"http://{theirs}\""),
        false => line.to_owned(),
    });
    fs::write(&config, lines.collect::<Vec<_>>().join("\n")).unwrap();
    finds(&behind.sandbox, "failure", &["show different revisions"]);
}

/// What a receiver leaves undefined where nobody says it.
#[test]
fn what_a_receiver_enforces() {
    let Some(behind) = at_rest(Behind::new()) else {
        return;
    };
    let sandbox = &behind.sandbox;
    set(
        sandbox,
        "CVMFS_ENFORCE_LIMITS=\nCVMFS_AUTOCATALOGS_MAX_WEIGHT=\n",
    );
    let said = ["does not set CVMFS_ENFORCE_LIMITS", "to chance"];
    finds(sandbox, "warning", &said);
    set(
        sandbox,
        "CVMFS_ENFORCE_LIMITS=true\nCVMFS_AUTOCATALOGS_MAX_WEIGHT=100000\nCVMFS_AUTOCATALOGS_MIN_WEIGHT=1000\n",
    );
    let said = ["limits are enforced", "cannot be seen from here"];
    finds(sandbox, "ok", &said);
    // on the gateway's own machine the receiver's configuration is there to be read
    let root = sandbox.dir.path().join("root");
    let dir = root.join("etc/cvmfs/repositories.d").join(REPO);
    fs::create_dir_all(&dir).unwrap();
    let conf =
        "CVMFS_UPSTREAM_STORAGE=local,/nowhere/data/txn,/nowhere\nCVMFS_ENFORCE_LIMITS=false\n";
    fs::write(dir.join("server.conf"), conf).unwrap();
    let config = sandbox.dir.path().join("every.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("cvmfs_root = {root:?}\n{text}")).unwrap();
    let said = [
        dir.to_str().unwrap(),
        "does not set CVMFS_AUTOCATALOGS_MAX_WEIGHT, CVMFS_AUTOCATALOGS_MIN_WEIGHT",
    ];
    finds(sandbox, "warning", &said);
}
