//! Inode numbers: an inode keeps the one it was first seen with, and no other has it meanwhile; also
//! of inodes that nobody knows when they are looked at next.

use std::collections::HashMap;
use std::ops::ControlFlow;

use fsimpl::{FileType, Ino};

use crate::support::{Bench, Published, ROOT, dir, file, path};

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/sub", (dir(0o755), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/b", (dir(0o755), Vec::new())),
    ]))
}

/// What a path is; the kernel forgets it at once, and the directories on the way.
fn glance<T>(bench: &Bench, path: &str, look: impl FnOnce(Ino) -> T) -> T {
    let mut seen = vec![bench.root];
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let attr = bench
            .fs
            .lookup(&ROOT, *seen.last().unwrap(), name.as_bytes());
        seen.push(attr.unwrap().ino);
    }
    let found = look(*seen.last().unwrap());
    for ino in seen.into_iter().skip(1).rev() {
        bench.fs.forget(ino, 1);
    }
    found
}

/// The names in a directory; true for a directory.
fn list(bench: &Bench, dir: Ino) -> Vec<(String, bool)> {
    let handle = bench.fs.opendir(dir).unwrap();
    let mut names = Vec::new();
    let listed = bench.fs.readdirplus(handle, 0, false, &mut |entry| {
        let name = String::from_utf8_lossy(entry.name).into_owned();
        if name != "." && name != ".." {
            names.push((name, entry.kind == FileType::Directory));
        }
        ControlFlow::Continue(())
    });
    listed.unwrap();
    bench.fs.releasedir(handle).unwrap();
    names
}

/// Every path's number, one after the other; no two are the same.
fn numbers(bench: &Bench) -> HashMap<String, Ino> {
    let mut all = HashMap::new();
    let mut pending = vec![String::new()];
    while let Some(at) = pending.pop() {
        for (name, is_dir) in glance(bench, &at, |dir| list(bench, dir)) {
            let path = format!("{at}/{name}");
            all.insert(path.clone(), glance(bench, &path, |ino| ino));
            if is_dir {
                pending.push(path);
            }
        }
    }
    for (path, ino) in &all {
        // what was seen in between does not matter
        assert_eq!(glance(bench, path, |ino| ino), *ino, "{path}");
        let others = all.iter().filter(|(_, other)| *other == ino);
        assert_eq!(others.count(), 1, "{path} shares its number: {all:?}");
    }
    all
}

/// After an abort of its old place, a moved directory and the one that is back are two.
#[test]
fn what_comes_back_is_another_than_what_was_moved_away() {
    let mut bench = bench();
    let first = numbers(&bench);
    bench.rename("/a", "/m").unwrap();
    let moved = numbers(&bench);
    for below in ["", "/one", "/sub", "/sub/deep"] {
        assert_eq!(moved[&format!("/m{below}")], first[&format!("/a{below}")]);
    }
    bench.stage().abort(&path("/a")).unwrap();
    let both = numbers(&bench);
    for (path, ino) in &moved {
        assert_eq!(both[path], *ino, "{path} keeps its number");
    }
    assert!(bench.exists("/a/sub/deep") && bench.exists("/m/sub/deep"));
    bench.reopen();
    numbers(&bench);
    // the one that is back keeps its numbers when the other one goes
    let both = numbers(&bench);
    bench.remove_all("/m");
    for (path, ino) in numbers(&bench) {
        assert_eq!(both[&path], ino, "{path}");
    }
}

/// The same where the directory that is back was removed with what is around it.
#[test]
fn what_comes_back_below_an_unstaged_directory() {
    let bench = bench();
    bench.rename("/a/sub", "/b/sub").unwrap();
    let moved = numbers(&bench);
    bench.remove_all("/a");
    bench.stage().abort(&path("/a")).unwrap();
    let both = numbers(&bench);
    assert_ne!(both["/a/sub"], both["/b/sub"]);
    assert_ne!(both["/a/sub/deep"], both["/b/sub/deep"]);
    assert_eq!(both["/b/sub/deep"], moved["/b/sub/deep"]);
}

/// An abort takes changes back, and no number.
#[test]
fn an_abort_keeps_numbers() {
    let mut bench = bench();
    bench.write("/b/.tmp", b"as rsync does");
    bench.rename("/b/.tmp", "/b/final").unwrap();
    bench.rename("/a/sub", "/b/moved").unwrap();
    bench.commit("");
    let published = numbers(&bench);
    let before = bench.everything();
    bench.write("/b/final", b"changed");
    bench.write("/b/moved/new", b"new");
    bench.rename("/b/moved", "/away").unwrap();
    bench.chmod("/a", 0o700);
    for restart in [false, true] {
        if restart {
            bench.reopen();
        }
        bench.stage().abort(&path("")).unwrap();
        assert_eq!(bench.everything(), before);
        assert_eq!(numbers(&bench), published);
        assert!(bench.changes().is_empty());
        assert_eq!(bench.stage().summary(), fsimpl::StageSummary::default());
    }
}

/// Another publisher's change of a directory that is kept for its number takes none either.
#[test]
fn a_new_head_keeps_numbers() {
    let bench = bench();
    bench.rename("/a/sub", "/b/moved").unwrap();
    bench.commit("");
    let published = numbers(&bench);
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, published| {
        tree.get_mut(&path("/b/moved")).unwrap().mtime.secs += 1;
        published.put(tree, "/b/moved/theirs", file(b"theirs"));
    });
    bench.stage().refresh(&theirs).unwrap();
    let after = numbers(&bench);
    for (path, ino) in published {
        assert_eq!(after[&path], ino, "{path}");
    }
    let mtime = bench.find("/b/moved").unwrap().mtime.secs;
    assert_eq!(mtime, 1_000_000_001);
    assert!(bench.exists("/b/moved/theirs") && bench.changes().is_empty());
}

/// A directory that is published at its new place stays there; what is back at the old one is another.
#[test]
fn an_abort_takes_nothing_from_its_new_place() {
    let bench = bench();
    bench.write("/a/sub/.tmp", b"as rsync does");
    bench.rename("/a/sub/.tmp", "/a/sub/final").unwrap();
    bench.rename("/a/sub", "/Moved").unwrap();
    bench.commit("/Moved");
    let published = numbers(&bench);
    bench.stage().abort(&path("")).unwrap();
    let after = numbers(&bench);
    assert!(!bench.exists("/a/sub/final") && bench.exists("/a/sub/deep"));
    for (path, ino) in published {
        assert_eq!(after[&path], ino, "{path}");
    }
}
