//! The only place that looks at the clock for others: libraries are told the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, for what stands in the stage.
#[must_use]
pub fn now() -> fsimpl::Time {
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => fsimpl::Time {
            secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        },
        // a clock before 1970 is wrong, and no reason to fail
        Err(_) => fsimpl::Time::default(),
    }
}
