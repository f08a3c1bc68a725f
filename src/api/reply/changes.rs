//! What would become of staged changes, and what did: `diff`, `commit`, `abort`.

use serde::{Deserialize, Serialize};

use super::OpenFile;
use crate::api::PathText;

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
    /// Extended attributes that cannot be published, the first ten thousand of them.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// How many more there are.
    pub dropped_xattrs_more: u64,
    /// Special files that this repository does not keep.
    pub special_skipped: Vec<PathText>,
    /// Hard links that become files of their own.
    pub broken_links: Vec<Vec<PathText>>,
    /// Limits that would be exceeded.
    pub limits: Vec<Limit>,
    /// What collides with the newest revision.
    pub conflicts: Vec<String>,
    /// What the publisher cannot make, and why; a commit is refused for it.
    pub refused: Vec<String>,
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
    /// Extended attributes that were not published, the first ten thousand of them.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// How many more there are.
    pub dropped_xattrs_more: u64,
    /// Hard links that became files of their own.
    pub broken_links: Vec<Vec<PathText>>,
    /// Special files that this repository does not keep.
    pub special_skipped: Vec<PathText>,
    /// Files that were open for writing and left out.
    pub skipped: Vec<OpenFile>,
    /// Limits that are exceeded and not enforced.
    pub warnings: Vec<Limit>,
    /// How the Stratum 1s stood when the revision became visible; empty where there are none.
    pub stratum1: Vec<commit::warm::SiteOutcome>,
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
