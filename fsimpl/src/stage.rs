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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use formats::{ChangeSet, Hash, RepoPath};
use store::ObjectStore;

use crate::seal::{SealParams, Sealer};
use crate::types::Clock;

/// How a repository's files are published, as far as staging must know.
#[derive(Clone)]
pub struct StageParams {
    /// How files are cut, compressed and hashed.
    pub seal: Arc<SealParams>,
    /// Hard links are kept as catalog groups; otherwise every name becomes a file of its own.
    pub hardlink_groups: bool,
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
    /// How long a closed file rests before it is sealed.
    pub settle: Duration,
    /// Most raw bytes that may be staged.
    pub quota_bytes: Option<u64>,
    /// Decompressed published content that is kept, in bytes.
    pub content_cache_bytes: u64,
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
}

/// A file that could not be sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealFailure {
    /// Which.
    pub path: RepoPath,
    /// Why.
    pub reason: String,
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

/// How a freeze or a wait gets on: files to seal, bytes to seal.
pub trait Progress: Send + Sync {
    /// So much is left.
    fn unsealed(&self, files: u64, bytes: u64);
}

/// Says nothing.
impl Progress for () {
    fn unsealed(&self, _files: u64, _bytes: u64) {}
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
    /// Files that could not be sealed.
    pub errors: Vec<SealFailure>,
}
