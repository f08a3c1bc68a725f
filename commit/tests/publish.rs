//! The straight way: a change set in, a visible revision out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use commit::{CommitError, Outcome, Publisher, PublisherError};

use crate::support::changes::path;
use crate::support::repo::Repo;

#[test]
fn a_new_directory_with_files() {
    let repo = Repo::new();
    let first = *repo.head().root_hash();
    let visible = repo.publish(
        repo.changes()
            .dir("/software")
            .file("/software/hello.txt", b"hello\n")
            .symlink("/software/link", "hello.txt")
            .dir("/software/empty")
            .done(),
    );
    assert_eq!(visible.revision, 2);
    assert_eq!(visible.previous_root_hash, first);
    assert_eq!((visible.files, visible.directories), (2, 2));
    assert_eq!((visible.objects_new, visible.objects_reused), (1, 0));

    let head = repo.head();
    assert_eq!(*head.root_hash(), visible.root_hash);
    let names: Vec<Vec<u8>> = head
        .list(&path("/software"))
        .unwrap()
        .into_iter()
        .map(|row| row.name)
        .collect();
    assert_eq!(names, [&b"empty"[..], b"hello.txt", b"link"]);
    let software = head.lookup(&path("/software")).unwrap().unwrap();
    assert_eq!(software.linkcount, 3);
}

#[test]
fn mkfs_again_after_an_interrupted_one() {
    let repo = Repo::new();
    let state = repo.dir.path();
    let home = repo.publisher.home().clone();
    let again = |state: &std::path::Path| {
        let wanted = commit::NewRepository {
            keys: None,
            ..crate::support::repo::wanted(&[])
        };
        commit::mkfs(state, &wanted, repo.now())
    };
    assert!(matches!(
        again(state),
        Err(commit::MkfsError::Exists { .. })
    ));
    // a storage that nobody claims is somebody's
    std::fs::remove_file(&home.conf_file).unwrap();
    assert!(matches!(
        again(state),
        Err(commit::MkfsError::StorageInUse { .. })
    ));
    // one that an interrupted run began is made anew
    let storage = state.join("srv/cvmfs").join(&home.name);
    let claim = home.spool_dir.join("mkfs.unfinished");
    std::fs::write(claim, storage.as_os_str().as_encoded_bytes()).unwrap();
    again(state).unwrap();
    let publisher = commit::Stratum0::open(home, &state.join("cache2")).unwrap();
    commit::Publisher::head(&publisher, repo.now()).unwrap();
}

#[test]
fn one_that_is_called_off() {
    let repo = Repo::new();
    let request = repo.request(repo.changes().file("/f", b"1").done());
    request.called_off.store(true, Ordering::Relaxed);
    let outcome = repo.try_publish(&request);
    assert!(
        matches!(outcome, Err(CommitError::CalledOff { .. })),
        "{outcome:?}"
    );
    request.called_off.store(false, Ordering::Relaxed);
    assert!(matches!(
        repo.try_publish(&request),
        Ok(Outcome::Visible(_))
    ));
}

#[test]
fn patience_with_another_publisher() {
    let repo = Repo::new();
    let mut request = repo.request(repo.changes().file("/f", b"1").done());
    let lease = repo
        .publisher
        .lease(&request.change_set, repo.now())
        .unwrap();
    let outcome = repo.try_publish(&request);
    assert!(
        matches!(
            outcome,
            Err(CommitError::Publisher(PublisherError::Busy { .. }))
        ),
        "{outcome:?}"
    );
    request.patience = Duration::from_secs(600);
    // while it waits it can be called off
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| repo.try_publish(&request));
        request.called_off.store(true, Ordering::Relaxed);
        let outcome = waiting.join().unwrap();
        assert!(
            matches!(outcome, Err(CommitError::CalledOff { .. })),
            "{outcome:?}"
        );
    });
    request.called_off.store(false, Ordering::Relaxed);
    drop(lease);
    assert!(matches!(
        repo.try_publish(&request),
        Ok(Outcome::Visible(_))
    ));
}
