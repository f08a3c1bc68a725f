//! A configuration key by key, to compare it with another.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Config;

/// Every key that has a value.
pub(super) fn flat(config: &Config) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    // a configuration that was read can be written; if not, everything counts as changed
    if let Ok(table) = Table::try_from(config) {
        flatten("", table, &mut all);
    }
    all
}

fn flatten(above: &str, table: Table, all: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        let is_bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = if is_bare { name } else { format!("{name:?}") };
        let key = match above {
            "" => name,
            above => format!("{above}.{name}"),
        };
        match value {
            Value::Table(inner) => {
                // a replica that is named and has no key of its own is there all the same
                if above == "repository" {
                    all.insert(key.clone(), Value::Boolean(true));
                }
                flatten(&key, inner, all);
            }
            value => drop(all.insert(key, value)),
        }
    }
}
