//! Back to an earlier revision.

use commit::rollback::{Outcome, RollbackError, RolledBack, plan, rollback};
use commit::{Publisher, Visible};
use formats::history::Tag;

use crate::support::changes::path;
use crate::support::checked::assert_checks;
use crate::support::golden::Rows;
use crate::support::repo::Repo;

fn publish_tagged(repo: &Repo, file: &str, name: Option<&str>) -> Visible {
    let mut request = repo.request(repo.changes().file(file, file.as_bytes()).done());
    request.tag = name.map(str::to_owned);
    match repo.try_publish(&request).unwrap() {
        commit::Outcome::Visible(visible) => *visible,
        commit::Outcome::Nothing => panic!("nothing was published"),
    }
}

fn done(repo: &Repo, target: Option<&str>) -> RolledBack {
    repo.later();
    match rollback(&repo.publisher, target, repo.now()).unwrap() {
        Outcome::Done(done) => done,
        Outcome::Nothing(plan) => panic!("nothing to do: {plan:?}"),
    }
}

fn all_tags(repo: &Repo) -> Vec<Tag> {
    let mut tags = repo.tags();
    tags.sort_by(|a, b| a.name.cmp(&b.name));
    tags
}

fn rows(repo: &Repo) -> Rows {
    let head = repo.head();
    Rows::read(repo.publisher.repository(), head.root_hash())
}

#[test]
fn back_to_a_tag() {
    let repo = Repo::new();
    let changes = repo.changes().dir("/n").file("/n/.cvmfscatalog", b"");
    repo.publish(changes.file("/n/x", b"x").done());
    let first = publish_tagged(&repo, "/a", Some("v1"));
    let then = rows(&repo);
    publish_tagged(&repo, "/b", Some("v2"));
    let changed = repo.changes().file("/n/x", b"changed").remove("/a").done();
    let last = repo.publish(changed);

    let looked = plan(&repo.publisher, Some("v1"), repo.now()).unwrap();
    assert_eq!(looked.target.hash, first.root_hash);
    assert_eq!(looked.lost.len(), 1);
    let back = done(&repo, Some("v1"));
    assert_eq!((back.revision, back.from_revision), (6, 3));
    assert_eq!(back.previous_root_hash, last.root_hash);
    assert_eq!(back.lost_tags, ["v2"]);

    // the same tree, under a root catalog of its own
    let now = rows(&repo);
    assert_ne!(back.root_hash, first.root_hash);
    assert_eq!(now.rows, then.rows);
    assert_eq!(*repo.head().root_hash(), back.root_hash);
    let (head, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(head.manifest().revision, 6);
    let catalog = repo.head().root_catalog().clone();
    assert_eq!(catalog.size(), head.manifest().catalog_bytes);
    let stamp = catalog.with(|c| Ok((c.revision(), c.previous_revision(), c.last_modified())));
    let seconds = repo.now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seconds = seconds.as_secs().cast_signed();
    assert_eq!(stamp.unwrap(), (6, Some(last.root_hash), seconds));

    let tags = all_tags(&repo);
    let names: Vec<&str> = tags.iter().map(|tag| tag.name.as_str()).collect();
    assert_eq!(names, ["trunk", "v1"]);
    for tag in &tags {
        assert_eq!(
            (tag.hash, tag.revision),
            (back.root_hash, 6),
            "{}",
            tag.name
        );
    }
    assert_checks(&repo);

    let next = publish_tagged(&repo, "/c", None);
    assert_eq!(next.revision, 7);
    assert!(repo.head().lookup(&path("/a")).unwrap().is_some());
    assert_checks(&repo);
}

#[test]
fn without_a_tag_it_undoes_the_last_revision_once() {
    let repo = Repo::new();
    publish_tagged(&repo, "/a", None);
    publish_tagged(&repo, "/b", None);
    let back = done(&repo, None);
    assert_eq!((back.revision, back.from_revision), (4, 2));
    assert!(repo.head().lookup(&path("/a")).unwrap().is_some());
    assert!(repo.head().lookup(&path("/b")).unwrap().is_none());
    let again = rollback(&repo.publisher, None, repo.now());
    assert!(matches!(again, Err(RollbackError::NoPrevious { .. })));
    assert_checks(&repo);
    publish_tagged(&repo, "/c", None);
    assert_eq!(done(&repo, None).from_revision, 4);
    assert_checks(&repo);
}

#[test]
fn the_published_revision_is_where_it_is() {
    let repo = Repo::new();
    publish_tagged(&repo, "/a", Some("v1"));
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    for target in ["v1", "trunk"] {
        let outcome = rollback(&repo.publisher, Some(target), repo.now()).unwrap();
        assert!(matches!(outcome, Outcome::Nothing(_)), "{target}");
    }
    let missing = rollback(&repo.publisher, Some("v2"), repo.now());
    assert!(matches!(missing, Err(RollbackError::Missing { .. })));
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest, before.manifest);
}

#[test]
fn a_target_that_was_collected_is_refused() {
    let repo = Repo::new();
    let first = publish_tagged(&repo, "/a", Some("v1"));
    publish_tagged(&repo, "/b", None);
    let name = formats::ObjectName::new(first.root_hash, formats::ObjectKind::Catalog);
    repo.publisher.storage().delete(&name).unwrap();
    let (before, _) = repo.publisher.head(repo.now()).unwrap();
    let fresh = repo.reopened();
    let refused = rollback(&fresh, Some("v1"), repo.now());
    assert!(matches!(refused, Err(RollbackError::Target { .. })));
    let (after, _) = repo.publisher.head(repo.now()).unwrap();
    assert_eq!(after.manifest, before.manifest);
}
