//! What tags may be called, and what automatic tags are called.

use crate::calendar::{DAY, civil_of};
use crate::history::{TRUNK, TRUNK_PREVIOUS};

/// Longest name of a tag that we make, in bytes: it is a directory below `/.cvmfs/snapshots`.
const MAX_NAME_BYTES: usize = 255;

/// Why a name cannot be given to a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagNameError {
    /// Empty, too long, or with a character that CVMFS's tools do not take.
    #[error(
        "{0:?} cannot be the name of a tag: 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9 and - _ . / :"
    )]
    Malformed(String),
    /// One of the two that are set with every revision.
    #[error("the tag {0:?} is set with every revision and cannot be chosen")]
    Reserved(String),
}

/// Checks a name that somebody chose for a new tag.
///
/// # Errors
/// [`TagNameError`].
pub fn check_tag_name(name: &str) -> Result<(), TagNameError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(TagNameError::Malformed(name.chars().take(80).collect()));
    }
    if name == TRUNK || name == TRUNK_PREVIOUS {
        return Err(TagNameError::Reserved(name.to_owned()));
    }
    Ok(())
}

/// The name of an automatic tag for a time in seconds since 1970: `generic-2026-11-21T03:12:36Z`,
/// or `generic_2-2026-...` where that is taken.
pub fn auto_tag_name(timestamp: i64, taken: impl Fn(&str) -> bool) -> String {
    let time = utc(timestamp);
    let plain = format!("generic-{time}");
    if !taken(&plain) {
        return plain;
    }
    let mut number = 1_u64;
    loop {
        let name = format!("generic_{number}-{time}");
        if !taken(&name) {
            return name;
        }
        number += 1;
    }
}

/// True for the names that CVMFS's tools and [`auto_tag_name`] give to automatic tags.
#[must_use]
pub fn is_auto_tag(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("generic") else {
        return false;
    };
    let rest = match rest.strip_prefix('_') {
        None => rest,
        Some(numbered) => {
            let rest = numbered.trim_start_matches(|c: char| c.is_ascii_digit());
            if rest.len() == numbered.len() {
                return false;
            }
            rest
        }
    };
    // digits stand for digits; a gateway adds one to three digits of a second
    const SHAPE: &[u8] = b"-0000-00-00T00:00:00";
    let Some((time, tail)) = rest.as_bytes().split_at_checked(SHAPE.len()) else {
        return false;
    };
    let like = |(b, s): (&u8, &u8)| {
        if *s == b'0' {
            b.is_ascii_digit()
        } else {
            b == s
        }
    };
    if !time.iter().zip(SHAPE).all(like) {
        return false;
    }
    match tail {
        [b'Z', ..] => true,
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            (1..=3).contains(&digits) && fraction.get(digits) == Some(&b'Z')
        }
        _ => false,
    }
}

/// `YYYY-MM-DDThh:mm:ssZ`.
fn utc(timestamp: i64) -> String {
    let (year, month, day) = civil_of(timestamp.div_euclid(DAY));
    let second = timestamp.rem_euclid(DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_230_756, "2026-11-21T03:12:36Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(secs), text);
        }
        for secs in [i64::MIN, i64::MAX] {
            assert!(!utc(secs).is_empty());
        }
    }

    #[test]
    fn automatic_names() {
        let first = auto_tag_name(1_795_230_756, |_| false);
        assert_eq!(first, "generic-2026-11-21T03:12:36Z");
        let second = auto_tag_name(1_795_230_756, |name| name == first);
        assert_eq!(second, "generic_1-2026-11-21T03:12:36Z");
        for name in [&first, &second, "generic-2026-11-21T03:12:36.7Z"] {
            assert!(is_auto_tag(name), "{name}");
            assert_eq!(check_tag_name(name), Ok(()));
        }
        for name in [
            "",
            "generic",
            "generic-v1",
            "generic_-2026-11-21T03:12:36Z",
            "generic-2026-11-21T03:12:36",
            "generic-2026-11-21T03:12:36.Z",
            "generic-2026-11-21T03:12:36.1234Z",
            "my-generic-2026-11-21T03:12:36Z",
            "generic-2026-11-21T03:12:3äZ",
        ] {
            assert!(!is_auto_tag(name), "{name}");
        }
    }

    #[test]
    fn chosen_names() {
        for good in ["v1.0", "release/2026_11-21:a", "TRUNK", &"x".repeat(255)] {
            assert_eq!(check_tag_name(good), Ok(()));
        }
        for bad in [
            "",
            "a b",
            "a\"b",
            "ä",
            "a\n",
            "trunk",
            "trunk-previous",
            &"x".repeat(256),
        ] {
            assert!(check_tag_name(bad).is_err(), "{bad:?}");
        }
    }
}
