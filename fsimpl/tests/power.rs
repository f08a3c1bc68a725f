//! The machine stopped: what was synced is there, what was not is never taken for granted.
//!
//! What a power loss leaves is made by hand here: files of the stage are cut, zeroed or removed while
//! it is closed without a farewell, and it is opened under another boot id.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fsimpl::{FreezeError, OpenFiles, Stage};

use crate::support::bench::path;
use crate::support::{Bench, Published, ROOT, Rehashed, dir, file};

/// Long enough that nothing is sealed unless somebody waits for it.
const NEVER: Duration = Duration::from_secs(3600);

fn bench(settle: Duration) -> Bench {
    let published = Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/one", file(b"one")),
    ]);
    Bench::with(published, settle, false)
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&entry.path()));
        } else if entry.file_name() != "empty" {
            files.push(entry.path());
        }
    }
    files
}

fn backings(bench: &Bench) -> Vec<PathBuf> {
    files_below(&bench.dir.path().join("stage/backing"))
}

fn objects(bench: &Bench) -> Vec<PathBuf> {
    files_below(&bench.dir.path().join("stage/objects/data"))
}

/// What a power loss does to a file that was not synced.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Cut,
    Zeros,
    Gone,
}

const ALL_DAMAGE: [Damage; 3] = [Damage::Cut, Damage::Zeros, Damage::Gone];

fn damage(files: Vec<PathBuf>, how: Damage) {
    assert!(!files.is_empty());
    for file in files {
        let length = fs::metadata(&file).unwrap().len();
        match how {
            Damage::Cut => fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(length / 2)
                .unwrap(),
            Damage::Zeros => fs::write(&file, vec![0; usize::try_from(length).unwrap()]).unwrap(),
            Damage::Gone => fs::remove_file(&file).unwrap(),
        }
    }
}

/// Writes a file, and leaves it open.
fn write_open(bench: &Bench, at: &str, bytes: &[u8]) -> fsimpl::Handle {
    let handle = bench.create(at).unwrap();
    bench.fs.write(&ROOT, handle, 0, bytes).unwrap();
    handle
}

fn in_doubt(bench: &Bench) -> Vec<String> {
    let errors = bench.stage().summary().errors;
    errors.iter().map(|e| e.path.to_string()).collect()
}

#[track_caller]
fn assert_refused(bench: &Bench, paths: &[&str]) {
    match bench.freeze("") {
        Err(FreezeError::Doubtful(files)) => {
            let found: Vec<String> = files.iter().map(|f| f.path.to_string()).collect();
            assert_eq!(found, paths);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(in_doubt(bench), paths);
}

fn accept(stage: &Stage, at: &str) -> usize {
    stage.accept_doubtful(&[path(at)]).unwrap()
}

#[test]
fn what_was_fsynced_is_there_and_not_in_doubt() {
    let mut bench = bench(NEVER);
    let closed = write_open(&bench, "/a/closed", b"closed after fsync");
    bench.fs.fsync(closed, false).unwrap();
    bench.fs.release(closed).unwrap();
    let open = write_open(&bench, "/a/open", b"open");
    bench.fs.fsync(open, true).unwrap();
    // a log: not vouched for while it is open, but all of it is there
    let log = write_open(&bench, "/a/log", b"first ");
    bench.fs.fsync(log, false).unwrap();
    bench.fs.write(&ROOT, log, 6, b"second ").unwrap();
    bench.fs.fsync(log, false).unwrap();
    bench.fs.write(&ROOT, log, 13, b"third").unwrap();
    bench.fs.fsync(log, false).unwrap();
    let empty = bench.create("/a/empty").unwrap();
    bench.fs.fsync(empty, false).unwrap();
    bench.power_loss(|_| {});
    assert_eq!(bench.read("/a/closed"), b"closed after fsync");
    assert_eq!(bench.read("/a/open"), b"open");
    assert_eq!(bench.read("/a/log"), b"first second third");
    assert_eq!(bench.read("/a/empty"), b"");
    assert_refused(&bench, &["/a/log"]);
    assert_eq!(accept(bench.stage(), ""), 1);
    let root = bench.commit("");
    assert_eq!(
        bench.published.read(&root, "/a/closed"),
        b"closed after fsync"
    );
    assert_eq!(bench.published.read(&root, "/a/log"), b"first second third");
}

#[test]
fn a_log_that_was_closed_is_vouched_for() {
    let mut bench = bench(NEVER);
    let log = write_open(&bench, "/a/log", b"first ");
    for (at, text) in [(6, "second "), (13, "third")] {
        bench.fs.fsync(log, false).unwrap();
        bench.fs.write(&ROOT, log, at, text.as_bytes()).unwrap();
    }
    bench.fs.fsync(log, false).unwrap();
    bench.fs.release(log).unwrap();
    bench.power_loss(|_| {});
    assert_eq!(bench.read("/a/log"), b"first second third");
    assert!(in_doubt(&bench).is_empty());
}

#[test]
fn another_writer_is_no_log() {
    let mut bench = bench(NEVER);
    let first = write_open(&bench, "/a/new", b"first ");
    bench.fs.fsync(first, false).unwrap();
    for (at, text) in [(6, "second "), (13, "third")] {
        // an earlier writer's handle may be there for a while after it was closed
        let handle = bench.open_write("/a/new");
        bench.fs.write(&ROOT, handle, at, text.as_bytes()).unwrap();
        bench.fs.fsync(handle, false).unwrap();
    }
    bench.power_loss(|_| {});
    assert_eq!(bench.read("/a/new"), b"first second third");
    assert!(in_doubt(&bench).is_empty());
}

#[test]
fn bytes_that_changed_after_fsync_are_in_doubt() {
    let mut bench = bench(NEVER);
    for name in ["/a/written", "/a/cut", "/a/reopened"] {
        let handle = write_open(&bench, name, b"synced");
        bench.fs.fsync(handle, false).unwrap();
        match name {
            "/a/written" => drop(bench.fs.write(&ROOT, handle, 0, b"later!").unwrap()),
            "/a/cut" => bench.truncate(name, 3),
            _ => {}
        }
        bench.fs.release(handle).unwrap();
    }
    let handle = bench.open_write("/a/reopened");
    bench.fs.write(&ROOT, handle, 6, b" and more").unwrap();
    bench.fs.release(handle).unwrap();
    bench.power_loss(|_| {});
    assert_refused(&bench, &["/a/cut", "/a/reopened", "/a/written"]);
}

#[test]
fn what_was_not_synced_is_named_and_not_published() {
    for how in ALL_DAMAGE {
        let mut bench = bench(NEVER);
        bench.write("/a/new", b"0123456789");
        bench.write("/a/kept", b"changed");
        bench.write("/a/taken back", b"whatever");
        bench.write("/a/removed", b"whatever");
        bench.power_loss(|bench| damage(backings(bench), how));
        assert_refused(
            &bench,
            &["/a/kept", "/a/new", "/a/removed", "/a/taken back"],
        );
        // it stays so, whatever is started again
        bench.reopen();
        assert_eq!(in_doubt(&bench).len(), 4, "{how:?}");
        assert!(!bench.stage().wait_sealed(Duration::from_secs(60), &()));
        // three ways out: write it again, remove it, accept it
        bench.write("/a/new", b"again");
        bench.unlink("/a/removed").unwrap();
        bench.stage().abort(&path("/a/taken back")).unwrap();
        assert_refused(&bench, &["/a/kept"]);
        assert_eq!(accept(bench.stage(), "/a/elsewhere"), 0);
        assert_eq!(accept(bench.stage(), "/a"), 1);
        assert!(in_doubt(&bench).is_empty());
        let root = bench.commit("");
        assert_eq!(bench.published.read(&root, "/a/new"), b"again");
        let left: &[u8] = match how {
            Damage::Cut => b"cha",
            Damage::Zeros => &[0; 7],
            Damage::Gone => b"",
        };
        assert_eq!(bench.published.read(&root, "/a/kept"), left, "{how:?}");
    }
}

#[test]
fn a_published_file_that_was_changed_is_what_it_was() {
    for how in ALL_DAMAGE {
        let mut bench = bench(NEVER);
        let before = bench.find("/a/one").unwrap();
        let handle = bench.open_write("/a/one");
        bench.fs.write(&ROOT, handle, 3, b" more").unwrap();
        bench.fs.release(handle).unwrap();
        bench.power_loss(|bench| damage(backings(bench), how));
        // the change is lost, which is said; what nobody had touched is not
        assert_refused(&bench, &["/a/one"]);
        assert_eq!(bench.read("/a/one"), b"one");
        assert_eq!(bench.find("/a/one").unwrap().mtime, before.mtime);
        bench.reopen();
        assert_refused(&bench, &["/a/one"]);
        assert_eq!(accept(bench.stage(), "/a"), 1);
        assert!(bench.freeze("").unwrap().change_set.changes.is_empty());
    }
}

#[test]
fn a_change_that_was_fsynced_or_sealed_is_kept() {
    let mut bench = bench(NEVER);
    bench.write("/a/two", b"two");
    bench.commit("");
    for (name, fsync) in [("/a/one", true), ("/a/two", false)] {
        let handle = bench.open_write(name);
        bench.fs.write(&ROOT, handle, 3, b" more").unwrap();
        if fsync {
            bench.fs.fsync(handle, false).unwrap();
        }
        bench.fs.release(handle).unwrap();
        if !fsync {
            bench.wait_sealed();
        }
    }
    bench.power_loss(|_| {});
    assert!(in_doubt(&bench).is_empty());
    assert_eq!(bench.read("/a/one"), b"one more");
    assert_eq!(bench.read("/a/two"), b"two more");
}

#[test]
fn a_file_goes_back_to_what_it_was_last_in_objects() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/one", b"second");
    bench.wait_sealed();
    bench.power_loss(|bench| damage(backings(bench), Damage::Gone));
    assert!(in_doubt(&bench).is_empty());
    bench.sealer.pause();
    let handle = bench.open_write("/a/one");
    bench.fs.write(&ROOT, handle, 6, b" third").unwrap();
    bench.fs.release(handle).unwrap();
    bench.close();
    bench.sealer.resume();
    bench.boot += 1;
    damage(backings(&bench), Damage::Zeros);
    bench.open();
    assert_refused(&bench, &["/a/one"]);
    assert_eq!(bench.read("/a/one"), b"second");
}

/// Writes to a file that was closed; the power goes, and takes none of its bytes.
fn append_and_lose_power(bench: &mut Bench, at: &str, offset: u64) {
    bench.sealer.pause();
    let handle = bench.open_write(at);
    bench.fs.write(&ROOT, handle, offset, b" third").unwrap();
    bench.fs.release(handle).unwrap();
    bench.close();
    bench.sealer.resume();
    bench.boot += 1;
    bench.open();
}

#[test]
fn a_file_does_not_go_back_behind_what_was_found_sound() {
    for how in ALL_DAMAGE {
        let mut bench = bench(Duration::ZERO);
        bench.write("/a/one", b"second");
        bench.wait_sealed();
        // its objects are made again, of raw bytes that are on disk then
        bench.power_loss(|bench| damage(objects(bench), how));
        assert!(in_doubt(&bench).is_empty(), "{how:?}");
        append_and_lose_power(&mut bench, "/a/one", 6);
        assert_refused(&bench, &["/a/one"]);
        assert_eq!(bench.read("/a/one"), b"second third", "{how:?}");
    }
}

#[test]
fn a_file_does_not_go_back_behind_a_farewell() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/one", b"second");
    bench.wait_sealed();
    bench.stage().close().unwrap();
    bench.reopen();
    append_and_lose_power(&mut bench, "/a/one", 6);
    assert_refused(&bench, &["/a/one"]);
    assert_eq!(bench.read("/a/one"), b"second third");
}

#[test]
fn a_file_does_not_go_back_behind_an_fsync_that_others_wrote_beside() {
    let mut bench = bench(NEVER);
    let handle = bench.open_write("/a/one");
    bench.fs.write(&ROOT, handle, 3, b" more").unwrap();
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bench.fs.write(&ROOT, handle, 100, b"beside").unwrap();
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        while written.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        bench.fs.fsync(handle, false).unwrap();
        done.store(true, Ordering::Relaxed);
    });
    bench.fs.release(handle).unwrap();
    bench.power_loss(|_| {});
    assert_eq!(bench.read("/a/one")[..8], *b"one more");
}

#[test]
fn a_sealed_file_without_raw_bytes_that_was_changed_is_what_it_was() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/new", &[b'n'; 10_000]);
    bench.wait_sealed();
    // from here on its bytes are in objects only
    bench.power_loss(|_| {});
    assert!(in_doubt(&bench).is_empty());
    bench.sealer.pause();
    let handle = bench.open_write("/a/new");
    bench.fs.write(&ROOT, handle, 10_000, b"more").unwrap();
    bench.fs.release(handle).unwrap();
    // nobody may sweep away what it may have to go back to
    bench.write("/a/other", b"other");
    bench.stage().abort(&path("/a/other")).unwrap();
    bench.close();
    bench.sealer.resume();
    bench.boot += 1;
    damage(backings(&bench), Damage::Zeros);
    bench.open();
    assert_refused(&bench, &["/a/new"]);
    assert_eq!(bench.read("/a/new"), [b'n'; 10_000]);
}

#[test]
fn bytes_written_to_a_file_in_doubt_do_not_clear_the_rest() {
    let mut bench = bench(NEVER);
    bench.write("/a/new", b"0123456789");
    bench.power_loss(|bench| damage(backings(bench), Damage::Zeros));
    let handle = bench.open_write("/a/new");
    bench.fs.write(&ROOT, handle, 0, b"abc").unwrap();
    // what was written to it since is durable, whatever there is to say of the rest
    bench.fs.fsync(handle, false).unwrap();
    assert_eq!(in_doubt(&bench), ["/a/new"]);
    bench.truncate("/a/new", 0);
    assert!(in_doubt(&bench).is_empty());
    bench.fs.write(&ROOT, handle, 0, b"abc").unwrap();
    bench.fs.release(handle).unwrap();
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/a/new"), b"abc");
}

#[test]
fn damaged_objects_are_made_again_from_raw_bytes() {
    for how in ALL_DAMAGE {
        let mut bench = bench(Duration::ZERO);
        bench.write("/a/new", &[b'n'; 10_000]);
        bench.write("/a/same", &[b'n'; 10_000]);
        bench.write("/a/other", &[b'o'; 100]);
        bench.wait_sealed();
        bench.power_loss(|bench| damage(objects(bench), how));
        assert!(in_doubt(&bench).is_empty(), "{how:?}");
        assert_eq!(bench.read("/a/new"), [b'n'; 10_000]);
        let root = bench.commit("");
        assert_eq!(bench.published.read(&root, "/a/same"), [b'n'; 10_000]);
        assert_eq!(bench.published.read(&root, "/a/other"), [b'o'; 100]);
    }
}

#[test]
fn sound_objects_are_the_truth() {
    for how in ALL_DAMAGE {
        let mut bench = bench(Duration::ZERO);
        bench.write("/a/new", &[b'n'; 10_000]);
        bench.wait_sealed();
        bench.power_loss(|bench| damage(backings(bench), how));
        assert!(in_doubt(&bench).is_empty(), "{how:?}");
        assert_eq!(bench.read("/a/new"), [b'n'; 10_000]);
        // also for who writes to it again
        let handle = bench.open_write("/a/new");
        bench.fs.write(&ROOT, handle, 0, b"x").unwrap();
        bench.fs.release(handle).unwrap();
        let root = bench.commit("");
        let mut expected = vec![b'n'; 10_000];
        expected[0] = b'x';
        assert_eq!(bench.published.read(&root, "/a/new"), expected);
    }
}

#[test]
fn without_sound_objects_and_raw_bytes_a_file_is_in_doubt() {
    for (of_objects, of_raw) in [
        (Damage::Zeros, Damage::Zeros),
        (Damage::Gone, Damage::Cut),
        (Damage::Cut, Damage::Gone),
    ] {
        let mut bench = bench(Duration::ZERO);
        bench.write("/a/new", &[b'n'; 10_000]);
        bench.wait_sealed();
        bench.power_loss(|bench| {
            damage(objects(bench), of_objects);
            damage(backings(bench), of_raw);
        });
        assert_refused(&bench, &["/a/new"]);
        if matches!(of_raw, Damage::Gone) {
            // there is nothing to accept, and nothing is made up
            let handle = bench.open_read("/a/new");
            assert!(bench.fs.read(handle, 0, &mut [0; 10]).is_err());
            bench.fs.release(handle).unwrap();
            assert_eq!(accept(bench.stage(), ""), 0);
            assert_refused(&bench, &["/a/new"]);
        }
        bench.write("/a/new", b"again");
        let root = bench.commit("");
        assert_eq!(bench.published.read(&root, "/a/new"), b"again");
    }
}

#[test]
fn an_empty_file_is_sealed_again() {
    for how in [Damage::Zeros, Damage::Gone] {
        let mut bench = bench(Duration::ZERO);
        let handle = bench.create("/a/empty").unwrap();
        bench.fs.release(handle).unwrap();
        bench.wait_sealed();
        bench.power_loss(|bench| damage(objects(bench), how));
        assert!(in_doubt(&bench).is_empty(), "{how:?}");
        let root = bench.commit("");
        assert_eq!(bench.published.read(&root, "/a/empty"), b"");
    }
}

#[test]
fn synced_raw_bytes_are_sealed_again_whatever_became_of_the_objects() {
    for how in ALL_DAMAGE {
        let mut bench = bench(Duration::ZERO);
        let handle = write_open(&bench, "/a/new", &[b'n'; 10_000]);
        bench.fs.fsync(handle, false).unwrap();
        bench.fs.release(handle).unwrap();
        bench.wait_sealed();
        // parameters that changed meanwhile make no difference to that
        bench.seal.lock().compression = formats::Compression::None;
        bench.power_loss(|bench| damage(objects(bench), how));
        assert!(in_doubt(&bench).is_empty(), "{how:?}");
        bench.wait_sealed();
        let root = bench.commit("");
        assert_eq!(bench.published.read(&root, "/a/new"), [b'n'; 10_000]);
    }
}

#[test]
fn a_reference_is_synced_by_fsync_and_lost_with_its_objects_otherwise() {
    for fsynced in [true, false] {
        let mut bench = bench(Duration::ZERO);
        bench.write("/a/from", &[b'f'; 5000]);
        bench.wait_sealed();
        let from = bench.open_read("/a/from");
        let to = bench.create("/a/to").unwrap();
        let copied = bench.fs.copy_file_range(&ROOT, (from, 0), (to, 0), 5000);
        assert_eq!(copied.unwrap(), 5000);
        if fsynced {
            bench.fs.fsync(to, false).unwrap();
        }
        bench.fs.release(to).unwrap();
        bench.fs.release(from).unwrap();
        bench.unlink("/a/from").unwrap();
        bench.power_loss(|bench| {
            if !fsynced {
                damage(objects(bench), Damage::Zeros);
            }
        });
        if fsynced {
            assert!(in_doubt(&bench).is_empty());
            assert_eq!(bench.read("/a/to"), [b'f'; 5000]);
        } else {
            assert_refused(&bench, &["/a/to"]);
        }
    }
}

#[test]
fn after_a_farewell_nothing_is_in_doubt_and_nothing_is_hashed_again() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/sealed", b"sealed");
    bench.wait_sealed();
    bench.sealer.pause();
    bench.write("/a/unsealed", b"unsealed");
    bench.stage().close().unwrap();
    bench.close();
    bench.sealer.resume();
    bench.boot += 1;
    let hashed = Rehashed::default();
    bench.open_with(&hashed);
    assert_eq!(hashed.0.into_inner(), 0);
    assert!(in_doubt(&bench).is_empty());
    assert_eq!(bench.read("/a/unsealed"), b"unsealed");
    // what comes after it is hashed again, and that alone
    bench.write("/a/later", b"later");
    bench.wait_sealed();
    bench.close();
    bench.boot += 1;
    let hashed = Rehashed::default();
    bench.open_with(&hashed);
    // the file that was unsealed at the end, and the later one
    assert_eq!(hashed.0.into_inner(), 2);
    assert!(in_doubt(&bench).is_empty());
}

#[test]
fn an_object_that_nobody_refers_to_is_not_taken_for_stored() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/new", &[b'n'; 10_000]);
    bench.wait_sealed();
    bench.unlink("/a/new").unwrap();
    assert_eq!(objects(&bench).len(), 1);
    bench.power_loss(|bench| damage(objects(bench), Damage::Zeros));
    bench.write("/a/again", &[b'n'; 10_000]);
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/a/again"), [b'n'; 10_000]);
}

#[test]
fn nor_is_one_that_comes_back_to_a_stage_that_is_empty() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/new", &[b'n'; 10_000]);
    bench.wait_sealed();
    let object = objects(&bench).remove(0);
    bench.stage().abort(&path("")).unwrap();
    // that it was removed may not have reached the disk, nor its bytes
    bench.power_loss(|_| fs::write(&object, []).unwrap());
    bench.write("/a/again", &[b'n'; 10_000]);
    let root = bench.commit("");
    assert_eq!(bench.published.read(&root, "/a/again"), [b'n'; 10_000]);
}

#[test]
fn a_file_in_doubt_outside_the_target_is_in_nobodys_way() {
    let mut bench = bench(NEVER);
    bench.write("/a/new", b"doubtful");
    bench.mkdir("/b").unwrap();
    bench.power_loss(|_| {});
    bench.write("/b/good", b"good");
    let root = bench.commit("/b");
    assert_eq!(bench.published.read(&root, "/b/good"), b"good");
    // nor is one that somebody is writing to again
    let handle = bench.open_write("/a/new");
    let frozen = bench
        .stage()
        .freeze(&[path("")], OpenFiles::Skip, &())
        .unwrap();
    assert_eq!(frozen.skipped.len(), 1);
    bench.stage().thaw(frozen.id).unwrap();
    bench.fs.release(handle).unwrap();
    assert_refused(&bench, &["/a/new"]);
}

/// Raw bytes are dropped when the objects are synced: a power loss takes neither, and nobody hashes
/// them again. One that was changed since is what it was.
#[test]
fn a_file_whose_raw_bytes_were_dropped_survives() {
    let mut bench = bench(Duration::ZERO);
    bench.write("/a/new", &[b'n'; 10_000]);
    bench.write("/a/one", &[b'o'; 10_000]);
    bench.wait_sealed();
    bench.available.store(0, Ordering::SeqCst);
    bench.space.look();
    assert!(backings(&bench).is_empty());
    bench.available.store(u64::MAX, Ordering::SeqCst);
    bench.sealer.pause();
    let handle = bench.open_write("/a/one");
    bench.fs.write(&ROOT, handle, 10_000, b"more").unwrap();
    bench.fs.release(handle).unwrap();
    bench.close();
    bench.sealer.resume();
    bench.boot += 1;
    damage(backings(&bench), Damage::Zeros);
    let hashed = Rehashed::default();
    bench.open_with(&hashed);
    assert_eq!(hashed.0.into_inner(), 0);
    assert_refused(&bench, &["/a/one"]);
    assert_eq!(bench.read("/a/new"), [b'n'; 10_000]);
    assert_eq!(bench.read("/a/one"), [b'o'; 10_000]);
}
