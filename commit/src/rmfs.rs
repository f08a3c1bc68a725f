//! The end of a repository that prepub made.
//!
//! ```text
//! manifest            from here on nobody reads it, and nobody publishes
//! objects, other root files, the skeleton's directories
//! keys, spool, whitelist
//! server.conf         from here on nobody knows it
//! ```
//!
//! Whatever an interrupted run left is found again by the next, since the configuration, which says
//! where the storage is, goes last. Only what a repository consists of is removed: a file in the
//! storage that is none of its stays, with the directories above it, and is named.
//!
//! Repositories of `cvmfs_server` are never touched. Stages and caches are the caller's.

mod bucket;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use formats::manifest::SignedManifest;
use formats::whitelist::SignedWhitelist;
use store::{DirStore, Durability, Injected, ObjectStore, StoreError, failpoint};

use crate::home::{HomeError, KeyFile, RepoHome};
use crate::mkfs::WHITELIST;
use crate::place::Place;
use crate::publisher::PublisherError;
use crate::stratum0::MANIFEST;
use crate::stratum0::locks::Locks;

/// Root files of a repository begin so.
const ROOT_FILE_PREFIX: &str = ".cvmfs";
const KEYS: [KeyFile; 4] = [
    KeyFile::MasterKey,
    KeyFile::Key,
    KeyFile::Certificate,
    KeyFile::Public,
];

/// Why a repository is still there, or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum RmfsError {
    /// Nobody said that it shall go.
    #[error(
        "{repo} would be removed with all its revisions and its keys; this cannot be undone and was not confirmed"
    )]
    Unconfirmed {
        /// Which repository.
        repo: String,
    },
    /// It belongs to `cvmfs_server`.
    #[error(
        "{repo} was made by cvmfs_server and is not prepub's to remove; use `cvmfs_server rmfs {repo}`"
    )]
    Foreign {
        /// Which repository.
        repo: String,
    },
    /// The storage holds another repository.
    #[error("{file} is of {found}, not of {repo}; nothing was removed")]
    OtherRepository {
        /// Which repository was to go.
        repo: String,
        /// What says so.
        file: String,
        /// Whose it is.
        found: String,
    },
    /// A file or directory.
    #[error("cannot remove {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The storage.
    #[error("cannot empty the storage {place}")]
    Storage {
        /// Where.
        place: String,
        /// Why.
        source: StoreError,
    },
    /// Its places.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// It is being published to, most likely.
    #[error(transparent)]
    Busy(#[from] PublisherError),
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// False if there was nothing of it.
    pub anything: bool,
    /// Objects.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// What stayed because it is none of the repository's: paths, or addresses in a bucket.
    pub left: Vec<String>,
}

/// Refuses a repository that is another program's to remove.
///
/// # Errors
/// [`RmfsError::Foreign`].
pub fn refuse_foreign(home: &RepoHome) -> Result<(), RmfsError> {
    match home.is_foreign {
        true => Err(RmfsError::Foreign {
            repo: home.name.clone(),
        }),
        false => Ok(()),
    }
}

/// Removes a repository: storage, keys, spool, configuration. What is gone already is no error.
///
/// # Errors
/// [`RmfsError`]; calling it again does the rest.
pub fn rmfs(home: &RepoHome, confirmed: bool) -> Result<Removed, RmfsError> {
    refuse_foreign(home)?;
    if !confirmed {
        return Err(RmfsError::Unconfirmed {
            repo: home.name.clone(),
        });
    }
    let mut removed = Removed::default();
    let has_keys = KEYS.iter().any(|key| home.key_file(*key).exists());
    if !home.exists() && !has_keys && !home.spool_dir.exists() {
        return Ok(removed);
    }
    removed.anything = true;
    let locks = Locks::take(home)?;
    if home.exists() {
        match home.place()? {
            Place::Directory(dir) => {
                refuse_other(home, &dir.to_string_lossy(), |file| {
                    fs::read(dir.join(file)).ok()
                })?;
                empty_storage(&dir, &mut removed)?;
            }
            Place::Bucket(bucket) => {
                let store = bucket.open(&home.name)?;
                let place = format!("{store:?}");
                refuse_other(home, &place, |file| store.read_root(file).ok())?;
                bucket::empty(&place, &store, &mut removed)?;
            }
        }
    }
    failpoint::pass("rmfs::before_keys")?;
    for key in KEYS {
        remove_file(&home.key_file(key))?;
    }
    remove_tree(&home.spool_dir)?;
    failpoint::pass("rmfs::before_conf")?;
    remove_file(&home.conf_file)?;
    if let Some(dir) = home.conf_file.parent() {
        remove_tree(dir)?;
    }
    drop(locks);
    Ok(removed)
}

/// The storage in the configuration may have become somebody else's.
fn refuse_other(
    home: &RepoHome,
    place: &str,
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<(), RmfsError> {
    let manifest = read(MANIFEST).and_then(|bytes| SignedManifest::parse(&bytes).ok());
    let whitelist = read(WHITELIST).and_then(|bytes| SignedWhitelist::parse(&bytes).ok());
    let names = [
        (MANIFEST, manifest.map(|signed| signed.manifest.name)),
        (WHITELIST, whitelist.map(|signed| signed.whitelist.name)),
    ];
    for (file, found) in names {
        if let Some(found) = found
            && found != home.name
        {
            return Err(RmfsError::OtherRepository {
                repo: home.name.clone(),
                file: format!("{place}/{file}"),
                found,
            });
        }
    }
    Ok(())
}

fn empty_storage(dir: &Path, removed: &mut Removed) -> Result<(), RmfsError> {
    if !dir.exists() {
        return Ok(());
    }
    remove_file(&dir.join(MANIFEST))?;
    failpoint::pass("rmfs::before_objects")?;
    if dir.join("data").is_dir() {
        remove_objects(dir, removed)?;
    }
    // the whitelist still says whose the storage is, should this be interrupted
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if name.starts_with(ROOT_FILE_PREFIX) && name != WHITELIST && !is_dir {
            remove_file(&path)?;
        }
    }
    remove_file(&dir.join(WHITELIST))?;
    if !remove_empty(dir)? {
        removed.left.extend(named(entries(dir)?));
    }
    Ok(())
}

fn remove_objects(dir: &Path, removed: &mut Removed) -> Result<(), RmfsError> {
    let failed = |source| RmfsError::Storage {
        place: dir.display().to_string(),
        source,
    };
    let storage = DirStore::open(dir, Durability::Batch).map_err(failed)?;
    storage
        .for_each(&mut |name, bytes| {
            if storage.delete(&name)? {
                removed.objects += 1;
                removed.bytes += bytes;
            }
            Ok(())
        })
        .map_err(failed)?;
    let data = dir.join("data");
    if data.join("txn").is_dir() {
        storage.clean_leftovers().map_err(failed)?;
    }
    let skeleton = (0..=0xff_u8).map(|byte| format!("{byte:02x}"));
    for name in skeleton.chain(["txn".to_owned()]) {
        let path = data.join(name);
        if path.is_dir() && !remove_empty(&path)? {
            removed.left.extend(named(entries(&path)?));
        }
    }
    remove_empty(&data)?;
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, RmfsError> {
    let list = || {
        let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
        entries.collect::<io::Result<Vec<_>>>()
    };
    list().map_err(|source| {
        RmfsError::Home(HomeError::Read {
            path: dir.to_path_buf(),
            source,
        })
    })
}

fn named(paths: Vec<PathBuf>) -> impl Iterator<Item = String> {
    paths.into_iter().map(|path| path.display().to_string())
}

fn remove_file(path: &Path) -> Result<(), RmfsError> {
    gone(path, fs::remove_file(path))
}

fn remove_tree(path: &Path) -> Result<(), RmfsError> {
    gone(path, fs::remove_dir_all(path))
}

/// False if something is in it, or if it is a symbolic link or a mount point.
fn remove_empty(path: &Path) -> Result<bool, RmfsError> {
    match fs::remove_dir(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ResourceBusy
            ) =>
        {
            Ok(false)
        }
        result => gone(path, result).map(|()| true),
    }
}

fn gone(path: &Path, result: io::Result<()>) -> Result<(), RmfsError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RmfsError::Io {
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}
