//! The turn of a repository: one snapshot is made at a time.
//!
//! Whoever merely waits for files to be closed passes it on to those who have something to do: a
//! commit of one path is not held up by a writer below another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

/// See the module's head.
#[derive(Default)]
pub struct Turn {
    lock: Mutex<()>,
    waiting: AtomicUsize,
}

/// Held while it is one's turn.
pub type Taken<'t> = MutexGuard<'t, ()>;

impl Turn {
    /// Waits for the turn, for so long.
    pub fn take(&self, within: Duration) -> Option<Taken<'_>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let taken = self.lock.try_lock_for(within);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// True if somebody waits for it.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Lets the one who has waited longest have it.
    pub fn pass_on(taken: Taken<'_>) {
        MutexGuard::unlock_fair(taken);
    }
}
