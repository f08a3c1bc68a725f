//! A journal that is damaged: in its records (fuzz/src/journal.rs), or in its log, as a power loss
//! or a full disk leaves it.

use std::fs;
use std::path::{Path, PathBuf};

use fsimpl::RenameMode;

use crate::records::{self, bench};
use crate::replay::replay;
use crate::support::Bench;

/// Damaged inputs: each is a stage that is opened up to twice.
const MUTATIONS: usize = 150;
/// Places in the log at which it is cut.
const CUTS: usize = 40;
/// What a filesystem may show behind the cut; none: nothing.
const BEHIND: [Option<u8>; 3] = [None, Some(0), Some(2)];

#[test]
fn records_of_the_corpus() {
    replay("journal", MUTATIONS, records::journal);
}

#[test]
fn an_input_is_what_it_was_written_from() {
    let mut bench = bench();
    bench.mkdir("/a/new").unwrap();
    bench.close();
    let all = records::all(&bench.dir.path().join("stage/journal"));
    assert!(all.len() > 2);
    assert_eq!(records::read(&records::written(&all)), all);
}

/// Changes of names and metadata: what files hold is not in the journal.
fn steps() -> Vec<fn(&Bench)> {
    vec![
        |b| {
            b.mkdir("/a/new").unwrap();
        },
        |b| {
            b.symlink("target", "/a/new/link").unwrap();
        },
        |b| b.rename("/a/sub", "/b/moved").unwrap(),
        |b| b.chmod("/b/moved", 0o700),
        |b| b.unlink("/b/l").unwrap(),
        |b| {
            b.link("/a/one", "/b/uno").unwrap();
        },
        |b| b.unlink("/a/one").unwrap(),
        |b| {
            let exchange = RenameMode::Exchange;
            b.rename_as("/a/new", "/b/moved", exchange).unwrap();
        },
        |b| b.unlink("/b/moved/link").unwrap(),
        |b| b.rmdir("/b/moved").unwrap(),
    ]
}

#[test]
fn a_log_that_ends_anywhere_shows_a_state_that_there_was() {
    let mut bench = bench();
    let mut states = vec![bench.everything()];
    for step in steps() {
        step(&bench);
        states.push(bench.everything());
    }
    bench.close();
    let journal = bench.dir.path().join("stage/journal");
    let kept = bench.dir.path().join("kept");
    copy(&journal, &kept);
    let log = log_of(&kept);
    let whole = fs::read(&log).unwrap();
    let end = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    let mut shown = Vec::new();
    for cut in 0..CUTS {
        let at = end * (cut + 1) / CUTS;
        for behind in BEHIND {
            let mut bytes = whole[..at].to_vec();
            if let Some(byte) = behind {
                bytes.resize(whole.len().max(at + 100), byte);
            }
            fs::remove_dir_all(&journal).unwrap();
            copy(&kept, &journal);
            fs::write(journal.join(log.file_name().unwrap()), &bytes).unwrap();
            bench.open();
            let state = bench.everything();
            let which = states.iter().position(|known| *known == state);
            let which = which.unwrap_or_else(|| panic!("cut at {at}, {behind:?}: {state:#?}"));
            shown.push((at, which));
            bench.close();
        }
    }
    assert!(shown.is_sorted_by_key(|(_, which)| *which), "{shown:?}");
    assert_eq!(shown.last().unwrap().1, states.len() - 1, "all of it");
    let mut which: Vec<usize> = shown.into_iter().map(|(_, which)| which).collect();
    which.dedup();
    assert!(which.len() > states.len() / 2, "cuts between: {which:?}");
}

/// The engine's log.
fn log_of(journal: &Path) -> PathBuf {
    let files = fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut logs = files.filter(|file| file.extension().is_some_and(|e| e == "jnl"));
    let log = logs.next().expect("the engine's log");
    assert!(logs.next().is_none(), "one log");
    log
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
