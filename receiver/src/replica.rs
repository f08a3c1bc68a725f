//! A replica of this Stratum 1: where its storage lies, and how `cvmfs_server` is held off it.
//!
//! What `cvmfs_server add-replica` wrote down is read from `repositories.d/REPO/server.conf`; the
//! configuration may say otherwise. Snapshots and garbage collections of a replica hold
//! `SPOOL/is_updating.lock` [`cvmfs_server_util.sh:acquire_lock`, `cvmfs_server_snapshot.sh`]: whoever
//! has that lock is alone with the replica's revisions. Objects come in without it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::server_conf::{ServerConf, Upstream};
use formats::{S3Conf, S3ConfError};
use rustix::fs::FlockOperation;
use store::{DirStore, Durability, ObjectStore, S3Store, StoreError};

use crate::config::{Config, Repository};

/// Mode of a lock file that we make.
const LOCK_MODE: u32 = 0o644;
/// A lock that was removed by its holder is opened again so often before it counts as busy.
const LOCK_TRIES: usize = 8;

/// Why there is no replica to put anything into.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// A file.
    #[error(
        "{path}: cannot be read; is {repo} a replica here (`cvmfs_server add-replica`)? Else set `storage` in [repository.\"{repo}\"]"
    )]
    Read {
        /// Of which repository.
        repo: String,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The replica's configuration.
    #[error("{path}")]
    Conf {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: formats::server_conf::ServerConfError,
    },
    /// The bucket's configuration.
    #[error("{path}")]
    S3Conf {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: S3ConfError,
    },
    /// A gateway, or nothing that can be understood.
    #[error("{repo}: its storage is {text:?}, neither a directory nor a bucket")]
    Upstream {
        /// Of which repository.
        repo: String,
        /// What is said.
        text: String,
    },
    /// The storage.
    #[error("{repo}: its storage cannot be used")]
    Storage {
        /// Of which repository.
        repo: String,
        /// Why.
        source: StoreError,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    /// The repository's name.
    pub name: String,
    /// Where its objects lie.
    pub store: Arc<dyn ObjectStore>,
    /// What to call that.
    pub place: String,
    /// Where `cvmfs_server` has its locks, if it looks after this replica.
    pub spool: Option<PathBuf>,
}

impl Replica {
    /// Finds and opens a replica's storage.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub fn open(config: &Config, name: &str, said: &Repository) -> Result<Self, ReplicaError> {
        let conf = match &said.storage {
            Some(_) => None,
            None => Some(read_conf(config, name)?),
        };
        let upstream = match (&said.storage, &conf) {
            (Some(dir), _) if dir.starts_with('/') && !dir.contains(',') => Upstream::Local {
                tmp: Path::new(dir).join("data/txn"),
                storage: dir.into(),
            },
            (Some(text), _) => Upstream::parse(text).ok_or_else(|| ReplicaError::Upstream {
                repo: name.to_owned(),
                text: text.clone(),
            })?,
            (None, Some((path, conf))) => conf.upstream().map_err(|source| ReplicaError::Conf {
                path: path.clone(),
                source,
            })?,
            (None, None) => Upstream::Gateway {
                tmp: PathBuf::new(),
                url: String::new(),
            },
        };
        let (store, place) = open_storage(name, upstream)?;
        Ok(Self {
            name: name.to_owned(),
            store,
            place,
            spool: said.spool.clone().or_else(|| spool(conf.as_ref())),
        })
    }

    /// Holds off snapshots and garbage collections for as long as the value lives; none if one is
    /// running, or if nothing says where their lock is.
    ///
    /// # Errors
    /// Those of the system.
    pub fn hold_off(&self) -> io::Result<Option<Held>> {
        let Some(spool) = &self.spool else {
            return Ok(None);
        };
        let path = spool.join("is_updating.lock");
        for _ in 0..LOCK_TRIES {
            let file = open_lock(spool, &path)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
            // whoever releases it removes it; another may have a new one by now
            let ours = file.metadata()?;
            let is_ours =
                |there: &fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
            match fs::metadata(&path) {
                Ok(there) if is_ours(&there) => return Ok(Some(Held { _lock: file })),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// Nobody changes the replica's revisions while this lives. The file stays: removing a lock that
/// others wait for lets two in.
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

fn open_lock(spool: &Path, path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    let is_new = !path.exists();
    options.read(true).append(true).create(true).mode(LOCK_MODE);
    let file = options.open(path)?;
    // `cvmfs_server` may run as the replica's owner, who must be able to open it
    if is_new && let Some(owner) = store::Owner::of(File::open(spool)?)? {
        owner.take(&file)?;
    }
    Ok(file)
}

fn read_conf(config: &Config, name: &str) -> Result<(PathBuf, ServerConf), ReplicaError> {
    let etc = Path::new("etc/cvmfs/repositories.d")
        .join(name)
        .join("server.conf");
    let root = config.cvmfs_root.as_deref().unwrap_or(Path::new("/"));
    let path = root.join(etc);
    let bytes = fs::read(&path).map_err(|source| ReplicaError::Read {
        repo: name.to_owned(),
        path: path.clone(),
        source,
    })?;
    match ServerConf::parse(&bytes) {
        Ok(conf) => Ok((path, conf)),
        Err(source) => Err(ReplicaError::Conf { path, source }),
    }
}

fn spool(conf: Option<&(PathBuf, ServerConf)>) -> Option<PathBuf> {
    let (_, conf) = conf?;
    conf.get("CVMFS_SPOOL_DIR").map(PathBuf::from)
}

fn open_storage(
    name: &str,
    upstream: Upstream,
) -> Result<(Arc<dyn ObjectStore>, String), ReplicaError> {
    let storage = |source| ReplicaError::Storage {
        repo: name.to_owned(),
        source,
    };
    match upstream {
        Upstream::Local { storage: dir, .. } => {
            let store = DirStore::open(&dir, Durability::Batch).map_err(storage)?;
            Ok((Arc::new(store), dir.display().to_string()))
        }
        Upstream::S3 { tmp, alias, config } => {
            let bytes = fs::read(&config).map_err(|source| ReplicaError::Read {
                repo: name.to_owned(),
                path: config.clone(),
                source,
            })?;
            let conf = S3Conf::parse(&bytes).map_err(|source| ReplicaError::S3Conf {
                path: config.clone(),
                source,
            })?;
            let place = format!("s3://{}/{alias}", conf.bucket);
            let store = S3Store::open(conf, &alias, tmp).map_err(storage)?;
            Ok((Arc::new(store), place))
        }
        Upstream::Gateway { url, .. } => Err(ReplicaError::Upstream {
            repo: name.to_owned(),
            text: format!("gw,{url}"),
        }),
    }
}
