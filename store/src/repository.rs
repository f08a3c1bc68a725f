//! A published repository: its signed head, and any revision of it by root hash.
//!
//! Everything that comes from the store is verified before it is used: signatures against the keys
//! given, objects against their names, sizes against what refers to them. A fault names the object,
//! where it belongs and what is wrong, and spoils nothing else. Nothing here writes to the store.

mod catalogs;
mod error;
mod head;

use std::path::PathBuf;
use std::sync::Arc;

use formats::trust::PublicKey;
use formats::{Counters, Hash, ObjectKind, ObjectName, RepoPath};

pub use catalogs::CatalogFile;
pub use error::{CatalogFault, RepoError};
pub use head::{Head, HeadError};

use crate::error::StoreError;
use crate::object_store::ObjectStore;
use crate::revision::Revision;
use catalogs::Catalogs;

/// How much of a repository is kept on this machine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Decompressed catalogs on disk.
    pub catalog_disk_bytes: u64,
    /// The longest catalog that is accepted where nothing says how long it is.
    pub catalog_bytes: u64,
    /// Rows of listings in memory, per revision; a row takes some 300 bytes.
    pub listing_rows: u64,
    /// Single rows, found or not, in memory, per revision.
    pub single_rows: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // the largest repositories have some tens of gigabytes of catalogs, of which a
            // publisher touches a few
            catalog_disk_bytes: 4 << 30,
            // half a million rows, CVMFS's own warning level, take some 150 MB
            catalog_bytes: 8 << 30,
            listing_rows: 250_000,
            single_rows: 20_000,
        }
    }
}

/// A repository in a store. Shared by threads.
#[derive(Debug)]
pub struct Repository {
    name: String,
    store: Arc<dyn ObjectStore>,
    keys: Vec<PublicKey>,
    catalogs: Catalogs,
    limits: Limits,
}

impl Repository {
    /// A repository by its fully qualified name. `keys` are those of which one must have signed
    /// its whitelist. The catalogs are kept in `cache_dir`, which is made if need be.
    ///
    /// # Errors
    /// When `cache_dir` cannot be used.
    pub fn new(
        name: impl Into<String>,
        store: Arc<dyn ObjectStore>,
        keys: Vec<PublicKey>,
        cache_dir: impl Into<PathBuf>,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let catalogs = Catalogs::new(
            Arc::clone(&store),
            cache_dir.into(),
            limits.catalog_disk_bytes,
            limits.catalog_bytes,
        )?;
        Ok(Self {
            name: name.into(),
            store,
            keys,
            catalogs,
            limits,
        })
    }

    /// Its fully qualified name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its objects lie.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// A revision by its root catalog, which need not be the published one.
    ///
    /// # Errors
    /// [`RepoError::Catalog`] when the root catalog cannot be used.
    pub fn revision(self: &Arc<Self>, root: &Hash) -> Result<Arc<Revision>, RepoError> {
        self.revision_sized(root, None)
    }

    /// As [`Repository::revision`], where the manifest or tag also says how long the catalog is.
    ///
    /// # Errors
    /// As [`Repository::revision`].
    pub fn revision_sized(
        self: &Arc<Self>,
        root: &Hash,
        bytes: Option<u64>,
    ) -> Result<Arc<Revision>, RepoError> {
        Revision::open(Arc::clone(self), root, bytes).map(Arc::new)
    }

    /// Any catalog by its hash; the length is checked if it is given and not 0.
    ///
    /// # Errors
    /// [`RepoError::Catalog`], without a path of use.
    pub fn catalog(&self, hash: &Hash, bytes: Option<u64>) -> Result<Arc<CatalogFile>, RepoError> {
        self.catalog_at(hash, bytes, &RepoPath::root())
    }

    /// Writes a private, verified, decompressed copy of a catalog to a file that must not exist;
    /// returns its length.
    ///
    /// # Errors
    /// [`RepoError::Catalog`].
    pub fn copy_catalog(&self, hash: &Hash, to: &std::path::Path) -> Result<u64, RepoError> {
        self.catalogs
            .copy(hash, to)
            .map_err(|fault| self.bad_catalog(hash, &RepoPath::root(), fault))
    }

    /// The counters of a catalog.
    ///
    /// # Errors
    /// [`RepoError::Catalog`].
    pub fn catalog_counters(&self, hash: &Hash) -> Result<Counters, RepoError> {
        self.catalog(hash, None)?
            .with(|catalog| catalog.counters())
            .map_err(|fault| self.bad_catalog(hash, &RepoPath::root(), fault))
    }

    /// How many catalogs are kept here that nobody uses at the moment, and their bytes.
    #[must_use]
    pub fn unused_catalogs(&self) -> (u64, u64) {
        self.catalogs.unused()
    }

    /// Removes these; they are fetched again when they are needed.
    pub fn drop_unused_catalogs(&self) {
        self.catalogs.drop_unused();
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A catalog, with where it belongs for the error.
    pub(crate) fn catalog_at(
        &self,
        hash: &Hash,
        bytes: Option<u64>,
        path: &RepoPath,
    ) -> Result<Arc<CatalogFile>, RepoError> {
        self.catalogs
            .get(hash, bytes)
            .map_err(|fault| self.bad_catalog(hash, path, fault))
    }

    pub(crate) fn bad_catalog(
        &self,
        hash: &Hash,
        path: &RepoPath,
        fault: CatalogFault,
    ) -> RepoError {
        RepoError::Catalog {
            repository: self.name.clone(),
            object: ObjectName::new(*hash, ObjectKind::Catalog),
            path: path.clone(),
            fault: Box::new(fault),
        }
    }
}
