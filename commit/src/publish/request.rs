//! What is asked of a commit, and what it answers.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use formats::changeset::ChangeSet;
use formats::hash::Hash;
use formats::limit::LimitExceeded;
use formats::path::RepoPath;
use serde::{Deserialize, Serialize};
use store::ObjectStore;

use super::Queue;
use crate::catalogs::{NewCatalog, Report};
use crate::objects::StoredObjects;
use crate::policy::DroppedXattr;
use crate::publisher::NewRevision;
use crate::warm::{SiteOutcome, Warming};

/// What to publish, and how.
#[derive(Clone)]
pub struct Request {
    /// The changes.
    pub change_set: ChangeSet,
    /// The stage's id of the frozen snapshot: recorded, so that it can be retired after a crash.
    pub snapshot: u64,
    /// Where the objects lie that the change set's files need and that are not published yet.
    pub objects: Arc<dyn ObjectStore>,
    /// A tag to set on the new revision.
    pub tag: Option<String>,
    /// The tag's description.
    pub message: String,
    /// Make a revision even if nothing changes.
    pub allow_empty: bool,
    /// What to do about paths that another publisher changed as well.
    pub on_conflict: OnConflict,
    /// The commits of this process beside which it goes on.
    pub queue: Arc<Queue>,
    /// How long to wait where one of those is in the way.
    pub turn: Duration,
    /// How long to wait where another publisher is at work.
    pub patience: Duration,
    /// The Stratum 1s that get the objects first; none: nobody does.
    pub warm: Option<Warming>,
    /// Set when nobody wants the commit any more: it ends before its last step, with its leases.
    pub called_off: Arc<AtomicBool>,
    /// Names this start of the machine, for [`crate::resume`].
    pub boot_id: String,
    /// What time it is.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("repo", &self.change_set.repo)
            .field("changes", &self.change_set.changes.len())
            .field("snapshot", &self.snapshot)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// What to do about paths that another publisher changed as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// Refuse the commit and name them.
    #[default]
    Fail,
    /// Ours replace theirs; directories that they removed are made again.
    Ours,
}

/// Which part of a commit is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Objects go into the storage.
    Store,
    /// Catalogs are written.
    Catalogs,
    /// Tags, reflog and manifest.
    Submit,
}

/// Told how far a commit has come. Called from several threads.
pub trait Progress: Send + Sync {
    /// `done` of `total`.
    fn step(&self, step: Step, done: u64, total: u64);

    /// Another publisher has what is wanted; it is waited for, or given up.
    fn busy(&self) {}

    /// So far is one of the Stratum 1s.
    fn site(&self, _site: &SiteOutcome) {}
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&self, _: Step, _: u64, _: u64) {}
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// There is a new revision.
    Visible(Box<Visible>),
    /// Everything staged is published as it is: no revision was made.
    Nothing,
}

/// A new revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visible {
    /// Its number.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: Hash,
    /// The root catalog it replaced.
    pub previous_root_hash: Hash,
    /// The tag that was asked for.
    pub tag: Option<String>,
    /// Files, links and special files added or changed.
    pub files: u64,
    /// Directories added or changed.
    pub directories: u64,
    /// Entries removed, each with everything below it.
    pub removed: u64,
    /// Bytes of those files, uncompressed.
    pub bytes_raw: u64,
    /// Objects that were not in the storage.
    pub objects_new: u64,
    /// Objects that were.
    pub objects_reused: u64,
    /// Bytes of the new objects, catalogs included.
    pub bytes_stored: u64,
    /// Catalogs written.
    pub catalogs: u64,
    /// Markers that were made.
    pub generated: Vec<RepoPath>,
    /// Hard-link groups that were broken up: the names of each.
    pub broken_links: Vec<Vec<RepoPath>>,
    /// Special files that the repository does not keep.
    pub special_skipped: Vec<RepoPath>,
    /// Limits that are exceeded, and not enforced.
    pub warnings: Vec<LimitExceeded>,
    /// Extended attributes that are not published; the first of them.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// How many more there are.
    #[serde(default)]
    pub dropped_xattrs_more: u64,
    /// For how long the whitelist was still valid.
    pub whitelist_left: Duration,
    /// How the Stratum 1s stood when it became visible.
    #[serde(default)]
    pub stratum1: Vec<SiteOutcome>,
    /// What they were sent it as, so that they can be told.
    #[serde(default)]
    pub push: Option<String>,
    /// Where the time went.
    pub seconds: Seconds,
}

impl Visible {
    /// The revision that clients get to see: the publisher may have put one on top.
    pub(super) fn stands_as(&mut self, revision: &NewRevision) {
        self.revision = revision.revision;
        self.root_hash = revision.root_hash;
    }

    /// What is known before the last step.
    pub(super) fn of(
        revision: &NewRevision,
        report: Report,
        stored: StoredObjects,
        catalogs: &[NewCatalog],
    ) -> Self {
        let new_catalogs = catalogs.iter().filter(|catalog| catalog.is_new);
        Self {
            revision: revision.revision,
            root_hash: revision.root_hash,
            previous_root_hash: revision.previous_root,
            tag: revision.tag.clone(),
            files: report.files,
            directories: report.directories,
            removed: report.removed,
            bytes_raw: report.bytes_raw,
            objects_new: stored.new,
            objects_reused: stored.reused,
            bytes_stored: stored.bytes + new_catalogs.map(|c| c.stored_bytes).sum::<u64>(),
            catalogs: catalogs.len() as u64,
            generated: report.generated,
            broken_links: report.broken_links,
            special_skipped: report.special_skipped,
            warnings: report.limits,
            dropped_xattrs: report.dropped_xattrs.named,
            dropped_xattrs_more: report.dropped_xattrs.more,
            whitelist_left: Duration::ZERO,
            stratum1: Vec::new(),
            push: None,
            seconds: Seconds::default(),
        }
    }
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Storing objects.
    pub store: f64,
    /// Warming Stratum 1s.
    #[serde(default)]
    pub warm: f64,
    /// The lease.
    pub lease_held: f64,
    /// Making catalogs, within the lease.
    pub catalogs: f64,
    /// From the first step to the last.
    pub total: f64,
}
