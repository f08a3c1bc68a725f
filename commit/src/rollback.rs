//! Back to an earlier revision, as a new one: clients only ever go forward.
//!
//! The root catalog of the target is published once more, stamped with the next revision number, the
//! present time and the published root as its predecessor; everything below it stays as it lies in
//! the storage. The target's tag moves to the new catalog, the tags of later revisions go, and
//! `trunk` follows. Order on disk as for any revision: objects, reflog, manifest.
//!
//! No stage is looked at: what is staged stays staged, upon a base that is no longer the newest.

use std::time::SystemTime;

use formats::catalog::{CatalogError, CatalogWriter, Stamp};
use formats::hash::Hash;
use formats::history::{Head as TagHead, HistoryError, HistoryWriter, Tag};
use formats::history::{TRUNK, TRUNK_PREVIOUS};
use formats::object::ObjectKind;
use serde::Serialize;
use store::{RepoError, failpoint};

use crate::catalogs::CatalogsError;
use crate::catalogs::finish::store_file;
use crate::home::HomeError;
use crate::publisher::{Lease, NewRevision, Publisher, PublisherError};
use crate::records;
use crate::stratum0::{Stratum0, Stratum0Lease, TagEdit, seconds};
use crate::txn::TxnError;

/// What a rollback will do, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The tag, as it was.
    pub target: Tag,
    /// The other tags, which name later revisions and go.
    pub lost: Vec<Tag>,
    /// The published revision, which is left.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: Hash,
}

impl Plan {
    /// True if the target is what is published.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.target.hash == self.root_hash
    }
}

/// How a rollback ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target was made the newest revision.
    Done(RolledBack),
    /// The target is what is published.
    Nothing(Plan),
}

/// A revision that repeats an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The new revision.
    pub revision: u64,
    /// Its root catalog.
    pub root_hash: Hash,
    /// The root catalog that was published until now.
    pub previous_root_hash: Hash,
    /// The tag that was gone back to; it names the new revision now.
    pub tag: String,
    /// The revision that it named.
    pub from_revision: u64,
    /// The tags that are gone.
    pub lost_tags: Vec<String>,
}

/// Why nothing was rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// There is no such tag.
    #[error(
        "{repo} has no tag {name:?} to go back to; `prepub tag list {repo}` shows those it has"
    )]
    Missing {
        /// Of which repository.
        repo: String,
        /// Its name.
        name: String,
    },
    /// Nothing was published before, or the last rollback was anonymous.
    #[error(
        "{repo} has no previous revision on record; choose a tag with --tag, `prepub tag list {repo}` shows those it has"
    )]
    NoPrevious {
        /// Of which repository.
        repo: String,
    },
    /// The tag is on a branch.
    #[error(
        "the tag {name:?} of {repo} is on a branch; only the default branch can be rolled back"
    )]
    OnBranch {
        /// Of which repository.
        repo: String,
        /// Its name.
        name: String,
    },
    /// What the tag names cannot be read any more.
    #[error("the tag {name:?} names {root}, which cannot be used")]
    Target {
        /// The tag.
        name: String,
        /// The root catalog.
        root: Hash,
        /// Why.
        source: RepoError,
    },
    /// The catalog cannot be stamped.
    #[error("the new root catalog")]
    Catalog(#[from] CatalogError),
    /// The catalog cannot be stored.
    #[error(transparent)]
    Store(#[from] CatalogsError),
    /// The publisher.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
    /// A failpoint.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

/// What [`rollback`] would do as things stand.
///
/// # Errors
/// [`RollbackError`].
pub fn plan(
    publisher: &Stratum0,
    target: Option<&str>,
    now: SystemTime,
) -> Result<Plan, RollbackError> {
    let (head, _) = publisher.head(now)?;
    plan_from(publisher, &head, target)
}

/// Makes the revision that a tag names the newest one; without a tag, the one before.
///
/// # Errors
/// [`RollbackError`]; then nothing changed, unless replacing the manifest itself failed.
pub fn rollback(
    publisher: &Stratum0,
    target: Option<&str>,
    now: SystemTime,
) -> Result<Outcome, RollbackError> {
    let lease = publisher.lease_now(now)?;
    let plan = plan_from(publisher, lease.head(), target)?;
    if plan.is_nothing() {
        return Ok(Outcome::Nothing(plan));
    }
    let name = plan.target.name.clone();
    let revision = republish(publisher, &lease, &plan, now)?;
    failpoint::pass("rollback::before_tags").map_err(TxnError::from)?;
    let mut move_tags = |writer: &mut HistoryWriter, head: &TagHead| {
        writer.rollback(&name, head)?;
        Ok(())
    };
    let edit = TagEdit::Other(&mut move_tags);
    let done = lease.publish(revision, edit, now, &mut |_| {
        Ok(failpoint::pass("rollback::before_manifest")?)
    })?;
    Ok(Outcome::Done(RolledBack {
        revision: done.revision,
        root_hash: done.root_hash,
        previous_root_hash: done.previous_root,
        tag: plan.target.name,
        from_revision: plan.target.revision,
        lost_tags: plan.lost.into_iter().map(|tag| tag.name).collect(),
    }))
}

fn plan_from(
    publisher: &Stratum0,
    head: &store::Head,
    target: Option<&str>,
) -> Result<Plan, RollbackError> {
    let repo = || publisher.name().to_owned();
    let name = target.unwrap_or(TRUNK_PREVIOUS);
    let missing = || match target {
        Some(name) => RollbackError::Missing {
            repo: repo(),
            name: name.to_owned(),
        },
        None => RollbackError::NoPrevious { repo: repo() },
    };
    let manifest = head.manifest();
    let work = publisher.work()?;
    let history =
        records::read_history(publisher.storage().as_ref(), manifest.history, work.path())
            .map_err(|source| publisher.records(source))?
            .ok_or_else(missing)?;
    let mut tags = history.rolled_back(name).map_err(|source| match source {
        HistoryError::Missing(_) => missing(),
        HistoryError::OtherBranch(name) => RollbackError::OnBranch { repo: repo(), name },
        source => crate::tags::unreadable(publisher)(source).into(),
    })?;
    let at = tags.iter().position(|tag| tag.name == name);
    let target = tags.remove(at.ok_or_else(missing)?);
    // the two that follow the revisions are set anew, not lost
    tags.retain(|tag| tag.name != TRUNK && tag.name != TRUNK_PREVIOUS);
    Ok(Plan {
        target,
        lost: tags,
        revision: manifest.revision,
        root_hash: manifest.root_catalog,
    })
}

/// Stamps and stores the target's root catalog anew.
fn republish(
    publisher: &Stratum0,
    lease: &Stratum0Lease<'_>,
    plan: &Plan,
    now: SystemTime,
) -> Result<NewRevision, RollbackError> {
    let work = publisher.work()?;
    let file = work.path().join("root.catalog");
    let unusable = |source| RollbackError::Target {
        name: plan.target.name.clone(),
        root: plan.target.hash,
        source,
    };
    let manifest = lease.head().manifest();
    publisher
        .repository()
        .copy_catalog(&plan.target.hash, &file)
        .map_err(unusable)?;
    let stamp = Stamp {
        revision: manifest.revision.saturating_add(1),
        previous: Some(manifest.root_catalog),
        last_modified: seconds(now).cast_signed(),
        ttl: Some(manifest.ttl_seconds),
    };
    let finished = CatalogWriter::open_update(&file)?.finish(stamp)?;
    let algorithm = publisher.params()?.algorithm;
    let storage = publisher.storage().as_ref();
    let (root_hash, _, _) = store_file(&file, algorithm, ObjectKind::Catalog, storage)?;
    work.close()
        .map_err(|source| PublisherError::Home(HomeError::Write { path: file, source }))?;
    Ok(NewRevision {
        root_hash,
        root_bytes: finished.size,
        revision: stamp.revision,
        previous_root: manifest.root_catalog,
        timestamp: stamp.last_modified,
        ttl_seconds: manifest.ttl_seconds,
        tag: None,
        message: String::new(),
    })
}
