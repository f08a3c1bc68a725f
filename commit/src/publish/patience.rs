//! Waiting for other publishers, and hearing meanwhile that nobody wants the commit any more.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Commit, CommitError};
use crate::publisher::{Lease, PublisherError};

/// The pause before a busy lease is asked for again; it doubles up to the other one
/// [CVMFS `repository_transaction.cc`].
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(500);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How soon a commit that waits hears that it was called off.
const HEARING: Duration = Duration::from_millis(100);

impl Commit<'_> {
    /// The lease, and since when it has been held.
    pub(super) fn lease(&self) -> Result<(Box<dyn Lease + '_>, Instant), CommitError> {
        self.patiently(|| {
            let leased = Instant::now();
            let lease = self.publisher.lease(&self.request.change_set, self.now())?;
            Ok((lease, leased))
        })
    }

    /// Tries again, for as long as the request says, while another publisher is at work.
    pub(super) fn patiently<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, PublisherError>,
    ) -> Result<T, CommitError> {
        let begun = Instant::now();
        let mut pause = BUSY_PAUSE_MIN;
        loop {
            let left = self.request.patience.saturating_sub(begun.elapsed());
            self.still_wanted()?;
            match attempt() {
                Err(PublisherError::Busy { .. }) if !left.is_zero() => {
                    self.rest(pause.min(left))?;
                    pause = (pause * 2).min(BUSY_PAUSE_MAX);
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    fn rest(&self, pause: Duration) -> Result<(), CommitError> {
        let begun = Instant::now();
        loop {
            self.still_wanted()?;
            let left = pause.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(HEARING));
        }
    }

    /// Ends a commit that was called off.
    pub(super) fn still_wanted(&self) -> Result<(), CommitError> {
        if self.request.called_off.load(Ordering::Relaxed) {
            return Err(CommitError::CalledOff {
                repo: self.publisher.name().to_owned(),
            });
        }
        Ok(())
    }
}
