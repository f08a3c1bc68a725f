//! A real `cvmfs_gateway` with its `cvmfs_receiver`, where they are installed and we are root.
//!
//! Both look for keys and configuration in fixed places, so they get a mount namespace of their own
//! with a test's directories there. The repository is one of ours, served over HTTP on loopback.
//!
//! The gateway starts a receiver for each task, a payload or a commit. It finds a script in its place,
//! which ends at once, or waits, if a test has left a note.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use commit::Place;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::repo::Repo;

use super::{At, Fault};

/// Longest wait for the gateway to come up, or for a receiver to be started; either takes a moment.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a look at what another process does may be old.
const LOOK: Duration = Duration::from_millis(20);

/// Takes the receiver's place; `$DIR` is the test's directory.
const RECEIVER: &str = "#!/bin/sh
rm \"$DIR/crash\" 2>/dev/null && exit 1
[ -e \"$DIR/stall\" ] && : > \"$DIR/stalled\"
while [ -e \"$DIR/stall\" ]; do sleep 0.05; done
exec cvmfs_receiver \"$@\"
";

/// The programs, at work for one repository until dropped.
pub struct Real {
    dir: PathBuf,
    gateway: Mutex<Child>,
    port: u16,
}

/// False where the real thing cannot be had; then the test says so and ends.
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |tool: &&str| !std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let tools = [
        "cvmfs_gateway",
        "cvmfs_receiver",
        "cvmfs_swissknife",
        "unshare",
    ];
    if let Some(tool) = tools.iter().find(|tool| missing(tool)) {
        eprintln!("skipped: {tool} is not on PATH");
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give cvmfs_receiver its configuration");
        return false;
    }
    if !Path::new("/etc/cvmfs").is_dir() || !Path::new("/var/spool/cvmfs").is_dir() {
        eprintln!("skipped: /etc/cvmfs or /var/spool/cvmfs is missing");
        return false;
    }
    true
}

impl Real {
    /// Starts it for a repository whose storage is served at `url`.
    pub fn start(repo: &Repo, url: &str, key: [&str; 2], lease: Duration) -> Self {
        let port = free_port();
        configure(repo, url, port, key, lease);
        let dir = repo.dir.path().to_owned();
        let real = Self {
            gateway: Mutex::new(spawn(&dir)),
            dir,
            port,
        };
        real.wait_until_up();
        real
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < WAIT_MAX, "{what}\n{}", self.log());
            std::thread::sleep(LOOK);
        }
    }

    fn wait_until_up(&self) {
        let is_up = || std::net::TcpStream::connect(self.address()).is_ok();
        self.wait_until("the gateway does not start", is_up);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("gateway.log")).unwrap_or_default()
    }

    pub fn restart(&self) {
        self.stop();
        *self.gateway.lock().unwrap() = spawn(&self.dir);
        self.wait_until_up();
    }

    /// Kills it with its receivers, as its service would: one that lived on would commit later.
    fn stop(&self) {
        // it replaced the shell that made its namespace, so it is our child
        let mut gateway = self.gateway.lock().unwrap();
        kill_process_group(Pid::from_child(&gateway), Signal::KILL).unwrap();
        gateway.wait().unwrap();
    }

    /// Whatever the receiver is started for next goes wrong: a test sees to it that it is that.
    pub fn fails(&self, at: At, fault: Fault) {
        assert!(matches!(at, At::Payload | At::Commit), "no task: {at:?}");
        let note = match fault {
            Fault::Crash => "crash",
            Fault::Stall => "stall",
            other => panic!("a real receiver does not do that when asked: {other:?}"),
        };
        fs::write(self.dir.join(note), b"").unwrap();
    }

    pub fn await_stall(&self) {
        let stalled = self.dir.join("stalled");
        self.wait_until("no receiver was started", || stalled.exists());
    }

    pub fn release(&self) {
        for note in ["stalled", "stall"] {
            fs::remove_file(self.dir.join(note)).unwrap();
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Lays out what is to be `/etc/cvmfs` and `/var/spool/cvmfs`.
fn configure(repo: &Repo, url: &str, port: u16, [id, secret]: [&str; 2], lease: Duration) {
    let (dir, home) = (repo.dir.path(), repo.publisher.home());
    let (name, etc) = (&home.name, dir.join("etc"));
    let conf_dir = etc.join("repositories.d").join(name);
    for made in [&conf_dir, &etc.join("keys"), &dir.join("work")] {
        fs::create_dir_all(made).unwrap();
    }
    fs::write(conf_dir.join("server.conf"), server_conf(repo, url)).unwrap();
    fs::write(conf_dir.join("client.conf"), "").unwrap();
    for suffix in ["pub", "crt", "key"] {
        let file = format!("{name}.{suffix}");
        fs::copy(home.keys_dir.join(&file), etc.join("keys").join(&file)).unwrap();
    }
    fs::write(home.spool_dir.join("client.local"), "").unwrap();
    fs::create_dir_all(home.spool_dir.join("tmp")).unwrap();
    let receiver = dir.join("receiver");
    let script = RECEIVER.replace("$DIR", dir.to_str().unwrap());
    fs::write(&receiver, script).unwrap();
    fs::set_permissions(&receiver, fs::Permissions::from_mode(0o755)).unwrap();
    let access = serde_json::json!({
        "version": 2,
        "repos": [{"domain": name, "keys": [{"id": id, "path": "/"}]}],
        "keys": [{"type": "plain_text", "id": id, "secret": secret}],
    });
    fs::write(dir.join("repo.json"), access.to_string()).unwrap();
    let user = serde_json::json!({
        "max_lease_time": lease.as_secs(),
        "port": port,
        "num_receivers": 2,
        "receiver_path": receiver,
        "log_level": "debug",
        "access_config_file": dir.join("repo.json"),
        "work_dir": dir.join("work"),
    });
    fs::write(dir.join("user.json"), user.to_string()).unwrap();
}

/// What the receiver needs to know, and what it would leave undefined.
fn server_conf(repo: &Repo, url: &str) -> String {
    let home = repo.publisher.home();
    let conf = home.conf().unwrap();
    let upstream = match home.place().unwrap() {
        Place::Directory(dir) => {
            let (txn, storage) = (dir.join("data/txn"), dir.display());
            format!("local,{},{storage}", txn.display())
        }
        Place::Bucket(_) => conf.get("CVMFS_UPSTREAM_STORAGE").unwrap().to_owned(),
    };
    let mut text = String::new();
    let wanted = [
        ("CVMFS_HASH_ALGORITHM", "sha1"),
        ("CVMFS_USE_FILE_CHUNKING", "true"),
        ("CVMFS_MIN_CHUNK_SIZE", "4194304"),
        ("CVMFS_AVG_CHUNK_SIZE", "8388608"),
        ("CVMFS_MAX_CHUNK_SIZE", "16777216"),
        ("CVMFS_GARBAGE_COLLECTION", "false"),
        ("CVMFS_AUTOCATALOGS", "false"),
        ("CVMFS_AUTOCATALOGS_MAX_WEIGHT", "100000"),
        ("CVMFS_AUTOCATALOGS_MIN_WEIGHT", "1000"),
        ("CVMFS_ENFORCE_LIMITS", "false"),
    ];
    for (key, default) in wanted {
        let value = conf.get(key).unwrap_or(default);
        text += &format!("{key}={value}\n");
    }
    let name = &home.name;
    text += &format!("CVMFS_REPOSITORY_NAME={name}\nCVMFS_STRATUM0={url}\n");
    text + &format!("CVMFS_UPSTREAM_STORAGE={upstream}\n")
}

/// A gateway in a mount namespace where `dir` holds its configuration.
fn spawn(dir: &Path) -> Child {
    // copies of other tests' mounts would keep those from ending
    let script = "awk '$3 ~ /^fuse/ {print $2}' /proc/self/mounts | xargs -r -n1 umount -l; \
                  mount --bind \"$1/etc\" /etc/cvmfs && mount --bind \"$1/spool\" /var/spool/cvmfs \
                  && exec cvmfs_gateway --user_config_file \"$1/user.json\"";
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("gateway.log"))
        .unwrap();
    Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "slave",
            "sh",
            "-c",
            script,
            "gateway",
        ])
        .arg(dir)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
