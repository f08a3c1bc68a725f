//! How this crate opens SQLite files: bytes from elsewhere, distrusted.
//!
//! A database is either read, and then never written to, not even its lock bytes; or it is a
//! private file that nobody else opens, and then there is no journal: who fails throws it away.
//! The schema of a file is data of a stranger, so triggers, views, virtual tables and functions in
//! it never run. This module knows no table but `properties`, which all of CVMFS's databases share.

mod error;
mod file;
mod value;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension};

pub use error::DatabaseError;
use error::io_error;
pub(crate) use file::file_bytes;
use file::{check_header, percent_encode, rooted};
pub(crate) use value::{Text, describe};

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
/// Rows that are read before that is looked at.
const FEW_ROWS: u64 = 1000;

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
        let (mut limit, mut seen) = (FEW_ROWS, 0);
        let mut statement = self.prepare(DOING, sql)?;
        let mut rows = statement.query(params).map_err(|e| self.sql(DOING, e))?;
        while let Some(row) = rows.next().map_err(|e| self.sql(DOING, e))? {
            seen += 1;
            if seen > limit {
                // any file can hold a few; the rest is worth asking how large it is
                limit = self.row_limit()?;
                if seen > limit {
                    return Err(self.too_many_rows(table).into());
                }
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
        if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) {
            // told apart, as everywhere: more space is the way out
            return io_error(&self.file, io::ErrorKind::StorageFull.into());
        }
        DatabaseError::Sql {
            file: self.file.clone(),
            doing,
            source,
        }
    }

    fn too_many_rows(&self, table: &'static str) -> DatabaseError {
        DatabaseError::TooManyRows {
            file: self.file.clone(),
            table,
        }
    }
}
