//! The table of leases: which path is whose, and until when.
//!
//! Two leases exclude each other by SQL's `LIKE` on their paths, which is what the gateway asks its
//! database: a plain prefix without regard to `/`, letters A to Z without regard to their case, `_`
//! and `%` as wildcards. Nothing here looks at a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A path that somebody holds.
#[derive(Clone)]
pub struct Lease {
    pub token: String,
    /// `/`, or `/some/path` as it was asked for.
    pub path: String,
    pub key_id: String,
    pub hostname: String,
    pub expires: SystemTime,
    /// Counts what was uploaded: kept in memory alone, taken by the first attempt to commit, and
    /// without it there is no second one.
    pub counted: bool,
}

/// All leases of one repository.
#[derive(Default)]
pub struct Leases {
    rows: Vec<Lease>,
    granted: u64,
}

impl Leases {
    /// How long the first lease in the way has left; none if nothing is in the way.
    pub fn busy(&self, path: &str, now: SystemTime) -> Option<Duration> {
        let in_the_way = |lease: &&Lease| is_like(path, &lease.path) || is_like(&lease.path, path);
        let left = |lease: &Lease| lease.expires.duration_since(now).ok();
        let mut left = self.rows.iter().filter(in_the_way).filter_map(left);
        left.find(|left| !left.is_zero())
    }

    /// Grants a lease; those that expired are forgotten with that.
    pub fn grant(&mut self, mut lease: Lease, now: SystemTime) -> String {
        self.rows.retain(|lease| lease.expires >= now);
        self.granted += 1;
        lease.token = token(self.granted);
        self.rows.push(lease);
        token(self.granted)
    }

    /// The lease of a token, expired or not.
    pub fn find(&mut self, token: &str) -> Option<&mut Lease> {
        self.rows.iter_mut().find(|lease| lease.token == token)
    }

    /// The lease of a token, unless it expired.
    pub fn valid(&mut self, token: &str, now: SystemTime) -> Option<&mut Lease> {
        self.find(token).filter(|lease| lease.expires >= now)
    }

    /// Ends a lease; false if there is none.
    pub fn drop_lease(&mut self, token: &str) -> bool {
        let before = self.rows.len();
        self.rows.retain(|lease| lease.token != token);
        self.rows.len() < before
    }

    pub fn active(&self, now: SystemTime) -> impl Iterator<Item = &Lease> {
        self.rows.iter().filter(move |lease| lease.expires >= now)
    }

    /// What a restart of the gateway leaves: the leases, not what is counted.
    pub fn restart(&mut self) {
        for lease in &mut self.rows {
            lease.counted = false;
        }
    }
}

/// 32 bytes in base 32, as the gateway writes them; not random, and never the same twice.
fn token(count: u64) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut state = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(ALPHABET[(state % 32) as usize])
    };
    let letters: String = (0..51).map(|_| letter()).collect();
    format!("{letters}A====")
}

/// SQLite's `text LIKE prefix || '%'`.
fn is_like(text: &str, prefix: &str) -> bool {
    fn matches(text: &[char], pattern: &[char]) -> bool {
        match (text, pattern) {
            (_, []) => true,
            (_, ['%', rest @ ..]) => (0..=text.len()).any(|at| matches(&text[at..], rest)),
            ([_, text @ ..], ['_', rest @ ..]) => matches(text, rest),
            ([t, text @ ..], [p, rest @ ..]) => t.eq_ignore_ascii_case(p) && matches(text, rest),
            ([], _) => false,
        }
    }
    let chars = |s: &str| s.chars().collect::<Vec<_>>();
    matches(&chars(text), &chars(prefix))
}

/// A duration as Go prints it: `1h59m59.99s`.
pub fn go_duration(duration: Duration) -> String {
    let (nanos, seconds) = (duration.subsec_nanos(), duration.as_secs());
    if seconds == 0 {
        let (unit, name) = match nanos {
            0 => return "0s".into(),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            _ => (1_000_000, "ms"),
        };
        return format!("{}{name}", f64::from(nanos) / f64::from(unit));
    }
    let fraction = format!(".{nanos:09}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let rest = format!("{}{fraction}s", seconds % 60);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// A time as Go prints it, to the millisecond: `2026-11-21 05:14:29.742 +0000 UTC`.
pub fn go_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap();
    let fraction = format!(".{:03}", since.subsec_millis());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let [date, clock] = date_and_clock(since.as_secs());
    format!("{date} {clock}{fraction} +0000 UTC")
}

/// `2026-11-21` and `05:14:29`, in UTC.
pub fn date_and_clock(seconds: u64) -> [String; 2] {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // years from March on, in eras of 400 years, of days since 0000-03-01
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    [
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{hour:02}:{minute:02}:{second:02}"),
    ]
}
