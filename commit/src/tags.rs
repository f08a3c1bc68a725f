//! The tags of a published repository: listed, added, moved and removed.
//!
//! ```text
//! tag database (a new object)  ->  certificate  ->  one sync
//! ->  reflog, its checksum     ->  manifest: the same root catalog and revision, signed anew
//! ```
//!
//! The manifest is replaced last, as for a new revision and by the same code, so that a crash leaves
//! either the old tags or the new ones. `trunk` and `trunk-previous` follow the revisions and are
//! nobody's to change. Nothing here makes a revision.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use formats::catalog::Catalog;
use formats::hash::Hash;
use formats::history::{Head as TagHead, History, HistoryError, Tag, TagNameError};
use formats::history::{TRUNK, TRUNK_PREVIOUS, check_tag_name};
use store::{CatalogFault, CatalogFile, RepoError, failpoint};

use crate::publisher::{Lease, NewRevision, Publisher, PublisherError};
use crate::records;
use crate::stratum0::{Stratum0, Stratum0Lease, TagEdit};

/// A tag to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTag {
    /// Its name.
    pub name: String,
    /// Its description; when a tag is moved, empty keeps the one it has.
    pub message: String,
    /// The root catalog that it shall name; the published one if none. Only with it may a tag that
    /// exists be moved.
    pub root: Option<Hash>,
}

/// Why tags cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TagsError {
    /// The name is malformed, or one of the two that follow the revisions.
    #[error(transparent)]
    Name(#[from] TagNameError),
    /// It is there already.
    #[error(
        "{repo} has a tag {name:?} already, on revision {revision}; remove it first, or say which root catalog it shall move to"
    )]
    Exists {
        /// Of which repository.
        repo: String,
        /// Its name.
        name: String,
        /// What it names.
        revision: u64,
    },
    /// It names that root catalog already.
    #[error("the tag {name:?} of {repo} is on {root} already")]
    Unmoved {
        /// Of which repository.
        repo: String,
        /// Its name.
        name: String,
        /// What it names.
        root: Hash,
    },
    /// There is no such tag.
    #[error("{repo} has no tag {name:?}; `prepub tag list {repo}` shows those it has")]
    Missing {
        /// Of which repository.
        repo: String,
        /// Its name.
        name: String,
    },
    /// What shall be tagged cannot be read.
    #[error("cannot tag {root}")]
    Target {
        /// The root catalog.
        root: Hash,
        /// Why.
        source: RepoError,
    },
    /// The same, once it is here.
    #[error("cannot tag {root}")]
    Unreadable {
        /// The root catalog.
        root: Hash,
        /// Why.
        source: CatalogFault,
    },
    /// What shall be tagged is a catalog of some directory.
    #[error("{root} is the catalog of {path}, not a root catalog; only whole revisions have tags")]
    NotARevision {
        /// The catalog.
        root: Hash,
        /// Where it belongs.
        path: String,
    },
    /// The publisher.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
}

/// The tags, the newest first. `work_dir` is an empty directory.
///
/// # Errors
/// [`TagsError`] when the head or the tag database cannot be read.
pub fn list(
    publisher: &dyn Publisher,
    work_dir: &Path,
    now: SystemTime,
) -> Result<Vec<Tag>, TagsError> {
    let (head, _) = publisher.head(now)?;
    let unreadable = |source| PublisherError::records(publisher.name(), source);
    let store = publisher.repository().store().as_ref();
    let history = records::read_history(store, head.manifest().history, work_dir);
    match history.map_err(unreadable)? {
        Some(history) => Ok(history
            .tags()
            .map_err(|source| unreadable(records::RecordsError::History(source)))?),
        None => Ok(Vec::new()),
    }
}

/// Sets a tag.
///
/// # Errors
/// [`TagsError`]; then the tags are what they were, unless replacing the manifest itself failed.
pub fn add(publisher: &Stratum0, wanted: &NewTag, now: SystemTime) -> Result<Tag, TagsError> {
    check_tag_name(&wanted.name)?;
    let lease = publisher.lease_now(now)?;
    let present = find(&lease, publisher, &wanted.name)?;
    let repo = || publisher.name().to_owned();
    match (&present, wanted.root) {
        (None, _) => {}
        (Some(tag), None) => {
            return Err(TagsError::Exists {
                repo: repo(),
                name: tag.name.clone(),
                revision: tag.revision,
            });
        }
        (Some(tag), Some(root)) if tag.hash == root => {
            return Err(TagsError::Unmoved {
                repo: repo(),
                name: tag.name.clone(),
                root,
            });
        }
        (Some(_), Some(_)) => {}
    }
    let tag = tag_for(publisher, &lease, wanted, present.as_ref())?;
    let mut replaced = |writer: &mut formats::HistoryWriter, _: &TagHead| {
        if present.is_some() {
            // the branch must not go with its last tag, as it would if this were two edits
            return writer.replace(&tag);
        }
        writer.insert(&tag)
    };
    sign_again(publisher, lease, TagEdit::Other(&mut replaced), now)?;
    Ok(tag)
}

/// Removes tags: all of them, or none.
///
/// # Errors
/// [`TagsError`]; then the tags are what they were, unless replacing the manifest itself failed.
pub fn remove(
    publisher: &Stratum0,
    names: &[String],
    now: SystemTime,
) -> Result<Vec<Tag>, TagsError> {
    for name in names {
        if name == TRUNK || name == TRUNK_PREVIOUS {
            return Err(TagNameError::Reserved(name.clone()).into());
        }
    }
    let lease = publisher.lease_now(now)?;
    let mut removed = Vec::new();
    for name in names {
        let tag = find(&lease, publisher, name)?.ok_or_else(|| TagsError::Missing {
            repo: publisher.name().to_owned(),
            name: name.clone(),
        })?;
        if !removed.contains(&tag) {
            removed.push(tag);
        }
    }
    if removed.is_empty() {
        return Ok(removed);
    }
    let mut without = |writer: &mut formats::HistoryWriter, _: &TagHead| {
        for tag in &removed {
            writer.remove(&tag.name)?;
        }
        Ok(())
    };
    sign_again(publisher, lease, TagEdit::Other(&mut without), now)?;
    Ok(removed)
}

/// The published revision as it is, to be signed again.
pub(crate) fn standing(
    publisher: &Stratum0,
    lease: &Stratum0Lease<'_>,
) -> Result<NewRevision, TagsError> {
    let manifest = lease.head().manifest();
    let root = manifest.root_catalog;
    let (catalog, facts) = look_at(publisher, root)?;
    Ok(NewRevision {
        root_hash: root,
        root_bytes: catalog.size(),
        revision: manifest.revision,
        previous_root: facts.previous.unwrap_or_else(Hash::null),
        timestamp: facts.timestamp,
        ttl_seconds: manifest.ttl_seconds,
        tag: None,
        message: String::new(),
    })
}

/// Publishes the standing revision with other tags.
pub(crate) fn sign_again(
    publisher: &Stratum0,
    lease: Stratum0Lease<'_>,
    edit: TagEdit<'_>,
    now: SystemTime,
) -> Result<(), TagsError> {
    let revision = standing(publisher, &lease)?;
    failpoint::pass("tags::before_objects").map_err(PublisherError::from)?;
    lease.publish(revision, edit, now, &mut |_| {
        Ok(failpoint::pass("tags::before_manifest")?)
    })?;
    Ok(())
}

/// The published tags, read under the lease.
pub(crate) fn history(
    publisher: &Stratum0,
    lease: &Stratum0Lease<'_>,
) -> Result<Option<History>, PublisherError> {
    let work = publisher.work()?;
    // an open database outlives its file's name
    let hash = lease.head().manifest().history;
    records::read_history(publisher.storage().as_ref(), hash, work.path())
        .map_err(|source| publisher.records(source))
}

fn find(
    lease: &Stratum0Lease<'_>,
    publisher: &Stratum0,
    name: &str,
) -> Result<Option<Tag>, PublisherError> {
    match history(publisher, lease)? {
        Some(history) => history.tag(name).map_err(unreadable(publisher)),
        None => Ok(None),
    }
}

struct Facts {
    revision: u64,
    previous: Option<Hash>,
    timestamp: i64,
}

fn look_at(publisher: &Stratum0, root: Hash) -> Result<(Arc<CatalogFile>, Facts), TagsError> {
    let repository = publisher.repository();
    let catalog = repository
        .catalog(&root, None)
        .map_err(|source| TagsError::Target { root, source })?;
    let read = |catalog: &Catalog| {
        Ok(Facts {
            revision: catalog.revision(),
            previous: catalog.previous_revision(),
            timestamp: catalog.last_modified(),
        })
    };
    let facts = catalog
        .with(read)
        .map_err(|source| TagsError::Unreadable { root, source })?;
    Ok((catalog, facts))
}

fn tag_for(
    publisher: &Stratum0,
    lease: &Stratum0Lease<'_>,
    wanted: &NewTag,
    present: Option<&Tag>,
) -> Result<Tag, TagsError> {
    let root = wanted.root.unwrap_or(lease.head().manifest().root_catalog);
    let (catalog, facts) = look_at(publisher, root)?;
    if !catalog.root_prefix().is_root() {
        return Err(TagsError::NotARevision {
            root,
            path: catalog.root_prefix().to_string(),
        });
    }
    let kept = |text: fn(&Tag) -> &String| present.map(text).cloned().unwrap_or_default();
    let description = match wanted.message.as_str() {
        "" => kept(|tag| &tag.description),
        message => message.to_owned(),
    };
    Ok(Tag {
        name: wanted.name.clone(),
        hash: root,
        size: catalog.size(),
        revision: facts.revision,
        timestamp: facts.timestamp,
        description,
        branch: kept(|tag| &tag.branch),
    })
}

pub(crate) fn unreadable(publisher: &Stratum0) -> impl Fn(HistoryError) -> PublisherError + '_ {
    |source| PublisherError::Tags {
        repo: publisher.name().to_owned(),
        source,
    }
}
