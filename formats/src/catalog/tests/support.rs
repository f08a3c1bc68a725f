//! Scratch directories, golden catalogs, and a look at a database without this crate's code.

use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::catalog::{Role, Row};
use crate::entry::{Entry, Kind, Mtime, Regular, Xattrs};
use crate::hash::{Algorithm, Hash};
use crate::object::{Compression, Content};
use crate::path::{PathHash, RepoPath};

pub const GOLDEN: [&str; 7] = [
    "autocatalogs",
    "garbage-collectable",
    "mtime-ns",
    "rmd160",
    "sha1",
    "shake128",
    "uncompressed",
];

pub fn golden_dir(repo: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(repo)
}

/// Unpacks a stored object of a golden repository.
pub fn unpack_object(repo: &str, storage_path: &str, to: &Path) {
    let packed = std::fs::File::open(golden_dir(repo).join("storage").join(storage_path)).unwrap();
    let mut bytes = Vec::new();
    crate::compress::decompress(Compression::Zlib, packed)
        .read_to_end(&mut bytes)
        .unwrap();
    std::fs::write(to, bytes).unwrap();
}

/// Every catalog of all golden repositories, both revisions, unpacked into `dir`: the repository,
/// the hash's text and the file.
pub fn golden_catalogs(dir: &Path) -> Vec<(&'static str, String, PathBuf)> {
    let mut found = Vec::new();
    for repo in GOLDEN {
        let objects = std::fs::read_to_string(golden_dir(repo).join("objects.txt")).unwrap();
        for path in objects.lines().filter(|line| line.ends_with('C')) {
            let hash = path["data/".len()..path.len() - 1].replace('/', "");
            let file = dir.join(format!("{repo}-{hash}"));
            unpack_object(repo, path, &file);
            found.push((repo, hash, file));
        }
    }
    assert!(found.len() > 50, "{}", found.len());
    found
}

/// All rows of a query, text as bytes, blobs in hex.
pub fn rows(file: &Path, sql: &str) -> Vec<Vec<String>> {
    let conn = Connection::open(file).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let show = |at| match row.get_ref(at).unwrap() {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(n) => n.to_string(),
            ValueRef::Real(x) => format!("real {x}"),
            ValueRef::Text(t) => format!("'{}'", t.escape_ascii()),
            ValueRef::Blob(b) => format!("X'{}'", hex::encode(b)),
        };
        found.push((0..columns).map(show).collect());
    }
    found
}

pub fn integer(file: &Path, sql: &str) -> i64 {
    Connection::open(file)
        .unwrap()
        .query_row(sql, [], |row| row.get(0))
        .unwrap()
}

/// Runs SQL on a file, with everything allowed that a stranger could do.
pub fn tamper(file: &Path, sql: &str) {
    let conn = Connection::open(file).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    conn.execute_batch(sql).unwrap();
}

pub fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

pub fn hash_of(text: &str) -> Hash {
    Hash::of(Algorithm::Sha1, text.as_bytes())
}

/// A row with plain metadata.
pub fn row(at: &str, kind: Kind) -> Row {
    let at = path(at);
    Row {
        path: at.path_hash(),
        parent: at.parent().map_or(PathHash::NONE, |p| p.path_hash()),
        name: at.name().map(|n| n.as_bytes().to_vec()).unwrap_or_default(),
        linkcount: if matches!(kind, Kind::Directory { .. }) {
            2
        } else {
            1
        },
        entry: Entry {
            kind,
            perm: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: 1_700_000_000,
                nanos: None,
            },
            xattrs: Xattrs::new(),
        },
        link_group: 0,
        role: Role::Plain,
        hidden: false,
    }
}

pub fn dir() -> Kind {
    Kind::Directory { size: 4096 }
}

pub fn file(content: &str) -> Kind {
    Kind::Regular(Regular {
        size: content.len() as u64,
        content: Content::Whole(hash_of(content)),
        compression: Compression::Zlib,
        external: false,
        direct_io: false,
        link_group: 0,
    })
}
