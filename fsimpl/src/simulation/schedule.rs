//! One seed, one schedule.
//!
//! By the seed it is chosen who runs at each point, in one of three ways, and how early time-outs
//! may pass. What a run draws by lot beside (`shuttle::rand`) comes from the same seed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use super::lot::Lot;
use super::sync::time::{self, Keeper};

/// Which task keeps the time: the first that is started after the run itself.
pub(crate) const KEEPER: usize = 1;
/// A run takes some ten thousand steps; one that takes so many goes round in a circle.
const STEPS_MAX: usize = 5_000_000;
/// How long a thread of a slow machine may take for what takes no time: time-outs that are not later
/// may pass early.
const SLOW: Duration = Duration::from_secs(60);
/// One in so many steps is the keeper's when the next sleeper's time has passed.
const LATE_ONE_IN: u64 = 4;
/// For each simulated thread: `SQLite` and the compressor are run on it.
const STACK_BYTES: usize = 512 << 10;

/// Who runs next.
enum Way {
    /// Any.
    Random,
    /// Mostly who ran before.
    Sticky,
    /// The one of the highest priority. At a few points, drawn by lot, the one that runs becomes the
    /// lowest (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
    /// Bugs", 2010); the points come about one in so many steps.
    Priorities { one_in: u64 },
}

struct Course {
    seed: u64,
    begun: bool,
    way: Way,
    /// One in so many steps is the keeper's although others can run; 0: none.
    early_one_in: u64,
    priorities: HashMap<usize, i64>,
    lowest: i64,
    /// Orders the run.
    order: Lot,
    /// What the run draws.
    data: Lot,
    /// Whom it chose at each step.
    trace: Arc<Mutex<DefaultHasher>>,
}

impl Course {
    fn new(seed: u64, trace: Arc<Mutex<DefaultHasher>>) -> Self {
        let mut order = Lot::new(seed);
        let way = match order.below(4) {
            0 => Way::Random,
            1 => Way::Sticky,
            n => Way::Priorities {
                one_in: [300, 5000][usize::try_from(n).unwrap() - 2],
            },
        };
        Self {
            seed,
            begun: false,
            way,
            early_one_in: [0, 0, 2000, 100][usize::try_from(order.below(4)).unwrap()],
            priorities: HashMap::new(),
            lowest: 0,
            data: Lot::new(order.draw()),
            order,
            trace,
        }
    }

    fn choose(&mut self, others: &[usize], current: Option<usize>, is_yielding: bool) -> usize {
        let any = |order: &mut Lot| others[order.index(others.len())];
        match self.way {
            Way::Random => any(&mut self.order),
            Way::Sticky => match current.filter(|task| others.contains(task)) {
                Some(task) if !is_yielding && self.order.below(16) > 0 => task,
                _ => any(&mut self.order),
            },
            Way::Priorities { one_in } => {
                for task in others {
                    let order = &mut self.order;
                    let drawn = || i64::try_from(order.below(1 << 40)).unwrap();
                    self.priorities.entry(*task).or_insert_with(drawn);
                }
                let change = self.order.below(one_in) == 0;
                if let Some(task) = current.filter(|_| change || is_yielding) {
                    self.lowest -= 1;
                    self.priorities.insert(task, self.lowest);
                }
                let highest = others.iter().max_by_key(|task| self.priorities[*task]);
                *highest.expect("somebody can run")
            }
        }
    }
}

impl Scheduler for Course {
    fn new_execution(&mut self) -> Option<Schedule> {
        let first = !std::mem::replace(&mut self.begun, true);
        first.then(|| Schedule::new(self.seed))
    }

    fn next_task(
        &mut self,
        runnable_tasks: &[&Task],
        current_task: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let runnable = runnable_tasks.iter().map(|task| usize::from(task.id()));
        let others: Vec<usize> = runnable.filter(|task| *task != KEEPER).collect();
        let keeper = others.len() < runnable_tasks.len();
        let one_in = match time::left() {
            Some(Duration::ZERO) => LATE_ONE_IN,
            Some(left) if left <= SLOW => self.early_one_in,
            _ => 0,
        };
        let early = one_in > 0 && self.order.below(one_in) == 0;
        let chosen = if others.is_empty() || keeper && early {
            KEEPER
        } else {
            self.choose(&others, current_task.map(usize::from), is_yielding)
        };
        chosen.hash(&mut *self.trace.lock().unwrap());
        Some(chosen.into())
    }

    fn next_u64(&mut self) -> u64 {
        self.data.draw()
    }
}

/// Runs `what` by the schedule of this seed; says what is the same for the same schedule alone.
///
/// # Errors
/// When it failed; why, was said where it happened.
pub(crate) fn run(seed: u64, what: fn(Lot)) -> std::thread::Result<u64> {
    let trace = Arc::new(Mutex::new(DefaultHasher::new()));
    let course = Course::new(seed, Arc::clone(&trace));
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    // the seed says it all
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    // what a run that failed leaves behind goes with the thread
    let run = std::thread::spawn(move || {
        Runner::new(course, config).run(move || {
            let keeper = Keeper::start();
            what(Lot::new(!seed));
            keeper.stop();
        })
    });
    run.join()?;
    let trace = trace.lock().expect("nobody failed with it held");
    Ok(trace.clone().finish())
}
