//! How much goes to one site at a time: so many bundles, the smallest missing set first, and so many
//! bytes a second.

use std::io::{self, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is read at a time where bytes are counted: a tenth of a second at 160 kB/s.
const PIECE_BYTES: usize = 16 << 10;

/// The connections to a site, shared by all that is on its way there.
#[derive(Debug)]
pub(super) struct Lanes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    last: u64,
    /// What is missing of the set that each belongs to, in bytes, and its number.
    waiting: Vec<(u64, u64)>,
}

/// One of them, until dropped.
#[derive(Debug)]
pub(super) struct Lane<'l>(&'l Lanes);

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.0.state().free += 1;
        self.0.changed.notify_all();
    }
}

impl Lanes {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                free: lanes.max(1),
                last: 0,
                waiting: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is a single one, so what a panic leaves is whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane, as soon as one is free and nobody waits whose set lacks less. None: `stop` says so.
    pub(super) fn enter(&self, missing: u64, stop: &dyn Fn() -> bool) -> Option<Lane<'_>> {
        /// How soon one that waits hears that it need not.
        const HEARING: Duration = Duration::from_millis(100);
        let mut state = self.state();
        state.last += 1;
        let own = (missing, state.last);
        state.waiting.push(own);
        let granted = loop {
            if stop() {
                break false;
            }
            if state.free > 0 && state.waiting.iter().min() == Some(&own) {
                state.free -= 1;
                break true;
            }
            let waited = self.changed.wait_timeout(state, HEARING);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting.retain(|one| *one != own);
        drop(state);
        self.changed.notify_all();
        granted.then_some(Lane(self))
    }
}

/// A limit of bytes a second, shared by a site's connections.
#[derive(Debug)]
pub(super) struct Pace {
    /// None: no limit.
    bytes_per_second: Option<u64>,
    /// Until when what was let through takes.
    taken_until: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second: bytes_per_second.map(|rate| rate.max(1)),
            taken_until: Mutex::new(None),
        }
    }

    /// How long to wait before so many more bytes go.
    fn reserve(&self, now: Instant, bytes: usize) -> Duration {
        let Some(rate) = self.bytes_per_second else {
            return Duration::ZERO;
        };
        let mut until = self
            .taken_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let begin = until.map_or(now, |until| until.max(now));
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        *until = Some(begin + takes);
        begin - now
    }

    /// The shortest time in which so many bytes can go.
    pub(super) fn least(&self, bytes: u64) -> Duration {
        let rate = self.bytes_per_second;
        rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate as f64)
        })
    }

    /// The same stream at that pace.
    pub(super) fn limit<R>(self: &std::sync::Arc<Self>, input: R) -> Paced<R> {
        Paced {
            input,
            pace: std::sync::Arc::clone(self),
        }
    }
}

/// A stream at a pace.
#[derive(Debug)]
pub(super) struct Paced<R> {
    input: R,
    pace: std::sync::Arc<Pace>,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pace.bytes_per_second.is_none() {
            return self.input.read(buffer);
        }
        let most = buffer.len().min(PIECE_BYTES);
        let read = self.input.read(&mut buffer[..most])?;
        let wait = self.pace.reserve(Instant::now(), read);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn bytes_take_their_time() {
        let pace = Pace::new(Some(1000));
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(pace.reserve(now, 1000), Duration::ZERO);
        assert_eq!(pace.reserve(now, 500), second);
        assert_eq!(pace.reserve(now, 0), second * 3 / 2);
        // time that was not used is not made up for
        assert_eq!(pace.reserve(now + second * 9, 1000), Duration::ZERO);
        assert_eq!(pace.reserve(now + second * 9, 1), second);
        assert_eq!(Pace::new(None).reserve(now, usize::MAX), Duration::ZERO);
        assert_eq!(pace.least(5000), second * 5);
    }

    #[test]
    fn the_smallest_set_goes_first() {
        let lanes = Lanes::new(1);
        let order = Mutex::new(Vec::new());
        let waiting = AtomicUsize::new(0);
        let first = lanes.enter(9, &|| false).unwrap();
        std::thread::scope(|scope| {
            for missing in [30, 10, 20] {
                let (lanes, order, waiting) = (&lanes, &order, &waiting);
                scope.spawn(move || {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    let _lane = lanes.enter(missing, &|| false).unwrap();
                    order.lock().unwrap().push(missing);
                });
            }
            while lanes.state().waiting.len() < 3 {
                std::thread::yield_now();
            }
            drop(first);
        });
        assert_eq!(*order.lock().unwrap(), [10, 20, 30]);
        assert_eq!(lanes.state().free, 1);
        assert!(lanes.enter(1, &|| true).is_none());
        assert!(lanes.state().waiting.is_empty());
    }
}
