//! The official `cvmfs_gateway` and `cvmfs_receiver`, where they are installed, beside the double:
//! what is sent to both is answered alike, and makes the same rows, counters and catalogs.
//!
//! They look for a repository's configuration in `/etc/cvmfs` and `/var/spool/cvmfs`; here they see
//! other directories in those places, in a mount namespace of their own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use formats::catalog::Role;
use formats::{Kind, RepoPath};
use serde_json::{Value, json};

use super::at_random::Chance;
use super::client::Client;
use super::draft::{Draft, MTIME, Snapshot};
use super::{Key, Stage, crashed, key};
use crate::support::web::serve;
use crate::support::{is_root, skip_unless};

/// Not a name that a repository of this machine might have.
const REPO: &str = "dw.example.org";

/// The official gateway over a copy of a repository.
struct Real {
    gateway: Child,
    client: Client,
    dir: tempfile::TempDir,
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(program));
    found.find(|file| file.is_file())
}

fn is_installed() -> bool {
    let all = ["cvmfs_gateway", "cvmfs_receiver", "unshare"];
    !skip_unless(
        all.iter().all(|program| on_path(program).is_some()),
        "cvmfs_gateway, cvmfs_receiver and unshare on PATH",
    ) && !skip_unless(is_root(), "root, for a mount namespace")
        && !skip_unless(
            Path::new("/etc/cvmfs").is_dir() && Path::new("/var/spool/cvmfs").is_dir(),
            "/etc/cvmfs and /var/spool/cvmfs",
        )
}

/// Runs with the directory of [`Real`] as its `$0`. Copies of other tests' mounts would keep those from
/// ending.
const START: &str = "awk '$3 ~ /^fuse/ {print $2}' /proc/self/mounts | xargs -r -n1 umount -l; \
    mount --bind \"$0/etc\" /etc/cvmfs \
    && mount --bind \"$0/spool\" /var/spool/cvmfs \
    && exec cvmfs_gateway --user_config_file /etc/cvmfs/gateway/user.json";

/// What the receiver needs to know, and what it would leave undefined.
fn configure_repository(stage: &Stage, dir: &Path) {
    let storage = dir.join("storage");
    let url = serve(storage.clone());
    let storage = storage.display();
    let conf_dir = dir.join("etc/repositories.d").join(REPO);
    fs::create_dir(&conf_dir).unwrap();
    let mut conf = fs::read_to_string(
        stage
            .sandbox
            .state()
            .join("repositories")
            .join(REPO)
            .join("server.conf"),
    )
    .unwrap();
    // the last assignment counts
    for (key, value) in [
        ("CVMFS_STRATUM0", format!("http://{url}")),
        (
            "CVMFS_UPSTREAM_STORAGE",
            format!("local,{storage}/data/txn,{storage}"),
        ),
        ("CVMFS_SPOOL_DIR", format!("/var/spool/cvmfs/{REPO}")),
        ("CVMFS_ENFORCE_LIMITS", "false".into()),
        ("CVMFS_AUTOCATALOGS_MAX_WEIGHT", "100000".into()),
        ("CVMFS_AUTOCATALOGS_MIN_WEIGHT", "1000".into()),
    ] {
        conf += &format!("{key}={value}\n");
    }
    fs::write(conf_dir.join("server.conf"), conf).unwrap();
}

fn configure_gateway(dir: &Path, key: &Key, [port, debugging]: [u16; 2]) {
    let access = json!({
        "version": 2,
        "repos": [{"domain": REPO, "keys": [{"id": key.id, "path": key.path}]}],
        "keys": [{"type": "plain_text", "id": key.id, "secret": key.secret}],
    });
    let settings = json!({
        "max_lease_time": 7200,
        "port": port,
        "num_receivers": 1,
        "receiver_path": on_path("cvmfs_receiver"),
        "work_dir": dir.join("work"),
        "access_config_file": "/etc/cvmfs/gateway/repo.json",
        "pprof_port": debugging,
        "pprof_port_range_max": debugging,
    });
    fs::write(dir.join("etc/gateway/repo.json"), access.to_string()).unwrap();
    fs::write(dir.join("etc/gateway/user.json"), settings.to_string()).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}

impl Real {
    fn beside(stage: &Stage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        copy(&stage.storage(), &at("storage"));
        for place in ["etc/repositories.d", "etc/gateway", "spool", "work"] {
            fs::create_dir_all(at(place)).unwrap();
        }
        copy(&stage.sandbox.state().join("keys"), &at("etc/keys"));
        copy(
            &stage.sandbox.state().join("spool").join(REPO),
            &at("spool").join(REPO),
        );
        configure_repository(stage, dir.path());
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let address = free();
        let key = key("key", "/");
        configure_gateway(dir.path(), &key, [address.port(), free().port()]);
        let log = fs::File::create(at("log")).unwrap();
        let gateway = Command::new("unshare")
            .args(["--mount", "--propagation", "slave", "sh", "-c", START])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = Client::new(address, REPO, &key.id, &key.secret);
        let mut real = Self {
            gateway,
            client,
            dir,
        };
        real.await_start(address);
        real
    }

    fn await_start(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(address).is_err() {
            let ended = self.gateway.try_wait().unwrap();
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "{ended:?}\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn storage(&self) -> PathBuf {
        self.dir.path().join("storage")
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // its mounts go with it
        self.gateway.kill().unwrap();
        self.gateway.wait().unwrap();
    }
}

/// Both, with the same repository to begin with.
struct Pair {
    stage: Stage,
    real: Real,
}

impl Pair {
    fn new() -> Self {
        let stage = Stage::called(REPO, vec![key("key", "/")]);
        let real = Real::beside(&stage);
        Self { stage, real }
    }

    /// Publishes the same changes through both; they answer alike, and publish the same. What they
    /// said.
    #[track_caller]
    fn publish(&self, lease: &str, change: &mut dyn FnMut(&mut Draft)) -> Value {
        let sides = [
            (&self.stage.client, self.stage.storage()),
            (&self.real.client, self.real.storage()),
        ];
        let said = sides.map(|(client, storage)| {
            let mut draft = Draft::of_head(&storage);
            change(&mut draft);
            let made = draft.make();
            let token = client.lease(lease);
            client.upload(&token, &made.objects);
            let said = client.commit(&token, &made, "");
            client.drop_lease(&token);
            said
        });
        let [double, real] = said.map(without_places);
        assert_eq!(double, real, "lease {lease}");
        self.compare(lease);
        real
    }

    #[track_caller]
    fn compare(&self, lease: &str) {
        let double = Snapshot::of_head(&self.stage.storage()).0;
        let real = Snapshot::of_head(&self.real.storage()).0;
        let places = |parts: &std::collections::BTreeMap<RepoPath, _>| {
            parts.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(places(&double), places(&real), "lease {lease}");
        for (begins, part) in &double {
            let theirs = &real[begins];
            assert_eq!(part.rows, theirs.rows, "rows of {begins}, lease {lease}");
            assert_eq!(
                part.counters, theirs.counters,
                "counters of {begins}, lease {lease}"
            );
            assert_eq!(
                part.revision, theirs.revision,
                "revision of {begins}, lease {lease}"
            );
        }
    }
}

/// An answer without where in a source something happened.
fn without_places(mut said: Value) -> Value {
    let reason = said["reason"].as_str().unwrap_or_default();
    if let Some(panic) = reason.strip_prefix("runtime error: PANIC: ") {
        let text = panic.lines().skip(1).collect::<Vec<_>>().join("\n");
        // where a catalog is loaded from, and why not, differs
        let text = text
            .split_once("failed to load")
            .map_or(text.clone(), |_| "failed to load".into());
        said["reason"] = text.into();
    }
    said
}

#[test]
fn at_random_with_every_gap() {
    if !is_installed() {
        return;
    }
    let (mut done, mut refused) = (0, 0);
    for seed in 1..=3 {
        let pair = Pair::new();
        let mut chance = Chance::with_gaps(seed);
        for revision in 0..25 {
            let lease = match chance.dice.next(3) {
                0 => chance.directory(&pair.stage.draft()),
                _ => String::new(),
            };
            let lease = if lease.is_empty() {
                "/".to_owned()
            } else {
                lease
            };
            let before = chance.dice.0;
            let said = pair.publish(&lease, &mut |draft| {
                chance.dice.0 = before;
                chance.change(draft, revision);
            });
            if said["status"] == "ok" {
                done += 1
            } else {
                refused += 1
            }
        }
    }
    assert!(done > 50, "{done} done, {refused} refused");
}

#[test]
fn every_refusal() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new();
    let ok = |said: Value| assert_eq!(said["status"], "ok", "{said}");
    let no = |said: Value| assert_eq!(said["status"], "error", "{said}");
    ok(pair.publish("/", &mut |draft| {
        for dir in ["/n", "/n/m", "/d"] {
            draft.dir(dir);
        }
        draft.file("/d/file", b"1");
        draft.nest("/n");
        draft.nest("/n/m");
    }));
    ok(pair.publish("/", &mut |draft| {
        for name in ["/n/one", "/n/two"] {
            let row = draft.file(name, b"shared");
            (row.linkcount, row.link_group) = (2, 1);
        }
    }));
    no(pair.publish("/n/one", &mut |draft| draft.remove("/n/one")));
    no(pair.publish("/", &mut |draft| draft.file("/d/none", b"").linkcount = 0));
    no(pair.publish("/new/dir", &mut |draft| {
        draft.dir("/new");
        draft.dir("/new/dir");
    }));
    no(pair.publish("/new/file", &mut |draft| {
        draft.dir("/new");
        draft.file("/new/file", b"");
    }));
    no(pair.publish("/", &mut |draft| {
        draft.file("/n/new", b"");
        draft.claimed_bytes.insert(super::draft::path("/n"), 0);
    }));
    ok(pair.publish("/", &mut |draft| {
        draft.row("").entry.mtime.secs = MTIME + 1;
        draft.row("/n").role = Role::Plain;
        draft.remove("/n/.cvmfscatalog");
    }));
    ok(pair.publish("/n", &mut |draft| {
        draft.other("/n/pipe", Kind::Fifo);
        draft.nest("/n");
    }));
    // each directory below counts the links of the file down that is there now
    ok(pair.publish("/", &mut |draft| {
        draft.dir("/d/sub");
        draft.dir("/d/sub/sub");
    }));
    let file = &mut |draft: &mut Draft| {
        draft.remove("/d/sub");
        draft.file("/d/sub", b"a file");
    };
    no(pair.publish("/", file));
    ok(pair.publish("/", &mut |draft| draft.remove("/d/sub/sub")));
    ok(pair.publish("/", file));
}

#[test]
fn every_crash() {
    if !is_installed() {
        return;
    }
    let pair = Pair::new();
    let before = [pair.stage.storage(), pair.real.storage()].map(|at| Draft::of_head(&at));
    let said = pair.publish("/", &mut |draft| {
        draft.file("/same", b"1");
    });
    assert_eq!(said["status"], "ok");
    // once more on the old base: it is there already
    let clients = [&pair.stage.client, &pair.real.client];
    let mut answers = Vec::new();
    for (client, mut draft) in clients.into_iter().zip(before) {
        draft.file("/same", b"2");
        let made = draft.make();
        let token = client.lease("/");
        client.upload(&token, &made.objects);
        answers.push(client.commit(&token, &made, ""));
        answers.push(client.commit(&token, &made, ""));
        client.drop_lease(&token);
    }
    assert_eq!(answers[..2], answers[2..]);
    assert_eq!(answers[0]["reason"], crashed("commit"));
    pair.compare("/");
}
