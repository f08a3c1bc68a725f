//! Sizes and durations with their units: `10GiB`, `500ms`. A number without a unit is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const TIME_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A number of bytes, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A span of time, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

fn parse(text: &str, units: &[(&str, u64)], what: &str, example: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = (&text[..end], text[end..].trim());
    let known = || units.map_names();
    if digits.is_empty() {
        return Err(format!("{text:?} is no {what}; write it as {example:?}"));
    }
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is too large"))?;
    if unit.is_empty() {
        return Err(format!(
            "{text:?} has no unit; write it as {example:?} (units: {})",
            known()
        ));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "{unit:?} is no unit of a {what}; one of {}",
            known()
        ));
    };
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("{text:?} is too large"))
}

trait Names {
    fn map_names(&self) -> String;
}

impl Names for [(&str, u64)] {
    fn map_names(&self) -> String {
        let names: Vec<&str> = self.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }
}

/// The largest unit that divides the number.
fn render(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let mut best = units[0];
    for unit in units {
        if value != 0 && value.is_multiple_of(unit.1) && unit.1 > best.1 {
            best = *unit;
        }
    }
    write!(f, "{}{}", value / best.1, best.0)
}

impl FromStr for Bytes {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        parse(s, &SIZE_UNITS, "size", "10GiB").map(Self)
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        parse(s, &TIME_UNITS, "duration", "30s").map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render(f, self.0, &SIZE_UNITS)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        render(f, ms, &TIME_UNITS)
    }
}

macro_rules! serde_as_text {
    ($type:ty, $what:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<$type, E> {
                        s.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<$type, E> {
                        n.to_string().parse().map_err(E::custom)
                    }
                }
                d.deserialize_any(Visitor)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
    };
}

serde_as_text!(Bytes, "a size in quotes, such as \"10GiB\"");
serde_as_text!(Span, "a duration in quotes, such as \"30s\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, bytes) in [("0B", 0), ("10GiB", 10 << 30), ("5 MB", 5_000_000)] {
            assert_eq!(text.parse::<Bytes>().unwrap().0, bytes);
        }
        assert_eq!(Bytes(10 << 30).to_string(), "10GiB");
        assert_eq!(Bytes(1_500_000).to_string(), "1500kB");
        assert_eq!(Span(Duration::from_millis(90_000)).to_string(), "90s");
        assert_eq!("2h".parse::<Span>().unwrap().0.as_secs(), 7200);
    }

    #[test]
    fn refuses_what_has_no_unit_or_a_wrong_one() {
        assert!("10".parse::<Bytes>().unwrap_err().contains("no unit"));
        assert!("10Gb".parse::<Bytes>().unwrap_err().contains("GiB"));
        assert!(
            "10s"
                .parse::<Bytes>()
                .unwrap_err()
                .contains("no unit of a size")
        );
        assert!("30MiB".parse::<Span>().unwrap_err().contains("min"));
        assert!("-1s".parse::<Span>().is_err());
        assert!(
            "99999999999TiB"
                .parse::<Bytes>()
                .unwrap_err()
                .contains("large")
        );
    }
}
