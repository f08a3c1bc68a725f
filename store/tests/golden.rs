//! Every golden repository, at either revision, is read as the official client reads it.

use std::collections::BTreeMap;

use formats::{Kind, ObjectKind, RepoPath, Role, Row};
use store::{ContentCache, ContentLimits, RepoError, Revision, Walk};

use crate::support::golden::{FOLDERS, Golden, Line, listing, now};

/// The only row that differs from what the client shows: it expands `$(VAR)` in link targets.
const VARIANT_LINK: &[u8] = b"/link_variant";

fn walked(revision: &Revision) -> Vec<(RepoPath, Row)> {
    let mut rows = Vec::new();
    revision
        .walk::<RepoError>(&RepoPath::root(), &mut |path, row| {
            rows.push((path.clone(), row.clone()));
            Ok(Walk::Down)
        })
        .unwrap();
    rows
}

/// The fields of a listing that do not need the content.
fn describe(path: &RepoPath, row: &Row) -> Vec<String> {
    let entry = &row.entry;
    let dash = || "-".to_owned();
    let device = |rdev: u64| {
        let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
        format!("{major}:{minor}")
    };
    let (kind, size, nlink, target) = match &entry.kind {
        Kind::Directory { .. } => ("d", dash(), dash(), dash()),
        Kind::Regular(file) => (
            "f",
            file.size.to_string(),
            row.linkcount.to_string(),
            dash(),
        ),
        Kind::Symlink(target) => {
            let text = String::from_utf8(target.clone()).unwrap();
            ("l", target.len().to_string(), dash(), text)
        }
        Kind::Fifo => ("p", dash(), dash(), dash()),
        Kind::Socket => ("s", dash(), dash(), dash()),
        Kind::CharDevice(rdev) => ("c", dash(), dash(), device(*rdev)),
        Kind::BlockDevice(rdev) => ("b", dash(), dash(), device(*rdev)),
    };
    let xattrs: Vec<String> = entry
        .xattrs
        .iter()
        .map(|(key, value)| {
            let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
            format!("{}={hex}", String::from_utf8_lossy(key))
        })
        .collect();
    let xattrs = if xattrs.is_empty() {
        dash()
    } else {
        xattrs.join(",")
    };
    assert!(!path.as_bytes().ends_with(b"/"));
    vec![
        kind.to_owned(),
        format!("{:o}", entry.perm),
        entry.uid.to_string(),
        entry.gid.to_string(),
        size,
        entry.mtime.secs.to_string(),
        nlink,
        target,
        xattrs,
    ]
}

fn without_content(line: &Line) -> Vec<String> {
    let mut fields = line.fields.clone();
    fields.remove(8);
    fields
}

fn compare(folder: &str, version: u32) {
    let golden = Golden::open(folder, version);
    let revision = golden.revision();
    let (rows, lines) = (walked(&revision), listing(folder, version));
    let paths = |p: &[u8]| String::from_utf8_lossy(p).into_owned();
    let ours: Vec<_> = rows.iter().map(|(p, _)| paths(p.as_bytes())).collect();
    let theirs: Vec<_> = lines.iter().map(|l| paths(&l.path)).collect();
    assert_eq!(ours, theirs, "{folder} v{version}");
    for ((path, row), line) in rows.iter().zip(&lines) {
        let (mut ours, mut theirs) = (describe(path, row), without_content(line));
        if line.path == VARIANT_LINK {
            for fields in [&mut ours, &mut theirs] {
                fields[4].clear();
                fields[7].clear();
            }
        }
        assert_eq!(ours, theirs, "{folder} v{version} {path}");
        let looked_up = revision.lookup(path).unwrap();
        assert_eq!(looked_up.as_ref(), Some(row), "{folder} v{version} {path}");
        let nanos = row.entry.mtime.nanos;
        match folder {
            "mtime-ns" if line.path == b"/below-min.bin" && version == 1 => {
                assert_eq!(nanos, Some(123_456_789));
            }
            "mtime-ns" => {}
            _ => assert_eq!(nanos, None),
        }
    }
}

#[test]
fn rows_are_what_the_official_client_shows() {
    for folder in FOLDERS {
        for version in [1, 2] {
            compare(folder, version);
        }
    }
}

#[test]
fn contents_are_what_the_official_client_reads() {
    // the only folder whose storage is whole
    for version in [1, 2] {
        let golden = Golden::open("sha1", version);
        let revision = golden.revision();
        let cache_dir = tempfile::tempdir().unwrap();
        let limits = ContentLimits {
            small_bytes: 1000,
            ..ContentLimits::default()
        };
        let store = golden.repository.store().clone();
        let cache = ContentCache::new(store, cache_dir.path(), limits).unwrap();
        let sums: BTreeMap<Vec<u8>, String> = listing("sha1", version)
            .into_iter()
            .map(|line| (line.path, line.fields[8].clone()))
            .collect();
        let mut chunked = 0;
        for (path, row) in walked(&revision) {
            let Some(file) = row.entry.regular() else {
                assert_eq!(sums[path.as_bytes()], "-");
                continue;
            };
            chunked += usize::from(file.content.objects().any(|o| o.kind == ObjectKind::Chunk));
            let mut bytes = vec![0; usize::try_from(file.size).unwrap() + 10];
            let n = cache.open(file).unwrap().read_at(&mut bytes, 0).unwrap();
            assert_eq!(n as u64, file.size, "{path}");
            let sum = openssl::sha::sha256(&bytes[..n]);
            let sum: String = sum.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(sum, sums[path.as_bytes()], "v{version} {path}");
        }
        assert!(chunked > 0);
    }
}

#[test]
fn catalogs_meet_where_the_dumps_say() {
    for folder in FOLDERS {
        let golden = Golden::open(folder, 2);
        let revision = golden.revision();
        let dump = crate::support::golden::folder(folder).join("dump/catalogs.txt");
        let mut expected = BTreeMap::new();
        for line in std::fs::read_to_string(dump).unwrap().lines() {
            let (hash, path) = line.split_once(' ').unwrap();
            let path = if path == "/" { "" } else { path };
            expected.insert(path.to_owned(), hash.to_owned());
        }
        let mut found = BTreeMap::new();
        revision
            .walk_catalogs::<RepoError>(&RepoPath::root(), &mut |path, catalog| {
                let text = String::from_utf8(path.as_bytes().to_vec()).unwrap();
                found.insert(text, catalog.hash().to_string());
                assert_eq!(catalog.root_prefix(), path);
                assert_eq!(revision.catalog_path_of(path)?, *path);
                if !path.is_root() {
                    // the row at the border is the parent's; the child's copy agrees
                    let row = revision.lookup(path)?.unwrap();
                    assert_eq!(row.role, Role::Mountpoint);
                    let hash = path.path_hash();
                    let copy = catalog.with(|c| c.lookup(&hash)).unwrap().unwrap();
                    assert_eq!(copy.role, Role::Root);
                    assert_eq!((copy.entry, copy.linkcount), (row.entry, row.linkcount));
                    let parent = path.parent().unwrap();
                    assert_ne!(revision.catalog_path_of(&parent)?, *path);
                }
                Ok(Walk::Down)
            })
            .unwrap();
        assert_eq!(found, expected, "{folder}");
    }
}

#[test]
fn heads_are_verified() {
    for folder in FOLDERS {
        for version in [1, 2] {
            let golden = Golden::open(folder, version);
            let head = golden.repository.head(now()).unwrap();
            assert_eq!(head.manifest().name, golden.repository.name());
            assert_eq!(head.manifest().revision, u64::from(version) + 1);
            assert!(head.whitelist().remaining(now()).is_some());
        }
    }
}
