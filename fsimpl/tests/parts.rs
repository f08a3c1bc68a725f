//! Commits of a part of what is staged, where directories were moved.

use formats::{ChangeSet, Children, Op, Source};
use fsimpl::{FreezeError, OpenFiles, StageSummary};

use crate::support::{Bench, Published, ROOT, dir, file, path};

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/two", file(b"two")),
        ("/a/sub", (dir(0o700), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/a/sub/other", file(b"other")),
        ("/a/sub/far", (dir(0o755), Vec::new())),
        ("/a/sub/far/leaf", file(b"leaf")),
        ("/b", (dir(0o755), Vec::new())),
        ("/b/x", file(b"x")),
    ]))
}

fn source_of<'s>(set: &'s ChangeSet, at: &str) -> &'s Source {
    let change = set.changes.iter().find(|c| c.path == path(at));
    match change.map(|change| &change.op) {
        Some(Op::Put {
            children: Children::From(source),
            ..
        }) => source,
        other => panic!("{at}: {other:?}"),
    }
}

/// Publishes one path; the mount shows the same before, after, and after a restart. Returns what is
/// published below a directory.
fn commit(bench: &mut Bench, target: &str, below: &str) -> Vec<String> {
    let before = bench.everything();
    let root = bench.commit(target);
    assert_eq!(bench.everything(), before, "after the commit of {target}");
    bench.reopen();
    assert_eq!(bench.everything(), before, "after a restart");
    let tree = bench.published.tree(&root);
    let paths = tree.keys().filter(|p| p.is_within(&path(below)));
    paths.map(ToString::to_string).collect()
}

#[test]
fn the_old_place_first() {
    let mut bench = bench();
    let first = bench.stage().base_root();
    bench.rename("/a/sub", "/b/sub").unwrap();
    bench.unlink("/b/sub/deep").unwrap();
    let changes = bench.changes();
    let staged = source_of(&changes, "/b/sub");
    assert_eq!((staged.root, staged.removed_over), (first, Some(first)));
    assert_eq!(commit(&mut bench, "/a", "/a"), ["/a", "/a/one", "/a/two"]);
    // what was there is known by the revision that had it, and is nobody's to remove any more
    let changes = bench.changes();
    let staged = source_of(&changes, "/b/sub");
    assert_eq!((staged.root, staged.removed_over), (first, None));
    assert_eq!(staged.path, path("/a/sub"));
    let wanted = ["/b/sub", "/b/sub/far", "/b/sub/far/leaf", "/b/sub/other"];
    assert_eq!(commit(&mut bench, "/b", "/b/sub"), wanted);
    assert!(bench.changes().is_empty());
}

#[test]
fn an_aborted_old_place_is_nobodys_to_remove() {
    let bench = bench();
    bench.rename("/a/sub", "/b/sub").unwrap();
    bench.stage().abort(&path("/a")).unwrap();
    assert!(bench.exists("/a/sub/deep") && bench.exists("/b/sub/deep"));
    assert_eq!(source_of(&bench.changes(), "/b/sub").removed_over, None);
}

/// The removal of the old place is staged over what was seen when it was made.
#[test]
fn a_directory_that_follows_the_head_is_moved_as_it_is_seen() {
    for changed in [false, true] {
        let bench = bench();
        bench.write("/a/new", b"new");
        if changed {
            bench.write("/a/one", b"changed");
        }
        let first = bench.stage().base_root();
        let second = bench.published.publish_with(&first, |tree, published| {
            published.put(tree, "/a/theirs", file(b"theirs"));
        });
        bench.stage().refresh(&second).unwrap();
        bench.rename("/a", "/moved").unwrap();
        assert!(bench.exists("/moved/theirs"));
        let set = bench.changes();
        // what was staged over the older revision may collide with what came after
        let since = if changed { first } else { second };
        assert_eq!(set.changes[0].path, path("/a"));
        assert_eq!(set.changes[0].base_root, since);
        let source = source_of(&set, "/moved");
        assert_eq!((source.root, source.removed_over), (second, Some(since)));
    }
}

#[test]
fn piece_by_piece() {
    let mut bench = bench();
    bench.rename("/a", "/m").unwrap();
    let inos = ["/m", "/m/one", "/m/sub", "/m/sub/deep", "/m/sub/far"].map(|p| (p, bench.ino(p)));
    assert_eq!(commit(&mut bench, "/m/one", "/m"), ["/m", "/m/one"]);
    // an unchanged file far below, on a way that was not staged; its directories are as they were
    let wanted = ["/m", "/m/one", "/m/sub", "/m/sub/far", "/m/sub/far/leaf"];
    assert_eq!(commit(&mut bench, "/m/sub/far/leaf", "/m"), wanted);
    assert_eq!(bench.find("/m/sub").unwrap().perm, 0o700);
    // removals of what is published, and of what never was
    bench.unlink("/m/one").unwrap();
    bench.unlink("/m/two").unwrap();
    let wanted = ["/m", "/m/sub", "/m/sub/far", "/m/sub/far/leaf"];
    assert_eq!(commit(&mut bench, "/m/one", "/m"), wanted);
    assert!(matches!(
        bench.freeze("/m/two"),
        Err(FreezeError::NotFound(_))
    ));
    bench.write("/m/sub/far/new", b"new");
    assert!(commit(&mut bench, "/m/sub/far/new", "/m").contains(&"/m/sub/far/new".to_owned()));
    for (path, ino) in inos {
        if bench.exists(path) {
            assert_eq!(bench.ino(path), ino, "{path}");
        }
    }
    let all = commit(&mut bench, "/m", "/m");
    assert!(all.contains(&"/m/sub/deep".to_owned()) && !all.contains(&"/m/two".to_owned()));
    assert!(!commit(&mut bench, "", "").contains(&"/a".to_owned()));
    assert!(bench.changes().is_empty());
    assert_eq!(bench.stage().summary(), StageSummary::default());
}

/// The user goes on while the part is being published, and the program is started anew.
#[test]
fn what_changes_meanwhile_is_staged_over_the_new_place() {
    let mut bench = bench();
    bench.rename("/a", "/m").unwrap();
    let frozen = bench.freeze("/m/sub/deep").unwrap();
    bench.unlink("/m/sub/deep").unwrap();
    bench.write("/m/sub/new", b"new");
    bench.rename("/m/sub/far", "/far").unwrap();
    let before = bench.everything();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.reopen();
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.everything(), before);
    let root = bench.commit("/m/sub");
    assert_eq!(bench.everything(), before);
    let tree = bench.published.tree(&root);
    assert!(!tree.contains_key(&path("/m/sub/deep")));
    assert!(tree.contains_key(&path("/m/sub/other")) && tree.contains_key(&path("/m/sub/new")));
    bench.commit("");
    assert_eq!(bench.everything(), before);
    assert!(bench.changes().is_empty());
}

/// A directory that moves on while a part of it is being published is moved from where it was.
#[test]
fn a_directory_that_moves_on_meanwhile() {
    for back in [false, true] {
        let bench = bench();
        bench.rename("/a", "/m").unwrap();
        let frozen = bench.freeze("/m/one").unwrap();
        bench.rename("/m", "/k").unwrap();
        if back {
            bench.rename("/k", "/m").unwrap();
        }
        let before = bench.everything();
        let root = bench.published.commit(&bench.stage().base_root(), &frozen);
        bench.stage().retire(frozen.id, &root).unwrap();
        assert_eq!(bench.everything(), before);
        let root = bench.commit("");
        assert_eq!(bench.everything(), before);
        assert_eq!(bench.published.tree(&root).len() - 1, before.len());
        assert!(bench.changes().is_empty());
    }
}

/// What another publisher put where ours is not published yet collides.
#[test]
fn another_publisher_at_the_new_place() {
    let bench = bench();
    bench.rename("/a", "/m").unwrap();
    let frozen = bench.freeze("/m/one").unwrap();
    let first = bench.stage().base_root();
    let theirs = bench.published.publish_with(&first, |tree, published| {
        tree.insert(path("/m"), dir(0o755));
        published.put(tree, "/m/two", file(b"theirs"));
        published.put(tree, "/m/more", file(b"theirs"));
    });
    // two that made the same directory share it
    let mut shared = frozen;
    shared.change_set.changes.retain(|c| c.path != path("/m"));
    let root = bench.published.commit(&theirs, &shared);
    bench.stage().retire(shared.id, &root).unwrap();
    assert_eq!(bench.read("/m/two"), b"two");
    assert_eq!(bench.read("/m/more"), b"theirs");
    let set = bench.changes();
    let two = set.changes.iter().find(|c| c.path == path("/m/two"));
    let two = two.unwrap();
    assert_eq!((two.base.as_ref(), two.base_root), (None, first));
    // and what we take away is seen to be theirs
    bench.unlink("/m/two").unwrap();
    assert!(!bench.exists("/m/two"));
}

/// A number says nothing of whose it was when the snapshot was made.
#[test]
fn another_directory_of_the_same_number() {
    let bench = bench();
    bench.write("/a/sub/new", b"new");
    let frozen = bench.freeze("/a").unwrap();
    let number = bench.ino("/a/sub");
    bench.remove_all("/a/sub");
    bench.fs.forget(number, u64::MAX);
    bench.mkdir("/a/sub").unwrap();
    assert_eq!(bench.ino("/a/sub"), number, "it is free again");
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert!(bench.list("/a/sub").is_empty());
    let root = bench.commit("");
    assert!(bench.list("/a/sub").is_empty() && bench.changes().is_empty());
    let tree = bench.published.tree(&root);
    assert!(!tree.contains_key(&path("/a/sub/new")));
}

#[test]
fn a_file_being_written_in_a_moved_directory_is_as_in_the_base() {
    let mut bench = bench();
    bench.rename("/a", "/m").unwrap();
    // the same file; another one in its place; one that took its name from another
    let one = bench.open_write("/m/one");
    bench.fs.write(&ROOT, one, 0, b"ONE").unwrap();
    let number = bench.ino("/m/two");
    bench.unlink("/m/two").unwrap();
    bench.fs.forget(number, u64::MAX);
    let two = bench.create("/m/two").unwrap();
    assert_eq!(bench.ino("/m/two"), number, "it is free again");
    bench.fs.write(&ROOT, two, 0, b"TWO").unwrap();
    bench.rename("/m/sub/deep", "/m/sub/other").unwrap();
    let deep = bench.open_write("/m/sub/other");
    bench.fs.write(&ROOT, deep, 0, b"DEEP").unwrap();
    let skip = OpenFiles::Skip;
    let frozen = bench.stage().freeze(&[path("")], skip, &()).unwrap();
    assert_eq!(frozen.skipped.len(), 3);
    let before = bench.everything();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.published.read(&root, "/m/one"), b"one");
    assert_eq!(bench.published.read(&root, "/m/sub/deep"), b"deep");
    let tree = bench.published.tree(&root);
    assert!(!tree.contains_key(&path("/m/two")) && !tree.contains_key(&path("/m/sub/other")));
    for handle in [one, two, deep] {
        bench.fs.release(handle).unwrap();
    }
    let all = commit(&mut bench, "", "/m/sub");
    assert!(all.contains(&"/m/sub/other".to_owned()) && !all.contains(&"/m/sub/deep".to_owned()));
    assert!(bench.changes().is_empty());
}

/// That its first change came while another commit was under way is nothing to the next one.
#[test]
fn a_file_being_written_since_an_earlier_commit() {
    let bench = bench();
    bench.write("/a/new", b"new");
    let frozen = bench.freeze("").unwrap();
    let one = bench.open_write("/a/one");
    bench.fs.write(&ROOT, one, 0, b"ONE").unwrap();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    bench.rename("/a", "/m").unwrap();
    let frozen = bench.stage().freeze(&[path("")], OpenFiles::Skip, &());
    let frozen = frozen.unwrap();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert!(bench.published.tree(&root).contains_key(&path("/m/one")));
    bench.fs.release(one).unwrap();
    assert_eq!(bench.read("/m/one"), b"ONE");
}

/// After an abort of its old place, a published directory is seen twice, and moved twice.
#[test]
fn one_directory_that_was_moved_twice() {
    let mut bench = bench();
    bench.rename("/a/sub", "/b/sub").unwrap();
    bench.stage().abort(&path("/a")).unwrap();
    bench.rename("/a/sub/far", "/far").unwrap();
    bench.rename("/a/sub", "/again").unwrap();
    let wanted = ["/again", "/again/deep", "/again/other"];
    assert_eq!(commit(&mut bench, "/again", "/again"), wanted);
    assert_eq!(bench.find("/b/sub").unwrap().nlink, 3, "with /b/sub/far");
    assert!(commit(&mut bench, "", "").contains(&"/b/sub/far/leaf".to_owned()));
    assert!(bench.changes().is_empty());
}
