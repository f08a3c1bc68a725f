//! What is sent: small objects in a publisher's storage, and a plain copy of them.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use formats::compress::compress;
use formats::object::Compression;
use formats::warm::Listed;
use formats::{Algorithm, Hash, ObjectKind, ObjectName};
use rustix::fs::IFlags;
use store::{DirStore, Durability, ObjectStore};
use tempfile::TempDir;

/// Raw bytes of a file.
const FILE_BYTES: usize = 4000;

/// What the files hold.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Words, which pack to about a third.
    Text,
    /// What does not pack.
    Noise,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text => "files of 4 kB of text",
            Self::Noise => "files of 4 kB that do not pack",
        })
    }
}

/// Objects in a storage directory.
pub struct Tree {
    dir: PathBuf,
    pub storage: DirStore,
    pub objects: Vec<Listed>,
    /// Of all objects, as stored.
    pub bytes: u64,
}

/// Seconds of a plain copy.
pub struct Copied {
    /// Until it was written, into the page cache.
    pub written: f64,
    /// Until it was on disk.
    pub synced: f64,
}

/// Where everything lies, on a disk. Nothing of it is removed before the end: a filesystem searches
/// long for a free inode where many were freed a moment ago (ext4 leaves those alone for a minute).
pub struct Place {
    dir: TempDir,
    count: Cell<u32>,
}

impl Place {
    pub fn new() -> Self {
        let disk = std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = tempfile::tempdir_in(disk).expect("a temporary directory");
        // each directory below begins at a place of its own on the disk, where that can be had
        let opened = std::fs::File::open(dir.path()).expect("the directory");
        let _ = rustix::fs::ioctl_getflags(&opened)
            .and_then(|flags| rustix::fs::ioctl_setflags(&opened, flags | IFlags::TOPDIR));
        let count = Cell::default();
        Self { dir, count }
    }

    /// Another directory.
    pub fn another(&self) -> PathBuf {
        self.count.set(self.count.get() + 1);
        let path = self.dir.path().join(self.count.get().to_string());
        std::fs::create_dir(&path).expect("a directory");
        path
    }
}

/// Waits until nothing is left to be written, so that nobody pays for what came before.
pub fn settle(dir: &Path) {
    let dir = std::fs::File::open(dir).expect("the directory");
    rustix::fs::syncfs(dir).expect("a disk that takes everything");
}

fn content(kind: Kind, seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out = Vec::with_capacity(FILE_BYTES + 16);
    while out.len() < FILE_BYTES {
        match kind {
            Kind::Text => {
                let word = next() % 1_000_000;
                out.extend_from_slice(format!("word{word}, ").as_bytes());
            }
            Kind::Noise => out.extend_from_slice(&next().to_le_bytes()),
        }
    }
    out.truncate(FILE_BYTES);
    out
}

impl Tree {
    pub fn new(place: &Place, count: usize, kind: Kind) -> Self {
        let dir = place.another();
        let storage = DirStore::create(dir.join("srv"), Durability::Batch).expect("storage");
        let objects: Vec<Listed> = (0..count as u64)
            .map(|seed| {
                let bytes = compress(Compression::Zlib, &content(kind, seed));
                let hash = Hash::of(Algorithm::Sha1, &bytes);
                let name = ObjectName::new(hash, ObjectKind::Data);
                store::put(&storage, &name, &bytes).expect("room for the objects");
                Listed {
                    name,
                    bytes: bytes.len() as u64,
                }
            })
            .collect();
        let bytes = objects.iter().map(|listed| listed.bytes).sum();
        storage.sync().expect("a disk that takes everything");
        Self {
            dir,
            storage,
            objects,
            bytes,
        }
    }

    /// Copies the same files elsewhere on the disk.
    pub fn copy(&self, place: &Place) -> Copied {
        let to = place.another();
        settle(&to);
        let begun = Instant::now();
        let status = Command::new("cp")
            .arg("-a")
            .arg(self.dir.join("srv/data"))
            .arg(&to)
            .status()
            .expect("cp");
        assert!(status.success());
        let written = begun.elapsed().as_secs_f64();
        settle(&to);
        let synced = begun.elapsed().as_secs_f64();
        Copied { written, synced }
    }
}
