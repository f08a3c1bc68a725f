//! Looking at what may not answer: a storage or a disk that hangs must not take `status` along.
//!
//! A look has a thread of its own. It is waited for only so long; while it hangs, others that ask
//! for the same wait as long and start no thread more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a look may take: a busy disk answers sooner, and the caller of `status` is still there.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Default)]
struct UnderWay {
    names: Mutex<BTreeSet<String>>,
    ended: Condvar,
}

/// The looks that are under way, by name.
#[derive(Default)]
pub(super) struct Looks(Arc<UnderWay>);

/// Ends a look, however it ends.
struct Ending(Arc<UnderWay>, String);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.names.lock().remove(&self.1);
        self.0.ended.notify_all();
    }
}

impl Looks {
    /// What `look` returns, or nothing if that takes too long.
    pub(super) fn within_patience<T: Send + 'static>(
        &self,
        name: String,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        {
            let mut names = self.0.names.lock();
            while names.contains(&name) {
                if self.0.ended.wait_until(&mut names, deadline).timed_out() {
                    return None;
                }
            }
            names.insert(name.clone());
        }
        let ending = Ending(Arc::clone(&self.0), name);
        let (to, from) = std::sync::mpsc::sync_channel(1);
        let started = std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(move || {
                let _ending = ending;
                // whoever asked may have lost patience
                let _ = to.send(look());
            });
        match started {
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot start a thread for a look"),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        from.recv_timeout(left).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_look_that_hangs_is_told_and_started_once() {
        let looks = Looks::default();
        let (go, gate) = mpsc::channel::<()>();
        let hangs = move || gate.recv().is_ok();
        assert_eq!(looks.within_patience("a".to_owned(), hangs), None);
        // nobody else gets through to it; others are no worse for it
        assert_eq!(looks.within_patience("a".to_owned(), || true), None);
        assert_eq!(looks.within_patience("b".to_owned(), || true), Some(true));
        go.send(()).unwrap();
        assert_eq!(looks.within_patience("a".to_owned(), || true), Some(true));
    }
}
