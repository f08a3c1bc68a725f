//! Where one repository's publisher keeps its things.
//!
//! ```text
//! made by prepub, below the state directory        made by cvmfs_server
//! repositories/REPO/server.conf                    /etc/cvmfs/repositories.d/REPO/server.conf
//! keys/REPO.{masterkey,key,crt,pub}                /etc/cvmfs/keys/REPO.{masterkey,key,crt,pub}
//! spool/REPO/reflog.chksum                         /var/spool/cvmfs/REPO/reflog.chksum
//! spool/REPO/is_publishing.lock                    /var/spool/cvmfs/REPO/is_publishing.lock
//! srv/cvmfs/REPO/, or a bucket                     as CVMFS_UPSTREAM_STORAGE says
//! ```
//!
//! Paths and parsing only: nothing here publishes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::S3ConfError;
use formats::path::is_repository_name;
use formats::server_conf::{Params, ServerConf, ServerConfError};
use formats::trust::{Certificate, PrivateKey, PublicKey, TrustError};
use store::{ObjectStore, Owner, StoreError};

use crate::place::Place;

/// Why a repository's things cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file of it.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such repository.
    #[error(
        "no repository {name} is registered here ({conf} is missing); make it with `prepub mkfs {name}`"
    )]
    Unknown {
        /// Its name.
        name: String,
        /// Where its configuration would be.
        conf: PathBuf,
    },
    /// Its configuration.
    #[error("{path}")]
    Conf {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ServerConfError,
    },
    /// What says where its bucket is.
    #[error("{path}")]
    S3Conf {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: S3ConfError,
    },
    /// A key or certificate.
    #[error("{path}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
    /// Its storage.
    #[error("the storage of {name}")]
    Storage {
        /// Of which repository.
        name: String,
        /// What is wrong.
        source: StoreError,
    },
    /// Storage of a kind that this publisher cannot write.
    #[error("{name} keeps its storage in {kind}, which the stratum0 publisher cannot write")]
    Upstream {
        /// Of which repository.
        name: String,
        /// What kind.
        kind: &'static str,
    },
    /// A bucket where there has to be a directory.
    #[error("{name} keeps its storage in a bucket, which is no directory")]
    NoDirectory {
        /// Of which repository.
        name: String,
    },
    /// A name that cannot be a repository's.
    #[error(
        "{0:?} cannot be the name of a repository: letters, digits and - in labels joined by dots, at least two, 60 bytes at most (like software.example.org)"
    )]
    BadName(String),
}

/// Checks a repository's fully qualified name.
///
/// # Errors
/// [`HomeError::BadName`].
pub fn check_name(name: &str) -> Result<(), HomeError> {
    match is_repository_name(name) {
        true => Ok(()),
        false => Err(HomeError::BadName(name.to_owned())),
    }
}

/// The places of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoHome {
    /// Its fully qualified name.
    pub name: String,
    /// Its parameters.
    pub conf_file: PathBuf,
    /// The directory of its keys.
    pub keys_dir: PathBuf,
    /// The reflog's checksum and the locks.
    pub spool_dir: PathBuf,
    /// Made by `cvmfs_server`, which has to be kept out and left able to go on.
    pub is_foreign: bool,
}

/// Which key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// Signs whitelists; private.
    MasterKey,
    /// Signs manifests; private.
    Key,
    /// Goes with [`KeyFile::Key`].
    Certificate,
    /// The public half of [`KeyFile::MasterKey`].
    Public,
}

impl KeyFile {
    fn suffix(self) -> &'static str {
        match self {
            Self::MasterKey => "masterkey",
            Self::Key => "key",
            Self::Certificate => "crt",
            Self::Public => "pub",
        }
    }
}

impl RepoHome {
    /// The places of a repository that prepub made, or will make.
    ///
    /// # Errors
    /// [`HomeError::BadName`].
    pub fn embedded(state_dir: &Path, name: &str) -> Result<Self, HomeError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            conf_file: state_dir
                .join("repositories")
                .join(name)
                .join("server.conf"),
            keys_dir: state_dir.join("keys"),
            spool_dir: state_dir.join("spool").join(name),
            is_foreign: false,
        })
    }

    /// The places of a repository that `cvmfs_server` made. `root` is `/` but in tests.
    ///
    /// # Errors
    /// [`HomeError::BadName`].
    pub fn official(root: &Path, name: &str) -> Result<Self, HomeError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            conf_file: root
                .join("etc/cvmfs/repositories.d")
                .join(name)
                .join("server.conf"),
            keys_dir: root.join("etc/cvmfs/keys"),
            spool_dir: root.join("var/spool/cvmfs").join(name),
            is_foreign: true,
        })
    }

    /// True if the repository is registered.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.conf_file.exists()
    }

    /// The parameters, read afresh.
    ///
    /// # Errors
    /// [`HomeError::Unknown`], [`HomeError::Conf`].
    pub fn conf(&self) -> Result<ServerConf, HomeError> {
        let bytes = fs::read(&self.conf_file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => HomeError::Unknown {
                name: self.name.clone(),
                conf: self.conf_file.clone(),
            },
            _ => HomeError::Read {
                path: self.conf_file.clone(),
                source,
            },
        })?;
        ServerConf::parse(&bytes).map_err(|source| HomeError::Conf {
            path: self.conf_file.clone(),
            source,
        })
    }

    /// The typed parameters, read afresh.
    ///
    /// # Errors
    /// As [`RepoHome::conf`].
    pub fn params(&self) -> Result<Params, HomeError> {
        self.conf()?.params().map_err(|source| HomeError::Conf {
            path: self.conf_file.clone(),
            source,
        })
    }

    /// Where the storage is.
    ///
    /// # Errors
    /// [`HomeError::Upstream`] for one that a gateway has.
    pub fn place(&self) -> Result<Place, HomeError> {
        let upstream = self.conf()?.upstream().map_err(|source| HomeError::Conf {
            path: self.conf_file.clone(),
            source,
        })?;
        Place::of(upstream).ok_or_else(|| HomeError::Upstream {
            name: self.name.clone(),
            kind: "a gateway's care",
        })
    }

    /// The directory that the storage lies in.
    ///
    /// # Errors
    /// [`HomeError::Upstream`], [`HomeError::NoDirectory`] for any but a local storage.
    pub fn storage_dir(&self) -> Result<PathBuf, HomeError> {
        match self.place()? {
            Place::Directory(dir) => Ok(dir),
            Place::Bucket(_) => Err(HomeError::NoDirectory {
                name: self.name.clone(),
            }),
        }
    }

    /// Opens the storage for publishing.
    ///
    /// # Errors
    /// [`HomeError::Storage`].
    pub fn storage(&self) -> Result<Arc<dyn ObjectStore>, HomeError> {
        self.place()?.open(&self.name)
    }

    /// Where a key lies.
    #[must_use]
    pub fn key_file(&self, which: KeyFile) -> PathBuf {
        self.keys_dir
            .join(format!("{}.{}", self.name, which.suffix()))
    }

    fn read_key(&self, which: KeyFile) -> Result<(PathBuf, Vec<u8>), HomeError> {
        let path = self.key_file(which);
        let bytes = read(&path)?;
        Ok((path, bytes))
    }

    /// A private key.
    ///
    /// # Errors
    /// [`HomeError::Read`], [`HomeError::Key`].
    pub fn private_key(&self, which: KeyFile) -> Result<PrivateKey, HomeError> {
        let (path, pem) = self.read_key(which)?;
        PrivateKey::from_pem(&pem).map_err(|source| HomeError::Key { path, source })
    }

    /// The certificate that goes with manifests.
    ///
    /// # Errors
    /// [`HomeError::Read`], [`HomeError::Key`].
    pub fn certificate(&self) -> Result<Certificate, HomeError> {
        let (path, pem) = self.read_key(KeyFile::Certificate)?;
        Certificate::from_pem(&pem).map_err(|source| HomeError::Key { path, source })
    }

    /// What clients trust: the public key, or those that `client.conf` names beside
    /// `server.conf`.
    ///
    /// # Errors
    /// [`HomeError::Read`], [`HomeError::Conf`], [`HomeError::Key`].
    pub fn public_keys(&self) -> Result<Vec<PublicKey>, HomeError> {
        let read = |path: PathBuf| {
            let pem = read(&path)?;
            PublicKey::from_pem(&pem).map_err(|source| HomeError::Key { path, source })
        };
        match self
            .client_conf()?
            .as_ref()
            .and_then(|conf| conf.get("CVMFS_PUBLIC_KEY"))
        {
            Some(files) => files.split(':').map(|file| read(file.into())).collect(),
            None => Ok(vec![read(self.key_file(KeyFile::Public))?]),
        }
    }

    /// How `cvmfs_server` itself mounts the repository; none where prepub made it.
    fn client_conf(&self) -> Result<Option<ServerConf>, HomeError> {
        let path = self.conf_file.with_file_name("client.conf");
        if !self.is_foreign || !path.exists() {
            return Ok(None);
        }
        match ServerConf::parse(&read(&path)?) {
            Ok(conf) => Ok(Some(conf)),
            Err(source) => Err(HomeError::Conf { path, source }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HomeError> {
    fs::read(path).map_err(|source| HomeError::Read {
        path: path.to_path_buf(),
        source,
    })
}

/// Replaces a small file: at every instant it is the old or the new one, and when this returns it
/// survives power loss. It is the directory's owner's, where root writes it.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let write = |source| HomeError::Write {
        path: path.to_path_buf(),
        source,
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(write)?;
    file.write_all(bytes).map_err(write)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))
        .map_err(write)?;
    let dir = fs::File::open(dir).map_err(write)?;
    if let Some(owner) = Owner::of(&dir).map_err(|e| write(e.into()))? {
        owner.take(file.as_file()).map_err(|e| write(e.into()))?;
    }
    file.as_file().sync_all().map_err(write)?;
    file.persist(path).map_err(|failed| write(failed.error))?;
    dir.sync_all().map_err(write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a.b", "software.example.org", "x-1.y_2.z"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "", "a", "a..b", ".a.b", "a/b.c", "a b.c", "-a.b", "ä.b", "a.b\n",
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
