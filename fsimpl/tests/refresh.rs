//! Another publisher's revisions, and dropping what is staged.

use std::sync::Arc;
use std::time::Duration;

use fsimpl::{AbortError, Ino, Notifier};
use parking_lot::Mutex;

use crate::support::{Bench, Published, ROOT, dir, file, path};

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/two", file(b"two")),
        ("/a/sub", (dir(0o755), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/b", (dir(0o755), Vec::new())),
    ]))
}

#[derive(Default)]
struct Heard {
    inodes: Mutex<Vec<Ino>>,
    entries: Mutex<Vec<(Ino, Vec<u8>)>>,
}

impl Notifier for Heard {
    fn inval_inode(&self, ino: Ino) {
        self.inodes.lock().push(ino);
    }

    fn inval_entry(&self, parent: Ino, name: &[u8]) {
        self.entries.lock().push((parent, name.to_vec()));
    }
}

fn listen(bench: &Bench) -> Arc<Heard> {
    let heard = Arc::new(Heard::default());
    let notifier: Arc<dyn Notifier> = Arc::clone(&heard) as Arc<dyn Notifier>;
    bench.fs.set_notifier(&notifier);
    heard
}

fn eventually(what: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn unstaged_paths_follow_the_head() {
    let bench = bench();
    let heard = listen(&bench);
    bench.write("/a/two", b"mine");
    let one = bench.ino("/a/one");
    let base = bench.stage().base_root();
    let open = bench.open_read("/a/sub/deep");
    let theirs = bench.published.publish_with(&base, |tree, published| {
        published.put(tree, "/a/one", file(b"theirs"));
        published.put(tree, "/a/two", file(b"theirs, too"));
        published.put(tree, "/b/new", file(b"new"));
        published.put(tree, "/a/sub/deep", file(b"deeper"));
    });
    bench.stage().refresh(&theirs).unwrap();
    assert_eq!(bench.read("/a/one"), b"theirs");
    assert_eq!(bench.ino("/a/one"), one, "the number is kept");
    assert_eq!(bench.read("/a/two"), b"mine", "what is staged stays");
    assert_eq!(bench.read("/b/new"), b"new");
    assert_eq!(
        bench.read_handle(open),
        b"deep",
        "an open file keeps its content"
    );
    assert_eq!(bench.read("/a/sub/deep"), b"deeper");
    bench.fs.release(open).unwrap();
    eventually(|| heard.inodes.lock().contains(&one));
    // the change remembers what it was made over
    let set = bench.changes();
    let change = set
        .changes
        .iter()
        .find(|c| c.path == path("/a/two"))
        .unwrap();
    assert_eq!(change.base_root, base);
    assert_eq!(change.base.as_ref().unwrap().size(), 3);
}

/// Whoever has a file open goes on seeing that file, though nothing else needs its revision.
#[test]
fn an_open_file_stays_what_it_was_in_all_its_attributes() {
    let bench = bench();
    let open = bench.open_read("/a/sub/deep");
    let ino = bench.ino("/a/sub/deep");
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, published| {
        published.put(tree, "/a/sub/deep", file(b"deeper"));
    });
    bench.stage().refresh(&theirs).unwrap();
    assert_eq!(bench.find("/a/sub/deep").unwrap().size, 6);
    assert_eq!(bench.fs.getattr(ino, Some(open)).unwrap().size, 4);
    assert_eq!(bench.read_handle(open), b"deep");
    bench.fs.release(open).unwrap();
}

#[test]
fn what_they_removed_is_gone_and_what_we_moved_stays() {
    let bench = bench();
    bench.rename("/a/sub", "/b/moved").unwrap();
    bench.ino("/a/one");
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, _| {
        tree.retain(|p, _| !p.is_within(&path("/a")));
    });
    bench.stage().refresh(&theirs).unwrap();
    assert!(!bench.exists("/a/one"));
    assert_eq!(
        bench.read("/b/moved/deep"),
        b"deep",
        "from the revision it was moved in"
    );
    let set = bench.changes();
    let moved = set
        .changes
        .iter()
        .find(|c| c.path == path("/b/moved"))
        .unwrap();
    assert_eq!(moved.base_root, base);
}

#[test]
fn abort_brings_back_what_is_published() {
    let mut bench = bench();
    let before = bench.everything();
    let one = bench.ino("/a/one");
    let heard = listen(&bench);
    bench.write("/a/one", b"changed");
    bench.remove_all("/a/sub");
    bench.write("/a/new", b"new");
    bench.rename("/a/two", "/b/due").unwrap();
    bench.mkdir("/c").unwrap();
    bench.write("/c/x", b"x");
    bench.chmod("/b", 0o700);
    let reader = bench.open_read("/c/x");
    assert_eq!(bench.stage().abort(&path("/c")).unwrap(), 2);
    assert!(!bench.exists("/c"));
    assert_eq!(
        bench.read_handle(reader),
        b"x",
        "an open file stays readable"
    );
    bench.fs.release(reader).unwrap();
    bench.stage().abort(&path("/a")).unwrap();
    assert_eq!(bench.list("/a"), ["one", "sub", "two"]);
    assert_eq!(bench.read("/a/one"), b"one");
    assert_eq!(bench.ino("/a/one"), one, "the number is kept");
    assert_eq!(bench.find("/a").unwrap().nlink, 3);
    eventually(|| heard.entries.lock().iter().any(|(_, name)| name == b"sub"));
    assert!(bench.stage().abort(&path("")).unwrap() >= 1);
    assert_eq!(bench.everything(), before);
    assert!(bench.changes().is_empty());
    assert_eq!(bench.stage().abort(&path("/a/one")).unwrap(), 0);
    bench.reopen();
    assert_eq!(bench.everything(), before);
    let summary = bench.stage().summary();
    assert_eq!(summary, fsimpl::StageSummary::default());
}

#[test]
fn a_writer_goes_on_after_an_abort() {
    let bench = bench();
    let writer = bench.open_write("/a/one");
    bench.fs.write(&ROOT, writer, 0, b"xx").unwrap();
    bench.stage().abort(&path("")).unwrap();
    assert_eq!(bench.read("/a/one"), b"one");
    bench.fs.write(&ROOT, writer, 2, b"yy").unwrap();
    assert_eq!(bench.read_handle(writer), b"xxyy");
    bench.fs.release(writer).unwrap();
    assert_eq!(bench.read("/a/one"), b"one");
    assert!(bench.changes().is_empty());
}

/// What is as published and kept for its links alone is nothing to take back.
#[test]
fn an_abort_leaves_published_links_linked() {
    let mut bench = bench();
    bench.link("/a/one", "/b/one").unwrap();
    bench.commit("");
    let ino = bench.ino("/a/one");
    bench.write("/a/two", b"changed");
    assert_eq!(bench.stage().abort(&path("")).unwrap(), 1);
    assert_eq!(bench.stage().abort(&path("")).unwrap(), 0);
    assert_eq!(bench.read("/a/two"), b"two");
    for name in ["/a/one", "/b/one"] {
        let attr = bench.find(name).unwrap();
        assert_eq!((attr.ino, attr.nlink), (ino, 2));
    }
    // of one that is changed, what is published are files of their own
    bench.write("/a/one", b"changed");
    bench.stage().abort(&path("/a")).unwrap();
    assert_eq!(bench.read("/a/one"), b"one");
    assert_eq!(bench.read("/b/one"), b"changed");
    bench.reopen();
    bench.stage().abort(&path("")).unwrap();
    assert_eq!(bench.read("/b/one"), b"one");
    assert!(bench.changes().is_empty());
}

/// What is staged in a directory that they removed can be moved away from there.
#[test]
fn a_directory_that_they_removed_can_be_moved() {
    let bench = bench();
    bench.write("/a/new", b"new");
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, _| {
        tree.retain(|p, _| !p.is_within(&path("/a")));
    });
    bench.stage().refresh(&theirs).unwrap();
    assert_eq!(bench.list("/a"), ["new"]);
    bench.rename("/a", "/b/mine").unwrap();
    let before = bench.everything();
    bench.commit("");
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.list("/b/mine"), ["new"]);
}

/// What is published at its paths is not known before the commit is done, or has failed.
#[test]
fn nothing_is_aborted_while_it_is_published() {
    let bench = bench();
    bench.write("/a/new", b"new");
    let frozen = bench.freeze("").unwrap();
    let refused = bench.stage().abort(&path(""));
    assert!(matches!(refused, Err(AbortError::Frozen(id)) if id == frozen.id));
    bench.stage().thaw(frozen.id).unwrap();
    assert!(bench.stage().abort(&path("")).unwrap() > 0);
    assert!(!bench.exists("/a/new") && bench.changes().is_empty());
}

/// A directory that is staged for the sake of what is in it is theirs in everything else.
#[test]
fn a_directory_with_staged_names_follows_the_published_metadata() {
    let bench = bench();
    let heard = listen(&bench);
    let attr = |path: &str| bench.fs.getattr(bench.ino(path), None).unwrap();
    bench.write("/a/new", b"mine");
    let own = attr("/a").mtime;
    bench.write("/a/sub/deep", b"mine, too");
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, published| {
        for path in ["/a", "/a/sub"] {
            let mut entry = dir(0o700);
            entry.mtime.secs += 1000;
            published.put(tree, path, (entry, Vec::new()));
        }
    });
    bench.stage().refresh(&theirs).unwrap();
    for path in ["/a", "/a/sub"] {
        assert_eq!(attr(path).perm, 0o700, "{path}");
    }
    assert_eq!(attr("/a").mtime, own, "a name in it is new");
    let theirs = dir(0o700).mtime.secs + 1000;
    assert_eq!(
        attr("/a/sub").mtime.secs,
        theirs,
        "no name of it has changed"
    );
    let a = bench.ino("/a");
    eventually(|| heard.inodes.lock().contains(&a));
}

/// What a commit of ours has published is as it was for whoever has it open or knows it, although
/// another publisher's revision lies between.
#[test]
fn a_commit_takes_no_place_from_what_it_published() {
    let bench = bench();
    let base = bench.stage().base_root();
    bench.write("/a/one", b"mine");
    bench.write("/a/new", b"new");
    bench.mkdir("/b/moved").unwrap();
    bench.rename("/a/sub", "/b/moved/sub").unwrap();
    let frozen = bench.freeze("").unwrap();
    let paths = ["/a/one", "/a/new", "/b/moved/sub/deep"];
    let open = paths.map(|path| bench.open_write(path));
    let theirs = bench.published.publish_with(&base, |tree, published| {
        published.put(tree, "/theirs", file(b"theirs"));
    });
    let root = bench.published.commit(&theirs, &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    for (handle, path) in open.into_iter().zip(paths) {
        bench.fs.write(&ROOT, handle, 0, b"MORE").unwrap();
        bench.fs.release(handle).unwrap();
        assert_eq!(bench.read(path)[..3], b"MORE"[..3], "{path}");
    }
    assert_eq!(bench.read("/theirs"), b"theirs");
    assert_eq!(bench.read("/a/one"), b"MORE");
}

/// A directory that comes home after its snapshot, which has it elsewhere, keeps what is in it.
#[test]
fn a_directory_comes_home_while_it_is_published_elsewhere() {
    let bench = bench();
    let base = bench.stage().base_root();
    bench.rename("/a/sub", "/b/sub").unwrap();
    bench.write("/b/sub/new", b"new");
    let frozen = bench.freeze("").unwrap();
    bench.rename("/b/sub", "/a/sub").unwrap();
    let root = bench.published.commit(&base, &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.read("/a/sub/deep"), b"deep");
    assert_eq!(bench.read("/a/sub/new"), b"new");
    assert!(!bench.exists("/b/sub"));
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/a/sub/deep"), b"deep");
    assert_eq!(bench.published.read(&root, "/a/sub/new"), b"new");
    assert_eq!(bench.read("/a/sub/deep"), b"deep");
    assert!(bench.changes().is_empty());
}
