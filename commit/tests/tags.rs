//! Tags of the published repository.

use commit::tags::{NewTag, TagsError, add, remove};
use commit::{Outcome, Publisher, PublisherError};
use formats::hash::Hash;
use formats::history::Tag;

use crate::support::checked::assert_checks;
use crate::support::repo::Repo;

fn tag(name: &str) -> NewTag {
    NewTag {
        name: name.to_owned(),
        message: String::new(),
        root: None,
    }
}

fn names(repo: &Repo) -> Vec<String> {
    let mut names: Vec<String> = repo.tags().into_iter().map(|tag| tag.name).collect();
    names.sort();
    names
}

fn one(repo: &Repo, name: &str) -> Tag {
    let tags = repo.tags();
    tags.into_iter().find(|tag| tag.name == name).unwrap()
}

fn publish_file(repo: &Repo, name: &str) -> Hash {
    let changes = repo.changes().file(name, name.as_bytes()).done();
    repo.publish(changes).root_hash
}

#[test]
fn a_tag_makes_no_revision() {
    let repo = Repo::new();
    let root = publish_file(&repo, "/a");
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    repo.later();
    let wanted = NewTag {
        message: "the first".to_owned(),
        ..tag("v1.0")
    };
    let made = add(&repo.publisher, &wanted, repo.now()).unwrap();
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    let (before, after) = (before.manifest(), after.manifest());
    assert_eq!(after.root_catalog, before.root_catalog);
    assert_eq!(after.catalog_bytes, before.catalog_bytes);
    assert_eq!(after.revision, before.revision);
    assert_eq!(after.ttl_seconds, before.ttl_seconds);
    assert!(after.published > before.published);
    assert_ne!(after.history, before.history);
    assert_eq!(made, one(&repo, "v1.0"));
    assert_eq!((made.hash, made.revision), (root, 2));
    assert_eq!(made.description, "the first");
    assert_eq!(made.size, after.catalog_bytes);
    assert_eq!(names(&repo), ["trunk", "trunk-previous", "v1.0"]);
    assert_checks(&repo);
    // a later revision leaves it alone
    publish_file(&repo, "/b");
    assert_eq!(made, one(&repo, "v1.0"));
    assert_checks(&repo);
}

#[test]
fn a_tag_is_moved_only_by_hash() {
    let repo = Repo::new();
    let first = publish_file(&repo, "/a");
    let second = publish_file(&repo, "/b");
    let on = |root, message: &str| NewTag {
        root: Some(root),
        message: message.to_owned(),
        ..tag("stable")
    };
    add(&repo.publisher, &on(first, "chosen"), repo.now()).unwrap();
    let taken = add(&repo.publisher, &tag("stable"), repo.now());
    assert!(matches!(taken, Err(TagsError::Exists { revision: 2, .. })));
    let same = add(&repo.publisher, &on(first, ""), repo.now());
    assert!(matches!(same, Err(TagsError::Unmoved { .. })));
    assert_eq!(one(&repo, "stable").hash, first);
    let moved = add(&repo.publisher, &on(second, ""), repo.now()).unwrap();
    assert_eq!((moved.hash, moved.revision), (second, 3));
    assert_eq!(moved.description, "chosen");
    assert_eq!(one(&repo, "stable"), moved);
    assert_checks(&repo);
}

#[test]
fn what_cannot_be_tagged_is_refused_before_anything_is_written() {
    let repo = Repo::new();
    let changes = repo.changes().dir("/n").file("/n/.cvmfscatalog", b"");
    repo.publish(changes.done());
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    for bad in ["", "a b", "trunk", "trunk-previous", "a\"b", "ä"] {
        let refused = add(&repo.publisher, &tag(bad), repo.now());
        assert!(matches!(refused, Err(TagsError::Name(_))), "{bad:?}");
    }
    let on = |root| NewTag {
        root: Some(root),
        ..tag("t")
    };
    let nowhere = Hash::of(formats::Algorithm::Sha1, b"nothing has this hash");
    let refused = add(&repo.publisher, &on(nowhere), repo.now());
    assert!(matches!(refused, Err(TagsError::Target { .. })));
    let nested = repo.head().root_catalog().nested()[0].hash;
    let refused = add(&repo.publisher, &on(nested), repo.now());
    assert!(matches!(refused, Err(TagsError::NotARevision { .. })));
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest, before.manifest);
}

#[test]
fn several_tags_go_together_or_not_at_all() {
    let repo = Repo::new();
    for name in ["a", "b", "c"] {
        add(&repo.publisher, &tag(name), repo.now()).unwrap();
    }
    let gone = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        remove(&repo.publisher, &names, repo.now())
    };
    let refused = gone(&["a", "x"]);
    assert!(matches!(refused, Err(TagsError::Missing { name, .. }) if name == "x"));
    assert!(matches!(gone(&["a", "trunk"]), Err(TagsError::Name(_))));
    assert_eq!(names(&repo), ["a", "b", "c", "trunk"]);
    assert_eq!(gone(&[]).unwrap(), []);
    let removed = gone(&["a", "c", "a"]).unwrap();
    assert_eq!(removed.len(), 2);
    assert_eq!(names(&repo), ["b", "trunk"]);
    assert_checks(&repo);
}

#[test]
fn a_tag_of_a_commit_collides_with_one_that_is_there() {
    let repo = Repo::new();
    add(&repo.publisher, &tag("v1"), repo.now()).unwrap();
    let mut request = repo.request(repo.changes().file("/a", b"a").done());
    request.tag = Some("v1".to_owned());
    assert!(repo.try_publish(&request).is_err());
    commit::txn::clear(&repo.txn_dir()).unwrap();
    remove(&repo.publisher, &["v1".to_owned()], repo.now()).unwrap();
    assert!(matches!(
        repo.try_publish(&request).unwrap(),
        Outcome::Visible(_)
    ));
    assert_eq!(one(&repo, "v1").revision, 2);
}

#[test]
fn while_another_publishes_a_tag_waits_for_nobody() {
    let repo = Repo::new();
    let nothing = repo.changes().done();
    let lease = repo.publisher.lease(&nothing, repo.now()).unwrap();
    let busy = add(&repo.publisher, &tag("v1"), repo.now());
    assert!(matches!(
        busy,
        Err(TagsError::Publisher(PublisherError::Busy { .. }))
    ));
    drop(lease);
    add(&repo.publisher, &tag("v1"), repo.now()).unwrap();
}

#[test]
fn a_clock_that_went_back_does_not_make_an_older_manifest() {
    let repo = Repo::new();
    publish_file(&repo, "/a");
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    let early = repo.now() - std::time::Duration::from_secs(1800);
    add(&repo.publisher, &tag("v1"), early).unwrap();
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest().published, before.manifest().published);
}
