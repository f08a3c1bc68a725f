//! A repository in a bucket, behind a proxy that misbehaves on demand.

use std::path::{Path, PathBuf};

use commit::{BucketPlace, NewBucket, NewRepository, NewStorage, Place, RepoHome};

use super::repo::{Repo, fast_dir, wanted};
use super::s3::{BUCKET, S3Server};
use super::s3_proxy::S3Proxy;

/// What the keys begin with.
pub const PREFIX: &str = "sub/test.example.org";

/// Dropped in this order: nothing asks a server that is gone.
pub struct InBucket {
    pub repo: Repo,
    pub proxy: S3Proxy,
    pub server: S3Server,
}

/// A server with an empty bucket, and where to have a repository.
pub struct Ground {
    pub dir: tempfile::TempDir,
    pub proxy: S3Proxy,
    pub server: S3Server,
    pub conf_file: PathBuf,
}

impl Ground {
    /// With more lines of `s3.conf`; a request is made again at most once.
    pub fn new(more: &str) -> Self {
        let dir = fast_dir();
        let server = S3Server::start(&dir.path().join("server"));
        let proxy = S3Proxy::start(server.port);
        let conf_file = dir.path().join("s3.conf");
        let more = format!("CVMFS_S3_MAX_RETRIES=1\nCVMFS_S3_TIMEOUT=5\n{more}");
        std::fs::write(&conf_file, server.conf_at(proxy.port, &more)).unwrap();
        Self {
            dir,
            proxy,
            server,
            conf_file,
        }
    }

    /// A repository at this address of the bucket.
    pub fn wanted(&self, address: &str, creates: bool, settings: &[(&str, &str)]) -> NewRepository {
        let wanted = wanted(settings);
        let conf_file = Some(self.conf_file.clone());
        let bucket = NewBucket::new(address, &wanted.name, conf_file).unwrap();
        NewRepository {
            storage: Some(NewStorage::Bucket(bucket, creates)),
            ..wanted
        }
    }

    /// What the server keeps below the prefix.
    pub fn kept(&self) -> PathBuf {
        self.dir.path().join("server").join(BUCKET).join(PREFIX)
    }
}

/// The address of the tests' repository.
pub fn address() -> String {
    format!("s3://{BUCKET}/{PREFIX}")
}

impl InBucket {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// With other lines of `server.conf`.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let ground = Ground::new("");
        let wanted = ground.wanted(&address(), false, settings);
        let home = commit::mkfs(ground.dir.path(), &wanted, Repo::begin()).unwrap();
        Self::of(ground, home)
    }

    /// One that is there.
    pub fn of(ground: Ground, home: RepoHome) -> Self {
        let Ground {
            dir, proxy, server, ..
        } = ground;
        Self {
            repo: Repo::of(dir, home),
            proxy,
            server,
        }
    }

    /// Where clients read it: the server itself, without a key.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/{BUCKET}/{PREFIX}", self.server.port)
    }

    /// Where it is.
    pub fn place(&self) -> BucketPlace {
        match self.repo.publisher.home().place().unwrap() {
            Place::Bucket(place) => place,
            place @ Place::Directory(_) => panic!("{place:?}"),
        }
    }

    /// What the server keeps below the prefix.
    pub fn kept(&self) -> PathBuf {
        self.repo
            .dir
            .path()
            .join("server")
            .join(BUCKET)
            .join(PREFIX)
    }
}

/// Files below a directory.
pub fn files(below: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(below) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push(path),
        }
    }
    files
}
