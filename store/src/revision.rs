//! One revision: a tree of catalogs, of which those are fetched that are asked for.
//!
//! ```text
//! root catalog ""  --NestedRef-->  "/a/b"  --NestedRef-->  "/a/b/c/d"
//! ```
//!
//! A path is found by going down from the root catalog along the references; each catalog must begin
//! where its parent says and be as long as its parent says. A mountpoint's row is its parent's; what
//! lies below comes from the nested catalog. Rows with `hidden` are returned like any other. A
//! revision never changes, so what it remembers is never stale; how much that is, is bounded.

mod walk;

use std::sync::Arc;

use formats::{Catalog, Content, Hash, Name, RepoPath, Row};
use parking_lot::Mutex;

use crate::lru::Lru;
use crate::repository::{CatalogFault, CatalogFile, RepoError, Repository};

pub use walk::Walk;

type Result<T, E = RepoError> = std::result::Result<T, E>;

/// A published revision, or one that was. Shared by threads.
#[derive(Debug)]
pub struct Revision {
    repository: Arc<Repository>,
    root: Arc<CatalogFile>,
    listings: Mutex<Lru<RepoPath, Arc<Vec<Row>>>>,
    /// Rows looked up one by one, absent ones too.
    singles: Mutex<Lru<RepoPath, Option<Arc<Row>>>>,
}

/// The catalog that holds what is below a path.
struct Place {
    catalog: Arc<CatalogFile>,
    /// Where the catalog begins in this revision.
    begins: RepoPath,
    /// What the catalog's own paths lack: not `""` only inside a bound snapshot.
    bound_at: RepoPath,
}

impl Place {
    /// The path as the catalog knows it.
    fn inner(&self, path: &RepoPath) -> RepoPath {
        path.below(&self.bound_at).unwrap_or_default()
    }
}

impl Revision {
    pub(crate) fn open(
        repository: Arc<Repository>,
        root: &Hash,
        bytes: Option<u64>,
    ) -> Result<Self> {
        let path = RepoPath::root();
        let root = repository.catalog_at(root, bytes, &path)?;
        check_place(&root, &path)
            .map_err(|fault| repository.bad_catalog(root.hash(), &path, fault))?;
        Ok(Self {
            repository,
            root,
            listings: Mutex::new(Lru::new()),
            singles: Mutex::new(Lru::new()),
        })
    }

    /// The root catalog's hash, which is the revision's name.
    #[must_use]
    pub fn root_hash(&self) -> &Hash {
        self.root.hash()
    }

    /// The root catalog.
    #[must_use]
    pub fn root_catalog(&self) -> &Arc<CatalogFile> {
        &self.root
    }

    /// What it is a revision of.
    #[must_use]
    pub fn repository(&self) -> &Arc<Repository> {
        &self.repository
    }

    /// What stands at a path; none if nothing does.
    ///
    /// # Errors
    /// [`RepoError::Catalog`] when a catalog on the way cannot be used.
    pub fn lookup(&self, path: &RepoPath) -> Result<Option<Row>> {
        Ok(self.find(path)?.map(|row| Row::clone(&row)))
    }

    /// As [`Revision::lookup`], without copying what is remembered.
    ///
    /// # Errors
    /// As [`Revision::lookup`].
    pub fn find(&self, path: &RepoPath) -> Result<Option<Arc<Row>>> {
        if let Some(known) = self.singles.lock().get(path) {
            return Ok(known.clone());
        }
        let found = match self.find_in_listing(path) {
            Some(found) => found,
            None => {
                // a mountpoint's row is looked up where its parent directory is
                let place = self.place_of_row(path)?;
                let inner = place.inner(path);
                self.read(&place, |catalog| catalog.lookup_path(&inner))?
            }
        };
        let found = found.map(Arc::new);
        let mut singles = self.singles.lock();
        singles.insert(
            path.clone(),
            found.clone(),
            found.as_deref().map_or(1, weight),
        );
        while singles.weight() > self.repository.limits().single_rows {
            singles.pop_oldest(|_| true);
        }
        Ok(found)
    }

    /// Some answer if the listing of the directory is at hand.
    fn find_in_listing(&self, path: &RepoPath) -> Option<Option<Row>> {
        let (dir, name) = (path.parent()?, path.name()?);
        let rows = self.listings.lock().get(&dir).cloned()?;
        let at = rows.binary_search_by(|row| row.name.as_slice().cmp(name.as_bytes()));
        Some(at.ok().map(|at| rows[at].clone()))
    }

    /// What is in a directory, by name in byte order.
    ///
    /// # Errors
    /// [`RepoError::NotFound`], [`RepoError::NotADirectory`], and as [`Revision::lookup`].
    pub fn list(&self, path: &RepoPath) -> Result<Vec<Row>> {
        Ok(Arc::unwrap_or_clone(self.listing(path)?))
    }

    /// As [`Revision::list`], without copying what is remembered.
    ///
    /// # Errors
    /// As [`Revision::list`].
    pub fn listing(&self, path: &RepoPath) -> Result<Arc<Vec<Row>>> {
        if let Some(rows) = self.listings.lock().get(path) {
            return Ok(Arc::clone(rows));
        }
        let place = self.place_below(path)?;
        let inner = place.inner(path);
        let rows = Arc::new(self.read(&place, |catalog| catalog.list(&inner))?);
        if rows.is_empty() {
            self.require_directory(path)?;
        }
        let total = rows.iter().map(weight).sum::<u64>() + 1;
        let limit = self.repository.limits().listing_rows;
        if total <= limit {
            let mut listings = self.listings.lock();
            listings.insert(path.clone(), Arc::clone(&rows), total);
            while listings.weight() > limit {
                listings.pop_oldest(|_| true);
            }
        }
        Ok(rows)
    }

    fn require_directory(&self, path: &RepoPath) -> Result<()> {
        let (repository, path) = (self.repository.name().to_owned(), path.clone());
        match self.find(&path)? {
            Some(row) if row.entry.is_dir() => Ok(()),
            Some(_) => Err(RepoError::NotADirectory { repository, path }),
            None => Err(RepoError::NotFound { repository, path }),
        }
    }

    /// Where the catalog begins that holds what is (or would be) in this directory.
    ///
    /// # Errors
    /// As [`Revision::lookup`].
    pub fn catalog_path_of(&self, path: &RepoPath) -> Result<RepoPath> {
        Ok(self.place_below(path)?.begins)
    }

    /// The catalog that holds what is in this directory. To a path that is no directory: the
    /// catalog that holds its row.
    ///
    /// # Errors
    /// As [`Revision::lookup`].
    pub fn catalog(&self, path: &RepoPath) -> Result<Arc<CatalogFile>> {
        Ok(self.place_below(path)?.catalog)
    }

    /// The catalog of a path's row.
    fn place_of_row(&self, path: &RepoPath) -> Result<Place> {
        match path.parent() {
            Some(dir) => self.place_below(&dir),
            None => self.place_below(path),
        }
    }

    /// The catalog of what is below a path.
    fn place_below(&self, path: &RepoPath) -> Result<Place> {
        let mut place = Place {
            catalog: Arc::clone(&self.root),
            begins: RepoPath::root(),
            bound_at: RepoPath::root(),
        };
        loop {
            let inner = place.inner(path);
            // references lie strictly below the catalog they stand in, so this ends
            let Some((reference, bound)) = place.catalog.transition(&inner) else {
                return Ok(place);
            };
            let begins = place.bound_at.concat(&reference.path);
            let size = (reference.size > 0).then_some(reference.size);
            let catalog = self.repository.catalog_at(&reference.hash, size, &begins)?;
            let bound_at = if bound {
                begins.clone()
            } else {
                place.bound_at
            };
            let next = Place {
                catalog,
                begins,
                bound_at,
            };
            check_place(&next.catalog, &next.inner(&next.begins))
                .map_err(|fault| self.bad(&next, fault))?;
            place = next;
        }
    }

    fn read<T>(
        &self,
        place: &Place,
        read: impl FnOnce(&Catalog) -> Result<T, formats::CatalogError>,
    ) -> Result<T> {
        place
            .catalog
            .with(read)
            .map_err(|fault| self.bad(place, fault))
    }

    fn bad(&self, place: &Place, fault: CatalogFault) -> RepoError {
        self.repository
            .bad_catalog(place.catalog.hash(), &place.begins, fault)
    }
}

/// What a row takes in memory, in ordinary rows.
fn weight(row: &Row) -> u64 {
    // by size: eight chunks, or two attributes of the usual length, are a row
    let chunks = match row.entry.regular().map(|file| &file.content) {
        Some(Content::Chunks { chunks, .. }) => chunks.len() / 8,
        _ => 0,
    };
    (1 + chunks + row.entry.xattrs.len().div_ceil(2)) as u64
}

/// The path of a row in a directory; names in a catalog are checked when they are listed.
fn child(dir: &RepoPath, row: &Row) -> Option<RepoPath> {
    Some(dir.join(&Name::new(&row.name).ok()?))
}

/// A catalog that does not begin where it is referred to belongs elsewhere.
fn check_place(catalog: &CatalogFile, begins: &RepoPath) -> Result<(), CatalogFault> {
    if catalog.root_prefix() == begins {
        return Ok(());
    }
    let found = catalog.root_prefix().clone();
    Err(CatalogFault::WrongPlace { found })
}
