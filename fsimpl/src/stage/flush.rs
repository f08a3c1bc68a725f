//! Writing sealed objects out while others are still staged, so that a commit finds little left to
//! sync, and a power loss little to seal again.
//!
//! One thread for each stage. What it does is [`Stage::sync_sealed`] and no more: nothing waits for
//! it, and nothing would be wrong without it.

use std::sync::Arc;
use std::time::Duration;

use super::Stage;
use crate::error::FsError;
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Instant, Mutex, thread};

/// So many bytes, raw and sealed, are written out at once: a disk's work for well under a second.
const BYTES_AT_ONCE: u64 = 64 << 20;
/// How long fewer wait, if nobody says otherwise. The kernel would take 30 s, and a commit seldom
/// comes sooner than this.
pub const FLUSH_AFTER: Duration = Duration::from_secs(2);
/// What a file costs beside its bytes: the rest of two blocks, and its names.
const BYTES_OF_FILE: u64 = 8 << 10;

#[derive(Default)]
struct State {
    /// Written since the last time, about.
    bytes: u64,
    stopped: bool,
    /// The system reports a loss once only; it is kept for whoever must not overlook it.
    failed: Option<FsError>,
}

struct Shared {
    after: Duration,
    state: Mutex<State>,
    wake: Condvar,
}

/// See the module's head.
pub(super) struct Flush {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flush {
    /// What is less than [`BYTES_AT_ONCE`] waits so long.
    pub(super) fn new(after: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                after,
                state: Mutex::default(),
                wake: Condvar::new(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// Starts the thread for a stage.
    pub(super) fn start(&self, stage: &Arc<Stage>) -> std::io::Result<()> {
        let weak = Arc::downgrade(stage);
        self.start_with(stage.repository_name(), move || {
            weak.upgrade().map(|stage| stage.flush_sealed())
        })
    }

    /// The thread ends where `write_out` has nothing to write any more.
    fn start_with(
        &self,
        name: &str,
        write_out: impl Fn() -> Option<Result<(), FsError>> + Send + 'static,
    ) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let repository = name.to_owned();
        let run = move || {
            while shared.wait() {
                match write_out() {
                    None => return,
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::warn!(%repository, %error, "sealed objects could not be written out");
                        shared.state.lock().failed.get_or_insert(error);
                    }
                }
            }
        };
        let thread = thread::Builder::new().name(format!("flush {name}"));
        *self.thread.lock() = Some(thread.spawn(run)?);
        Ok(())
    }

    /// Ends the thread, after what it may be writing out.
    pub(super) fn stop(&self) {
        self.shared.state.lock().stopped = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }

    /// A file of so many bytes was sealed.
    pub(super) fn sealed(&self, bytes: u64) {
        let mut state = self.shared.state.lock();
        let before = state.bytes;
        state.bytes += bytes + BYTES_OF_FILE;
        if before == 0 || before < BYTES_AT_ONCE && state.bytes >= BYTES_AT_ONCE {
            self.shared.wake.notify_one();
        }
    }

    /// What went wrong since this was last asked.
    pub(super) fn take_failure(&self) -> Option<FsError> {
        self.shared.state.lock().failed.take()
    }
}

impl Shared {
    /// Returns when there is something to write out; false if nothing will be any more.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.bytes == 0 && !state.stopped {
            self.wake.wait(&mut state);
        }
        let latest = Instant::now() + self.after;
        while state.bytes < BYTES_AT_ONCE && !state.stopped {
            if self.wake.wait_until(&mut state, latest).timed_out() {
                break;
            }
        }
        state.bytes = 0;
        !state.stopped
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    #[test]
    fn many_bytes_are_written_out_at_once_and_few_after_a_while() {
        for (after, bytes) in [(NEVER, BYTES_AT_ONCE), (Duration::ZERO, 1)] {
            let (told, hears) = channel();
            let flush = Flush::new(after);
            let tell = move || Some(told.send(()).map_err(|_| unreachable!()));
            flush.start_with("a", tell).unwrap();
            flush.sealed(bytes);
            hears.recv().unwrap();
            flush.stop();
        }
    }

    #[test]
    fn few_bytes_wait_and_are_left_to_whoever_stops() {
        let (told, hears) = channel();
        let flush = Flush::new(NEVER);
        let tell = move || Some(told.send(()).map_err(|_| unreachable!()));
        flush.start_with("a", tell).unwrap();
        flush.sealed(1);
        flush.stop();
        assert!(hears.recv().is_err());
    }

    /// The system reports a lost write to one caller alone: if that is nobody but this thread, a
    /// commit would go on with objects that are not there.
    #[test]
    fn a_failure_is_kept_for_whoever_asks() {
        let flush = Flush::new(Duration::ZERO);
        let fail = || {
            Some(Err(FsError::Backing {
                path: "objects".into(),
                source: std::io::Error::other("lost"),
            }))
        };
        flush.start_with("a", fail).unwrap();
        flush.sealed(1);
        let failure = loop {
            if let Some(failure) = flush.take_failure() {
                break failure;
            }
            std::thread::yield_now();
        };
        assert!(matches!(failure, FsError::Backing { .. }));
        flush.stop();
        assert!(flush.take_failure().is_none());
    }
}
