//! The columns of the table `catalog`, selected by name and read one by one: a file of an earlier
//! schema lacks some, and an upgraded one has them in another order.

use rusqlite::types::ValueRef;

use crate::catalog::row::{RawRow, RowProblem};
use crate::catalog::schema::Shape;
use crate::path::{NAME_MAX, PathHash};
use crate::sqlite::{Database, DatabaseError, describe};

/// The statements that name all columns, made for the shape of the file.
#[derive(Debug)]
pub(super) struct Select {
    pub by_path: String,
    pub by_parent: String,
    pub all: String,
    pub nested: String,
    pub nested_at: String,
}

impl Select {
    pub fn new(shape: Shape) -> Self {
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

/// Where [`Select`] has the name.
const NAME_AT: usize = 11;

/// Why a row's columns cannot be read.
pub(super) enum ColumnError {
    Database(DatabaseError),
    Value {
        path: PathHash,
        name: Vec<u8>,
        problem: RowProblem,
    },
}

/// Reads a row of a query of [`Select`].
pub(super) fn read_columns(db: &Database, row: &rusqlite::Row<'_>) -> Result<RawRow, ColumnError> {
    Columns { db, row }.read()
}

/// As much of a name as a message needs.
pub(super) fn short_name(name: &[u8]) -> Vec<u8> {
    name[..name.len().min(NAME_MAX)].to_vec()
}

/// One row of [`Select`], column by column.
struct Columns<'a> {
    db: &'a Database,
    row: &'a rusqlite::Row<'a>,
}

impl Columns<'_> {
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
        self.db.value(self.row, at).map_err(ColumnError::Database)
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
        // as much of the key as can be read, to name the row
        let int = |at| self.row.get::<_, i64>(at).unwrap_or_default();
        let name = self.row.get_ref(NAME_AT).ok();
        let name = name
            .and_then(|value| value.as_bytes().ok())
            .unwrap_or_default();
        ColumnError::Value {
            path: PathHash(int(0), int(1)),
            name: short_name(name),
            problem: RowProblem::Column { column, found },
        }
    }
}
