//! What goes wrong on demand. Each fault is for one request, the next of its kind.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Lease,
    Payload,
    Commit,
    Drop,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed; nothing was done.
    Cut,
    /// All is done; the connection is closed instead of an answer.
    LostReply,
    /// Nothing happens until [`Faults::release`]; then all is done.
    Stall,
    /// The receiver crashes before it has done anything lasting. Payload and commit.
    Crash,
    /// The receiver crashes with the new manifest in place. Commit.
    CrashAfter,
    /// The storage is full. Of a payload the first object is kept whole, the second by half, of the
    /// rest nothing but their names, as an official receiver did; a commit fails before it begins.
    Full,
}

/// Faults to come.
#[derive(Default)]
pub struct Faults {
    queue: Mutex<VecDeque<(At, Fault)>>,
    stalled: Mutex<Stalled>,
    changed: Condvar,
}

#[derive(Default)]
struct Stalled {
    waiting: usize,
    released: u64,
}

impl Faults {
    /// Something for the next request of a kind; several for one kind are for one request each.
    pub fn add(&self, at: At, fault: Fault) {
        use Fault::{Crash, CrashAfter, Full};
        let is_possible = match fault {
            CrashAfter => at == At::Commit,
            Crash | Full => matches!(at, At::Payload | At::Commit),
            _ => true,
        };
        assert!(is_possible, "no {fault:?} at a {at:?}");
        self.queue.lock().push_back((at, fault));
    }

    pub(super) fn take(&self, at: At) -> Option<Fault> {
        let mut queue = self.queue.lock();
        let first = queue.iter().position(|(due, _)| *due == at)?;
        queue.remove(first).map(|(_, fault)| fault)
    }

    pub(super) fn stall(&self) {
        let mut stalled = self.stalled.lock();
        let before = stalled.released;
        stalled.waiting += 1;
        self.changed.notify_all();
        self.changed
            .wait_while(&mut stalled, |stalled| stalled.released == before);
        stalled.waiting -= 1;
    }

    /// Returns once a request stands still.
    pub fn await_stall(&self) {
        let mut stalled = self.stalled.lock();
        self.changed
            .wait_while(&mut stalled, |stalled| stalled.waiting == 0);
    }

    /// Lets all go on that stand still.
    pub fn release(&self) {
        self.stalled.lock().released += 1;
        self.changed.notify_all();
    }
}
