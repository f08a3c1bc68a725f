//! The tag database: names for revisions. A SQLite file, schema 1.0, revision 3.
//!
//! ```text
//! properties    schema, schema_revision, fqrn, previous_revision (the tag database before this)
//! branches      branch, parent, initial_revision          '' is the default branch  -> Branch
//! tags          name, hash, revision, timestamp, channel = 0, description, size, branch -> Tag
//! recycle_bin   of old; kept empty
//! ```
//!
//! Every publish makes a new one: `trunk` is the newest revision, `trunk-previous` the one before.
//! Revisions 0 to 2 of the schema are read as they are and upgraded when they are changed [CVMFS
//! `history_sql.cc`, `swissknife_history.cc`]. This module loads no catalog and knows no time.

mod names;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use names::{TagNameError, auto_tag_name, check_tag_name, is_auto_tag};
pub use write::HistoryWriter;

use crate::hash::Hash;
use crate::sqlite::{Database, DatabaseError};

/// The tag of the newest revision.
pub const TRUNK: &str = "trunk";
/// The tag of the revision before.
pub const TRUNK_PREVIOUS: &str = "trunk-previous";

/// The schema revision that is written.
const REVISION: u32 = 3;
const SCHEMAS: [f64; 1] = [1.0];

/// A name for a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// The root catalog.
    pub hash: Hash,
    /// The root catalog's uncompressed length in bytes; 0 if unknown.
    pub size: u64,
    /// The root catalog's revision.
    pub revision: u64,
    /// When the root catalog was committed, in seconds since 1970.
    pub timestamp: i64,
    /// Free text.
    pub description: String,
    /// The branch it is on; empty for the default one.
    pub branch: String,
}

/// A line of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its name; empty for the default one.
    pub name: String,
    /// The branch it began on; none for the default one.
    pub parent: Option<String>,
    /// The revision at which it began.
    pub initial_revision: u64,
}

/// A revision, as tags record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The root catalog.
    pub hash: Hash,
    /// The root catalog's uncompressed length in bytes.
    pub size: u64,
    /// The root catalog's revision.
    pub revision: u64,
    /// When the root catalog was committed, in seconds since 1970.
    pub timestamp: i64,
}

/// Why a tag database cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file itself.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A tag's hash is not one.
    #[error("tag {name:?} in {} has no valid hash", file.display())]
    BadHash {
        /// The database.
        file: PathBuf,
        /// The tag.
        name: String,
        /// Why.
        source: crate::hash::HashError,
    },
    /// A tag of that name exists.
    #[error("a tag {0:?} exists already")]
    Exists(String),
    /// No tag has that name.
    #[error("there is no tag {0:?}")]
    Missing(String),
    /// No branch has that name.
    #[error("there is no branch {0:?}")]
    MissingBranch(String),
    /// A rollback from or to another branch.
    #[error("tag {0:?} is not on the default branch")]
    OtherBranch(String),
}

/// What this module's functions return.
pub type Result<T, E = HistoryError> = std::result::Result<T, E>;

/// A tag database, open for reading.
#[derive(Debug)]
pub struct History {
    db: Database,
    fqrn: String,
    previous: Option<Hash>,
    select: Select,
}

#[derive(Debug)]
struct Select {
    all: String,
    by_name: String,
    has_branches: bool,
}

impl History {
    /// Opens a tag database that nobody changes meanwhile.
    ///
    /// # Errors
    /// [`HistoryError`] when the file is not one of a known schema.
    pub fn open(file: &Path) -> Result<Self> {
        Self::new(Database::open_read(file)?)
    }

    fn new(db: Database) -> Result<Self> {
        db.require("properties", &["key", "value"])?;
        db.schema_revision(&SCHEMAS)?;
        db.require(
            "tags",
            &["name", "hash", "revision", "timestamp", "description"],
        )?;
        let column = |name, otherwise| {
            Ok::<_, DatabaseError>(if db.has_column("tags", name)? {
                name
            } else {
                otherwise
            })
        };
        let (size, branch) = (column("size", "0")?, column("branch", "''")?);
        let columns = format!(
            "SELECT name, hash, {size}, revision, timestamp, description, {branch} FROM tags"
        );
        let has_branches = db.has_table("branches")?;
        if has_branches {
            db.require("branches", &["branch", "parent", "initial_revision"])?;
        }
        Ok(Self {
            fqrn: db.property("fqrn")?.unwrap_or_default(),
            previous: db.parsed_property("previous_revision")?,
            select: Select {
                // the newest first, as the tools of CVMFS list them
                all: format!("{columns} ORDER BY timestamp DESC, revision DESC, name"),
                by_name: format!("{columns} WHERE name = ?1"),
                has_branches,
            },
            db,
        })
    }

    /// The repository it belongs to.
    #[must_use]
    pub fn fqrn(&self) -> &str {
        &self.fqrn
    }

    /// The tag database that it replaced; none if it replaced none.
    #[must_use]
    pub fn previous_revision(&self) -> Option<Hash> {
        self.previous.filter(|hash| !hash.is_null())
    }

    /// All tags, the newest first.
    ///
    /// # Errors
    /// [`HistoryError`] when one cannot be read.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        self.select(&self.select.all, [])
    }

    /// One tag.
    ///
    /// # Errors
    /// [`HistoryError`] when it cannot be read.
    pub fn tag(&self, name: &str) -> Result<Option<Tag>> {
        Ok(self.select(&self.select.by_name, [name])?.pop())
    }

    /// The newest tag of the default branch that is not newer than a time, as CVMFS's clients
    /// choose a revision by date.
    ///
    /// # Errors
    /// [`HistoryError`] when a tag cannot be read.
    pub fn tag_at(&self, timestamp: i64) -> Result<Option<Tag>> {
        let tags = self.tags()?.into_iter();
        let fitting = tags.filter(|t| t.branch.is_empty() && t.timestamp <= timestamp);
        Ok(fitting.max_by_key(|t| t.revision))
    }

    fn select(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Tag>> {
        let mut tags = Vec::new();
        self.db.for_each(("tags", sql), params, |row| {
            tags.push(self.read_tag(row)?);
            Ok::<_, HistoryError>(())
        })?;
        Ok(tags)
    }

    fn read_tag(&self, row: &rusqlite::Row<'_>) -> Result<Tag> {
        let text = |column, at| self.db.text(("tags", column), row, at);
        let unsigned = |column, at| self.db.unsigned(("tags", column), row, at);
        let name = text("name", 0)?;
        let hash = text("hash", 1)?
            .parse()
            .map_err(|source| HistoryError::BadHash {
                file: self.db.file().to_path_buf(),
                name: name.clone(),
                source,
            })?;
        Ok(Tag {
            hash,
            size: unsigned("size", 2)?,
            revision: unsigned("revision", 3)?,
            timestamp: self.db.int(("tags", "timestamp"), row, 4)?,
            description: self.db.lossy_text(("tags", "description"), row, 5)?,
            branch: text("branch", 6)?,
            name,
        })
    }

    /// All branches.
    ///
    /// # Errors
    /// [`HistoryError`] when one cannot be read.
    pub fn branches(&self) -> Result<Vec<Branch>> {
        const SQL: &str = "SELECT branch, parent, initial_revision FROM branches ORDER BY rowid";
        if !self.select.has_branches {
            return Ok(vec![Branch {
                name: String::new(),
                parent: None,
                initial_revision: 0,
            }]);
        }
        let mut branches = Vec::new();
        self.db.for_each(("branches", SQL), [], |row| {
            let name = self.db.text(("branches", "branch"), row, 0)?;
            let parent = self.db.text(("branches", "parent"), row, 1)?;
            branches.push(Branch {
                parent: (!name.is_empty()).then_some(parent),
                name,
                initial_revision: self.db.unsigned(("branches", "initial_revision"), row, 2)?,
            });
            Ok::<_, HistoryError>(())
        })?;
        Ok(branches)
    }

    /// The tags that a rollback to a tag removes, that tag's old row included.
    ///
    /// # Errors
    /// [`HistoryError::Missing`], [`HistoryError::OtherBranch`].
    pub fn rolled_back(&self, target: &str) -> Result<Vec<Tag>> {
        let tag = self
            .tag(target)?
            .ok_or_else(|| HistoryError::Missing(target.to_owned()))?;
        if !tag.branch.is_empty() {
            return Err(HistoryError::OtherBranch(target.to_owned()));
        }
        let mut tags = self.tags()?;
        tags.retain(|t| t.branch.is_empty() && (t.revision > tag.revision || t.name == tag.name));
        Ok(tags)
    }

    /// Reads everything there is, and the structure of every page.
    ///
    /// # Errors
    /// [`HistoryError`], the first fault.
    pub fn verify(&self) -> Result<()> {
        self.db.quick_check()?;
        self.tags()?;
        self.branches()?;
        Ok(())
    }
}
