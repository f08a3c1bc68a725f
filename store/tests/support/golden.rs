//! The golden repositories, made by the official tools (`tests/golden/README.md`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::trust::PublicKey;
use store::{DirStore, Durability, Limits, ObjectStore, Repository, Revision};

use super::shared;

pub const FOLDERS: [&str; 7] = [
    "sha1",
    "rmd160",
    "shake128",
    "uncompressed",
    "garbage-collectable",
    "mtime-ns",
    "autocatalogs",
];

/// A time at which the whitelists are valid: a day after they were made.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_300_000)
}

/// The folder of a golden repository.
pub fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(name)
}

pub fn fqrn(name: &str) -> String {
    let conf = std::fs::read_to_string(folder(name).join("server.conf")).unwrap();
    let line = conf
        .lines()
        .find_map(|l| l.strip_prefix("CVMFS_REPOSITORY_NAME="));
    line.unwrap().trim_matches('"').to_owned()
}

pub fn keys(name: &str) -> Vec<PublicKey> {
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(folder(name).join("keys")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "pub") {
            keys.push(PublicKey::from_pem(&std::fs::read(path).unwrap()).unwrap());
        }
    }
    assert_eq!(keys.len(), 1);
    keys
}

/// A private copy of a golden storage as it was after a version, 1 or 2.
pub fn storage(name: &str, version: u32) -> tempfile::TempDir {
    let from = folder(name);
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&from.join("storage"), dir.path());
    std::fs::copy(
        from.join(format!("v{version}.cvmfspublished")),
        dir.path().join(".cvmfspublished"),
    )
    .unwrap();
    dir
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A golden repository, opened.
pub struct Golden {
    pub repository: Arc<Repository>,
    _dir: tempfile::TempDir,
    _cache: tempfile::TempDir,
}

impl Golden {
    pub fn open(name: &str, version: u32) -> Self {
        let dir = storage(name, version);
        let store = shared(DirStore::open(dir.path(), Durability::Batch).unwrap());
        Self::over(name, dir, store)
    }

    /// With a store of the caller's making.
    pub fn over(name: &str, dir: tempfile::TempDir, store: Arc<dyn ObjectStore>) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(name, store, cache.path());
        Self {
            repository,
            _dir: dir,
            _cache: cache,
        }
    }

    pub fn revision(&self) -> Arc<Revision> {
        let head = self.repository.head(now()).unwrap();
        self.repository.revision_of(&head).unwrap()
    }
}

pub fn repository(name: &str, store: Arc<dyn ObjectStore>, cache: &Path) -> Arc<Repository> {
    let repository = Repository::new(fqrn(name), store, keys(name), cache, Limits::default());
    Arc::new(repository.unwrap())
}

/// One line of a listing: what the official client shows of a path.
#[derive(Debug)]
pub struct Line {
    pub path: Vec<u8>,
    pub fields: Vec<String>,
}

/// The listing of a version, by path in the order of a walk.
pub fn listing(name: &str, version: u32) -> Vec<Line> {
    let file = folder(name).join(format!("v{version}.listing.tsv"));
    let bytes = std::fs::read(file).unwrap();
    let mut lines: Vec<Line> = Vec::new();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        // a name may hold anything but a slash, so the other ten are counted from the end
        let mut fields: Vec<&[u8]> = line.rsplitn(11, |b| *b == b'\t').collect();
        fields.reverse();
        let path = if fields[0] == b"/" {
            vec![]
        } else {
            fields[0].to_vec()
        };
        let fields = fields[1..]
            .iter()
            .map(|f| String::from_utf8(f.to_vec()).unwrap());
        lines.push(Line {
            path,
            fields: fields.collect(),
        });
    }
    lines.sort_by_key(|line| formats::RepoPath::new(&line.path).unwrap());
    lines
}
