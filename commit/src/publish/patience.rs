//! Waiting for other publishers, and for other commits of this process; and hearing meanwhile that
//! nobody wants the commit any more.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::queue::Holding;
use super::{Commit, CommitError};
use crate::publisher::{Lease, PublisherError};

/// The pause before a busy lease is asked for again; it doubles up to the other one
/// [CVMFS `repository_transaction.cc`].
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(500);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How soon a commit that waits hears that it was called off.
const HEARING: Duration = Duration::from_millis(100);

/// A lease, since when it has been held, and what says so to commits beside this one.
pub(super) struct Leased<'c> {
    pub(super) lease: Box<dyn Lease + 'c>,
    pub(super) since: Instant,
    // dropped after the lease
    pub(super) _holding: Holding<'c>,
}

/// Pauses between attempts, until so much time has passed.
struct Waited {
    since: Instant,
    pause: Duration,
}

impl Default for Waited {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            pause: BUSY_PAUSE_MIN,
        }
    }
}

impl Waited {
    /// The next pause, if there is time for one.
    fn next(&mut self, most: Duration) -> Option<Duration> {
        let left = most.saturating_sub(self.since.elapsed());
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(BUSY_PAUSE_MAX);
        (!pause.is_zero()).then_some(pause)
    }
}

impl Commit<'_> {
    /// Has the publisher bring along what needs no lease on what changes.
    pub(super) fn deliver(&self) -> Result<(), CommitError> {
        let mut waited = Waited::default();
        loop {
            self.still_wanted()?;
            let holding = self.request.queue.hold();
            match self.publisher.deliver() {
                Err(PublisherError::Busy { .. }) if holding.has_company() => {
                    drop(holding);
                    let most = self.request.turn.max(self.request.patience);
                    self.rest(waited.next(most).ok_or_else(|| self.queued())?)?;
                }
                Err(busy @ PublisherError::Busy { .. }) => {
                    self.progress.busy();
                    let pause = waited.next(self.request.patience).ok_or(busy)?;
                    self.rest(pause)?;
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    /// A lease, as soon as other commits of this process are not in the way, and, for as long as the
    /// request says, other publishers.
    pub(super) fn lease(&self) -> Result<Leased<'_>, CommitError> {
        let begun = Instant::now();
        let mut waited = Waited::default();
        let mut place = self.request.queue.stand();
        loop {
            self.still_wanted()?;
            let has_turn = begun.elapsed() < self.request.turn;
            if !place.is_up(HEARING) {
                if !has_turn {
                    return Err(self.queued());
                }
                continue;
            }
            let since = Instant::now();
            match self.publisher.lease(&self.request.change_set, self.now()) {
                Err(PublisherError::Busy { .. }) if place.was_ours() && has_turn => {}
                Err(busy @ PublisherError::Busy { .. }) => {
                    self.progress.busy();
                    // others who wait for ours need not wait for theirs
                    drop(place);
                    let pause = waited.next(self.request.patience).ok_or(busy)?;
                    self.rest(pause)?;
                    place = self.request.queue.stand();
                }
                outcome => {
                    return Ok(Leased {
                        lease: outcome?,
                        since,
                        _holding: place.hold(),
                    });
                }
            }
        }
    }

    fn queued(&self) -> CommitError {
        CommitError::Publisher(PublisherError::Busy {
            repo: self.publisher.name().to_owned(),
            what: "other commits of this machine wait for its lease".to_owned(),
        })
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
