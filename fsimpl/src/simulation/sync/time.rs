//! Time, which passes by the schedule.
//!
//! The keeper is a task of its own: whenever it is scheduled, it is as late as the next sleeper
//! waits for, who is woken. The scheduler runs it when nobody else can run, and now and then before
//! that, so that time-outs also pass early. Whoever looks at the clock makes it go on a little. When nobody sleeps it waits, too: threads that wait for
//! one another for ever are then seen to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::thread::JoinHandle;

/// After so long, what somebody waits for comes no more: no promise takes nearly as long.
const TOO_LONG: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a look at the clock takes.
const LOOK: Duration = Duration::from_micros(1);

/// Since the run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        TIME.with_borrow_mut(|time| {
            time.now += LOOK;
            Self(time.now)
        })
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now() - self
    }

    pub(crate) fn checked_add(self, more: Duration) -> Option<Self> {
        self.0.checked_add(more).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0 + more)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, less: Duration) -> Self {
        Self(self.0 - less)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Somebody who waits, for another or for a time.
pub(super) struct Sleeper {
    woken: BatchSemaphore,
    how: std::sync::Mutex<Option<Woken>>,
}

/// By what a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    BySomebody,
    ByTime,
}

impl Sleeper {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            woken: BatchSemaphore::new(0, Fairness::StrictlyFair),
            how: std::sync::Mutex::new(None),
        })
    }

    /// False if it was woken before.
    pub(super) fn wake(&self, how: Woken) -> bool {
        let first = self.how.lock().unwrap().replace(how).is_none();
        assert!(first, "whoever wakes a sleeper has taken it from its list");
        self.woken.release(1);
        first
    }

    pub(super) fn sleep(&self) -> Woken {
        // it is never closed
        let _ = self.woken.acquire_blocking(1);
        self.how.lock().unwrap().expect("woken by something")
    }
}

type Place = (Duration, u64);

#[derive(Default)]
struct Time {
    now: Duration,
    next: u64,
    sleepers: BTreeMap<Place, Box<dyn FnOnce()>>,
    /// The keeper, where it waits for a sleeper.
    idle: Option<Arc<BatchSemaphore>>,
    ended: bool,
}

thread_local! {
    /// Of the run on this thread of the system: there is one at a time.
    static TIME: RefCell<Time> = RefCell::default();
}

fn ring(bell: Option<Arc<BatchSemaphore>>) {
    if let Some(bell) = bell {
        bell.release(1);
    }
}

/// Does `what` when it is so late; [`call_off`] with the result ends that.
pub(super) fn at(when: Instant, what: impl FnOnce() + 'static) -> Place {
    let (place, bell) = TIME.with_borrow_mut(|time| {
        time.next += 1;
        let place = (when.0, time.next);
        time.sleepers.insert(place, Box::new(what));
        (place, time.idle.take())
    });
    ring(bell);
    place
}

/// Nobody waits for that any more.
pub(super) fn call_off(place: Place) {
    TIME.with_borrow_mut(|time| time.sleepers.remove(&place));
}

/// How long the next sleeper still waits.
pub(crate) fn left() -> Option<Duration> {
    TIME.with_borrow(|time| {
        let ((when, _), _) = time.sleepers.first_key_value()?;
        Some(when.saturating_sub(time.now))
    })
}

pub(crate) fn sleep(time: Duration) {
    let sleeper = Sleeper::new();
    let woken = Arc::clone(&sleeper);
    at(Instant::now() + time, move || {
        woken.wake(Woken::ByTime);
    });
    sleeper.sleep();
}

/// The keeper: the first task that a run starts (`schedule::KEEPER`).
pub(crate) struct Keeper(JoinHandle<()>);

impl Keeper {
    pub(crate) fn start() -> Self {
        TIME.set(Time::default());
        let thread = shuttle::thread::spawn(keep);
        assert_eq!(
            usize::from(thread.thread().id()),
            crate::simulation::schedule::KEEPER
        );
        Self(thread)
    }

    /// At the end of a run, when nobody sleeps any more.
    pub(crate) fn stop(self) {
        let bell = TIME.with_borrow_mut(|time| {
            time.ended = true;
            time.idle.take()
        });
        ring(bell);
        self.0.join().expect("the keeper does not fail");
    }
}

fn keep() {
    loop {
        // here it is up to the scheduler whether time passes
        shuttle::thread::yield_now();
        let due = TIME.with_borrow_mut(|time| {
            let first = time.sleepers.pop_first();
            if let Some(((when, _), _)) = &first {
                time.now = time.now.max(*when);
                assert!(
                    time.now < TOO_LONG,
                    "somebody waits for what does not come: {TOO_LONG:?} have passed"
                );
            }
            first
        });
        match due {
            Some((_, wake)) => wake(),
            None => {
                let bell = TIME.with_borrow_mut(|time| {
                    let bell = Arc::new(BatchSemaphore::new(0, Fairness::StrictlyFair));
                    (!time.ended).then(|| Arc::clone(time.idle.insert(bell)))
                });
                match bell {
                    Some(bell) => drop(bell.acquire_blocking(1)),
                    None => return,
                }
            }
        }
    }
}
