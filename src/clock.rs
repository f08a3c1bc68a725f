//! The only place that looks at the clock, for libraries too: they are told the time, and when
//! the machine was started.
//!
//! What it says goes into files' times, revisions and signatures. Nothing waits by it: a clock that
//! is set back, or forward, stops nobody. The failpoint `clock` (`return(SECONDS)`) sets it for
//! tests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now.
#[must_use]
pub fn wall() -> SystemTime {
    let now = SystemTime::now();
    #[cfg(feature = "failpoints")]
    fail::fail_point!("clock", |shift| {
        let seconds: i64 = shift.and_then(|text| text.parse().ok()).unwrap_or(0);
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - by } else { now + by }
    });
    now
}

/// Seconds since 1970; 0 for what was before.
#[must_use]
pub fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Now, for what stands in the stage.
#[must_use]
pub fn now() -> fsimpl::Time {
    // a clock before 1970 is wrong, and no reason to fail
    let since = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    fsimpl::Time {
        secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: since.subsec_nanos(),
    }
}

/// Where Linux names the start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What names this start of the machine: something else after each.
#[must_use]
pub fn boot_id() -> String {
    #[cfg(feature = "failpoints")]
    fail::fail_point!("clock::boot_id", |id| id.unwrap_or_default());
    match std::fs::read_to_string(BOOT_ID) {
        Ok(id) => id.trim().to_owned(),
        // then each start of the program is taken for one of the machine: slow, and safe
        Err(_) => format!("unknown, {:?}", wall()),
    }
}
