//! Values: what a column or a property may hold, judged before it is believed.

use rusqlite::params;
use rusqlite::types::ValueRef;

use crate::sqlite::{Database, DatabaseError, Result};

impl Database {
    /// A property's bytes as they are.
    pub fn property_bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>> {
        const DOING: &str = "read a property";
        let mut statement = self.prepare(DOING, "SELECT value FROM properties WHERE key = ?1")?;
        let mut rows = statement.query([key]).map_err(|e| self.sql(DOING, e))?;
        let Some(row) = rows.next().map_err(|e| self.sql(DOING, e))? else {
            return Ok(None);
        };
        match self.value(row, 0)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => Ok(Some(text.to_vec())),
            other => Err(self.bad_value("properties", key, &describe(other))),
        }
    }

    /// A property's text.
    pub fn property(&self, key: &'static str) -> Result<Option<String>> {
        let bad = |e: std::string::FromUtf8Error| {
            self.bad_value("properties", key, &e.as_bytes().escape_ascii().to_string())
        };
        self.property_bytes(key)?
            .map(|bytes| String::from_utf8(bytes).map_err(bad))
            .transpose()
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

    /// A column as it is.
    pub fn value<'a>(&self, row: &'a rusqlite::Row<'_>, at: usize) -> Result<ValueRef<'a>> {
        row.get_ref(at).map_err(|e| self.sql("read rows", e))
    }

    /// A column as an integer.
    pub fn int(
        &self,
        (table, column): (&'static str, &'static str),
        row: &rusqlite::Row<'_>,
        at: usize,
    ) -> Result<i64> {
        match self.value(row, at)? {
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
        match self.value(row, at)? {
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
        match self.value(row, at)? {
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
        match self.value(row, at)? {
            ValueRef::Null => Ok(String::new()),
            ValueRef::Text(t) => match str::from_utf8(t) {
                Ok(text) => Ok(text.to_owned()),
                Err(_) => Err(self.bad_value(table, column, &t.escape_ascii().to_string())),
            },
            other => Err(self.bad_value(table, column, &describe(other))),
        }
    }

    /// A value that cannot stand where it does.
    pub fn bad_value(
        &self,
        table: &'static str,
        column: &'static str,
        found: &str,
    ) -> DatabaseError {
        let (file, found) = (self.file().to_path_buf(), shorten(found));
        DatabaseError::BadValue {
            file,
            table,
            column,
            found,
        }
    }
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
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
