//! Everything at once: writers and renamers, sealing, snapshots published or given up, changes
//! dropped, other publishers; then the end, a restart, and a last commit.

use std::sync::Arc;
use std::time::Duration;

use formats::{Hash, RepoPath};

use super::area::{Area, Moments, State, observed};
use super::lot::Lot;
use super::snapshots::{self, Snapshot};
use crate::support::{Bench, Published, dir, file};
use crate::sync::{Mutex, thread};
use crate::{FreezeError, Ino, Notifier, OpenFiles, StageError, StageSummary};

/// Who changes what. The last one drops its changes, too.
const AREAS: &[&[&str]] = &[&["p", "q"], &["s", "t", "u"], &["z"]];
/// Operations of each.
const STEPS: u64 = 14;
/// Who publishes, side by side where the paths allow it.
const COMMITTERS: u64 = 2;
/// Snapshots of each.
const SNAPSHOTS: u64 = 3;
/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// In which all is sealed, and what could not be is tried again.
const PATIENCE: Duration = Duration::from_secs(100);
const REPOSITORY: &str = "test.example.org";

/// Whoever publishes holds the lease: the head.
type Lease = Mutex<Hash>;

/// What all threads share.
struct Storm {
    bench: Bench,
    lease: Lease,
    moments: Moments,
}

/// The kernel, which asks about what it is told of.
struct Kernel(Mutex<u64>);

impl Notifier for Kernel {
    fn inval_inode(&self, _: Ino) {
        *self.0.lock() += 1;
    }

    fn inval_entry(&self, _: Ino, _: &[u8]) {
        *self.0.lock() += 1;
    }
}

pub(super) fn run(mut lot: Lot) {
    let (published, start) = base();
    let settle = *lot.pick(&[0, 10, 3000]);
    let bench = Bench::with(
        (Arc::clone(&published), start),
        Duration::from_millis(settle),
        false,
    );
    bench
        .fs
        .set_notifier(&(Arc::new(Kernel(Mutex::new(0))) as Arc<dyn Notifier>));
    let storm = Arc::new(Storm {
        bench,
        lease: Mutex::new(start),
        moments: Moments::default(),
    });

    let writers: Vec<_> = AREAS
        .iter()
        .map(|tops| {
            let state = snapshots::published(&published, &start, tops);
            let area = Area::new(tops, Lot::new(lot.draw()), state);
            let (storm, mut pauses) = (Arc::clone(&storm), Lot::new(lot.draw()));
            thread::spawn(move || write(&storm, area, &mut pauses))
        })
        .collect();
    let committers: Vec<_> = (0..COMMITTERS)
        .map(|_| {
            let (storm, mut lot) = (Arc::clone(&storm), Lot::new(lot.draw()));
            thread::spawn(move || commit(&storm, &mut lot))
        })
        .collect();
    let other = {
        let (storm, mut lot) = (Arc::clone(&storm), Lot::new(lot.draw()));
        thread::spawn(move || publish_others(&storm, &mut lot))
    };
    let areas: Vec<Area> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    let snapshots = committers.into_iter().flat_map(|c| c.join().unwrap());
    let snapshots: Vec<Snapshot> = snapshots.collect();
    let others = other.join().unwrap();
    for snapshot in &snapshots {
        snapshot.require_a_moment(&areas);
    }
    let storm = Arc::into_inner(storm).expect("all threads are gone");
    end(storm, &areas, others, &mut lot);
}

fn base() -> (Arc<Published>, Hash) {
    let directory = || (dir(0o755), Vec::new());
    Published::new(vec![
        ("/p", directory()),
        ("/p/a", file(b"published p a")),
        ("/s", directory()),
        ("/s/a", directory()),
        ("/s/a/b", file(b"published s a b")),
        ("/s/b", file(b"published s b")),
        ("/z", directory()),
        ("/z/a", file(b"published z a")),
        ("/r", directory()),
    ])
}

fn pause(lot: &mut Lot) {
    if lot.below(4) == 0 {
        thread::sleep(Duration::from_millis(1 + lot.below(3000)));
    }
}

fn write(storm: &Storm, mut area: Area, lot: &mut Lot) -> Area {
    for _ in 0..STEPS {
        if area.tops.len() == 1 && lot.below(4) == 0 {
            area.abort(&storm.bench, &storm.moments);
        } else {
            area.step(&storm.bench, &storm.moments);
        }
        pause(lot);
    }
    area
}

fn commit(storm: &Storm, lot: &mut Lot) -> Vec<Snapshot> {
    let stage = storm.bench.stage();
    let mut snapshots = Vec::new();
    for _ in 0..SNAPSHOTS {
        pause(lot);
        let how = *lot.pick(&[OpenFiles::Wait(LONG), OpenFiles::Skip, OpenFiles::Fail]);
        let (target, tops) = target(lot);
        let asked = storm.moments.next();
        let frozen = match stage.freeze(&[target], how, &()) {
            Ok(frozen) => frozen,
            Err(FreezeError::OpenFiles(_)) if how == OpenFiles::Fail => continue,
            // its directory was moved away, or another one was moved there
            Err(FreezeError::NotFound(_) | FreezeError::ReplacedAncestor(_)) => continue,
            // the other one publishes that
            Err(FreezeError::Frozen(_)) => continue,
            Err(error) => panic!("{error:?}"),
        };
        let made = storm.moments.next();
        // a commit takes its time; what it needs must stay
        pause(lot);
        let base = (&*storm.bench.published, &stage.base_root());
        snapshots.push(Snapshot::of(&frozen, base, tops, (asked, made)));
        if lot.below(3) == 0 {
            stage.thaw(frozen.id).unwrap();
            continue;
        }
        let mut head = storm.lease.lock();
        *head = storm.bench.published.commit(&head, &frozen);
        stage.retire(frozen.id, &head).unwrap();
        drop(head);
    }
    snapshots
}

/// All, or one directory of the root.
fn target(lot: &mut Lot) -> (RepoPath, Vec<&'static str>) {
    let tops: Vec<&'static str> = AREAS.iter().flat_map(|tops| tops.iter().copied()).collect();
    if lot.below(4) == 0 {
        return (RepoPath::root(), tops);
    }
    let top = *lot.pick(&tops);
    (format!("/{top}").parse().unwrap(), vec![top])
}

/// Other publishers, whose revisions the stage follows; what they published.
fn publish_others(storm: &Storm, lot: &mut Lot) -> State {
    let mut state = State::from([("/r".to_owned(), None)]);
    for n in 0..3 {
        pause(lot);
        let mut head = storm.lease.lock();
        let (path, text) = (format!("/r/{n}"), format!("other {n}"));
        *head = storm
            .bench
            .published
            .publish_with(&head, |tree, published| {
                published.put(tree, &path, file(text.as_bytes()));
            });
        state.insert(path, Some(text));
        match storm.bench.stage().refresh(&head) {
            Ok(()) | Err(StageError::Frozen(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    state
}

fn require(bench: &Bench, areas: &[Area]) {
    for area in areas {
        assert_eq!(&observed(bench, area.tops), area.now(), "{:?}", area.tops);
    }
}

fn end(storm: Storm, areas: &[Area], others: State, lot: &mut Lot) {
    let Storm {
        mut bench, lease, ..
    } = storm;
    let head = lease.into_inner();
    require(&bench, areas);
    if lot.below(2) == 0 {
        assert!(
            bench.stage().wait_sealed(PATIENCE, &()),
            "a closed file is never sealed"
        );
        assert_eq!(bench.stage().summary().unsealed_files, 0);
    }
    reopen(&mut bench, lot);
    require(&bench, areas);

    bench.stage().refresh(&head).unwrap();
    let frozen = bench.freeze("").unwrap();
    let root = bench.published.commit(&head, &frozen);
    bench.stage().retire(frozen.id, &root).unwrap();
    require(&bench, areas);
    assert_eq!(observed(&bench, &["r"]), others);
    for area in areas {
        let published = snapshots::published(&bench.published, &root, area.tops);
        assert_eq!(&published, area.now(), "published: {:?}", area.tops);
    }
    assert_eq!(bench.stage().summary(), StageSummary::default());
    reopen(&mut bench, lot);
    require(&bench, areas);
    assert!(bench.changes().is_empty());
    close(bench);
}

/// The end of the program.
pub(super) fn close(mut bench: Bench) {
    let_go(&mut bench);
    bench.sealer.shutdown();
}

/// As after a good end of the program, or a bad one.
fn reopen(bench: &mut Bench, lot: &mut Lot) {
    if lot.below(2) == 0 {
        bench.stage().close().unwrap();
    }
    let_go(bench);
    bench.open();
}

fn let_go(bench: &mut Bench) {
    bench.fs.remove_repository(REPOSITORY);
    let stage = bench.stage.take().unwrap();
    let last = Arc::downgrade(&stage);
    drop(stage);
    while last.strong_count() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
}
