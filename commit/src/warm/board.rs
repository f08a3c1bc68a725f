//! What all sites' threads have in common: the pushes, the broker, and how they hear of one another.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use formats::warm::identity::NodeName;

use super::broker::Link;
use super::push::Push;

/// What time it is.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// See the module's head.
pub(super) struct Board {
    pushes: Mutex<BTreeMap<String, Arc<Push>>>,
    changes: Mutex<u64>,
    changed: Condvar,
    clock: Clock,
    pub(super) link: Mutex<Option<Arc<Link>>>,
}

impl Board {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            pushes: Mutex::default(),
            changes: Mutex::default(),
            changed: Condvar::new(),
            clock,
            link: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The broker, if there is one.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    pub(super) fn pushes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Push>>> {
        lock(&self.pushes)
    }

    /// Something changed.
    pub(super) fn tell(&self) {
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    /// Waits for a change after `seen`, at most so long, and says which the last one was.
    pub(super) fn wait(&self, seen: u64, most: Duration) -> u64 {
        let changes = lock(&self.changes);
        let waited = self
            .changed
            .wait_timeout_while(changes, most, |now| *now == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Those of a commit, by name.
    pub(super) fn of_commit(&self, commit: &str) -> Vec<Arc<Push>> {
        let pushes = self.pushes();
        let own = pushes.values().filter(|push| push.commit() == commit);
        own.cloned().collect()
    }

    /// A site has everything of a push.
    pub(super) fn has_all(&self, push: &Push, site: &NodeName) {
        if let Some(progress) = push.state().sites.get_mut(site) {
            progress.took = Some(progress.since.elapsed());
            progress.missing = Some((0, 0));
            progress.trouble = None;
        }
        self.tell();
    }

    /// A site is through with a push, or need not hear of it again.
    pub(super) fn knows_end(&self, push: &Push, site: &NodeName) {
        let is_over = {
            let mut state = push.state();
            state.sites.remove(site);
            state.sites.is_empty() && !state.is_live()
        };
        let kept = match is_over {
            true => {
                self.pushes().remove(&push.txn);
                push.remove()
            }
            false => push.record(),
        };
        if let Err(error) = kept {
            // the site is told once more, after a restart
            tracing::warn!(txn = push.txn, %error, "cannot record what a site knows");
        }
        self.tell();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // every change is a single one, so what a panic leaves is whole
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
