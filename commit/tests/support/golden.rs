//! Golden repositories of `cvmfs_server` 2.12 (tests/golden/README.md), and all rows of a revision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formats::catalog::{Counters, Row};
use formats::entry::Kind;
use formats::hash::Hash;
use formats::object::ObjectName;
use formats::path::RepoPath;
use store::{RepoError, Repository, Revision, Walk};

/// Every folder that holds a repository.
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
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(name)
}

/// Runs `make-tree.sh` or `change-tree.sh` on a directory.
pub fn script(name: &str, directory: &Path) {
    let status = Command::new("bash")
        .arg(folder(name))
        .arg(directory)
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// The root catalog that a golden manifest names.
pub fn root_of(folder: &Path, version: &str) -> Hash {
    let bytes = std::fs::read(folder.join(format!("{version}.cvmfspublished"))).unwrap();
    let signed = formats::SignedManifest::parse(&bytes).unwrap();
    signed.manifest.root_catalog
}

/// A whole revision.
#[derive(Debug)]
pub struct Rows {
    /// By path, the parent's copy of mountpoints.
    pub rows: BTreeMap<RepoPath, Row>,
    /// The root row of every catalog, and its counters.
    pub catalogs: BTreeMap<RepoPath, (Row, Counters)>,
}

impl Rows {
    pub fn read(repo: &Arc<Repository>, root: &Hash) -> Self {
        let revision: Arc<Revision> = repo.revision(root).unwrap();
        let mut rows = BTreeMap::new();
        revision
            .walk::<RepoError>(&RepoPath::root(), &mut |path, row| {
                rows.insert(path.clone(), row.clone());
                Ok(Walk::Down)
            })
            .unwrap();
        let mut catalogs = BTreeMap::new();
        revision
            .walk_catalogs::<RepoError>(&RepoPath::root(), &mut |path, catalog| {
                let read = |catalog: &formats::Catalog| {
                    let row = catalog.lookup_path(path)?.unwrap();
                    Ok((row, catalog.counters()?))
                };
                catalogs.insert(path.clone(), catalog.with(read).unwrap());
                Ok(Walk::Down)
            })
            .unwrap();
        Self { rows, catalogs }
    }

    /// Data objects and chunks that the rows name.
    pub fn objects(&self) -> BTreeSet<ObjectName> {
        let regular = self.rows.values().filter_map(|row| row.entry.regular());
        regular
            .flat_map(|file| file.content.objects().collect::<Vec<_>>())
            .collect()
    }
}

/// What may differ at a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    Nothing,
    /// Its time.
    Mtime,
    /// Whether it is there at all.
    Row,
}

/// Lists what differs between an official revision and ours.
pub fn differences(official: &Rows, ours: &Rows, exempt: &dyn Fn(&str) -> Exempt) -> Vec<String> {
    let mut found = Vec::new();
    let paths: BTreeSet<&RepoPath> = official.rows.keys().chain(ours.rows.keys()).collect();
    for path in paths {
        let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let allowed = exempt(&name);
        if allowed == Exempt::Row {
            continue;
        }
        match (official.rows.get(path), ours.rows.get(path)) {
            (Some(a), Some(b)) if plain(a, allowed) == plain(b, allowed) => {}
            (Some(a), Some(b)) => {
                found.push(format!("{path}:\n  official {a:?}\n  ours     {b:?}"))
            }
            (Some(_), None) => found.push(format!("{path}: only in the official revision")),
            (None, _) => found.push(format!("{path}: only in ours")),
        }
    }
    let prefixes: BTreeSet<&RepoPath> = official
        .catalogs
        .keys()
        .chain(ours.catalogs.keys())
        .collect();
    for path in prefixes {
        let allowed = exempt(&String::from_utf8_lossy(path.as_bytes()));
        match (official.catalogs.get(path), ours.catalogs.get(path)) {
            (Some((a, _)), Some((b, _))) if plain(a, allowed) == plain(b, allowed) => {}
            (Some(_), Some(_)) => found.push(format!("{path}: root rows differ")),
            _ => found.push(format!("{path}: nested catalog on one side only")),
        }
    }
    found
}

fn plain(row: &Row, allowed: Exempt) -> Row {
    let mut row = row.clone();
    if allowed == Exempt::Mtime {
        row.entry.mtime = formats::Mtime::default();
    }
    // which number a group has is each publisher's own affair
    if let Kind::Regular(file) = &mut row.entry.kind {
        file.link_group = 0;
    }
    row
}
