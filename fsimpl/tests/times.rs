//! Times of inodes, over commits, aborts and new heads.

use std::collections::HashMap;

use fsimpl::Time;

use crate::support::{Bench, Published, dir, file, path as at};

const LONG_AGO: Time = Time {
    secs: 1000,
    nanos: 0,
};

fn bench() -> Bench {
    Bench::new(Published::new(vec![
        ("/d", (dir(0o755), Vec::new())),
        ("/d/f", file(b"published content")),
        ("/d/g", file(b"other")),
    ]))
}

/// The time of the last change of every path, but for those that are gone.
fn changed(bench: &Bench) -> HashMap<String, Time> {
    let paths = bench.everything().into_iter();
    let paths = paths.map(|line| line.split(' ').next().unwrap().to_owned());
    let ctime = |path: String| Some((path.clone(), bench.find(&path).ok()?.ctime));
    paths.filter_map(ctime).collect()
}

/// Whatever a path went through, no commit, abort or head sets its ctime back.
#[test]
fn a_ctime_never_goes_back() {
    for dir in ["/d", "/m/d"] {
        let bench = bench();
        let long_ago = |name: &str| bench.utimes(&format!("{dir}/{name}"), LONG_AGO);
        if dir != "/d" {
            bench.mkdir("/m").unwrap();
            bench.rename("/d", dir).unwrap();
        }
        let path = |name: &str| format!("{dir}/{name}");
        bench.write(&path("new"), b"new");
        bench.mkdir(&path("sub")).unwrap();
        bench.write(&path("sub/x"), b"x");
        bench.symlink("target", &path("link")).unwrap();
        bench.write(&path("one"), b"linked");
        bench.link(&path("one"), &path("two")).unwrap();
        bench.write(&path("tmp"), b"renamed");
        bench.rename(&path("tmp"), &path("final")).unwrap();
        for name in ["new", "sub/x", "sub", "link", "one", "final", "f", ""] {
            long_ago(name);
        }
        let before = changed(&bench);
        assert!(before[&path("new")] > LONG_AGO);
        for target in [path("sub"), path("one"), String::new()] {
            bench.wait_sealed();
            bench.commit(&target);
            assert_eq!(changed(&bench), before, "after the commit of {target}");
        }
        bench.unlink(&path("two")).unwrap();
        bench.chmod(&path("f"), 0o600);
        bench.chmod(&path("sub"), 0o711);
        let before = changed(&bench);
        bench.commit("");
        assert_eq!(changed(&bench), before);
        bench.chmod(&path("f"), 0o644);
        bench.chmod(&path("sub"), 0o755);
        bench.rename(&path("sub/x"), "/x").unwrap();
        let before = changed(&bench);
        bench.stage().abort(&at("")).unwrap();
        for (path, ctime) in changed(&bench) {
            if let Some(before) = before.get(&path) {
                assert!(ctime >= *before, "{path}: {ctime:?}, {before:?}");
            }
        }
    }
}

/// What another publisher has there may be older than what was seen.
#[test]
fn nor_does_a_new_head_set_it_back() {
    let bench = bench();
    bench.rename("/d/f", "/d/moved").unwrap();
    bench.mkdir("/e").unwrap();
    bench.rename("/e", "/renamed").unwrap();
    bench.commit("");
    let before = changed(&bench);
    let base = bench.stage().base_root();
    let theirs = bench.published.publish_with(&base, |tree, _| {
        for (_, entry) in tree.iter_mut() {
            entry.perm ^= 0o11;
            entry.mtime.secs -= 1;
        }
    });
    bench.stage().refresh(&theirs).unwrap();
    let after = changed(&bench);
    for (path, ctime) in before {
        assert!(
            after[&path] >= ctime,
            "{path}: {:?}, {ctime:?}",
            after[&path]
        );
    }
}
