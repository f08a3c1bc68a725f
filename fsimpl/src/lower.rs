//! The published revisions that the stage lies over.
//!
//! Unstaged paths follow the head. A directory that was moved goes on referring to the revision it
//! was moved in, so several may be in use; they are opened when first asked for. Nothing here
//! changes anything.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};

use formats::{Hash, RepoPath, Row};
use store::{RepoError, Repository, Revision};

use crate::tree::RevId;

/// See the module's head. A clone is a view of the moment.
#[derive(Clone)]
pub(crate) struct Revisions {
    repository: Arc<Repository>,
    known: BTreeMap<RevId, Known>,
    /// Revisions that commits of ours followed, and those that they made: nobody else's work lies
    /// between.
    ours: BTreeMap<RevId, RevId>,
    pub(crate) head: RevId,
}

#[derive(Clone)]
struct Known {
    root: Hash,
    revision: OnceLock<Arc<Revision>>,
}

impl Revisions {
    /// Revisions by number, which of them follow each other by our doing, and which is the head.
    pub(crate) fn new(
        repository: Arc<Repository>,
        roots: impl IntoIterator<Item = (RevId, Hash)>,
        ours: impl IntoIterator<Item = (RevId, RevId)>,
        head: RevId,
    ) -> Self {
        let known = roots.into_iter().map(|(id, root)| {
            let revision = OnceLock::new();
            (id, Known { root, revision })
        });
        Self {
            repository,
            known: known.collect(),
            ours: ours.into_iter().collect(),
            head,
        }
    }

    /// The number of a revision, a new one if it is not known yet. The head stays. One that was
    /// followed by a commit of ours, and is the newest again, is another one.
    pub(crate) fn add(&mut self, revision: Arc<Revision>) -> RevId {
        let root = *revision.root_hash();
        let mut known = self.known.iter();
        let same = known.find(|(id, known)| known.root == root && !self.ours.contains_key(id));
        if let Some((id, known)) = same {
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

    /// A commit of ours led from one revision to the next, and nothing else.
    pub(crate) fn followed_by_ours(&mut self, from: RevId, to: RevId) {
        if from != to {
            self.ours.insert(from, to);
        }
    }

    /// The revision since which all that happened is other publishers' work, for what was staged
    /// over `id` and is not published yet.
    pub(crate) fn base_of(&self, id: RevId) -> RevId {
        let mut at = id;
        // each leads on once, whatever was recorded
        for _ in 0..self.ours.len() {
            match self.ours.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        at
    }

    /// Forgets the revisions that are not in use, as a base or for their content; the head is always
    /// kept.
    pub(crate) fn retain(&mut self, mut used: HashSet<RevId>) {
        let ours = used.iter().map(|id| (*id, self.base_of(*id)));
        self.ours = ours.filter(|(id, base)| id != base).collect();
        used.extend(self.ours.values());
        used.insert(self.head);
        self.known.retain(|id, _| used.contains(id));
    }

    /// A revision that was forgotten since `before` is of use after all.
    pub(crate) fn remember(&mut self, id: RevId, before: &Self) {
        if let Some(known) = before.known.get(&id) {
            self.known.entry(id).or_insert_with(|| known.clone());
        }
    }

    /// Which follow each other by our doing, for the journal.
    pub(crate) fn ours(&self) -> Vec<(RevId, RevId)> {
        self.ours.iter().map(|(from, to)| (*from, *to)).collect()
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
