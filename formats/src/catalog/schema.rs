//! The tables of a catalog: schema 2.5, revision 7, and what earlier revisions lack.
//!
//! The texts below are part of the format: SQLite keeps them in the file, and CVMFS's own tools
//! copy rows between catalogs by position. Order of creation: properties, catalog, index, chunks,
//! nested_catalogs, bind_mountpoints, statistics [CVMFS `catalog_sql.cc:CreateEmptyDatabase`].
//!
//! | revision | brought |
//! | --- | --- |
//! | 1 | `nested_catalogs.size` |
//! | 2 | `catalog.xattr`, counters `xattr` |
//! | 3 | counters `external`, `external_file_size` |
//! | 4 | `bind_mountpoints` |
//! | 5 | counters `special` |
//! | 6 | nothing (the direct I/O flag) |
//! | 7 | `catalog.mtimens` |

use crate::catalog::counters;
use crate::sqlite::{Database, Result};

/// The revision that is written.
pub(crate) const REVISION: u32 = 7;
/// What can be read. 2.4 differs in nothing that matters here.
const READABLE: [f64; 2] = [2.5, 2.4];
/// What can be written to, after an upgrade of its revision.
const WRITABLE: [f64; 1] = [2.5];

const BIND_MOUNTPOINTS: &str = "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER, \
     CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));";

const CREATE: &str = "\
CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, \
hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, \
flags INTEGER, name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB, \
\x20CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, \
\x20hash BLOB, \
\x20CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size), \
\x20FOREIGN KEY (md5path_1, md5path_2) REFERENCES \
\x20  catalog(md5path_1, md5path_2));
CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER, \
CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));";

const STATISTICS: &str = "CREATE TABLE statistics (counter TEXT, value INTEGER, \
     CONSTRAINT pk_statistics PRIMARY KEY (counter));";

/// What a file has, of what came with later revisions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub revision: u32,
    pub xattr: bool,
    pub mtimens: bool,
    pub nested_size: bool,
    pub bind_mountpoints: bool,
}

impl Shape {
    /// Looks at a catalog, and checks that it is one.
    pub fn read(db: &Database) -> Result<Self> {
        Self::of(db, &READABLE)
    }

    /// As [`read`](Self::read), for a file that is to be changed: brings it to [`REVISION`].
    pub fn upgrade(db: &Database) -> Result<Self> {
        let shape = Self::of(db, &WRITABLE)?;
        if shape.revision >= REVISION {
            return Ok(shape);
        }
        const DOING: &str = "upgrade the schema";
        if !shape.nested_size {
            db.batch(DOING, "ALTER TABLE nested_catalogs ADD size INTEGER;")?;
        }
        if !shape.xattr {
            db.batch(DOING, "ALTER TABLE catalog ADD xattr BLOB;")?;
        }
        if !shape.bind_mountpoints {
            db.batch(DOING, BIND_MOUNTPOINTS)?;
        }
        if !shape.mtimens {
            db.batch(DOING, "ALTER TABLE catalog ADD mtimens INTEGER;")?;
        }
        insert_counters(db)?;
        db.set_property("schema_revision", REVISION.to_string().as_bytes())?;
        Self::of(db, &WRITABLE)
    }

    fn of(db: &Database, supported: &[f64]) -> Result<Self> {
        db.require("properties", &["key", "value"])?;
        let revision = db.schema_revision(supported)?;
        db.require(
            "catalog",
            &[
                "md5path_1",
                "md5path_2",
                "parent_1",
                "parent_2",
                "hardlinks",
                "hash",
                "size",
                "mode",
                "mtime",
                "flags",
                "name",
                "symlink",
                "uid",
                "gid",
            ],
        )?;
        db.require(
            "chunks",
            &["md5path_1", "md5path_2", "offset", "size", "hash"],
        )?;
        db.require("nested_catalogs", &["path", "sha1"])?;
        db.require("statistics", &["counter", "value"])?;
        let bind_mountpoints = db.has_table("bind_mountpoints")?;
        if bind_mountpoints || revision >= 4 {
            db.require("bind_mountpoints", &["path", "sha1", "size"])?;
        }
        Ok(Self {
            revision,
            xattr: db.has_column("catalog", "xattr")?,
            mtimens: db.has_column("catalog", "mtimens")?,
            nested_size: db.has_column("nested_catalogs", "size")?,
            bind_mountpoints,
        })
    }
}

/// Makes the tables of an empty file, with all counters at zero.
pub(crate) fn create(db: &Database) -> Result<()> {
    const DOING: &str = "create the tables";
    db.batch(DOING, CREATE)?;
    db.batch(DOING, BIND_MOUNTPOINTS)?;
    db.batch(DOING, STATISTICS)?;
    insert_counters(db)
}

/// Inserts the counters that are not there.
fn insert_counters(db: &Database) -> Result<()> {
    const SQL: &str = "INSERT OR IGNORE INTO statistics (counter, value) VALUES (?1, 0)";
    for prefix in ["self_", "subtree_"] {
        for name in counters::NAMES {
            db.execute("create the counters", SQL, [format!("{prefix}{name}")])?;
        }
    }
    Ok(())
}
