//! Two publishers, one repository: the table of conflicts, row by row.

use commit::catalogs::CatalogsError;
use commit::{CommitError, Conflict, ConflictKind, OnConflict, Outcome, Publisher};
use formats::changeset::{ChangeSet, Children};
use formats::object::{ObjectKind, ObjectName};
use formats::path::RepoPath;

use crate::support::changes::{Changes, dir, path};
use crate::support::golden::Rows;
use crate::support::healthy::assert_healthy;
use crate::support::repo::Repo;

/// A repository in which both begin, with a nested catalog.
fn shared() -> Repo {
    let repo = Repo::new();
    repo.publish(
        repo.changes()
            .dir("/a")
            .file("/a/one", b"one")
            .file("/a/two", b"two")
            .dir("/a/deep")
            .file("/a/deep/leaf", b"leaf")
            .dir("/b")
            .file("/b/one", b"one")
            .dir("/n")
            .file("/n/.cvmfscatalog", b"")
            .file("/n/one", b"one")
            .symlink("/link", "target")
            .done(),
    );
    repo
}

/// Publishes theirs, then tries ours, both staged on the same revision.
fn collide(
    repo: &Repo,
    ours: impl FnOnce(Changes) -> Changes,
    theirs: impl FnOnce(Changes) -> Changes,
) -> Result<Outcome, Vec<Conflict>> {
    let base = repo.head();
    let ours = ours(repo.changes_on(base.clone())).done();
    let theirs = theirs(repo.changes_on(base)).done();
    repo.publish(theirs);
    publish(repo, ours, OnConflict::Fail)
}

fn publish(
    repo: &Repo,
    ours: ChangeSet,
    on_conflict: OnConflict,
) -> Result<Outcome, Vec<Conflict>> {
    let mut request = repo.request(ours);
    request.on_conflict = on_conflict;
    match repo.try_publish(&request) {
        Ok(outcome) => {
            rows(repo);
            Ok(outcome)
        }
        Err(CommitError::Conflicts { conflicts, .. }) => Err(conflicts.named),
        Err(error) => panic!("{error:?}"),
    }
}

fn rows(repo: &Repo) -> Rows {
    assert_healthy(repo.publisher.repository(), repo.head().root_hash())
}

fn has(repo: &Repo, at: &str) -> bool {
    rows(repo).rows.contains_key(&path(at))
}

/// One conflict of a kind at a path.
#[track_caller]
fn expect(found: Result<Outcome, Vec<Conflict>>, at: &str, kind: ConflictKind) {
    let found = found.unwrap_err();
    assert!(
        found.iter().any(|c| c.path == path(at) && c.kind == kind),
        "{found:?}"
    );
}

#[test]
fn changes_elsewhere_are_kept() {
    let repo = shared();
    collide(
        &repo,
        |c| c.file("/a/ours", b"ours").implicit("/a", 1_800_000_000),
        |c| {
            c.file("/a/theirs", b"theirs")
                .remove("/b")
                .file("/n/theirs", b"")
        },
    )
    .unwrap();
    for kept in ["/a/ours", "/a/theirs", "/n/theirs", "/a/one"] {
        assert!(has(&repo, kept), "{kept}");
    }
    assert!(!has(&repo, "/b"));
}

#[test]
fn both_made_the_same_row() {
    let repo = shared();
    let same = |c: Changes| {
        c.file("/a/one", b"same")
            .file("/new", b"same")
            .symlink("/link", "other")
            .remove("/b/one")
    };
    let outcome = collide(&repo, same, same).unwrap();
    assert_eq!(outcome, Outcome::Nothing);
}

#[test]
fn both_changed() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.file("/a/one", b"ours"),
        |c| c.file("/a/one", b"theirs"),
    );
    expect(found, "/a/one", ConflictKind::BothChanged);
}

#[test]
fn both_added() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.file("/a/new", b"ours"),
        |c| c.file("/a/new", b"theirs"),
    );
    expect(found, "/a/new", ConflictKind::BothAdded);
}

#[test]
fn change_against_removal() {
    let repo = shared();
    let found = collide(&repo, |c| c.file("/a/one", b"ours"), |c| c.remove("/a/one"));
    expect(found, "/a/one", ConflictKind::RemovedByThem);
}

#[test]
fn removal_against_change() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.remove("/a/one"),
        |c| c.file("/a/one", b"theirs"),
    );
    expect(found, "/a/one", ConflictKind::RemovedByUs);
}

#[test]
fn type_against_change() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.file("/a/one", b"ours"),
        |c| c.symlink("/a/one", "theirs"),
    );
    expect(found, "/a/one", ConflictKind::TypeChanged);
    let repo = shared();
    let found = collide(&repo, |c| c.dir("/a/one"), |c| c.file("/a/one", b"theirs"));
    expect(found, "/a/one", ConflictKind::BothChanged);
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.dir("/new").file("/new/x", b""),
        |c| c.file("/new", b"theirs"),
    );
    expect(found, "/new", ConflictKind::TypeChanged);
}

#[test]
fn directories_made_by_both_merge_and_our_metadata_wins() {
    let repo = shared();
    let mut ours = dir();
    ours.perm = 0o750;
    collide(
        &repo,
        |c| c.put("/new", ours, Children::None).file("/new/ours", b""),
        |c| c.dir("/new").file("/new/theirs", b""),
    )
    .unwrap();
    assert!(has(&repo, "/new/ours") && has(&repo, "/new/theirs"));
    assert_eq!(rows(&repo).rows[&path("/new")].entry.perm, 0o750);
}

#[test]
fn implicit_times_never_collide() {
    let repo = shared();
    collide(
        &repo,
        |c| c.implicit("/a", 1_800_000_001).file("/a/ours", b""),
        |c| c.implicit("/a", 1_800_000_002).file("/a/theirs", b""),
    )
    .unwrap();
    // what they changed explicitly stays, our time goes along
    let repo = shared();
    collide(
        &repo,
        |c| c.implicit("/a", 1_800_000_001).file("/a/ours", b""),
        |c| c.chmod_dir("/a", 0o700),
    )
    .unwrap();
    let entry = rows(&repo).rows[&path("/a")].entry.clone();
    assert_eq!((entry.perm, entry.mtime.secs), (0o700, 1_800_000_001));
}

#[test]
fn explicit_metadata_of_both_collides() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.chmod_dir("/a", 0o711),
        |c| c.chmod_dir("/a", 0o700),
    );
    expect(found, "/a", ConflictKind::BothChanged);
    let repo = shared();
    collide(
        &repo,
        |c| c.chmod_dir("/a", 0o711),
        |c| c.chmod_dir("/a", 0o711),
    )
    .unwrap();
    // theirs followed from a change below
    let repo = shared();
    collide(
        &repo,
        |c| c.chmod_dir("/a", 0o711),
        |c| c.implicit("/a", 1_800_000_000).file("/a/theirs", b""),
    )
    .unwrap();
}

#[test]
fn their_change_below_what_we_removed() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.remove("/a"),
        |c| c.file("/a/deep/theirs", b"theirs"),
    )
    .unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, path("/a"));
    assert_eq!(found[0].kind, ConflictKind::ChangedBelow);
    assert_eq!(found[0].theirs, Some(path("/a/deep/theirs")));
    // in a nested catalog too
    let repo = shared();
    let found = collide(&repo, |c| c.remove("/n"), |c| c.file("/n/one", b"theirs"));
    expect(found, "/n", ConflictKind::ChangedBelow);
    // both removed it, or parts of it: fine or theirs
    let repo = shared();
    collide(&repo, |c| c.remove("/a"), |c| c.remove("/a")).unwrap();
    let repo = shared();
    let found = collide(&repo, |c| c.remove("/a"), |c| c.remove("/a/one"));
    expect(found, "/a", ConflictKind::ChangedBelow);
}

#[test]
fn their_change_below_what_we_replaced() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.dir("/a").file("/a/only", b""),
        |c| c.file("/a/one", b"theirs"),
    );
    expect(found, "/a", ConflictKind::ChangedBelow);
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.file("/a", b"a file now"),
        |c| c.file("/a/one", b"theirs"),
    );
    expect(found, "/a", ConflictKind::ChangedBelow);
}

#[test]
fn their_change_below_what_we_moved() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.moved("/a", "/moved"),
        |c| c.file("/a/one", b"theirs"),
    );
    expect(found, "/moved", ConflictKind::ChangedBelow);
    // elsewhere is fine
    let repo = shared();
    collide(
        &repo,
        |c| c.moved("/a", "/moved"),
        |c| c.file("/b/theirs", b"theirs"),
    )
    .unwrap();
    assert!(has(&repo, "/moved/deep/leaf") && has(&repo, "/b/theirs") && !has(&repo, "/a"));
}

/// Half a rename: the old place was published first, the new one comes later.
#[test]
fn a_move_whose_old_place_is_gone_already() {
    let repo = shared();
    let old = repo.head();
    repo.publish(repo.changes().remove("/n").done());
    let ours = repo.changes().put_old("/moved", "/n", &old).done();
    // what others do there meanwhile is their own affair
    repo.publish(repo.changes().dir("/n").file("/n/theirs", b"theirs").done());
    publish(&repo, ours, OnConflict::Fail).unwrap();
    assert!(has(&repo, "/moved/one") && has(&repo, "/n/theirs") && !has(&repo, "/n/one"));
    assert_eq!(
        repo.head().catalog_path_of(&path("/moved")).unwrap(),
        path("/moved"),
        "a nested catalog goes along"
    );
}

/// Half a rename: the new place first. The old one is still ours to remove.
#[test]
fn their_change_below_what_we_moved_is_found_by_either_half() {
    let halves: [fn(Changes) -> Changes; 2] = [
        |c| {
            let entry = crate::support::changes::dir();
            c.put_moved("/moved", entry, "/a")
        },
        |c| c.remove("/a"),
    ];
    for (half, at) in halves.into_iter().zip(["/moved", "/a"]) {
        let repo = shared();
        let found = collide(&repo, half, |c| c.file("/a/one", b"theirs"));
        expect(found, at, ConflictKind::ChangedBelow);
    }
}

/// As after a garbage collection.
#[test]
fn a_move_from_a_revision_that_is_gone_says_so() {
    let repo = shared();
    let old = repo.head();
    let nested = *old.catalog(&path("/n")).unwrap().hash();
    repo.publish(repo.changes().remove("/n").done());
    let ours = repo.changes().put_old("/moved", "/n", &old).done();
    for catalog in [nested, *old.root_hash()] {
        let name = ObjectName::new(catalog, ObjectKind::Catalog);
        repo.publisher.storage().delete(&name).unwrap();
    }
    drop(old);
    let repo = repo.without_cache();
    match repo.try_publish(&repo.request(ours)).unwrap_err() {
        CommitError::Catalogs(error @ CatalogsError::SourceUnreadable { .. }) => {
            let text = error.to_string();
            assert!(text.contains("/moved was moved from /n"), "{text}");
            assert!(text.contains("`prepub abort` /moved"), "{text}");
        }
        error => panic!("{error:?}"),
    }
    assert!(!has(&repo, "/moved"));
}

#[test]
fn their_file_where_we_moved_something() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.moved("/a", "/moved"),
        |c| c.dir("/moved").file("/moved/theirs", b""),
    );
    expect(found, "/moved", ConflictKind::BothAdded);
}

#[test]
fn they_removed_the_directory_we_write_in() {
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.implicit("/a", 1_800_000_000).file("/a/ours", b""),
        |c| c.remove("/a"),
    );
    expect(found, "/a", ConflictKind::RemovedByThem);
    // also where the directory itself is not staged
    let repo = shared();
    let found = collide(&repo, |c| c.file("/a/deep/ours", b""), |c| c.remove("/a"));
    expect(found, "/a/deep/ours", ConflictKind::ParentRemoved);
    // a file in its place is no directory either
    let repo = shared();
    let found = collide(
        &repo,
        |c| c.implicit("/a", 1_800_000_000).file("/a/ours", b""),
        |c| c.file("/a", b"a file now"),
    );
    expect(found, "/a", ConflictKind::TypeChanged);
}

#[test]
fn ours_remakes_parents_and_replaces_theirs() {
    let repo = shared();
    let base = repo.head();
    let ours = repo
        .changes_on(base.clone())
        .file("/a/deep/ours", b"ours")
        .file("/b/one", b"ours")
        .implicit("/n", 1_800_000_000)
        .file("/n/ours", b"ours")
        .done();
    let theirs = repo
        .changes_on(base)
        .remove("/a")
        .file("/b/one", b"theirs")
        .remove("/n")
        .done();
    repo.publish(theirs);
    publish(&repo, ours, OnConflict::Ours).unwrap();
    // the directories are there again, and nothing else of what they removed
    assert!(has(&repo, "/a/deep/ours") && has(&repo, "/n/ours"));
    assert!(!has(&repo, "/a/one") && !has(&repo, "/a/deep/leaf") && !has(&repo, "/n/one"));
    let ours = repo.head().lookup(&path("/b/one")).unwrap().unwrap();
    assert_eq!(ours.entry.size(), 4);
}

#[test]
fn ours_puts_a_directory_where_they_put_a_file() {
    let repo = shared();
    let base = repo.head();
    let ours = repo
        .changes_on(base.clone())
        .file("/a/deep/ours", b"ours")
        .done();
    let theirs = repo.changes_on(base).file("/a", b"a file now").done();
    repo.publish(theirs);
    publish(&repo, ours, OnConflict::Ours).unwrap();
    assert!(has(&repo, "/a/deep/ours"));
}

#[test]
fn ours_moves_what_was_staged() {
    let repo = shared();
    let base = repo.head();
    let ours = repo.changes_on(base.clone()).moved("/a", "/moved").done();
    let theirs = repo
        .changes_on(base)
        .file("/a/one", b"theirs, longer")
        .done();
    repo.publish(theirs);
    publish(&repo, ours, OnConflict::Ours).unwrap();
    let moved = repo.head().lookup(&path("/moved/one")).unwrap().unwrap();
    assert_eq!(moved.entry.size(), 3);
    assert!(!has(&repo, "/a"));
}

#[test]
fn content_that_only_an_older_revision_had_must_still_be_there() {
    let repo = shared();
    let base = repo.head();
    let ours = repo.changes_on(base.clone()).moved("/a", "/moved").done();
    let leaf = base.lookup(&path("/a/deep/leaf")).unwrap().unwrap();
    repo.publish(repo.changes_on(base).remove("/a").done());
    // as a garbage collection does
    for name in leaf.entry.regular().unwrap().content.objects() {
        repo.publisher.storage().delete(&name).unwrap();
    }
    let mut request = repo.request(ours);
    request.on_conflict = OnConflict::Ours;
    match repo.try_publish(&request).unwrap_err() {
        CommitError::Objects(error) => {
            assert!(error.to_string().contains("/moved/deep/leaf"), "{error}");
        }
        error => panic!("{error}"),
    }
    assert!(!has(&repo, "/moved"));
}

#[test]
fn a_conflict_publishes_nothing_and_can_be_tried_again() {
    let repo = shared();
    let base = repo.head();
    let ours = || {
        repo.changes_on(base.clone())
            .file("/a/one", b"ours")
            .file("/fine", b"fine")
            .done()
    };
    let theirs = repo
        .changes_on(base.clone())
        .file("/a/one", b"theirs")
        .done();
    let published = repo.publish(theirs);
    publish(&repo, ours(), OnConflict::Fail).unwrap_err();
    assert_eq!(*repo.head().root_hash(), published.root_hash);
    assert!(!has(&repo, "/fine"));
    publish(&repo, ours(), OnConflict::Ours).unwrap();
    assert!(has(&repo, "/fine"));
}

#[test]
fn many_conflicts_are_counted() {
    let repo = Repo::new();
    let many = |changes: Changes, bytes: &'static [u8]| {
        (0..1100).fold(changes, move |changes, i| {
            changes.file(&format!("/f{i:04}"), bytes)
        })
    };
    let base = repo.head();
    let ours = many(repo.changes_on(base.clone()), b"ours").done();
    repo.publish(many(repo.changes_on(base), b"theirs").done());
    let error = repo.try_publish(&repo.request(ours)).unwrap_err();
    let CommitError::Conflicts { conflicts, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((conflicts.named.len(), conflicts.more), (1000, 100));
    assert!(error.to_string().starts_with("1100 paths"), "{error}");
    let _: RepoPath = conflicts.named[0].path.clone();
}
