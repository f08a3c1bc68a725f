//! What is published, read as a client reads it, and judged by `check`.
//!
//! Knows the repository's files only, never a stage or a mount.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::SystemTime;

use commit::RepoHome;
use commit::check::{Options, Subject, Watch, check};
use commit::records::reflog_checksum;
use formats::catalog::Row;
use formats::{Hash, Regular, RepoPath};
use store::revision::Walk;
use store::{ContentCache, ContentLimits, Limits, RepoError, Repository};

use super::judge::Observed;
use super::model::Kind;
use super::ops::Path;

/// A repository's storage.
pub struct Reader {
    home: RepoHome,
    repository: Arc<Repository>,
    contents: ContentCache,
    scratch: std::path::PathBuf,
    checked: Option<Hash>,
}

struct Quiet;

impl Watch for Quiet {
    fn checked(&self, _catalogs: u64, _rows: u64, _objects: u64) {}
}

impl Reader {
    /// Opens it, with caches of its own in `scratch`.
    pub fn new(home: RepoHome, scratch: &FilePath) -> Self {
        let storage = home.storage().unwrap();
        let keys = home.public_keys().unwrap();
        let catalogs = scratch.join("catalogs");
        let limits = Limits::default();
        let repository = Repository::new(
            home.name.clone(),
            Arc::clone(&storage),
            keys,
            catalogs,
            limits,
        );
        let contents = scratch.join("contents");
        Self {
            home,
            repository: Arc::new(repository.unwrap()),
            contents: ContentCache::new(storage, contents, ContentLimits::default()).unwrap(),
            scratch: scratch.to_owned(),
            checked: None,
        }
    }

    /// The newest revision: its number, and everything in it.
    pub fn read(&self) -> (u64, BTreeMap<Path, Observed>) {
        let head = self.repository.head(SystemTime::now()).unwrap();
        let revision = self.repository.revision_of(&head).unwrap();
        let mut found = BTreeMap::new();
        let all = revision.walk::<RepoError>(&RepoPath::root(), &mut |path, row| {
            let below = path.as_bytes().strip_prefix(b"/").unwrap_or_default();
            found.insert(Path(below.to_vec()), self.observe(row));
            Ok(Walk::Down)
        });
        all.unwrap();
        (head.manifest().revision, found)
    }

    fn observe(&self, row: &Row) -> Observed {
        let entry = &row.entry;
        Observed {
            kind: match &entry.kind {
                formats::Kind::Directory { .. } => Kind::Directory,
                formats::Kind::Regular(file) => Kind::Regular(Arc::new(self.content(file))),
                formats::Kind::Symlink(target) => Kind::Symlink(target.clone()),
                formats::Kind::Fifo => Kind::Fifo,
                formats::Kind::Socket => Kind::Socket,
                formats::Kind::CharDevice(rdev) => Kind::CharDevice(*rdev),
                formats::Kind::BlockDevice(rdev) => Kind::BlockDevice(*rdev),
            },
            perm: entry.perm,
            uid: entry.uid,
            gid: entry.gid,
            nlink: row.linkcount,
            size: entry.size(),
            mtime: (entry.mtime.secs, entry.mtime.nanos.unwrap_or(0)),
            xattrs: entry.xattrs.clone(),
            ino: 0,
        }
    }

    fn content(&self, file: &Regular) -> Vec<u8> {
        let content = self.contents.open(file).unwrap();
        // more than there is, so that an end that comes too late is seen
        let mut bytes = vec![0; usize::try_from(file.size).unwrap() + 1];
        let mut done = 0;
        loop {
            let n = content.read_at(&mut bytes[done..], done as u64).unwrap();
            done += n;
            if n == 0 || done == bytes.len() {
                break;
            }
        }
        bytes.truncate(done);
        bytes
    }

    /// What `check` finds in a revision that it has not seen yet.
    pub fn findings(&mut self) -> Vec<String> {
        let head = self.repository.head(SystemTime::now()).unwrap();
        let root = head.manifest().root_catalog;
        if self.checked == Some(root) {
            return Vec::new();
        }
        self.checked = Some(root);
        let storage = self.home.storage().unwrap();
        let subject = Subject {
            repository: &self.repository,
            reflog_checksum: reflog_checksum(storage.as_ref(), &self.home.spool_dir).unwrap(),
            scratch: &self.scratch,
            now: SystemTime::now(),
        };
        let report = check(&subject, Options { data: false }, &Quiet);
        let findings = report.findings.iter();
        findings
            .map(|f| format!("check, rule {}: {}: {}", f.rule, f.subject, f.problem))
            .collect()
    }
}

/// Sets up a repository below a state directory.
pub fn make(state: &FilePath, name: &str, settings: &[(String, String)], seed: u64) -> RepoHome {
    use formats::hash::Algorithm;
    use formats::object::Compression;
    let algorithms = [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128];
    let wanted = commit::NewRepository {
        name: name.to_owned(),
        storage: None,
        keys: Some(keys(name).to_owned()),
        algorithm: algorithms[usize::try_from(seed % 3).unwrap()],
        compression: match seed.is_multiple_of(4) {
            true => Compression::None,
            false => Compression::Zlib,
        },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        url: format!("http://127.0.0.1:8330/cvmfs/{name}"),
        settings: settings.to_vec(),
    };
    commit::mkfs(state, &wanted, SystemTime::now()).unwrap()
}

/// Parameters that differ from seed to seed; small chunks, so that many files have several.
pub fn settings(seed: u64) -> Vec<(String, String)> {
    let mut settings = vec![("CVMFS_ENABLE_MTIME_NS", (seed % 5 < 2).to_string())];
    if !seed.is_multiple_of(7) {
        let sizes = ["3000", "8000", "20000"];
        let keys = [
            "CVMFS_MIN_CHUNK_SIZE",
            "CVMFS_AVG_CHUNK_SIZE",
            "CVMFS_MAX_CHUNK_SIZE",
        ];
        settings.extend(keys.into_iter().zip(sizes.map(str::to_owned)));
    }
    let owned = settings.into_iter();
    owned.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Keys that all runs of this process share: making some takes a second.
fn keys(name: &str) -> &'static FilePath {
    static KEYS: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    let dir = KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let ring = formats::trust::generate_keys(name, SystemTime::UNIX_EPOCH).unwrap();
        for (suffix, bytes) in [
            ("masterkey", ring.master_key),
            ("key", ring.key),
            ("crt", ring.certificate),
            ("pub", ring.public),
        ] {
            std::fs::write(dir.path().join(format!("{name}.{suffix}")), bytes).unwrap();
        }
        dir
    });
    dir.path()
}
