//! The tables of docs/metrics.md.

use std::collections::BTreeMap;
use std::fs;

use crate::support::workspace_root;

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub kind: String,
    pub unit: String,
    /// Labels, and the values that are named for them; none: a repository, a site or a version.
    pub labels: BTreeMap<String, Vec<String>>,
    pub aliases: Vec<String>,
}

/// What stands between backticks.
fn quoted(text: &str) -> Vec<String> {
    let parts = text.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// `` `repo`, `state`: `new`, `reused` ``: a word with a colon begins a list of values, and a label without
/// values is one of those that are open.
fn labels(cell: &str) -> BTreeMap<String, Vec<String>> {
    const OPEN: [&str; 3] = ["repo", "site", "version"];
    let mut labels = BTreeMap::new();
    let mut last = None;
    let mut rest = cell;
    while let Some((_, after)) = rest.split_once('`') {
        let (word, after) = after.split_once('`').unwrap();
        rest = after;
        if after.starts_with(':') {
            last = Some(word.to_owned());
            labels.insert(word.to_owned(), Vec::new());
        } else if OPEN.contains(&word) {
            labels.insert(word.to_owned(), Vec::new());
        } else {
            let label = last.as_ref().expect(cell);
            labels.get_mut(label).unwrap().push(word.to_owned());
        }
    }
    labels
}

/// The rows below a heading.
pub fn rows(heading: &str) -> Vec<Row> {
    let text = fs::read_to_string(workspace_root().join("docs/metrics.md")).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    let rows = lines.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, own, meaning, stability, aliases] = cells[..] else {
            panic!("{} cells: {line}", cells.len());
        };
        assert!(!meaning.is_empty(), "{line}");
        assert!(["stable", "new"].contains(&stability), "{line}");
        Row {
            name: quoted(name).remove(0),
            kind: kind.to_owned(),
            unit: unit.to_owned(),
            labels: labels(own),
            aliases: quoted(aliases),
        }
    });
    rows.collect()
}

/// Rows of all tables.
pub fn all() -> Vec<Row> {
    ["Publisher", "Receiver", "Both"].map(rows).concat()
}

#[test]
fn units_are_part_of_names() {
    for row in all() {
        let stem = row.name.strip_suffix("_total").unwrap_or(&row.name);
        let wanted = match &*row.unit {
            "bytes" => "_bytes",
            "seconds" => "_seconds",
            "timestamp" => "_timestamp_seconds",
            "bytes per second" => "_bytes_per_second",
            // a count of what the name says
            _ => "",
        };
        assert!(stem.ends_with(wanted), "{row:?}");
        let has_unit = stem.ends_with("_bytes") || stem.ends_with("_seconds");
        assert!(!has_unit || !wanted.is_empty(), "{row:?}");
    }
}
