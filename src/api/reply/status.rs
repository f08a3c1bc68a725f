//! How things stand: `status`.

use serde::{Deserialize, Serialize};

use crate::api::{PathText, Step};
use crate::report::Failure;
use crate::state::DaemonInfo;

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon behind the mount; none if nothing is mounted.
    pub daemon: Option<DaemonInfo>,
    /// No commit is let in: `prepub drain`.
    #[serde(default)]
    pub drained: bool,
    /// Commits that are under way or wait for their turn, and whatever else publishes.
    #[serde(default)]
    pub running: u64,
    /// Where a daemon that died has left its mount.
    pub stale_mount: Option<String>,
    /// The state directory.
    pub state_dir: String,
    /// Each repository.
    pub repositories: Vec<RepoStatus>,
    /// The Stratum 1s, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sites: Option<Vec<SiteStatus>>,
    /// The broker, where sites were asked for and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerStatus>,
}

/// The broker that publisher and sites are connected to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Where it is.
    pub url: String,
    /// Why it is not connected, if so.
    pub trouble: Option<String>,
    /// Messages that made no sense, or that nobody waited for.
    pub messages_refused: u64,
}

/// A Stratum 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its name.
    pub site: String,
    /// Where its receiver is; none: it pulls.
    pub url: Option<String>,
    /// Repositories that it takes; empty: all.
    pub repositories: Vec<String>,
    /// It answers; none: not asked yet.
    pub connected: Option<bool>,
    /// Visible revisions whose objects it does not have all.
    pub behind_revisions: u64,
    /// Objects of these that it lacks.
    pub behind_objects: u64,
    /// Their bytes.
    pub behind_bytes: u64,
    /// Bytes a second, of what was sent last.
    pub rate: Option<u64>,
    /// Objects that it has taken, since this process serves it under its certificate.
    #[serde(default)]
    pub objects_sent: u64,
    /// Their bytes, as stored.
    #[serde(default)]
    pub bytes_sent: u64,
    /// How often something went wrong with it, in the same time.
    #[serde(default)]
    pub failures: u64,
    /// By how many seconds its clock is ahead of ours, as it said.
    #[serde(default)]
    pub clock_ahead: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// For how many more days its certificate is valid.
    pub certificate_days: f64,
}

/// One repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RepoStatus {
    /// Its name.
    pub repo: String,
    /// Where clients find it now; none if it is not served.
    pub url: Option<String>,
    /// Where it is mounted.
    pub path: Option<String>,
    /// The revision that staged changes lie over; none if it is not the published one and its
    /// number is not known.
    pub base_revision: Option<u64>,
    /// The newest published revision.
    pub published_revision: Option<u64>,
    /// Its root catalog.
    pub root_hash: Option<String>,
    /// What is staged.
    pub staged: Staged,
    /// Closed files that are not sealed yet.
    pub unsealed_files: u64,
    /// Their bytes.
    pub unsealed_bytes: u64,
    /// Files open for writing.
    pub open_files: Vec<OpenFile>,
    /// The commits that are under way, the oldest first.
    pub commits: Vec<UnderWay>,
    /// What is wrong: files that cannot be sealed, a repository that cannot be read, a full disk,
    /// limits because of which a commit will be refused.
    pub errors: Vec<Trouble>,
    /// What stops nobody: limits that are exceeded and not enforced.
    pub warnings: Vec<Trouble>,
    /// For how many more days clients trust it; 0 if they do not any more.
    pub whitelist_days: Option<f64>,
    /// What on_unmount does.
    pub on_unmount: crate::config::OnUnmount,
}

/// A commit that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Of which paths.
    pub paths: Vec<PathText>,
    /// What it is doing.
    pub step: Step,
    /// For how long it has been under way.
    pub seconds: f64,
}

/// What is staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// New paths.
    pub added: u64,
    /// Changed paths.
    pub modified: u64,
    /// Removed paths.
    pub removed: u64,
    /// Moved published files and directories.
    pub renamed: u64,
    /// Raw bytes of staged files.
    pub bytes: u64,
}

impl Staged {
    /// True if there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        (self.added, self.modified, self.removed, self.renamed) == (0, 0, 0, 0)
    }
}

/// A file open for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// Which.
    pub path: PathText,
    /// By which process; 0 if unknown.
    pub pid: u32,
    /// Its name; empty if unknown.
    pub command: String,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// With which path; none: with the repository.
    pub path: Option<PathText>,
    /// What.
    pub failure: Failure,
}
