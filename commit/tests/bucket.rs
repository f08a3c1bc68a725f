//! A repository in a bucket: all that is done with one in a directory, and a server that fails in
//! the middle of it.

use std::sync::Arc;

use commit::rmfs::rmfs;
use commit::rollback::rollback;
use commit::tags::{self, NewTag};
use commit::{BucketError, MkfsError, Outcome, Publisher, RepoHome, Resumed, Stratum0, resign};
use store::{HttpOptions, HttpStore, Limits, ObjectStore, Repository, S3Error, StoreError};

use crate::support::bucket::{Ground, InBucket, address, files};
use crate::support::changes::{noise, path};
use crate::support::checked::assert_checks;
use crate::support::healthy::assert_healthy;
use crate::support::official::{assert_official_check_at, is_installed};
use crate::support::repo::{BOOT, Repo};
use crate::support::s3::BUCKET;
use crate::support::s3_proxy::Fault;

/// Small chunks, so that a file of some kilobytes has several.
const CHUNKED: [(&str, &str); 3] = [
    ("CVMFS_MIN_CHUNK_SIZE", "4096"),
    ("CVMFS_AVG_CHUNK_SIZE", "8192"),
    ("CVMFS_MAX_CHUNK_SIZE", "16384"),
];

#[test]
fn a_repository_in_a_bucket() {
    let site = InBucket::with(&CHUNKED);
    let repo = &site.repo;
    let home = repo.publisher.home().clone();
    let conf = home.conf().unwrap();
    let upstream = conf.get("CVMFS_UPSTREAM_STORAGE").unwrap();
    assert!(upstream.starts_with("S3,") && upstream.contains("sub/test.example.org@"));
    assert!(
        conf.stratum0_url()
            .unwrap()
            .ends_with("/software/sub/test.example.org")
    );
    // a nested catalog, a file in chunks; then more of each, a rename, a removal
    let set = repo
        .changes()
        .dir("/n")
        .file("/n/.cvmfscatalog", b"")
        .file("/n/big", &noise(1, 200_000))
        .file("/small", b"small");
    repo.publish(set.done());
    assert_checks(repo);
    repo.publish(repo.changes().moved("/n", "/moved").remove("/small").done());
    assert_checks(repo);
    let big = &noise(1, 200_000)[..150_000];
    let last = repo.publish(repo.changes().file("/moved/big", big).done());
    assert_checks(repo);

    // as clients read it: over HTTP, without a key
    let front = HttpStore::new(&site.url(), HttpOptions::default()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let reader = Arc::new(
        Repository::new(
            &home.name,
            Arc::new(front),
            home.public_keys().unwrap(),
            scratch.path(),
            Limits::default(),
        )
        .unwrap(),
    );
    let head = reader.head(repo.now()).unwrap();
    assert_eq!(head.manifest().root_catalog, last.root_hash);
    let rows = assert_healthy(&reader, &last.root_hash);
    assert!(rows.rows.contains_key(&path("/moved/big")) && rows.catalogs.len() == 2);
    let chunked = rows.rows[&path("/moved/big")]
        .entry
        .regular()
        .unwrap()
        .clone();
    assert!(chunked.content.objects().count() > 5);
    for name in chunked.content.objects() {
        store::verify(reader.store().as_ref(), &name).unwrap();
    }
}

#[test]
fn what_else_is_done_with_a_repository() {
    let site = InBucket::new();
    let repo = &site.repo;
    repo.publish(repo.changes().file("/a", b"a").done());
    repo.later();
    let tag = NewTag {
        name: "v1".to_owned(),
        message: String::new(),
        root: None,
    };
    tags::add(&repo.publisher, &tag, repo.now()).unwrap();
    repo.publish(repo.changes().file("/b", b"b").done());
    repo.later();
    rollback(&repo.publisher, Some("v1"), repo.now()).unwrap();
    assert!(repo.head().lookup(&path("/b")).unwrap().is_none());
    resign::resign(&repo.publisher, 30, repo.now()).unwrap();
    repo.replace_keys();
    resign::resign_with_new_keys(&repo.reopened(), 30, repo.now()).unwrap();
    assert_checks(repo);
    // another process, with nothing in its caches
    let other = repo.reopened();
    assert_eq!(other.head(repo.now()).unwrap().0.manifest().revision, 4);

    // the end: all of it goes, and nothing else
    let stranger = site.kept().join("notes.txt");
    std::fs::write(&stranger, b"mine").unwrap();
    let removed = rmfs(repo.publisher.home(), true).unwrap();
    assert!(removed.objects > 8 && removed.bytes > 0);
    assert_eq!(removed.left, [format!("{}/notes.txt", address())]);
    assert_eq!(files(&site.kept()), [stranger]);
    assert!(!repo.publisher.home().exists());
}

/// What the official tools say of it, over the web.
#[test]
fn the_official_check() {
    if !is_installed() {
        return;
    }
    let site = InBucket::with(&CHUNKED);
    let repo = &site.repo;
    // it goes by the real time of day
    let since = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    repo.clock
        .store(since, std::sync::atomic::Ordering::Relaxed);
    resign::resign(&repo.publisher, 30, repo.now()).unwrap();
    let set = repo
        .changes()
        .dir("/n")
        .file("/n/.cvmfscatalog", b"")
        .file("/n/big", &noise(1, 200_000));
    let request = repo.request(set.done());
    commit::publish(
        &request,
        &repo.publisher,
        &repo.txn_dir(),
        &commit::NoProgress,
    )
    .unwrap();
    assert_official_check_at(repo, &site.url());
}

/// The steps at which the server is gone: whatever is at work then fails and says why, the repository is
/// as it was, and the next commit needs no help.
#[test]
fn a_server_that_goes_in_the_middle_of_a_commit() {
    // what the next commit sends, in the order in which it does
    let file = noise(1, 100_000);
    let probe = InBucket::new();
    probe.proxy.take_seen();
    probe
        .repo
        .publish(probe.repo.changes().file("/new", &file).done());
    let steps = probe.proxy.count("PUT");
    assert!(steps >= 4, "{steps}");
    for step in 0..steps {
        let site = InBucket::new();
        let repo = &site.repo;
        let before = repo.head();
        let request = repo.request(repo.changes().file("/new", &file).done());
        site.proxy.pass("PUT", "", step);
        site.proxy.fail("PUT", "", usize::MAX, Fault::Cut);
        repo.later();
        let publisher = repo.reopened();
        let outcome = commit::publish(&request, &publisher, &repo.txn_dir(), &commit::NoProgress);
        let error = outcome.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("CVMFS_S3_HOST"), "{step}: {text}");
        site.proxy.behave();
        assert_eq!(repo.head().root_hash(), before.root_hash(), "{step}");
        assert_checks(repo);
        let resumed = commit::resume(&repo.txn_dir(), &publisher, repo.now(), BOOT).unwrap();
        assert!(!matches!(resumed, Resumed::Done { .. }), "{step}");
        commit::txn::clear(&repo.txn_dir()).unwrap();
        let Outcome::Visible(_) = repo.try_publish(&request).unwrap() else {
            panic!("{step}");
        };
        assert!(repo.head().lookup(&path("/new")).unwrap().is_some());
        assert_checks(repo);
    }
}

#[test]
fn a_server_that_is_gone_altogether_and_back() {
    let mut site = InBucket::new();
    let request = site
        .repo
        .request(site.repo.changes().file("/a", b"a").done());
    site.server.stop();
    let error = site.repo.try_publish(&request).unwrap_err();
    assert!(
        chain(&error).contains("cannot be reached"),
        "{}",
        chain(&error)
    );
    commit::txn::clear(&site.repo.txn_dir()).unwrap();
    site.server.go_on();
    assert!(matches!(
        site.repo.try_publish(&request),
        Ok(Outcome::Visible(_))
    ));
    assert_checks(&site.repo);
}

/// The manifest is there, and the answer to its PUT was lost: the PUT is made again, to no harm.
#[test]
fn a_lost_answer_is_no_second_revision() {
    let site = InBucket::new();
    let repo = &site.repo;
    for file in ["data/", ".cvmfsreflog", ".cvmfspublished"] {
        site.proxy.fail("PUT", file, 1, Fault::LoseAnswer);
        let before = repo
            .publisher
            .head(repo.now())
            .unwrap()
            .0
            .manifest()
            .revision;
        repo.publish(repo.changes().file("/a", file.as_bytes()).done());
        let after = repo
            .publisher
            .head(repo.now())
            .unwrap()
            .0
            .manifest()
            .revision;
        assert_eq!(after, before + 1, "{file}");
        assert_checks(repo);
    }
}

/// A manifest that was replaced, of which nobody heard: it is looked for, at once or by the next.
#[test]
fn a_commit_of_which_nobody_heard_is_found() {
    let manifest = ".cvmfspublished";
    let site = InBucket::new();
    let repo = &site.repo;
    let request = |bytes: &[u8]| repo.request(repo.changes().file("/a", bytes).done());
    let heard = request(b"one");
    site.proxy.take_seen();
    site.proxy.fail("PUT", manifest, 2, Fault::LoseAnswer);
    let outcome = repo.try_publish(&heard);
    assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
    // how often it is read before it is written
    let seen = site.proxy.take_seen();
    let of_manifest = seen.iter().filter(|seen| seen.path.contains(manifest));
    let reads = of_manifest.take_while(|seen| seen.method == "GET").count();
    let request = request(b"two");
    site.proxy.fail("PUT", manifest, 2, Fault::LoseAnswer);
    site.proxy.pass("GET", manifest, reads);
    site.proxy.fail("GET", manifest, usize::MAX, Fault::Cut);
    repo.try_publish(&request).unwrap_err();
    assert!(
        site.proxy
            .take_seen()
            .iter()
            .any(|seen| seen.method == "PUT" && seen.path.contains(manifest))
    );
    site.proxy.behave();
    let resumed = commit::resume(&repo.txn_dir(), &repo.publisher, repo.now(), BOOT).unwrap();
    assert!(matches!(resumed, Resumed::Done { .. }), "{resumed:?}");
    commit::txn::clear(&repo.txn_dir()).unwrap();
    assert_eq!(repo.try_publish(&request).unwrap(), Outcome::Nothing);
    assert_checks(repo);
}

/// What the server says it has and has not is in no revision.
#[test]
fn a_server_that_lies_publishes_nothing() {
    let site = InBucket::new();
    let repo = &site.repo;
    let before = repo.head();
    let request = repo.request(repo.changes().file("/a", &noise(1, 90_000)).done());
    for file in ["data/", ".cvmfspublished"] {
        site.proxy.fail("PUT", file, usize::MAX, Fault::Lie);
        // a process that trusts the server
        let publisher = repo.reopened();
        repo.later();
        let outcome = commit::publish(&request, &publisher, &repo.txn_dir(), &commit::NoProgress);
        let text = chain(&outcome.unwrap_err());
        assert!(
            text.contains("the server said that it was stored"),
            "{text}"
        );
        site.proxy.behave();
        commit::txn::clear(&repo.txn_dir()).unwrap();
        assert_eq!(repo.head().root_hash(), before.root_hash());
        assert_checks(repo);
    }
    assert!(matches!(
        repo.try_publish(&request),
        Ok(Outcome::Visible(_))
    ));
    assert_checks(repo);
}

#[test]
fn what_mkfs_refuses() {
    let ground = Ground::new("");
    let state = ground.dir.path();
    let make = |address: &str, creates| {
        commit::mkfs(state, &ground.wanted(address, creates, &[]), Repo::begin())
    };
    // somebody's files
    let notes = ground.kept().join("notes.txt");
    std::fs::create_dir_all(ground.kept()).unwrap();
    std::fs::write(&notes, b"mine").unwrap();
    let error = make(&address(), false).unwrap_err();
    assert!(matches!(error, MkfsError::StorageInUse { .. }), "{error}");
    assert!(notes.exists());
    // another bucket than the configuration's
    let error = make("s3://other/x", false).unwrap_err();
    assert!(
        matches!(error, MkfsError::Bucket(BucketError::Differs { .. })),
        "{error}"
    );
    // a bucket that is not there
    std::fs::remove_dir_all(state.join("server").join(BUCKET)).unwrap();
    let error = make(&address(), false).unwrap_err();
    let MkfsError::Storage {
        source: StoreError::S3(S3Error::NoBucket { .. }),
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert!(chain(&error).contains("--create-bucket"));
    let home = RepoHome::embedded(state, "test.example.org").unwrap();
    assert!(!home.exists());
    // made where that is wanted; this server has no policies, and that is no failure
    let home = make(&address(), true).unwrap();
    let site = InBucket::of(ground, home);
    assert_checks(&site.repo);
    // and there for the next
    let error = commit::mkfs(
        &site.repo.dir.path().join("elsewhere"),
        &crate::support::repo::wanted(&[]),
        Repo::begin(),
    );
    error.unwrap();
}

/// `server.conf` and `s3.conf` as `cvmfs_server mkfs -s` leaves them.
#[test]
fn a_repository_that_cvmfs_server_made() {
    let site = InBucket::new();
    let repo = &site.repo;
    let own = repo.publisher.home().clone();
    let root = repo.dir.path().join("root");
    let theirs = RepoHome::official(&root, &own.name).unwrap();
    for dir in [
        theirs.conf_file.parent().unwrap(),
        &theirs.keys_dir,
        &theirs.spool_dir,
    ] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let place = site.place();
    std::fs::create_dir(theirs.spool_dir.join("tmp")).unwrap();
    let conf = format!(
        "CVMFS_CREATOR_VERSION=143\nCVMFS_REPOSITORY_NAME={}\nCVMFS_REPOSITORY_TYPE=stratum0\nCVMFS_STRATUM0={}\n\
         CVMFS_UPSTREAM_STORAGE=S3,{}/tmp,{}@{}\nCVMFS_GARBAGE_COLLECTION=true\n",
        own.name,
        site.url(),
        theirs.spool_dir.display(),
        place.alias,
        place.conf_file.display(),
    );
    std::fs::write(&theirs.conf_file, conf).unwrap();
    for entry in std::fs::read_dir(&own.keys_dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), theirs.keys_dir.join(entry.file_name())).unwrap();
    }
    let checksum = "reflog.chksum";
    std::fs::copy(
        own.spool_dir.join(checksum),
        theirs.spool_dir.join(checksum),
    )
    .unwrap();
    let cache = repo.dir.path().join("beside");
    let publisher = Stratum0::open(theirs.clone(), &cache).unwrap();
    // a collection takes an object that a commit relies on, unseen by the process that remembers it
    let set = repo.changes().file("/a", b"collected").done();
    let names: Vec<_> = set
        .changes
        .iter()
        .filter_map(|change| match &change.op {
            formats::changeset::Op::Put { entry, .. } => entry.regular(),
            formats::changeset::Op::Remove => None,
        })
        .flat_map(|file| file.content.objects().collect::<Vec<_>>())
        .collect();
    let [name] = names[..] else {
        panic!("{names:?}");
    };
    let storage = publisher.storage();
    store::transfer(repo.staged.as_ref(), storage.as_ref(), &name, false).unwrap();
    place.open(&own.name).unwrap().delete(&name).unwrap();
    repo.later();
    let request = repo.request(set);
    let outcome = commit::publish(&request, &publisher, &repo.txn_dir(), &commit::NoProgress);
    assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
    let mut seen = Repo::of(tempfile::tempdir().unwrap(), theirs);
    seen.clock = repo.clock.clone();
    assert_checks(&seen);
    assert!(seen.head().lookup(&path("/a")).unwrap().is_some());
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
