//! One piece of work for all who want its result at the same time.
//!
//! The first to ask for a key does the work; whoever asks meanwhile waits and gets a clone of the
//! result. Nothing is remembered afterwards, so a failure is tried again by the next.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

#[derive(Debug)]
pub(crate) struct Flights<K, V>(Mutex<HashMap<K, Arc<Flight<V>>>>);

#[derive(Debug)]
struct Flight<V> {
    state: Mutex<State<V>>,
    landed: Condvar,
}

#[derive(Debug)]
enum State<V> {
    Flying,
    Landed(V),
    /// Whoever did the work unwound.
    Lost,
}

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Does `work`, or waits for who is doing it.
    pub fn run(&self, key: &K, work: impl FnOnce() -> V) -> V {
        let flight = loop {
            let mut flights = self.0.lock();
            let Some(flight) = flights.get(key).map(Arc::clone) else {
                let flight = Arc::new(Flight {
                    state: Mutex::new(State::Flying),
                    landed: Condvar::new(),
                });
                flights.insert(key.clone(), Arc::clone(&flight));
                break flight;
            };
            drop(flights);
            let mut state = flight.state.lock();
            flight
                .landed
                .wait_while(&mut state, |s| matches!(s, State::Flying));
            if let State::Landed(value) = &*state {
                return value.clone();
            }
        };
        let mut landing = Landing {
            flights: self,
            key,
            flight,
            value: None,
        };
        let value = work();
        landing.value = Some(value.clone());
        value
    }
}

/// Tells those who wait, even when the work unwinds.
struct Landing<'a, K: Hash + Eq, V> {
    flights: &'a Flights<K, V>,
    key: &'a K,
    flight: Arc<Flight<V>>,
    value: Option<V>,
}

impl<K: Hash + Eq, V> Drop for Landing<'_, K, V> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(self.key);
        *self.flight.state.lock() = match self.value.take() {
            Some(value) => State::Landed(value),
            None => State::Lost,
        };
        self.flight.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_ask_one_works() {
        let flights = Flights::new();
        let (calls, start) = (AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let got = flights.run(&"key", || {
                        calls.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(100));
                        17
                    });
                    assert_eq!(got, 17);
                });
            }
        });
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_strands_nobody() {
        let flights: Flights<u8, u8> = Flights::new();
        let (entered, start) = (Barrier::new(2), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                flights.run(&1, || {
                    entered.wait();
                    while start.load(Ordering::SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                    panic!("wanted");
                })
            });
            entered.wait();
            let second = scope.spawn(|| flights.run(&1, || 5));
            start.store(1, Ordering::SeqCst);
            assert!(first.join().is_err());
            assert_eq!(second.join().unwrap(), 5);
        });
    }
}
