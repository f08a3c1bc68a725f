//! The kernel caches names, attributes and pages for good; what changes behind its back is told.

use std::fs;
use std::os::unix::fs::MetadataExt;

use formats::RepoPath;

use crate::fixture::Mounted;

#[test]
fn an_abort_is_seen_at_once() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("hello.txt");
    let before = (
        fs::read(&path).unwrap(),
        fs::metadata(&path).unwrap().mtime(),
    );
    fs::write(&path, "changed, and longer than it was before").unwrap();
    fs::write(mounted.path("added/new"), "n").unwrap();
    fs::remove_file(mounted.path("many/f002")).unwrap();
    fs::rename(mounted.path("deep"), mounted.path("moved")).unwrap();
    // everything is in the kernel's caches now, absent names too
    assert_eq!(fs::read(&path).unwrap().len(), 38);
    assert!(!mounted.path("many/f002").exists() && !mounted.path("deep").exists());
    assert!(mounted.path("added/new").exists() && mounted.path("moved/file").exists());
    assert_eq!(fs::read_dir(mounted.path("added")).unwrap().count(), 2);

    mounted.stage.abort(&RepoPath::root()).unwrap();
    mounted.stage.wait_told();
    let now = (
        fs::read(&path).unwrap(),
        fs::metadata(&path).unwrap().mtime(),
    );
    assert_eq!(now, before);
    assert!(!mounted.path("added/new").exists() && !mounted.path("moved").exists());
    assert!(mounted.path("many/f002").exists() && mounted.path("deep/file").exists());
    assert_eq!(fs::read_dir(mounted.path("added")).unwrap().count(), 1);
}

#[test]
fn sizes_and_links_are_never_stale() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("file");
    fs::write(&path, "x").unwrap();
    for n in 1..50_usize {
        fs::write(&path, "y".repeat(n * 100)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), n as u64 * 100);
        fs::hard_link(&path, mounted.path(&format!("link{n}"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().nlink(), n as u64 + 1);
    }
    let links = fs::metadata(&mounted.repo).unwrap().nlink();
    fs::create_dir(mounted.path("one more")).unwrap();
    assert_eq!(fs::metadata(&mounted.repo).unwrap().nlink(), links + 1);
    fs::remove_dir(mounted.path("one more")).unwrap();
    assert_eq!(fs::metadata(&mounted.repo).unwrap().nlink(), links);
}
