//! Prometheus' text form, read strictly, and what its own linter (`promtool check metrics`) finds in it.

use std::collections::{BTreeMap, BTreeSet};

/// A figure with all its series.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// Values of each label.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// What its name is followed by, in samples.
    pub suffixes: BTreeSet<String>,
    pub samples: usize,
}

/// The families of a page, by name.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').expect(line);
            let family = Family {
                help: help.to_owned(),
                ..Family::default()
            };
            let before = families.insert(name.to_owned(), family);
            assert!(before.is_none(), "{name} comes twice");
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(name, current, "TYPE follows HELP");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').expect(line);
            assert!(seen.insert(series.to_owned()), "{series} comes twice");
            let value: f64 = value.parse().expect(line);
            assert!(value >= 0.0, "{line}");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
                None => (series, ""),
            };
            let family = families.get_mut(&current).expect("HELP comes first");
            let suffix = name.strip_prefix(&*current).expect("its own samples");
            family.suffixes.insert(suffix.to_owned());
            family.samples += 1;
            for label in labels.split("\",").filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once("=\"").expect(line);
                let values = family.labels.entry(name.to_owned()).or_default();
                values.insert(value.trim_end_matches('"').to_owned());
            }
        }
    }
    families
}

/// Units that are not the base ones, and words that say a type.
const BAD_PARTS: [&str; 22] = [
    "ms",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "minutes",
    "hours",
    "days",
    "kb",
    "mb",
    "gb",
    "kilobytes",
    "megabytes",
    "gigabytes",
    "kib",
    "mib",
    "bits",
    "percent",
    "counter",
    "gauge",
    "histogram",
    "summary",
    "bucket",
];

/// Names, types and units as they should be.
pub fn lint(families: &BTreeMap<String, Family>) {
    for (name, family) in families {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(good), "{name}");
        assert!(family.samples > 0, "{name} has no value");
        assert!(family.help.len() > 5, "{name} has no help");
        let parts: BTreeSet<&str> = name.split('_').collect();
        let aliased = name.starts_with("cvmfs_");
        for bad in BAD_PARTS {
            assert!(aliased || !parts.contains(bad), "{name}: {bad}");
        }
        assert_eq!(
            family.kind == "counter",
            name.ends_with("_total"),
            "{name} is a {}",
            family.kind
        );
        let wanted: &[&str] = match &*family.kind {
            "counter" | "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            kind => panic!("{name} is a {kind}"),
        };
        assert!(family.suffixes.iter().eq(wanted), "{name}: {family:?}");
        if family.kind == "histogram" {
            assert!(family.labels["le"].contains("+Inf"), "{name}");
            assert!(name.ends_with("_seconds"), "{name} has a unit");
        }
        // a unit is the last word of a name
        let stem = name.strip_suffix("_total").unwrap_or(name);
        for unit in ["seconds", "bytes"] {
            let ends = stem.ends_with(&format!("_{unit}")) || stem.ends_with("_per_second");
            assert!(!parts.contains(unit) || ends || aliased, "{name}");
        }
        for (label, values) in &family.labels {
            assert!(label.chars().all(good), "{name}: {label}");
            assert!(values.len() <= 20, "{name}: {label} has {values:?}");
        }
    }
}

#[test]
fn the_linter_sees_what_is_wrong() {
    let good = "# HELP a_total what it is\n# TYPE a_total counter\na_total{repo=\"r\"} 1\n";
    lint(&parse(good));
    for bad in [
        good.replace("a_total", "a"),
        good.replace("counter", "gauge"),
        good.replace("what it is", ""),
        good.replace("a_total", "a_ms_total"),
        good.replace("a_total", "a_bytes_of_total"),
        good.replace("a_total{repo=\"r\"} 1\n", ""),
        format!("{good}{good}"),
        format!("{good}a_total{{repo=\"r\"}} 2\n"),
        good.replace(" 1\n", " one\n"),
    ] {
        let caught = std::panic::catch_unwind(|| lint(&parse(&bad)));
        assert!(caught.is_err(), "{bad}");
    }
}
