//! Whether a commit whose answer was lost, or that was refused at its end, became visible.
//!
//! A gateway's receiver and `cvmfs_server` make catalogs of their own, so the hash that was committed is
//! found nowhere. What is compared is content: paths at which our revision differs from its base, in
//! each revision published since. A commit is all or nothing, and the lease kept others off those paths,
//! so a revision that has ours there is the one. Nothing here asks whoever published.

use std::sync::Arc;

use formats::hash::Hash;
use formats::object::{ObjectKind, ObjectName};
use store::{RepoError, Repository, Revision};

use crate::difference::{self, Step, bare};
use crate::publisher::{NewRevision, PublisherError};

/// Longest chain of revisions that is searched.
const CHAIN_MAX: usize = 10_000;
/// Paths that are compared: that many do not agree by chance.
const PATHS_MAX: usize = 1000;

/// A revision of the chain.
struct Link {
    root: Hash,
    bytes: u64,
    revision: u64,
}

/// The revision that made `ours` visible, if one did; `head` is the published root catalog.
pub(crate) fn find(
    repo: &Arc<Repository>,
    head: Hash,
    ours: &NewRevision,
) -> Result<Option<NewRevision>, PublisherError> {
    let failed = |source: RepoError| PublisherError::Chain {
        repo: repo.name().to_owned(),
        source: source.into(),
    };
    let chain = chain(repo, head, &ours.previous_root, ours.revision)?;
    if chain.is_empty() {
        return Ok(None);
    }
    // our catalogs are sent before the commit: without them there was none
    for root in [&ours.root_hash, &ours.previous_root] {
        if !is_there(repo, root)? {
            return Ok(None);
        }
    }
    let base = repo.revision(&ours.previous_root).map_err(failed)?;
    let wanted = repo.revision(&ours.root_hash).map_err(failed)?;
    let steps = difference::between(&base, &wanted, PATHS_MAX).map_err(failed)?;
    for link in chain.iter().rev() {
        let revision = repo.revision(&link.root).map_err(failed)?;
        if agree(&wanted, &revision, &steps).map_err(failed)? {
            return Ok(Some(made(ours, link)));
        }
    }
    Ok(None)
}

/// The revision of a number that whoever published has answered with.
pub(crate) fn numbered(
    repo: &Arc<Repository>,
    head: Hash,
    ours: &NewRevision,
    number: u64,
) -> Result<Option<NewRevision>, PublisherError> {
    let chain = chain(repo, head, &ours.previous_root, number)?;
    let found = chain.iter().find(|link| link.revision == number);
    Ok(found.map(|link| made(ours, link)))
}

fn made(ours: &NewRevision, link: &Link) -> NewRevision {
    NewRevision {
        root_hash: link.root,
        root_bytes: link.bytes,
        revision: link.revision,
        ..ours.clone()
    }
}

/// The revisions from the published one back to `oldest`, or to `base`, which is none of them.
fn chain(
    repo: &Arc<Repository>,
    head: Hash,
    base: &Hash,
    oldest: u64,
) -> Result<Vec<Link>, PublisherError> {
    let mut found = Vec::new();
    let mut root = head;
    while root != *base && found.len() < CHAIN_MAX && is_there(repo, &root)? {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PublisherError::Chain {
            repo: repo.name().to_owned(),
            source,
        };
        let catalog = repo.catalog(&root, None).map_err(|e| failed(e.into()))?;
        let (revision, previous) = catalog
            .with(|catalog| Ok((catalog.revision(), catalog.previous_revision())))
            .map_err(|e| failed(e.into()))?;
        if revision < oldest {
            break;
        }
        found.push(Link {
            root,
            bytes: catalog.size(),
            revision,
        });
        match previous {
            Some(previous) => root = previous,
            None => break,
        }
    }
    Ok(found)
}

fn is_there(repo: &Repository, root: &Hash) -> Result<bool, PublisherError> {
    let name = ObjectName::new(*root, ObjectKind::Catalog);
    repo.store()
        .has(&name)
        .map_err(|source| PublisherError::Storage {
            repo: repo.name().to_owned(),
            what: "look for a catalog in",
            source,
        })
}

fn agree(a: &Revision, b: &Revision, steps: &[Step]) -> Result<bool, RepoError> {
    for Step { path, .. } in steps {
        let (a, b) = (a.find(path)?, b.find(path)?);
        let same = match (&a, &b) {
            (None, None) => true,
            (Some(a), Some(b)) => bare(&a.entry) == bare(&b.entry),
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
