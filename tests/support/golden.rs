//! Golden repositories, made by `cvmfs_server` 2.12 (tests/golden/README.md), and how to compare
//! ours with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use formats::catalog::{Catalog, Role, Row};
use formats::{Compression, Hash, Kind, ObjectKind, ObjectName, PathHash, RepoPath};

use super::workspace_root;

/// Every folder of tests/golden that holds a repository.
pub const FOLDERS: [&str; 7] = [
    "sha1",
    "rmd160",
    "shake128",
    "uncompressed",
    "garbage-collectable",
    "mtime-ns",
    "autocatalogs",
];

pub fn folder(name: &str) -> PathBuf {
    workspace_root().join("tests/golden").join(name)
}

/// Runs `make-tree.sh` or `change-tree.sh` on a directory.
#[track_caller]
pub fn script(name: &str, directory: &Path) {
    let status = Command::new("bash")
        .arg(workspace_root().join("tests/golden").join(name))
        .arg(directory)
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// The value of one letter of a manifest.
pub fn manifest_field(manifest: &[u8], letter: u8) -> Option<String> {
    manifest
        .split(|b| *b == b'\n')
        .take_while(|line| *line != b"--")
        .find(|line| line.first() == Some(&letter))
        .map(|line| String::from_utf8_lossy(&line[1..]).into_owned())
}

/// A whole revision: every row by path hash, and where its catalogs begin.
pub struct Revision {
    pub rows: BTreeMap<PathHash, Vec<Row>>,
    pub catalogs: BTreeSet<RepoPath>,
}

/// Reads every catalog of a revision from a storage directory.
pub fn read_revision(storage: &Path, root: &Hash) -> Revision {
    let mut revision = Revision {
        rows: BTreeMap::new(),
        catalogs: BTreeSet::new(),
    };
    let scratch = tempfile::tempdir().unwrap();
    let mut pending = vec![*root];
    while let Some(hash) = pending.pop() {
        let name = ObjectName::new(hash, ObjectKind::Catalog);
        let stored = fs::File::open(storage.join(name.storage_path()))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut bytes = Vec::new();
        formats::compress::decompress(Compression::Zlib, stored)
            .read_to_end(&mut bytes)
            .unwrap();
        let file = scratch.path().join(name.to_string());
        fs::write(&file, bytes).unwrap();
        let catalog = Catalog::open(&file).unwrap();
        revision.catalogs.insert(catalog.root_prefix().clone());
        catalog
            .for_each_row(&mut |row| {
                revision.rows.entry(row.path).or_default().push(row);
                Ok(())
            })
            .unwrap();
        pending.extend(
            catalog
                .nested()
                .unwrap()
                .into_iter()
                .map(|nested| nested.hash),
        );
    }
    for rows in revision.rows.values_mut() {
        rows.sort_by_key(|row| row.role == Role::Root);
    }
    revision
}

impl Revision {
    /// Data objects and chunks that the rows name.
    pub fn objects(&self) -> BTreeSet<ObjectName> {
        let regular = self
            .rows
            .values()
            .flatten()
            .filter_map(|row| row.entry.regular());
        regular
            .flat_map(|file| file.content.objects().collect::<Vec<_>>())
            .collect()
    }
}

/// Lists what differs between an official revision and ours. `exempt` says of a path's official
/// row what may differ; each use has its reason at the call.
pub fn differences(
    official: &Revision,
    ours: &Revision,
    paths: &BTreeMap<PathHash, String>,
    exempt: &dyn Fn(&str) -> Exempt,
) -> Vec<String> {
    let mut out = Vec::new();
    let unknown = String::from("(unknown path)");
    for hash in official
        .rows
        .keys()
        .chain(ours.rows.keys())
        .collect::<BTreeSet<_>>()
    {
        let path = paths.get(hash).unwrap_or(&unknown);
        let allowed = exempt(path);
        if allowed == Exempt::Row {
            continue;
        }
        match (official.rows.get(hash), ours.rows.get(hash)) {
            (Some(a), Some(b)) => {
                let (mut a, mut b) = (a.clone(), b.clone());
                for row in a.iter_mut().chain(b.iter_mut()) {
                    if allowed == Exempt::Mtime {
                        row.entry.mtime = formats::Mtime::default();
                    }
                    // which number a group has is each publisher's own affair
                    if let Kind::Regular(file) = &mut row.entry.kind {
                        file.link_group = 0;
                    }
                }
                if a != b {
                    out.push(format!("{path}:\n  official {a:?}\n  ours     {b:?}"));
                }
            }
            (Some(_), None) => out.push(format!("{path}: only in the official revision")),
            (None, _) => out.push(format!("{path}: only in ours")),
        }
    }
    for path in official.catalogs.symmetric_difference(&ours.catalogs) {
        out.push(format!("{path}: nested catalog on one side only"));
    }
    out
}

/// What may differ at a path.
#[derive(PartialEq, Eq)]
pub enum Exempt {
    Nothing,
    Mtime,
    Row,
}

/// Path hashes of everything in a directory tree, and of what the publishers add.
pub fn path_names(tree: &Path, more: &[&str]) -> BTreeMap<PathHash, String> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = BTreeMap::new();
    for entry in walkdir::WalkDir::new(tree) {
        let entry = entry.unwrap();
        let relative = entry
            .path()
            .strip_prefix(tree)
            .unwrap()
            .as_os_str()
            .as_bytes();
        let path = if relative.is_empty() {
            Vec::new()
        } else {
            [b"/", relative].concat()
        };
        let marker = [path.as_slice(), b"/.cvmfscatalog"].concat();
        let auto = [path.as_slice(), b"/.cvmfsautocatalog"].concat();
        for p in [path, marker, auto] {
            names.insert(PathHash::of(&p), String::from_utf8_lossy(&p).into_owned());
        }
    }
    for path in more {
        names.insert(PathHash::of(path.as_bytes()), (*path).to_owned());
    }
    names
}
