//! What prepub makes of a tree is what `cvmfs_server publish` made of it (promise 9): the trees of
//! tests/golden, written through the mount, committed, and compared object by object and row by
//! row with the official repositories.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use formats::{Hash, ObjectName};

use crate::support::golden::{
    self, Exempt, FOLDERS, differences, manifest_field, path_names, read_revision,
};
use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless};

/// Parameters that decide rows and objects; the rest of `server.conf` is about places.
const PARAMETERS: [&str; 14] = [
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

/// A mounted repository with a golden folder's parameters.
fn sandbox_like(folder: &Path) -> Sandbox {
    let official = fs::read_to_string(folder.join("server.conf")).unwrap();
    let value = |key: &str| {
        // a shell file: the last assignment counts
        let mut lines = official.lines().filter_map(|l| l.split_once('='));
        lines
            .rfind(|(k, _)| *k == key)
            .map(|(_, v)| v.trim_matches('"').to_owned())
    };
    let mut sandbox = Sandbox::new();
    let hash = value("CVMFS_HASH_ALGORITHM").unwrap_or("sha1".into());
    let compression = match value("CVMFS_COMPRESSION_ALGORITHM").as_deref() {
        Some("none") => "none",
        _ => "zlib",
    };
    sandbox.ok(["mkfs", REPO, "--hash", &hash, "--compression", compression]);
    let conf = sandbox.server_conf();
    let mut text = fs::read_to_string(&conf).unwrap();
    for key in PARAMETERS {
        if let Some(value) = value(key) {
            text.push_str(&format!("{key}={value}\n"));
        }
    }
    fs::write(&conf, text).unwrap();
    sandbox.mount();
    sandbox
}

/// Official rows that nothing in the tree accounts for, or whose times are those of the run.
fn exempt(path: &str) -> Exempt {
    match path {
        // `cvmfs_server mkfs` publishes it; prepub's mkfs does not
        "/new_repository" => Exempt::Row,
        // the root row's owner, mode and mtime are those of mkfs, which ran at another time
        "" => Exempt::Mtime,
        // the official dirtab run writes markers into the union at publish time, and so touches
        // the directories; prepub's markers never change a directory's mtime (DESIGN 9)
        "/data/run1" | "/data/run2" | "/data/run3" => Exempt::Mtime,
        "/data/run1/.cvmfscatalog" | "/data/run2/.cvmfscatalog" | "/data/run3/.cvmfscatalog" => {
            Exempt::Mtime
        }
        // change-tree.sh changes what is in these and lets their mtimes be now
        "/data" | "/deep/l1/l2" | "/many" | "/software/app/sub" => Exempt::Mtime,
        // made by the balancer at publish time; the tree's own markers are below /software
        _ if path.ends_with("/.cvmfsautocatalog") => Exempt::Mtime,
        _ if path.ends_with("/.cvmfscatalog") && !path.starts_with("/software/") => Exempt::Mtime,
        _ => Exempt::Nothing,
    }
}

fn official_objects(folder: &Path) -> BTreeSet<String> {
    let listed = folder.join("objects.txt");
    if listed.exists() {
        return fs::read_to_string(listed)
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
    }
    walkdir::WalkDir::new(folder.join("storage/data"))
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.file_type().is_file())
        .map(|e| {
            e.path()
                .strip_prefix(folder.join("storage"))
                .unwrap()
                .to_string_lossy()
                .into()
        })
        .collect()
}

fn compare(folder: &Path, version: &str, sandbox: &Sandbox) {
    let manifest = fs::read(folder.join(format!("{version}.cvmfspublished"))).unwrap();
    let root: Hash = manifest_field(&manifest, b'C').unwrap().parse().unwrap();
    let official = read_revision(&folder.join("storage"), &root);
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    let root: Hash = manifest_field(&manifest, b'C').unwrap().parse().unwrap();
    let ours = read_revision(&sandbox.storage(), &root);

    let names = path_names(&sandbox.root(), &["/new_repository"]);
    let found = differences(&official, &ours, &names, &exempt);
    assert!(
        found.is_empty(),
        "{} {version}:\n{}",
        folder.display(),
        found.join("\n")
    );

    // object for object: every data object and chunk of the official storage is named alike
    let storage = official_objects(folder);
    let mut official = official.objects();
    let new_repository = official_only_new_repository(&official, &ours.objects());
    official.retain(|name| !new_repository.contains(name));
    assert_eq!(official, ours.objects(), "{} {version}", folder.display());
    for name in ours.objects() {
        let path = name.storage_path();
        assert!(
            storage.contains(&path),
            "{path} is not in the official storage"
        );
        assert!(
            sandbox.storage().join(&path).is_file(),
            "{path} is not in ours"
        );
    }
}

/// The one object that only `/new_repository` needs.
fn official_only_new_repository(
    official: &BTreeSet<ObjectName>,
    ours: &BTreeSet<ObjectName>,
) -> BTreeSet<ObjectName> {
    let only: BTreeSet<ObjectName> = official.difference(ours).copied().collect();
    assert!(
        only.len() <= 1,
        "official objects that ours lacks: {only:?}"
    );
    only
}

fn golden(name: &str) {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(
            is_root(),
            "root (make-tree.sh sets owners and makes devices)",
        )
    {
        return;
    }
    let folder = golden::folder(name);
    let sandbox = sandbox_like(&folder);
    golden::script("make-tree.sh", &sandbox.root());
    sandbox.ok(["commit", REPO, "--tag", "v1.0", "-m", "first"]);
    compare(&folder, "v1", &sandbox);
    sandbox.check();
    golden::script("change-tree.sh", &sandbox.root());
    sandbox.ok(["commit", REPO, "--tag", "v2.0", "-m", "second"]);
    compare(&folder, "v2", &sandbox);
    sandbox.check();
}

/// What was sealed before the parameters were what they are is sealed again: the official objects
/// come out, whatever was staged under.
#[test]
fn parameters_that_change_while_files_are_staged() {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(
            is_root(),
            "root (make-tree.sh sets owners and makes devices)",
        )
    {
        return;
    }
    for (name, other) in [
        ("uncompressed", "CVMFS_COMPRESSION_ALGORITHM=default"),
        ("shake128", "CVMFS_HASH_ALGORITHM=rmd160"),
        (
            "sha1",
            "CVMFS_MAX_CHUNK_SIZE=65536\nCVMFS_AVG_CHUNK_SIZE=32768\nCVMFS_MIN_CHUNK_SIZE=16384",
        ),
    ] {
        let folder = golden::folder(name);
        let mut sandbox = sandbox_like(&folder);
        let conf = sandbox.server_conf();
        let right = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, format!("{right}{other}\n")).unwrap();
        golden::script("make-tree.sh", &sandbox.root());
        sandbox.ok(["status", REPO, "--wait"]);
        if name == "shake128" {
            sandbox.unmount();
            sandbox.mount();
        }
        fs::write(&conf, right).unwrap();
        sandbox.ok(["commit", REPO, "--tag", "v1.0", "-m", "first"]);
        compare(&folder, "v1", &sandbox);
        sandbox.check();
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
