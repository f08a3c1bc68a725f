//! What can be wrong with a repository: which object, where in the tree, and what about it.

use std::sync::Arc;

use formats::catalog::CatalogError;
use formats::{ObjectName, RepoPath};

use crate::error::StoreError;
use crate::fetch::ObjectFault;

/// Why something published cannot be read. Concerns the one path or object; others still work.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepoError {
    /// A catalog is of no use, and with it everything at and below its path.
    #[error("catalog {object} of {path} in {repository} cannot be used")]
    Catalog {
        /// Which repository.
        repository: String,
        /// The catalog's object.
        object: ObjectName,
        /// Where it begins.
        path: RepoPath,
        /// What is wrong with it.
        #[source]
        fault: Box<CatalogFault>,
    },
    /// Nothing is at the path.
    #[error("{path} is not in {repository}")]
    NotFound {
        /// Which repository.
        repository: String,
        /// Which path.
        path: RepoPath,
    },
    /// The path is no directory.
    #[error("{path} in {repository} is not a directory")]
    NotADirectory {
        /// Which repository.
        repository: String,
        /// Which path.
        path: RepoPath,
    },
}

impl RepoError {
    /// True where the path simply is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// What is wrong with a catalog.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogFault {
    /// Its object.
    #[error(transparent)]
    Object(#[from] ObjectFault),
    /// Its content is not that of a catalog.
    #[error("it is not a catalog")]
    NotACatalog(#[source] Arc<CatalogError>),
    /// A row, counter or page in it.
    #[error("it is malformed")]
    Malformed(#[source] Arc<CatalogError>),
    /// It belongs elsewhere.
    #[error("it says that it begins at {found}")]
    WrongPlace {
        /// Where it says it begins.
        found: RepoPath,
    },
    /// It has no row for the directory at which it begins.
    #[error("it has no row for its own root")]
    NoRoot,
}

impl From<StoreError> for CatalogFault {
    fn from(error: StoreError) -> Self {
        Self::Object(ObjectFault::Cache(error))
    }
}
