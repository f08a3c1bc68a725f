//! Channels with the face of `crossbeam_channel`'s, as far as this crate uses it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Condvar, Instant, Mutex};

struct State<T> {
    queue: VecDeque<T>,
    senders: usize,
    receiver: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

pub(crate) struct Sender<T>(Arc<Shared<T>>);

pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// Nothing comes any more, or nothing came in time.
#[derive(Debug)]
pub(crate) struct Nothing;

/// Nobody receives.
#[derive(Debug)]
pub(crate) struct Nobody;

pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::new(),
            senders: 1,
            receiver: true,
        }),
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// Only for channels on which nothing is ever sent: nobody waits for room here.
pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    assert_eq!(room, 0, "a channel with room is not simulated");
    unbounded()
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, value: T) -> Result<(), Nobody> {
        let mut state = self.0.state.lock();
        if !state.receiver {
            return Err(Nobody);
        }
        state.queue.push_back(value);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Receiver<T> {
    fn wait(&self, until: Option<Instant>) -> Result<T, Nothing> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(value) = state.queue.pop_front() {
                return Ok(value);
            }
            if state.senders == 0 {
                return Err(Nothing);
            }
            match until {
                None => self.0.changed.wait(&mut state),
                Some(until) => {
                    if self.0.changed.wait_until(&mut state, until).timed_out() {
                        return state.queue.pop_front().ok_or(Nothing);
                    }
                }
            }
        }
    }

    pub(crate) fn recv(&self) -> Result<T, Nothing> {
        self.wait(None)
    }

    pub(crate) fn recv_timeout(&self, time: Duration) -> Result<T, Nothing> {
        self.wait(Some(Instant::now() + time))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.receiver = false;
        let unread = std::mem::take(&mut state.queue);
        drop(state);
        drop(unread);
    }
}

/// What comes until nothing comes any more.
pub(crate) struct Coming<R>(R);

impl<T> Iterator for Coming<&Receiver<T>> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> Iterator for Coming<Receiver<T>> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'r, T> IntoIterator for &'r Receiver<T> {
    type Item = T;
    type IntoIter = Coming<&'r Receiver<T>>;

    fn into_iter(self) -> Self::IntoIter {
        Coming(self)
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = Coming<Self>;

    fn into_iter(self) -> Self::IntoIter {
        Coming(self)
    }
}
