//! Threads, locks, time-outs and channels: everything by which one thread waits for another.
//!
//! The rest of this crate takes them from here, so that a simulation can put its own in their place
//! (`simulation/sync.rs`) and run the same sources by a schedule. Nothing is added to what the
//! libraries do; what is missing here is added there, too.

pub(crate) use parking_lot::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
pub(crate) use std::time::Instant;

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

pub(crate) mod channel {
    pub(crate) use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
}

pub(crate) mod thread {
    pub(crate) use std::thread::{
        Builder, JoinHandle, available_parallelism, current, scope, sleep, spawn,
    };
}
