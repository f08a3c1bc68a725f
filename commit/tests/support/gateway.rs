//! A repository behind a gateway: the double that is part of the tests, or the real one where it is
//! installed. Every test of the gateway publisher runs over both ([`behind_each`]).
//!
//! What only one of them does:
//!
//! | | double | real |
//! | --- | --- | --- |
//! | the gateway's clock | moved by [`Behind::pass`] | that of the machine |
//! | a receiver that crashes with the manifest in place | [`Fault::CrashAfter`] | left to chance |
//! | a receiver whose storage is full | [`Fault::Full`] | not without a filesystem for it |
//! | a receiver that crashes or stands still | at a request of choice | at its next task ([`real`]) |
//!
//! Connections are cut before either of them by `support::proxy`.

pub mod real;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use commit::gateway::Key;
use commit::{
    CommitError, Gateway, GatewayOptions, NoProgress, Outcome, Progress, Request, Visible, resign,
};
use formats::changeset::ChangeSet;
use store::{DirStore, Durability, HttpOptions, HttpStore, ObjectStore};

use super::checked::assert_checks;
use super::official::{self, Server, assert_official_check};
use super::repo::Repo;
use super::shared::gateway as double;

pub use super::shared::gateway::MAX_LEASE;
pub use super::shared::gateway::faults::{At, Fault};

/// The key that the gateway knows, as in a `.gw` file.
pub const KEY: [&str; 2] = ["key1", "secret1"];

/// Makes tests of functions: one over the double, one over the real gateway.
macro_rules! behind_each {
    ($($name:ident),* $(,)?) => {
        mod double {
            $(#[test] fn $name() { super::$name($crate::support::gateway::Make::Double) })*
        }
        mod real {
            $(#[test] fn $name() {
                if $crate::support::gateway::is_installed() {
                    super::$name($crate::support::gateway::Make::Real)
                }
            })*
        }
    };
}
pub(crate) use behind_each;

pub use real::is_installed;

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Double,
    /// Only where [`is_installed`].
    Real,
}

/// Where a publisher's objects go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the gateway.
    Payloads,
    /// Into its storage.
    Storage,
}

/// Both.
pub const WAYS: [Way; 2] = [Way::Payloads, Way::Storage];

enum Which {
    Double(Mutex<double::Gateway>),
    Real(real::Real),
}

/// A repository behind a gateway, until dropped.
pub struct Behind {
    which: Which,
    pub url: String,
    server: Server,
    // goes last: the gateway works in its directory
    pub repo: Repo,
}

impl Behind {
    /// With other lines of `server.conf`.
    pub fn start(make: Make, settings: &[(&str, &str)]) -> Self {
        Self::start_with(make, settings, MAX_LEASE)
    }

    /// With leases that last so long.
    pub fn start_with(make: Make, settings: &[(&str, &str)], lease: Duration) -> Self {
        let mut repo = Repo::with(settings);
        // objects wait in the files of a stage, as they do outside of tests
        let staged = repo.dir.path().join("staged");
        repo.staged = Arc::new(DirStore::create(staged, Durability::Batch).unwrap());
        // the receiver goes by the real time of day
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        repo.clock.store(since, Ordering::Relaxed);
        resign::resign(&repo.publisher, 30, repo.now()).unwrap();
        let [id, secret] = KEY;
        let text = format!("plain_text {id} {secret}\n");
        fs::write(repo.dir.path().join("test.gw"), text).unwrap();
        let server = Server::start(&repo.publisher.home().storage_dir().unwrap());
        let (which, address) = match make {
            Make::Double => {
                let key = double::auth::Key {
                    id: id.to_owned(),
                    secret: secret.to_owned(),
                    path: "/".to_owned(),
                };
                let home = repo.publisher.home().clone();
                let gateway = double::Gateway::start(home, vec![key], lease);
                let address = gateway.address();
                (Which::Double(Mutex::new(gateway)), address)
            }
            Make::Real => {
                let real = real::Real::start(&repo, &server.url(), KEY, lease);
                let address = real.address();
                (Which::Real(real), address)
            }
        };
        Self {
            which,
            url: format!("http://{address}/api/v1"),
            server,
            repo,
        }
    }

    /// What gateway and receiver wrote.
    pub fn log(&self) -> String {
        match &self.which {
            Which::Double(_) => String::new(),
            Which::Real(real) => real.log(),
        }
    }

    /// Ends the gateway and starts it again, leases and all.
    pub fn restart(&self) {
        match &self.which {
            Which::Double(gateway) => gateway.lock().unwrap().restart(),
            Which::Real(real) => real.restart(),
        }
    }

    /// Lets time pass for the gateway.
    pub fn pass(&self, time: Duration) {
        match &self.which {
            Which::Double(gateway) => gateway.lock().unwrap().advance(time),
            Which::Real(_) => std::thread::sleep(time),
        }
    }

    /// The next request of a kind goes wrong.
    pub fn fails(&self, at: At, fault: Fault) {
        match &self.which {
            Which::Double(gateway) => gateway.lock().unwrap().faults().add(at, fault),
            Which::Real(real) => real.fails(at, fault),
        }
    }

    /// Returns once a request stands still, as [`Fault::Stall`] wants it.
    pub fn await_stall(&self) {
        match &self.which {
            Which::Double(gateway) => gateway.lock().unwrap().faults().await_stall(),
            Which::Real(real) => real.await_stall(),
        }
    }

    /// Lets all go on that stands still.
    pub fn release(&self) {
        match &self.which {
            Which::Double(gateway) => gateway.lock().unwrap().faults().release(),
            Which::Real(real) => real.release(),
        }
    }

    /// The Stratum 0 as clients see it.
    fn stratum0(&self) -> Arc<dyn ObjectStore> {
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
        let key = self.repo.dir.path().join("test.gw");
        self.publisher_with(own, url, way, Key::read(&key).unwrap())
    }

    /// The same, with another key.
    pub fn publisher_with(&self, own: &Path, url: &str, way: Way, key: Key) -> Gateway {
        let storage = || -> Arc<dyn ObjectStore> {
            let dir = self.repo.publisher.home().storage_dir().unwrap();
            Arc::new(DirStore::open(dir, Durability::Batch).unwrap())
        };
        let options = GatewayOptions {
            url: url.to_owned(),
            key,
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
        assert_eq!(self.leases(), serde_json::json!({}), "leases are left");
    }

    /// Who holds a lease, by the gateway's word.
    pub fn leases(&self) -> serde_json::Value {
        let leases = reqwest::blocking::get(format!("{}/leases", self.url)).unwrap();
        let mut leases: serde_json::Value = serde_json::from_str(&leases.text().unwrap()).unwrap();
        leases["data"].take()
    }

    /// The repository is healthy, by our check and where it is installed by the official one.
    #[track_caller]
    pub fn judge(&self) {
        assert_checks(&self.repo);
        if official::has_tool() {
            assert_official_check(&self.repo);
        }
    }
}
