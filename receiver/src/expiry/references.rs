//! Which of some objects the replica's revisions refer to.
//!
//! A snapshot stores a catalog after everything that it refers to [CVMFS `swissknife_pull.cc`], so a
//! catalog that was there before an object came did not need it. In a directory, those that arrived
//! since are told by the time at which they got their names, which no copy can set back. A bucket
//! does not tell: there every catalog that the reference log and the manifest lead to is read.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::catalog::CatalogError;
use formats::manifest::{ManifestError, SignedManifest};
use formats::object::{ObjectKind, ObjectName};
use formats::reflog::{Reflog, ReflogError};
use formats::{Catalog, Hash, Kind, RefKind};
use store::repository::{Limits, RepoError, Repository};
use store::{ObjectStore, StoreError};

use crate::names::{RECORD_BYTES, Record, record};
use crate::site::Repo;

/// How far the storage's clock may be behind ours: it may be another machine's.
const SKEW_SECONDS: u64 = 3_600;
/// Decompressed catalogs on disk at a time; a bucket's are read one after another.
const CATALOGS_BYTES: u64 = 1 << 30;

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReferencesError {
    /// A directory of the storage, or our own.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A catalog that is damaged or missing.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A catalog's rows.
    #[error("catalog {hash}")]
    Catalog {
        /// Which.
        hash: Hash,
        /// What is wrong with it.
        source: CatalogError,
    },
    /// The manifest.
    #[error(".cvmfspublished")]
    Manifest(#[from] ManifestError),
    /// The reference log.
    #[error(".cvmfsreflog")]
    Reflog(#[from] ReflogError),
}

/// Objects in question, sorted, and those that are needed.
#[derive(Debug)]
pub struct Needed {
    records: Vec<Record>,
    marked: Vec<bool>,
}

impl Needed {
    /// None marked.
    #[must_use]
    pub fn new(records: Vec<Record>) -> Self {
        let marked = vec![false; records.len()];
        Self { records, marked }
    }

    /// All of them.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Marks an object, if it is in question; whatever its size.
    pub fn mark(&mut self, name: &ObjectName) {
        let wanted = key(name);
        let from = self.records.partition_point(|r| r[..KEY] < wanted[..]);
        let same = self.records[from..]
            .iter()
            .take_while(|r| r[..KEY] == wanted[..]);
        let until = from + same.count();
        self.marked[from..until].fill(true);
    }

    /// True if it is needed, or not in question.
    #[must_use]
    pub fn is_marked(&self, record: &Record) -> bool {
        self.records
            .binary_search(record)
            .map_or(true, |at| self.marked[at])
    }
}

/// The part of a record that names the object.
const KEY: usize = RECORD_BYTES - 8;

fn key(name: &ObjectName) -> [u8; KEY] {
    let whole = record(&formats::warm::Listed {
        name: *name,
        bytes: 0,
    });
    let mut key = [0; KEY];
    key.copy_from_slice(&whole[..KEY]);
    key
}

/// Marks what is needed by whatever may have come to need it since a time. Catalogs are unpacked below
/// `work`.
///
/// # Errors
/// [`ReferencesError`]: then everything is to be taken for needed.
pub fn mark(
    repo: &Repo,
    since: u64,
    work: &Path,
    needed: &mut Needed,
) -> Result<(), ReferencesError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ReferencesError::Io { path, source }
    };
    fs::create_dir_all(work).map_err(io(work))?;
    let dir = tempfile::tempdir_in(work).map_err(io(work))?;
    let store = repo.vault.store();
    let limits = Limits {
        catalog_disk_bytes: CATALOGS_BYTES,
        ..Limits::default()
    };
    let catalogs = dir.path().join("catalogs");
    let repository = Repository::new(
        &repo.replica.name,
        Arc::clone(store),
        Vec::new(),
        catalogs,
        limits,
    )?;
    if let Some(storage) = store.local_dir() {
        for hash in arrived(storage, since)? {
            read(&repository, &hash, needed)?;
        }
        return Ok(());
    }
    let mut seen = HashSet::new();
    let mut next = roots(store.as_ref(), dir.path())?;
    while let Some(hash) = next.pop() {
        if seen.insert(hash) {
            next.extend(read(&repository, &hash, needed)?);
        }
    }
    Ok(())
}

/// Reads one catalog; returns those that it refers to.
fn read(
    repository: &Repository,
    hash: &Hash,
    needed: &mut Needed,
) -> Result<Vec<Hash>, ReferencesError> {
    let catalog = repository.catalog(hash, None)?;
    let damaged = |source| ReferencesError::Catalog {
        hash: *hash,
        source,
    };
    // opened here, since a connection of the repository's own is for lookups
    let open = Catalog::open(catalog.file()).map_err(damaged)?;
    let each = &mut |row: formats::Row| {
        if let Kind::Regular(file) = &row.entry.kind
            && !file.external
        {
            file.content.objects().for_each(|name| needed.mark(&name));
        }
        Ok(())
    };
    open.for_each_row(each).map_err(damaged)?;
    let below = catalog.nested().iter().chain(catalog.bound());
    Ok(below.map(|nested| nested.hash).collect())
}

/// Catalogs that got their names since then, in a storage directory.
fn arrived(storage: &Path, since: u64) -> Result<Vec<Hash>, ReferencesError> {
    let since = since.saturating_sub(SKEW_SECONDS);
    let mut found = Vec::new();
    for byte in 0..=0xffu8 {
        let prefix = format!("{byte:02x}");
        let dir = storage.join("data").join(&prefix);
        let failed = |source| ReferencesError::Io {
            path: dir.clone(),
            source,
        };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let file = entry.file_name();
            let Some(rest) = file.to_str().filter(|rest| rest.ends_with('C')) else {
                continue;
            };
            let Ok(name) = format!("{prefix}{rest}").parse::<ObjectName>() else {
                continue;
            };
            if name.kind != ObjectKind::Catalog {
                continue;
            }
            match entry.metadata() {
                Ok(meta) if u64::try_from(meta.ctime()).unwrap_or(0) >= since => {
                    found.push(name.hash);
                }
                Ok(_) => {}
                // nobody removes one while we hold the lock but an operator
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
    Ok(found)
}

/// The root catalogs that the manifest and the reference log name. A replica without a manifest has
/// no revision yet.
fn roots(store: &dyn ObjectStore, dir: &Path) -> Result<Vec<Hash>, ReferencesError> {
    let manifest = match store.read_root(".cvmfspublished") {
        Ok(bytes) => SignedManifest::parse(&bytes)?,
        Err(StoreError::RootNotFound { .. }) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut roots = vec![manifest.manifest.root_catalog];
    let reflog = store.read_root(".cvmfsreflog")?;
    let file = dir.join("reflog");
    fs::write(&file, reflog).map_err(|source| ReferencesError::Io {
        path: file.clone(),
        source,
    })?;
    let references = Reflog::open(&file)?.references()?;
    let catalogs = references.iter().filter(|r| r.kind == RefKind::Catalog);
    roots.extend(catalogs.map(|reference| reference.hash));
    Ok(roots)
}
