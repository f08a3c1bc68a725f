//! What is answered. Field names are a promise to scripts.

use serde::{Deserialize, Serialize};

use super::PathText;
use crate::report::Failure;
use crate::state::DaemonInfo;

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon behind the mount; none if nothing is mounted.
    pub daemon: Option<DaemonInfo>,
    /// Where a daemon that died has left its mount.
    pub stale_mount: Option<String>,
    /// The state directory.
    pub state_dir: String,
    /// Each repository.
    pub repositories: Vec<RepoStatus>,
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
    /// What is wrong: files that cannot be sealed, a repository that cannot be read.
    pub errors: Vec<Trouble>,
    /// For how many more days clients trust it; 0 if they do not any more.
    pub whitelist_days: Option<f64>,
    /// What on_unmount does.
    pub on_unmount: crate::config::OnUnmount,
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

/// `diff`, `commit --dry-run`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Diff {
    /// The repository.
    pub repo: String,
    /// The revision it is compared with.
    pub revision: u64,
    /// Path by path, sorted.
    pub changes: Vec<Change>,
    /// Sums.
    pub summary: Summary,
    /// Directories whose catalogs would be written.
    pub catalogs: Vec<PathText>,
    /// Directories whose generated markers would go.
    pub ungenerated: Vec<PathText>,
    /// Extended attributes that cannot be published.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// Special files that this repository does not keep.
    pub special_skipped: Vec<PathText>,
    /// Hard links that become files of their own.
    pub broken_links: Vec<Vec<PathText>>,
    /// Limits that would be exceeded.
    pub limits: Vec<Limit>,
    /// What collides with the newest revision.
    pub conflicts: Vec<String>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which; a directory's path has no trailing slash.
    pub path: PathText,
    /// What would happen.
    pub what: What,
    /// Where it was, for a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathText>,
    /// True for a directory.
    pub directory: bool,
    /// Bytes afterwards.
    pub size: u64,
    /// Bytes before.
    pub size_before: u64,
    /// The directory whose catalog it lands in.
    pub catalog: Option<PathText>,
}

/// What would happen to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// New.
    Added,
    /// Gone, with all below it.
    Removed,
    /// Other content or type.
    Modified,
    /// Other metadata only.
    MetadataOnly,
    /// Moved, with all below it.
    Renamed,
    /// A marker that the commit makes.
    Generated,
}

/// Sums over a diff.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// New paths.
    pub added: u64,
    /// Other content or type.
    pub modified: u64,
    /// Other metadata only.
    pub metadata_only: u64,
    /// Gone.
    pub removed: u64,
    /// Moved.
    pub renamed: u64,
    /// Markers that the commit makes.
    pub generated: u64,
    /// Bytes of new and modified files.
    pub bytes: u64,
}

/// An extended attribute that is not published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedXattr {
    /// Of which path.
    pub path: PathText,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// A limit that is exceeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// A catalog's directory, or a file.
    pub path: PathText,
    /// In words.
    pub message: String,
}

/// `commit`. Without a new revision `published` is false, and the revision is the one that stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The repository.
    pub repo: String,
    /// The first of the paths.
    pub path: PathText,
    /// What was asked for.
    pub paths: Vec<PathText>,
    /// True if there is a new revision.
    pub published: bool,
    /// Its number.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: String,
    /// The root catalog it replaced.
    pub previous_root_hash: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Files, links and special files added or changed.
    pub files: u64,
    /// Directories added or changed.
    pub directories: u64,
    /// Entries removed.
    pub removed: u64,
    /// Bytes of those files.
    pub bytes_raw: u64,
    /// Objects that were not in the storage.
    pub objects_new: u64,
    /// Objects that were.
    pub objects_reused: u64,
    /// Bytes of the new ones.
    pub bytes_stored: u64,
    /// Catalogs written.
    pub catalogs: u64,
    /// Extended attributes that were not published.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// Hard links that became files of their own.
    pub broken_links: Vec<Vec<PathText>>,
    /// Special files that this repository does not keep.
    pub special_skipped: Vec<PathText>,
    /// Files that were open for writing and left out.
    pub skipped: Vec<OpenFile>,
    /// Limits that are exceeded and not enforced.
    pub warnings: Vec<Limit>,
    /// Stratum 1s that have the objects; none are configured yet.
    pub stratum1: Vec<String>,
    /// Where the time went.
    pub seconds: Seconds,
}

/// Where a commit's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Waiting for open files and sealing, taking the snapshot.
    pub freeze: f64,
    /// Storing objects.
    pub store: f64,
    /// Warming Stratum 1s.
    pub warm: f64,
    /// The transaction, others kept out.
    pub lease_held: f64,
    /// Catalogs, within the transaction.
    pub catalogs: f64,
    /// All of it.
    pub total: f64,
}

/// `abort`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    /// The repository.
    pub repo: String,
    /// Below which path.
    pub path: PathText,
    /// Staged paths that were dropped.
    pub dropped: u64,
}

/// `tag list`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// The repository.
    pub repo: String,
    /// Newest revision first.
    pub tags: Vec<Tag>,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// The revision's number.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: String,
    /// When it was published, in seconds since 1970.
    pub timestamp: i64,
    /// Free text.
    pub description: String,
}

/// `tag add`, `tag remove`, `rollback`, `resign`: what stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// The repository.
    pub repo: String,
    /// The newest revision.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: String,
    /// For how many more days clients trust it.
    pub whitelist_days: f64,
    /// Tags that were removed.
    pub removed_tags: Vec<String>,
}

/// `check`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// The repository.
    pub repo: String,
    /// True if nothing is wrong.
    pub healthy: bool,
    /// What was checked.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: Option<String>,
    /// Catalogs read.
    pub catalogs: u64,
    /// Rows in them.
    pub rows: u64,
    /// Objects that were looked for.
    pub objects: u64,
    /// Bytes hashed.
    pub bytes_hashed: u64,
    /// What is wrong, the first thousand of them.
    pub problems: Vec<String>,
    /// How many there are.
    pub problem_count: u64,
}

/// `mkfs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The repository.
    pub repo: String,
    /// Its parameters.
    pub config: String,
    /// Its storage.
    pub storage: String,
    /// What clients need.
    pub public_key: String,
    /// Where clients find it while it is mounted.
    pub url: String,
    /// Where it is mounted, if it is.
    pub path: Option<String>,
}

/// `rmfs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The repository that is no more.
    pub repo: String,
    /// Objects that were deleted.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was left where it is, for it is none of the repository's.
    pub left: Vec<String>,
}

/// `unmount`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unmounted {
    /// Where it was mounted.
    pub mountpoint: Option<String>,
    /// What was committed first.
    pub committed: Vec<Committed>,
    /// Staged paths that were dropped.
    pub discarded: u64,
    /// Repositories that staged changes are kept of.
    pub kept: Vec<String>,
}

/// `doctor`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// True if everything works.
    pub healthy: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub subject: String,
    /// How it is.
    pub weight: Weight,
    /// In words.
    pub found: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Failure,
}
