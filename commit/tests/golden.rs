//! What a commit makes of a tree is what `cvmfs_server publish` made of it (promise 9), object by
//! object and row by row. No mount is needed: the trees are sealed in the test itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use commit::Publisher;
use formats::object::ObjectKind;
use store::{DirStore, Durability, Limits, Repository};

use crate::support::changes::path;
use crate::support::golden::{Exempt, FOLDERS, Rows, differences, folder, root_of, script};
use crate::support::repo::Repo;
use crate::support::tree::changes_to;

/// Parameters that decide rows and objects; the rest of `server.conf` is about places.
pub const PARAMETERS: [&str; 14] = [
    "CVMFS_HASH_ALGORITHM",
    "CVMFS_COMPRESSION_ALGORITHM",
    "CVMFS_USE_FILE_CHUNKING",
    "CVMFS_MIN_CHUNK_SIZE",
    "CVMFS_AVG_CHUNK_SIZE",
    "CVMFS_MAX_CHUNK_SIZE",
    "CVMFS_INCLUDE_XATTRS",
    "CVMFS_ENABLE_MTIME_NS",
    "CVMFS_AUTOCATALOGS",
    "CVMFS_AUTOCATALOGS_MAX_WEIGHT",
    "CVMFS_AUTOCATALOGS_MIN_WEIGHT",
    "CVMFS_GARBAGE_COLLECTION",
    "CVMFS_AUTO_TAG",
    "CVMFS_IGNORE_XDIR_HARDLINKS",
];

/// A repository with a golden folder's parameters.
fn repo_like(folder: &Path) -> Repo {
    let bytes = fs::read(folder.join("server.conf")).unwrap();
    let conf = formats::server_conf::ServerConf::parse(&bytes).unwrap();
    let settings: Vec<(&str, &str)> = PARAMETERS
        .iter()
        .filter_map(|key| Some((*key, conf.get(key)?)))
        .collect();
    Repo::with(&settings)
}

/// Official rows that nothing in the tree accounts for, or whose times are those of the run.
fn exempt(path: &str) -> Exempt {
    match path {
        // `cvmfs_server mkfs` publishes it; prepub's mkfs does not
        "/new_repository" => Exempt::Row,
        // the root row's mtime is that of mkfs, which ran at another time
        "" => Exempt::Mtime,
        // the official dirtab run writes markers into the union at publish time, and so touches the
        // directories; prepub's markers never change a directory's mtime (DESIGN 9)
        "/data/run1" | "/data/run2" | "/data/run3" => Exempt::Mtime,
        "/data/run1/.cvmfscatalog" | "/data/run2/.cvmfscatalog" | "/data/run3/.cvmfscatalog" => {
            Exempt::Mtime
        }
        // change-tree.sh changes what is in these and lets their mtimes be now
        "/data" | "/deep/l1/l2" | "/many" | "/software/app/sub" => Exempt::Mtime,
        // balancing makes its markers at publish time
        _ if path.ends_with("/.cvmfsautocatalog") => Exempt::Mtime,
        "/deep/.cvmfscatalog" | "/many/.cvmfscatalog" | "/modes/.cvmfscatalog" => Exempt::Mtime,
        _ => Exempt::Nothing,
    }
}

fn official(folder: &Path, cache: &Path) -> Arc<Repository> {
    let storage = DirStore::open(folder.join("storage"), Durability::Batch).unwrap();
    let limits = Limits::default();
    let repo = Repository::new("golden", Arc::new(storage), Vec::new(), cache, limits);
    Arc::new(repo.unwrap())
}

fn compare(folder: &Path, version: &str, repo: &Repo) {
    let cache = tempfile::tempdir().unwrap();
    let theirs = Rows::read(&official(folder, cache.path()), &root_of(folder, version));
    let ours = Rows::read(repo.publisher.repository(), repo.head().root_hash());
    let found = differences(&theirs, &ours, &exempt);
    assert!(
        found.is_empty(),
        "{} {version}:\n{}",
        folder.display(),
        found.join("\n")
    );
    compare_counters(&theirs, &ours, folder, version);
    let mut objects = theirs.objects();
    objects.retain(|name| {
        let new_repository = theirs.rows[&path("/new_repository")].entry.regular();
        !new_repository
            .unwrap()
            .content
            .objects()
            .any(|n| n == *name)
    });
    assert_eq!(objects, ours.objects(), "{} {version}", folder.display());
    for name in ours.objects() {
        assert!(matches!(name.kind, ObjectKind::Data | ObjectKind::Chunk));
        assert!(repo.publisher.storage().has(&name).unwrap(), "{name}");
    }
}

/// Counters agree but for the one file that only the official root catalog has.
fn compare_counters(theirs: &Rows, ours: &Rows, folder: &Path, version: &str) {
    for (prefix, (_, counters)) in &theirs.catalogs {
        let mut expected = *counters;
        if prefix.is_root() {
            expected.self_.regular -= 1;
            expected.self_.file_size -=
                i64::try_from(theirs.rows[&path("/new_repository")].entry.size()).unwrap();
        }
        let (_, counters) = &ours.catalogs[prefix];
        assert_eq!(
            expected,
            *counters,
            "{} {version} {prefix}",
            folder.display()
        );
    }
}

fn golden(name: &str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: make-tree.sh sets owners and makes devices, which takes root");
        return;
    }
    let folder = folder(name);
    let repo = repo_like(&folder);
    let tree = tempfile::tempdir().unwrap();
    for (version, step) in [("v1", "make-tree.sh"), ("v2", "change-tree.sh")] {
        script(step, tree.path());
        let changes = changes_to(
            tree.path(),
            repo.publisher.name(),
            repo.head(),
            repo.staged.clone(),
            &repo.params(),
        );
        repo.publish(changes);
        compare(&folder, version, &repo);
    }
}

macro_rules! golden_tests {
    ($($test:ident: $folder:literal,)*) => {
        $(#[test] fn $test() { golden($folder); })*

        #[test]
        fn every_folder_has_its_test() {
            assert_eq!([$($folder),*], FOLDERS);
        }
    };
}

golden_tests! {
    sha1: "sha1",
    rmd160: "rmd160",
    shake128: "shake128",
    uncompressed: "uncompressed",
    garbage_collectable: "garbage-collectable",
    mtime_ns: "mtime-ns",
    autocatalogs: "autocatalogs",
}
