//! What became of a repository or a mount, and what is wrong with them: `tag`, `rollback`, `resign`,
//! `check`, `mkfs`, `rmfs`, `unmount`, `doctor`.

use serde::{Deserialize, Serialize};

use super::Committed;

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
    /// Where clients find it: while it is mounted, unless it is in a bucket.
    pub url: String,
    /// What keeps clients from reading it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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
