//! Waiting for one another.
//!
//! As `parking_lot`'s: nobody wakes without a reason, so that a wake-up that is forgotten is seen,
//! and a time-out is told from a wake-up. Who of several is woken, the scheduler decides.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex as RealMutex};
use std::time::Duration;

use shuttle::rand::Rng as _;

use super::MutexGuard;
use super::time::{self, Instant, Sleeper, Woken};

/// See the module's head.
#[derive(Default)]
pub(crate) struct Condvar {
    /// Held for a moment only, in which nothing is scheduled.
    waiting: Arc<RealMutex<VecDeque<Arc<Sleeper>>>>,
}

/// How a wait with a time-out ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        let sleeper = self.join();
        guard.unlocked(|| sleeper.sleep());
    }

    pub(crate) fn wait_until<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        until: Instant,
    ) -> WaitTimeoutResult {
        let sleeper = self.join();
        let late = {
            let (waiting, sleeper) = (Arc::clone(&self.waiting), Arc::clone(&sleeper));
            move || {
                if leave(&waiting, &sleeper) {
                    sleeper.wake(Woken::ByTime);
                }
            }
        };
        let place = time::at(until, late);
        let woken = guard.unlocked(|| {
            let woken = sleeper.sleep();
            time::call_off(place);
            woken
        });
        WaitTimeoutResult(woken == Woken::ByTime)
    }

    pub(crate) fn wait_for<T: ?Sized>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        time: Duration,
    ) -> WaitTimeoutResult {
        self.wait_until(guard, Instant::now() + time)
    }

    pub(crate) fn notify_one(&self) {
        let count = self.waiting.lock().unwrap().len();
        if count == 0 {
            return;
        }
        let which = if count == 1 {
            0
        } else {
            shuttle::rand::thread_rng().gen_range(0..count)
        };
        let sleeper = self.waiting.lock().unwrap().remove(which);
        if let Some(sleeper) = sleeper {
            sleeper.wake(Woken::BySomebody);
        }
    }

    pub(crate) fn notify_all(&self) {
        let all = std::mem::take(&mut *self.waiting.lock().unwrap());
        for sleeper in all {
            sleeper.wake(Woken::BySomebody);
        }
    }

    fn join(&self) -> Arc<Sleeper> {
        let sleeper = Sleeper::new();
        self.waiting.lock().unwrap().push_back(Arc::clone(&sleeper));
        sleeper
    }
}

/// False if somebody else has taken it from the list.
fn leave(waiting: &RealMutex<VecDeque<Arc<Sleeper>>>, sleeper: &Arc<Sleeper>) -> bool {
    let mut waiting = waiting.lock().unwrap();
    let at = waiting.iter().position(|other| Arc::ptr_eq(other, sleeper));
    at.and_then(|at| waiting.remove(at)).is_some()
}
