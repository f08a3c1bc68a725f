//! `CVMFS_VIRTUAL_DIR`: `/.cvmfs/snapshots` shows the tags.

use commit::tags::{self, NewTag};
use commit::{Outcome, Publisher, Visible, rollback};
use formats::catalog::Role;
use formats::changeset::ChangeSet;
use formats::entry::Kind;
use formats::history::Tag;
use formats::object::{Content, ObjectName};
use formats::path::RepoPath;
use formats::{Compression, Hash, ObjectKind};

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::repo::Repo;

const ON: [(&str, &str); 1] = [("CVMFS_VIRTUAL_DIR", "true")];

fn publish(repo: &Repo, changes: ChangeSet, tag: Option<&str>) -> Visible {
    let mut request = repo.request(changes);
    request.tag = tag.map(str::to_owned);
    match repo.try_publish(&request).unwrap() {
        Outcome::Visible(visible) => *visible,
        Outcome::Nothing => panic!("nothing was published"),
    }
}

fn tag(repo: &Repo, name: &str) -> Tag {
    let all = repo.tags();
    all.into_iter().find(|tag| tag.name == name).unwrap()
}

/// The names below `/.cvmfs/snapshots`; none if it is not there.
fn shown(repo: &Repo) -> Option<Vec<String>> {
    let head = repo.head();
    head.lookup(&path("/.cvmfs/snapshots")).unwrap()?;
    let rows = head.list(&path("/.cvmfs/snapshots")).unwrap();
    Some(
        rows.iter()
            .map(|row| String::from_utf8_lossy(&row.name).into_owned())
            .collect(),
    )
}

/// The rows are those of the official tool [`catalog_virtual.cc`].
#[test]
fn tags_are_directories() {
    let repo = Repo::with(&ON);
    let visible = publish(&repo, repo.changes().file("/a", b"a").done(), Some("v1"));
    assert_eq!(
        visible.revision, 3,
        "one that was asked for, one that shows it"
    );
    let (head, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(head.manifest().root_catalog, visible.root_hash);
    assert_eq!(head.manifest().revision, visible.revision);
    let v1 = tag(&repo, "v1");
    assert_eq!(v1.revision, 2);
    let trunk = tag(&repo, "trunk");
    assert_eq!((trunk.hash, trunk.revision), (visible.root_hash, 3));
    assert_eq!(
        tag(&repo, "trunk-previous").revision,
        1,
        "what an undo goes back to"
    );

    let head = repo.head();
    let row = |at: &str| head.lookup(&path(at)).unwrap().unwrap();
    let top = row("/.cvmfs");
    assert_eq!(
        (top.role, top.hidden, top.linkcount),
        (Role::Mountpoint, true, 3)
    );
    let snapshots = row("/.cvmfs/snapshots");
    assert_eq!(
        (snapshots.role, snapshots.hidden, snapshots.linkcount),
        (Role::Plain, false, 3)
    );
    for directory in [&top, &snapshots] {
        let entry = &directory.entry;
        assert_eq!(entry.kind, Kind::Directory { size: 97 });
        assert_eq!(
            (entry.perm, entry.uid, entry.gid, entry.mtime.nanos),
            (0o555, 0, 0, None)
        );
    }
    let marker = row("/.cvmfs/.cvmfscatalog");
    assert_eq!(
        (marker.entry.perm, marker.entry.uid, marker.linkcount),
        (0o444, 0, 1)
    );
    let empty = Hash::of(
        v1.hash.algorithm(),
        &formats::compress(Compression::Zlib, b""),
    );
    let file = marker.entry.regular().unwrap();
    assert_eq!((file.size, &file.content), (0, &Content::Whole(empty)));
    let stored = ObjectName::new(empty, ObjectKind::Data);
    assert!(repo.publisher.storage().has(&stored).unwrap());

    let snapshot = row("/.cvmfs/snapshots/v1");
    let tagged = repo.publisher.repository().revision(&v1.hash).unwrap();
    let root = tagged.lookup(&RepoPath::root()).unwrap().unwrap();
    assert_eq!(snapshot.role, Role::Bind);
    assert_eq!(
        (&snapshot.entry, snapshot.linkcount),
        (&root.entry, root.linkcount)
    );
    let top = head.lookup(&RepoPath::root()).unwrap().unwrap();
    assert_eq!(top.linkcount, root.linkcount + 1);
    assert_checks(&repo);
}

#[test]
fn they_come_and_go_with_the_next_change() {
    let repo = Repo::with(&ON);
    publish(&repo, repo.changes().file("/a", b"a").done(), Some("v1"));
    publish(&repo, repo.changes().file("/b", b"b").done(), Some("v2"));
    assert_eq!(shown(&repo).unwrap(), ["v1", "v2"]);
    // nothing new to show, no revision for it
    let visible = publish(&repo, repo.changes().file("/c", b"c").done(), None);
    assert_eq!(visible.revision, 6);
    repo.publish_nothing(repo.changes().done());

    tags::remove(&repo.publisher, &["v1".to_owned()], repo.now()).unwrap();
    let nested = NewTag {
        name: "a/b".to_owned(),
        message: String::new(),
        root: None,
    };
    tags::add(&repo.publisher, &nested, repo.now()).unwrap();
    assert_eq!(
        shown(&repo).unwrap(),
        ["v1", "v2"],
        "tags alone make no revision"
    );
    let moved = NewTag {
        name: "v2".to_owned(),
        root: Some(visible.root_hash),
        ..nested
    };
    tags::add(&repo.publisher, &moved, repo.now()).unwrap();
    publish(&repo, repo.changes().file("/d", b"d").done(), None);
    assert_eq!(
        shown(&repo).unwrap(),
        ["v2"],
        "a/b is no name of a directory"
    );
    let head = repo.head();
    let catalog = repo
        .publisher
        .repository()
        .catalog(head.root_hash(), None)
        .unwrap();
    let below = catalog
        .nested()
        .iter()
        .find(|n| n.path == path("/.cvmfs"))
        .unwrap();
    let below = repo
        .publisher
        .repository()
        .catalog(&below.hash, None)
        .unwrap();
    let bound: Vec<_> = below
        .bound()
        .iter()
        .map(|b| (b.path.clone(), b.hash))
        .collect();
    assert_eq!(bound, [(path("/.cvmfs/snapshots/v2"), visible.root_hash)]);
    assert_checks(&repo);

    let back = rollback::rollback(&repo.publisher, None, repo.now()).unwrap();
    assert!(matches!(back, rollback::Outcome::Done(_)));
    assert!(
        repo.head().lookup(&path("/d")).unwrap().is_none(),
        "an undo undoes the change"
    );
    assert_checks(&repo);
}

#[test]
fn it_goes_when_it_is_switched_off() {
    let repo = Repo::with(&ON);
    publish(&repo, repo.changes().file("/a", b"a").done(), Some("v1"));
    let conf = &repo.publisher.home().conf_file;
    let text = std::fs::read_to_string(conf).unwrap();
    std::fs::write(
        conf,
        text.replace("CVMFS_VIRTUAL_DIR=true", "CVMFS_VIRTUAL_DIR=false"),
    )
    .unwrap();
    let before = repo.head().lookup(&RepoPath::root()).unwrap().unwrap();
    let visible = publish(&repo, repo.changes().file("/b", b"b").done(), None);
    assert_eq!(visible.revision, 5);
    assert_eq!(shown(&repo), None);
    assert!(repo.head().lookup(&path("/.cvmfs")).unwrap().is_none());
    let after = repo.head().lookup(&RepoPath::root()).unwrap().unwrap();
    assert_eq!(after.linkcount, before.linkcount - 1);
    assert_checks(&repo);
    // and stays away, at no cost
    assert_eq!(
        publish(&repo, repo.changes().file("/c", b"c").done(), None).revision,
        6
    );
}

#[test]
fn a_tag_that_cannot_be_shown_is_named() {
    let repo = Repo::with(&ON);
    let visible = publish(&repo, repo.changes().file("/a", b"a").done(), None);
    let add = NewTag {
        name: "gone".to_owned(),
        message: String::new(),
        root: Some(visible.root_hash),
    };
    tags::add(&repo.publisher, &add, repo.now()).unwrap();
    let changes = repo.changes().file("/b", b"b").done();
    publish(&repo, changes, None);
    tags::remove(&repo.publisher, &["gone".to_owned()], repo.now()).unwrap();
    publish(&repo, repo.changes().file("/c", b"c").done(), None);
    // its catalog is lost, and it is tagged again by the hand of somebody else
    tags::add(&repo.publisher, &add, repo.now()).unwrap();
    let name = ObjectName::new(visible.root_hash, ObjectKind::Catalog);
    std::fs::remove_file(
        repo.dir
            .path()
            .join("srv/cvmfs/test.example.org")
            .join(name.storage_path()),
    )
    .unwrap();
    let fresh = repo.reopened();
    let request = repo.request(repo.changes().file("/d", b"d").done());
    let refused = commit::publish(&request, &fresh, &repo.txn_dir(), &commit::NoProgress);
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(refused.as_ref().unwrap_err());
    while let Some(error) = next {
        text += &format!("{error}: ");
        next = error.source();
    }
    assert!(
        text.contains("prepub tag remove test.example.org gone"),
        "{text}"
    );
    assert!(text.contains(&name.to_string()), "{text}");
    tags::remove(&fresh, &["gone".to_owned()], repo.now()).unwrap();
    let outcome = commit::publish(&request, &fresh, &repo.txn_dir(), &commit::NoProgress).unwrap();
    assert!(matches!(outcome, Outcome::Visible(_)));
}
