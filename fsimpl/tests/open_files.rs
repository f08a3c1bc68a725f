//! Snapshots and the files that are open for writing meanwhile.

use std::time::Duration;

use fsimpl::{FreezeError, OpenFiles};

use crate::snapshot::{bench, lines};
use crate::support::{ROOT, path};

#[test]
fn open_files_are_waited_for_left_out_or_refused() {
    let bench = bench();
    let writer = bench.open_write("/a/one");
    bench.fs.write(&ROOT, writer, 0, b"ONE").unwrap();
    let new = bench.create("/a/new").unwrap();
    bench.write("/a/two", b"TWO");
    match bench.freeze("/a") {
        Err(FreezeError::OpenFiles(files)) => {
            assert_eq!(files.len(), 2);
            assert_eq!((&files[0].path, files[0].pid), (&path("/a/new"), 42));
        }
        other => panic!("{other:?}"),
    }
    // elsewhere they are in nobody's way
    let elsewhere = bench.freeze("/b").unwrap();
    bench.stage().thaw(elsewhere.id).unwrap();
    let wait = OpenFiles::Wait(Duration::from_millis(50));
    assert!(bench.stage().freeze(&[path("/a")], wait, &()).is_err());
    let before = bench.everything();
    let frozen = bench
        .stage()
        .freeze(&[path("/a")], OpenFiles::Skip, &())
        .unwrap();
    assert_eq!(frozen.skipped.len(), 2);
    let puts: Vec<String> = lines(&frozen.change_set);
    assert!(puts.contains(&"/a/two put over".to_owned()), "{puts:?}");
    assert!(!puts.iter().any(|l| l.contains("one") || l.contains("new")));
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.everything(), before);
    // they are waited for, and are in with what they had when they were closed
    let root = std::thread::scope(|scope| {
        let freezing = scope.spawn(|| {
            let wait = OpenFiles::Wait(Duration::from_secs(20));
            bench.stage().freeze(&[path("/a")], wait, &()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        bench.fs.write(&ROOT, new, 0, b"NEW").unwrap();
        bench.fs.release(new).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!freezing.is_finished());
        bench.fs.release(writer).unwrap();
        let frozen = freezing.join().unwrap();
        let root = bench.published.commit(&bench.stage().base_root(), &frozen);
        bench.stage().retire(frozen.id, &root).unwrap();
        root
    });
    assert_eq!(bench.published.read(&root, "/a/new"), b"NEW");
    assert_eq!(bench.published.read(&root, "/a/one"), b"ONE");
}

/// Whatever of an open file is not what is published: its name, its permissions, its bytes.
#[test]
fn an_open_file_that_was_moved_is_left_out_and_listed() {
    let bench = bench();
    let unchanged = bench.open_write("/a/two");
    bench.rename("/a/one", "/a/moved").unwrap();
    let writer = bench.open_write("/a/moved");
    let frozen = bench
        .stage()
        .freeze(&[path("/a")], OpenFiles::Skip, &())
        .unwrap();
    let skipped: Vec<_> = frozen.skipped.iter().map(|file| &file.path).collect();
    assert_eq!(skipped, [&path("/a/moved")]);
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    let tree = bench.published.tree(&root);
    assert!(!tree.contains_key(&path("/a/moved")));
    assert_eq!(bench.published.read(&root, "/a/one"), b"one");
    assert_eq!(bench.published.read(&root, "/a/two"), b"two");
    for handle in [unchanged, writer] {
        bench.fs.release(handle).unwrap();
    }
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/a/moved"), b"one");
}

/// Whoever closes it to open it again at once does not keep the snapshot waiting.
#[test]
fn a_file_is_waited_for_however_soon_it_is_opened_again() {
    let bench = bench();
    let mut writer = bench.open_write("/a/one");
    std::thread::scope(|scope| {
        let freezing = scope.spawn(|| {
            let wait = OpenFiles::Wait(Duration::from_secs(60));
            bench.stage().freeze(&[path("/a")], wait, &()).unwrap()
        });
        while !freezing.is_finished() {
            bench.fs.write(&ROOT, writer, 0, b"ONE").unwrap();
            bench.fs.release(writer).unwrap();
            writer = bench.open_write("/a/one");
        }
        freezing.join().unwrap();
    });
    bench.fs.release(writer).unwrap();
}

/// With the mount the kernel lets go of what was open in it, and need not say so.
#[test]
fn nothing_is_open_in_a_mount_that_is_gone() {
    let bench = bench();
    let writer = bench.open_write("/a/one");
    bench.fs.write(&ROOT, writer, 0, b"ONE").unwrap();
    assert!(bench.freeze("/a").is_err());
    bench.stage().all_closed();
    let root = bench.commit("/a");
    assert_eq!(bench.published.read(&root, "/a/one"), b"ONE");
}
