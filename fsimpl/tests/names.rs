//! Names: over the published tree, moved, linked, removed, listed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use fsimpl::{FileType, FsError, Ino, NodeType, OpenFlags, RenameMode, SetAttr};

use crate::support::{Bench, NOBODY, Published, ROOT, dir, file, link, names};

fn small() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/two", file(b"two")),
        ("/a/sub", (dir(0o750), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/a/to", (link("one"), Vec::new())),
        ("/b", (dir(0o755), Vec::new())),
        ("/empty", (dir(0o755), Vec::new())),
    ]))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: fsimpl::Result<T>, errno: i32) {
    let error = result.unwrap_err();
    assert_eq!(error.to_errno(), errno, "{error}");
}

#[test]
fn the_published_tree_shows() {
    let bench = small();
    assert_eq!(bench.list(""), ["a", "b", "empty"]);
    assert_eq!(bench.list("/a"), ["one", "sub", "to", "two"]);
    assert_eq!(bench.read("/a/sub/deep"), b"deep");
    let sub = bench.find("/a/sub").unwrap();
    assert_eq!(
        (sub.kind, sub.perm, sub.nlink),
        (FileType::Directory, 0o750, 2)
    );
    assert_eq!(
        (sub.size, sub.mtime.secs, sub.mtime.nanos),
        (4096, 1_000_000_000, 5)
    );
    assert_eq!(bench.find("/a").unwrap().nlink, 3);
    assert_eq!(bench.fs.readlink(bench.ino("/a/to")).unwrap(), b"one");
    refused(bench.find("/a/none"), libc::ENOENT);
    refused(bench.find("/a/one/x"), libc::ENOTDIR);
    assert!(bench.changes().is_empty());
}

#[test]
fn removing_and_making_again() {
    let bench = small();
    bench.unlink("/a/one").unwrap();
    refused(bench.find("/a/one"), libc::ENOENT);
    assert_eq!(bench.list("/a"), ["sub", "to", "two"]);
    refused(bench.unlink("/a/one"), libc::ENOENT);
    refused(bench.unlink("/a/sub"), libc::EISDIR);
    refused(bench.rmdir("/a/two"), libc::ENOTDIR);
    refused(bench.rmdir("/a"), libc::ENOTEMPTY);
    bench.unlink("/a/sub/deep").unwrap();
    bench.rmdir("/a/sub").unwrap();
    assert_eq!(bench.find("/a").unwrap().nlink, 2);
    // what was below does not come back with the name
    bench.mkdir("/a/sub").unwrap();
    assert!(bench.list("/a/sub").is_empty());
    bench.write("/a/one", b"new");
    assert_eq!(bench.read("/a/one"), b"new");
    refused(bench.mkdir("/a/one"), libc::EEXIST);
}

#[test]
fn a_published_directory_moves_as_a_reference() {
    let bench = small();
    let before = (
        bench.ino("/a"),
        bench.ino("/a/sub"),
        bench.ino("/a/sub/deep"),
    );
    bench.rename("/a", "/b/moved").unwrap();
    assert_eq!(bench.list("/b/moved"), ["one", "sub", "to", "two"]);
    assert_eq!(bench.read("/b/moved/sub/deep"), b"deep");
    let after = (
        bench.ino("/b/moved"),
        bench.ino("/b/moved/sub"),
        bench.ino("/b/moved/sub/deep"),
    );
    assert_eq!(before, after, "inode numbers are kept");
    refused(bench.find("/a"), libc::ENOENT);
    // changes within what was moved
    bench.write("/b/moved/sub/deep", b"changed");
    bench.unlink("/b/moved/one").unwrap();
    assert_eq!(bench.list("/b/moved"), ["sub", "to", "two"]);
    assert_eq!(bench.read("/b/moved/sub/deep"), b"changed");
    assert_eq!(bench.stage().summary().renamed, 1);
    // and back again
    bench.rename("/b/moved", "/a").unwrap();
    assert_eq!(bench.list("/a"), ["sub", "to", "two"]);
    assert_eq!(bench.ino("/a"), before.0);
}

#[test]
fn rename_obeys_posix() {
    let bench = small();
    refused(bench.rename("/a", "/a/sub/x"), libc::EINVAL);
    refused(bench.rename("/a/one", "/b"), libc::EISDIR);
    refused(bench.rename("/empty", "/a/one"), libc::ENOTDIR);
    refused(bench.rename("/empty", "/a"), libc::ENOTEMPTY);
    refused(bench.rename("/a/none", "/b/x"), libc::ENOENT);
    refused(
        bench.rename_as("/a/one", "/a/two", RenameMode::NoReplace),
        libc::EEXIST,
    );
    refused(
        bench.rename_as("/a/one", "/b/none", RenameMode::Exchange),
        libc::ENOENT,
    );
    refused(
        bench.rename_as("/a", "/a/sub", RenameMode::Exchange),
        libc::EINVAL,
    );
    bench.rename("/b", "/empty").unwrap();
    assert_eq!(bench.list(""), ["a", "empty"]);
    bench
        .rename_as("/a/one", "/empty/new", RenameMode::NoReplace)
        .unwrap();
    bench.rename("/a/two", "/empty/new").unwrap();
    assert_eq!(bench.read("/empty/new"), b"two");
    bench
        .rename_as("/a", "/empty/new", RenameMode::Exchange)
        .unwrap();
    assert_eq!(bench.read("/a"), b"two");
    assert_eq!(bench.list("/empty/new"), ["sub", "to"]);
    assert_eq!(bench.find("").unwrap().nlink, 3);
    assert_eq!(bench.find("/empty").unwrap().nlink, 3);
}

#[test]
fn links_are_one_file() {
    let bench = small();
    let attr = bench.link("/a/one", "/b/uno").unwrap();
    assert_eq!((attr.nlink, attr.ino), (2, bench.ino("/a/one")));
    bench.write("/b/uno", b"both");
    assert_eq!(bench.read("/a/one"), b"both");
    bench.unlink("/a/one").unwrap();
    let attr = bench.find("/b/uno").unwrap();
    assert_eq!(attr.nlink, 1);
    refused(bench.link("/a", "/b/dir"), libc::EPERM);
    refused(bench.link("/b/uno", "/a/two"), libc::EEXIST);
    // renaming one name of a file onto another does nothing
    bench.link("/b/uno", "/b/due").unwrap();
    bench.rename("/b/uno", "/b/due").unwrap();
    assert_eq!(bench.list("/b"), ["due", "uno"]);
}

#[test]
fn published_groups_are_one_inode() {
    let (mut one, stored) = file(b"shared");
    if let formats::Kind::Regular(regular) = &mut one.kind {
        regular.link_group = 3;
    }
    let bench = Bench::new(Published::new(vec![
        ("/d", (dir(0o755), Vec::new())),
        ("/d/x", (one.clone(), stored.clone())),
        ("/d/y", (one, stored)),
        ("/d/z", file(b"alone")),
    ]));
    let (x, y) = (bench.find("/d/x").unwrap(), bench.find("/d/y").unwrap());
    assert_eq!((x.ino, x.nlink), (y.ino, 2));
    assert_eq!(bench.find("/d/z").unwrap().nlink, 1);
    bench.write("/d/y", b"for both");
    assert_eq!(bench.read("/d/x"), b"for both");
    assert_eq!(bench.ino("/d/x"), x.ino);
    bench.unlink("/d/x").unwrap();
    assert_eq!(bench.find("/d/y").unwrap().nlink, 1);
}

#[test]
fn what_belongs_to_cvmfs_is_not_touched() {
    let bench = Bench::new(Published::new(vec![
        ("/.cvmfs", (dir(0o555), Vec::new())),
        ("/.cvmfs/snapshots", (dir(0o555), Vec::new())),
        ("/.cvmfs/snapshots/x", file(b"x")),
        ("/d", (dir(0o755), Vec::new())),
    ]));
    assert_eq!(bench.read("/.cvmfs/snapshots/x"), b"x");
    refused(bench.mkdir("/.cvmfs"), libc::EPERM);
    refused(bench.rename("/d", "/.cvmfs"), libc::EPERM);
    refused(bench.rename("/.cvmfs", "/d/e"), libc::EPERM);
    refused(bench.mkdir("/.cvmfs/snapshots/y"), libc::EPERM);
    refused(bench.unlink("/.cvmfs/snapshots/x"), libc::EPERM);
    let set = SetAttr {
        perm: Some(0),
        ..SetAttr::default()
    };
    let inside = bench.ino("/.cvmfs/snapshots/x");
    refused(bench.fs.setattr(&ROOT, inside, &set), libc::EPERM);
    // the name is free elsewhere
    bench.mkdir("/d/.cvmfs").unwrap();
    assert!(
        bench
            .changes()
            .changes
            .iter()
            .all(|c| c.path.is_within(&"/d".parse().unwrap()))
    );
}

#[test]
fn names_have_limits() {
    let bench = small();
    let long = format!("/b/{}", "n".repeat(255));
    bench.write(&long, b"x");
    assert_eq!(bench.read(&long), b"x");
    refused(bench.mkdir(&format!("{long}n")), libc::ENAMETOOLONG);
    let root = bench.root;
    let odd: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    bench.fs.mkdir(&ROOT, root, &odd, 0o700).unwrap();
    assert!(bench.fs.lookup(&ROOT, root, &odd).is_ok());
    refused(bench.symlink("", "/b/l"), libc::ENOENT);
    refused(bench.symlink(&"t".repeat(4096), "/b/l"), libc::ENAMETOOLONG);
    bench.symlink(&"t".repeat(4095), "/b/l").unwrap();
}

#[test]
fn new_inodes_belong_to_their_maker_and_directory() {
    let bench = small();
    let b = bench.ino("/b");
    let set = SetAttr {
        perm: Some(0o2775),
        gid: Some(77),
        ..SetAttr::default()
    };
    bench.fs.setattr(&ROOT, b, &set).unwrap();
    let made = bench.fs.mkdir(&NOBODY, b, b"d", 0o777).unwrap();
    assert_eq!((made.perm, made.uid, made.gid), (0o2755, 1000, 77));
    let made = bench
        .fs
        .mknod(
            &NOBODY,
            b,
            b"dev",
            0o666,
            NodeType::CharDevice(0x1234_5678_9abc),
        )
        .unwrap();
    assert_eq!((made.perm, made.gid), (0o644, 77));
    assert_eq!(
        (made.kind, made.rdev),
        (FileType::CharDevice, 0x1234_5678_9abc)
    );
    for what in [NodeType::Fifo, NodeType::Socket, NodeType::Regular] {
        let name = format!("{what:?}");
        bench
            .fs
            .mknod(&ROOT, b, name.as_bytes(), 0o600, what)
            .unwrap();
    }
    assert_eq!(bench.list("/b"), ["Fifo", "Regular", "Socket", "d", "dev"]);
}

#[test]
fn a_removed_directory_takes_nothing_new() {
    let bench = small();
    let ino = bench.ino("/empty");
    bench.rmdir("/empty").unwrap();
    refused(bench.fs.mkdir(&ROOT, ino, b"x", 0o755), libc::ENOENT);
    refused(bench.fs.lookup(&ROOT, ino, b"x"), libc::ENOENT);
    assert_eq!(bench.fs.getattr(ino, None).unwrap().nlink, 0);
    assert!(names(&bench.fs, ino).is_empty());
    refused(bench.fs.mkdir(&ROOT, Ino::ROOT, b"x", 0o755), libc::EPERM);
}

#[test]
fn forgotten_inodes_take_no_memory_and_come_back_the_same() {
    let bench = small();
    let before = bench.find("/a/sub/deep").unwrap();
    for path in ["/a", "/a/sub", "/a/sub/deep"] {
        let ino = bench.ino(path);
        bench.fs.forget(ino, 1000);
    }
    refused(bench.fs.getattr(before.ino, None), libc::ESTALE);
    assert_eq!(bench.ino("/a/sub/deep"), before.ino);
}

#[test]
fn repositories_do_not_mix() {
    let bench = small();
    assert!(matches!(
        bench.fs.link(&ROOT, bench.ino("/a/one"), Ino::ROOT, b"x"),
        Err(FsError::CrossRepository)
    ));
    assert_eq!(names(&bench.fs, Ino::ROOT), ["test.example.org"]);
}

/// A directory with 200,000 names is listed in one go while it is emptied.
#[test]
fn a_large_directory_is_listed_while_it_shrinks() {
    const NAMES: usize = 200_000;
    let bench = small();
    let b = bench.ino("/b");
    for n in 0..NAMES {
        let name = format!("file-{n}");
        let made = bench
            .fs
            .mknod(&ROOT, b, name.as_bytes(), 0o644, NodeType::Fifo);
        bench.fs.forget(made.unwrap().ino, 1);
    }
    let started = std::time::Instant::now();
    let handle = bench.fs.opendir(b).unwrap();
    let (mut seen, mut cursor) = (BTreeSet::new(), 0);
    loop {
        let mut batch = Vec::new();
        bench
            .fs
            .readdirplus(handle, cursor, false, &mut |entry| {
                if batch.len() == 500 {
                    return ControlFlow::Break(());
                }
                batch.push((entry.name.to_vec(), entry.cursor));
                ControlFlow::Continue(())
            })
            .unwrap();
        let Some(last) = batch.last() else {
            break;
        };
        cursor = last.1;
        for (name, _) in batch {
            if name.starts_with(b"file") {
                bench.fs.unlink(&ROOT, b, &name).unwrap();
                assert!(seen.insert(name), "twice");
            }
        }
    }
    bench.fs.releasedir(handle).unwrap();
    assert_eq!(seen.len(), NAMES);
    assert!(bench.list("/b").is_empty());
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn cursors_mean_the_same_to_every_handle() {
    let bench = small();
    for n in 0..50 {
        bench.mkdir(&format!("/b/d{n}")).unwrap();
    }
    let b = bench.ino("/b");
    let list = |from: u64| {
        let handle = bench.fs.opendir(b).unwrap();
        let mut found = Vec::new();
        bench
            .fs
            .readdirplus(handle, from, false, &mut |entry| {
                found.push((entry.cursor, entry.name.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        bench.fs.releasedir(handle).unwrap();
        found
    };
    let all = list(0);
    assert_eq!(all.len(), 52);
    let middle = all[20].0;
    for n in 0..10 {
        bench.mkdir(&format!("/b/later{n}")).unwrap();
        bench.rmdir(&format!("/b/d{n}")).unwrap();
    }
    let rest: BTreeSet<_> = list(middle).into_iter().map(|(_, name)| name).collect();
    for (_, name) in all[21..].iter().filter(|(_, n)| bench.exists(&as_path(n))) {
        assert!(rest.contains(name));
    }
}

fn as_path(name: &[u8]) -> String {
    format!("/b/{}", String::from_utf8_lossy(name))
}

#[test]
fn create_opens_what_is_there() {
    let bench = small();
    let (a, flags) = (
        bench.ino("/a"),
        OpenFlags {
            read: true,
            write: true,
            ..OpenFlags::default()
        },
    );
    let (attr, handle) = bench.fs.create(&ROOT, a, b"one", 0o600, flags).unwrap();
    assert_eq!((attr.perm, attr.size), (0o644, 3));
    bench.fs.release(handle).unwrap();
    let exclusive = OpenFlags {
        exclusive: true,
        ..flags
    };
    refused(
        bench.fs.create(&ROOT, a, b"one", 0o600, exclusive),
        libc::EEXIST,
    );
    assert!(bench.changes().is_empty(), "opening changes nothing");
}
