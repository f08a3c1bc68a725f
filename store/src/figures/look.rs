//! Looking at what may not answer: a disk that hangs must not take a page of figures along.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

/// A look at a large stage takes its time: this part of it at most is spent looking.
const SHARE: u32 = 10;

/// A disk that is merely busy has answered by then.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// A look that is repeated: each on a thread of its own, never two at a time.
#[derive(Debug)]
pub struct Look<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    last: Mutex<Option<Last<T>>>,
    /// Since when one has been under way.
    under_way: watch::Sender<Option<Instant>>,
}

#[derive(Debug)]
struct Last<T> {
    saw: T,
    ended: Instant,
    took: Duration,
}

/// What a look has seen.
#[derive(Clone, Debug)]
pub struct Seen<T> {
    /// What the last one that ended saw.
    pub last: Option<T>,
    /// For how long one has been under way, if one is.
    pub under_way: Option<Duration>,
}

impl<T> Seen<T> {
    /// What is looked at answers, sooner or later.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.under_way.is_none_or(|lasts| lasts < SILENT_AFTER)
    }
}

impl<T> Default for Look<T> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            last: Mutex::new(None),
            under_way: watch::Sender::new(None),
        }))
    }
}

/// Ends a look, however it ends.
struct Ending<T>(Arc<Inner<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.under_way.send_replace(None);
    }
}

impl<T: Clone + Send + 'static> Look<T> {
    /// Looks anew, unless a look is under way, or the last one took so long that it may rest. Never
    /// waits.
    pub fn begin(&self, look: impl FnOnce() -> T + Send + 'static) {
        if let Some(last) = &*self.0.last.lock()
            && last.ended.elapsed() < last.took * SHARE
        {
            return;
        }
        let begins = |under_way: &mut Option<Instant>| {
            let is_idle = under_way.is_none();
            under_way.get_or_insert_with(Instant::now);
            is_idle
        };
        if !self.0.under_way.send_if_modified(begins) {
            return;
        }
        let ending = Ending(Arc::clone(&self.0));
        let thread = std::thread::Builder::new().name("look".into());
        let started = thread.spawn(move || {
            let begun = Instant::now();
            let saw = look();
            let last = Last {
                saw,
                ended: Instant::now(),
                took: begun.elapsed(),
            };
            *ending.0.last.lock() = Some(last);
        });
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a thread for a look");
        }
    }

    /// Returns when no look is under way.
    pub async fn ended(&self) {
        let mut under_way = self.0.under_way.subscribe();
        // the sender is ours, and so it is there
        let _ = under_way.wait_for(Option::is_none).await;
    }

    /// What was seen.
    #[must_use]
    pub fn seen(&self) -> Seen<T> {
        Seen {
            last: self.0.last.lock().as_ref().map(|last| last.saw.clone()),
            under_way: self.0.under_way.borrow().map(|since| since.elapsed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_known_by_what_it_was() {
        let look = Look::default();
        assert!(look.seen().last.is_none());
        look.begin(|| 1);
        look.ended().await;
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        // the first may rest for as long as it took some times
        while look.seen().under_way.is_none() {
            let gate = Arc::clone(&gate);
            look.begin(move || gate.lock().recv().map_or(0, |()| 2));
        }
        // none beside one that hangs
        look.begin(|| 3);
        let seen = look.seen();
        assert!(seen.last == Some(1) && seen.under_way.is_some());
        go.send(()).unwrap();
        look.ended().await;
        let seen = look.seen();
        assert!(seen.last == Some(2) && seen.under_way.is_none());
    }

    #[test]
    fn busy_is_not_silent() {
        let seen = |under_way| Seen {
            last: Some(()),
            under_way,
        };
        assert!(seen(None).answers() && seen(Some(SILENT_AFTER / 2)).answers());
        assert!(!seen(Some(SILENT_AFTER * 2)).answers());
    }

    #[tokio::test]
    async fn one_that_panics_has_ended() {
        let look = Look::<u32>::default();
        look.begin(|| panic!("as a test wants it"));
        look.ended().await;
        assert!(look.seen().under_way.is_none() && look.seen().last.is_none());
    }
}
