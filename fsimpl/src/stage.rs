//! One repository's stage: staged changes over the published revision, their journal and files.
//!
//! ```text
//! DIR/journal/    every metadata change, in the embedded engine
//! DIR/backing/    raw bytes of staged files
//! DIR/objects/    sealed objects
//! DIR/cache/      catalogs and content of the published revision
//! ```
//!
//! This module opens a stage, and is what a commit talks to. It must not name a publisher.

mod abort;
mod bases;
mod doubt;
mod feed;
mod flush;
mod former;
mod freeze;
mod known;
mod limits;
mod mark;
mod notify;
mod open;
mod params;
mod pins;
mod policy;
mod quota;
mod readers;
mod recover;
mod refresh;
mod retire;
mod sealing;
mod shed;
mod summary;
mod usage;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use formats::server_conf::Limits;
use formats::{ChangeSet, Hash, RepoPath};
use store::{ContentCache, ObjectStore, Repository};

use crate::backing::Backing;
use crate::error::FsError;
use crate::handle::OpenTable;
use crate::journal::Journal;
use crate::seal::{SealParams, Sealer};
use crate::space::Space;
use crate::sync::{Mutex, RwLock};
use crate::tree::{SealFault, Tree};
use crate::types::{Clock, Ino, Notifier};

pub(crate) use mark::FrozenMark;

use feed::Feed;
pub use flush::FLUSH_AFTER;
use flush::Flush;
use known::KnownContent;
use notify::Notices;
use pins::Pins;
pub use policy::StagePolicy;
use readers::Readers;
use sealing::Seals;
pub use sealing::Swept;
use shed::Shedding;
use usage::Usage;

/// How a repository's files are published, as far as staging must know.
#[derive(Clone)]
pub struct StageParams {
    /// How files are cut, compressed and hashed.
    pub seal: Arc<SealParams>,
    /// Hard links are kept as catalog groups; otherwise every name becomes a file of its own.
    pub hardlink_groups: bool,
    /// How large files and catalogs may be.
    pub limits: Limits,
}

/// What a stage is made of.
pub struct StageConfig {
    /// Where it lies; made if missing.
    pub dir: PathBuf,
    /// The repository's fully qualified name.
    pub name: String,
    /// The published repository.
    pub repository: Arc<store::Repository>,
    /// The published revision that a new stage starts from. A stage with a journal goes on from the
    /// one it knows; call [`Stage::refresh`] then.
    pub root: Hash,
    /// Reads the repository's parameters; asked at every seal and freeze.
    pub params: Arc<dyn Fn() -> StageParams + Send + Sync>,
    /// Tells the time.
    pub clock: Clock,
    /// Where files are sealed.
    pub sealer: Arc<Sealer>,
    /// How long a few sealed objects wait to be written out: [`FLUSH_AFTER`].
    pub flush_after: Duration,
    /// What may be changed later.
    pub policy: StagePolicy,
    /// The filesystem that the stage lies on; one for all stages of a state.
    pub space: Arc<Space>,
    /// Decompressed published content that is kept, in bytes.
    pub content_cache_bytes: u64,
    /// Names this start of the machine: whatever changes with each of them. What was not synced
    /// before an earlier one is not trusted.
    pub boot_id: String,
}

/// What a freeze does with files that are open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFiles {
    /// Waits for them to be closed, at most so long.
    Wait(Duration),
    /// Leaves them out: the file as it is in the base; a new one is absent.
    Skip,
    /// Refuses.
    Fail,
}

/// A file that is open for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Where.
    pub path: RepoPath,
    /// By which process; 0 where the kernel did not say.
    pub pid: u32,
    /// Its name; empty if it is gone or cannot be seen.
    pub command: String,
}

impl OpenFile {
    /// `thread` is whom the kernel names: one thread of the process that people know.
    fn new(path: RepoPath, thread: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let field = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            value.map(|value| value.trim().to_owned())
        };
        let pid = field("Tgid:")
            .and_then(|pid| pid.parse().ok())
            .unwrap_or(thread);
        let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        let command = name(pid)
            .map(|name| name.trim_end().to_owned())
            .unwrap_or_default();
        Self { path, pid, command }
    }
}

/// A file that could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealFailure {
    /// Which.
    pub path: RepoPath,
    /// Why.
    pub reason: String,
    /// The disk was full: more space is the way out, and it is tried again by itself.
    pub no_space: bool,
}

impl SealFailure {
    fn new(path: RepoPath, fault: &SealFault) -> Self {
        Self {
            path,
            reason: fault.reason.clone(),
            no_space: fault.no_space,
        }
    }
}

/// A snapshot of the stage, ready to publish.
#[derive(Debug)]
pub struct Frozen {
    /// Names the snapshot to [`Stage::retire`] and [`Stage::thaw`]; it survives a restart.
    pub id: u64,
    /// What to publish.
    pub change_set: ChangeSet,
    /// Where the objects are that were sealed here.
    pub objects: Arc<dyn ObjectStore>,
    /// Files left out because they were open for writing.
    pub skipped: Vec<OpenFile>,
}

/// How a freeze, a wait or an opening gets on.
pub trait Progress: Send + Sync {
    /// So many files and bytes are left to seal.
    fn unsealed(&self, files: u64, bytes: u64);
    /// After the machine had stopped: so many of so many objects were hashed again.
    fn rehashed(&self, done: u64, total: u64);
    /// True if a freeze should rather give up than go on waiting for writers: somebody else has
    /// something to do.
    fn gives_way(&self) -> bool {
        false
    }
}

/// Says nothing.
impl Progress for () {
    fn unsealed(&self, _files: u64, _bytes: u64) {}
    fn rehashed(&self, _done: u64, _total: u64) {}
}

/// What is staged, in figures. Paths equal to the base count nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageSummary {
    /// Paths that the base does not have.
    pub added: u64,
    /// Paths that differ from the base.
    pub modified: u64,
    /// Paths of the base that are gone; a removed directory counts once.
    pub removed: u64,
    /// Moved published files and directories; a moved directory counts once.
    pub renamed: u64,
    /// Raw bytes of staged files.
    pub bytes: u64,
    /// Files waiting to be sealed, open ones not counted.
    pub unsealed_files: u64,
    /// Their bytes.
    pub unsealed_bytes: u64,
    /// Files open for writing.
    pub open_files: Vec<OpenFile>,
    /// Files that could not be sealed, or that lost bytes when the machine stopped.
    pub errors: Vec<SealFailure>,
}

/// Why a stage could not be opened, or not be moved to another revision.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The directory cannot be used.
    #[error("stage {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It belongs to another repository.
    #[error("stage {path} is that of {found}, not of {wanted}")]
    OtherRepository {
        /// Where it lies.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The store for sealed objects cannot be used.
    #[error("objects of the stage")]
    Objects(#[source] store::StoreError),
    /// The published tree, the journal or a file of the stage failed.
    #[error("the stage")]
    Fs(#[from] FsError),
    /// No such snapshot.
    #[error("snapshot {0} is not known; it was retired or thawed before")]
    UnknownSnapshot(u64),
    /// A snapshot is being published.
    #[error("snapshot {0} is being published; try again when that commit is done")]
    Frozen(u64),
}

/// Why no snapshot was made.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    /// Nothing is there, neither published nor staged.
    #[error("{0} does not exist")]
    NotFound(RepoPath),
    /// One target lies within another.
    #[error("{1} lies within {0}; name one of them")]
    Nested(RepoPath, RepoPath),
    /// Files are open for writing.
    #[error("{} file(s) are open for writing, the first is {}", .0.len(), .0.first().map_or_else(RepoPath::root, |f| f.path.clone()))]
    OpenFiles(Vec<OpenFile>),
    /// Files could not be sealed.
    #[error("{} file(s) could not be sealed, the first is {}", .0.len(), .0.first().map_or_else(RepoPath::root, |f| f.path.clone()))]
    Unsealed(Vec<SealFailure>),
    /// The machine stopped before the bytes of files were on disk, and nobody has written them again
    /// or accepted what is left of them.
    #[error("{} file(s) may have lost bytes when the machine stopped, the first is {}", .0.len(), .0.first().map_or_else(RepoPath::root, |f| f.path.clone()))]
    Doubtful(Vec<SealFailure>),
    /// A directory above a target was replaced: publishing the target alone would publish that, too.
    #[error("{0} replaces what is published there; commit {0} itself")]
    ReplacedAncestor(RepoPath),
    /// Another snapshot is being published, and this one has to do with it: they overlap, or what one
    /// of them has was moved out of the other.
    #[error("snapshot {0} is being published; try again when that commit is done")]
    Frozen(u64),
    /// The published tree, the journal or a file of the stage failed.
    #[error("the snapshot")]
    Fs(#[from] FsError),
}

/// Why staged changes could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum AbortError {
    /// A snapshot is being published: what is published at its paths is not known yet.
    #[error("snapshot {0} is being published; try again when that commit is done")]
    Frozen(u64),
    /// The journal or the published tree failed; nothing was dropped.
    #[error("dropping staged changes")]
    Fs(#[from] FsError),
}

/// One repository's stage. See the module's head.
pub struct Stage {
    this: Weak<Self>,
    name: String,
    pub(crate) dir: PathBuf,
    repository: Arc<Repository>,
    params: Arc<dyn Fn() -> StageParams + Send + Sync>,
    pub(crate) clock: Clock,
    policy: RwLock<StagePolicy>,
    counted: Mutex<quota::Counted>,
    pub(crate) tree: RwLock<Tree>,
    pub(crate) journal: Journal,
    pub(crate) backing: Backing,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) content: ContentCache,
    pub(crate) open: OpenTable,
    readers: Readers,
    pub(crate) feed: Feed,
    known: Arc<KnownContent>,
    pub(crate) seals: Seals,
    flush: Flush,
    pins: Pins,
    pub(crate) notices: Notices,
    pub(crate) space: Arc<Space>,
    pub(crate) usage: Usage,
    shedding: Shedding,
    /// One snapshot is made at a time.
    freezing: Mutex<()>,
    /// The head is moved by one at a time.
    moving: Mutex<()>,
    /// The parameters of the snapshot that is being made: all its files are sealed by them.
    held_params: Mutex<Option<StageParams>>,
}

impl Stage {
    /// The repository's fully qualified name.
    #[must_use]
    pub fn repository_name(&self) -> &str {
        &self.name
    }

    /// The published repository it lies over.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The filesystem it lies on.
    #[must_use]
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Decompressed published content that is kept and that no open file holds: files, bytes.
    #[must_use]
    pub fn unused_content(&self) -> (u64, u64) {
        self.content.unused()
    }

    /// Forgets it.
    pub fn drop_content(&self) {
        self.content.clear();
    }

    /// Where sealed objects are.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The root catalog of the revision that unstaged paths show.
    #[must_use]
    pub fn base_root(&self) -> Hash {
        let tree = self.tree.read();
        tree.revisions.root_of(tree.revisions.head)
    }

    /// Returns once the kernel has been told of all changes that were made behind its back until
    /// now (or cannot be told in good time): what is looked at afterwards is what stands there.
    pub fn wait_told(&self) {
        self.notices.wait_told();
    }

    /// Says who hears of changes made behind the kernel's back.
    pub fn set_notifier(&self, notifier: Option<Arc<dyn Notifier>>) {
        self.notices.set_target(notifier);
    }

    /// Makes everything staged so far survive power loss, file bytes included.
    ///
    /// # Errors
    /// When the system reports that something was lost.
    pub fn sync(&self) -> Result<(), FsError> {
        self.backing.sync_all()?;
        self.sync_sealed()?;
        Ok(self.journal.sync()?)
    }

    /// True if a snapshot still needs the file unsealed as it is.
    pub(crate) fn is_pinned(&self, ino: Ino, number: Option<u64>) -> bool {
        self.pins
            .needs(number.unwrap_or_else(|| sealing::empty_pin(ino)))
    }

    /// A file is staged no longer: its backing file is not needed any more.
    pub(crate) fn unstage(&self, file: usage::Staged) {
        self.usage.went(file);
        self.feed.remove_later(file.0);
    }
}
