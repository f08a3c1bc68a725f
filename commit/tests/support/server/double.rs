//! The double itself: this test binary, run again by a script that has the program's name.
//!
//! ```text
//! DIR/fault      VERB HOW      refuse  it ends with 1 and does nothing
//!                              late    it does everything, and ends with 1 in an open transaction
//!                              spoil   it publishes a file of another mode than it found
//!                              die     it is killed when half of it is done
//! ```

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commit::{NoProgress, OnConflict, Publisher, Request, Stratum0};
use formats::changeset::{ChangeSet, Op};
use formats::entry::{Entry, Kind, Mtime, Regular};
use formats::object::{Chunk, Compression, Content, ObjectKind, ObjectName};
use formats::path::RepoPath;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, Timespec, Timestamps, flock, mknodat, utimensat,
};
use store::{MemoryStore, Revision};

use super::SIGN;
use crate::support::repo::BOOT;
use crate::support::tree::changes_to;

const REFUSALS: &str = include_str!("../../data/cvmfs_server.refusals");
const GRAFT: &[u8] = b".cvmfsgraft-";

#[test]
#[ignore = "no test: what stands for cvmfs_server runs here"]
fn cvmfs_server() {
    let dir = std::env::var_os("DOUBLE_DIR").expect("a script sets it");
    let args = std::env::var("DOUBLE_ARGS").unwrap();
    let args: Vec<&str> = args.split(' ').collect();
    let code = Double::at(Path::new(&dir)).run(&args);
    std::process::exit(code);
}

pub(super) struct Double {
    dir: PathBuf,
    publisher: Stratum0,
    now: u64,
}

impl Double {
    pub(super) fn at(dir: &Path) -> Self {
        let mut names = fs::read_dir(dir.join("repositories")).unwrap();
        let name = names.next().unwrap().unwrap().file_name();
        let home = commit::RepoHome::embedded(dir, name.to_str().unwrap()).unwrap();
        let now = fs::read_to_string(dir.join("now")).unwrap();
        Self {
            publisher: Stratum0::open(home, &dir.join("cache of the double")).unwrap(),
            dir: dir.to_owned(),
            now: now.parse().unwrap(),
        }
    }

    fn union(&self) -> PathBuf {
        self.dir.join("union")
    }

    fn sign(&self) -> PathBuf {
        self.publisher.home().spool_dir.join(SIGN)
    }

    /// What the real one says, and its exit code.
    fn refuses(&self, verb: &str, when: &str) -> i32 {
        let lines = REFUSALS.lines().map(|line| line.split('\t'));
        let mut found = lines.map(Iterator::collect::<Vec<_>>);
        let found = found
            .find(|line| line[..2.min(line.len())] == [verb, when])
            .unwrap();
        eprintln!("{}", found[3].replace("NAME", self.publisher.name()));
        found[2].parse().unwrap()
    }

    /// What shall go wrong this time.
    fn fault(&self, verb: &str) -> String {
        let file = self.dir.join("fault");
        let text = fs::read_to_string(&file).unwrap_or_default();
        match text.split_once(' ') {
            Some((for_verb, how)) if for_verb == verb => {
                fs::remove_file(file).unwrap();
                how.to_owned()
            }
            _ => String::new(),
        }
    }

    fn run(&self, args: &[&str]) -> i32 {
        let verb = args[0];
        let is_open = self.sign().exists();
        match (verb, is_open) {
            ("transaction", true) => return self.refuses(verb, "open"),
            ("abort" | "publish", false) => return self.refuses(verb, "closed"),
            _ => {}
        }
        let fault = self.fault(verb);
        if fault == "refuse" {
            eprintln!("as the test wished");
            return 1;
        }
        match verb {
            "transaction" => {
                let options = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .clone();
                options.open(self.sign()).unwrap();
            }
            "abort" if self.is_publishing() => return self.refuses(verb, "publishing"),
            "abort" => self.close(),
            _ => return self.publish(&args[1..], &fault),
        }
        if fault == "die" {
            die();
        }
        0
    }

    fn close(&self) {
        fs::remove_file(self.sign()).unwrap();
        self.fill();
    }

    fn publish(&self, args: &[&str], fault: &str) -> i32 {
        let after = |flag| {
            let at = args.iter().position(|arg| *arg == flag)?;
            Some(args[at + 1])
        };
        if after("-a").is_some_and(|tag| self.has_tag(tag)) {
            return self.refuses("publish", "tag exists");
        }
        if self.is_publishing() {
            return self.refuses("publish", "publishing");
        }
        if fault == "spoil" {
            let file = self.union().join("spoiled");
            fs::set_permissions(file, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let staged = Arc::new(MemoryStore::new());
        let (head, _) = self.publisher.head(self.clock()).unwrap();
        let base = self.publisher.repository().revision_of(&head).unwrap();
        let params = self.publisher.params().unwrap();
        let name = self.publisher.name();
        let set = changes_to(&self.union(), name, base, staged.clone(), &params);
        let request = Request {
            change_set: self.grafted(set),
            snapshot: 1,
            objects: staged,
            tag: after("-a").map(str::to_owned),
            message: after("-m").map(pasted).unwrap_or_default(),
            allow_empty: true,
            on_conflict: OnConflict::Ours,
            queue: Arc::default(),
            turn: Duration::ZERO,
            patience: Duration::ZERO,
            warm: None,
            called_off: Arc::default(),
            boot_id: BOOT.to_owned(),
            clock: {
                let now = self.clock();
                Arc::new(move || now)
            },
        };
        let txn = tempfile::tempdir_in(&self.dir).unwrap();
        let outcome = commit::publish(&request, &self.publisher, txn.path(), &NoProgress);
        outcome.unwrap();
        match fault {
            "late" => return 1,
            "die" => die(),
            _ => self.close(),
        }
        0
    }

    fn has_tag(&self, name: &str) -> bool {
        let work = tempfile::tempdir_in(&self.dir).unwrap();
        let tags = commit::tags::list(&self.publisher, work.path(), self.clock()).unwrap();
        tags.iter().any(|tag| tag.name == name)
    }

    /// Somebody else is.
    fn is_publishing(&self) -> bool {
        let lock = self.publisher.home().spool_dir.join("is_publishing.lock");
        let lock = File::create(lock).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    fn clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.now)
    }

    /// Files beside markers get what the markers say; the markers go.
    fn grafted(&self, mut set: ChangeSet) -> ChangeSet {
        let mut grafts = BTreeMap::new();
        set.changes.retain(|change| {
            let (dir, name) = (change.path.parent().unwrap(), change.path.name().unwrap());
            let Some(of) = name.as_bytes().strip_prefix(GRAFT) else {
                return true;
            };
            let text = fs::read_to_string(self.in_union(&change.path)).unwrap();
            let of = formats::path::Name::new(of).unwrap();
            grafts.insert(dir.join(&of), graft(&text));
            false
        });
        for change in &mut set.changes {
            if let Op::Put { entry, .. } = &mut change.op
                && let Some(file) = grafts.remove(&change.path)
            {
                assert_eq!(entry.size(), 0, "{}: a graft of bytes", change.path);
                assert!(entry.xattrs.is_empty(), "{}: lost by a graft", change.path);
                entry.kind = Kind::Regular(file);
            }
        }
        assert_eq!(grafts, BTreeMap::new(), "markers without a new file");
        set
    }

    fn in_union(&self, path: &RepoPath) -> PathBuf {
        let relative = path.as_bytes().strip_prefix(b"/").unwrap_or(b"");
        self.union().join(OsStr::from_bytes(relative))
    }

    /// The union shows what is published.
    pub(super) fn fill(&self) {
        let _ = fs::remove_dir_all(self.union());
        fs::create_dir(self.union()).unwrap();
        let (head, _) = self.publisher.head(self.clock()).unwrap();
        let head = self.publisher.repository().revision_of(&head).unwrap();
        self.fill_dir(&head, &RepoPath::root());
        let scratch = self.publisher.home().spool_dir.join("scratch/current");
        fs::create_dir_all(scratch).unwrap();
    }

    fn fill_dir(&self, head: &Revision, dir: &RepoPath) {
        for row in head.list(dir).unwrap() {
            let path = dir.join(&formats::path::Name::new(&row.name).unwrap());
            let (place, entry) = (self.in_union(&path), &row.entry);
            let special = |kind, number| {
                mknodat(CWD, &place, kind, Mode::from_raw_mode(0o600), number).unwrap();
            };
            match &entry.kind {
                Kind::Directory { .. } => {
                    fs::create_dir(&place).unwrap();
                    self.fill_dir(head, &path);
                }
                Kind::Regular(file) => fs::write(&place, self.bytes(file)).unwrap(),
                Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &place).unwrap(),
                Kind::Fifo => special(FileType::Fifo, 0),
                Kind::Socket => special(FileType::Socket, 0),
                Kind::CharDevice(number) => special(FileType::CharacterDevice, *number),
                Kind::BlockDevice(number) => special(FileType::BlockDevice, *number),
            }
            dress(&place, entry);
        }
    }

    fn bytes(&self, file: &Regular) -> Vec<u8> {
        let mut bytes = Vec::new();
        let names: Vec<ObjectName> = match &file.content {
            Content::Whole(hash) => vec![ObjectName::new(*hash, ObjectKind::Data)],
            Content::Chunks { chunks, .. } => chunks
                .iter()
                .map(|chunk| ObjectName::new(chunk.hash, ObjectKind::Chunk))
                .collect(),
        };
        for name in names {
            let stored = self.publisher.storage().open(&name).unwrap();
            let mut read = formats::compress::decompress(file.compression, stored);
            read.read_to_end(&mut bytes).unwrap();
        }
        bytes
    }
}

fn dress(place: &Path, entry: &Entry) {
    if rustix::process::geteuid().is_root() {
        lchown(place, Some(entry.uid), Some(entry.gid)).unwrap();
    }
    if !matches!(entry.kind, Kind::Symlink(_)) {
        for (name, value) in &entry.xattrs {
            xattr::set(place, OsStr::from_bytes(name), value).unwrap();
        }
        let mode = fs::Permissions::from_mode(entry.perm.into());
        fs::set_permissions(place, mode).unwrap();
    }
    let Mtime { secs, nanos } = entry.mtime;
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos.unwrap_or_default().into(),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What a marker says [CVMFS `sync_item.cc:CheckGraft`].
fn graft(text: &str) -> Regular {
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let size: u64 = value("size").unwrap().parse().unwrap();
    let checksum: formats::hash::Hash = value("checksum").unwrap().parse().unwrap();
    let content = match value("chunk_offsets") {
        None => Content::Whole(checksum),
        Some(offsets) => {
            let offsets: Vec<u64> = offsets.split(',').map(|o| o.parse().unwrap()).collect();
            let ends = offsets[1..].iter().copied().chain([size]);
            let hashes = value("chunk_checksums").unwrap().split(',');
            let parts = offsets.iter().zip(ends).zip(hashes);
            let chunks: Vec<Chunk> = parts
                .map(|((offset, end), hash)| Chunk {
                    offset: *offset,
                    size: end.checked_sub(*offset).unwrap(),
                    hash: hash.parse().unwrap(),
                })
                .collect();
            assert_eq!(chunks.len(), offsets.len());
            let bulk = (!checksum.is_null()).then_some(checksum);
            Content::Chunks { bulk, chunks }
        }
    };
    Regular {
        size,
        content,
        compression: match value("compression").unwrap() {
            "none" => Compression::None,
            _ => Compression::Zlib,
        },
        external: false,
        direct_io: false,
        link_group: 0,
    }
}

/// A message as it comes out of the shell command that it is pasted into.
fn pasted(argument: &str) -> String {
    let command = format!("printf %s \"{argument}\"");
    let done = Command::new("sh").args(["-c", &command]).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

fn die() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    kill_process(getpid(), Signal::KILL).unwrap();
    loop {
        std::thread::park();
    }
}
