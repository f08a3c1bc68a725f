//! Whitelist times: `YYYYMMDDhhmmss` in UTC.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use crate::calendar::{DAY, civil_of, days_of};

const HOUR: i64 = 3600;

/// 9999-12-31T23:59:59Z, the last that 14 digits can say.
const LAST: i64 = 253_402_300_799;

/// 0000-01-01T00:00:00Z.
const FIRST: i64 = -62_167_219_200;

/// Seconds since 1970, within the years 0 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp(i64);

impl Stamp {
    pub(super) const LEN: usize = 14;
    pub(super) const EPOCH: Self = Self(0);

    /// The second that `time` falls into; the nearest one if the year has no four digits.
    pub(super) fn at(time: SystemTime) -> Self {
        let secs = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(LAST),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(FIRST, |s| -s),
        };
        Self(secs.clamp(FIRST, LAST))
    }

    pub(super) fn plus(self, duration: Duration) -> Self {
        let secs = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(secs).clamp(FIRST, LAST))
    }

    /// The beginning of the hour it lies in.
    pub(super) fn full_hour(self) -> Self {
        Self(self.0 - self.0.rem_euclid(HOUR))
    }

    pub(super) fn time(self) -> SystemTime {
        let distance = Duration::from_secs(self.0.unsigned_abs());
        let time = if self.0 < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        };
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl FromStr for Stamp {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != Self::LEN || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        let number = |from: usize, to: usize| text[from..to].parse::<i64>().map_err(|_| ());
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
        let sane = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !sane {
            return Err(());
        }
        let secs = days_of(year, month, day) * DAY + hour * HOUR + minute * 60 + second;
        Ok(Self(secs.clamp(FIRST, LAST)))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_of(self.0.div_euclid(DAY));
        let of_day = self.0.rem_euclid(DAY);
        write!(
            f,
            "{year:04}{month:02}{day:02}{:02}{:02}{:02}",
            of_day / HOUR,
            of_day / 60 % 60,
            of_day % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (text, secs) in [
            ("19700101000000", 0),
            ("20261221031235", 1_797_822_755),
            ("20240229235959", 1_709_251_199),
            ("20000301000000", 951_868_800),
            ("19691231235959", -1),
            ("99991231235959", LAST),
            ("00000101000000", FIRST),
        ] {
            assert_eq!(text.parse(), Ok(Stamp(secs)), "{text}");
            assert_eq!(Stamp(secs).to_string(), text);
            assert_eq!(Stamp::at(Stamp(secs).time()), Stamp(secs));
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for bad in [
            "",
            "2026122103123",
            "20261321031235",
            "20261200031235",
            "20261221241235",
        ] {
            assert!(bad.parse::<Stamp>().is_err(), "{bad}");
        }
    }
}
