//! Restarts: what was staged is there again.

use fsimpl::{RenameMode, Time};

use crate::support::{Bench, Published, ROOT, dir, file, link};

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/sub", (dir(0o755), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/b", (dir(0o755), Vec::new())),
        ("/b/l", (link("x"), Vec::new())),
    ]))
}

#[test]
fn everything_is_there_again() {
    let mut bench = bench();
    bench.rename("/a/sub", "/b/moved").unwrap();
    bench.write("/b/moved/new", b"new");
    bench.link("/a/one", "/b/uno").unwrap();
    bench.unlink("/b/l").unwrap();
    bench.symlink("target", "/b/l2").unwrap();
    bench.mkdir("/c").unwrap();
    bench.chmod("/c", 0o700);
    bench
        .rename_as("/c", "/a/one", RenameMode::Exchange)
        .unwrap();
    let time = Time {
        secs: 17,
        nanos: 34,
    };
    bench.utimes("/b/moved/new", time);
    let before = bench.everything();
    let inos: Vec<_> = ["/b/moved", "/b/moved/deep", "/b/uno", "/a/one", "/b/l2"]
        .map(|p| bench.ino(p))
        .into();
    bench.reopen();
    assert_eq!(bench.everything(), before);
    let again: Vec<_> = ["/b/moved", "/b/moved/deep", "/b/uno", "/a/one", "/b/l2"]
        .map(|p| bench.ino(p))
        .into();
    assert_eq!(inos, again, "inode numbers are kept");
    assert_eq!(bench.find("/b/uno").unwrap().nlink, 2);
    assert_eq!(bench.find("/b/moved/new").unwrap().mtime, time);
    bench.wait_sealed();
    bench.reopen();
    assert_eq!(bench.everything(), before);
    assert_eq!(
        bench.stage().summary().unsealed_files,
        0,
        "nothing is sealed twice"
    );
    let root = bench.commit("");
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.published.read(&root, "/b/moved/new"), b"new");
}

#[test]
fn an_open_file_keeps_every_write_that_returned() {
    let mut bench = bench();
    let handle = bench.create("/b/log").unwrap();
    bench.fs.write(&ROOT, handle, 0, b"first").unwrap();
    let writer = bench.open_write("/a/one");
    bench.fs.write(&ROOT, writer, 3, b" and more").unwrap();
    let gone = bench.create("/b/gone").unwrap();
    bench.fs.write(&ROOT, gone, 0, b"unlinked").unwrap();
    bench.unlink("/b/gone").unwrap();
    bench.fs.write(&ROOT, handle, 5, b" second").unwrap();
    bench.reopen();
    assert_eq!(bench.read("/b/log"), b"first second");
    assert_eq!(bench.read("/a/one"), b"one and more");
    assert_eq!(bench.list("/b"), ["l", "log"]);
    bench.wait_sealed();
    let backing = bench.dir.path().join("stage/backing");
    let files = walk(&backing);
    assert_eq!(files, 2, "what belongs to no file is removed");
}

fn walk(dir: &std::path::Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files += walk(&entry.path());
        } else if entry.file_name() != "empty" {
            files += 1;
        }
    }
    files
}

#[test]
fn a_snapshot_survives_a_restart() {
    let mut bench = bench();
    bench.write("/a/new", b"new");
    let frozen = bench.freeze("").unwrap();
    bench.reopen();
    assert_eq!(bench.stage().frozen(), [frozen.id]);
    assert!(bench.freeze("").is_err());
    bench.unlink("/a/new").unwrap();
    bench.write("/a/later", b"later");
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.list("/a"), ["later", "one", "sub"]);
    bench.reopen();
    assert_eq!(bench.list("/a"), ["later", "one", "sub"]);
    assert_eq!(bench.stage().base_root(), root);
    let root = bench.commit("");
    let tree = bench.published.tree(&root);
    assert!(!tree.contains_key(&"/a/new".parse().unwrap()));
    assert!(tree.contains_key(&"/a/later".parse().unwrap()));
}
