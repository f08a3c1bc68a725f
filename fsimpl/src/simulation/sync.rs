//! What stands in the place of `crate::sync`: the same names, by a schedule.
//!
//! Threads are coroutines on one thread of the system, and each operation on a lock, an atomic or a
//! channel is a point at which the scheduler may go on with another. Time passes only when the
//! [`time`] keeper is scheduled. Nothing here may wait by the system's means.

pub(crate) mod channel;
mod lock;
pub(crate) mod time;
mod wait;

pub(crate) use lock::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use time::Instant;
pub(crate) use wait::Condvar;

pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

pub(crate) mod thread {
    use std::io;
    use std::num::NonZeroUsize;

    pub(crate) use super::time::sleep;
    pub(crate) use shuttle::thread::{Builder, JoinHandle, current, scope, spawn};

    /// Enough for two workers to meet.
    #[allow(clippy::unnecessary_wraps, reason = "as the library has it")]
    pub(crate) fn available_parallelism() -> io::Result<NonZeroUsize> {
        Ok(NonZeroUsize::MIN.saturating_add(1))
    }
}
