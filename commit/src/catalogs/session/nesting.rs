//! Where nested catalogs begin and end: rows and references handed from one open catalog to another.
//!
//! Which directories those are is decided elsewhere.

use std::collections::BTreeMap;

use formats::catalog::{CatalogWriter, Counts, NestedRef, Role, Row};
use formats::path::RepoPath;

use super::{Link, Open, Session};
use crate::catalogs::CatalogsError;

impl Session<'_> {
    /// Makes a new, empty catalog at `path`, whose row in the parent is `row`, a plain directory.
    pub(crate) fn make_nested(&mut self, path: &RepoPath, row: &Row) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        let file = self.next_file();
        let fail = |source| CatalogsError::Catalog {
            prefix: path.clone(),
            source,
        };
        let mut writer = CatalogWriter::create(&file, path).map_err(fail)?;
        let as_root = Row {
            role: Role::Root,
            ..row.clone()
        };
        writer.put(&as_root).map_err(fail)?;
        let mountpoint = Row {
            role: Role::Mountpoint,
            ..row.clone()
        };
        self.edit(&home, |open| {
            open.replace(row, &mountpoint)?;
            open.nested.insert(
                path.clone(),
                Link {
                    hash: None,
                    size: 0,
                },
            );
            Ok(())
        })?;
        let open = Open {
            writer,
            file,
            base: None,
            counts: Counts::of(&as_root),
            base_subtree: Counts::default(),
            nested: BTreeMap::new(),
            base_nested: BTreeMap::new(),
            dirty: true,
        };
        self.open.insert(path.clone(), open);
        self.attached.push(path.clone());
        self.last_home = None;
        Ok(())
    }

    /// What is bound in from other revisions in the catalog that holds the children of `dir`.
    pub(crate) fn bound(&mut self, dir: &RepoPath) -> Result<Vec<NestedRef>, CatalogsError> {
        let home = self.content_home(dir)?;
        self.edit(&home, |open| open.writer.bind_mountpoints())
    }

    /// Shows a catalog of another revision, whose root is `row` here. What is below it stays its
    /// own affair, and counts for nothing.
    pub(crate) fn bind(&mut self, bound: &NestedRef, row: &Row) -> Result<(), CatalogsError> {
        let home = self.entry_home(&bound.path)?;
        self.grow(&bound.path, 1);
        self.edit(&home, |open| {
            open.insert(row)?;
            open.writer.put_bind_mountpoint(bound)
        })
    }

    /// Undoes [`bind`](Self::bind).
    pub(crate) fn unbind(&mut self, path: &RepoPath) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        if let Some(row) = self.lookup(path)? {
            self.grow(path, -1);
            self.edit(&home, |open| open.delete(&row))?;
        }
        self.edit(&home, |open| {
            open.dirty = true;
            open.writer.remove_bind_mountpoint(path).map(drop)
        })
    }

    /// Moves everything below `path` out of its catalog into a new nested one.
    pub(crate) fn split(&mut self, path: &RepoPath, row: &Row) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        self.make_nested(path, row)?;
        let mut pending = vec![path.clone()];
        while let Some(dir) = pending.pop() {
            for (child, row) in self.children_in(&home, &dir)? {
                self.edit(&home, |open| open.delete(&row))?;
                self.edit(path, |open| open.insert(&row))?;
                if row.role == Role::Mountpoint {
                    if let Some(link) = self.at_mut(&home).nested.remove(&child) {
                        self.at_mut(path).nested.insert(child, link);
                    }
                } else if row.entry.is_dir() {
                    pending.push(child);
                }
            }
        }
        self.last_home = None;
        Ok(())
    }

    /// Moves the rows of the nested catalog at `path` back into its parent. Ids of hard-link groups
    /// are shifted past the parent's.
    pub(crate) fn merge(&mut self, path: &RepoPath, row: &Row) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        self.content_home(path)?;
        let shift = self.edit(&home, |open| open.writer.max_link_group())?;
        let Some(mut child) = self.open.remove(path) else {
            return Ok(());
        };
        self.attached.retain(|prefix| prefix != path);
        self.last_home = None;
        let plain = Row {
            role: Role::Plain,
            ..row.clone()
        };
        self.edit(&home, |open| {
            open.nested.remove(path);
            open.nested.append(&mut child.nested);
            open.replace(row, &plain)?;
            child.writer.for_each_row(&mut |mut row| {
                if row.role == Role::Root {
                    return Ok(());
                }
                if row.link_group != 0 {
                    row.link_group += shift;
                }
                open.insert(&row)
            })
        })
    }
}
