//! The published revisions that the stage lies over.
//!
//! Unstaged paths follow the head. A directory that was moved goes on referring to the revision it
//! was moved in, so several may be in use; they are opened when first asked for. Nothing here
//! changes anything.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use formats::{Hash, RepoPath, Row};
use store::{RepoError, Repository, Revision};

use crate::tree::RevId;

/// See the module's head. A clone is a view of the moment.
#[derive(Clone)]
pub(crate) struct Revisions {
    repository: Arc<Repository>,
    known: BTreeMap<RevId, Known>,
    pub(crate) head: RevId,
}

#[derive(Clone)]
struct Known {
    root: Hash,
    revision: OnceLock<Arc<Revision>>,
}

impl Revisions {
    /// Revisions by number, and which of them is the head.
    pub(crate) fn new(
        repository: Arc<Repository>,
        roots: impl IntoIterator<Item = (RevId, Hash)>,
        head: RevId,
    ) -> Self {
        let known = roots.into_iter().map(|(id, root)| {
            let revision = OnceLock::new();
            (id, Known { root, revision })
        });
        Self {
            repository,
            known: known.collect(),
            head,
        }
    }

    /// The number of a revision, a new one if it is not known yet. The head stays.
    pub(crate) fn add(&mut self, revision: Arc<Revision>) -> RevId {
        let root = *revision.root_hash();
        if let Some((id, known)) = self.known.iter().find(|(_, known)| known.root == root) {
            known.revision.get_or_init(|| revision);
            return *id;
        }
        let id = RevId(self.known.last_key_value().map_or(1, |(id, _)| id.0 + 1));
        let known = Known {
            root,
            revision: OnceLock::from(revision),
        };
        self.known.insert(id, known);
        id
    }

    /// Forgets the revisions that `used` does not name; the head is always kept.
    pub(crate) fn retain(&mut self, used: impl Fn(RevId) -> bool) {
        let head = self.head;
        self.known.retain(|id, _| *id == head || used(*id));
    }

    /// All of them, for the journal.
    pub(crate) fn roots(&self) -> Vec<(RevId, Hash)> {
        self.known.iter().map(|(id, k)| (*id, k.root)).collect()
    }

    /// The root catalog of a revision.
    pub(crate) fn root_of(&self, id: RevId) -> Hash {
        self.known.get(&id).map_or_else(Hash::null, |k| k.root)
    }

    /// A revision, opened.
    pub(crate) fn get(&self, id: RevId) -> Result<Arc<Revision>, RepoError> {
        let id = if self.known.contains_key(&id) {
            id
        } else {
            self.head
        };
        let Some(known) = self.known.get(&id) else {
            return self.repository.revision(&Hash::null());
        };
        if let Some(revision) = known.revision.get() {
            return Ok(Arc::clone(revision));
        }
        let opened = self.repository.revision(&known.root)?;
        Ok(Arc::clone(known.revision.get_or_init(|| opened)))
    }

    /// The row at a path, if there is one.
    pub(crate) fn find(&self, id: RevId, path: &RepoPath) -> Result<Option<Arc<Row>>, RepoError> {
        self.get(id)?.find(path)
    }

    /// The rows of a directory, by name; none if it is no directory there.
    pub(crate) fn list(&self, id: RevId, path: &RepoPath) -> Result<Arc<Vec<Row>>, RepoError> {
        match self.get(id)?.listing(path) {
            Err(RepoError::NotFound { .. } | RepoError::NotADirectory { .. }) => Ok(Arc::default()),
            other => other,
        }
    }
}
