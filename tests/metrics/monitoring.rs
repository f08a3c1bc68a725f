//! The dashboard and the alerts that the packages bring (packaging/monitoring) ask for nothing that is not
//! served, and each alert says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::listed::{Row, all};
use super::promql::asked;
use crate::support::workspace_root;

/// Labels that Prometheus itself adds, and that of a histogram.
const COMMON: [&str; 3] = ["instance", "job", "le"];

fn file(name: &str) -> String {
    fs::read_to_string(workspace_root().join("packaging/monitoring").join(name)).unwrap()
}

/// Every figure that an expression asks for is listed, and has the labels that it is asked by.
fn check(expression: &str, listed: &BTreeMap<String, Row>) -> usize {
    let (figures, grouped) = asked(expression);
    let mut labels: BTreeSet<&str> = COMMON.into_iter().collect();
    for figure in &figures {
        if figure.name == "up" {
            continue;
        }
        let stems = ["", "_bucket", "_sum", "_count"].iter();
        let mut found = stems.filter_map(|suffix| {
            let row = listed.get(figure.name.strip_suffix(suffix)?)?;
            (suffix.is_empty() || row.kind == "histogram").then_some(row)
        });
        let row = found.next();
        let row = row.unwrap_or_else(|| panic!("{} is not served: {expression}", figure.name));
        labels.extend(row.labels.keys().map(|label| &**label));
        for (label, values) in &figure.labels {
            let known = row.labels.get(label);
            let is_common = COMMON.contains(&&**label);
            assert!(known.is_some() || is_common, "{label}: {expression}");
            let known = known.filter(|known| !known.is_empty());
            for value in values.iter().filter(|_| known.is_some()) {
                assert!(known.unwrap().contains(value), "{value}: {expression}");
            }
        }
        let is_summed = |word: &str| expression.contains(&format!("{word}({}", figure.name));
        let needs_rate = ["rate", "increase"].into_iter().any(is_summed);
        assert!(
            row.kind != "counter" || needs_rate,
            "a counter by itself says nothing: {expression}"
        );
    }
    for label in &grouped {
        assert!(labels.contains(&**label), "{label}: {expression}");
    }
    figures.len()
}

fn listed() -> BTreeMap<String, Row> {
    all()
        .into_iter()
        .map(|row| (row.name.clone(), row))
        .collect()
}

#[test]
fn the_alerts_ask_for_what_is_served_and_say_what_to_do() {
    let listed = listed();
    let rules: Value = serde_yaml_ng::from_str(&file("prometheus-alerts.yml")).unwrap();
    let mut names = BTreeSet::new();
    let mut text = String::new();
    for group in rules["groups"].as_array().unwrap() {
        assert!(group["name"].is_string());
        for rule in group["rules"].as_array().unwrap() {
            let name = rule["alert"].as_str().unwrap();
            assert!(name.starts_with("Prepub"), "{name}");
            assert!(names.insert(name.to_owned()), "{name} comes twice");
            let expression = rule["expr"].as_str().unwrap();
            assert!(check(expression, &listed) > 0, "{name}");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["critical", "warning", "info"].contains(&severity));
            let words = rule["annotations"].as_object().unwrap();
            assert!(words["summary"].as_str().unwrap().len() > 20, "{name}");
            let description = words["description"].as_str().unwrap();
            let (_, to_do) = description.split_once("Do: ").expect(name);
            assert!(to_do.len() > 20, "{name}");
            text.push_str(description);
        }
    }
    assert!(names.len() >= 9, "{names:?}");
    // every command that is said to be run exists
    let commands = text.split("`prepub ").skip(1);
    for command in commands.map(|rest| rest.split(['`', ' ']).next().unwrap()) {
        let help = crate::support::Sandbox::new().run([command, "--help"]);
        assert!(help.status.success(), "prepub {command}");
    }
}

/// All expressions below a part of the dashboard.
fn expressions<'d>(of: &'d Value, found: &mut Vec<&'d str>) {
    match of {
        Value::Object(parts) => {
            for (key, part) in parts {
                match (&**key, part) {
                    ("expr", Value::String(expression)) => found.push(expression),
                    _ => expressions(part, found),
                }
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| expressions(part, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_what_is_served() {
    let listed = listed();
    let dashboard: Value = serde_json::from_str(&file("grafana-dashboard.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard["panels"], &mut found);
    let asked: usize = found.iter().map(|of| check(of, &listed)).sum();
    assert!(asked >= 20, "{asked}");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    for variable in variables.iter().filter(|v| v["type"] == "query") {
        let query = variable["query"].as_str().unwrap();
        let inner = query.strip_prefix("label_values(").unwrap();
        let (figure, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        check(&format!("sum by ({label}) ({figure})"), &listed);
    }
    // each panel has a place, a title and something to show
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert!(panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{title}");
        let is_row = panel["type"] == "row";
        let mut own = Vec::new();
        expressions(panel, &mut own);
        assert!(is_row || !own.is_empty(), "{title} shows nothing");
        assert!(
            is_row || panel["datasource"]["uid"] == "${datasource}",
            "{title}"
        );
    }
}

#[test]
#[should_panic(expected = "is not served")]
fn what_is_not_served_is_found() {
    check("rate(prepub_no_such_total[5m])", &listed());
}

#[test]
#[should_panic(expected = "colour")]
fn a_label_that_is_none_is_found() {
    check("prepub_unsealed_files{colour=\"red\"}", &listed());
}
