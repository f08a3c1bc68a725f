//! A repository in a bucket, from the command line: a real S3 server, in this process.

mod https;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use commit::RepoHome;
use store::{HttpOptions, HttpStore, ObjectStore};

use crate::support::gateway::auth::Key;
use crate::support::gateway::{Gateway, MAX_LEASE};
use crate::support::s3::{BUCKET, KEY, S3Server, SECRET};
use crate::support::s3_proxy::{Fault, S3Proxy};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

struct Site {
    sandbox: Sandbox,
    proxy: S3Proxy,
    server: S3Server,
    conf: PathBuf,
}

impl Site {
    /// A server with a bucket, and an `s3.conf` for it; no repository yet.
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let server = S3Server::start(&sandbox.dir.path().join("server"));
        let proxy = S3Proxy::start(server.port);
        let conf = sandbox.dir.path().join("s3.conf");
        let more = "CVMFS_S3_MAX_RETRIES=1\nCVMFS_S3_TIMEOUT=10\n";
        fs::write(&conf, server.conf_at(proxy.port, more)).unwrap();
        Self {
            sandbox,
            proxy,
            server,
            conf,
        }
    }

    /// The same with an empty repository, mounted.
    fn mounted() -> Option<Self> {
        if skip_unless(can_mount(), "/dev/fuse") {
            return None;
        }
        let mut site = Self::new();
        site.ok(&["mkfs", REPO, "--storage", "s3://software/sub/repo"]);
        site.sandbox.mount();
        Some(site)
    }

    /// `mkfs`, with the configuration of the bucket.
    fn mkfs(&self, args: &[&str]) -> Output {
        let mut command = self.sandbox.command(args);
        command.arg("--s3-config").arg(&self.conf).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.mkfs(args);
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        text
    }

    /// Where clients read it: the server, without a key.
    fn front(&self) -> HttpStore {
        let url = format!("http://127.0.0.1:{}/{BUCKET}/sub/repo", self.server.port);
        HttpStore::new(&url, HttpOptions::default()).unwrap()
    }
}

fn said(output: &Output) -> String {
    let text = [&*output.stdout, &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn from_mkfs_to_rmfs() {
    let Some(site) = Site::mounted() else {
        return;
    };
    let sandbox = &site.sandbox;
    let conf = fs::read_to_string(sandbox.server_conf()).unwrap();
    let upstream = format!("/repo@{}", site.conf.display());
    assert!(conf.contains("S3,") && conf.contains(&upstream), "{conf}");
    let doctor = sandbox.ok(["doctor", REPO]);
    assert!(
        doctor.contains("s3://software/sub/repo is read by clients at"),
        "{doctor}"
    );

    // a nested catalog, and a file of several chunks
    write(&sandbox.root().join("n/.cvmfscatalog"), b"");
    let big: Vec<u8> = (0..40_000_000_u32)
        .flat_map(|n| n.to_le_bytes())
        .take(40_000_000)
        .collect();
    write(&sandbox.root().join("n/big"), &big);
    write(&sandbox.root().join("small"), b"small");
    let made = sandbox.json(["commit", REPO, "--tag", "v1"]);
    assert_eq!(made["revision"], 2);
    assert!(made["objects_new"].as_u64().unwrap() > 3, "{made}");
    fs::rename(sandbox.root().join("n"), sandbox.root().join("moved")).unwrap();
    fs::remove_file(sandbox.root().join("small")).unwrap();
    sandbox.ok(["commit", REPO]);
    sandbox.check();
    let status = sandbox.json(["status"]);
    let url = status["repositories"][0]["url"].as_str().unwrap();
    assert!(url.ends_with("/software/sub/repo"), "{status}");
    let manifest = site.front().read_root(".cvmfspublished").unwrap();
    assert!(String::from_utf8_lossy(&manifest).contains("\nS3\n"));
    // a new process, with nothing at hand, reads the lower tree from the bucket
    let mut site = site;
    site.sandbox.unmount();
    fs::remove_dir_all(site.sandbox.state().join("stage")).unwrap();
    site.sandbox.mount();
    assert_eq!(
        fs::read(site.sandbox.root().join("moved/big")).unwrap(),
        big
    );

    let sandbox = &site.sandbox;
    sandbox.ok(["rollback", REPO, "--tag", "v1"]);
    assert_eq!(fs::read(sandbox.root().join("small")).unwrap(), b"small");
    sandbox.ok(["resign", REPO]);
    sandbox.check();
    // clients that may not read it are noticed
    site.server.set_public(false);
    let doctor = sandbox.fails(1, ["doctor", REPO]);
    assert!(
        doctor.contains("clients cannot read") && doctor.contains("CVMFS_S3_X_AMZ_ACL"),
        "{doctor}"
    );
    sandbox.ok(["rmfs", REPO, "--force"]);
    assert!(site.front().read_root(".cvmfspublished").is_err());
    assert!(!sandbox.server_conf().exists());
}

#[test]
fn a_server_that_is_gone_in_the_middle_of_a_commit() {
    let Some(mut site) = Site::mounted() else {
        return;
    };
    write(&site.sandbox.root().join("a"), b"kept");
    for file in ["data/", ".cvmfsreflog", ".cvmfspublished"] {
        site.proxy.fail("PUT", file, usize::MAX, Fault::Cut);
        let text = site.sandbox.fails(1, ["commit", REPO]);
        assert!(text.contains("CVMFS_S3_HOST"), "{file}: {text}");
        site.proxy.behave();
        let status = site.sandbox.json(["status"]);
        let staged = &status["repositories"][0]["staged"];
        assert_eq!(staged["added"], 1, "{file}: {status}");
        assert_eq!(status["repositories"][0]["published_revision"], 1, "{file}");
    }
    site.server.stop();
    site.sandbox.fails(1, ["commit", REPO]);
    site.server.go_on();
    assert_eq!(site.sandbox.json(["commit", REPO])["revision"], 2);
    site.sandbox.check();
    assert_eq!(fs::read(site.sandbox.root().join("a")).unwrap(), b"kept");
}

#[test]
fn killed_while_it_sends() {
    if skip_unless(cfg!(feature = "failpoints"), "the feature failpoints") {
        return;
    }
    let Some(mut site) = Site::mounted() else {
        return;
    };
    for (at, step) in ["s3::put", "s3::write_root", "s3::wrote_root"]
        .iter()
        .enumerate()
    {
        site.sandbox.unmount();
        let fault = format!("{step}=return(kill)");
        site.sandbox.mount_with(&[("FAILPOINTS", &fault)]);
        write(&site.sandbox.root().join(format!("{at}")), step.as_bytes());
        site.sandbox.run(["commit", REPO]);
        assert!(site.sandbox.has_died(), "{step} was not passed");
        site.sandbox.mount();
        site.sandbox.ok(["commit", REPO]);
        site.sandbox.check();
        let found = fs::read(site.sandbox.root().join(format!("{at}"))).unwrap();
        assert_eq!(found, step.as_bytes());
        let status = site.sandbox.json(["status"]);
        assert_eq!(
            status["repositories"][0]["published_revision"],
            at + 2,
            "{step}"
        );
    }
}

/// A gateway whose storage is a bucket: objects go there past the gateway, before the lease.
#[test]
fn through_a_gateway_into_its_bucket() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let site = Site::new();
    // the gateway's machine reaches the server itself, so what passes the proxy is the publisher's
    let theirs = Sandbox::new();
    let conf = theirs.dir.path().join("s3.conf");
    fs::write(&conf, site.server.conf("")).unwrap();
    let mut mkfs = theirs.command(["mkfs", REPO, "--storage", "s3://software/sub/repo"]);
    let made = mkfs.arg("--s3-config").arg(&conf).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let home = RepoHome::embedded(&theirs.state(), REPO).unwrap();
    let key = Key {
        id: "key1".into(),
        secret: "secret1".into(),
        path: "/".into(),
    };
    let gateway = Gateway::start(home.clone(), vec![key], MAX_LEASE);

    let mut ours = Sandbox::new();
    // a state is there since its first repository
    ours.ok(["mkfs", "other.example.org"]);
    let keys = ours.state().join("keys");
    fs::create_dir_all(ours.server_conf().parent().unwrap()).unwrap();
    fs::copy(&home.conf_file, ours.server_conf()).unwrap();
    let public = format!("{REPO}.pub");
    fs::copy(home.keys_dir.join(&public), keys.join(&public)).unwrap();
    fs::write(keys.join(format!("{REPO}.gw")), "plain_text key1 secret1\n").unwrap();
    let dir = ours.dir.path().display();
    ours.configure(&format!(
        "[repository.\"{REPO}\"]\npublisher = \"gateway\"\n\
         [repository.\"{REPO}\".gateway]\nurl = \"http://{}/api/v1\"\n\
         stratum0 = \"http://127.0.0.1:{}/software/sub/repo\"\n\
         storage = \"S3,{dir},sub/repo@{}\"\n",
        gateway.address(),
        site.server.port,
        site.conf.display(),
    ));
    ours.mount();
    write(&ours.root().join("n/file"), b"through a gateway");
    site.proxy.take_seen();
    assert_eq!(ours.json(["commit", REPO])["revision"], 2);
    assert!(site.proxy.count("PUT") > 0, "it went another way");
    assert_eq!(
        fs::read(ours.root().join("n/file")).unwrap(),
        b"through a gateway"
    );
    theirs.check();
}

#[test]
fn what_mkfs_says() {
    let site = Site::new();
    let sandbox = &site.sandbox;
    for (args, words) in [
        (&["mkfs", REPO, "--create-bucket"][..], "--storage"),
        (
            &["mkfs", REPO, "--storage", "/tmp/x", "--create-bucket"],
            "s3://BUCKET/PREFIX",
        ),
        (
            &["mkfs", REPO, "--storage", "s3://a b"],
            "no part of a bucket",
        ),
    ] {
        let text = sandbox.fails(2, args);
        assert!(text.contains(words), "{text}");
    }
    let other = site.mkfs(&["mkfs", REPO, "--storage", "s3://other"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("make them agree"), "{}", said(&other));
    // nobody may read it: made, with a word
    site.server.set_public(false);
    let text = site.ok(&["mkfs", REPO, "--storage", "s3://software"]);
    assert!(
        text.contains("clients cannot read") && !text.contains(SECRET),
        "{text}"
    );
    let used = site.mkfs(&[
        "mkfs",
        "b.example.org",
        "--storage",
        &format!("s3://software/{REPO}"),
    ]);
    assert!(said(&used).contains("not empty"), "{}", said(&used));
}

/// With nothing but what AWS's own tools are given.
#[test]
fn with_the_standard_credentials() {
    let site = Site::new();
    fs::remove_dir_all(site.sandbox.dir.path().join("server").join(BUCKET)).unwrap();
    let endpoint = format!("http://127.0.0.1:{}", site.server.port);
    let with_keys = |command: &mut Command| {
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_ENDPOINT_URL", &endpoint)
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .unwrap()
    };
    let storage = ["--storage", "s3://software/x", "--create-bucket"];
    let mut mkfs = site.sandbox.command(["mkfs", REPO]);
    let output = with_keys(mkfs.args(storage));
    assert!(output.status.success(), "{}", said(&output));
    let conf = fs::read_to_string(site.sandbox.server_conf().with_file_name("s3.conf")).unwrap();
    assert!(
        conf.contains("CVMFS_S3_REGION=eu-central-1") && !conf.contains("KEY"),
        "{conf}"
    );
    let output = with_keys(&mut site.sandbox.command(["check", REPO, "--data"]));
    assert!(output.status.success(), "{}", said(&output));
    // and without them it says what is missing
    let mut check = site.sandbox.command(["check", REPO]);
    let output = check
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .env_remove("AWS_ACCESS_KEY_ID")
        .output()
        .unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("no credentials"),
        "{text}"
    );
}
