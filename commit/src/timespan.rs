//! `CVMFS_AUTO_TAG_TIMESPAN`: "3 days ago" and the like, the part of GNU date's language that makes
//! sense as an age.
//!
//! No clock here: now comes in.

const SECONDS: [(&str, i64); 7] = [
    ("sec", 1),
    ("min", 60),
    ("hour", 3600),
    ("day", 86_400),
    ("week", 7 * 86_400),
    ("month", 30 * 86_400),
    ("year", 365 * 86_400),
];

/// The instant that `timespan` before `now` names; none if it is empty or not understood, so that
/// nothing is removed by mistake.
pub(crate) fn before(timespan: &str, now: i64) -> Option<i64> {
    let text = timespan.to_ascii_lowercase();
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if words.last() != Some(&"ago") || words.len() < 3 {
        return None;
    }
    words.pop();
    let mut age = 0_i64;
    for pair in words.chunks(2) {
        let [number, unit] = pair else {
            return None;
        };
        let number: i64 = number.parse().ok().filter(|n| *n >= 0)?;
        let unit = unit.strip_suffix("s").unwrap_or(unit);
        let unit = match unit {
            "second" => "sec",
            "minute" => "min",
            other => other,
        };
        let (_, seconds) = SECONDS.iter().find(|(name, _)| *name == unit)?;
        age = age.checked_add(number.checked_mul(*seconds)?)?;
    }
    now.checked_sub(age)
}

#[cfg(test)]
mod tests {
    use super::before;

    #[test]
    fn ages() {
        assert_eq!(
            before("4 weeks ago", 10_000_000),
            Some(10_000_000 - 2_419_200)
        );
        assert_eq!(before("1 day 2 hours ago", 100_000), Some(6_400));
        for unclear in [
            "",
            "yesterday",
            "3 days",
            "x days ago",
            "-3 days ago",
            "3 moons ago",
        ] {
            assert_eq!(before(unclear, 100), None, "{unclear}");
        }
    }
}
