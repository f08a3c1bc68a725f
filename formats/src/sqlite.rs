//! How this crate opens SQLite files: bytes from elsewhere, distrusted.
//!
//! A database is either read, and then never written to, not even its lock bytes; or it is a
//! private file that nobody else opens, and then there is no journal: who fails throws it away.
//! The schema of a file is data of a stranger, so triggers, views, virtual tables and functions in
//! it never run. This module knows no table but `properties`, which all of CVMFS's databases share.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension, params};

/// The page size that CVMFS's SQLite is compiled with; file sizes are recorded, so it is kept.
pub(crate) const PAGE_BYTES: i64 = 1024;

/// Longest string, blob or row, in bytes. The longest honest value is an xattr blob of 255
/// attributes (130,562 bytes).
const MAX_VALUE_BYTES: i32 = 1 << 20;
/// Longest SQL text, in bytes; also of the statements in a file's schema.
const MAX_SQL_BYTES: i32 = 1 << 16;
/// Page cache of a file that is being written, in KiB: rows arrive in the order of paths, keys in
/// that of MD5, so a small cache thrashes.
const WRITE_CACHE_KIB: i64 = 32 << 10;
/// Page cache of a file that is only read, in KiB; many are open at once.
const READ_CACHE_KIB: i64 = 2 << 10;
/// Prepared statements kept for one file; more than any module here has.
const STATEMENTS: usize = 48;
/// Fewest bytes a table row takes in a file: a cell pointer, a header of one byte a column, a
/// rowid. Bounds the rows of a file whose pages are linked twice.
const MIN_ROW_BYTES: u64 = 4;

/// Why a SQLite file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be made, read or measured.
    #[error("cannot use the database file {}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refused: malformed pages, a missing column, a full disk.
    #[error("cannot {doing} in the database {}", file.display())]
    Sql {
        /// Which file.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The bytes are not those of a SQLite database.
    #[error("{} is not a SQLite database", file.display())]
    NotADatabase {
        /// Which file.
        file: PathBuf,
    },
    /// Bytes are missing at the end.
    #[error("the database {} is cut short: {found} of {expected} bytes", file.display())]
    Truncated {
        /// Which file.
        file: PathBuf,
        /// By its header.
        expected: u64,
        /// On disk.
        found: u64,
    },
    /// A table is not there, or it is a view or a virtual table.
    #[error("the database {} has no table {table:?}", file.display())]
    MissingTable {
        /// Which file.
        file: PathBuf,
        /// Which table.
        table: &'static str,
    },
    /// A column is not there.
    #[error("table {table:?} of the database {} has no column {column:?}", file.display())]
    MissingColumn {
        /// Which file.
        file: PathBuf,
        /// Which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// A value is of the wrong type, or outside what the column may hold.
    #[error("the database {} has a bad value in {table}.{column}: {found}", file.display())]
    BadValue {
        /// Which file.
        file: PathBuf,
        /// Which table.
        table: &'static str,
        /// Which column, or which property.
        column: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A schema that this program does not know.
    #[error("the database {} has schema {schema:?} revision {revision}, which is not supported", file.display())]
    UnsupportedSchema {
        /// Which file.
        file: PathBuf,
        /// The schema property.
        schema: String,
        /// The schema revision.
        revision: u32,
    },
    /// More rows than the file can hold: its pages refer to one another in circles.
    #[error("table {table:?} of the database {} has more rows than the file can hold", file.display())]
    TooManyRows {
        /// Which file.
        file: PathBuf,
        /// Which table.
        table: &'static str,
    },
}

/// What this module and its users return.
pub(crate) type Result<T, E = DatabaseError> = std::result::Result<T, E>;

/// An open SQLite file.
#[derive(Debug)]
pub(crate) struct Database {
    conn: Connection,
    file: PathBuf,
}

impl Database {
    /// Opens a file that nobody changes meanwhile, for reading.
    pub fn open_read(file: &Path) -> Result<Self> {
        check_header(file)?;
        // immutable: no locks, no journal that a stranger laid beside the file
        let uri = format!("file:{}?immutable=1", percent_encode(&rooted(file)));
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let db = Self::connect(file, Path::new(&uri), flags)?;
        db.limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        db.pragma("cache_size", -READ_CACHE_KIB)?;
        Ok(db)
    }

    /// Opens a private copy for writing, and begins a transaction.
    pub fn open_update(file: &Path) -> Result<Self> {
        check_header(file)?;
        let db = Self::connect_write(file)?;
        db.begin()?;
        Ok(db)
    }

    /// Makes a private file, which must not exist, and begins a transaction.
    pub fn create(file: &Path) -> Result<Self> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(file)
            .map_err(|source| io_error(file, source))?;
        let db = Self::connect_write(file)?;
        db.pragma("page_size", PAGE_BYTES)?;
        db.begin()?;
        Ok(db)
    }

    fn connect_write(file: &Path) -> Result<Self> {
        let db = Self::connect(file, &rooted(file), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // one for VACUUM INTO
        db.limit(Limit::SQLITE_LIMIT_ATTACHED, 1)?;
        // a file that came in write-ahead mode must leave it before it is locked
        db.pragma("journal_mode", "DELETE")?;
        db.pragma("locking_mode", "EXCLUSIVE")?;
        db.pragma("journal_mode", "OFF")?;
        db.pragma("synchronous", "OFF")?;
        // parents are written with their children, in one transaction, by us alone
        db.pragma("foreign_keys", false)?;
        db.pragma("cache_size", -WRITE_CACHE_KIB)?;
        Ok(db)
    }

    fn connect(file: &Path, name: &Path, flags: OpenFlags) -> Result<Self> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let conn = Connection::open_with_flags(name, flags).map_err(|source| {
            let file = file.to_path_buf();
            DatabaseError::Sql {
                file,
                doing: "open a connection",
                source,
            }
        })?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        let db = Self {
            conn,
            file: file.to_path_buf(),
        };
        db.distrust()?;
        Ok(db)
    }

    /// What a file from elsewhere may not do.
    fn distrust(&self) -> Result<()> {
        for (config, value) in [
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
            (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
            (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        ] {
            self.conn
                .set_db_config(config, value)
                .map_err(|e| self.sql("configure the connection", e))?;
        }
        self.limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
        self.limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)?;
        self.pragma("cell_size_check", true)?;
        self.pragma("mmap_size", 0)
    }

    fn limit(&self, limit: Limit, value: i32) -> Result<()> {
        self.conn
            .set_limit(limit, value)
            .map(|_| ())
            .map_err(|e| self.sql("configure the connection", e))
    }

    fn pragma(&self, name: &str, value: impl rusqlite::ToSql) -> Result<()> {
        // some of these answer with a row, some do not
        self.conn
            .pragma_update_and_check(None, name, value, |_| Ok(()))
            .optional()
            .map(|_| ())
            .map_err(|e| self.sql("configure the connection", e))
    }

    fn begin(&self) -> Result<()> {
        self.batch("begin a transaction", "BEGIN EXCLUSIVE")
    }

    /// Ends the transaction: everything is in the file.
    pub fn commit(&self) -> Result<()> {
        self.batch("commit", "COMMIT")
    }

    /// The file's path.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Runs statements without parameters.
    pub fn batch(&self, doing: &'static str, sql: &str) -> Result<()> {
        self.conn.execute_batch(sql).map_err(|e| self.sql(doing, e))
    }

    /// A prepared statement, prepared once.
    pub fn prepare(&self, doing: &'static str, sql: &str) -> Result<CachedStatement<'_>> {
        self.conn
            .prepare_cached(sql)
            .map_err(|e| self.sql(doing, e))
    }

    /// Runs a statement that yields no rows; how many rows it changed.
    pub fn execute(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<usize> {
        self.prepare(doing, sql)?
            .execute(params)
            .map_err(|e| self.sql(doing, e))
    }

    /// The one integer that a query yields; NULL is 0.
    pub fn integer(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<i64> {
        self.prepare(doing, sql)?
            .query_row(params, |row| row.get::<_, Option<i64>>(0))
            .map(Option::unwrap_or_default)
            .map_err(|e| self.sql(doing, e))
    }

    /// Hands every row of a query to `each`.
    pub fn for_each<E: From<DatabaseError>>(
        &self,
        (table, sql): (&'static str, &str),
        params: impl rusqlite::Params,
        mut each: impl FnMut(&rusqlite::Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        const DOING: &str = "read rows";
        let limit = self.row_limit()?;
        let mut seen = 0;
        let mut statement = self.prepare(DOING, sql)?;
        let mut rows = statement.query(params).map_err(|e| self.sql(DOING, e))?;
        while let Some(row) = rows.next().map_err(|e| self.sql(DOING, e))? {
            seen += 1;
            if seen > limit {
                return Err(self.too_many_rows(table).into());
            }
            each(row)?;
        }
        Ok(())
    }

    /// More rows than any table of this file can have.
    pub fn row_limit(&self) -> Result<u64> {
        let pages = self.integer("measure", "PRAGMA page_count", [])?;
        let page_bytes = self.integer("measure", "PRAGMA page_size", [])?;
        Ok(pages
            .unsigned_abs()
            .saturating_mul(page_bytes.unsigned_abs())
            / MIN_ROW_BYTES)
    }

    /// Checks that `table` is one, and not a view or a virtual table.
    pub fn require_table(&self, table: &'static str) -> Result<()> {
        if self.has_table(table)? {
            return Ok(());
        }
        Err(DatabaseError::MissingTable {
            file: self.file.clone(),
            table,
        })
    }

    /// True if `table` is an ordinary table.
    pub fn has_table(&self, table: &'static str) -> Result<bool> {
        let found = self.integer(
            "read the schema",
            "SELECT count(*) FROM sqlite_schema \
             WHERE type = 'table' AND name = ?1 COLLATE NOCASE AND rootpage > 0",
            [table],
        )?;
        Ok(found > 0)
    }

    /// True if an ordinary table has this column.
    pub fn has_column(&self, table: &'static str, column: &'static str) -> Result<bool> {
        let found = self.integer(
            "read the schema",
            "SELECT count(*) FROM pragma_table_info(?1) WHERE name = ?2 COLLATE NOCASE",
            [table, column],
        )?;
        Ok(found > 0)
    }

    /// Checks that an ordinary table with these columns is there.
    pub fn require(&self, table: &'static str, columns: &[&'static str]) -> Result<()> {
        self.require_table(table)?;
        for column in columns {
            if !self.has_column(table, column)? {
                let file = self.file.clone();
                return Err(DatabaseError::MissingColumn {
                    file,
                    table,
                    column,
                });
            }
        }
        Ok(())
    }

    /// Structural check of every page; reads the whole file.
    pub fn quick_check(&self) -> Result<()> {
        const DOING: &str = "verify the structure";
        let answer: String = self
            .conn
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|e| self.sql(DOING, e))?;
        if answer == "ok" {
            return Ok(());
        }
        Err(self.bad_value("sqlite_schema", "quick_check", &answer))
    }

    /// A property's text; integers are read as text.
    pub fn property(&self, key: &'static str) -> Result<Option<String>> {
        const DOING: &str = "read a property";
        let mut statement = self.prepare(DOING, "SELECT value FROM properties WHERE key = ?1")?;
        let mut rows = statement.query([key]).map_err(|e| self.sql(DOING, e))?;
        let Some(row) = rows.next().map_err(|e| self.sql(DOING, e))? else {
            return Ok(None);
        };
        match row.get_ref(0).map_err(|e| self.sql(DOING, e))? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(n) => Ok(Some(n.to_string())),
            ValueRef::Text(t) => match str::from_utf8(t) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(self.bad_value("properties", key, &t.escape_ascii().to_string())),
            },
            other => Err(self.bad_value("properties", key, &format!("a {}", other.data_type()))),
        }
    }

    /// A property's bytes as they are.
    pub fn property_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>> {
        const DOING: &str = "read a property";
        let mut statement = self.prepare(DOING, "SELECT value FROM properties WHERE key = ?1")?;
        let mut rows = statement.query([key]).map_err(|e| self.sql(DOING, e))?;
        let Some(row) = rows.next().map_err(|e| self.sql(DOING, e))? else {
            return Ok(None);
        };
        match row.get_ref(0).map_err(|e| self.sql(DOING, e))? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(t) => Ok(Some(t.to_vec())),
            other => Err(self.bad_value("properties", key, &format!("a {}", other.data_type()))),
        }
    }

    /// A property that is parsed; absent or empty is none.
    pub fn parsed_property<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>> {
        match self.property(key)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(self.bad_value("properties", key, &text)),
            },
        }
    }

    /// Sets a property. A changed row moves to the end, as with CVMFS's own REPLACE.
    pub fn set_property(&self, key: &str, value: &[u8]) -> Result<()> {
        const SQL: &str = "INSERT OR REPLACE INTO properties (key, value) VALUES (?1, ?2)";
        self.execute("set a property", SQL, params![key, Text(value)])?;
        Ok(())
    }

    /// Schema and schema revision; `supported` are texts like `2.5`.
    pub fn schema_revision(&self, supported: &[f64]) -> Result<u32> {
        // how far CVMFS's own single-precision comparison lets a version be off
        const EPSILON: f64 = 0.0005;
        let schema = self.property("schema")?.unwrap_or_default();
        let revision = self.parsed_property::<u32>("schema_revision")?.unwrap_or(0);
        let known = |v: f64| supported.iter().any(|s| (s - v).abs() < EPSILON);
        if schema.trim().parse::<f64>().is_ok_and(known) {
            return Ok(revision);
        }
        let (file, schema) = (self.file.clone(), shorten(&schema));
        Err(DatabaseError::UnsupportedSchema {
            file,
            schema,
            revision,
        })
    }

    /// Copies the database, without free pages, over its own file. Ends this connection.
    pub fn compact(self) -> Result<()> {
        let mut beside = self.file.clone().into_os_string();
        beside.push(".compact");
        let beside = PathBuf::from(beside);
        let _ = std::fs::remove_file(&beside);
        let target = rooted(&beside);
        self.execute(
            "compact",
            "VACUUM INTO ?1",
            [Text(target.as_os_str().as_bytes())],
        )?;
        let file = self.close()?;
        std::fs::rename(&beside, &file).map_err(|source| io_error(&file, source))
    }

    /// Closes the connection.
    pub fn close(self) -> Result<PathBuf> {
        let Self { conn, file } = self;
        match conn.close() {
            Ok(()) => Ok(file),
            Err((_, source)) => Err(DatabaseError::Sql {
                file,
                doing: "close",
                source,
            }),
        }
    }

    /// An error of SQLite, with its file.
    pub fn sql(&self, doing: &'static str, source: rusqlite::Error) -> DatabaseError {
        DatabaseError::Sql {
            file: self.file.clone(),
            doing,
            source,
        }
    }

    /// A value that cannot stand where it does.
    pub fn bad_value(
        &self,
        table: &'static str,
        column: &'static str,
        found: &str,
    ) -> DatabaseError {
        let found = shorten(found);
        DatabaseError::BadValue {
            file: self.file.clone(),
            table,
            column,
            found,
        }
    }

    fn too_many_rows(&self, table: &'static str) -> DatabaseError {
        DatabaseError::TooManyRows {
            file: self.file.clone(),
            table,
        }
    }

    /// A column as an integer.
    pub fn int(
        &self,
        (table, column): (&'static str, &'static str),
        row: &rusqlite::Row<'_>,
        at: usize,
    ) -> Result<i64> {
        match row.get_ref(at).map_err(|e| self.sql("read rows", e))? {
            ValueRef::Integer(n) => Ok(n),
            other => Err(self.bad_value(table, column, &describe(other))),
        }
    }

    /// A column as an integer from 0 on; NULL is 0.
    pub fn unsigned(
        &self,
        (table, column): (&'static str, &'static str),
        row: &rusqlite::Row<'_>,
        at: usize,
    ) -> Result<u64> {
        match row.get_ref(at).map_err(|e| self.sql("read rows", e))? {
            ValueRef::Null => Ok(0),
            ValueRef::Integer(n) if n >= 0 => Ok(n.unsigned_abs()),
            other => Err(self.bad_value(table, column, &describe(other))),
        }
    }

    /// A column as text, with marks for what is not UTF-8; NULL is empty.
    pub fn lossy_text(
        &self,
        (table, column): (&'static str, &'static str),
        row: &rusqlite::Row<'_>,
        at: usize,
    ) -> Result<String> {
        match row.get_ref(at).map_err(|e| self.sql("read rows", e))? {
            ValueRef::Null => Ok(String::new()),
            ValueRef::Text(t) => Ok(String::from_utf8_lossy(t).into_owned()),
            other => Err(self.bad_value(table, column, &describe(other))),
        }
    }

    /// A column as UTF-8 text; NULL is empty.
    pub fn text(
        &self,
        (table, column): (&'static str, &'static str),
        row: &rusqlite::Row<'_>,
        at: usize,
    ) -> Result<String> {
        match row.get_ref(at).map_err(|e| self.sql("read rows", e))? {
            ValueRef::Null => Ok(String::new()),
            ValueRef::Text(t) => match str::from_utf8(t) {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(self.bad_value(table, column, &t.escape_ascii().to_string())),
            },
            other => Err(self.bad_value(table, column, &describe(other))),
        }
    }
}

/// How long a file is.
pub(crate) fn file_bytes(file: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(file).map_err(|source| io_error(file, source))?;
    Ok(metadata.len())
}

/// Bytes that go into a TEXT column as they are, UTF-8 or not.
pub(crate) struct Text<'a>(pub &'a [u8]);

impl rusqlite::ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(rusqlite::types::ToSqlOutput::Borrowed(ValueRef::Text(
            self.0,
        )))
    }
}

/// A value for an error message.
pub(crate) fn describe(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => format!("the real number {x}"),
        ValueRef::Text(t) => shorten(&format!("\"{}\"", t[..t.len().min(64)].escape_ascii())),
        ValueRef::Blob(b) => format!("a blob of {} bytes", b.len()),
    }
}

/// At most 80 characters of what a stranger wrote.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn io_error(file: &Path, source: std::io::Error) -> DatabaseError {
    DatabaseError::Io {
        file: file.to_path_buf(),
        source,
    }
}

/// A path that SQLite cannot take for a URI or an option.
fn rooted(file: &Path) -> PathBuf {
    if file.is_absolute() {
        file.to_path_buf()
    } else {
        Path::new(".").join(file)
    }
}

fn percent_encode(file: &Path) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for &byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

/// Looks at the 100 bytes every SQLite file begins with, so that the common damage has a name.
fn check_header(file: &Path) -> Result<()> {
    let mut header = [0; 100];
    let mut input = std::fs::File::open(file).map_err(|source| io_error(file, source))?;
    let found = input
        .metadata()
        .map_err(|source| io_error(file, source))?
        .len();
    match input.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(DatabaseError::NotADatabase {
                file: file.to_path_buf(),
            });
        }
        Err(source) => return Err(io_error(file, source)),
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(DatabaseError::NotADatabase {
            file: file.to_path_buf(),
        });
    }
    let word = |at: usize| {
        u64::from(u32::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ]))
    };
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        n => u64::from(n),
    };
    // the page count is valid only if the change counter says so
    let expected = if word(24) == word(92) {
        word(28) * page_bytes
    } else {
        0
    };
    if found < expected {
        return Err(DatabaseError::Truncated {
            file: file.to_path_buf(),
            expected,
            found,
        });
    }
    Ok(())
}
