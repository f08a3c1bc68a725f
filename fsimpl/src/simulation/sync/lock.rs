//! Locks with the face of `parking_lot`'s.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex as RealMutex, PoisonError, TryLockError};

use shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
use shuttle::thread::ThreadId;

/// A lock. Whoever panics with it held has failed the run: nothing is poisoned.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(shuttle::sync::Mutex<T>);

/// Held until dropped, but for a wait ([`super::Condvar`]).
pub(crate) struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard {
            mutex: self,
            held: Some(self.take()),
        }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard {
            mutex: self,
            held: Some(held),
        })
    }

    fn take(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> MutexGuard<'_, T> {
    /// Lets go of the lock while `wait` waits.
    pub(super) fn unlocked<R>(&mut self, wait: impl FnOnce() -> R) -> R {
        self.held = None;
        let result = wait();
        self.held = Some(self.mutex.take());
        result
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("held but for a wait")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("held but for a wait")
    }
}

/// A lock that readers share. Whoever takes it twice has failed the run, readers included: a writer
/// between the two would block both.
pub(crate) struct RwLock<T: ?Sized> {
    gate: Gate,
    /// Never waited for: the gate has let its holder in.
    value: parking_lot::RwLock<T>,
}

/// Who may come in: readers take a permit each, a writer all.
struct Gate {
    permits: BatchSemaphore,
    holders: RealMutex<Vec<ThreadId>>,
}

/// More than there are threads.
const ALL: usize = 1000;

/// What a holder took of the gate.
struct Held<'a> {
    gate: &'a Gate,
    permits: usize,
}

impl Gate {
    fn take(&self, permits: usize) -> Held<'_> {
        let me = shuttle::thread::current().id();
        assert!(
            !self.holders.lock().unwrap().contains(&me),
            "a lock is taken by whoever holds it"
        );
        // it is never closed
        let _ = self.permits.acquire_blocking(permits);
        self.hold(me, permits)
    }

    fn try_take(&self, permits: usize) -> Option<Held<'_>> {
        self.permits.try_acquire(permits).ok()?;
        Some(self.hold(shuttle::thread::current().id(), permits))
    }

    fn hold(&self, me: ThreadId, permits: usize) -> Held<'_> {
        self.holders.lock().unwrap().push(me);
        Held {
            gate: self,
            permits,
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let me = shuttle::thread::current().id();
        let mut holders = self.gate.holders.lock().unwrap();
        if let Some(at) = holders.iter().position(|holder| *holder == me) {
            holders.swap_remove(at);
        }
        drop(holders);
        self.gate.permits.release(self.permits);
    }
}

/// Fields are dropped in their order: the value is free before the next one is let in.
pub(crate) struct RwLockReadGuard<'a, T: ?Sized> {
    value: parking_lot::RwLockReadGuard<'a, T>,
    _held: Held<'a>,
}

/// As [`RwLockReadGuard`].
pub(crate) struct RwLockWriteGuard<'a, T: ?Sized> {
    value: parking_lot::RwLockWriteGuard<'a, T>,
    held: Held<'a>,
}

const LET_IN: &str = "the gate has let it in";

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            gate: Gate {
                permits: BatchSemaphore::new(ALL, Fairness::Unfair),
                holders: RealMutex::default(),
            },
            value: parking_lot::RwLock::new(value),
        }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> RwLock<T> {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        let held = self.gate.take(1);
        RwLockReadGuard {
            value: self.value.try_read().expect(LET_IN),
            _held: held,
        }
    }

    pub(crate) fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let held = self.gate.try_take(1)?;
        Some(RwLockReadGuard {
            value: self.value.try_read().expect(LET_IN),
            _held: held,
        })
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        let held = self.gate.take(ALL);
        RwLockWriteGuard {
            value: self.value.try_write().expect(LET_IN),
            held,
        }
    }
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Lets readers in; no writer comes between.
    pub(crate) fn downgrade(guard: Self) -> RwLockReadGuard<'a, T> {
        let Self { value, mut held } = guard;
        let value = parking_lot::RwLockWriteGuard::downgrade(value);
        held.permits = 1;
        held.gate.permits.release(ALL - 1);
        RwLockReadGuard { value, _held: held }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
