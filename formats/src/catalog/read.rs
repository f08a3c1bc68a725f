//! Reading a catalog.
//!
//! Revisions 0 to 7 of schema 2.5 are read alike: what an older one lacks is NULL or zero. Nothing
//! is cached here but prepared statements and properties.

use std::path::Path;

use rusqlite::types::ValueRef;

use crate::catalog::columns::{ColumnError, Select, read_columns, short_name};
use crate::catalog::row::{RawChunk, RawRow, Row, RowProblem};
use crate::catalog::schema::Shape;
use crate::catalog::{CatalogError, NestedRef, Result};
use crate::hash::{DIGEST_LEN, Hash};
use crate::path::{Name, PathHash, RepoPath};
use crate::sqlite::{Database, DatabaseError, Text, describe};

const CHUNKS_OF: &str = "SELECT offset, size, hash FROM chunks \
     WHERE md5path_1 = ?1 AND md5path_2 = ?2 ORDER BY offset";
const NESTED: &str = "nested_catalogs";
const BOUND: &str = "bind_mountpoints";

/// A catalog, open for reading. It may be sent to another thread, not shared between threads.
#[derive(Debug)]
pub struct Catalog {
    pub(super) db: Database,
    pub(super) shape: Shape,
    pub(super) properties: Properties,
    select: Select,
}

/// The properties, as they were when the file was opened.
#[derive(Debug)]
pub(super) struct Properties {
    pub root_prefix: RepoPath,
    pub revision: u64,
    pub previous_revision: Option<Hash>,
    pub last_modified: i64,
    pub ttl: Option<u64>,
}

impl Catalog {
    /// Opens a catalog that nobody changes meanwhile.
    ///
    /// # Errors
    /// [`CatalogError`] when the file is not a catalog of a known schema.
    pub fn open(file: &Path) -> Result<Self> {
        let db = Database::open_read(file)?;
        let shape = Shape::read(&db)?;
        Self::new(db, shape)
    }

    pub(super) fn new(db: Database, shape: Shape) -> Result<Self> {
        let properties = Properties::read(&db)?;
        Ok(Self {
            db,
            shape,
            properties,
            select: Select::new(shape),
        })
    }

    /// The directory at which it begins.
    #[must_use]
    pub fn root_prefix(&self) -> &RepoPath {
        &self.properties.root_prefix
    }

    /// How often it was committed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.properties.revision
    }

    /// The catalog that it replaced; none if it replaced none.
    #[must_use]
    pub fn previous_revision(&self) -> Option<Hash> {
        self.properties
            .previous_revision
            .filter(|hash| !hash.is_null())
    }

    /// When it was committed, in seconds since 1970.
    #[must_use]
    pub fn last_modified(&self) -> i64 {
        self.properties.last_modified
    }

    /// How long clients may go without asking for a newer revision, in seconds; in the root catalog.
    #[must_use]
    pub fn ttl(&self) -> Option<u64> {
        self.properties.ttl
    }

    /// Revision of schema 2.5.
    #[must_use]
    pub fn schema_revision(&self) -> u32 {
        self.shape.revision
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.db.file()
    }

    /// Any property's text.
    ///
    /// # Errors
    /// [`CatalogError`] when it cannot be read.
    pub fn property(&self, key: &'static str) -> Result<Option<String>> {
        Ok(self.db.property(key)?)
    }

    /// The row of a path.
    ///
    /// # Errors
    /// [`CatalogError`] when it cannot be read.
    pub fn lookup(&self, path: &PathHash) -> Result<Option<Row>> {
        let query = ("catalog", self.select.by_path.as_str());
        let mut found = None;
        self.db.for_each(query, (path.0, path.1), |row| {
            found = Some(self.raw_row(row)?);
            Ok::<_, CatalogError>(())
        })?;
        found.map(|raw| self.interpret(raw)).transpose()
    }

    /// The row of a path, if its name belongs to the path too.
    ///
    /// # Errors
    /// [`CatalogError`] when it cannot be read or contradicts itself.
    pub fn lookup_path(&self, path: &RepoPath) -> Result<Option<Row>> {
        let Some(row) = self.lookup(&path.path_hash())? else {
            return Ok(None);
        };
        let named = match path.name() {
            Some(name) => name.as_bytes() == row.name,
            None => row.name.is_empty(),
        };
        if named {
            return Ok(Some(row));
        }
        Err(self.bad_row(row.path, row.name, RowProblem::Misplaced(path.clone())))
    }

    /// The rows that name a directory as their parent, by name in byte order.
    ///
    /// # Errors
    /// [`CatalogError`] when one of them cannot be read.
    pub fn children(&self, parent: &PathHash) -> Result<Vec<Row>> {
        let query = ("catalog", self.select.by_parent.as_str());
        let mut raw = Vec::new();
        self.db.for_each(query, (parent.0, parent.1), |row| {
            raw.push(self.raw_row(row)?);
            Ok::<_, CatalogError>(())
        })?;
        let mut rows = raw
            .into_iter()
            .map(|raw| self.interpret(raw))
            .collect::<Result<Vec<_>>>()?;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// As [`children`](Self::children), and checks that each row's path is the directory's and its
    /// name: who walks a tree with it never walks in a circle.
    ///
    /// # Errors
    /// [`CatalogError`] when one of them cannot be read or lies elsewhere.
    pub fn list(&self, dir: &RepoPath) -> Result<Vec<Row>> {
        let rows = self.children(&dir.path_hash())?;
        for row in &rows {
            let name = Name::new(&row.name).map_err(RowProblem::Name);
            let problem = match name.map(|name| dir.join(&name)) {
                Ok(path) if path.path_hash() == row.path => continue,
                Ok(path) => RowProblem::Misplaced(path),
                Err(problem) => problem,
            };
            return Err(self.bad_row(row.path, row.name.clone(), problem));
        }
        Ok(rows)
    }

    /// Hands every row to `each`, in the order in which they were inserted, until one fails.
    ///
    /// # Errors
    /// [`CatalogError`] when a row cannot be read, and what `each` returns.
    pub fn for_each_row(&self, each: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.for_each_raw_row(&mut |raw| each(self.interpret(raw)?))
    }

    /// As [`for_each_row`](Self::for_each_row), without judging the columns: for checks that name
    /// every fault. [`raw_chunks`](Self::raw_chunks) and [`RawRow::interpret`] make a row of it.
    ///
    /// # Errors
    /// [`CatalogError`] when a column is of the wrong type, and what `each` returns.
    pub fn for_each_raw_row(&self, each: &mut dyn FnMut(RawRow) -> Result<()>) -> Result<()> {
        let query = ("catalog", self.select.all.as_str());
        self.db.for_each(query, [], |row| each(self.raw_row(row)?))
    }

    /// The chunk rows of a path, offsets ascending, unjudged.
    ///
    /// # Errors
    /// [`CatalogError`] when a column is of the wrong type.
    pub fn raw_chunks(&self, path: &PathHash) -> Result<Vec<RawChunk>> {
        let mut chunks = Vec::new();
        self.db
            .for_each(("chunks", CHUNKS_OF), (path.0, path.1), |row| {
                let hash = match self.db.value(row, 2)? {
                    ValueRef::Blob(b) => <[u8; DIGEST_LEN]>::try_from(b).ok(),
                    _ => None,
                };
                let Some(hash) = hash else {
                    let found = describe(self.db.value(row, 2)?);
                    return Err(self.db.bad_value("chunks", "hash", &found));
                };
                let offset = self.db.int(("chunks", "offset"), row, 0)?;
                let size = self.db.int(("chunks", "size"), row, 1)?;
                chunks.push(RawChunk { offset, size, hash });
                Ok::<_, DatabaseError>(())
            })?;
        Ok(chunks)
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// [`CatalogError`] when they cannot be counted.
    pub fn row_count(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM (SELECT 1 FROM catalog LIMIT ?1)")
    }

    /// How many rows of `chunks` there are.
    ///
    /// # Errors
    /// [`CatalogError`] when they cannot be counted.
    pub fn chunk_count(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM (SELECT 1 FROM chunks LIMIT ?1)")
    }

    fn count(&self, sql: &str) -> Result<u64> {
        // bounded, should the pages be linked in circles
        let limit = self.db.row_limit()?.cast_signed();
        Ok(self.db.integer("count rows", sql, [limit])?.unsigned_abs())
    }

    /// The nested catalogs that it refers to, by path.
    ///
    /// # Errors
    /// [`CatalogError`] when a reference is malformed or does not lie below this catalog.
    pub fn nested(&self) -> Result<Vec<NestedRef>> {
        let mut found = Vec::new();
        self.db.for_each((NESTED, &self.select.nested), [], |row| {
            found.push(self.nested_ref(NESTED, row)?);
            Ok::<_, CatalogError>(())
        })?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// The nested catalog that begins at a path.
    ///
    /// # Errors
    /// As [`nested`](Self::nested).
    pub fn nested_at(&self, path: &RepoPath) -> Result<Option<NestedRef>> {
        let query = (NESTED, self.select.nested_at.as_str());
        let mut found = None;
        let path = Text(path.as_bytes());
        self.db.for_each(query, [path], |row| {
            found = Some(self.nested_ref(NESTED, row)?);
            Ok::<_, CatalogError>(())
        })?;
        Ok(found)
    }

    /// The catalogs that are bound in, by path.
    ///
    /// # Errors
    /// As [`nested`](Self::nested).
    pub fn bind_mountpoints(&self) -> Result<Vec<NestedRef>> {
        const SQL: &str = "SELECT path, sha1, size FROM bind_mountpoints";
        let mut found = Vec::new();
        if self.shape.bind_mountpoints {
            self.db.for_each((BOUND, SQL), [], |row| {
                found.push(self.nested_ref(BOUND, row)?);
                Ok::<_, CatalogError>(())
            })?;
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Reads everything there is, and the structure of every page.
    ///
    /// # Errors
    /// [`CatalogError`], the first fault.
    pub fn verify(&self) -> Result<()> {
        self.db.quick_check()?;
        self.counters()?;
        self.nested()?;
        self.bind_mountpoints()?;
        self.for_each_row(&mut |_| Ok(()))
    }

    fn nested_ref(&self, table: &'static str, row: &rusqlite::Row<'_>) -> Result<NestedRef> {
        let path = match self.db.value(row, 0)? {
            ValueRef::Text(t) => t,
            other => return Err(self.db.bad_value(table, "path", &describe(other)).into()),
        };
        let bad = |what| CatalogError::BadNested {
            file: self.file().to_path_buf(),
            at: path[..path.len().min(80)].escape_ascii().to_string(),
            what,
        };
        let parsed = RepoPath::new(path).map_err(|_| bad("is not a path"))?;
        // strictly below: no chain of references leads back
        if parsed == self.properties.root_prefix || !parsed.is_within(&self.properties.root_prefix)
        {
            return Err(bad("does not lie below this catalog"));
        }
        let hash = self.db.text((table, "sha1"), row, 1)?;
        let hash = hash.parse().map_err(|_| bad("has no valid hash"))?;
        let size = match self.db.value(row, 2)? {
            ValueRef::Null => 0,
            ValueRef::Integer(n) => u64::try_from(n).map_err(|_| bad("has no valid size"))?,
            other => return Err(self.db.bad_value(table, "size", &describe(other)).into()),
        };
        Ok(NestedRef {
            path: parsed,
            hash,
            size,
        })
    }

    fn interpret(&self, raw: RawRow) -> Result<Row> {
        let chunks = match raw.is_chunked() {
            true => self.raw_chunks(&raw.path)?,
            false => Vec::new(),
        };
        let (path, name) = (raw.path, short_name(&raw.name));
        raw.interpret(&chunks)
            .map_err(|problem| self.bad_row(path, name, problem))
    }

    fn raw_row(&self, row: &rusqlite::Row<'_>) -> Result<RawRow> {
        read_columns(&self.db, row).map_err(|e| match e {
            ColumnError::Database(e) => e.into(),
            ColumnError::Value {
                path,
                name,
                problem,
            } => self.bad_row(path, name, problem),
        })
    }

    pub(super) fn bad_row(
        &self,
        path: PathHash,
        name: Vec<u8>,
        source: RowProblem,
    ) -> CatalogError {
        let (file, name) = (self.file().to_path_buf(), short_name(&name));
        CatalogError::BadRow {
            file,
            path,
            name,
            source,
        }
    }
}

impl Properties {
    pub fn read(db: &Database) -> Result<Self, DatabaseError> {
        let root_prefix = db.property_bytes("root_prefix")?.unwrap_or_default();
        let root_prefix = RepoPath::new(&root_prefix).map_err(|_| {
            db.bad_value(
                "properties",
                "root_prefix",
                &root_prefix.escape_ascii().to_string(),
            )
        })?;
        Ok(Self {
            root_prefix,
            revision: db.parsed_property("revision")?.unwrap_or(0),
            previous_revision: db.parsed_property("previous_revision")?,
            last_modified: db.parsed_property("last_modified")?.unwrap_or(0),
            ttl: db.parsed_property("TTL")?,
        })
    }
}
