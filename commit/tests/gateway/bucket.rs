//! The official gateway and its receiver, whose storage is a bucket: objects go through them, or into the
//! bucket before they know.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use commit::gateway::Key;
use commit::{Gateway, GatewayOptions, NoProgress, Outcome, resign};
use store::{DirStore, Durability, HttpOptions, HttpStore, ObjectStore};

use crate::support::bucket::{Ground, InBucket, address};
use crate::support::changes::{noise, path};
use crate::support::checked::assert_checks;
use crate::support::gateway::real::Real;
use crate::support::gateway::{KEY, MAX_LEASE, Way, is_installed};
use crate::support::official;
use crate::support::site::CHUNKED;

/// Without a region the official tools sign as no newer store understands.
const SIGNED: &str = "CVMFS_S3_REGION=us-east-1\n";

fn publisher(site: &InBucket, real: &Real, way: Way) -> Gateway {
    let dir = site.repo.dir.path();
    let key = dir.join("test.gw");
    let [id, secret] = KEY;
    fs::write(&key, format!("plain_text {id} {secret}\n")).unwrap();
    let own = tempfile::tempdir_in(dir).unwrap().keep();
    let home = site.repo.publisher.home().clone();
    let storage = || -> Arc<dyn ObjectStore> { Arc::new(site.place().open(&home.name).unwrap()) };
    let options = GatewayOptions {
        url: format!("http://{}/api/v1", real.address()),
        key: Key::read(&key).unwrap(),
        stratum0: Arc::new(HttpStore::new(&site.url(), HttpOptions::default()).unwrap()),
        storage: (way == Way::Storage).then(storage),
        hostname: "publisher.example.org".to_owned(),
        spool_dir: own.join("spool"),
    };
    Gateway::open(home, options, &own).unwrap()
}

fn revisions(way: Way) {
    if !is_installed() {
        return;
    }
    let ground = Ground::new(SIGNED);
    let wanted = ground.wanted(&address(), false, &CHUNKED);
    let home = commit::mkfs(
        ground.dir.path(),
        &wanted,
        crate::support::repo::Repo::begin(),
    )
    .unwrap();
    let mut site = InBucket::of(ground, home);
    let staged = site.repo.dir.path().join("staged");
    site.repo.staged = Arc::new(DirStore::create(staged, Durability::Batch).unwrap());
    // the receiver goes by the real time of day
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    site.repo.clock.store(since, Ordering::Relaxed);
    resign::resign(&site.repo.publisher, 30, site.repo.now()).unwrap();
    let real = Real::start(&site.repo, &site.url(), KEY, MAX_LEASE);
    let publisher = publisher(&site, &real, way);
    let publish = |changes, visible: u64| {
        let txn = tempfile::tempdir_in(site.repo.dir.path()).unwrap();
        let request = site.repo.request(changes);
        let done = commit::publish(&request, &publisher, txn.path(), &NoProgress);
        match done {
            Ok(Outcome::Visible(done)) => assert_eq!(done.revision, visible),
            other => panic!("{other:?}\n{}", real.log()),
        }
        assert_checks(&site.repo);
        if official::has_tool() {
            official::assert_official_check_at(&site.repo, &site.url());
        }
    };
    let big = noise(1, 700_000);
    let changes = site.repo.changes().file("/file", b"1").file("/big", &big);
    publish(changes.done(), 2);
    let changes = site.repo.changes().file("/file", b"2").remove("/big");
    publish(changes.done(), 3);
    let head = site.repo.head();
    assert!(head.lookup(&path("/file")).unwrap().is_some());
    assert_eq!(head.lookup(&path("/big")).unwrap(), None);
}

#[test]
fn through_the_real_gateway() {
    revisions(Way::Payloads);
}

#[test]
fn into_the_bucket_of_the_real_gateway() {
    revisions(Way::Storage);
}
