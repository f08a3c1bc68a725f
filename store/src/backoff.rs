//! Pauses between attempts: each twice as long as the last, up to a limit, and not the same for all.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pause after so many failures, the first being 0.
#[must_use]
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

/// Between half of it and all, so that many clients do not come back together.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    // each such state is seeded anew
    let random = RandomState::new().hash_one(()) as u32;
    let half = pause / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}
