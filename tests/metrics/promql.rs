//! Which figures a PromQL expression asks for: as much of its grammar as that takes.

use std::collections::{BTreeMap, BTreeSet};

/// What asks for a figure: its name and, of what it is narrowed by, labels and the values that these may
/// have.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub name: String,
    pub labels: BTreeMap<String, Vec<String>>,
}

/// Functions and words that are no figures.
const WORDS: [&str; 29] = [
    "and",
    "avg",
    "avg_over_time",
    "bool",
    "by",
    "changes",
    "clamp_min",
    "count",
    "delta",
    "deriv",
    "group_left",
    "histogram_quantile",
    "ignoring",
    "increase",
    "max",
    "max_over_time",
    "min",
    "min_over_time",
    "offset",
    "on",
    "or",
    "rate",
    "sum",
    "time",
    "topk",
    "unless",
    "vector",
    "without",
    "resets",
];
/// Words that a list of labels follows.
const GROUPING: [&str; 5] = ["by", "on", "without", "ignoring", "group_left"];

/// The figures that an expression asks for, and the labels that it groups by.
pub fn asked(expression: &str) -> (Vec<Asked>, BTreeSet<String>) {
    let (mut figures, mut grouped) = (Vec::new(), BTreeSet::new());
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        if c == '[' {
            // a range, which Grafana may fill in
            rest = &rest[rest.find(']').expect(expression) + 1..];
        } else if c == '"' {
            let end = rest[1..].find('"').expect(expression);
            rest = &rest[end + 2..];
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            rest = rest[end..].trim_start();
            if c.is_ascii_digit() {
                continue;
            }
            if GROUPING.contains(&word) {
                let (list, after) = bracketed(rest, '(', ')').expect(expression);
                grouped.extend(list.split(',').map(|l| l.trim().to_owned()));
                rest = after;
            } else if !WORDS.contains(&word) {
                let (list, after) = bracketed(rest, '{', '}').unwrap_or(("", rest));
                figures.push(Asked {
                    name: word.to_owned(),
                    labels: matchers(list),
                });
                rest = after;
            }
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    (figures, grouped)
}

fn bracketed(text: &str, open: char, close: char) -> Option<(&str, &str)> {
    text.strip_prefix(open)?.split_once(close)
}

fn matchers(list: &str) -> BTreeMap<String, Vec<String>> {
    let matchers = list.split("\",").filter(|m| !m.trim().is_empty());
    let parsed = matchers.map(|matcher| {
        let (label, value) = matcher.split_once('"').expect(list);
        let label = label.trim().trim_end_matches(['=', '~', '!']);
        let value = value.trim_end_matches('"');
        // what Grafana fills in may be anything
        let words = value.split('|').filter(|word| !word.contains('$'));
        let words = words.map(str::to_owned).collect();
        (label.to_owned(), words)
    });
    parsed.collect()
}

#[test]
fn an_expression_is_taken_apart() {
    let (figures, grouped) = asked(
        "sum by (instance, le) (rate(a_total{code!=\"x|y\",repo=~\"$repo\"}[$__rate_interval])) > 2.5e3 unless on (site) b == 0",
    );
    let names: Vec<&str> = figures.iter().map(|asked| &*asked.name).collect();
    assert_eq!(names, ["a_total", "b"]);
    assert_eq!(figures[0].labels["code"], ["x", "y"]);
    assert!(figures[0].labels["repo"].is_empty());
    assert_eq!(
        grouped.iter().map(|l| &**l).collect::<Vec<_>>(),
        ["instance", "le", "site"]
    );
}
