//! Snapshots that are published side by side, and those that cannot be.

use formats::Hash;
use fsimpl::{FreezeError, Frozen, StageSummary};

use crate::snapshot::{bench, lines};
use crate::support::Bench;

/// Publishes a snapshot on top of a revision.
fn publish(bench: &Bench, head: &Hash, frozen: &Frozen) -> Hash {
    let root = bench.published.commit(head, frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    root
}

#[test]
fn whoever_comes_first_is_published_first() {
    let mut bench = bench();
    bench.write("/a/one", b"one changed");
    bench.unlink("/a/two").unwrap();
    bench.write("/b/new", b"new");
    bench.write("/c", b"c");
    let a = bench.freeze("/a").unwrap();
    let b = bench.freeze("/b").unwrap();
    assert_eq!(bench.stage().frozen(), [a.id, b.id]);
    // writers go on in both
    bench.write("/a/one", b"one changed again");
    bench.unlink("/b/new").unwrap();
    bench.write("/b/x", b"x changed");
    bench.reopen();
    assert_eq!(bench.stage().frozen(), [a.id, b.id]);

    let head = bench.stage().base_root();
    let head = publish(&bench, &head, &b);
    assert_eq!(bench.stage().frozen(), [a.id]);
    let left = ["/b same over", "/b/new remove over", "/b/x put over"];
    assert_eq!(
        lines(&bench.stage().changes(&"/b".parse().unwrap()).unwrap()),
        left
    );
    publish(&bench, &head, &a);
    assert!(bench.stage().frozen().is_empty());
    let left = lines(&bench.changes());
    for path in [
        "/a/one put over",
        "/b/new remove over",
        "/b/x put over",
        "/c put",
    ] {
        assert!(
            left.iter().any(|line| line == path),
            "{path} is none of {left:?}"
        );
    }
    let root = bench.commit("");
    let tree = bench.published.tree(&root);
    for gone in ["/a/two", "/b/new"] {
        assert!(!tree.contains_key(&gone.parse().unwrap()), "{gone}");
    }
    for (path, text) in [
        ("/a/one", &b"one changed again"[..]),
        ("/b/x", b"x changed"),
        ("/c", b"c"),
    ] {
        assert_eq!(bench.read(path), text);
    }
    assert_eq!(bench.stage().summary(), StageSummary::default());
}

#[test]
fn one_that_fails_leaves_the_other_alone() {
    let bench = bench();
    bench.write("/a/one", b"changed");
    bench.write("/b/new", b"new");
    let before = lines(&bench.changes());
    let a = bench.freeze("/a").unwrap();
    let b = bench.freeze("/b").unwrap();
    // its whiteout is needed for as long as that snapshot may be published
    bench.unlink("/b/new").unwrap();
    bench.stage().thaw(a.id).unwrap();
    let head = bench.stage().base_root();
    publish(&bench, &head, &b);
    assert!(!bench.exists("/b/new"), "it was removed since");
    bench.stage().abort(&"/b".parse().unwrap()).unwrap();
    let left = lines(&bench.changes());
    let of_a = before.iter().filter(|line| line.starts_with("/a"));
    assert!(
        of_a.eq(left.iter().filter(|line| line.starts_with("/a"))),
        "{left:?}"
    );
}

/// What one of them has to say depends on what becomes of the other.
#[test]
fn what_has_to_do_with_one_waits_for_it() {
    type Change = fn(&Bench);
    let moved: Change = |bench| bench.rename("/a/sub", "/b/sub").unwrap();
    let new: Change = |bench| {
        bench.mkdir("/n").unwrap();
        bench.write("/n/p", b"p");
        bench.write("/n/q", b"q");
    };
    let both: Change = |bench| {
        bench.write("/a/one", b"changed");
        bench.write("/b/x", b"changed");
    };
    let cases: [(Change, &str, &str, bool); 8] = [
        (both, "/a", "/b", false),
        (both, "/a", "/a/one", true),
        (both, "/a", "", true),
        (both, "/a/one", "/a/two", false),
        // the removal of the old place, and the directory that is made of it
        (moved, "/a", "/b", true),
        (moved, "/b", "/a", true),
        // a new directory above both
        (new, "/n/p", "/n/q", true),
        (new, "/n", "/a", false),
    ];
    for (change, first, second, waits) in cases {
        let bench = bench();
        change(&bench);
        let one = bench.freeze(first).unwrap();
        match bench.freeze(second) {
            Err(FreezeError::Frozen(id)) => assert!(waits && id == one.id, "{first} {second}"),
            Ok(_) => assert!(!waits, "{first} {second}"),
            Err(error) => panic!("{first} {second}: {error:?}"),
        }
        let head = bench.stage().base_root();
        publish(&bench, &head, &one);
        if waits {
            bench.freeze(second).unwrap();
        }
    }
}

#[test]
fn a_directory_that_comes_home_while_its_going_is_published_is_whole() {
    for in_between in [false, true] {
        let mut bench = bench();
        let before = bench.read("/a/one");
        bench.write("/b/new", b"new");
        let b = bench.freeze("/b").unwrap();
        bench.rename("/a", "/elsewhere").unwrap();
        let gone = bench.freeze("/a").unwrap();
        bench.rename("/elsewhere", "/a").unwrap();
        let mut head = bench.stage().base_root();
        if in_between {
            head = publish(&bench, &head, &b);
        }
        head = publish(&bench, &head, &gone);
        assert!(
            !bench
                .published
                .tree(&head)
                .contains_key(&"/a".parse().unwrap())
        );
        assert_eq!(bench.read("/a/one"), before, "{in_between}");
        bench.reopen();
        assert_eq!(bench.read("/a/one"), before, "{in_between}");
        if !in_between {
            publish(&bench, &head, &b);
        }
        let root = bench.commit("");
        let tree = bench.published.tree(&root);
        assert!(tree.contains_key(&"/a/one".parse().unwrap()));
        assert_eq!(bench.read("/a/one"), before);
        assert_eq!(bench.stage().summary(), StageSummary::default());
    }
}
