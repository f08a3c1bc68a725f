//! Figures of many files: time and memory per file, the length of a freeze. Memory has a budget; time
//! depends on the machine, so it is printed and never judged.

#![allow(clippy::print_stderr, reason = "figures for whoever runs this by hand")]

use std::time::{Duration, Instant};

use fsimpl::{FileType, OpenFlags};

use crate::support::{Bench, Published, ROOT, dir};

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Run by hand in release mode for the figures, which it prints:
/// `cargo test --release -p prepub-fsimpl -- --ignored --nocapture hundred_thousand`.
#[test]
#[ignore = "takes a minute; figures are for docs/performance.md"]
fn a_hundred_thousand_small_files() {
    let figures = run(100, 1000);
    eprintln!("{figures:?}");
    assert!(figures.resident_kib < 150 << 10, "{figures:?}");
}

/// Memory a file stays within what a hundred thousand may take.
#[test]
fn thousands_of_small_files() {
    let figures = run(10, 500);
    assert!(figures.resident_kib < 64 << 10, "{figures:?}");
}

#[derive(Debug)]
#[allow(dead_code, reason = "shown in failures")]
struct Figures {
    per_second: f64,
    /// Of the one thread that wrote, so that a busy machine does not count.
    per_cpu_second: f64,
    sealed_after: Duration,
    resident_kib: u64,
    freeze: Duration,
    retire: Duration,
    reopen: Duration,
    list: Duration,
}

fn run(dirs: usize, files: usize) -> Figures {
    let mut bench = Bench::with(
        Published::new(vec![("/d", (dir(0o755), Vec::new()))]),
        // nothing is sealed while files are made
        Duration::from_secs(600),
        false,
    );
    let before = resident_kib();
    let flags = OpenFlags {
        write: true,
        ..OpenFlags::default()
    };
    let top = bench.ino("/d");
    let cpu_before = thread_seconds();
    let started = Instant::now();
    for d in 0..dirs {
        let name = format!("dir-{d}");
        let dir = bench.fs.mkdir(&ROOT, top, name.as_bytes(), 0o755).unwrap();
        for f in 0..files {
            let name = format!("some-file-{f}.py");
            let (attr, handle) = bench
                .fs
                .create(&ROOT, dir.ino, name.as_bytes(), 0o644, flags)
                .unwrap();
            let text = format!("content {d} {f}\n").repeat(20);
            bench.fs.write(&ROOT, handle, 0, text.as_bytes()).unwrap();
            bench.fs.release(handle).unwrap();
            bench.fs.forget(attr.ino, 1);
        }
    }
    let elapsed = started.elapsed();
    let per_cpu_second = (dirs * files) as f64 / (thread_seconds() - cpu_before);
    let per_second = (dirs * files) as f64 / elapsed.as_secs_f64();
    bench.wait_sealed();
    let sealed_after = started.elapsed();
    let resident_kib = resident_kib().saturating_sub(before);
    let started = Instant::now();
    bench.reopen();
    let reopen = started.elapsed();
    let started = Instant::now();
    let frozen = bench.freeze("").unwrap();
    let freeze = started.elapsed();
    assert_eq!(frozen.change_set.changes.len(), dirs * files + dirs + 1);
    let root = bench.published.commit(&bench.stage().base_root(), &frozen);
    let started = Instant::now();
    bench.stage().retire(frozen.id, &root).unwrap();
    let retire = started.elapsed();
    assert!(bench.changes().is_empty());
    let started = Instant::now();
    let mut listed = 0;
    for d in 0..dirs {
        listed += bench.list(&format!("/d/dir-{d}")).len();
    }
    let list = started.elapsed();
    assert_eq!(listed, dirs * files);
    assert_eq!(bench.find("/d/dir-0").unwrap().kind, FileType::Directory);
    let figures = Figures {
        per_second,
        per_cpu_second,
        sealed_after,
        resident_kib,
        freeze,
        retire,
        reopen,
        list,
    };
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{figures:?}\n")).unwrap();
    figures
}
