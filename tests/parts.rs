//! Commits of a part of what is staged, with what was moved on both sides of its edge.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use commit::RepoHome;

use crate::reftest::published::Reader;
use crate::support::{REPO, Sandbox, write};

/// Paths that are published at and below a directory, without a leading slash.
fn published(sandbox: &Sandbox, below: &str) -> BTreeSet<String> {
    let home = RepoHome::embedded(&sandbox.state(), REPO).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (_, tree) = Reader::new(home, scratch.path()).read();
    let paths = tree.into_keys().map(|path| String::from_utf8(path.0));
    let paths = paths.map(Result::unwrap);
    let within = |path: &String| Path::new(path).starts_with(below);
    paths.filter(within).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn at(path: &str) -> String {
    format!("{REPO}/{path}")
}

/// `/a/b` with a nested catalog below it, and `/n`, published.
fn two_places() -> Option<Sandbox> {
    let sandbox = Sandbox::mounted()?;
    let root = sandbox.root();
    write(&root.join("a/stays"), b"stays");
    write(&root.join("a/b/file"), b"file");
    write(&root.join("a/b/gone"), b"gone");
    write(&root.join("a/b/deep/.cvmfscatalog"), b"");
    write(&root.join("a/b/deep/er/leaf"), b"leaf");
    write(&root.join("n/stays"), b"stays");
    sandbox.ok(["commit", REPO]);
    Some(sandbox)
}

/// Half a rename is committable, whichever half comes first, over restarts, and with changes below.
#[test]
fn the_halves_of_a_rename_can_be_published_in_any_order() {
    for order in [["a", "n"], ["n", "a"], ["a", "n/b/deep"], ["n/b/deep", "a"]] {
        let Some(mut sandbox) = two_places() else {
            return;
        };
        let root = sandbox.root();
        fs::rename(root.join("a/b"), root.join("n/b")).unwrap();
        fs::remove_file(root.join("n/b/gone")).unwrap();
        write(&root.join("n/b/deep/new"), b"new");
        for target in order {
            sandbox.ok(["commit", &at(target)]);
            assert_eq!(fs::read(root.join("n/b/deep/er/leaf")).unwrap(), b"leaf");
            sandbox.unmount();
            sandbox.mount();
            assert_eq!(fs::read(root.join("n/b/deep/er/leaf")).unwrap(), b"leaf");
            assert_eq!(fs::read(root.join("n/b/file")).unwrap(), b"file");
            assert!(!root.join("a/b").exists() && !root.join("n/b/gone").exists());
        }
        assert_eq!(published(&sandbox, "a"), names(["a", "a/stays"]));
        let wanted = names([
            "n/b/deep",
            "n/b/deep/.cvmfscatalog",
            "n/b/deep/er",
            "n/b/deep/er/leaf",
            "n/b/deep/new",
        ]);
        assert_eq!(published(&sandbox, "n/b/deep"), wanted, "{order:?}");
        sandbox.ok(["commit", REPO]);
        assert!(published(&sandbox, "n").contains("n/b/file"));
        let again = sandbox.json(["commit", REPO]);
        assert_eq!(again["published"], false, "{again}");
        sandbox.check();
    }
}

/// Paths below a moved directory can be published one after the other.
#[test]
fn a_moved_directory_can_be_published_piece_by_piece() {
    let Some(mut sandbox) = two_places() else {
        return;
    };
    let root = sandbox.root();
    fs::rename(root.join("a/b"), root.join("m")).unwrap();
    sandbox.ok(["commit", &at("m/file")]);
    assert_eq!(published(&sandbox, "m"), names(["m", "m/file"]));
    assert!(published(&sandbox, "a/b").contains("a/b/deep/er/leaf"));
    sandbox.unmount();
    sandbox.mount();
    // an unchanged one, a new one, one that goes again, one far below
    write(&root.join("m/new"), b"new");
    write(&root.join("m/deep/er/new"), b"new");
    sandbox.ok(["commit", &at("m/new")]);
    sandbox.ok(["commit", &at("m/deep/er/leaf")]);
    let wanted = [
        "m",
        "m/deep",
        "m/deep/er",
        "m/deep/er/leaf",
        "m/file",
        "m/new",
    ];
    assert_eq!(published(&sandbox, "m"), names(wanted));
    sandbox.ok(["commit", &at("m/deep/er/new")]);
    fs::remove_file(root.join("m/file")).unwrap();
    sandbox.ok(["commit", &at("m/file"), &at("m/gone")]);
    let wanted = [
        "m",
        "m/deep",
        "m/deep/er",
        "m/deep/er/leaf",
        "m/deep/er/new",
        "m/gone",
        "m/new",
    ];
    assert_eq!(published(&sandbox, "m"), names(wanted));
    for shown in ["m/gone", "m/deep/.cvmfscatalog", "m/deep/er/leaf"] {
        assert!(root.join(shown).exists(), "{shown}");
    }
    // and the rest of it, and the old place
    sandbox.ok(["commit", &at("m")]);
    assert!(published(&sandbox, "m").contains("m/deep/.cvmfscatalog"));
    assert!(published(&sandbox, "a").contains("a/b/file"));
    sandbox.ok(["commit", REPO]);
    assert_eq!(published(&sandbox, "a"), names(["a", "a/stays"]));
    assert_eq!(sandbox.json(["commit", REPO])["published"], false);
    sandbox.check();
}

/// What is left out because it is being written is as in the base, or absent if it is new; also
/// where the base has another file of that name.
#[test]
fn a_new_open_file_in_a_moved_directory_is_absent() {
    let Some(sandbox) = two_places() else {
        return;
    };
    let root = sandbox.root();
    fs::rename(root.join("a/b"), root.join("n/b")).unwrap();
    fs::remove_file(root.join("n/b/gone")).unwrap();
    let mut new = File::create(root.join("n/b/gone")).unwrap();
    new.write_all(b"another").unwrap();
    let mut changed = File::options()
        .append(true)
        .open(root.join("n/b/file"))
        .unwrap();
    changed.write_all(b" and more").unwrap();
    let outcome = sandbox.json(["commit", REPO, "--open-files", "skip"]);
    assert_eq!(outcome["skipped"].as_array().unwrap().len(), 2, "{outcome}");
    let there = published(&sandbox, "n/b");
    assert!(
        there.contains("n/b/file") && !there.contains("n/b/gone"),
        "{there:?}"
    );
    assert_eq!(fs::read(root.join("n/b/gone")).unwrap(), b"another");
    drop((new, changed));
    sandbox.ok(["commit", REPO]);
    assert!(published(&sandbox, "n/b").contains("n/b/gone"));
    assert_eq!(fs::read(root.join("n/b/file")).unwrap(), b"file and more");
    sandbox.check();
}
