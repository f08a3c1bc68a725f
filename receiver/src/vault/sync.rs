//! One sync of a filesystem for all who need one at the moment.

use parking_lot::{Condvar, Mutex};
use store::{ObjectStore, Result};

/// Lets several bundles that are ready together share a sync: one that begins after all of them were
/// written does for each.
#[derive(Debug, Default)]
pub(super) struct Syncer {
    state: Mutex<State>,
    turned: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Syncs that were begun.
    begun: u64,
    running: bool,
    /// The last sync that ended well; one that failed says so to whoever ran it, and others run theirs.
    done: u64,
}

impl Syncer {
    /// Returns once everything that was written before is durable.
    pub(super) fn sync(&self, store: &dyn ObjectStore) -> Result<()> {
        let mut state = self.state.lock();
        // the next one to begin sees what was written by now; one that runs may not
        let wanted = state.begun + 1;
        loop {
            if state.done >= wanted {
                return Ok(());
            }
            if !state.running {
                break;
            }
            self.turned.wait(&mut state);
        }
        state.running = true;
        state.begun += 1;
        let this = state.begun;
        drop(state);
        let synced = store.sync();
        let mut state = self.state.lock();
        state.running = false;
        if synced.is_ok() {
            state.done = state.done.max(this);
        }
        self.turned.notify_all();
        synced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn everybody_comes_out() {
        let syncer = Arc::new(Syncer::default());
        let store = store::MemoryStore::new();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| syncer.sync(&store).unwrap());
            }
        });
        let state = syncer.state.lock();
        assert!((1..=16).contains(&state.done) && state.begun == state.done);
    }
}
