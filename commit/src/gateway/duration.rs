//! Durations as Go writes them: `1h59m59.996s`, `59.99s`, `250ms`.
//!
//! [Go `time.Duration.String`]. Text in, a duration out.

use std::time::Duration;

/// Parses a duration; none for anything else. Negative ones are none left: zero.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" | "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        any = true;
        rest = tail;
    }
    any.then_some(if negative { Duration::ZERO } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (text, millis) in [
            ("1h59m59.996s", 7_199_996),
            ("59.5s", 59_500),
            ("250ms", 250),
            ("1h0m0s", 3_600_000),
            ("0s", 0),
            ("0", 0),
            ("-3s", 0),
        ] {
            let parsed = parse(text).map(|d| (d.as_secs_f64() * 1000.0).round() as u64);
            assert_eq!(parsed, Some(millis), "{text}");
        }
        assert_eq!(parse("5µs"), Some(Duration::from_micros(5)));
    }

    #[test]
    fn anything_else() {
        for bad in [
            "",
            "-",
            "5",
            "s",
            "1x",
            "1.2.3s",
            "1e400h",
            "9999999999999999999999h",
            "ms",
            "é",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
