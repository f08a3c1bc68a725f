//! `CVMFS_AUTO_TAG_TIMESPAN`: from when on automatic tags are kept.
//!
//! The official tool asks GNU `date --date`. Of that language this is what makes sense here: an age,
//! counted back from now by the calendar, or a date. What would lie ahead of now is refused: it
//! removes every tag, and is a slip. So is all else, so that nothing is kept or removed by a
//! misunderstanding. Dates are taken as UTC; `date` takes them in the machine's time zone.
//!
//! No clock here: now comes in.

use crate::calendar::{DAY, civil_of, days_of};

/// Seconds of the units whose length is fixed.
const FIXED: [(&str, i64); 8] = [
    ("sec", 1),
    ("second", 1),
    ("min", 60),
    ("minute", 60),
    ("hour", 3600),
    ("day", DAY),
    ("week", 7 * DAY),
    ("fortnight", 14 * DAY),
];
/// Months of the others.
const BY_CALENDAR: [(&str, i64); 2] = [("month", 1), ("year", 12)];
/// Older than any repository: a larger age is a slip, and need not be reckoned with.
const MONTHS_MAX: i64 = 12 * 1000;
const SECONDS_MAX: i64 = 1000 * 366 * DAY;

/// What the setting says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timespan {
    /// So long before now.
    Age {
        /// By the calendar, as `date` does: a month before March 31 is March 3.
        months: i64,
        /// On top of that.
        seconds: i64,
    },
    /// An instant, in seconds since 1970.
    Since(i64),
}

impl Timespan {
    /// Reads the setting; none if it is not understood.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "now" | "today" => Some(Self::age(0, 0)),
            "yesterday" => Some(Self::age(0, DAY)),
            _ => instant(&text).map(Self::Since).or_else(|| age(&text)),
        }
    }

    fn age(months: i64, seconds: i64) -> Self {
        Self::Age { months, seconds }
    }

    /// The instant it names, in seconds since 1970 as is `now`: automatic tags of revisions before
    /// it go.
    #[must_use]
    pub fn before(&self, now: i64) -> i64 {
        match *self {
            Self::Since(instant) => instant,
            Self::Age { months, seconds } => {
                let (year, month, day) = civil_of(now.div_euclid(DAY));
                let month = year.saturating_mul(12) + (month - 1) - months;
                let day = days_of(month.div_euclid(12), month.rem_euclid(12) + 1, day);
                day.saturating_mul(DAY) + now.rem_euclid(DAY) - seconds
            }
        }
    }
}

/// `4 weeks ago`, `-2 months`, `last year`, and several of them.
fn age(text: &str) -> Option<Timespan> {
    let (mut months, mut seconds) = (0, 0);
    let mut words = words(text)?.into_iter().peekable();
    words.peek()?;
    while let Some(word) = words.next() {
        let (mut back, unit) = match word {
            Word::Name("last") => match words.next()? {
                Word::Name(unit) => (1, unit),
                Word::Number(_) => return None,
            },
            Word::Number(number) => match words.next()? {
                Word::Name(unit) => (-number, unit),
                Word::Number(_) => return None,
            },
            Word::Name(unit) => (-1, unit),
        };
        // to `date`, too, it belongs to the one item before it
        if words.next_if_eq(&Word::Name("ago")).is_some() {
            back = -back;
        }
        if back < 0 {
            return None;
        }
        let unit = unit.strip_suffix('s').unwrap_or(unit);
        let of = |table: &[(&str, i64)]| table.iter().find(|(name, _)| *name == unit).map(|u| u.1);
        match (of(&FIXED), of(&BY_CALENDAR)) {
            (Some(each), _) => seconds += back.checked_mul(each)?,
            (_, Some(each)) => months += back.checked_mul(each)?,
            _ => return None,
        }
        if months > MONTHS_MAX || seconds > SECONDS_MAX {
            return None;
        }
    }
    Some(Timespan::age(months, seconds))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'t> {
    Number(i64),
    Name(&'t str),
}

/// Numbers, with a sign at most, and names; nothing else.
fn words(text: &str) -> Option<Vec<Word<'_>>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_name = first.is_ascii_alphabetic();
        let more = |c: char| match is_name {
            true => c.is_ascii_alphabetic(),
            false => c.is_ascii_digit(),
        };
        let end = rest[first.len_utf8()..]
            .find(|c| !more(c))
            .map_or(rest.len(), |at| first.len_utf8() + at);
        let (word, after) = rest.split_at(end);
        words.push(match is_name {
            true => Word::Name(word),
            false => Word::Number(word.parse().ok()?),
        });
        rest = after.trim_start();
    }
    Some(words)
}

/// `@SECONDS`, `YYYY-MM-DD` or `YYYYMMDD`, the former with a time: `[T]hh:mm[:ss] [Z|UTC]`.
fn instant(text: &str) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        return seconds.parse().ok();
    }
    let (date, time) = match text.split_once(['t', ' ']) {
        Some((date, time)) => (date, time.trim()),
        None => (text, ""),
    };
    let days = match date.len() {
        8 => date_of(date.get(..4)?, date.get(4..6)?, date.get(6..)?)?,
        10 => {
            let mut parts = date.split('-');
            let day = date_of(parts.next()?, parts.next()?, parts.next()?)?;
            parts.next().is_none().then_some(day)?
        }
        _ => return None,
    };
    let time = time.strip_suffix("utc").unwrap_or(time);
    let time = time.strip_suffix('z').unwrap_or(time).trim_end();
    Some(days * DAY + seconds_of(time)?)
}

fn date_of(year: &str, month: &str, day: &str) -> Option<i64> {
    let (year, month, day) = (digits(year)?, digits(month)?, digits(day)?);
    let days = days_of(year, month, day);
    // a day that the month does not have would come back as another
    ((1..=12).contains(&month) && civil_of(days) == (year, month, day)).then_some(days)
}

fn seconds_of(time: &str) -> Option<i64> {
    if time.is_empty() {
        return Some(0);
    }
    let parts: Vec<i64> = time.split(':').map(digits).collect::<Option<_>>()?;
    match parts[..] {
        [h @ 0..24, m @ 0..60] => Some(h * 3600 + m * 60),
        [h @ 0..24, m @ 0..60, s @ 0..60] => Some(h * 3600 + m * 60 + s),
        _ => None,
    }
}

/// A number of nothing but digits.
fn digits(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-31 12:00:00 UTC.
    const NOW: i64 = 1_774_958_400;

    /// What `TZ=UTC date --date` of coreutils 9 says of the same words at that time.
    #[test]
    fn what_date_says() {
        for (text, instant) in [
            ("4 weeks ago", NOW - 28 * DAY),
            ("3 days ago", NOW - 3 * DAY),
            ("3days ago", NOW - 3 * DAY),
            ("-3 days", NOW - 3 * DAY),
            ("week ago", NOW - 7 * DAY),
            ("1 fortnight ago", NOW - 14 * DAY),
            ("Last Week", NOW - 7 * DAY),
            ("90 min ago", NOW - 5400),
            ("1 day ago 2 hours ago", NOW - 26 * 3600),
            ("-2 weeks -3 days", NOW - 17 * DAY),
            ("yesterday", NOW - DAY),
            ("today", NOW),
            ("1 year ago", 1_743_422_400),
            ("2 years ago", 1_711_886_400),
            ("2 months ago", 1_769_860_800),
            // February 31, which is March 3
            ("last month", 1_772_539_200),
            ("last year", 1_743_422_400),
            ("14 months ago", 1_738_324_800),
            ("2026-01-31", 1_769_817_600),
            ("20260131", 1_769_817_600),
            ("2026-01-31 12:30", 1_769_862_600),
            ("2026-01-31T12:30:05Z", 1_769_862_605),
            ("2026-01-31 12:30 UTC", 1_769_862_600),
            ("@12345", 12_345),
        ] {
            let timespan = Timespan::parse(text);
            assert_eq!(timespan.map(|t| t.before(NOW)), Some(instant), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for unclear in [
            "",
            " ",
            "ago",
            "3",
            "3 days",
            "+3 days",
            "next week",
            "tomorrow",
            "-3 days ago",
            "1 day 2 hours ago",
            "3 moons ago",
            "x days ago",
            "3 3 days ago",
            "last 3 days",
            "last monday",
            "a week ago",
            "2026-02-30",
            "2026-13-01",
            "2026-1-31",
            "01/31/2026",
            "2026-01-31 25:00",
            "2026-01-31 12",
            "@",
            "@x",
            "99999 years ago",
            "3,5 days ago",
            "9223372036854775808 days ago",
            "9223372036854775807 weeks ago",
            "\u{fc}",
            "2026-01-\u{fc}",
        ] {
            assert_eq!(Timespan::parse(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn no_time_is_too_odd() {
        let oldest = Timespan::parse("1000 years ago").unwrap();
        for now in [0, -1, NOW, i64::from(i32::MAX), i64::MAX / 4, i64::MIN / 4] {
            assert!(oldest.before(now) < now);
        }
    }
}
