//! A way to publish, as a suite for all of them sees it: a repository, who publishes into it, and who
//! judges what was published.
//!
//! One more is a few lines: how the repository and its publisher are made, and a judge if the checks
//! here cannot read its storage.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use commit::{CvmfsServer, Gateway, NoProgress, Outcome, Publisher, Request, resign};

use formats::entry::Entry;

use super::bucket::InBucket;
use super::checked::assert_checks;
use super::gateway::{Behind, Make, Way};
use super::official::{self, assert_official_check};
use super::repo::Repo;
use super::server::{self, Server, mine};

/// Small chunks, so that a test has chunked files.
pub const CHUNKED: [(&str, &str); 4] = [
    ("CVMFS_MIN_CHUNK_SIZE", "65536"),
    ("CVMFS_AVG_CHUNK_SIZE", "131072"),
    ("CVMFS_MAX_CHUNK_SIZE", "262144"),
    ("CVMFS_INCLUDE_XATTRS", "true"),
];

/// See the module.
pub trait Site {
    /// The repository, read where it is stored.
    fn repo(&self) -> &Repo;

    /// Who publishes.
    fn publisher(&self) -> &dyn Publisher;

    /// Publishes, and leaves no record of it.
    fn publish(&self, request: &Request) -> Result<Outcome, commit::CommitError> {
        let txn = self.repo().txn_dir();
        let outcome = commit::publish(request, self.publisher(), &txn, &NoProgress)?;
        commit::txn::clear(&txn).unwrap();
        Ok(outcome)
    }

    /// An entry as it is published here.
    fn shown(&self, entry: Entry) -> Entry {
        entry
    }

    /// Panics unless all that is published is sound: by our check, data and all, and by the official
    /// one where it is installed.
    fn judge(&self) {
        assert_checks(self.repo());
        if official::has_tool() {
            assert_official_check(self.repo());
        }
    }
}

/// A storage directory that we write.
pub struct Directory(pub Repo);

impl Directory {
    /// With small chunks, today: the official check goes by the real time of day.
    pub fn today() -> Self {
        let repo = Repo::with(&CHUNKED);
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        repo.clock.store(since, Ordering::Relaxed);
        resign::resign(&repo.publisher, 30, repo.now()).unwrap();
        Self(repo)
    }
}

impl Site for Directory {
    fn repo(&self) -> &Repo {
        &self.0
    }

    fn publisher(&self) -> &dyn Publisher {
        &self.0.publisher
    }
}

/// A gateway.
pub struct Through {
    behind: Behind,
    publisher: Gateway,
}

impl Through {
    pub fn start(make: Make, way: Way) -> Self {
        let behind = Behind::start(make, &CHUNKED);
        let publisher = behind.publisher(way);
        Self { behind, publisher }
    }
}

impl Site for Through {
    fn repo(&self) -> &Repo {
        &self.behind.repo
    }

    fn publisher(&self) -> &dyn Publisher {
        &self.publisher
    }

    fn judge(&self) {
        self.behind.assert_no_lease();
        self.behind.judge();
    }
}

impl Site for InBucket {
    fn repo(&self) -> &Repo {
        &self.repo
    }

    fn publisher(&self) -> &dyn Publisher {
        &self.repo.publisher
    }

    // the official check reads no bucket
    fn judge(&self) {
        assert_checks(&self.repo);
    }
}

/// `cvmfs_server`.
pub struct Served {
    server: Server,
    publisher: CvmfsServer,
}

impl Served {
    /// By the double, or by the real one where it is installed.
    pub fn by(server: Server, way: server::Way) -> Self {
        let publisher = server.publisher(way);
        Self { server, publisher }
    }
}

impl Site for Served {
    fn repo(&self) -> &Repo {
        &self.server.repo
    }

    fn publisher(&self) -> &dyn Publisher {
        &self.publisher
    }

    fn publish(&self, request: &Request) -> Result<Outcome, commit::CommitError> {
        let request = Request {
            change_set: mine(request.change_set.clone()),
            ..request.clone()
        };
        self.server.try_publish(&self.publisher, &request)
    }

    /// Whoever makes files is their owner, unless it is root.
    fn shown(&self, entry: Entry) -> Entry {
        Entry {
            uid: 0,
            gid: 0,
            ..entry
        }
    }

    fn judge(&self) {
        if official::has_tool() {
            assert_official_check(self.repo());
        }
    }
}
