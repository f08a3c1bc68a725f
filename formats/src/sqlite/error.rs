//! What can be wrong with a SQLite file.

use std::path::{Path, PathBuf};

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
    /// SQLite refused: malformed pages, a missing column.
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

pub(crate) fn io_error(file: &Path, source: std::io::Error) -> DatabaseError {
    DatabaseError::Io {
        file: file.to_path_buf(),
        source,
    }
}
