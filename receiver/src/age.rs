//! For how long nothing was heard of something, in time that this receiver saw pass.
//!
//! A machine's clock is wrong at times, and is set: forward, and everything looks a year old; back, and
//! what came yesterday is of tomorrow. Nothing may expire early for that. So an age is what the clock
//! says less what the clock jumped: how much further it moved between two looks than steady time did.
//! The time in which no receiver ran counts as such a jump, since nobody could be heard. Whatever is not
//! known makes things look younger than they are.
//!
//! ```text
//! STATE/clock.json    when it was looked last, and the jumps that something is older than
//! ```

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ledger::{LedgerError, replace};

/// A clock that moves by so much is adjusted, not set.
pub const ADJUSTED_SECONDS: u64 = 300;
/// Jumps that are remembered; more are taken together.
const JUMPS_MAX: usize = 32;
/// The file is a few hundred bytes.
const FILE: &str = "clock.json";

/// Tells the time.
#[derive(Clone)]
pub struct Clock {
    /// As the machine has it, in seconds since 1970.
    pub wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Seconds since some moment of this process, whatever the machine's clock does.
    pub steady: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Clock {
    /// The machine's time, in seconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.wall)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ages {
    path: PathBuf,
    clock: Clock,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    wall: u64,
    steady: u64,
    jumps: Vec<Jump>,
}

/// The clock moved on without time having passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Jump {
    /// What it says since.
    at: u64,
    /// By so many seconds.
    by: u64,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    looked: u64,
    jumps: Vec<Jump>,
}

impl Ages {
    /// Goes on where the last process looked, below `state`. Where that is not known, everything is as
    /// if it had come at this moment.
    #[must_use]
    pub fn open(state: &std::path::Path, clock: Clock) -> Self {
        let path = state.join(FILE);
        let (wall, steady) = (clock.now(), (clock.steady)());
        let kept = std::fs::read(&path).and_then(|bytes| {
            let kept: Kept = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
            Ok(kept)
        });
        let kept = kept.unwrap_or(Kept {
            looked: 0,
            jumps: Vec::new(),
        });
        let mut seen = Seen {
            wall,
            steady,
            jumps: kept.jumps,
        };
        seen.jumped(wall.saturating_sub(kept.looked));
        if kept.looked > wall.saturating_add(ADJUSTED_SECONDS) {
            seen.set_back(kept.looked - wall);
        }
        Self {
            path,
            clock,
            seen: Mutex::new(seen),
        }
    }

    /// Looks at both clocks; ages are those of this moment until it is done again. `oldest` is when the
    /// first of all things came whose age may be asked for.
    ///
    /// # Errors
    /// When that cannot be written down: then the ages hold for this process all the same.
    pub fn look(&self, oldest: Option<u64>) -> Result<(), LedgerError> {
        // one look at a time: the last one is what is written
        let mut seen = self.seen.lock();
        let (wall, steady) = (self.clock.now(), (self.clock.steady)());
        let passed = steady.saturating_sub(seen.steady);
        let expected = seen.wall.saturating_add(passed);
        (seen.wall, seen.steady) = (wall, steady);
        if let Some(by) = wall.checked_sub(expected.saturating_add(ADJUSTED_SECONDS)) {
            let by = by + ADJUSTED_SECONDS;
            seen.jumped(by);
            tracing::warn!("the clock was set forward by {by} s; nothing expires the sooner");
        } else if expected > wall.saturating_add(ADJUSTED_SECONDS) {
            seen.set_back(expected - wall);
            tracing::warn!("the clock was set back by {} s", expected - wall);
        }
        seen.jumps
            .retain(|jump| oldest.is_some_and(|oldest| oldest < jump.at));
        let kept = Kept {
            looked: wall,
            jumps: seen.jumps.clone(),
        };
        // text and numbers only: nothing that JSON has no form for
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        replace(&self.path, &text)
    }

    /// For how many seconds nothing was heard of what was heard of then, by the machine's clock.
    #[must_use]
    pub fn age(&self, since: u64) -> u64 {
        let seen = self.seen.lock();
        let later = seen.jumps.iter().filter(|jump| jump.at > since);
        let jumped = later.fold(0_u64, |sum, jump| sum.saturating_add(jump.by));
        seen.wall.saturating_sub(since).saturating_sub(jumped)
    }
}

impl Seen {
    fn jumped(&mut self, by: u64) {
        if by <= ADJUSTED_SECONDS {
            return;
        }
        self.jumps.push(Jump { at: self.wall, by });
        if self.jumps.len() > JUMPS_MAX {
            let first = self.jumps.remove(0);
            // the later moment: more things are then taken for younger
            self.jumps[0].by = self.jumps[0].by.saturating_add(first.by);
        }
    }

    /// The last jumps are undone, as far as that goes. What is left of one is of now: whatever came
    /// since it is of the future, and is noted anew.
    fn set_back(&mut self, mut by: u64) {
        while let Some(last) = self.jumps.last_mut().filter(|_| by > 0) {
            let undone = last.by.min(by);
            last.by -= undone;
            by -= undone;
            if last.by == 0 {
                self.jumps.pop();
            }
        }
        for jump in &mut self.jumps {
            jump.at = jump.at.min(self.wall);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const DAY: u64 = 86_400;

    struct Times(Arc<AtomicU64>, Arc<AtomicU64>);

    impl Times {
        fn at(wall: u64) -> Self {
            Self(Arc::new(wall.into()), Arc::default())
        }

        fn clock(&self) -> Clock {
            let of = |time: &Arc<AtomicU64>| {
                let time = Arc::clone(time);
                Arc::new(move || time.load(Ordering::SeqCst))
            };
            Clock {
                wall: of(&self.0),
                steady: of(&self.1),
            }
        }

        fn pass(&self, seconds: u64) {
            self.0.fetch_add(seconds, Ordering::SeqCst);
            self.1.fetch_add(seconds, Ordering::SeqCst);
        }
    }

    fn looked(ages: &Ages) {
        ages.look(Some(0)).unwrap();
    }

    #[test]
    fn time_that_passes_counts_and_a_clock_that_is_set_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let times = Times::at(100 * DAY);
        let ages = Ages::open(dir.path(), times.clock());
        let before = 100 * DAY;
        times.pass(2 * DAY);
        looked(&ages);
        assert_eq!(ages.age(before), 2 * DAY);
        times.0.fetch_add(1000 * DAY, Ordering::SeqCst);
        assert_eq!(ages.age(before), 2 * DAY, "until it is looked again");
        times.pass(DAY);
        looked(&ages);
        assert_eq!(ages.age(before), 3 * DAY);
        let after = 1103 * DAY;
        times.pass(DAY);
        looked(&ages);
        assert_eq!((ages.age(before), ages.age(after)), (4 * DAY, DAY));
        // set right again
        times.0.fetch_sub(1000 * DAY, Ordering::SeqCst);
        looked(&ages);
        assert_eq!(ages.age(after), 0);
        times.pass(DAY);
        looked(&ages);
        assert!(ages.age(before) <= 5 * DAY);
        // adjusted, not set
        times.0.fetch_add(ADJUSTED_SECONDS, Ordering::SeqCst);
        looked(&ages);
        assert_eq!(ages.age(105 * DAY), ADJUSTED_SECONDS);
    }

    #[test]
    fn a_restart_counts_no_time_and_forgets_none() {
        let dir = tempfile::tempdir().unwrap();
        let times = Times::at(100 * DAY);
        let before = 100 * DAY;
        let first = Ages::open(dir.path(), times.clock());
        times.pass(2 * DAY);
        looked(&first);
        drop(first);
        times.0.fetch_add(30 * DAY, Ordering::SeqCst);
        let again = Ages::open(dir.path(), times.clock());
        assert_eq!(again.age(before), 2 * DAY);
        times.pass(DAY);
        looked(&again);
        assert_eq!(again.age(before), 3 * DAY);
        // what is not known is young
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        let unknown = Ages::open(dir.path(), times.clock());
        assert_eq!(unknown.age(before), 0);
    }

    #[test]
    fn many_jumps_are_few_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let times = Times::at(100 * DAY);
        let ages = Ages::open(dir.path(), times.clock());
        for _ in 0..100 {
            times.0.fetch_add(DAY, Ordering::SeqCst);
            looked(&ages);
        }
        assert!(ages.seen.lock().jumps.len() <= JUMPS_MAX);
        assert_eq!(ages.age(100 * DAY), 0);
        ages.look(None).unwrap();
        assert!(ages.seen.lock().jumps.is_empty());
    }
}
