//! How requests to a bucket are spread over time.
//!
//! A failure is followed by a pause that doubles, of which a random half is left out, so that many
//! clients do not come back together. A server that asks to be spared is spared by all threads at
//! once. Nothing here knows what a request is.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::backoff::{doubled, jittered};

/// The pause before the second attempt, and the longest; the official tool's [CVMFS `upload_s3.h`].
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The same where the server is overloaded and does not say for how long.
const THROTTLE_FIRST: Duration = Duration::from_millis(250);
const THROTTLE_MAX: Duration = Duration::from_secs(10);
/// A server that wants a longer pause is as good as down: whoever waits is told so by then.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The pause after so many failures of a request, the first being 0.
pub(super) fn backoff(failures: u32) -> Duration {
    jittered(doubled(BACKOFF_FIRST, failures, BACKOFF_MAX))
}

/// Holds back all requests to a server for a while.
#[derive(Default)]
pub(super) struct Brake(Mutex<Option<Instant>>);

impl Brake {
    /// Pulls it: for as long as the server said, or else longer each time that one request met it.
    pub fn pull(&self, said: Option<Duration>, times: u32) {
        let pause = match said {
            Some(said) => said.min(RETRY_AFTER_MAX),
            None => jittered(doubled(THROTTLE_FIRST, times, THROTTLE_MAX)),
        };
        let until = Instant::now() + pause;
        let mut held = self.0.lock();
        *held = Some(held.map_or(until, |held| held.max(until)));
    }

    /// Returns once it is released; not everybody in the same instant.
    pub async fn released(&self) {
        loop {
            let held = *self.0.lock();
            match held {
                Some(until) if until > Instant::now() => {
                    tokio::time::sleep_until(until + jittered(BACKOFF_FIRST)).await;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        for (failures, longest) in [(0, 100), (1, 200), (4, 1600), (5, 2000), (40, 2000)] {
            let longest = Duration::from_millis(longest);
            let pauses: Vec<_> = (0..50).map(|_| backoff(failures)).collect();
            let fits = |pause: &Duration| *pause >= longest / 2 && *pause <= longest;
            assert!(pauses.iter().all(fits), "{pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }
}
