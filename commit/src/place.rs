//! Where a storage is: a directory of this machine, or a bucket.
//!
//! The same words as in `CVMFS_UPSTREAM_STORAGE`, and what is chosen for a new repository. Opened, it
//! is a store as any other; nothing here publishes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::s3_conf::{S3Conf, is_bucket};
use formats::server_conf::Upstream;
use store::{DirStore, Durability, ObjectStore, S3Store};

use crate::home::{HomeError, replace_file};

/// Longest part of a key that comes before a storage's files: S3's keys have 1024 bytes.
const ALIAS_BYTES_MAX: usize = 512;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A part of a bucket.
    Bucket(BucketPlace),
}

/// A part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    /// Which bucket, and how it is reached.
    pub conf_file: PathBuf,
    /// What each key begins with.
    pub alias: String,
    /// Where large objects grow before they are sent.
    pub tmp: PathBuf,
}

impl Place {
    /// The place that such a value names; none for a gateway's.
    #[must_use]
    pub fn of(upstream: Upstream) -> Option<Self> {
        match upstream {
            Upstream::Local { storage, .. } => Some(Self::Directory(storage)),
            Upstream::S3 { tmp, alias, config } => Some(Self::Bucket(BucketPlace {
                conf_file: config,
                alias,
                tmp,
            })),
            Upstream::Gateway { .. } => None,
        }
    }

    /// As a value of `CVMFS_UPSTREAM_STORAGE`.
    #[must_use]
    pub fn upstream(&self) -> String {
        match self {
            Self::Directory(dir) => format!("local,{0}/data/txn,{0}", dir.display()),
            Self::Bucket(place) => format!(
                "S3,{},{}@{}",
                place.tmp.display(),
                place.alias,
                place.conf_file.display()
            ),
        }
    }

    /// Opens it for publishing; `name` is the repository's, for messages.
    ///
    /// # Errors
    /// [`HomeError::Storage`], [`HomeError::Read`], [`HomeError::S3Conf`].
    pub fn open(&self, name: &str) -> Result<Arc<dyn ObjectStore>, HomeError> {
        match self {
            Self::Directory(dir) => match DirStore::open(dir, Durability::Batch) {
                Ok(store) => Ok(Arc::new(store)),
                Err(source) => Err(HomeError::Storage {
                    name: name.to_owned(),
                    source,
                }),
            },
            Self::Bucket(place) => Ok(Arc::new(place.open(name)?)),
        }
    }

    /// What to call it: the directory, or `s3://BUCKET/ALIAS`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Directory(dir) => dir.display().to_string(),
            Self::Bucket(place) => match place.conf() {
                Ok(conf) => format!("s3://{}/{}", conf.bucket, place.alias),
                // whoever opens it hears why
                Err(_) => format!("{} of {}", place.alias, place.conf_file.display()),
            },
        }
    }
}

impl BucketPlace {
    /// Opens it; nothing is asked of the server yet.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub fn open(&self, name: &str) -> Result<S3Store, HomeError> {
        let store = S3Store::open(self.conf()?, &self.alias, &self.tmp);
        store.map_err(|source| HomeError::Storage {
            name: name.to_owned(),
            source,
        })
    }

    /// Which bucket it is, and how it is reached; read afresh.
    ///
    /// # Errors
    /// [`HomeError::Read`], [`HomeError::S3Conf`].
    pub fn conf(&self) -> Result<S3Conf, HomeError> {
        read_conf(&self.conf_file)
    }
}

/// Reads which bucket it is.
fn read_conf(file: &Path) -> Result<S3Conf, HomeError> {
    let bytes = fs::read(file).map_err(|source| HomeError::Read {
        path: file.to_path_buf(),
        source,
    })?;
    S3Conf::parse(&bytes).map_err(|source| HomeError::S3Conf {
        path: file.to_path_buf(),
        source,
    })
}

/// A part of a bucket that a new repository shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBucket {
    bucket: String,
    alias: String,
    conf_file: Option<PathBuf>,
}

/// Why such a part of a bucket cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// No such address.
    #[error(
        "{0:?} is no part of a bucket; write s3://BUCKET/PREFIX, with letters, digits, '-', '_' and '.' (and '/' in the prefix)"
    )]
    Address(String),
    /// Another bucket than the configuration's.
    #[error(
        "the bucket is to be {wanted}, and {file} has CVMFS_S3_BUCKET={found}; make them agree"
    )]
    Differs {
        /// What was asked for.
        wanted: String,
        /// The configuration.
        file: PathBuf,
        /// What it says.
        found: String,
    },
    /// A path that no value of `CVMFS_UPSTREAM_STORAGE` can hold.
    #[error("{0}: its path must have neither ',' nor '@' in it; move or link it elsewhere")]
    Path(PathBuf),
    /// AWS's own configuration.
    #[error("AWS's configuration")]
    Standard(#[from] store::S3Error),
    /// The file.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl NewBucket {
    /// The part `address`, as in `s3://BUCKET/PREFIX`; without a prefix it is the repository's
    /// name. `conf_file` says how the bucket is reached; without it, AWS's own configuration.
    ///
    /// # Errors
    /// [`BucketError::Address`], [`BucketError::Path`].
    pub fn new(
        address: &str,
        repository: &str,
        conf_file: Option<PathBuf>,
    ) -> Result<Self, BucketError> {
        let bad = || BucketError::Address(address.to_owned());
        let place = address.strip_prefix("s3://").ok_or_else(bad)?;
        let (bucket, alias) = match place.trim_end_matches('/').split_once('/') {
            Some((bucket, alias)) => (bucket, alias),
            None => (place.trim_end_matches('/'), repository),
        };
        let part = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
        };
        if !is_bucket(bucket) || alias.len() > ALIAS_BYTES_MAX || !alias.split('/').all(part) {
            return Err(bad());
        }
        if let Some(file) = &conf_file
            && file
                .as_os_str()
                .as_encoded_bytes()
                .iter()
                .any(|b| b",@".contains(b))
        {
            return Err(BucketError::Path(file.clone()));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            alias: alias.to_owned(),
            conf_file,
        })
    }

    /// Where that is. A configuration that is not given is written into `conf_dir`.
    pub(crate) fn place(&self, conf_dir: &Path, tmp: PathBuf) -> Result<BucketPlace, BucketError> {
        let conf_file = match &self.conf_file {
            Some(file) => file.clone(),
            None => {
                let file = conf_dir.join("s3.conf");
                let conf = store::s3::standard_bucket(&self.bucket)?;
                let text = conf.render_place().map_err(|source| HomeError::S3Conf {
                    path: file.clone(),
                    source,
                })?;
                replace_file(&file, text.as_bytes(), 0o600)?;
                file
            }
        };
        let found = read_conf(&conf_file)?.bucket;
        if found != self.bucket {
            return Err(BucketError::Differs {
                wanted: self.bucket.clone(),
                file: conf_file,
                found,
            });
        }
        Ok(BucketPlace {
            conf_file,
            alias: self.alias.clone(),
            tmp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let new = |address| NewBucket::new(address, "a.example.org", None);
        for (address, bucket, alias) in [
            ("s3://b", "b", "a.example.org"),
            ("s3://b/", "b", "a.example.org"),
            ("s3://my.bucket/x/y_z/", "my.bucket", "x/y_z"),
        ] {
            let made = new(address).unwrap();
            assert_eq!((&*made.bucket, &*made.alias), (bucket, alias));
        }
        for bad in [
            "b/a",
            "s3:/b",
            "s3://",
            "s3:///a",
            "s3://b/../c",
            "s3://b//c",
            "s3://b/a,b",
            "s3://b/a@b",
            "s3://b/\"",
            "s3://b/ä",
            "S3://b/a",
        ] {
            assert!(matches!(new(bad), Err(BucketError::Address(_))), "{bad}");
        }
        let comma = NewBucket::new("s3://b", "a.b", Some("/etc/a,b".into()));
        assert!(matches!(comma, Err(BucketError::Path(_))));
    }

    #[test]
    fn places_are_written_as_they_are_read() {
        for text in ["local,/s/data/txn,/s", "S3,/tmp,sub/a.b@/etc/s3.conf"] {
            let place = Place::of(Upstream::parse(text).unwrap()).unwrap();
            assert_eq!(place.upstream(), text);
        }
        assert_eq!(
            Place::of(Upstream::parse("gw,/tmp,http://g").unwrap()),
            None
        );
    }
}
