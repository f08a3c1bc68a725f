//! Many entries and many threads.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::Mounted;

/// Entries of the large directory.
const ENTRIES: usize = 200_000;
/// Threads that make and remove them: the kernel's work for one overlaps with ours for another.
const THREADS: usize = 4;

#[test]
fn a_large_directory_is_listed_whole() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let dir = mounted.path("large");
    fs::create_dir(&dir).unwrap();
    let by_threads = |each: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || (thread..ENTRIES).step_by(THREADS).for_each(each));
            }
        });
    };
    let entry = |n: usize| dir.join(format!("entry-{n}"));
    by_threads(&|n| std::os::unix::fs::symlink("t", entry(n)).unwrap());
    for _ in 0..2 {
        let names: BTreeSet<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), ENTRIES);
    }
    // with attributes of each
    let links = fs::read_dir(&dir)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().metadata().unwrap().is_symlink());
    assert_eq!(links.count(), ENTRIES);
    by_threads(&|n| fs::remove_file(entry(n)).unwrap());
    fs::remove_dir(&dir).unwrap();
    assert!(!dir.exists());
}

/// What stays is listed exactly once, whatever comes and goes meanwhile.
#[test]
fn listings_are_stable_under_change() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let dir = mounted.path("many");
    let stays: BTreeSet<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(stays.len() > 100);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                let (one, two) = (
                    dir.join(format!("a{}", n % 50)),
                    dir.join(format!("z{}", n % 50)),
                );
                fs::write(&one, "x").unwrap();
                fs::rename(&one, &two).unwrap();
                if n % 3 == 0 {
                    fs::remove_file(&two).unwrap();
                }
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..50 {
            let mut listed: Vec<_> = fs::read_dir(&dir)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect();
            listed.retain(|name| stays.contains(name));
            assert_eq!(listed.len(), stays.len(), "each once");
            assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), stays);
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn many_writers_at_once() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let dir = mounted.path(&format!("writer{thread}"));
            scope.spawn(move || {
                fs::create_dir(&dir).unwrap();
                for n in 0..60 {
                    let path = dir.join(n.to_string());
                    let content = format!("{thread} {n} ").repeat(n * 13);
                    fs::write(&path, &content).unwrap();
                    assert_eq!(fs::read_to_string(&path).unwrap(), content);
                    if n % 4 == 0 {
                        fs::rename(&path, dir.join(format!("r{n}"))).unwrap();
                    }
                    if n % 5 == 1 {
                        fs::remove_file(&path).ok();
                    }
                }
            });
        }
    });
    assert!(
        mounted
            .stage
            .wait_sealed(std::time::Duration::from_secs(60), &())
    );
    let summary = mounted.stage.summary();
    assert_eq!((summary.unsealed_files, summary.errors.len()), (0, 0));
}
