//! `prepub support`: what helps is in the bundle, and no secret.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{REPO, Sandbox, write};

/// Where secrets may lie, each with one of its own.
const PASSWORD: &str = "pass-in-an-url";
const GATEWAY: &str = "gateway-secret-1234";
const S3: &str = "s3+secret/key+5678";
const LEASE: &str = "lease-token-91011";
const CLOUD: &str = "cloud-secret-1213";
const BEARER: &str = "bearer.token.1415";

/// The lines of all private keys that the state has.
fn keys(state: &Path) -> Vec<String> {
    let dirs = ["keys", "sites"].map(|dir| state.join(dir));
    let files = dirs.iter().flat_map(walkdir::WalkDir::new);
    let texts = files.filter_map(|file| fs::read_to_string(file.unwrap().path()).ok());
    let private = texts.filter(|text| text.contains("PRIVATE KEY"));
    let lines = private.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn what_helps_is_in_it_and_no_secret() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let (state, dir) = (sandbox.state(), sandbox.dir.path());
    let enrolment = dir.join("cern.toml");
    sandbox.ok([
        "site",
        "add",
        "cern",
        "--url",
        "https://s1.example.org:8443",
        "--output",
        enrolment.to_str().unwrap(),
    ]);
    let key = dir.join("gateway.key");
    fs::write(&key, format!("plain_text an-id {GATEWAY}\n")).unwrap();
    sandbox.configure(&format!(
        "[repository.\"{REPO}\".gateway]\nkey = \"{}\"\nurl = \"http://me:{PASSWORD}@gateway.example.org/api/v1\"\n",
        key.display()
    ));
    let s3 = format!("CVMFS_S3_ACCESS_KEY=AN-ACCESS-KEY\nCVMFS_S3_SECRET_KEY=\"{S3}\"\n");
    write(
        &state.join("repositories").join(REPO).join("s3.conf"),
        s3.as_bytes(),
    );
    write(
        &state.join("spool").join(REPO).join("leases/one"),
        LEASE.as_bytes(),
    );
    let own_keys = keys(&state);
    assert!(
        own_keys.len() > 40,
        "masterkey, key, authority, publisher: {}",
        own_keys.len()
    );
    let log = format!(
        "it failed: http://me:{PASSWORD}@h/x with {GATEWAY}, {S3}; lease {LEASE}\n\
         environment {CLOUD}\nAuthorization: Bearer {BEARER}\n-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n\
         and a bare line {}\nthis is worth reading\n",
        own_keys[0], own_keys[1]
    );
    write(&state.join("log/prepub.log"), log.as_bytes());

    let bundle = dir.join("bundle.tar.gz");
    let output = sandbox
        .command(["support", "--json", "--output", bundle.to_str().unwrap()])
        .env("AWS_SECRET_ACCESS_KEY", CLOUD)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let unpacked = dir.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar")
        .arg("xzf")
        .arg(&bundle)
        .arg("-C")
        .arg(&unpacked)
        .status();
    assert!(tar.unwrap().success());
    let part = |name: &str| fs::read_to_string(unpacked.join("prepub-support").join(name)).unwrap();
    for (name, holds) in [
        ("version.txt", env!("CARGO_PKG_VERSION")),
        ("config.toml", "http://me:[removed]@gateway.example.org"),
        ("status.json", REPO),
        ("doctor.json", "\"findings\""),
        ("log.txt", "this is worth reading"),
        ("journal.txt", ""),
        ("state.txt", "keys/test.example.org.masterkey"),
        ("mounts.txt", " / "),
        ("machine.txt", "Linux version"),
    ] {
        assert!(part(name).contains(holds), "{name}: {}", part(name));
        assert!(reply["parts"].as_array().unwrap().contains(&name.into()));
    }
    let all: String = walkdir::WalkDir::new(&unpacked)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file.unwrap().path()).ok())
        .collect();
    let planted = [PASSWORD, GATEWAY, S3, LEASE, CLOUD, BEARER, "AN-ACCESS-KEY"];
    for secret in planted
        .iter()
        .copied()
        .chain(own_keys.iter().map(String::as_str))
    {
        assert!(!all.contains(secret), "{secret} got out");
    }
    assert!(all.matches("[removed]").count() >= 8);
    // one that is there is not replaced, and nobody else reads it
    let said = sandbox.fails(2, ["support", "--output", bundle.to_str().unwrap()]);
    assert!(said.contains("bundle.tar.gz"), "{said}");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&bundle).unwrap());
    assert_eq!(mode & 0o077, 0);
}

/// Where nothing works, a bundle is wanted most.
#[test]
fn a_state_that_is_not_there_is_told_of() {
    let sandbox = Sandbox::new();
    let bundle = sandbox.dir.path().join("bundle.tar.gz");
    sandbox.ok(["support", "--output", bundle.to_str().unwrap()]);
    let said = Command::new("tar")
        .arg("xzOf")
        .arg(&bundle)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("this could not be had: there is no state in"),
        "{said}"
    );
}
