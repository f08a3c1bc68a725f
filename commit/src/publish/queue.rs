//! Commits of one process that go on side by side and want the same lease.
//!
//! A lease that another commit of this process has is waited for, and not taken for another
//! publisher's work. Which leases exclude each other is the publisher's affair: whenever one of ours
//! has ended, it is asked again by all who wait, in the order in which they came.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A waiting commit asks again after this time, whatever has ended or not.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// See the module's head. One for each repository of a process.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    held: u64,
    /// How many leases have ended.
    ended: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    /// How many had ended, and when that was, when the publisher was last asked in vain.
    asked: Option<(u64, Instant)>,
}

impl State {
    /// True if it is this one's turn to ask.
    fn is_up(&self, ticket: u64) -> bool {
        let asked = |one: &Waiting| one.asked.is_some_and(|(ended, _)| ended == self.ended);
        let before = self.waiting.iter().take_while(|one| one.ticket != ticket);
        let own = self.waiting.iter().find(|one| one.ticket == ticket);
        let again = |one: &Waiting| one.asked.is_some_and(|(_, at)| at.elapsed() >= ASK_AGAIN);
        own.is_some_and(|own| !asked(own) || again(own)) && { before }.all(asked)
    }
}

/// A place in the queue.
pub(super) struct Place<'q> {
    queue: &'q Queue,
    ticket: u64,
    /// How many had ended before the publisher was asked.
    ended: u64,
}

/// Counts as one of ours that has a lease, until dropped.
pub(super) struct Holding<'q>(&'q Queue);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.held -= 1;
        state.ended += 1;
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.queue
            .state()
            .waiting
            .retain(|one| one.ticket != ticket);
        self.queue.changed.notify_all();
    }
}

impl Queue {
    /// A place behind all that wait.
    pub(super) fn stand(&self) -> Place<'_> {
        let mut state = self.state();
        state.last += 1;
        let ticket = state.last;
        let asked = None;
        state.waiting.push(Waiting { ticket, asked });
        Place {
            queue: self,
            ticket,
            ended: 0,
        }
    }

    /// Has a lease, or is about to, whoever else has one.
    pub(super) fn hold(&self) -> Holding<'_> {
        self.state().held += 1;
        Holding(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is a single one, so what a panic leaves is whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holding<'_> {
    /// True if others of ours have one, too.
    pub(super) fn has_company(&self) -> bool {
        self.0.state().held > 1
    }
}

impl<'q> Place<'q> {
    /// True if the publisher is to be asked now; else after a moment.
    pub(super) fn is_up(&mut self, moment: Duration) -> bool {
        let queue = self.queue;
        let mut state = queue.state();
        if !state.is_up(self.ticket) {
            let waited = queue.changed.wait_timeout(state, moment);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.ended = state.ended;
        state.is_up(self.ticket)
    }

    /// The publisher said that it is busy: true if that may be our own doing. It is asked again when
    /// that has ended.
    pub(super) fn was_ours(&mut self) -> bool {
        let mut state = self.queue.state();
        let ours = state.held > 0 || state.ended != self.ended;
        let asked = (self.ended, Instant::now());
        for own in &mut state.waiting {
            if own.ticket == self.ticket {
                own.asked = Some(asked);
            }
        }
        drop(state);
        self.queue.changed.notify_all();
        ours
    }

    /// It has its lease.
    pub(super) fn hold(self) -> Holding<'q> {
        self.queue.hold()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn in_the_order_of_asking() {
        let queue = Queue::default();
        let (mut first, mut second) = (queue.stand(), queue.stand());
        assert!(!second.is_up(NOW));
        assert!(first.is_up(NOW));
        assert!(!first.was_ours(), "nobody of ours has one");
        assert!(second.is_up(NOW));
        let holding = second.hold();
        let mut third = queue.stand();
        assert!(!first.is_up(NOW), "nothing has ended since it asked");
        // who was in vain holds up nobody
        assert!(third.is_up(NOW));
        assert!(third.was_ours());
        assert!(!third.is_up(NOW));
        drop(holding);
        assert!(!third.is_up(NOW), "the other one came first");
        assert!(first.is_up(NOW));
        let holding = first.hold();
        assert!(third.is_up(NOW));
        drop(holding);
        // it ended between the publisher's answer and the look
        assert!(third.was_ours());
        assert!(third.is_up(NOW));
        assert!(!third.was_ours(), "it is somebody else's");
    }
}
