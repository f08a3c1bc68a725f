//! A real `cvmfs_gateway` with its `cvmfs_receiver`, where they are installed and we are root.
//!
//! Both look for keys and configuration in fixed places, so they get a mount namespace of their own
//! with a test's directories there. The repository is one of ours, served over HTTP on loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use commit::gateway::Key;
use commit::{
    CommitError, Gateway, GatewayOptions, NoProgress, Outcome, Progress, Request, Visible, resign,
};
use formats::changeset::ChangeSet;
use store::{DirStore, Durability, HttpOptions, HttpStore, ObjectStore};

use super::official::Server;
use super::repo::Repo;

/// Longest wait for the gateway to come up; it takes a moment.
const START_MAX: Duration = Duration::from_secs(20);

/// Where a publisher's objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the gateway.
    Payloads,
    /// Into its storage.
    Storage,
}

/// A repository behind a gateway, until dropped.
pub struct Real {
    pub repo: Repo,
    pub url: String,
    server: Server,
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
    /// With other lines of `server.conf`.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_with(settings, 7200)
    }

    /// With leases of so many seconds.
    pub fn start_with(settings: &[(&str, &str)], lease_seconds: u64) -> Self {
        let repo = Repo::with(settings);
        // the receiver goes by the real time of day
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        repo.clock.store(since, Ordering::Relaxed);
        resign::resign(&repo.publisher, 30, repo.now()).unwrap();
        let home = repo.publisher.home();
        let server = Server::start(&home.storage_dir().unwrap());
        let port = free_port();
        configure(&repo, &server.url(), port, lease_seconds);
        let gateway = spawn(repo.dir.path());
        let real = Self {
            url: format!("http://127.0.0.1:{port}/api/v1"),
            repo,
            server,
            gateway: Mutex::new(gateway),
            port,
        };
        real.wait_until_up();
        real
    }

    fn wait_until_up(&self) {
        let begun = Instant::now();
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(begun.elapsed() < START_MAX, "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What gateway and receiver wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.repo.dir.path().join("gateway.log")).unwrap_or_default()
    }

    /// Ends the gateway and starts it again, leases and all.
    pub fn restart(&self) {
        self.stop();
        *self.gateway.lock().unwrap() = spawn(self.repo.dir.path());
        self.wait_until_up();
    }

    fn stop(&self) {
        // it replaced the shell that made its namespace, so it is our child
        let mut gateway = self.gateway.lock().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    /// The Stratum 0 as clients see it.
    pub fn stratum0(&self) -> Arc<dyn ObjectStore> {
        Arc::new(HttpStore::new(&self.server.url(), HttpOptions::default()).unwrap())
    }

    /// A publisher of its own, as on another machine.
    pub fn publisher(&self, way: Way) -> Gateway {
        self.publisher_at(&self.url, way)
    }

    /// The same, which reaches the gateway at another URL.
    pub fn publisher_at(&self, url: &str, way: Way) -> Gateway {
        let own = tempfile::tempdir_in(self.repo.dir.path()).unwrap().keep();
        self.publisher_in(&own, url, way)
    }

    /// The same, which keeps its things in a directory at hand.
    pub fn publisher_in(&self, own: &Path, url: &str, way: Way) -> Gateway {
        let dir = self.repo.dir.path();
        let storage = || -> Arc<dyn ObjectStore> {
            let dir = self.repo.publisher.home().storage_dir().unwrap();
            Arc::new(DirStore::open(dir, Durability::Batch).unwrap())
        };
        let options = GatewayOptions {
            url: url.to_owned(),
            key: Key::read(&dir.join("etc/keys/test.gw")).unwrap(),
            stratum0: self.stratum0(),
            storage: (way == Way::Storage).then(storage),
            hostname: "publisher.example.org".to_owned(),
            spool_dir: own.join("spool"),
        };
        Gateway::open(self.repo.publisher.home().clone(), options, own).unwrap()
    }

    /// Publishes through a gateway.
    pub fn try_publish(
        &self,
        publisher: &Gateway,
        request: &Request,
    ) -> Result<Outcome, CommitError> {
        self.try_publish_watched(publisher, request, &NoProgress)
    }

    /// The same, watched.
    pub fn try_publish_watched(
        &self,
        publisher: &Gateway,
        request: &Request,
        progress: &dyn Progress,
    ) -> Result<Outcome, CommitError> {
        let txn = tempfile::tempdir_in(self.repo.dir.path()).unwrap();
        commit::publish(request, publisher, txn.path(), progress)
    }

    /// Publishes what has to become visible.
    #[track_caller]
    pub fn publish(&self, publisher: &Gateway, changes: ChangeSet) -> Visible {
        match self.try_publish(publisher, &self.repo.request(changes)) {
            Ok(Outcome::Visible(visible)) => {
                let head = self.repo.head();
                assert_eq!(*head.root_hash(), visible.root_hash);
                *visible
            }
            other => panic!("{other:?}\n{}", self.log()),
        }
    }

    /// Nobody holds a lease, by the gateway's word.
    #[track_caller]
    pub fn assert_no_lease(&self) {
        let leases = reqwest::blocking::get(format!("{}/leases", self.url)).unwrap();
        let leases: serde_json::Value = serde_json::from_str(&leases.text().unwrap()).unwrap();
        assert_eq!(leases["data"], serde_json::json!({}), "{leases}");
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
fn configure(repo: &Repo, url: &str, port: u16, lease_seconds: u64) {
    let (dir, home) = (repo.dir.path(), repo.publisher.home());
    let (name, etc) = (&home.name, dir.join("etc"));
    let conf_dir = etc.join("repositories.d").join(name);
    for made in [&conf_dir, &etc.join("keys"), &dir.join("work")] {
        fs::create_dir_all(made).unwrap();
    }
    let conf = home.conf().unwrap();
    let storage = home.storage_dir().unwrap();
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
    text += &format!("CVMFS_REPOSITORY_NAME={name}\nCVMFS_STRATUM0={url}\n");
    let (txn, storage) = (storage.join("data/txn"), storage.display());
    text += &format!("CVMFS_UPSTREAM_STORAGE=local,{},{storage}\n", txn.display());
    fs::write(conf_dir.join("server.conf"), text).unwrap();
    fs::write(conf_dir.join("client.conf"), "").unwrap();
    for suffix in ["pub", "crt", "key"] {
        let file = format!("{name}.{suffix}");
        fs::copy(home.keys_dir.join(&file), etc.join("keys").join(&file)).unwrap();
    }
    fs::write(etc.join("keys/test.gw"), "plain_text key1 secret1\n").unwrap();
    fs::write(home.spool_dir.join("client.local"), "").unwrap();
    fs::create_dir_all(home.spool_dir.join("tmp")).unwrap();
    let access = serde_json::json!({
        "version": 2,
        "repos": [{"domain": name, "keys": [{"id": "key1", "path": "/"}]}],
        "keys": [{"type": "plain_text", "id": "key1", "secret": "secret1"}],
    });
    fs::write(dir.join("repo.json"), access.to_string()).unwrap();
    let user = serde_json::json!({
        "max_lease_time": lease_seconds,
        "port": port,
        "num_receivers": 2,
        "receiver_path": "/usr/bin/cvmfs_receiver",
        "log_level": "debug",
        "access_config_file": dir.join("repo.json"),
        "work_dir": dir.join("work"),
    });
    fs::write(dir.join("user.json"), user.to_string()).unwrap();
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
            "private",
            "sh",
            "-c",
            script,
            "gateway",
        ])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
