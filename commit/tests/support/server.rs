//! A repository as `cvmfs_server` keeps one, in a directory of the test's, and a double of the program.
//!
//! The double keeps its signs and answers with its exit codes and words (tests/data/cvmfs_server.refusals,
//! which tests/transaction.rs holds against the real one). A plain directory stands for its mount. What
//! a publication finds there, grafts included, is published by the embedded publisher.

mod double;
mod real;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use commit::{
    CommitError, CvmfsServer, CvmfsServerOptions, NoProgress, Outcome, Publisher, RepoHome,
    Request, Visible,
};
use formats::changeset::{ChangeSet, Op};
use rustix::process::{getegid, geteuid};

use super::repo::Repo;
use double::Double;
use real::Real;

/// The sign of a transaction.
const SIGN: &str = "in_transaction.lock";

/// How the bytes of files get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The storage can be written: objects go ahead, files are grafts.
    Grafts,
    /// It cannot: bytes are written in the transaction.
    Bytes,
}

pub const WAYS: [Way; 2] = [Way::Grafts, Way::Bytes];

/// See the module.
pub struct Server {
    pub repo: Repo,
    /// It is the real one.
    real: Option<Real>,
}

impl Server {
    /// One of the real program, where it is installed.
    pub fn real(settings: &[(&str, &str)]) -> Option<Self> {
        let (real, repo) = Real::new(settings)?;
        let real = Some(real);
        Some(Self { repo, real })
    }

    /// One of the double, and one of the real program where it is installed.
    pub fn each(settings: &[(&str, &str)]) -> impl Iterator<Item = Self> {
        let double = std::iter::once_with(|| Self::new(settings));
        double.chain(std::iter::once_with(|| Self::real(settings)).flatten())
    }

    pub fn new(settings: &[(&str, &str)]) -> Self {
        let repo = Repo::with(settings);
        // the official check goes by the real time of day
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        repo.clock.store(since, Ordering::Relaxed);
        commit::resign::resign(&repo.publisher, 30, repo.now()).unwrap();
        let server = Self { repo, real: None };
        let conf_file = &server.repo.publisher.home().conf_file;
        let conf = fs::read_to_string(conf_file).unwrap();
        let union = server.union();
        let conf = format!(
            "{conf}CVMFS_UNION_DIR={}\nCVMFS_UNION_FS_TYPE=plain\n",
            union.display()
        );
        fs::write(conf_file, conf).unwrap();
        fs::create_dir_all(server.spool().join("scratch/current")).unwrap();
        let program = format!(
            "#!/bin/sh\nexport DOUBLE_DIR='{}' DOUBLE_ARGS=\"$*\"\nexec '{}' --ignored --exact --nocapture support::server::double::cvmfs_server\n",
            server.repo.dir.path().display(),
            std::env::current_exe().unwrap().display()
        );
        fs::write(server.program(), program).unwrap();
        fs::set_permissions(server.program(), fs::Permissions::from_mode(0o755)).unwrap();
        server.tell_time();
        Double::at(server.repo.dir.path()).fill();
        server
    }

    fn program(&self) -> PathBuf {
        match self.real {
            Some(_) => "cvmfs_server".into(),
            None => self.repo.dir.path().join("cvmfs_server"),
        }
    }

    pub fn union(&self) -> PathBuf {
        match self.real {
            Some(_) => Path::new("/cvmfs").join(self.repo.publisher.name()),
            None => self.repo.dir.path().join("union"),
        }
    }

    pub fn spool(&self) -> PathBuf {
        self.repo.publisher.home().spool_dir.clone()
    }

    pub fn is_signed(&self) -> bool {
        self.spool().join(SIGN).exists()
    }

    /// The places as prepub finds them.
    fn home(&self) -> RepoHome {
        RepoHome {
            is_foreign: true,
            ..self.repo.publisher.home().clone()
        }
    }

    /// A publisher that has just been opened, as after a restart.
    pub fn publisher(&self, way: Way) -> CvmfsServer {
        let published = self.repo.publisher.storage();
        let options = CvmfsServerOptions {
            published: Arc::clone(published),
            storage: (way == Way::Grafts).then(|| Arc::clone(published)),
            program: self.program(),
            spool_dir: self.repo.dir.path().join("state"),
        };
        let cache = self.repo.dir.path().join("cache of the server");
        CvmfsServer::open(self.home(), options, &cache).unwrap()
    }

    /// The double's clock is ours.
    fn tell_time(&self) {
        let now = self.repo.clock.load(Ordering::Relaxed);
        fs::write(self.repo.dir.path().join("now"), now.to_string()).unwrap();
    }

    pub fn later(&self) {
        // the real one has the time of day
        if self.real.is_none() {
            self.repo.clock.fetch_add(3600, Ordering::Relaxed);
            self.tell_time();
        }
    }

    /// What the double shall do wrong, once: see [`double`].
    pub fn fault(&self, verb: &str, how: &str) {
        fs::write(self.repo.dir.path().join("fault"), format!("{verb} {how}")).unwrap();
    }

    /// Publishes, an hour after the last time.
    pub fn try_publish(
        &self,
        publisher: &CvmfsServer,
        request: &Request,
    ) -> Result<Outcome, CommitError> {
        let outcome = self.try_publish_beside(publisher, request)?;
        assert!(!self.is_signed(), "a transaction is left open");
        Ok(outcome)
    }

    /// The same, while somebody else may have a transaction open.
    pub fn try_publish_beside(
        &self,
        publisher: &CvmfsServer,
        request: &Request,
    ) -> Result<Outcome, CommitError> {
        self.later();
        let txn = self.repo.txn_dir();
        let outcome = commit::publish(request, publisher, &txn, &NoProgress)?;
        commit::txn::clear(&txn).unwrap();
        Ok(outcome)
    }

    #[track_caller]
    pub fn publish(&self, publisher: &CvmfsServer, change_set: ChangeSet) -> Visible {
        let request = self.repo.request(mine(change_set));
        match self.try_publish(publisher, &request).unwrap() {
            Outcome::Visible(visible) => *visible,
            Outcome::Nothing => panic!("nothing was published"),
        }
    }

    /// Somebody runs `cvmfs_server`: exit code, and what it says.
    pub fn run(&self, args: &[&str]) -> (i32, String) {
        self.tell_time();
        let done = Command::new(self.program())
            .args(args)
            .arg(self.repo.publisher.name())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        let code = done.status.code().unwrap_or(-1);
        (code, String::from_utf8(said).unwrap())
    }

    /// Somebody runs it, and it does what it is asked.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) {
        let (code, said) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {said}");
    }
}

/// Everything belongs to whoever runs the tests, unless that is root.
pub fn mine(mut change_set: ChangeSet) -> ChangeSet {
    if geteuid().is_root() {
        return change_set;
    }
    for change in &mut change_set.changes {
        if let Op::Put { entry, .. } = &mut change.op {
            entry.uid = geteuid().as_raw();
            entry.gid = getegid().as_raw();
        }
    }
    change_set
}
