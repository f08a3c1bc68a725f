//! Going through a whole tree, or through its catalogs, in the order of paths.
//!
//! Memory holds the listings between the root and the present directory, and no more.

use std::sync::Arc;

use formats::{RepoPath, Row};

use super::{Revision, child};
use crate::repository::{CatalogFile, RepoError};

/// What a walk does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// Goes on; into a directory, if it was one.
    Down,
    /// Goes on, but not into this directory.
    Over,
}

/// What is done with each catalog, and the path at which it begins.
pub type VisitCatalog<'a, E> = dyn FnMut(&RepoPath, &Arc<CatalogFile>) -> Result<Walk, E> + 'a;

/// One directory on the way.
struct Level {
    dir: RepoPath,
    rows: Arc<Vec<Row>>,
    next: usize,
}

impl Revision {
    /// Visits what stands at `from` and then everything below it, a directory before what is in it,
    /// names bytewise: the order of [`RepoPath`].
    ///
    /// # Errors
    /// [`RepoError::NotFound`] when nothing is at `from`, those of [`Revision::list`], and what
    /// `visit` returns.
    pub fn walk<E: From<RepoError>>(
        &self,
        from: &RepoPath,
        visit: &mut dyn FnMut(&RepoPath, &Row) -> Result<Walk, E>,
    ) -> Result<(), E> {
        let Some(top) = self.find(from)? else {
            let (repository, path) = (self.repository.name().to_owned(), from.clone());
            return Err(RepoError::NotFound { repository, path }.into());
        };
        let mut levels = Vec::new();
        if visit(from, &top)? == Walk::Down && top.entry.is_dir() {
            levels.push(self.level(from.clone())?);
        }
        while let Some(level) = levels.last_mut() {
            let Some(row) = level.rows.get(level.next) else {
                levels.pop();
                continue;
            };
            level.next += 1;
            let Some(path) = child(&level.dir, row) else {
                continue;
            };
            if visit(&path, row)? == Walk::Down && row.entry.is_dir() {
                let below = self.level(path)?;
                levels.push(below);
            }
        }
        Ok(())
    }

    fn level(&self, dir: RepoPath) -> Result<Level, RepoError> {
        let rows = self.listing(&dir)?;
        Ok(Level { dir, rows, next: 0 })
    }

    /// Visits the catalog at `from` and all nested below it, a parent before its children. `from`
    /// has to be where a catalog begins. Bound snapshots are not visited.
    ///
    /// # Errors
    /// [`RepoError::Catalog`], and what `visit` returns.
    pub fn walk_catalogs<E: From<RepoError>>(
        &self,
        from: &RepoPath,
        visit: &mut VisitCatalog<'_, E>,
    ) -> Result<(), E> {
        let mut ahead = vec![from.clone()];
        while let Some(path) = ahead.pop() {
            let catalog = self.catalog(&path)?;
            if visit(&path, &catalog)? == Walk::Down {
                ahead.extend(catalog.nested().iter().rev().map(|r| r.path.clone()));
            }
        }
        Ok(())
    }
}
