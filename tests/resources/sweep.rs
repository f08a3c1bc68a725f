//! A fault at each call of the script's (`support::script`), by its kind and place: once, or from
//! then on until it is cleared.
//!
//! The short form takes some of them, one of each kind and place by turns; `scripts/soak faults`
//! (`PREPUB_FAULTS`) takes as many as it is told, or all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::world::{Guard, World};
use crate::support::dice::Dice;
use crate::support::layer::Tree;
use crate::support::layer::faults::{Call, Fault, Harm, Times};
use crate::support::script::{Excuse, Run, prepare};
use crate::support::{REPO, Sandbox, can_mount, skip_unless};

/// Runs of the short form, of each test.
const SHORT: usize = 5;

/// Where the script's calls can fail.
type Places = BTreeMap<(Call, PathBuf), u64>;

/// A state with a repository, for the sandbox that it was made in, and a script's calls on it.
fn rehearsal() -> (Sandbox, Tree, Places) {
    let mut world = World::of(Sandbox::new(), Tree::new());
    prepare(&world.sandbox);
    let tree = world.layer().tree();
    world.mount();
    let faults = world.faults();
    faults.begin_trace();
    let mut run = Run::new(&mut world.sandbox, Excuse::Errnos(Vec::new()));
    assert!(run.script().is_ok());
    let mut places = Places::new();
    for (call, path) in faults.end_trace() {
        *places.entry((call, area(&path))).or_default() += 1;
    }
    (world.end(), tree, places)
}

/// The part of the state that a path is in: a directory of it, of a stage one below that.
fn area(path: &Path) -> PathBuf {
    let names = match path.starts_with("stage") {
        true => 3,
        false => 1,
    };
    let dir = path.parent().unwrap_or(path);
    dir.components().take(names).collect()
}

/// One fault, and what people see of it.
#[derive(Debug)]
struct Course {
    fault: Fault,
    errno: Errno,
}

impl Course {
    fn new(call: Call, below: &Path, after: u64, turn: u64) -> Self {
        let growing = Call::GROWING.contains(&call);
        let errno = match (growing, turn % 3) {
            (true, 0) => Errno::NOSPC,
            (true, 1) => Errno::DQUOT,
            _ => Errno::IO,
        };
        let times = match turn / 3 % 2 {
            0 => Times::UntilCleared,
            _ => Times::Once,
        };
        Self {
            fault: Fault {
                calls: vec![call],
                below: below.to_owned(),
                after,
                times,
                harm: Harm::Fails(errno),
            },
            errno,
        }
    }

    /// What a system call on the mount may say then. A quota below us is a full disk above.
    fn errnos(&self) -> Vec<i32> {
        let fit = match self.errno {
            Errno::DQUOT => vec![Errno::DQUOT, Errno::NOSPC],
            errno => vec![errno],
        };
        fit.into_iter().map(Errno::raw_os_error).collect()
    }

    /// Reads must go on.
    fn spares_reads(&self) -> bool {
        self.fault
            .calls
            .iter()
            .all(|call| Call::GROWING.contains(call))
    }
}

/// Runs the script with a fault.
fn run(sandbox: Sandbox, tree: &Tree, course: &Course) -> Sandbox {
    let context = format!("{course:?}");
    // named with whatever fails
    eprintln!("{context}");
    let mut world = World::of(sandbox, tree.clone());
    world.mount();
    let guard = Guard::over(&world);
    let faults = world.faults();
    faults.add(course.fault.clone());
    let mut run = Run::new(&mut world.sandbox, Excuse::Errnos(course.errnos()));
    let failed = run.script().is_err();
    if let Some((call, path)) = faults.last() {
        eprintln!(
            "  {} met, {call:?} {}; {}",
            faults.met(),
            path.display(),
            run.said.trim()
        );
    }
    if failed {
        status_answers(run.sandbox(), course.spares_reads());
        if course.spares_reads() {
            run.judge_tree(&context);
        }
    }
    faults.clear();
    if failed {
        run.judge(&context);
        if course.fault.after % 2 == 1 {
            run.restart();
            run.judge(&context);
        }
    }
    run.finish(&context);
    drop(guard);
    world.end()
}

/// `status` answers; where its own reads fail, it says at least which.
fn status_answers(sandbox: &Sandbox, reads: bool) {
    let output = sandbox.run(["status", REPO]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if reads || output.status.success() {
        assert!(output.status.success(), "{said}");
        return;
    }
    let state = sandbox.state().display().to_string();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&state) && said.contains("Input/output"),
        "{said}"
    );
}

/// All places, each with all its passages, or `some` of them by turns.
fn courses(places: &Places, some: Option<usize>, dice: &mut Dice) -> Vec<Course> {
    let mut all = Vec::new();
    match some {
        None => {
            for ((call, below), calls) in places {
                all.extend((0..*calls).map(|after| (*call, below, after)));
            }
        }
        Some(some) => {
            let first = dice.next(places.len() as u64) as usize;
            // a step that shares no factor with most numbers, so that neighbours differ
            let by_turns = places.iter().cycle().skip(first).step_by(7);
            all.extend(
                by_turns
                    .take(some)
                    .map(|((call, below), calls)| (*call, below, dice.next(*calls))),
            );
        }
    }
    let turns = all.into_iter().zip(dice.next(6)..);
    turns
        .map(|((call, below, after), turn)| Course::new(call, below, after, turn))
        .collect()
}

fn sweep(wanted: impl Fn(Call) -> bool) {
    if skip_unless(can_mount(), "/dev/fuse")
        || skip_unless(cfg!(feature = "failpoints"), "the feature failpoints")
    {
        return;
    }
    let some = match std::env::var("PREPUB_FAULTS").as_deref() {
        Ok("all") => None,
        Ok(some) => Some(some.parse().unwrap()),
        Err(_) => Some(SHORT),
    };
    let seed = std::env::var("PREPUB_SEED").ok();
    let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let (mut sandbox, tree, mut places) = rehearsal();
    places.retain(|(call, _), _| wanted(*call));
    for course in courses(&places, some, &mut Dice(seed.max(1))) {
        sandbox = run(sandbox, &tree, &course);
    }
}

#[test]
fn calls_that_take_room() {
    sweep(|call| Call::GROWING.contains(&call));
}

#[test]
fn calls_that_read_or_remove() {
    sweep(|call| !Call::GROWING.contains(&call));
}
