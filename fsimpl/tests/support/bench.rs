//! A stage over a published revision, and paths instead of inode numbers.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use formats::server_conf::Limits;
use formats::{ChangeSet, Hash, RepoPath};
use fsimpl::seal::{SealParams, Sealer, SealerLimits};
use fsimpl::space::{Free, Space};
use fsimpl::{
    Attr, Caller, FileType, FreezeError, Frozen, Fs, Handle, Ino, OpenFiles, OpenFlags, Progress,
    RenameMode, Result, SetAttr, SetTime, Stage, StageConfig, StageError, StageParams, StagePolicy,
    Time,
};
use parking_lot::Mutex;

use super::Published;

pub const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    pid: 42,
    umask: 0o022,
};
pub const NOBODY: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 43,
    umask: 0o022,
};

/// The disk that a bench is said to lie on: 64 MiB, so that its reserve is small.
pub const DISK_BYTES: u64 = 64 << 20;

/// See the module's head.
pub struct Bench {
    pub published: Arc<Published>,
    pub stage: Option<Arc<Stage>>,
    pub fs: Fs,
    pub root: Ino,
    pub dir: tempfile::TempDir,
    settle: Duration,
    /// Objects are not synced behind a test's back.
    pub flush_after: Duration,
    pub hardlink_groups: bool,
    quota: Option<u64>,
    quota_files: Option<u64>,
    pub backing_max: Option<u64>,
    pub limits: Limits,
    pub space: Arc<Space>,
    /// What the filesystem is said to have left.
    pub available: Arc<AtomicU64>,
    start: Hash,
    /// Names the start of the machine.
    pub boot: u64,
    /// What files are sealed by.
    pub seal: Arc<Mutex<SealParams>>,
    pub sealer: Arc<Sealer>,
}

pub fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// A directory in memory where there is one: the tests' many syncs would wait for the disk.
fn fast_dir() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory).unwrap();
    }
    tempfile::tempdir().unwrap()
}

fn clock() -> Time {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Time {
        secs: i64::try_from(now.as_secs()).unwrap(),
        nanos: now.subsec_nanos(),
    }
}

/// Counts the objects that were hashed again.
#[derive(Default)]
pub struct Rehashed(pub AtomicU64);

impl Progress for Rehashed {
    fn unsealed(&self, _: u64, _: u64) {}
    fn rehashed(&self, done: u64, _: u64) {
        self.0.fetch_max(done, Ordering::Relaxed);
    }
}

impl Bench {
    pub fn new((published, start): (Arc<Published>, Hash)) -> Self {
        Self::with((published, start), Duration::ZERO, false)
    }

    pub fn with(
        published: (Arc<Published>, Hash),
        settle: Duration,
        hardlink_groups: bool,
    ) -> Self {
        Self::in_dir(fast_dir(), published, settle, hardlink_groups)
    }

    /// On a disk, whose filesystem knows more of ranges than one in memory.
    pub fn on_disk(published: (Arc<Published>, Hash)) -> Self {
        Self::in_dir(
            tempfile::tempdir().unwrap(),
            published,
            Duration::ZERO,
            false,
        )
    }

    fn in_dir(
        dir: tempfile::TempDir,
        (published, start): (Arc<Published>, Hash),
        settle: Duration,
        hardlink_groups: bool,
    ) -> Self {
        let available = Arc::new(AtomicU64::new(DISK_BYTES));
        let told = Arc::clone(&available);
        let probe = move |_: &std::path::Path| {
            Ok(Free {
                total: DISK_BYTES,
                available: told.load(Ordering::SeqCst),
            })
        };
        let mut bench = Self {
            published,
            stage: None,
            fs: Fs::new(clock, (0, 0)),
            root: Ino(0),
            space: Space::with_probe(dir.path(), Box::new(probe)).unwrap(),
            dir,
            settle,
            flush_after: Duration::from_secs(3600),
            hardlink_groups,
            quota: None,
            quota_files: None,
            backing_max: None,
            limits: Limits {
                enforce: false,
                root_entries: 0,
                nested_entries: 0,
                file_bytes: 0,
            },
            available,
            start,
            boot: 1,
            seal: Arc::default(),
            sealer: Arc::new(Sealer::new(SealerLimits::default()).unwrap()),
        };
        bench.open();
        bench
    }

    pub fn with_quota(mut self, bytes: u64) -> Self {
        self.close();
        self.quota = Some(bytes);
        self.open();
        self
    }

    pub fn with_file_quota(mut self, files: u64) -> Self {
        self.close();
        self.quota_files = Some(files);
        self.open();
        self
    }

    /// Opens the stage, as after a start of the program.
    pub fn open(&mut self) {
        self.open_with(&());
    }

    pub fn open_with(&mut self, progress: &dyn Progress) {
        self.try_open(progress).unwrap();
        let attr = self
            .fs
            .lookup(&ROOT, Ino::ROOT, b"test.example.org")
            .unwrap();
        self.root = attr.ino;
    }

    /// Opens the stage unless it is damaged; nothing of it is asked.
    pub fn try_open(&mut self, progress: &dyn Progress) -> Result<(), StageError> {
        let (seal, hardlink_groups) = (Arc::clone(&self.seal), self.hardlink_groups);
        let limits = self.limits;
        let config = StageConfig {
            dir: self.dir.path().join("stage"),
            name: "test.example.org".to_owned(),
            repository: Arc::clone(&self.published.repository),
            root: self.start,
            params: Arc::new(move || StageParams {
                seal: Arc::new(seal.lock().clone()),
                hardlink_groups,
                limits,
            }),
            clock,
            sealer: Arc::clone(&self.sealer),
            policy: StagePolicy {
                settle: self.settle,
                quota_bytes: self.quota,
                quota_files: self.quota_files,
                backing_max_bytes: self.backing_max,
                ..StagePolicy::default()
            },
            flush_after: self.flush_after,
            content_cache_bytes: 64 << 20,
            boot_id: self.boot.to_string(),
            space: Arc::clone(&self.space),
        };
        let stage = Stage::open(config, progress)?;
        self.fs.add_repository(Arc::clone(&stage)).unwrap();
        self.stage = Some(stage);
        Ok(())
    }

    /// Lets go of the stage, without any farewell.
    pub fn close(&mut self) {
        self.fs.remove_repository("test.example.org");
        let stage = self.stage.take().unwrap();
        let last = Arc::downgrade(&stage);
        drop(stage);
        while last.upgrade().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn reopen(&mut self) {
        self.close();
        self.open();
    }

    /// Reopens after the machine stopped. What a power loss left of the files, `damage` decides.
    pub fn power_loss(&mut self, damage: impl FnOnce(&Self)) {
        self.close();
        damage(self);
        self.boot += 1;
        self.open();
    }

    pub fn stage(&self) -> &Arc<Stage> {
        self.stage.as_ref().unwrap()
    }

    /// The inode of a path.
    pub fn find(&self, path: &str) -> Result<Attr> {
        let mut attr = self.fs.getattr(self.root, None)?;
        for name in path.split('/').filter(|n| !n.is_empty()) {
            attr = self.fs.lookup(&ROOT, attr.ino, name.as_bytes())?;
        }
        Ok(attr)
    }

    pub fn ino(&self, path: &str) -> Ino {
        self.find(path)
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .ino
    }

    pub fn exists(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    fn split<'p>(&self, path: &'p str) -> (Ino, &'p [u8]) {
        let (dir, name) = path.rsplit_once('/').unwrap();
        (self.ino(dir), name.as_bytes())
    }

    pub fn mkdir(&self, path: &str) -> Result<Attr> {
        let (dir, name) = self.split(path);
        self.fs.mkdir(&ROOT, dir, name, 0o755)
    }

    pub fn create(&self, path: &str) -> Result<Handle> {
        let (dir, name) = self.split(path);
        let flags = OpenFlags {
            read: true,
            write: true,
            ..OpenFlags::default()
        };
        self.fs
            .create(&ROOT, dir, name, 0o644, flags)
            .map(|(_, handle)| handle)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let handle = match self.find(path) {
            Ok(attr) => self.fs.open(&ROOT, attr.ino, write_only(true)).unwrap(),
            Err(_) => self.create(path).unwrap(),
        };
        self.fs.write(&ROOT, handle, 0, bytes).unwrap();
        self.fs.release(handle).unwrap();
    }

    pub fn open_write(&self, path: &str) -> Handle {
        self.fs
            .open(&ROOT, self.ino(path), write_only(false))
            .unwrap()
    }

    pub fn open_read(&self, path: &str) -> Handle {
        let flags = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        self.fs.open(&ROOT, self.ino(path), flags).unwrap()
    }

    pub fn read_handle(&self, handle: Handle) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let n = self.fs.read(handle, 0, &mut bytes).unwrap();
        bytes.truncate(n);
        bytes
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        let handle = self.open_read(path);
        let bytes = self.read_handle(handle);
        self.fs.release(handle).unwrap();
        bytes
    }

    pub fn unlink(&self, path: &str) -> Result<()> {
        let (dir, name) = self.split(path);
        self.fs.unlink(&ROOT, dir, name)
    }

    pub fn rmdir(&self, path: &str) -> Result<()> {
        let (dir, name) = self.split(path);
        self.fs.rmdir(&ROOT, dir, name)
    }

    pub fn remove_all(&self, path: &str) {
        if self.find(path).unwrap().kind != FileType::Directory {
            return self.unlink(path).unwrap();
        }
        for name in self.list(path) {
            self.remove_all(&format!("{path}/{name}"));
        }
        self.rmdir(path).unwrap();
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.rename_as(from, to, RenameMode::Replace)
    }

    pub fn rename_as(&self, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        self.fs
            .rename(&ROOT, self.split(from), self.split(to), mode)
    }

    pub fn link(&self, from: &str, to: &str) -> Result<Attr> {
        let (dir, name) = self.split(to);
        self.fs.link(&ROOT, self.ino(from), dir, name)
    }

    pub fn symlink(&self, target: &str, at: &str) -> Result<Attr> {
        let (dir, name) = self.split(at);
        self.fs.symlink(&ROOT, dir, name, target.as_bytes())
    }

    pub fn chmod(&self, path: &str, perm: u16) {
        let set = SetAttr {
            perm: Some(perm),
            ..SetAttr::default()
        };
        self.fs.setattr(&ROOT, self.ino(path), &set).unwrap();
    }

    pub fn utimes(&self, path: &str, time: Time) {
        let set = SetAttr {
            mtime: Some(SetTime::At(time)),
            ..SetAttr::default()
        };
        self.fs.setattr(&ROOT, self.ino(path), &set).unwrap();
    }

    pub fn truncate(&self, path: &str, size: u64) {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.fs.setattr(&ROOT, self.ino(path), &set).unwrap();
    }

    /// The names in a directory, sorted.
    pub fn list(&self, path: &str) -> Vec<String> {
        names(&self.fs, self.ino(path))
    }

    /// Every path below the root, with what `find -ls` would say of it.
    pub fn everything(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.walk("", &mut lines);
        lines.sort();
        lines
    }

    fn walk(&self, at: &str, lines: &mut Vec<String>) {
        for name in self.list(at) {
            let path = format!("{at}/{name}");
            let attr = self.find(&path).unwrap();
            let what = match attr.kind {
                FileType::Regular => format!("{:?}", String::from_utf8_lossy(&self.read(&path))),
                FileType::Symlink => {
                    let target = self.fs.readlink(attr.ino).unwrap();
                    String::from_utf8_lossy(&target).into_owned()
                }
                other => format!("{other:?}"),
            };
            lines.push(format!("{path} {:o} {what}", attr.perm));
            if attr.kind == FileType::Directory {
                self.walk(&path, lines);
            }
        }
    }

    pub fn freeze(&self, target: &str) -> Result<Frozen, FreezeError> {
        self.stage().freeze(&[path(target)], OpenFiles::Fail, &())
    }

    pub fn changes(&self) -> ChangeSet {
        self.stage().changes(&RepoPath::root()).unwrap()
    }

    /// Freezes, publishes and retires a target; the new root.
    pub fn commit(&self, target: &str) -> Hash {
        let frozen = self.freeze(target).unwrap();
        let root = self.published.commit(&self.stage().base_root(), &frozen);
        self.stage().retire(frozen.id, &root).unwrap();
        root
    }

    pub fn wait_sealed(&self) {
        assert!(self.stage().wait_sealed(Duration::from_secs(60), &()));
    }
}

fn write_only(truncate: bool) -> OpenFlags {
    OpenFlags {
        read: true,
        write: true,
        truncate,
        ..OpenFlags::default()
    }
}

/// The names in a directory, sorted, without dots.
pub fn names(fs: &Fs, dir: Ino) -> Vec<String> {
    let handle = fs.opendir(dir).unwrap();
    let mut names = Vec::new();
    let mut cursor = 0;
    loop {
        let mut room = 7;
        let before = cursor;
        fs.readdirplus(handle, cursor, true, &mut |entry| {
            if room == 0 {
                return ControlFlow::Break(());
            }
            room -= 1;
            cursor = entry.cursor;
            let name = String::from_utf8_lossy(entry.name).into_owned();
            if name != "." && name != ".." {
                assert!(entry.attr.is_some());
                names.push(name);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        if cursor == before {
            break;
        }
    }
    fs.releasedir(handle).unwrap();
    names.sort();
    names
}
