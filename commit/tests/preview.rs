//! A look ahead says what a commit would do, and does nothing.

use commit::{Preview, Publisher, What};
use formats::changeset::{ChangeSet, Children};

use crate::support::changes::path;
use crate::support::repo::Repo;

fn look(repo: &Repo, set: &ChangeSet) -> Preview {
    let work = tempfile::tempdir().unwrap();
    let before = *repo.head().root_hash();
    let staged = repo.staged.as_ref();
    let preview = commit::preview(set, staged, &repo.publisher, repo.now(), work.path()).unwrap();
    assert_eq!(*repo.head().root_hash(), before);
    preview
}

fn begun() -> Repo {
    let repo = Repo::new();
    repo.publish(
        repo.changes()
            .file("/.cvmfsdirtab", b"/data/*\n")
            .dir("/a")
            .file("/a/same", b"same")
            .file("/a/changed", b"before")
            .file("/a/gone", b"gone")
            .dir("/n")
            .file("/n/.cvmfscatalog", b"")
            .file("/n/x", b"x")
            .dir("/data")
            .done(),
    );
    repo
}

#[test]
fn each_path_says_what_happens_to_it() {
    let repo = begun();
    let set = repo
        .changes()
        .implicit("/a", 1_800_000_000)
        .file("/a/same", b"same")
        .file("/a/changed", b"afterwards")
        .remove("/a/gone")
        .chmod_dir("/n", 0o700)
        .file("/n/new", b"new")
        .dir("/data/run1")
        .file("/data/run1/event", b"1")
        .done();
    let preview = look(&repo, &set);
    let seen: Vec<(String, What, Option<String>, u64, u64)> = preview
        .paths
        .iter()
        .map(|p| {
            (
                p.path.to_string(),
                p.what.clone(),
                p.catalog.as_ref().map(ToString::to_string),
                p.size,
                p.size_before,
            )
        })
        .collect();
    let at = |text: &str| Some(text.to_owned());
    let expected = [
        ("/a", What::MetadataOnly, at("/"), 0, 0),
        ("/a/changed", What::Modified, at("/"), 10, 6),
        ("/a/gone", What::Removed, None, 0, 4),
        ("/data/run1", What::Added, at("/"), 0, 0),
        (
            "/data/run1/.cvmfscatalog",
            What::Generated,
            at("/data/run1"),
            0,
            0,
        ),
        ("/data/run1/event", What::Added, at("/data/run1"), 1, 0),
        ("/n", What::MetadataOnly, at("/"), 0, 0),
        ("/n/new", What::Added, at("/n"), 3, 0),
    ]
    .map(|(path, what, catalog, size, before)| (path.to_owned(), what, catalog, size, before));
    assert_eq!(seen, expected);
    assert_eq!(preview.catalogs, ["", "/data/run1", "/n"].map(path));
    assert!(!preview.is_empty && preview.conflicts.is_empty());
    assert_eq!(preview.revision, 2);
}

#[test]
fn a_rename_is_one_line() {
    let repo = begun();
    let preview = look(&repo, &repo.changes().moved("/n", "/m").done());
    let whats: Vec<What> = preview.paths.into_iter().map(|p| p.what).collect();
    assert_eq!(whats, [What::RenamedFrom(path("/n")), What::Removed]);
}

#[test]
fn nothing_is_said_to_be_nothing() {
    let repo = begun();
    let preview = look(&repo, &repo.changes().file("/a/same", b"same").done());
    assert!(preview.is_empty && preview.paths.is_empty());
}

#[test]
fn files_that_are_not_sealed_can_be_looked_at() {
    let repo = begun();
    let mut set = repo
        .changes()
        .file("/.cvmfsdirtab", b"/other/*\n")
        .file("/new", b"new")
        .done();
    for change in &mut set.changes {
        if let formats::Op::Put {
            entry,
            children: Children::None,
            ..
        } = &mut change.op
            && let formats::Kind::Regular(file) = &mut entry.kind
        {
            file.content = formats::Content::Whole(formats::Hash::null());
        }
    }
    assert_eq!(look(&repo, &set).paths.len(), 2);
    // a commit refuses them by name
    let error = repo.try_publish(&repo.request(set)).unwrap_err();
    assert!(error.to_string().contains("/.cvmfsdirtab"), "{error}");
    assert_eq!(
        repo.publisher
            .head(repo.now())
            .unwrap()
            .0
            .manifest()
            .revision,
        2
    );
}

#[test]
fn conflicts_are_shown() {
    let repo = begun();
    let base = repo.head();
    let ours = repo
        .changes_on(base.clone())
        .file("/a/changed", b"ours")
        .done();
    repo.publish(repo.changes_on(base).file("/a/changed", b"theirs").done());
    let preview = look(&repo, &ours);
    assert_eq!(preview.conflicts.named.len(), 1);
}
