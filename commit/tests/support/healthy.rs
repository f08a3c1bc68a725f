//! What holds in every healthy revision, checked on all its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use formats::catalog::{Counts, Role};
use formats::hash::Hash;
use formats::path::{Name, RepoPath};
use store::Repository;

use super::golden::Rows;

/// Panics unless link counts, markers, mountpoints and all counters of a revision are right.
pub fn assert_healthy(repo: &Arc<Repository>, root: &Hash) -> Rows {
    let all = Rows::read(repo, root);
    let marker = Name::new(b".cvmfscatalog").unwrap();
    let mut subdirs: BTreeMap<RepoPath, u32> = BTreeMap::new();
    let mut groups: BTreeMap<(RepoPath, u32), u32> = BTreeMap::new();
    for (path, row) in &all.rows {
        let Some(parent) = path.parent() else {
            continue;
        };
        assert!(all.rows[&parent].entry.is_dir(), "{path} has no directory");
        if row.entry.is_dir() {
            *subdirs.entry(parent).or_default() += 1;
        } else if row.link_group != 0 {
            *groups.entry((parent, row.link_group)).or_default() += 1;
        }
    }
    for (path, row) in &all.rows {
        let expected = match (row.entry.is_dir(), row.link_group) {
            (true, _) => 2 + subdirs.get(path).copied().unwrap_or(0),
            (false, 0) => 1,
            (false, group) => groups[&(path.parent().unwrap(), group)],
        };
        assert_eq!(row.linkcount, expected, "link count of {path}");
        let is_mountpoint = row.role == Role::Mountpoint;
        let is_nested = !path.is_root() && all.catalogs.contains_key(path);
        let is_marked = all.rows.contains_key(&path.join(&marker)) && !path.is_root();
        assert_eq!(is_mountpoint, is_nested, "{path} is a mountpoint");
        assert_eq!(is_mountpoint, is_marked, "{path} has a marker");
    }
    assert_roots(&all);
    assert_counters(&all);
    all
}

fn assert_roots(all: &Rows) {
    for (path, (root, _)) in &all.catalogs {
        let mut expected = all.rows[path].clone();
        if !path.is_root() {
            expected.role = Role::Root;
        }
        assert_eq!(*root, expected, "root row of {path}");
    }
}

fn assert_counters(all: &Rows) {
    let prefixes: BTreeSet<&RepoPath> = all.catalogs.keys().collect();
    let home = |path: &RepoPath| {
        let mut at = path.clone();
        loop {
            if prefixes.contains(&at) {
                return at;
            }
            at = at.parent().unwrap();
        }
    };
    let mut own: BTreeMap<RepoPath, Counts> = BTreeMap::new();
    for (path, row) in &all.rows {
        let place = path.parent().map_or_else(RepoPath::root, |dir| home(&dir));
        *own.entry(place).or_default() += Counts::of(row);
    }
    for (path, (root, _)) in all.catalogs.iter().filter(|(path, _)| !path.is_root()) {
        *own.entry(path.clone()).or_default() += Counts::of(root);
    }
    for (path, (_, counters)) in &all.catalogs {
        assert_eq!(counters.self_, own[path], "counters of {path}");
        let mut below = Counts::default();
        for (inner, counts) in &own {
            if inner != path && inner.is_within(path) {
                below += *counts;
            }
        }
        assert_eq!(counters.subtree, below, "subtree counters of {path}");
    }
}
