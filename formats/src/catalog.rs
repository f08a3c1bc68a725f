//! File catalogs: the rows of one subtree, in a SQLite file.
//!
//! A repository is a tree of catalogs. Each begins at a directory and holds a row for everything
//! below it, down to where nested catalogs begin: there the parent has a row with
//! [`Role::Mountpoint`] and a [`NestedRef`], the child a copy of the row with [`Role::Root`].
//!
//! ```text
//! properties         schema, revision, root_prefix, last_modified, previous_revision, TTL ...
//! catalog            one row per path, keyed by the MD5 of the full path   -> Row
//! chunks             the pieces of chunked files                           -> Row.entry
//! nested_catalogs    where nested catalogs begin, and their hashes         -> NestedRef
//! bind_mountpoints   the same for snapshots bound in                       -> NestedRef
//! statistics         24 counters                                           -> Counters
//! ```
//!
//! What is read is distrusted: every fault is a [`CatalogError`] that says what and where. A
//! catalog knows one file; it fetches no other, compresses nothing, and knows no hash of its own.

mod columns;
mod counters;
mod read;
mod row;
mod schema;
mod write;
pub mod xattr;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use crate::sqlite::DatabaseError;
pub use counters::{Counters, Counts};
pub use read::Catalog;
pub use row::{RawChunk, RawRow, Role, Row, RowProblem};
pub use write::{CatalogWriter, Finished, Stamp};

use crate::hash::Hash;
use crate::path::{PathHash, RepoPath};

/// Where a nested catalog begins, and which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedRef {
    /// The directory, as a full path.
    pub path: RepoPath,
    /// The catalog's object.
    pub hash: Hash,
    /// Its uncompressed length in bytes; 0 if unknown.
    pub size: u64,
}

/// Why a catalog cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file itself.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// One row.
    #[error(
        "catalog {}: bad row {:?} (path hash {}, {})",
        file.display(), String::from_utf8_lossy(name), path.0, path.1
    )]
    BadRow {
        /// The catalog's file.
        file: PathBuf,
        /// The row's key.
        path: PathHash,
        /// The row's name, shortened.
        name: Vec<u8>,
        /// What is wrong.
        source: RowProblem,
    },
    /// A reference to a catalog that cannot be one.
    #[error("catalog {} refers to a nested catalog at {at:?}, which {what}", file.display())]
    BadNested {
        /// The catalog's file.
        file: PathBuf,
        /// The path as it stands there, shortened.
        at: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A counter is not there.
    #[error("catalog {} lacks the counter {counter}", file.display())]
    MissingCounter {
        /// The catalog's file.
        file: PathBuf,
        /// Which.
        counter: String,
    },
}

/// What a catalog's functions return.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;
