//! Reading a catalog.
//!
//! Revisions 0 to 7 of schema 2.5 are read alike: what an older one lacks is NULL or zero. Nothing
//! is cached here but prepared statements and properties.

use std::path::Path;

use rusqlite::types::ValueRef;

use crate::catalog::row::{RawChunk, RawRow, Row, RowProblem};
use crate::catalog::schema::Shape;
use crate::catalog::{CatalogError, NestedRef, Result};
use crate::hash::{DIGEST_LEN, Hash};
use crate::path::{Name, PathHash, RepoPath};
use crate::sqlite::{Database, DatabaseError, describe};

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

/// The statements that name all columns, made for the shape of the file.
#[derive(Debug)]
struct Select {
    by_path: String,
    by_parent: String,
    all: String,
    nested: String,
    nested_at: String,
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
                let hash = match column(&self.db, row, 2)? {
                    ValueRef::Blob(b) => <[u8; DIGEST_LEN]>::try_from(b).ok(),
                    _ => None,
                };
                let Some(hash) = hash else {
                    let found = describe(column(&self.db, row, 2)?);
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
        let path = crate::sqlite::Text(path.as_bytes());
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
        let path = match column(&self.db, row, 0)? {
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
        let size = match column(&self.db, row, 2)? {
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
        let (path, name) = (raw.path, shorten(&raw.name));
        raw.interpret(&chunks)
            .map_err(|problem| self.bad_row(path, name, problem))
    }

    fn raw_row(&self, row: &rusqlite::Row<'_>) -> Result<RawRow> {
        RawColumns { db: &self.db, row }
            .read()
            .map_err(|e| match e {
                ColumnError::Database(e) => e.into(),
                ColumnError::Value(problem) => {
                    // as much of the key as can be read, to name the row
                    let int = |at| row.get::<_, i64>(at).unwrap_or_default();
                    let name = row.get_ref(NAME_AT).ok().and_then(|v| v.as_bytes().ok());
                    let name = shorten(name.unwrap_or_default());
                    self.bad_row(PathHash(int(0), int(1)), name, problem)
                }
            })
    }

    pub(super) fn bad_row(
        &self,
        path: PathHash,
        name: Vec<u8>,
        source: RowProblem,
    ) -> CatalogError {
        let (file, name) = (self.file().to_path_buf(), shorten(&name));
        CatalogError::BadRow {
            file,
            path,
            name,
            source,
        }
    }
}

fn shorten(name: &[u8]) -> Vec<u8> {
    name[..name.len().min(crate::path::NAME_MAX)].to_vec()
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

impl Select {
    fn new(shape: Shape) -> Self {
        let mtimens = if shape.mtimens { "mtimens" } else { "NULL" };
        let xattr = if shape.xattr { "xattr" } else { "NULL" };
        let columns = format!(
            "SELECT md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, \
             {mtimens}, flags, name, symlink, uid, gid, {xattr} FROM catalog"
        );
        let size = if shape.nested_size { "size" } else { "NULL" };
        let nested = format!("SELECT path, sha1, {size} FROM nested_catalogs");
        Self {
            by_path: format!("{columns} WHERE md5path_1 = ?1 AND md5path_2 = ?2"),
            by_parent: format!("{columns} WHERE parent_1 = ?1 AND parent_2 = ?2"),
            all: format!("{columns} ORDER BY rowid"),
            nested_at: format!("{nested} WHERE path = ?1"),
            nested,
        }
    }
}

const NAME_AT: usize = 11;

/// One row of [`Select`], column by column.
struct RawColumns<'a> {
    db: &'a Database,
    row: &'a rusqlite::Row<'a>,
}

enum ColumnError {
    Database(DatabaseError),
    Value(RowProblem),
}

impl RawColumns<'_> {
    fn read(&self) -> Result<RawRow, ColumnError> {
        Ok(RawRow {
            path: PathHash(self.int(0, "md5path_1")?, self.int(1, "md5path_2")?),
            parent: PathHash(self.int(2, "parent_1")?, self.int(3, "parent_2")?),
            hardlinks: self.int(4, "hardlinks")?,
            hash: match self.bytes(5, "hash")? {
                None | Some([]) => None,
                Some(bytes) => match bytes.try_into() {
                    Ok(digest) => Some(digest),
                    Err(_) => return Err(self.bad(5, "hash")),
                },
            },
            size: self.int(6, "size")?,
            mode: self.word(7, "mode")?,
            mtime: self.int(8, "mtime")?,
            mtimens: match self.value(9)? {
                ValueRef::Null => None,
                _ => Some(self.int(9, "mtimens")?),
            },
            flags: self.word(10, "flags")?,
            name: self
                .bytes(NAME_AT, "name")?
                .ok_or_else(|| self.bad(NAME_AT, "name"))?
                .to_vec(),
            symlink: self.bytes(12, "symlink")?.unwrap_or_default().to_vec(),
            uid: self.word(13, "uid")?,
            gid: self.word(14, "gid")?,
            xattr: self.bytes(15, "xattr")?.map(<[u8]>::to_vec),
        })
    }

    fn value(&self, at: usize) -> Result<ValueRef<'_>, ColumnError> {
        column(self.db, self.row, at).map_err(ColumnError::Database)
    }

    fn int(&self, at: usize, name: &'static str) -> Result<i64, ColumnError> {
        match self.value(at)? {
            ValueRef::Integer(n) => Ok(n),
            _ => Err(self.bad(at, name)),
        }
    }

    fn word(&self, at: usize, name: &'static str) -> Result<u32, ColumnError> {
        u32::try_from(self.int(at, name)?).map_err(|_| self.bad(at, name))
    }

    fn bytes(&self, at: usize, name: &'static str) -> Result<Option<&[u8]>, ColumnError> {
        match self.value(at)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes)),
            _ => Err(self.bad(at, name)),
        }
    }

    fn bad(&self, at: usize, column: &'static str) -> ColumnError {
        let found = self.row.get_ref(at).map(describe).unwrap_or_default();
        ColumnError::Value(RowProblem::Column { column, found })
    }
}

fn column<'a>(
    db: &Database,
    row: &'a rusqlite::Row<'_>,
    at: usize,
) -> Result<ValueRef<'a>, DatabaseError> {
    row.get_ref(at).map_err(|e| db.sql("read rows", e))
}
