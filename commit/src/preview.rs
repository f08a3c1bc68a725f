//! What a commit would publish, path by path, without storing or locking anything.
//!
//! The changes are applied to private copies of the newest catalogs, exactly as a commit would, and
//! thrown away. So the catalogs that paths land in, generated markers and limits are the real ones.

use std::path::Path;
use std::time::SystemTime;

use formats::changeset::{Change, ChangeSet, Children, Op};
use formats::entry::Entry;
use formats::limit::LimitExceeded;
use formats::path::RepoPath;
use serde::{Deserialize, Serialize};
use store::ObjectStore;

use crate::catalogs::{Plan, Wish};
use crate::conflicts::{self, Conflicts};
use crate::policy::{self, DroppedXattr};
use crate::publish::CommitError;
use crate::publisher::{Publisher, PublisherError, Refused};

/// What would happen to one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPreview {
    /// Which path.
    pub path: RepoPath,
    /// What would happen to it.
    pub what: What,
    /// Bytes of the file that would be published; 0 for all else.
    pub size: u64,
    /// Bytes of the file that is published; 0 for all else.
    pub size_before: u64,
    /// Where the catalog begins that its row would be in; none if it is removed.
    pub catalog: Option<RepoPath>,
    /// True for a directory.
    pub is_dir: bool,
}

/// What would happen to a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It goes, with everything below it.
    Removed,
    /// Other content, or another type.
    Modified,
    /// The same content with other metadata.
    MetadataOnly,
    /// It was published at another path, and comes with everything below it.
    RenamedFrom(RepoPath),
    /// Made by `.cvmfsdirtab` or by balancing.
    Generated,
}

/// What a commit would publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Path by path, sorted; what stays as it is is left out.
    pub paths: Vec<PathPreview>,
    /// The revision that this was compared with.
    pub revision: u64,
    /// True if a commit would make no revision.
    pub is_empty: bool,
    /// Catalogs that would be written.
    pub catalogs: Vec<RepoPath>,
    /// Directories whose generated markers would go.
    pub ungenerated: Vec<RepoPath>,
    /// Extended attributes that would not be published; the first of them.
    pub dropped_xattrs: Vec<DroppedXattr>,
    /// How many more there are.
    pub dropped_xattrs_more: u64,
    /// Special files that the repository does not keep.
    pub special_skipped: Vec<RepoPath>,
    /// Hard-link groups that would be broken up: the names of each.
    pub broken_links: Vec<Vec<RepoPath>>,
    /// Limits that would be exceeded.
    pub limits: Vec<LimitExceeded>,
    /// What collides with the newest revision.
    pub conflicts: Conflicts,
    /// What the publisher cannot make; a commit is refused for it.
    pub refused: Vec<Refused>,
    /// How many more there are.
    pub refused_more: u64,
}

/// Looks at what publishing `change_set` on the newest revision would do. `work_dir` is an empty
/// directory; files that are not sealed may have null hashes.
///
/// # Errors
/// Those of a commit that does not get as far as storing anything. Conflicts are none of them: where
/// changes collide, what is shown is what `--on-conflict ours` would do. Nor is what the publisher
/// refuses.
pub fn preview(
    change_set: &ChangeSet,
    staged: &dyn ObjectStore,
    publisher: &dyn Publisher,
    now: SystemTime,
    work_dir: &Path,
) -> Result<Preview, CommitError> {
    let params = publisher.params()?;
    let (head, _) = publisher.head(now)?;
    let repository = publisher.repository();
    let compare = |source| CommitError::Compare {
        repo: publisher.name().to_owned(),
        source,
    };
    let revision = repository.revision_of(&head).map_err(compare)?;
    let conflicts = conflicts::find(repository, &revision, &params, change_set).map_err(compare)?;
    let (refused, refused_more) = match publisher.fits(change_set, &head) {
        Ok(()) => (Vec::new(), 0),
        Err(PublisherError::Refused { named, more, .. }) => (named, more),
        Err(other) => return Err(other.into()),
    };
    let wish = Wish {
        change_set,
        params: &params,
        staged,
        storage: publisher.storage().as_ref(),
        remake_parents: !conflicts.is_empty(),
        merged_below: None,
        now: crate::stratum0::seconds(now).cast_signed(),
    };
    let root = head.manifest().root_catalog;
    let mut plan = Plan::of(repository, &root, &wish, work_dir)?;
    let mut paths = Vec::new();
    for change in &change_set.changes {
        let published = revision.lookup(&change.path).map_err(compare)?;
        let published = published.map(|row| row.entry);
        let Some(what) = what(change, published.as_ref(), &params) else {
            continue;
        };
        let (size, is_dir) = match &change.op {
            Op::Put { entry, .. } => (file_size(Some(entry)), entry.is_dir()),
            Op::Remove => (0, published.as_ref().is_some_and(Entry::is_dir)),
        };
        paths.push(PathPreview {
            catalog: match what {
                What::Removed => None,
                _ => Some(plan.catalog_of(&change.path)?),
            },
            path: change.path.clone(),
            what,
            size,
            size_before: file_size(published.as_ref()),
            is_dir,
        });
    }
    for path in plan.report.generated.clone() {
        paths.push(PathPreview {
            catalog: Some(plan.catalog_of(&path)?),
            path,
            what: What::Generated,
            size: 0,
            size_before: 0,
            is_dir: false,
        });
    }
    paths.sort_by(|a, b| a.path.cmp(&b.path));
    let report = plan.report.clone();
    Ok(Preview {
        paths,
        revision: head.manifest().revision,
        is_empty: plan.is_empty(),
        catalogs: plan.changed_catalogs(),
        ungenerated: report.ungenerated,
        dropped_xattrs: report.dropped_xattrs.named,
        dropped_xattrs_more: report.dropped_xattrs.more,
        special_skipped: report.special_skipped,
        broken_links: report.broken_links,
        limits: report.limits,
        conflicts,
        refused,
        refused_more,
    })
}

fn file_size(entry: Option<&Entry>) -> u64 {
    entry.and_then(Entry::regular).map_or(0, |file| file.size)
}

/// What a change amounts to; none if nothing.
fn what(
    change: &Change,
    published: Option<&Entry>,
    params: &formats::server_conf::Params,
) -> Option<What> {
    let Op::Put {
        entry, children, ..
    } = &change.op
    else {
        return published.map(|_| What::Removed);
    };
    if !policy::is_kept(params, entry) {
        return published.map(|_| What::Removed);
    }
    if let Children::From(source) = children
        && source.path != change.path
    {
        return Some(What::RenamedFrom(source.path.clone()));
    }
    let new = policy::publishable(params, &change.path, entry, &mut policy::Dropped::default());
    match published {
        None => Some(What::Added),
        Some(old) if policy::same(params, old, &new) => None,
        Some(old) if policy::same_content(&old.kind, &new.kind) => Some(What::MetadataOnly),
        Some(_) => Some(What::Modified),
    }
}
