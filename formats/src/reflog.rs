//! The reference log, `.cvmfsreflog`: every root object that was ever published, for the garbage
//! collector. A SQLite file, schema 1.0, revision 0; stored as it is, not compressed.
//!
//! ```text
//! properties   schema, schema_revision, fqrn
//! refs         hash, type (0 catalog, 1 certificate, 2 history, 3 meta info), timestamp -> Reference
//! ```
//!
//! Only root catalogs are in it. Its checksum is over the file's bytes and is kept by the publisher,
//! not here [CVMFS `reflog_sql.cc`].

#[cfg(test)]
mod tests;

use std::ops::Deref;
use std::path::{Path, PathBuf};

use rusqlite::params;

use crate::hash::Hash;
use crate::object::{ObjectKind, ObjectName};
use crate::sqlite::{self, Database, DatabaseError};

const SCHEMAS: [f64; 1] = [1.0];

const TABLES: &str = "\
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE refs (hash TEXT, type INTEGER, timestamp INTEGER, \
CONSTRAINT pk_refs PRIMARY KEY (hash));";

/// A root object and when it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The object.
    pub hash: Hash,
    /// What it is.
    pub kind: RefKind,
    /// When it was last recorded, in seconds since 1970.
    pub timestamp: i64,
}

/// What a root object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefKind {
    /// A root catalog.
    Catalog,
    /// A certificate.
    Certificate,
    /// A tag database.
    History,
    /// Meta information.
    MetaInfo,
}

impl RefKind {
    const ALL: [Self; 4] = [
        Self::Catalog,
        Self::Certificate,
        Self::History,
        Self::MetaInfo,
    ];

    /// The kind in an object's name.
    #[must_use]
    pub fn object_kind(self) -> ObjectKind {
        match self {
            Self::Catalog => ObjectKind::Catalog,
            Self::Certificate => ObjectKind::Certificate,
            Self::History => ObjectKind::History,
            Self::MetaInfo => ObjectKind::MetaInfo,
        }
    }
}

impl Reference {
    /// The object's full name.
    #[must_use]
    pub fn object(&self) -> ObjectName {
        ObjectName::new(self.hash, self.kind.object_kind())
    }
}

/// Why a reference log cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ReflogError {
    /// The file itself.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A hash that is not one.
    #[error("the reference log {} has a malformed hash", file.display())]
    BadHash {
        /// The log.
        file: PathBuf,
        /// Why.
        source: crate::hash::HashError,
    },
    /// A type that is not one of the four.
    #[error("the reference log {} has {hash} with the unknown type {found}", file.display())]
    BadKind {
        /// The log.
        file: PathBuf,
        /// The object.
        hash: Hash,
        /// The type.
        found: i64,
    },
}

/// What this module's functions return.
pub type Result<T, E = ReflogError> = std::result::Result<T, E>;

/// A reference log, open for reading.
#[derive(Debug)]
pub struct Reflog {
    db: Database,
    fqrn: String,
}

impl Reflog {
    /// Opens a log that nobody changes meanwhile.
    ///
    /// # Errors
    /// [`ReflogError`] when the file is not one of a known schema.
    pub fn open(file: &Path) -> Result<Self> {
        Self::new(Database::open_read(file)?)
    }

    fn new(db: Database) -> Result<Self> {
        db.require("properties", &["key", "value"])?;
        db.schema_revision(&SCHEMAS)?;
        db.require("refs", &["hash", "type", "timestamp"])?;
        Ok(Self {
            fqrn: db.property("fqrn")?.unwrap_or_default(),
            db,
        })
    }

    /// The repository it belongs to.
    #[must_use]
    pub fn fqrn(&self) -> &str {
        &self.fqrn
    }

    /// All references, the oldest first.
    ///
    /// # Errors
    /// [`ReflogError`] when one cannot be read.
    pub fn references(&self) -> Result<Vec<Reference>> {
        self.select(
            "SELECT hash, type, timestamp FROM refs ORDER BY timestamp, rowid",
            [],
        )
    }

    /// The reference to an object of a kind.
    ///
    /// # Errors
    /// [`ReflogError`] when it cannot be read.
    pub fn find(&self, kind: RefKind, hash: &Hash) -> Result<Option<Reference>> {
        const SQL: &str = "SELECT hash, type, timestamp FROM refs WHERE hash = ?1";
        let found = self.select(SQL, [hash.to_string()])?.pop();
        Ok(found.filter(|reference| reference.kind == kind))
    }

    fn select(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Reference>> {
        let mut references = Vec::new();
        self.db.for_each(("refs", sql), params, |row| {
            references.push(self.read(row)?);
            Ok::<_, ReflogError>(())
        })?;
        Ok(references)
    }

    fn read(&self, row: &rusqlite::Row<'_>) -> Result<Reference> {
        let file = || self.db.file().to_path_buf();
        let hash = self.db.text(("refs", "hash"), row, 0)?;
        let hash: Hash = hash.parse().map_err(|source| ReflogError::BadHash {
            file: file(),
            source,
        })?;
        let found = self.db.int(("refs", "type"), row, 1)?;
        let kind = usize::try_from(found)
            .ok()
            .and_then(|at| RefKind::ALL.get(at).copied());
        let kind = kind.ok_or_else(|| ReflogError::BadKind {
            file: file(),
            hash,
            found,
        })?;
        let timestamp = self.db.int(("refs", "timestamp"), row, 2)?;
        Ok(Reference {
            hash,
            kind,
            timestamp,
        })
    }

    /// Reads everything there is, and the structure of every page.
    ///
    /// # Errors
    /// [`ReflogError`], the first fault.
    pub fn verify(&self) -> Result<()> {
        self.db.quick_check()?;
        self.references()?;
        Ok(())
    }
}

/// A reference log that is being changed. It reads like a [`Reflog`], and sees the changes.
#[derive(Debug)]
pub struct ReflogWriter {
    reflog: Reflog,
}

impl Deref for ReflogWriter {
    type Target = Reflog;

    fn deref(&self) -> &Reflog {
        &self.reflog
    }
}

impl ReflogWriter {
    /// Begins an empty one in a file that does not exist yet.
    ///
    /// # Errors
    /// [`ReflogError`] when the file exists or cannot be written.
    pub fn create(file: &Path, fqrn: &str) -> Result<Self> {
        let db = Database::create(file)?;
        db.batch("create the tables", TABLES)?;
        db.set_property("schema", b"1.0")?;
        db.set_property("schema_revision", b"0")?;
        db.set_property("fqrn", fqrn.as_bytes())?;
        Ok(Self {
            reflog: Reflog::new(db)?,
        })
    }

    /// Goes on with a private copy.
    ///
    /// # Errors
    /// [`ReflogError`] when the file is not one of a known schema.
    pub fn open_update(file: &Path) -> Result<Self> {
        Ok(Self {
            reflog: Reflog::new(Database::open_update(file)?)?,
        })
    }

    /// Records an object; one that is there already gets the new time.
    ///
    /// # Errors
    /// [`ReflogError`] when it cannot be written.
    pub fn add(&mut self, reference: &Reference) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO refs (hash, type, timestamp) VALUES (?1, ?2, ?3)";
        let hash = reference.hash.to_string();
        let values = params![hash, reference.kind as i64, reference.timestamp];
        self.db.execute("record a reference", SQL, values)?;
        Ok(())
    }

    /// Forgets an object; false if it was not there.
    ///
    /// # Errors
    /// [`ReflogError`] when it cannot be written.
    pub fn remove(&mut self, hash: &Hash) -> Result<bool> {
        const SQL: &str = "DELETE FROM refs WHERE hash = ?1";
        Ok(self
            .db
            .execute("forget a reference", SQL, [hash.to_string()])?
            > 0)
    }

    /// Commits and closes; the file's length in bytes.
    ///
    /// # Errors
    /// [`ReflogError`] when it cannot be written.
    pub fn finish(self) -> Result<u64> {
        let db = self.reflog.db;
        db.commit()?;
        let file = db.close()?;
        Ok(sqlite::file_bytes(&file)?)
    }
}
