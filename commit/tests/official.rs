//! The official server tool agrees with every state that a repository is brought into.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use commit::{resign, rollback, tags};

use crate::support::checked::assert_checks;
use crate::support::official::{assert_official_check, is_installed};
use crate::support::repo::Repo;

#[track_caller]
fn judge(repo: &Repo) {
    assert_checks(repo);
    assert_official_check(repo);
}

fn work_through(settings: &[(&str, &str)]) {
    let repo = Repo::with(settings);
    // the tool goes by the real time of day
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    repo.clock.store(since, Ordering::Relaxed);
    resign::resign(&repo.publisher, 30, repo.now()).unwrap();
    judge(&repo);

    let big = b"0123456789abcdef".repeat(1 << 20);
    let changes = repo.changes().dir("/n").file("/n/.cvmfscatalog", b"");
    let changes = changes.file("/n/big", &big).symlink("/l", "n/big");
    let mut request = repo.request(changes.file("/empty", b"").done());
    request.tag = Some("v1".to_owned());
    request.message = "first".to_owned();
    repo.try_publish(&request).unwrap();
    judge(&repo);

    let changes = repo.changes().moved("/n", "/m").remove("/l");
    let second = repo.publish(changes.file("/m/x", b"x").done());
    judge(&repo);

    let wanted = tags::NewTag {
        name: "second".to_owned(),
        message: "with a move".to_owned(),
        root: Some(second.root_hash),
    };
    tags::add(&repo.publisher, &wanted, repo.now()).unwrap();
    judge(&repo);

    rollback::rollback(&repo.publisher, Some("v1"), repo.now()).unwrap();
    judge(&repo);
    repo.publish(repo.changes().remove("/n").done());
    judge(&repo);
    rollback::rollback(&repo.publisher, None, repo.now()).unwrap();
    judge(&repo);

    tags::remove(&repo.publisher, &["v1".to_owned()], repo.now()).unwrap();
    resign::resign(&repo.publisher, 7, repo.now()).unwrap();
    judge(&repo);

    repo.replace_keys();
    let fresh = repo.reopened();
    resign::resign_with_new_keys(&fresh, 30, repo.now()).unwrap();
    judge(&repo);
}

#[test]
fn in_every_state() {
    if !is_installed() {
        return;
    }
    work_through(&[]);
}

#[test]
fn with_other_chunks_and_names() {
    if !is_installed() {
        return;
    }
    work_through(&[
        ("CVMFS_MIN_CHUNK_SIZE", "65536"),
        ("CVMFS_AVG_CHUNK_SIZE", "131072"),
        ("CVMFS_MAX_CHUNK_SIZE", "262144"),
        ("CVMFS_GARBAGE_COLLECTION", "true"),
        ("CVMFS_AUTO_TAG", "true"),
        ("CVMFS_CATALOG_ALT_PATHS", "true"),
        ("CVMFS_COMPRESSION_ALGORITHM", "none"),
    ]);
}
