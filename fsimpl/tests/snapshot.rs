//! Snapshots: what goes in, what a commit leaves behind.

use std::time::Duration;

use formats::{ChangeSet, Children, Op};
use fsimpl::{FreezeError, OpenFiles, RenameMode};

use crate::support::{Bench, Published, ROOT, dir, file, path};

pub fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
        ("/a/two", file(b"two")),
        ("/a/sub", (dir(0o755), Vec::new())),
        ("/a/sub/deep", file(b"deep")),
        ("/a/sub/other", file(b"other")),
        ("/b", (dir(0o755), Vec::new())),
        ("/b/x", file(b"x")),
    ]))
}

/// What a change set says, a line each.
pub fn lines(set: &ChangeSet) -> Vec<String> {
    let line = |c: &formats::Change| {
        let what = match &c.op {
            Op::Remove => "remove".to_owned(),
            Op::Put {
                entry, children, ..
            } if entry.is_dir() => match children {
                Children::None => "dir".to_owned(),
                Children::Same => "same".to_owned(),
                Children::From(from) => format!("from {}", from.path),
            },
            Op::Put { .. } => "put".to_owned(),
        };
        let base = if c.base.is_some() { " over" } else { "" };
        format!("{} {what}{base}", c.path)
    };
    set.changes.iter().map(line).collect()
}

#[test]
fn the_documented_example() {
    let bench = bench();
    bench.mkdir("/new").unwrap();
    bench.write("/new/file", b"f");
    bench.rename("/a", "/renamed").unwrap();
    bench.unlink("/renamed/one").unwrap();
    bench.write("/renamed/sub/deep", b"changed");
    assert_eq!(
        lines(&bench.changes()),
        [
            "/a remove over",
            "/new dir",
            "/new/file put",
            "/renamed from /a",
            "/renamed/one remove",
            "/renamed/sub from /a/sub",
            "/renamed/sub/deep put",
        ]
    );
    let before = bench.everything();
    let ino = bench.ino("/renamed/sub/other");
    let root = bench.commit("");
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.ino("/renamed/sub/other"), ino);
    assert!(bench.changes().is_empty());
    assert_eq!(bench.published.read(&root, "/renamed/sub/deep"), b"changed");
    assert_eq!(bench.stage().summary(), fsimpl::StageSummary::default());
}

#[test]
fn a_replaced_directory_says_so() {
    let bench = bench();
    bench.remove_all("/a");
    bench.mkdir("/a").unwrap();
    bench.write("/a/one", b"one");
    assert_eq!(lines(&bench.changes()), ["/a dir over", "/a/one put over"]);
    bench.commit("");
    assert_eq!(bench.list("/a"), ["one"]);
    assert!(bench.changes().is_empty());
}

#[test]
fn staged_ancestors_go_in_bare() {
    let bench = bench();
    bench.mkdir("/p").unwrap();
    bench.mkdir("/p/q").unwrap();
    bench.write("/p/q/target", b"t");
    bench.write("/p/q/sibling", b"s");
    bench.write("/p/left", b"l");
    let frozen = bench.freeze("/p/q/target").unwrap();
    assert_eq!(
        lines(&frozen.change_set),
        ["/p dir", "/p/q dir", "/p/q/target put"]
    );
    let before = bench.everything();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.everything(), before);
    let rest: Vec<String> = lines(&bench.changes())
        .into_iter()
        .filter(|line| !line.contains("same"))
        .collect();
    assert_eq!(rest, ["/p/left put", "/p/q/sibling put"]);
    bench.commit("");
    assert_eq!(bench.everything(), before);
    assert!(bench.changes().is_empty());
}

#[test]
fn a_replaced_ancestor_is_refused_by_name() {
    let bench = bench();
    bench.remove_all("/b");
    bench.mkdir("/b").unwrap();
    bench.write("/b/y", b"y");
    match bench.freeze("/b/y") {
        Err(FreezeError::ReplacedAncestor(at)) => assert_eq!(at, path("/b")),
        other => panic!("{other:?}"),
    }
    assert!(bench.stage().frozen().is_empty());
    bench.commit("/b");
    assert_eq!(bench.list("/b"), ["y"]);
}

#[test]
fn targets_are_checked() {
    let bench = bench();
    bench.write("/b/y", b"y");
    assert!(matches!(
        bench.freeze("/none/x"),
        Err(FreezeError::NotFound(_))
    ));
    let nested = [path("/b"), path("/b/y")];
    assert!(matches!(
        bench.stage().freeze(&nested, OpenFiles::Fail, &()),
        Err(FreezeError::Nested(..))
    ));
    bench.unlink("/b/x").unwrap();
    let frozen = bench.freeze("/b/x").unwrap();
    assert_eq!(lines(&frozen.change_set), ["/b/x remove over"]);
    assert!(matches!(
        bench.freeze("/b"),
        Err(FreezeError::Frozen(id)) if id == frozen.id
    ));
    bench.stage().thaw(frozen.id).unwrap();
    let unchanged = bench.freeze("/a/one").unwrap();
    assert!(unchanged.change_set.is_empty());
    bench.stage().thaw(unchanged.id).unwrap();
    assert!(bench.stage().thaw(unchanged.id).is_err());
    let two = [path("/b/x"), path("/b/y"), path("/b/y")];
    let frozen = bench.stage().freeze(&two, OpenFiles::Fail, &()).unwrap();
    assert_eq!(lines(&frozen.change_set), ["/b/x remove over", "/b/y put"]);
}

#[test]
fn half_a_rename() {
    let bench = bench();
    bench.rename("/a/sub", "/b/sub").unwrap();
    let before = bench.everything();
    bench.commit("/b/sub");
    assert_eq!(bench.everything(), before);
    assert_eq!(
        lines(&bench.changes())
            .into_iter()
            .filter(|l| l.contains("remove"))
            .collect::<Vec<_>>(),
        ["/a/sub remove over"],
        "the source stays staged for removal"
    );
    bench.commit("");
    assert_eq!(bench.everything(), before);
    assert!(bench.changes().is_empty());
}

#[test]
fn the_snapshot_has_what_was_there_at_its_instant() {
    let bench = bench();
    bench.write("/a/one", b"at the instant");
    bench.write("/a/new", b"new");
    let frozen = bench.freeze("/a").unwrap();
    bench.write("/a/one", b"later");
    bench.unlink("/a/new").unwrap();
    bench.write("/a/newer", b"newer");
    bench.rename("/a/sub", "/b/sub").unwrap();
    let before = bench.everything();
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    assert_eq!(bench.published.read(&root, "/a/one"), b"at the instant");
    assert_eq!(bench.published.read(&root, "/a/new"), b"new");
    bench.stage().retire(frozen.id, &root).unwrap();
    assert_eq!(bench.everything(), before);
    let root = bench.commit("");
    assert_eq!(bench.everything(), before);
    assert_eq!(bench.published.read(&root, "/a/one"), b"later");
    assert!(!bench.published.tree(&root).contains_key(&path("/a/new")));
    assert!(bench.changes().is_empty());
}

/// Opening a frozen, unsealed file for writing gives the snapshot its own copy.
#[test]
fn the_snapshot_moves_never_the_writer() {
    let bench = bench();
    // incompressible and large enough that sealing takes a while
    let big: Vec<u8> = (0u32..6_000_000)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for n in 0..8 {
        bench.write(&format!("/b/big{n}"), &big);
        let handle = bench.open_write(&format!("/b/big{n}"));
        bench.fs.write(&ROOT, handle, 0, &[n]).unwrap();
        bench.fs.release(handle).unwrap();
    }
    let empty = bench.ino("/b");
    bench
        .fs
        .mknod(&ROOT, empty, b"empty", 0o644, fsimpl::NodeType::Regular)
        .unwrap();
    let (root, after) = std::thread::scope(|scope| {
        let freezing = scope.spawn(|| bench.freeze("/b").unwrap());
        while bench.stage().frozen().is_empty() {
            std::thread::yield_now();
        }
        for n in 0..8 {
            let handle = bench.open_write(&format!("/b/big{n}"));
            bench.fs.write(&ROOT, handle, 0, b"later").unwrap();
            bench.fs.release(handle).unwrap();
        }
        bench.unlink("/b/big7").unwrap();
        bench.write("/b/empty", b"no more");
        let frozen = freezing.join().unwrap();
        let after = bench.everything();
        let root = bench.published.commit(&bench.stage().base_root(), &frozen);
        bench.stage().retire(frozen.id, &root).unwrap();
        (root, after)
    });
    assert!(bench.published.read(&root, "/b/empty").is_empty());
    for n in 0..8u8 {
        let published = bench.published.read(&root, &format!("/b/big{n}"));
        assert_eq!(published[0], n, "as it was at the instant");
        assert_eq!(published[1..], big[1..]);
    }
    assert!(bench.everything() == after);
    bench.commit("");
    assert!(bench.everything() == after);
    assert_eq!(&bench.read("/b/big3")[..5], b"later");
}

#[test]
fn links_stay_links_and_linking_again_is_no_change() {
    for groups in [false, true] {
        let published = Published::new(vec![
            ("/d", (dir(0o755), Vec::new())),
            ("/d/a", file(b"shared")),
        ]);
        let bench = Bench::with(published, Duration::ZERO, groups);
        bench.link("/d/a", "/d/b").unwrap();
        let frozen = bench.freeze("").unwrap();
        let groups_of: Vec<u64> = frozen
            .change_set
            .changes
            .iter()
            .filter_map(|c| match &c.op {
                Op::Put { entry, .. } => Some(entry.regular()?.link_group),
                Op::Remove => None,
            })
            .collect();
        if groups {
            assert_eq!(groups_of.len(), 2);
            assert_eq!(groups_of[0], groups_of[1]);
        } else {
            assert_eq!(groups_of.len(), 1, "only the new name is a change");
        }
        assert_ne!(groups_of[0], 0);
        // this commit breaks groups up
        let ino = bench.ino("/d/a");
        let root = bench.published.commit(&bench.stage().base_root(), &frozen);
        bench.stage().retire(frozen.id, &root).unwrap();
        let (a, b) = (bench.find("/d/a").unwrap(), bench.find("/d/b").unwrap());
        assert_eq!(
            (a.ino, b.ino, a.nlink),
            (ino, ino, 2),
            "the mount keeps its links"
        );
        if !groups {
            assert!(bench.changes().is_empty());
            bench.unlink("/d/b").unwrap();
            bench.link("/d/a", "/d/b").unwrap();
            let left = lines(&bench.changes());
            assert!(left.iter().all(|l| l.contains("same")), "{left:?}");
        }
    }
}

#[test]
fn rewriting_equal_content_is_no_change() {
    let bench = bench();
    let time = bench.find("/a/one").unwrap().mtime;
    let above = bench.find("/a").unwrap().mtime;
    bench.write("/a/one", b"one");
    bench.utimes("/a/one", time);
    bench.wait_sealed();
    assert!(bench.changes().is_empty());
    bench.write("/a/tmp", b"two");
    bench.utimes("/a/tmp", bench.find("/a/two").unwrap().mtime);
    bench.rename("/a/tmp", "/a/two").unwrap();
    bench.utimes("/a", above);
    bench.wait_sealed();
    assert!(bench.changes().is_empty());
}

#[test]
fn numbers_are_kept_by_what_was_renamed_before_its_commit() {
    let mut bench = bench();
    for n in 0..20 {
        bench.write(&format!("/b/.tmp{n}"), b"content");
        bench
            .rename(&format!("/b/.tmp{n}"), &format!("/b/final{n}"))
            .unwrap();
    }
    bench.mkdir("/b/made").unwrap();
    bench.write("/b/made/in", b"in");
    bench.rename("/b/made", "/a/moved").unwrap();
    let paths: Vec<String> = (0..20)
        .map(|n| format!("/b/final{n}"))
        .chain(["/a/moved".into(), "/a/moved/in".into()])
        .collect();
    let inos: Vec<_> = paths.iter().map(|p| bench.ino(p)).collect();
    bench.commit("");
    assert!(bench.changes().is_empty());
    let after: Vec<_> = paths.iter().map(|p| bench.ino(p)).collect();
    assert_eq!(inos, after);
    bench.reopen();
    let restarted: Vec<_> = paths.iter().map(|p| bench.ino(p)).collect();
    assert_eq!(inos, restarted);
    assert_eq!(bench.stage().summary(), fsimpl::StageSummary::default());
    // and what is done with them is published as always
    bench.rename("/a/moved", "/b/made").unwrap();
    bench.unlink("/b/final3").unwrap();
    let before = bench.everything();
    let root = bench.commit("");
    assert_eq!(bench.everything(), before);
    assert!(
        bench
            .published
            .tree(&root)
            .contains_key(&path("/b/made/in"))
    );
}

#[test]
fn objects_nobody_needs_are_swept() {
    let bench = bench();
    bench.write("/a/one", b"to be published");
    bench.write("/b/y", b"to be dropped");
    bench.wait_sealed();
    let count = |bench: &Bench| {
        let mut objects = 0;
        bench
            .stage()
            .objects()
            .for_each(&mut |_, _| {
                objects += 1;
                Ok(())
            })
            .unwrap();
        objects
    };
    assert_eq!(count(&bench), 2);
    bench.commit("/a");
    bench.stage().abort(&path("")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while count(&bench) > 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    // content known from what was swept is sealed anew; content published is not
    bench.write("/b/y", b"to be dropped");
    bench.write("/b/z", b"to be published");
    bench.wait_sealed();
    assert_eq!(count(&bench), 1);
    bench.commit("");
    assert_eq!(bench.read("/b/y"), b"to be dropped");
}

/// Dice: every sequence of changes can be committed whole, or in parts, and the view never moves.
#[test]
fn whatever_is_done_can_be_committed() {
    for seed in 0..20u64 {
        let mut bench = bench();
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for round in 0..6 {
            for _ in 0..12 {
                step(&bench, &mut dice);
            }
            if dice.below(4) == 0 {
                bench.reopen();
            }
            let target = match dice.below(3) {
                0 => "/a",
                1 => "/b",
                _ => "",
            };
            let at_instant = bench.everything();
            let frozen = match bench.freeze(target) {
                Ok(frozen) => frozen,
                Err(FreezeError::NotFound(_)) => continue,
                Err(error) => panic!("seed {seed} round {round}: {error:?}"),
            };
            if dice.below(3) == 0 {
                for _ in 0..5 {
                    step(&bench, &mut dice);
                }
            }
            let before = bench.everything();
            if dice.below(5) == 0 {
                bench.stage().thaw(frozen.id).unwrap();
                assert_eq!(
                    bench.everything(),
                    before,
                    "seed {seed} round {round}: thaw"
                );
                continue;
            }
            let root = bench.published.commit(&bench.stage().base_root(), &frozen);
            bench.stage().retire(frozen.id, &root).unwrap();
            assert_eq!(
                bench.everything(),
                before,
                "seed {seed} round {round}: retire"
            );
            if target.is_empty() {
                let tree = bench.published.tree(&root);
                assert_eq!(
                    tree.len() - 1,
                    at_instant.len(),
                    "seed {seed} round {round}"
                );
            }
            let again = lines(&bench.changes());
            if target.is_empty() && before == at_instant {
                let left: Vec<_> = again.iter().filter(|l| !l.contains("same")).collect();
                assert!(left.is_empty(), "seed {seed} round {round}: {left:?}");
            }
        }
        let before = bench.everything();
        let root = bench.commit("");
        assert_eq!(bench.everything(), before, "seed {seed}");
        assert!(
            bench.changes().is_empty(),
            "seed {seed}: {:?}",
            lines(&bench.changes())
        );
        assert_eq!(bench.published.tree(&root).len() - 1, before.len());
        // a fresh stage over the result shows the same
        let fresh = Bench::new((std::sync::Arc::clone(&bench.published), root));
        assert_eq!(fresh.everything(), before, "seed {seed}");
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn path(&mut self) -> String {
        let names = ["a", "b", "c", "one", "sub", "deep"];
        let depth = 1 + self.below(3);
        let mut path = String::new();
        for _ in 0..depth {
            path.push('/');
            path.push_str(names[usize::try_from(self.below(6)).unwrap()]);
        }
        path
    }
}

/// One random change; those that make no sense are refused and that is fine.
fn step(bench: &Bench, dice: &mut Dice) {
    let (one, two) = (dice.path(), dice.path());
    let parent = |p: &str| {
        let above = bench.find(p.rsplit_once('/').unwrap().0);
        above.is_ok_and(|attr| attr.kind == fsimpl::FileType::Directory)
    };
    if !parent(&one) || !parent(&two) {
        return;
    }
    let kind = |p: &str| bench.find(p).ok().map(|attr| attr.kind);
    match dice.below(12) {
        0 | 1 => drop(bench.mkdir(&one)),
        2..=4 => {
            if kind(&one) != Some(fsimpl::FileType::Directory)
                && kind(&one) != Some(fsimpl::FileType::Symlink)
            {
                let text = format!("text {}", dice.below(20));
                bench.write(&one, text.as_bytes());
            }
        }
        5 => drop(bench.unlink(&one)),
        6 => drop(bench.rmdir(&one)),
        7 | 8 => drop(bench.rename(&one, &two)),
        9 => drop(bench.rename_as(&one, &two, RenameMode::Exchange)),
        10 => {
            if bench.exists(&one) {
                bench.chmod(&one, 0o700 | u16::try_from(dice.below(8)).unwrap());
            }
        }
        _ => {
            if kind(&one) == Some(fsimpl::FileType::Regular) {
                drop(bench.link(&one, &two));
            } else {
                drop(bench.symlink("somewhere", &one));
            }
        }
    }
}

#[test]
fn a_name_that_was_replaced_and_went_while_its_snapshot_was_published_stays_gone() {
    for published in [false, true] {
        let bench = bench();
        if published {
            bench.write("/a/one", b"changed");
        } else {
            bench.write("/a/new", b"new");
        }
        let name = if published { "/a/one" } else { "/a/new" };
        let frozen = bench.freeze("").unwrap();
        bench.write("/a/later", b"later");
        bench.rename("/a/later", name).unwrap();
        bench.rename(name, "/b/moved").unwrap();
        let root = bench.published.commit(&bench.stage().base_root(), &frozen);
        bench.stage().retire(frozen.id, &root).unwrap();
        assert!(!bench.exists(name), "{name} is back");
        assert_eq!(bench.read("/b/moved"), b"later");
        let root = bench.commit("");
        let tree = bench.published.tree(&root);
        assert!(!tree.contains_key(&name.parse().unwrap()));
    }
}

#[test]
fn names_that_come_and_go_while_a_snapshot_is_published_leave_nothing() {
    let bench = bench();
    bench.write("/a/new", b"new");
    for published in [true, false] {
        let frozen = bench.freeze("").unwrap();
        bench.write("/a/passing", b"x");
        bench.unlink("/a/passing").unwrap();
        if published {
            let root = bench.published.commit(&bench.stage().base_root(), &frozen);
            bench.stage().retire(frozen.id, &root).unwrap();
            assert_eq!(bench.stage().summary(), fsimpl::StageSummary::default());
            bench.write("/a/next", b"next");
        } else {
            bench.stage().thaw(frozen.id).unwrap();
            assert_eq!(lines(&bench.changes()), ["/a same over", "/a/next put"]);
        }
    }
}
