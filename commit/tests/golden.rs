//! What a commit makes of a tree is what `cvmfs_server publish` made of it (promise 9), object by
//! object and row by row. No mount is needed: the trees are sealed in the test itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use commit::Publisher;
use commit::home::KeyFile;
use formats::object::ObjectKind;
use store::{DirStore, Durability, Limits, Repository};

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::golden::{Exempt, FOLDERS, Rows, differences, folder, root_of, script};
use crate::support::repo::{Repo, fast_dir};
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
    if ours.rows.contains_key(&path("/new_repository")) {
        // most golden storages here hold no data: only what is new can be looked for
        assert_eq!(objects, ours.objects(), "{} {version}", folder.display());
        return;
    }
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
        let is_ours_too = ours.rows.contains_key(&path("/new_repository"));
        if prefix.is_root() && !is_ours_too {
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

/// A copy of a golden storage under keys of our own, as `cvmfs_server` would have left it: its places,
/// its locks, version 1.0 published.
fn rekeyed(folder: &Path) -> Repo {
    let root = fast_dir();
    let bytes = fs::read(folder.join("server.conf")).unwrap();
    let mut conf = formats::server_conf::ServerConf::parse(&bytes).unwrap();
    let name = conf.name().unwrap().to_owned();
    let home = commit::RepoHome::official(root.path(), &name).unwrap();
    let storage_dir = root.path().join("srv/cvmfs").join(&name);
    copy_tree(&folder.join("storage"), &storage_dir);
    let text = storage_dir.display();
    conf.set(
        "CVMFS_UPSTREAM_STORAGE",
        &format!("local,{text}/data/txn,{text}"),
    )
    .unwrap();
    for dir in [
        home.conf_file.parent().unwrap(),
        &home.keys_dir,
        &home.spool_dir,
    ] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(&home.conf_file, conf.render()).unwrap();
    fs::copy(
        folder.join("reflog.chksum"),
        home.spool_dir.join("reflog.chksum"),
    )
    .unwrap();
    fs::write(
        home.spool_dir.join("client.local"),
        "CVMFS_ROOT_HASH=0000000000000000000000000000000000000000\nOTHER=kept\n",
    )
    .unwrap();
    publish_v1_again(&home, folder, &conf.params().unwrap());
    Repo::of(root, home)
}

/// Signs the manifest of version 1.0 with new keys, and writes a whitelist that lists them.
fn publish_v1_again(home: &commit::RepoHome, folder: &Path, params: &formats::server_conf::Params) {
    use formats::trust::{Certificate, PrivateKey, generate_keys, sign_manifest, sign_whitelist};
    let now = Repo::begin();
    let ring = generate_keys(&home.name, now).unwrap();
    for (key, bytes) in [
        (KeyFile::MasterKey, &ring.master_key),
        (KeyFile::Key, &ring.key),
        (KeyFile::Certificate, &ring.certificate),
        (KeyFile::Public, &ring.public),
    ] {
        fs::write(home.key_file(key), bytes).unwrap();
    }
    let storage = home.storage().unwrap();
    let certificate = Certificate::from_pem(&ring.certificate).unwrap();
    let stored = formats::compress(formats::Compression::Zlib, certificate.pem());
    let hash = formats::Hash::of(params.algorithm, &stored);
    let object = formats::ObjectName::new(hash, ObjectKind::Certificate);
    store::put(storage.as_ref(), &object, &stored).unwrap();
    let list = formats::Whitelist::new(
        &home.name,
        vec![certificate.fingerprint(params.algorithm)],
        now,
        std::time::Duration::from_secs(30 * 24 * 3600),
    );
    let master_key = PrivateKey::from_pem(&ring.master_key).unwrap();
    let list = sign_whitelist(list, params.algorithm, &master_key).unwrap();
    storage
        .write_root(".cvmfswhitelist", &list.to_bytes())
        .unwrap();
    let bytes = fs::read(folder.join("v1.cvmfspublished")).unwrap();
    let mut manifest = formats::SignedManifest::parse(&bytes).unwrap().manifest;
    manifest.certificate = Some(hash);
    let key = PrivateKey::from_pem(&ring.key).unwrap();
    let signed = sign_manifest(manifest, params.algorithm, &key).unwrap();
    storage
        .write_root(".cvmfspublished", &signed.to_bytes().unwrap())
        .unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    for hex in 0..=255 {
        fs::create_dir_all(to.join(format!("data/{hex:02x}"))).unwrap();
    }
    fs::create_dir_all(to.join("data/txn")).unwrap();
    let mut pending = vec![from.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.strip_prefix(from).unwrap());
            if path.is_dir() {
                fs::create_dir_all(&target).unwrap();
                pending.push(path);
            } else {
                fs::copy(&path, &target).unwrap();
            }
        }
    }
}

/// Version 2.0, made by us on top of the official version 1.0.
#[test]
fn publishing_on_top_of_official_repositories() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: make-tree.sh sets owners and makes devices, which takes root");
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    script("make-tree.sh", tree.path());
    script("change-tree.sh", tree.path());
    // as the official tools had left it
    fs::copy(
        folder("make-tree.sh").with_file_name("README.md"),
        tree.path().join("new_repository"),
    )
    .unwrap();
    for name in FOLDERS {
        let folder = folder(name);
        let repo = rekeyed(&folder);
        let head = repo.head();
        assert_eq!(*head.root_hash(), root_of(&folder, "v1"));
        let mut changes = changes_to(
            tree.path(),
            repo.publisher.name(),
            head,
            repo.staged.clone(),
            &repo.params(),
        );
        changes
            .changes
            .retain(|change| change.path != path("/new_repository"));
        // the tree has no generated markers: removing them is what a nightly rsync would stage
        let visible = repo.publish(changes);
        compare(&folder, "v2", &repo);
        let spool = &repo.publisher.home().spool_dir;
        let pinned = fs::read_to_string(spool.join("client.local")).unwrap();
        assert_eq!(
            pinned,
            format!("OTHER=kept\nCVMFS_ROOT_HASH={}\n", visible.root_hash)
        );
        assert!(!spool.join("in_transaction.lock").exists());
        if name == "sha1" {
            assert_checks(&repo);
        }
    }
}

/// A transaction that somebody has open keeps us out; one that we left behind does not.
#[test]
fn transactions_of_cvmfs_server_are_respected() {
    let repo = rekeyed(&folder("sha1"));
    let lock = repo.publisher.home().spool_dir.join("in_transaction.lock");
    fs::write(&lock, "").unwrap();
    let changes = || repo.changes().file("/new", b"new").done();
    match repo.try_publish(&repo.request(changes())).unwrap_err() {
        commit::CommitError::Publisher(commit::PublisherError::Transaction { uid, .. }) => {
            assert_eq!(uid, rustix::process::geteuid().as_raw());
        }
        error => panic!("{error}"),
    }
    assert_eq!(fs::read(&lock).unwrap(), b"", "it is left as it was");
    // one of ours, which a crash left behind
    fs::write(&lock, "prepub\n").unwrap();
    repo.publish(changes());
    assert!(!lock.exists());
}
