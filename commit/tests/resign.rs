//! New terms and new keys.

use std::fs;
use std::path::Path;
use std::time::Duration;

use commit::home::KeyFile;
use commit::resign::{ResignError, resign, resign_with_new_keys};
use commit::{Publisher, PublisherError, RepoHome, Stratum0};
use formats::path::RepoPath;
use formats::trust::generate_keys;

use crate::support::checked::assert_checks;
use crate::support::golden::folder;
use crate::support::repo::Repo;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Replaces key files, as an administrator would.
fn place_keys(home: &RepoHome, which: &[KeyFile]) {
    let ring = generate_keys(&home.name, std::time::UNIX_EPOCH).unwrap();
    for key in which {
        let bytes = match key {
            KeyFile::MasterKey => &ring.master_key,
            KeyFile::Key => &ring.key,
            KeyFile::Certificate => &ring.certificate,
            KeyFile::Public => &ring.public,
        };
        let file = home.key_file(*key);
        let _ = fs::remove_file(&file);
        fs::write(file, bytes).unwrap();
    }
}

#[test]
fn an_expired_whitelist_gets_a_new_term() {
    let repo = Repo::new();
    repo.publish(repo.changes().file("/a", b"a").done());
    let (before, left) = repo.publisher.head(repo.now()).unwrap();
    assert!(left < DAY * 30);
    repo.advance(DAY * 40);
    let expired = repo.publisher.head(repo.now());
    assert!(matches!(
        expired,
        Err(PublisherError::WhitelistExpired { .. })
    ));

    let done = resign(&repo.publisher, 30, repo.now()).unwrap();
    assert!(!done.manifest);
    let (after, left) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest, before.manifest);
    // readers drop minutes and seconds
    assert!(left <= DAY * 30 && left > DAY * 30 - Duration::from_secs(3600));
    assert_eq!(done.ends, repo.now() + left);
    assert_checks(&repo);
    repo.publish(repo.changes().file("/b", b"b").done());
}

#[test]
fn a_term_is_renewed_while_another_publishes() {
    let repo = Repo::new();
    let nothing = repo.changes().done();
    let lease = repo.publisher.lease(&nothing, repo.now()).unwrap();
    resign(&repo.publisher, 7, repo.now()).unwrap();
    drop(lease);
    let (_, left) = repo.publisher.head(repo.now()).unwrap();
    assert!(left <= DAY * 7);
    for days in [0, 5000] {
        let refused = resign(&repo.publisher, days, repo.now());
        assert!(matches!(refused, Err(ResignError::BadTerm(_))));
    }
}

#[test]
fn other_certificates_stay_listed() {
    let repo = Repo::new();
    let storage = repo.publisher.storage();
    let (head, _) = repo.publisher.head(repo.now()).unwrap();
    let mut whitelist = head.whitelist().clone();
    let other = formats::Fingerprint(formats::Hash::of(formats::Algorithm::Sha1, b"another"));
    whitelist.fingerprints.insert(0, other);
    whitelist.other_lines.push("# a comment".to_owned());
    let key = repo
        .publisher
        .home()
        .private_key(KeyFile::MasterKey)
        .unwrap();
    let signed = formats::trust::sign_whitelist(whitelist, formats::Algorithm::Sha1, &key).unwrap();
    storage
        .write_root(".cvmfswhitelist", &signed.to_bytes())
        .unwrap();
    resign(&repo.publisher, 30, repo.now()).unwrap();
    let (head, _) = repo.publisher.head(repo.now()).unwrap();
    assert!(head.whitelist().lists(&other));
    assert_eq!(head.whitelist().fingerprints.len(), 2);
    assert_eq!(head.whitelist().other_lines, ["# a comment"]);
}

#[test]
fn a_whitelist_that_is_missing_or_cut_off_is_made_anew() {
    let repo = Repo::new();
    let visible = repo.publish(repo.changes().file("/a", b"a").done());
    let file = repo
        .dir
        .path()
        .join("srv/cvmfs/test.example.org/.cvmfswhitelist");
    let whole = fs::read(&file).unwrap();
    for damage in [None, Some(&b""[..]), Some(&whole[..whole.len() / 3])] {
        fs::remove_file(&file).unwrap();
        if let Some(bytes) = damage {
            fs::write(&file, bytes).unwrap();
        }
        let unreadable = repo.publisher.head(repo.now());
        assert!(unreadable.is_err(), "{damage:?}");
        let done = resign(&repo.publisher, 30, repo.now()).unwrap();
        assert!(done.made_anew && !done.manifest);
        let (head, _) = repo.publisher.head(repo.now()).unwrap();
        assert_eq!(head.whitelist().fingerprints.len(), 1);
        assert_eq!(head.manifest().root_catalog, visible.root_hash);
        assert_checks(&repo);
    }
}

#[test]
fn no_whitelist_is_made_for_a_manifest_of_somebody_else() {
    let repo = Repo::new();
    let storage = repo.dir.path().join("srv/cvmfs/test.example.org");
    let whitelist = storage.join(".cvmfswhitelist");
    fs::remove_file(&whitelist).unwrap();
    place_keys(repo.publisher.home(), &[KeyFile::Key, KeyFile::Certificate]);
    let refused = resign(&repo.reopened(), 30, repo.now());
    assert!(matches!(refused, Err(ResignError::OtherKey { .. })));
    assert!(!whitelist.exists());
    // on purpose, it is
    let done = resign_with_new_keys(&repo.reopened(), 30, repo.now());
    assert!(done.unwrap().manifest);
    assert_checks(&repo);

    fs::remove_file(&whitelist).unwrap();
    let manifest = storage.join(".cvmfspublished");
    let mut forged = fs::read(&manifest).unwrap();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    fs::write(&manifest, forged).unwrap();
    let refused = resign(&repo.reopened(), 30, repo.now());
    assert!(matches!(refused, Err(ResignError::BadManifest { .. })));
    assert!(!whitelist.exists());
}

#[test]
fn replaced_keys_are_noticed_and_taken_only_on_purpose() {
    use KeyFile::{Certificate, Key, MasterKey, Public};
    for which in [
        &[Key, Certificate][..],
        &[MasterKey, Public, Key, Certificate],
    ] {
        let repo = Repo::new();
        let visible = repo.publish(repo.changes().file("/a", b"a").done());
        let (before, _) = repo.publisher.head(repo.now()).unwrap();
        place_keys(repo.publisher.home(), which);
        let fresh = repo.reopened();
        let refused = resign(&fresh, 30, repo.now());
        assert!(matches!(
            refused,
            Err(ResignError::OtherKey { .. } | ResignError::OtherMasterKey { .. })
        ));
        repo.later();
        let done = resign_with_new_keys(&fresh, 30, repo.now()).unwrap();
        assert!(done.manifest);
        let (after, _) = fresh.head(repo.now()).unwrap();
        assert_eq!(after.manifest().root_catalog, visible.root_hash);
        assert_eq!(after.manifest().revision, visible.revision);
        assert_eq!(after.manifest().history, before.manifest().history);
        assert_ne!(after.manifest().certificate, before.manifest().certificate);
        assert_eq!(
            after.whitelist().fingerprints.len(),
            1,
            "the old key is not trusted"
        );
        assert_checks(&repo);
    }
}

#[test]
fn keys_that_do_not_belong_together_sign_nothing() {
    let repo = Repo::new();
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    for which in [
        &[KeyFile::Key][..],
        &[KeyFile::Key, KeyFile::Certificate, KeyFile::MasterKey],
    ] {
        place_keys(repo.publisher.home(), which);
        let refused = resign_with_new_keys(&repo.publisher, 30, repo.now());
        assert!(
            matches!(refused, Err(ResignError::Keys { .. })),
            "{refused:?}"
        );
    }
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest, before.manifest);
    assert_eq!(after.whitelist, before.whitelist);
}

/// Copies a directory; objects are small.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn an_official_repository_under_new_keys_is_published_on() {
    const NAME: &str = "sha1.example.org";
    let golden = folder("sha1");
    // its parameters with places of our own
    let mut repo = Repo::new();
    let state = repo.dir.path();
    let home = RepoHome::embedded(state, NAME).unwrap();
    let storage = state.join("srv/cvmfs").join(NAME);
    copy(&golden.join("storage"), &storage);
    store::DirStore::create(&storage, store::Durability::Batch).unwrap();
    for dir in [home.conf_file.parent().unwrap(), &home.spool_dir] {
        fs::create_dir_all(dir).unwrap();
    }
    let conf = fs::read(golden.join("server.conf")).unwrap();
    let mut conf = formats::server_conf::ServerConf::parse(&conf).unwrap();
    let upstream = format!("local,{0}/data/txn,{0}", storage.display());
    conf.set("CVMFS_UPSTREAM_STORAGE", &upstream).unwrap();
    fs::write(&home.conf_file, conf.render()).unwrap();
    fs::copy(
        golden.join("reflog.chksum"),
        home.spool_dir.join("reflog.chksum"),
    )
    .unwrap();
    {
        use KeyFile::{Certificate, Key, MasterKey, Public};
        place_keys(&home, &[MasterKey, Public, Key, Certificate]);
    }
    // the day on which it was made
    repo.clock = std::sync::Arc::new(1_795_300_000.into());
    let publisher = Stratum0::open(home, &repo.dir.path().join("cache2")).unwrap();
    resign_with_new_keys(&publisher, 30, repo.now()).unwrap();
    repo.publisher = publisher;
    assert_checks(&repo);

    let before = repo.head();
    let listing = before.list(&RepoPath::root()).unwrap();
    repo.publish(
        repo.changes()
            .dir("/new")
            .file("/new/file", b"ours\n")
            .done(),
    );
    assert_eq!(
        repo.head().list(&RepoPath::root()).unwrap().len(),
        listing.len() + 1
    );
    assert_checks(&repo);
    let back = commit::rollback::rollback(&repo.publisher, Some("v1.0"), repo.now()).unwrap();
    assert!(matches!(back, commit::rollback::Outcome::Done(_)));
    assert_checks(&repo);
}
