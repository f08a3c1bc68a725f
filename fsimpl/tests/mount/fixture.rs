//! A mount of the golden repository in a temporary directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use formats::chunk::ChunkSizes;
use formats::manifest::SignedManifest;
use fsimpl::seal::{SealParams, Sealer, SealerLimits};
use fsimpl::session::{self, MountOptions, Session};
use fsimpl::{FLUSH_AFTER, Fs, Space, Stage, StageConfig, StageParams, StagePolicy, Time};
use rustix::mount::UnmountFlags;
use store::{DirStore, Durability, ObjectStore, Repository};

pub const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/sha1");
pub const REPO: &str = "sha1.example.org";

/// How long one mount may be used.
const PATIENCE: Duration = Duration::from_secs(300);

/// True if FUSE can be used here; says why not otherwise.
pub fn fuse_works() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = device {
        eprintln!("skipped: /dev/fuse cannot be opened: {error}");
        return false;
    }
    let helper = Command::new("fusermount3").arg("-V").output();
    if !rustix::process::geteuid().is_root() && helper.is_err() {
        eprintln!("skipped: only root mounts without fusermount3 (package fuse3)");
        return false;
    }
    true
}

fn clock() -> Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time {
        secs: now.as_secs().try_into().unwrap(),
        nanos: now.subsec_nanos(),
    }
}

/// The golden repository's stage, with its state in `state`.
pub fn open_stage(state: &Path) -> Arc<Stage> {
    let storage: Arc<dyn ObjectStore> =
        Arc::new(DirStore::open(format!("{GOLDEN}/storage"), Durability::Batch).unwrap());
    let manifest = storage.read_root(".cvmfspublished").unwrap();
    let root = SignedManifest::parse(&manifest)
        .unwrap()
        .manifest
        .root_catalog;
    let cache = state.join("catalogs");
    let repository = Repository::new(
        REPO,
        storage,
        Vec::new(),
        cache,
        store::repository::Limits::default(),
    );
    let seal = Arc::new(SealParams {
        chunking: Some(ChunkSizes::new(65_536, 131_072, 262_144).unwrap()),
        ..SealParams::default()
    });
    let limits = SealerLimits {
        workers: 2,
        ..SealerLimits::default()
    };
    let config = StageConfig {
        dir: state.join("stage"),
        name: REPO.to_owned(),
        repository: Arc::new(repository.unwrap()),
        root,
        params: Arc::new(move || StageParams {
            seal: seal.clone(),
            hardlink_groups: false,
            limits: formats::server_conf::Params::default().limits,
        }),
        clock,
        sealer: Arc::new(Sealer::new(limits).unwrap()),
        policy: StagePolicy {
            settle: Duration::from_millis(20),
            ..StagePolicy::default()
        },
        flush_after: FLUSH_AFTER,
        content_cache_bytes: 64 << 20,
        boot_id: "boot".to_owned(),
        space: Space::open(state).unwrap(),
    };
    Stage::open(config, &()).unwrap()
}

/// A live mount; taken off when dropped.
pub struct Mounted {
    pub stage: Arc<Stage>,
    pub mountpoint: PathBuf,
    /// The repository's directory below the mount point.
    pub repo: PathBuf,
    pub session: Option<Session>,
    dir: tempfile::TempDir,
    _watchdog: mpsc::Sender<()>,
}

/// A test that hangs in a call on its own mount cannot even be killed: cuts the connection then, so
/// that every call on it fails. Ends with the sender.
fn watchdog(mountpoint: PathBuf) -> mpsc::Sender<()> {
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{} hangs; the connection is cut", mountpoint.display());
            let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(&mountpoint, flags);
        }
    });
    sender
}

impl Mounted {
    /// Mounts with fresh state; none where FUSE does not work.
    pub fn new() -> Option<Self> {
        fuse_works().then(|| Self::at(tempfile::tempdir().unwrap()))
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let mountpoint = dir.path().join("mnt");
        fs::create_dir_all(&mountpoint).unwrap();
        let stage = open_stage(dir.path());
        let session = mount_stage(stage.clone(), &mountpoint);
        Self {
            stage,
            repo: mountpoint.join(REPO),
            _watchdog: watchdog(mountpoint.clone()),
            mountpoint,
            session: Some(session),
            dir,
        }
    }

    /// Unmounts, closes the stage, and mounts it again.
    pub fn again(mut self) -> Self {
        self.take_off();
        self.stage.close().unwrap();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        Self::at(dir)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.repo.join(name)
    }

    /// Lets other users in: the temporary directory is private.
    pub fn open_to_all(&self) {
        use std::os::unix::fs::PermissionsExt;
        for path in [self.mountpoint.parent().unwrap(), &self.mountpoint] {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        }
    }

    pub fn session(&self) -> &Session {
        self.session.as_ref().unwrap()
    }

    pub fn take_off(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        // a test may have taken it off itself
        if session::is_mounted(&self.mountpoint)
            && let Err(error) = session.unmount()
        {
            eprintln!("{error}");
            session.detach().unwrap();
        }
        session.wait().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.take_off();
    }
}

pub fn mount_stage(stage: Arc<Stage>, mountpoint: &Path) -> Session {
    let owner = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let fs = Fs::new(clock, owner);
    fs.add_repository(stage).unwrap();
    let options = MountOptions {
        allow_other: rustix::process::geteuid().is_root(),
        ..MountOptions::default()
    };
    session::mount(Arc::new(fs), mountpoint, &options).unwrap()
}

/// The errno of a failed call.
pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Runs a program, which must succeed; returns what it printed.
pub fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
