//! A repository of its own for one test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use commit::{
    CommitError, NewRepository, NoProgress, OnConflict, Outcome, Publisher, RepoHome, Request,
    Stratum0, Visible,
};
use formats::changeset::ChangeSet;
use formats::hash::Algorithm;
use formats::history::Tag;
use formats::object::Compression;
use formats::server_conf::Params;
use store::{MemoryStore, ObjectStore, Revision};
use tempfile::TempDir;

use super::changes::Changes;

/// The first instant of every test's clock: 2026-01-01.
const BEGIN: u64 = 1_767_225_600;

const NAME: &str = "test.example.org";

/// The start of the machine in which tests run, unless they say that it was started anew.
pub const BOOT: &str = "boot";

/// Keys that all tests of this run share: making some takes a second.
fn keys() -> &'static Path {
    static KEYS: LazyLock<TempDir> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let ring = formats::trust::generate_keys(NAME, SystemTime::UNIX_EPOCH).unwrap();
        for (suffix, bytes) in [
            ("masterkey", ring.master_key),
            ("key", ring.key),
            ("crt", ring.certificate),
            ("pub", ring.public),
        ] {
            std::fs::write(dir.path().join(format!("{NAME}.{suffix}")), bytes).unwrap();
        }
        dir
    });
    KEYS.path()
}

/// A directory in memory where there is one: the tests' many syncs would wait for the disk.
pub fn fast_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

/// What all tests' repositories are like.
pub fn wanted(settings: &[(&str, &str)]) -> NewRepository {
    NewRepository {
        name: NAME.to_owned(),
        storage: None,
        keys: Some(keys().to_owned()),
        algorithm: Algorithm::Sha1,
        compression: Compression::Zlib,
        uid: 0,
        gid: 0,
        url: format!("http://127.0.0.1:8330/cvmfs/{NAME}"),
        settings: settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    }
}

/// A fresh repository, its publisher and its stage's objects.
pub struct Repo {
    pub dir: TempDir,
    pub publisher: Stratum0,
    pub staged: Arc<dyn ObjectStore>,
    pub clock: Arc<AtomicU64>,
}

impl Repo {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With other lines of `server.conf`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        Self::in_dir(fast_dir(), settings)
    }

    /// Where syncs cost what they cost.
    pub fn on_disk() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), &[])
    }

    fn in_dir(dir: TempDir, settings: &[(&str, &str)]) -> Self {
        let wanted = wanted(settings);
        let home = commit::mkfs(dir.path(), &wanted, Self::begin()).unwrap();
        Self::of(dir, home)
    }

    /// The first instant of its clock.
    pub fn begin() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(BEGIN)
    }

    /// A repository that is there, in a directory of this test's.
    pub fn of(dir: TempDir, home: RepoHome) -> Self {
        let publisher = Stratum0::open(home, &dir.path().join("cache")).unwrap();
        std::fs::create_dir(dir.path().join("txn")).unwrap();
        Self {
            dir,
            publisher,
            staged: Arc::new(MemoryStore::new()),
            clock: Arc::new(AtomicU64::new(BEGIN)),
        }
    }

    /// The same for a publisher that has no catalog at hand.
    pub fn without_cache(mut self) -> Self {
        let home = RepoHome::embedded(self.dir.path(), NAME).unwrap();
        let cache = self.dir.path().join("another cache");
        self.publisher = Stratum0::open(home, &cache).unwrap();
        self
    }

    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.clock.load(Ordering::Relaxed))
    }

    pub fn txn_dir(&self) -> PathBuf {
        self.dir.path().join("txn")
    }

    pub fn params(&self) -> Params {
        self.publisher.params().unwrap()
    }

    /// The published tags.
    pub fn tags(&self) -> Vec<Tag> {
        self.tags_of(&self.publisher)
    }

    /// The published tags, as a publisher has them.
    pub fn tags_of(&self, publisher: &Stratum0) -> Vec<Tag> {
        let work = tempfile::tempdir_in(self.dir.path()).unwrap();
        commit::tags::list(publisher, work.path(), self.now()).unwrap()
    }

    /// The newest revision.
    pub fn head(&self) -> Arc<Revision> {
        let (head, _) = self.publisher.head(self.now()).unwrap();
        self.publisher.repository().revision_of(&head).unwrap()
    }

    /// A change set upon the newest revision.
    pub fn changes(&self) -> Changes {
        self.changes_on(self.head())
    }

    pub fn changes_on(&self, base: Arc<Revision>) -> Changes {
        Changes::new(
            self.publisher.name(),
            base,
            self.staged.clone(),
            self.params(),
        )
    }

    pub fn request(&self, change_set: ChangeSet) -> Request {
        let clock = self.clock.clone();
        Request {
            change_set,
            snapshot: 1,
            objects: self.staged.clone(),
            tag: None,
            message: String::new(),
            allow_empty: false,
            on_conflict: OnConflict::Fail,
            queue: Arc::default(),
            turn: Duration::ZERO,
            patience: Duration::ZERO,
            warm: None,
            called_off: Arc::default(),
            boot_id: BOOT.to_owned(),
            clock: Arc::new(move || {
                SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::Relaxed))
            }),
        }
    }

    /// Publishes, an hour after the last time.
    pub fn try_publish(&self, request: &Request) -> Result<Outcome, CommitError> {
        self.clock.fetch_add(3600, Ordering::Relaxed);
        let outcome = commit::publish(request, &self.publisher, &self.txn_dir(), &NoProgress)?;
        commit::txn::clear(&self.txn_dir()).unwrap();
        Ok(outcome)
    }

    /// Publishes what has to become visible.
    pub fn publish(&self, change_set: ChangeSet) -> Visible {
        match self.try_publish(&self.request(change_set)).unwrap() {
            Outcome::Visible(visible) => *visible,
            Outcome::Nothing => panic!("nothing was published"),
        }
    }

    /// Publishes what must make no revision.
    pub fn publish_nothing(&self, change_set: ChangeSet) {
        let outcome = self.try_publish(&self.request(change_set)).unwrap();
        assert_eq!(outcome, Outcome::Nothing);
    }
}
