//! The end of a repository.

use std::fs;

use commit::home::KeyFile;
use commit::rmfs::{Removed, RmfsError, rmfs};
use commit::{Publisher, RepoHome};

use crate::support::repo::Repo;

#[test]
fn nothing_of_it_remains_and_a_new_one_can_be_made() {
    let repo = Repo::new();
    repo.publish(repo.changes().file("/a", b"a").done());
    let home = repo.publisher.home().clone();
    let storage = home.storage_dir().unwrap();
    let unconfirmed = rmfs(&home, false);
    assert!(matches!(unconfirmed, Err(RmfsError::Unconfirmed { .. })));
    assert!(repo.publisher.head(repo.now()).is_ok());

    let removed = rmfs(&home, true).unwrap();
    assert!(removed.anything && removed.objects > 5 && removed.bytes > 0);
    assert_eq!(removed.left, Vec::<String>::new());
    assert!(!home.exists() && !storage.exists() && !home.spool_dir.exists());
    assert!(!home.conf_file.parent().unwrap().exists());
    for key in [
        KeyFile::MasterKey,
        KeyFile::Key,
        KeyFile::Certificate,
        KeyFile::Public,
    ] {
        assert!(!home.key_file(key).exists());
    }
    assert_eq!(rmfs(&home, true).unwrap(), Removed::default());
    repo.mkfs_again();
}

#[test]
fn what_is_not_the_repositorys_stays() {
    let repo = Repo::new();
    let home = repo.publisher.home().clone();
    let storage = home.storage_dir().unwrap();
    let strangers = ["notes.txt", "data/ab/notes.txt", "data/txn/notes.txt"];
    for name in strangers {
        fs::write(storage.join(name), "mine").unwrap();
    }
    let neighbour = home
        .key_file(KeyFile::Key)
        .with_file_name("other.example.org.key");
    fs::write(&neighbour, "mine").unwrap();
    let removed = rmfs(&home, true).unwrap();
    let left = |name| storage.join(name).display().to_string();
    for name in strangers {
        assert!(storage.join(name).exists(), "{name}");
    }
    assert!(removed.left.contains(&left("notes.txt")));
    assert!(removed.left.contains(&left("data/ab/notes.txt")));
    assert!(neighbour.exists() && !home.exists());
    assert_eq!(fs::read_dir(storage.join("data")).unwrap().count(), 2);
}

#[test]
fn neither_a_foreign_nor_a_busy_nor_anothers_repository_is_touched() {
    let repo = Repo::new();
    let home = repo.publisher.home().clone();
    let foreign = RepoHome {
        is_foreign: true,
        ..home.clone()
    };
    assert!(matches!(
        rmfs(&foreign, true),
        Err(RmfsError::Foreign { .. })
    ));

    let nothing = repo.changes().done();
    let lease = repo.publisher.lease(&nothing, repo.now()).unwrap();
    assert!(matches!(rmfs(&home, true), Err(RmfsError::Busy(_))));
    drop(lease);
    assert!(repo.publisher.head(repo.now()).is_ok());

    // a server.conf that was edited until it shows somewhere else
    let other = Repo::new();
    let conf = fs::read_to_string(&home.conf_file).unwrap();
    let conf = conf.replace("test.example.org", "else.example.org");
    let here = home.storage_dir().unwrap();
    let there = other.publisher.home().storage_dir().unwrap();
    let moved = RepoHome::embedded(repo.dir.path(), "else.example.org").unwrap();
    fs::create_dir_all(moved.conf_file.parent().unwrap()).unwrap();
    let elsewhere = here.with_file_name("else.example.org");
    let conf = conf.replace(
        &elsewhere.display().to_string(),
        &there.display().to_string(),
    );
    fs::write(&moved.conf_file, conf).unwrap();
    let refused = rmfs(&moved, true);
    assert!(
        matches!(refused, Err(RmfsError::OtherRepository { .. })),
        "{refused:?}"
    );
    assert!(other.publisher.head(other.now()).is_ok());
}
