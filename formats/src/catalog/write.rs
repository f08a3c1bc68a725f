//! Writing a catalog: a fresh one, or a private copy of a published one.
//!
//! One transaction from opening to [`CatalogWriter::finish`]; a writer that is dropped earlier
//! leaves a file that is of no use to anyone. Rows keep their rowid when they change, since clients
//! make inodes of it. The writer writes what it is told: link counts, counters and the rows of
//! directories above are the caller's.

use std::ops::Deref;
use std::path::Path;

use rusqlite::params;

use crate::catalog::counters::Counters;
use crate::catalog::read::Catalog;
use crate::catalog::row::{RawChunk, RawRow, Row};
use crate::catalog::schema::{self, Shape};
use crate::catalog::{NestedRef, Result};
use crate::hash::Hash;
use crate::path::{PathHash, RepoPath};
use crate::sqlite::{self, Database, Text};

/// A file is compacted when more than this part of its pages is free [CVMFS
/// `catalog_rw.cc:VacuumDatabaseIfNecessary`].
const MAX_FREE_PAGES_PERCENT: i64 = 20;
/// And its rows are numbered afresh when more than this part of the numbers is unused.
const MAX_UNUSED_ROWIDS_PERCENT: i64 = 25;

const PUT_ROW: &str = "INSERT INTO catalog (md5path_1, md5path_2, parent_1, parent_2, hardlinks, \
     hash, size, mode, mtime, mtimens, flags, name, symlink, uid, gid, xattr) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
     ON CONFLICT (md5path_1, md5path_2) DO UPDATE SET parent_1 = ?3, parent_2 = ?4, \
     hardlinks = ?5, hash = ?6, size = ?7, mode = ?8, mtime = ?9, mtimens = ?10, flags = ?11, \
     name = ?12, symlink = ?13, uid = ?14, gid = ?15, xattr = ?16";
const PUT_CHUNK: &str =
    "INSERT INTO chunks (md5path_1, md5path_2, offset, size, hash) VALUES (?1, ?2, ?3, ?4, ?5)";
const REMOVE_ROW: &str = "DELETE FROM catalog WHERE md5path_1 = ?1 AND md5path_2 = ?2";
const REMOVE_CHUNKS: &str = "DELETE FROM chunks WHERE md5path_1 = ?1 AND md5path_2 = ?2";
const PUT_NESTED: &str = "INSERT INTO nested_catalogs (path, sha1, size) VALUES (?1, ?2, ?3) \
     ON CONFLICT (path) DO UPDATE SET sha1 = ?2, size = ?3";
const PUT_BIND: &str = "INSERT INTO bind_mountpoints (path, sha1, size) VALUES (?1, ?2, ?3) \
     ON CONFLICT (path) DO UPDATE SET sha1 = ?2, size = ?3";
const PUT_COUNTER: &str = "INSERT INTO statistics (counter, value) VALUES (?1, ?2) \
     ON CONFLICT (counter) DO UPDATE SET value = ?2";

/// What a catalog is stamped with when it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// One more than that of the catalog it replaces; 1 for a new nested one.
    pub revision: u64,
    /// The catalog it replaces; [`Hash::null`] for a new nested one, none for a repository's first.
    pub previous: Option<Hash>,
    /// Now, in seconds since 1970.
    pub last_modified: i64,
    /// For the root catalog.
    pub ttl: Option<u64>,
}

/// A catalog that is written, and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The file's length in bytes, as manifests and parent catalogs record it.
    pub size: u64,
}

/// A catalog that is being written. It reads like a [`Catalog`], and sees what was written; its
/// properties are those the file had when it was opened.
#[derive(Debug)]
pub struct CatalogWriter {
    catalog: Catalog,
    /// False while the table `chunks` is certainly empty.
    has_chunks: bool,
}

impl Deref for CatalogWriter {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

impl CatalogWriter {
    /// Begins an empty catalog in a file that does not exist yet.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when the file exists or cannot be written.
    pub fn create(file: &Path, root_prefix: &RepoPath) -> Result<Self> {
        let db = Database::create(file)?;
        schema::create(&db)?;
        db.set_property("schema", b"2.5")?;
        db.set_property("schema_revision", schema::REVISION.to_string().as_bytes())?;
        db.set_property("revision", b"0")?;
        if !root_prefix.is_root() {
            db.set_property("root_prefix", root_prefix.as_bytes())?;
        }
        db.set_property("last_modified", b"0")?;
        let shape = Shape::read(&db)?;
        Ok(Self {
            catalog: Catalog::new(db, shape)?,
            has_chunks: false,
        })
    }

    /// Goes on with a private copy of a published catalog, and brings its schema up to date.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when the file is not a catalog of a known
    /// schema.
    pub fn open_update(file: &Path) -> Result<Self> {
        let db = Database::open_update(file)?;
        let shape = Shape::upgrade(&db)?;
        Ok(Self {
            catalog: Catalog::new(db, shape)?,
            has_chunks: true,
        })
    }

    /// Inserts a row and its chunks, or replaces what stands at its path.
    ///
    /// # Errors
    /// [`CatalogError::BadRow`](crate::catalog::CatalogError::BadRow) for what a catalog cannot
    /// hold.
    pub fn put(&mut self, row: &Row) -> Result<()> {
        let bad = |problem| self.bad_row(row.path, row.name.clone(), problem);
        let raw = row.to_raw().map_err(bad)?;
        let chunks = row.raw_chunks().map_err(bad)?;
        self.put_raw(&raw, &chunks)
    }

    /// As [`put`](Self::put), with columns that are taken as they are.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when they cannot be written.
    pub fn put_raw(&mut self, raw: &RawRow, chunks: &[RawChunk]) -> Result<()> {
        const DOING: &str = "write a row";
        self.db.execute(
            DOING,
            PUT_ROW,
            params![
                raw.path.0,
                raw.path.1,
                raw.parent.0,
                raw.parent.1,
                raw.hardlinks,
                raw.hash.as_ref().map(<[u8; 20]>::as_slice),
                raw.size,
                raw.mode,
                raw.mtime,
                raw.mtimens,
                raw.flags,
                Text(&raw.name),
                Text(&raw.symlink),
                raw.uid,
                raw.gid,
                raw.xattr,
            ],
        )?;
        self.remove_chunks(&raw.path)?;
        self.has_chunks |= !chunks.is_empty();
        for chunk in chunks {
            let hash = chunk.hash.as_slice();
            let values = params![raw.path.0, raw.path.1, chunk.offset, chunk.size, hash];
            self.db.execute(DOING, PUT_CHUNK, values)?;
        }
        Ok(())
    }

    /// Removes the row of a path and its chunks; false if there is none.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn remove(&mut self, path: &PathHash) -> Result<bool> {
        let removed = self
            .db
            .execute("remove a row", REMOVE_ROW, (path.0, path.1))?;
        self.remove_chunks(path)?;
        Ok(removed > 0)
    }

    fn remove_chunks(&mut self, path: &PathHash) -> Result<()> {
        if self.has_chunks {
            self.db
                .execute("remove chunks", REMOVE_CHUNKS, (path.0, path.1))?;
        }
        Ok(())
    }

    /// Inserts or replaces the reference to a nested catalog.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn put_nested(&mut self, nested: &NestedRef) -> Result<()> {
        self.put_ref(PUT_NESTED, nested)
    }

    /// Removes the reference to a nested catalog; false if there is none.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn remove_nested(&mut self, path: &RepoPath) -> Result<bool> {
        self.remove_ref("DELETE FROM nested_catalogs WHERE path = ?1", path)
    }

    /// Inserts or replaces a catalog that is bound in.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn put_bind_mountpoint(&mut self, bound: &NestedRef) -> Result<()> {
        self.put_ref(PUT_BIND, bound)
    }

    /// Removes a catalog that is bound in; false if there is none.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn remove_bind_mountpoint(&mut self, path: &RepoPath) -> Result<bool> {
        self.remove_ref("DELETE FROM bind_mountpoints WHERE path = ?1", path)
    }

    fn put_ref(&self, sql: &str, nested: &NestedRef) -> Result<()> {
        let (path, hash) = (Text(nested.path.as_bytes()), nested.hash.to_string());
        let size = nested.size.cast_signed();
        self.db
            .execute("write a catalog reference", sql, params![path, hash, size])?;
        Ok(())
    }

    fn remove_ref(&self, sql: &str, path: &RepoPath) -> Result<bool> {
        let path = Text(path.as_bytes());
        Ok(self.db.execute("remove a catalog reference", sql, [path])? > 0)
    }

    /// The highest link group in use; 0 if there is none.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when the rows cannot be read.
    pub fn max_link_group(&self) -> Result<u32> {
        const SQL: &str = "SELECT max(hardlinks) FROM (SELECT hardlinks FROM catalog LIMIT ?1)";
        let limit = self.db.row_limit()?.cast_signed();
        let hardlinks = self
            .db
            .integer("find the highest link group", SQL, [limit])?;
        Ok((hardlinks >> 32).try_into().unwrap_or(0))
    }

    /// Sets a property. The stamp of [`finish`](Self::finish) sets its own.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn set_property(&mut self, key: &str, value: &str) -> Result<()> {
        Ok(self.db.set_property(key, value.as_bytes())?)
    }

    /// Sets all 24 counters.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when they cannot be written.
    pub fn set_counters(&mut self, counters: &Counters) -> Result<()> {
        for (prefix, counts) in [("self_", counters.self_), ("subtree_", counters.subtree)] {
            for (name, value) in counts.by_name() {
                let counter = format!("{prefix}{name}");
                self.db
                    .execute("write the counters", PUT_COUNTER, params![counter, value])?;
            }
        }
        Ok(())
    }

    /// Stamps, commits, compacts where it pays, and closes the catalog. The counters are to be set
    /// before: by them it is guessed whether compacting pays.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when it cannot be written.
    pub fn finish(self, stamp: Stamp) -> Result<Finished> {
        self.write_stamp(&stamp)?;
        let compact = self.number_rows_afresh()?;
        let db = self.catalog.db;
        db.commit()?;
        let file = db.file().to_path_buf();
        if compact || free_pages_are_many(&db)? {
            db.quick_check()?;
            db.compact()?;
        } else {
            db.close()?;
        }
        Ok(Finished {
            size: sqlite::file_bytes(&file)?,
        })
    }

    fn write_stamp(&self, stamp: &Stamp) -> Result<()> {
        if let Some(ttl) = stamp.ttl
            && self.db.parsed_property("TTL")? != Some(ttl)
        {
            self.db.set_property("TTL", ttl.to_string().as_bytes())?;
        }
        let last_modified = stamp.last_modified.to_string();
        if stamp.revision == 0 {
            // a repository's first catalog was not committed, only made: its rows stay in place
            const SQL: &str = "UPDATE properties SET value = ?2 WHERE key = ?1";
            self.db
                .execute("set a property", SQL, ["last_modified", &last_modified])?;
        } else {
            self.db
                .set_property("last_modified", last_modified.as_bytes())?;
            self.db
                .set_property("revision", stamp.revision.to_string().as_bytes())?;
        }
        if let Some(previous) = stamp.previous {
            self.db
                .set_property("previous_revision", previous.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// Numbers the rows from 1 without gaps, in their order, if there are many gaps.
    fn number_rows_afresh(&self) -> Result<bool> {
        /// Rows renumbered at a time, in rows: 8 KiB of rowids.
        const BATCH: i64 = 1024;
        let db = &self.db;
        let highest = db.integer("renumber", "SELECT max(rowid) FROM catalog", [])?;
        // counting reads the whole file, so the counters are asked first
        let counted = self.counters()?.self_.entries();
        if !unused_are_many(highest, counted) {
            return Ok(false);
        }
        let rows = i64::try_from(self.row_count()?).unwrap_or(i64::MAX);
        if !unused_are_many(highest, rows) {
            return Ok(false);
        }
        // the pages of a damaged file can be read in circles
        db.quick_check()?;
        let (mut last, mut next) = (i64::MIN, 1);
        loop {
            const SQL: &str = "SELECT rowid FROM catalog WHERE rowid > ?1 ORDER BY rowid LIMIT ?2";
            let mut batch = Vec::new();
            db.for_each(("catalog", SQL), [last, BATCH], |row| {
                batch.push(db.int(("catalog", "rowid"), row, 0)?);
                Ok::<_, sqlite::DatabaseError>(())
            })?;
            let Some(end) = batch.last() else {
                return Ok(true);
            };
            last = *end;
            for rowid in batch {
                if rowid != next {
                    const MOVE: &str = "UPDATE catalog SET rowid = ?2 WHERE rowid = ?1";
                    db.execute("renumber", MOVE, [rowid, next])?;
                }
                next += 1;
            }
        }
    }
}

fn unused_are_many(highest: i64, rows: i64) -> bool {
    let unused = highest.saturating_sub(rows);
    i128::from(unused) * 100 > i128::from(highest) * i128::from(MAX_UNUSED_ROWIDS_PERCENT)
}

fn free_pages_are_many(db: &Database) -> Result<bool> {
    let free = db.integer("measure", "PRAGMA freelist_count", [])?;
    let pages = db.integer("measure", "PRAGMA page_count", [])?;
    Ok(free * 100 > pages * MAX_FREE_PAGES_PERCENT)
}
