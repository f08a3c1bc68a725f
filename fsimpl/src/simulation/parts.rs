//! Single parts, by many more schedules than the whole: the sealer's queue, the table of open
//! files against a snapshot, and threads for slow requests.

use std::sync::Arc;
use std::time::Duration;

use store::MemoryStore;

use super::lot::Lot;
use crate::aside::Aside;
use crate::handle::OpenTable;
use crate::seal::{
    CancelToken, Generation, RawHash, SealError, SealJob, SealParams, Sealed, Sealer, SealerLimits,
    Source,
};
use crate::support::{Bench, Published};
use crate::sync::channel::{Sender, unbounded};
use crate::sync::{Instant, Mutex, thread};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(24 * 3600);
const SUBMITTERS: u64 = 3;
const JOBS: u64 = 4;

type Ended = (u64, bool, Result<Sealed, SealError>);

/// Jobs from several threads, urged, called off, held back; then the end of all, or of the sealer.
/// Each is told of once, and nothing that waits does so for ever.
pub(super) fn sealer(mut lot: Lot) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, b"some bytes").unwrap();
    let limits = SealerLimits {
        workers: 2,
        pending_files_max: 1 + lot.below(4),
        pending_bytes_max: 1000,
    };
    let sealer = Arc::new(Sealer::new(limits).unwrap());
    let (ended, results) = unbounded::<Ended>();
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|n| {
            let (sealer, ended, path) = (Arc::clone(&sealer), ended.clone(), path.clone());
            let mut lot = Lot::new(lot.draw());
            thread::spawn(move || {
                for id in n * JOBS..(n + 1) * JOBS {
                    submit(&sealer, (id, &ended), &path, &mut lot);
                }
            })
        })
        .collect();
    drop(ended);
    let stops_early = lot.below(3) == 0;
    if lot.below(2) == 0 {
        sealer.pause();
        thread::sleep(Duration::from_millis(lot.below(20)));
        sealer.resume();
    }
    if stops_early {
        sealer.shutdown();
    }
    for submitter in submitters {
        submitter.join().unwrap();
    }
    assert!(sealer.wait_idle(LONG), "a job never ends");
    sealer.shutdown();
    let mut told: Vec<u64> = results
        .into_iter()
        .map(|(id, cancelled, result)| {
            match result {
                Ok(sealed) => assert_eq!(sealed.size, 10),
                Err(SealError::Cancelled) => assert!(cancelled, "job {id} was not called off"),
                Err(SealError::ShutDown) => assert!(stops_early, "job {id} was not done"),
                Err(error) => panic!("{error:?}"),
            }
            id
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, (0..SUBMITTERS * JOBS).collect::<Vec<_>>());
}

fn submit(
    sealer: &Sealer,
    (id, ended): (u64, &Sender<Ended>),
    path: &std::path::Path,
    lot: &mut Lot,
) {
    // a full queue lets them go on after a while
    sealer.admit(Duration::from_millis(50));
    let cancel = CancelToken::new();
    let cancels = lot.below(4) == 0;
    let (ended, token) = (ended.clone(), cancel.clone());
    let delay = *lot.pick(&[0, 10, 3_600_000]);
    sealer.submit(SealJob {
        id,
        source: Source::Path(path.to_owned()),
        size_hint: 10,
        params: Arc::new(SealParams::default()),
        objects: Arc::new(MemoryStore::new()),
        cancel: cancel.clone(),
        generation: Generation::default(),
        not_before: Instant::now() + Duration::from_millis(delay),
        urgent: lot.below(4) == 0,
        known: Arc::new(|_: &RawHash| None),
        done: Box::new(move |result| {
            ended.send((id, token.is_cancelled(), result)).unwrap();
        }),
    });
    if cancels {
        cancel.cancel();
    }
    match lot.below(6) {
        0 => sealer.urge(id),
        1 => sealer.urge_all(),
        _ => {}
    }
}

/// A file that is closed and opened again and again: a snapshot that waits misses no moment at which
/// it is closed, and nobody waits for ever.
pub(super) fn writers_and_a_snapshot(mut lot: Lot) {
    let table = Arc::new(OpenTable::default());
    let open = Arc::new(Mutex::new(0_u32));
    let count = 1 + lot.below(3);
    let writers: Vec<_> = (0..count)
        .map(|_| {
            let (table, open) = (Arc::clone(&table), Arc::clone(&open));
            thread::spawn(move || {
                for _ in 0..5 {
                    table.let_look();
                    *open.lock() += 1;
                    *open.lock() -= 1;
                    table.tell_closed();
                }
            })
        })
        .collect();
    for _ in 0..2 {
        let waiting = table.wait_for_writers();
        let mut looks = 0;
        loop {
            let seen = waiting.gone();
            looks += 1;
            if *open.lock() == 0 {
                break;
            }
            assert!(waiting.for_another(seen, Instant::now() + LONG));
        }
        // open at the first look; at the second, opened again before anybody knew of the wait
        assert!(count > 1 || looks <= 3, "{looks} looks at one writer");
    }
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Work from several threads, at once and later, with pauses in which threads may go: all is done,
/// what is at hand at once is not held up by what is late.
pub(super) fn aside(mut lot: Lot) {
    let aside = Arc::new(Aside::default());
    let (done, results) = unbounded();
    let givers: Vec<_> = (0..3_u64)
        .map(|n| {
            let (aside, done) = (Arc::clone(&aside), done.clone());
            let mut lot = Lot::new(lot.draw());
            thread::spawn(move || {
                for id in n * 4..n * 4 + 4 {
                    let done = done.clone();
                    let work = move || done.send(id).unwrap();
                    if lot.below(2) == 0 {
                        aside.run(work);
                    } else {
                        let delay = *lot.pick(&[0, 50, 10_000, 60_000]);
                        aside.run_after(Duration::from_millis(delay), work);
                    }
                    // about as long as an idle thread stays
                    let pauses = [0, 0, 50, 10_000, 10_001];
                    thread::sleep(Duration::from_millis(*lot.pick(&pauses)));
                }
            })
        })
        .collect();
    drop(done);
    for giver in givers {
        giver.join().unwrap();
    }
    let mut seen: Vec<u64> = results.into_iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..12).collect::<Vec<_>>());
    drop(Arc::into_inner(aside));
    // its threads see that, and go: else the run never ends
}

/// Files that are made and written while snapshots are taken and waits for sealing end: each has its
/// bytes, whenever it was looked at.
pub(super) fn new_files_and_snapshots(mut lot: Lot) {
    const FILES: usize = 3;
    let bench = Arc::new(Bench::new(Published::new(Vec::new())));
    let writer = {
        let bench = Arc::clone(&bench);
        thread::spawn(move || {
            for n in 0..FILES {
                bench.write(&format!("/{n}"), b"its bytes");
            }
        })
    };
    for _ in 0..3 {
        if lot.below(2) == 0 {
            bench.stage().wait_sealed(Duration::from_secs(1), &());
        } else if let Ok(frozen) = bench.freeze("") {
            bench.stage().thaw(frozen.id).unwrap();
        }
    }
    writer.join().unwrap();
    let root = bench.commit("");
    for n in 0..FILES {
        assert_eq!(bench.read(&format!("/{n}")), b"its bytes");
        assert_eq!(bench.published.read(&root, &format!("/{n}")), b"its bytes");
    }
    let bench = Arc::into_inner(bench).expect("the writer is gone");
    super::storm::close(bench);
}
