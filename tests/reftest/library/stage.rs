//! A repository, its stage, and who publishes it.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use commit::{NoProgress, OnConflict, Outcome, Publisher, RepoHome, Request, Stratum0, txn};
use formats::RepoPath;
use fsimpl::seal::{SealParams, Sealer, SealerLimits};
use fsimpl::{
    Caller, FreezeError, Fs, Ino, OpenFiles, Space, Stage, StageConfig, StageParams, StagePolicy,
    StageSummary, Time,
};
use tempfile::TempDir;

use crate::reftest::judge::Observed;
use crate::reftest::ops::{Answer, Path, Writers, refusal};
use crate::reftest::published::{self, Reader};

const NAME: &str = "test.example.org";
/// Long enough that some files are sealed before they are written again, and some are not.
const SETTLE: Duration = Duration::from_millis(3);
/// The machine is not started anew here.
const BOOT: &str = "boot";
/// So small that raw bytes of sealed files are dropped now and then.
const BACKING_MAX_BYTES: u64 = 256 << 10;
const SEAL_WAIT: Duration = Duration::from_secs(60);

/// See the module's head.
pub struct World {
    /// None only while it is changed for another.
    running: Option<Running>,
    reader: Reader,
    home: RepoHome,
    dir: TempDir,
}

/// What a daemon would hold.
struct Running {
    fs: Fs,
    stage: Arc<Stage>,
    publisher: Stratum0,
}

impl World {
    /// A fresh repository whose parameters follow from the seed.
    pub fn new(seed: u64) -> Self {
        let dir = fast_dir();
        let home = published::make(dir.path(), NAME, &published::settings(seed), seed);
        std::fs::create_dir(dir.path().join("txn")).unwrap();
        let running = Some(Running::start(dir.path(), &home));
        let reader = Reader::new(home.clone(), &dir.path().join("reader"));
        Self {
            running,
            reader,
            home,
            dir,
        }
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn fs(&self) -> &Fs {
        &self.running().fs
    }

    /// The repository's root.
    pub fn root(&self) -> Ino {
        let fs = self.fs();
        let attr = fs.lookup(&Caller::default(), Ino::ROOT, NAME.as_bytes());
        attr.unwrap().ino
    }

    pub fn restart(&mut self) {
        let Running { fs, stage, .. } = self.running.take().unwrap();
        drop(fs);
        stage.close().unwrap();
        let gone = Arc::downgrade(&stage);
        drop(stage);
        // a file that is being sealed holds it for a moment
        let deadline = Instant::now() + SEAL_WAIT;
        while gone.strong_count() > 0 {
            assert!(Instant::now() < deadline, "a closed stage is still held");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.running = Some(Running::start(self.dir.path(), &self.home));
    }

    fn txn_dir(&self) -> PathBuf {
        self.dir.path().join("txn")
    }

    /// Freezes, publishes and retires, as the commit hook does.
    pub fn commit(&self, paths: &[Path], writers: Writers) -> Answer {
        let stage = &self.running().stage;
        let writers = match writers {
            Writers::Skip => OpenFiles::Skip,
            Writers::Fail => OpenFiles::Fail,
        };
        let targets: Vec<RepoPath> = paths.iter().map(repo_path).collect();
        let frozen = match stage.freeze(&targets, writers, &()) {
            Ok(frozen) => frozen,
            Err(FreezeError::NotFound(_)) => return Answer::Failed(refusal::NOT_FOUND),
            Err(FreezeError::OpenFiles(files)) => {
                eprintln!("open: {files:?}");
                return Answer::Failed(refusal::OPEN_FILES);
            }
            Err(FreezeError::ReplacedAncestor(_)) => {
                return Answer::Failed(refusal::REPLACED_ANCESTOR);
            }
            Err(error) => return Answer::Other(format!("freeze: {error:?}")),
        };
        let id = frozen.id;
        let request = Request {
            change_set: frozen.change_set,
            snapshot: id,
            objects: frozen.objects,
            tag: None,
            message: String::new(),
            allow_empty: false,
            on_conflict: OnConflict::Fail,
            queue: Arc::default(),
            turn: std::time::Duration::ZERO,
            patience: std::time::Duration::ZERO,
            warm: None,
            called_off: Arc::default(),
            boot_id: BOOT.to_owned(),
            clock: Arc::new(SystemTime::now),
        };
        let publisher = &self.running().publisher;
        let root = match commit::publish(&request, publisher, &self.txn_dir(), &NoProgress) {
            Ok(Outcome::Visible(visible)) => visible.root_hash,
            Ok(Outcome::Nothing) => {
                let (head, _) = publisher.head(SystemTime::now()).unwrap();
                head.manifest().root_catalog
            }
            Err(error) => {
                stage.thaw(id).unwrap();
                return Answer::Other(format!("publish: {error:?}"));
            }
        };
        if let Err(error) = stage.retire(id, &root) {
            return Answer::Other(format!("retire: {error:?}"));
        }
        txn::clear(&self.txn_dir()).unwrap();
        Answer::Done
    }

    pub fn abort(&self, path: &Path) -> Answer {
        match self.running().stage.abort(&repo_path(path)) {
            Ok(_) => Answer::Done,
            Err(error) => Answer::Other(format!("abort: {error:?}")),
        }
    }

    pub fn seal(&self) -> Answer {
        match self.running().stage.wait_sealed(SEAL_WAIT, &()) {
            true => Answer::Done,
            false => Answer::Other(format!("not sealed after {SEAL_WAIT:?}")),
        }
    }

    pub fn published(&self) -> (u64, BTreeMap<Path, Observed>) {
        self.reader.read()
    }

    pub fn complaints(&mut self, clean: bool) -> Vec<String> {
        let mut problems = self.reader.findings();
        let summary = self.running().stage.summary();
        for failure in &summary.errors {
            problems.push(format!("not sealed: {}: {}", failure.path, failure.reason));
        }
        let figures = StageSummary {
            open_files: Vec::new(),
            errors: Vec::new(),
            // what is only kept for its number may still have its bytes
            bytes: 0,
            ..summary
        };
        if clean && figures != StageSummary::default() {
            problems.push(format!("nothing is staged, but the stage says {figures:?}"));
        }
        problems
    }
}

impl Running {
    fn start(dir: &FilePath, home: &RepoHome) -> Self {
        let publisher = Stratum0::open(home.clone(), &dir.join("cache")).unwrap();
        let (head, _) = publisher.head(SystemTime::now()).unwrap();
        let root = head.manifest().root_catalog;
        let limits = SealerLimits {
            workers: 2,
            ..SealerLimits::default()
        };
        let params = params(home);
        let config = StageConfig {
            dir: dir.join("stage"),
            name: NAME.to_owned(),
            repository: Arc::clone(publisher.repository()),
            root,
            params: Arc::new(move || params.clone()),
            clock: now,
            sealer: Arc::new(Sealer::new(limits).unwrap()),
            policy: StagePolicy {
                settle: SETTLE,
                backing_max_bytes: Some(BACKING_MAX_BYTES),
                ..StagePolicy::default()
            },
            flush_after: SETTLE,
            content_cache_bytes: 1 << 30,
            boot_id: BOOT.to_owned(),
            space: Space::open(dir).unwrap(),
        };
        let stage = Stage::open(config, &()).unwrap();
        assert_eq!(
            stage.base_root(),
            root,
            "the stage knows the newest revision"
        );
        let fs = Fs::new(now, (0, 0));
        fs.add_repository(Arc::clone(&stage)).unwrap();
        Self {
            fs,
            stage,
            publisher,
        }
    }
}

fn params(home: &RepoHome) -> StageParams {
    let params = home.params().unwrap();
    StageParams {
        seal: Arc::new(SealParams {
            algorithm: params.algorithm,
            compression: params.compression,
            chunking: params.chunking,
            bulk_chunks: params.bulk_chunks,
        }),
        hardlink_groups: params.hardlink_groups,
        limits: params.limits,
    }
}

fn now() -> Time {
    let passed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    Time {
        secs: i64::try_from(passed.as_secs()).unwrap(),
        nanos: passed.subsec_nanos(),
    }
}

fn repo_path(path: &Path) -> RepoPath {
    if *path == Path::root() {
        return RepoPath::root();
    }
    RepoPath::new(&[b"/", path.0.as_slice()].concat()).unwrap_or_else(|_| {
        // a name that is too long: what cannot be said cannot be there
        RepoPath::new(b"/no/such/name").unwrap()
    })
}

/// A directory in memory where there is one: the journal's many syncs would wait for the disk.
fn fast_dir() -> TempDir {
    let memory = FilePath::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}
