//! A catalog's statistics: what it holds itself, and what all catalogs below it hold.
//!
//! There are 24 counters, 12 of either kind, kept by name in the table `statistics`. `self_` counts
//! the rows of one file, `subtree_` those of all descendants without it.

use std::ops::{AddAssign, SubAssign};

use crate::catalog::read::Catalog;
use crate::catalog::row::{Role, Row};
use crate::catalog::{CatalogError, Result};
use crate::entry::Kind;
use crate::object::Content;
use crate::sqlite::DatabaseError;

/// One kind of counters. Signed, so that a change is counted with them too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Regular files.
    pub regular: i64,
    /// Symbolic links.
    pub symlink: i64,
    /// Pipes, sockets and devices.
    pub special: i64,
    /// Directories, with the catalog's own root and all mountpoints.
    pub dir: i64,
    /// Nested catalogs that are referred to.
    pub nested: i64,
    /// Regular files in chunks.
    pub chunked: i64,
    /// Chunks.
    pub chunks: i64,
    /// Bytes in regular files.
    pub file_size: i64,
    /// Bytes in chunked files.
    pub chunked_size: i64,
    /// Entries with extended attributes.
    pub xattr: i64,
    /// Regular files outside the storage.
    pub external: i64,
    /// Their bytes.
    pub external_file_size: i64,
}

/// The names, in the order in which CVMFS inserts them.
pub(crate) const NAMES: [&str; 12] = [
    "chunked",
    "chunked_size",
    "chunks",
    "dir",
    "external",
    "external_file_size",
    "file_size",
    "nested",
    "regular",
    "special",
    "symlink",
    "xattr",
];

impl Counts {
    /// What one row counts for.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let mut counts = Self::default();
        match &row.entry.kind {
            Kind::Directory { .. } => {
                counts.dir = 1;
                counts.nested = i64::from(row.role == Role::Mountpoint);
            }
            Kind::Symlink(_) => counts.symlink = 1,
            Kind::Regular(file) => {
                let bytes = i64::try_from(file.size).unwrap_or(i64::MAX);
                counts.regular = 1;
                counts.file_size = bytes;
                if let Content::Chunks { chunks, .. } = &file.content {
                    counts.chunked = 1;
                    counts.chunked_size = bytes;
                    counts.chunks = i64::try_from(chunks.len()).unwrap_or(i64::MAX);
                }
                if file.external {
                    counts.external = 1;
                    counts.external_file_size = bytes;
                }
            }
            Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                counts.special = 1;
            }
        }
        counts.xattr = i64::from(!row.entry.xattrs.is_empty());
        counts
    }

    /// How many entries there are: what limits and weights go by.
    #[must_use]
    pub fn entries(&self) -> i64 {
        [self.regular, self.symlink, self.special, self.dir]
            .into_iter()
            .fold(0, i64::saturating_add)
    }

    /// The counters by name, in ascending order of the names.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, i64)> {
        NAMES.into_iter().zip(self.values())
    }

    fn values(&self) -> [i64; 12] {
        [
            self.chunked,
            self.chunked_size,
            self.chunks,
            self.dir,
            self.external,
            self.external_file_size,
            self.file_size,
            self.nested,
            self.regular,
            self.special,
            self.symlink,
            self.xattr,
        ]
    }

    pub(crate) fn from_values(values: [i64; 12]) -> Self {
        let [
            chunked,
            chunked_size,
            chunks,
            dir,
            external,
            external_file_size,
            file_size,
            nested,
            regular,
            special,
            symlink,
            xattr,
        ] = values;
        Self {
            regular,
            symlink,
            special,
            dir,
            nested,
            chunked,
            chunks,
            file_size,
            chunked_size,
            xattr,
            external,
            external_file_size,
        }
    }

    fn zip(self, other: Self, op: fn(i64, i64) -> i64) -> Self {
        let (left, right) = (self.values(), other.values());
        Self::from_values(std::array::from_fn(|i| op(left[i], right[i])))
    }
}

// saturating: the figures of a damaged catalog must not stop the program

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, i64::saturating_add);
    }
}

impl SubAssign for Counts {
    fn sub_assign(&mut self, other: Self) {
        *self = self.zip(other, i64::saturating_sub);
    }
}

/// All 24 counters of a catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of this catalog alone.
    pub self_: Counts,
    /// Of all its descendants.
    pub subtree: Counts,
}

impl Counters {
    /// Self and subtree: what this catalog adds to its parent's subtree.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = self.self_;
        total += self.subtree;
        total
    }
}

impl Catalog {
    /// The counters.
    ///
    /// # Errors
    /// [`CatalogError`] when one is missing that this schema revision has.
    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters {
            self_: self.counts("self_")?,
            subtree: self.counts("subtree_")?,
        })
    }

    fn counts(&self, prefix: &str) -> Result<Counts> {
        let mut values = [0; NAMES.len()];
        for (value, name) in values.iter_mut().zip(NAMES) {
            let counter = format!("{prefix}{name}");
            *value = match self.counter(&counter)? {
                Some(value) => value,
                None if self.shape.revision < since(name) => 0,
                None => {
                    let file = self.file().to_path_buf();
                    return Err(CatalogError::MissingCounter { file, counter });
                }
            };
        }
        Ok(Counts::from_values(values))
    }

    fn counter(&self, counter: &str) -> Result<Option<i64>> {
        const SQL: &str = "SELECT value FROM statistics WHERE counter = ?1";
        let mut value = None;
        self.db.for_each(("statistics", SQL), [counter], |row| {
            value = Some(self.db.int(("statistics", "value"), row, 0)?);
            Ok::<_, DatabaseError>(())
        })?;
        Ok(value)
    }

    /// Counts the rows anew: what the `self_` counters should be.
    ///
    /// # Errors
    /// [`CatalogError`](crate::catalog::CatalogError) when the rows cannot be read.
    pub fn recount_self(&self) -> Result<Counts> {
        const DOING: &str = "count rows";
        let xattr = if self.shape.xattr { "xattr" } else { "NULL" };
        let sql = format!(
            "SELECT count(*) FILTER (WHERE r AND flags & 64), \
             coalesce(sum(size) FILTER (WHERE r AND flags & 64), 0), \
             count(*) FILTER (WHERE type = 16384), \
             count(*) FILTER (WHERE flags & 128), \
             coalesce(sum(size) FILTER (WHERE flags & 128), 0), \
             coalesce(sum(size) FILTER (WHERE r), 0), \
             count(*) FILTER (WHERE r), \
             count(*) FILTER (WHERE type NOT IN (16384, 32768, 40960)), \
             count(*) FILTER (WHERE type = 40960), \
             count(*) FILTER (WHERE xattr IS NOT NULL) \
             FROM (SELECT flags, size, mode & 61440 AS type, mode & 61440 = 32768 AS r, \
             {xattr} AS xattr FROM catalog LIMIT ?1)"
        );
        let limit = self.db.row_limit()?.cast_signed();
        let sums: [i64; 10] = self
            .db
            .prepare(DOING, &sql)?
            .query_row([limit], |row| {
                let mut sums = [0; 10];
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum = row.get(at)?;
                }
                Ok(sums)
            })
            .map_err(|e| self.db.sql(DOING, e))?;
        const NESTED: &str = "SELECT count(*) FROM (SELECT 1 FROM nested_catalogs LIMIT ?1)";
        let nested = self.db.integer(DOING, NESTED, [limit])?;
        let chunks = i64::try_from(self.chunk_count()?).unwrap_or(i64::MAX);
        let [
            chunked,
            chunked_size,
            dir,
            external,
            external_file_size,
            file_size,
            ..,
        ] = sums;
        let [.., regular, special, symlink, xattr] = sums;
        Ok(Counts {
            regular,
            symlink,
            special,
            dir,
            nested,
            chunked,
            chunks,
            file_size,
            chunked_size,
            xattr,
            external,
            external_file_size,
        })
    }
}

/// The schema revision that brought a counter.
fn since(counter: &str) -> u32 {
    match counter {
        "xattr" => 2,
        "external" | "external_file_size" => 3,
        "special" => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_in_place() {
        assert!(NAMES.is_sorted());
        let counts = Counts::from_values(std::array::from_fn(|i| i as i64));
        let named: Vec<_> = counts.by_name().collect();
        assert_eq!(named[3], ("dir", counts.dir));
        assert_eq!(named[11], ("xattr", counts.xattr));
        assert_eq!(named[5], ("external_file_size", counts.external_file_size));
        assert_eq!(
            counts.entries(),
            counts.regular + counts.symlink + counts.special + counts.dir
        );
    }

    #[test]
    fn sums_saturate() {
        let mut counts = Counts {
            dir: i64::MAX,
            ..Counts::default()
        };
        counts += Counts {
            dir: 1,
            chunks: 2,
            ..Counts::default()
        };
        assert_eq!((counts.dir, counts.chunks), (i64::MAX, 2));
        counts -= Counts {
            chunks: 3,
            ..Counts::default()
        };
        assert_eq!(counts.chunks, -1);
    }
}
