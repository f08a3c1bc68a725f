//! Steps at which staging is cut short: what was staged is there again, and a full disk stops nobody
//! but writers.
//!
//! A binary of its own, since failpoints are the whole process's.

#[allow(
    dead_code,
    unused_imports,
    reason = "what all test binaries of this crate share"
)]
mod support;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fail::FailScenario;
use support::{Bench, Published, ROOT, Rehashed, dir, file};

const MIB: usize = 1 << 20;
const NAMES: [&str; 3] = ["/d/a", "/d/b", "/d/c"];

/// One test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn content(of: &str) -> Vec<u8> {
    let line = format!("{of} and so on\n").into_bytes();
    line.into_iter().cycle().take(MIB).collect()
}

fn staged() -> Bench {
    let bench = Bench::new(Published::new(vec![
        ("/d", (dir(0o755), Vec::new())),
        ("/d/p", file(b"published")),
    ]));
    for name in NAMES {
        bench.write(name, &content(name));
    }
    bench.wait_sealed();
    bench
}

fn raw_files(bench: &Bench) -> usize {
    let backing = bench.dir.path().join("stage/backing");
    let dirs = std::fs::read_dir(backing)
        .unwrap()
        .map(|dir| dir.unwrap().path());
    dirs.filter(|dir| dir.is_dir())
        .map(|dir| std::fs::read_dir(dir).unwrap().count())
        .sum()
}

#[track_caller]
fn reads_as_written(bench: &Bench) {
    for name in NAMES {
        assert!(bench.read(name) == content(name), "{name}");
    }
}

/// From "the objects are safe" to "the raw files are gone": killed in between, nothing is lost, and
/// what was begun is brought to an end.
#[test]
fn dropping_raw_bytes_is_cut_short() {
    let _alone = alone();
    for (step, recorded) in [
        ("fsimpl::drop_synced", false),
        ("fsimpl::drop_recorded", true),
        ("fsimpl::drop_journalled", true),
    ] {
        let mut bench = staged();
        let scenario = FailScenario::setup();
        fail::cfg(step, "return").unwrap();
        bench.available.store(0, Ordering::SeqCst);
        bench.space.look();
        assert_eq!(raw_files(&bench), NAMES.len(), "{step}");
        reads_as_written(&bench);
        // as after `kill -9`: nothing is told to the stage
        bench.reopen();
        scenario.teardown();
        let left = if recorded { 0 } else { NAMES.len() };
        assert_eq!(raw_files(&bench), left, "{step}");
        reads_as_written(&bench);
        bench.space.look();
        assert_eq!(raw_files(&bench), 0, "{step}");
        bench.reopen();
        reads_as_written(&bench);
        bench.available.store(u64::MAX, Ordering::SeqCst);
        let root = bench.commit("");
        for name in NAMES {
            assert!(bench.published.read(&root, name) == content(name));
        }
    }
}

/// Objects that were written out in passing are not looked at again after a power loss.
#[test]
fn what_is_sealed_is_soon_safe() {
    let _alone = alone();
    let scenario = FailScenario::setup();
    let (told, hears) = std::sync::mpsc::channel();
    let tell = move || told.send(()).unwrap();
    fail::cfg_callback("fsimpl::sealed_synced", tell).unwrap();
    let mut bench = staged();
    bench.flush_after = Duration::ZERO;
    bench.reopen();
    bench.write("/d/one more", b"one more");
    bench.wait_sealed();
    hears.recv().unwrap();
    // as after `kill -9`, but for the thread, which ends what it began
    bench.close();
    bench.boot += 1;
    let hashed = Rehashed::default();
    bench.open_with(&hashed);
    scenario.teardown();
    assert_eq!(hashed.0.into_inner(), 0);
    reads_as_written(&bench);
}

/// As long as the record may be lost in a power loss, the raw bytes stay.
#[test]
fn raw_bytes_wait_for_the_journal_to_be_synced() {
    let _alone = alone();
    let bench = staged();
    let scenario = FailScenario::setup();
    fail::cfg("fsimpl::journal_sync", "return").unwrap();
    bench.available.store(0, Ordering::SeqCst);
    bench.space.look();
    assert_eq!(raw_files(&bench), NAMES.len());
    reads_as_written(&bench);
    scenario.teardown();
    while raw_files(&bench) > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    reads_as_written(&bench);
}

#[test]
fn a_journal_that_cannot_be_written_once_gets_the_reserve() {
    let _alone = alone();
    let mut bench = staged();
    let reserve = bench.dir.path().join(".reserve");
    assert!(reserve.exists());
    let scenario = FailScenario::setup();
    fail::cfg("fsimpl::journal_full", "1*return").unwrap();
    bench.unlink("/d/a").unwrap();
    scenario.teardown();
    assert!(!bench.exists("/d/a"));
    bench.mkdir("/d/goes on").unwrap();
    bench.reopen();
    assert_eq!(bench.list("/d"), ["b", "c", "goes on", "p"]);
    bench.space.look();
    assert!(reserve.exists(), "there is room for it again");
}

/// What the engine writes on its own may fail as well: it then takes nothing more, for a reason that
/// may be gone.
#[test]
fn an_engine_that_stopped_is_started_again() {
    let _alone = alone();
    let mut bench = staged();
    let scenario = FailScenario::setup();
    fail::cfg("fsimpl::journal_full", "1*return(poisoned)").unwrap();
    bench.unlink("/d/a").unwrap();
    scenario.teardown();
    assert_eq!(bench.space.report().unwrap().reserve_missing, 0);
    bench.reopen();
    assert_eq!(bench.list("/d"), ["b", "c", "p"]);
}

#[test]
fn a_journal_that_cannot_be_written_changes_nothing() {
    let _alone = alone();
    let mut bench = staged();
    let handle = bench.create("/d/open").unwrap();
    bench.fs.write(&ROOT, handle, 0, b"before").unwrap();
    let published = bench.open_write("/d/p");
    let sealed = bench.open_write("/d/b");
    let before = bench.everything();
    let scenario = FailScenario::setup();
    fail::cfg("fsimpl::journal_full", "return").unwrap();
    let enospc = |error: fsimpl::FsError| assert_eq!(error.to_errno(), libc::ENOSPC, "{error}");
    enospc(bench.unlink("/d/a").unwrap_err());
    enospc(bench.mkdir("/d/dir").unwrap_err());
    enospc(bench.rename("/d/a", "/d/z").unwrap_err());
    enospc(bench.create("/d/new").unwrap_err());
    // the first write of a file tells the journal
    enospc(bench.fs.write(&ROOT, published, 0, b"X").unwrap_err());
    enospc(bench.fs.write(&ROOT, sealed, 0, b"X").unwrap_err());
    // it was told of this one before
    bench.fs.write(&ROOT, handle, 6, b" and after").unwrap();
    assert!(bench.stage().abort(&"/d/a".parse().unwrap()).is_err());
    bench.available.store(0, Ordering::SeqCst);
    bench.space.look();
    assert!(bench.freeze("").is_err());
    scenario.teardown();
    bench.available.store(u64::MAX, Ordering::SeqCst);
    let after: Vec<String> = before
        .iter()
        .map(|line| line.replace("\"before\"", "\"before and after\""))
        .collect();
    assert_eq!(bench.everything(), after);
    bench.reopen();
    assert_eq!(bench.everything(), after);
    bench.unlink("/d/a").unwrap();
    bench.reopen();
    assert_eq!(bench.everything().len(), after.len() - 1);
    bench.commit("");
}
