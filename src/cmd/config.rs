//! `prepub config`: reads the configuration without using it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{output, overrides};
use crate::cli::{Config, ConfigCheck, ConfigCommand, Global};
use crate::config::origin::{self, Shown};
use crate::config::{Settings, keys};
use crate::redact;
use crate::report::Result;
use crate::telemetry;

/// Where origins stand, unless a value is longer.
const ORIGIN_COLUMN: usize = 44;

pub fn run(args: &Config, global: &Global) -> Result<ExitCode> {
    match &args.command {
        ConfigCommand::Check(args) => check(args, global)?,
        ConfigCommand::Show(args) => {
            let settings = Settings::load(&overrides(global))?;
            match args.json.json {
                true => output::json(&as_json(&settings)?)?,
                false => output::text(&as_toml(&settings)?)?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(args: &ConfigCheck, global: &Global) -> Result<()> {
    let mut overrides = overrides(global);
    overrides.config = args.file.clone().or(overrides.config);
    let settings = Settings::load(&overrides)?;
    telemetry::check(&settings.file.log_level.0)?;
    if args.json.json {
        return output::json(&json!({ "file": settings.source, "fine": true }));
    }
    output::text(&match settings.source {
        Some(path) => format!("{} is fine\n", path.display()),
        None => "there is no configuration file; the defaults hold\n".into(),
    })
}

/// Every key with its value, without secrets, and where that comes from.
fn shown(settings: &Settings) -> Result<Vec<Shown>> {
    let text = settings.source.as_ref().map(std::fs::read_to_string);
    // gone since it was read, it has no lines to name
    let text = text.and_then(std::result::Result::ok).unwrap_or_default();
    let mut shown = origin::shown(settings, &text, &|name| std::env::var_os(name))?;
    for one in &mut shown {
        take_out(&mut one.value);
    }
    Ok(shown)
}

fn take_out(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact::urls(text),
        Value::Array(items) => items.iter_mut().for_each(take_out),
        Value::Object(fields) => fields.values_mut().for_each(take_out),
        _ => {}
    }
}

/// As one JSON object.
///
/// # Errors
/// As [`origin::shown`].
pub fn as_json(settings: &Settings) -> Result<Value> {
    let values = shown(settings)?.into_iter().map(|one| {
        json!({
            "key": keys::name(&one.key),
            "value": one.value,
            "origin": one.origin.word(),
            "where": one.origin.to_string(),
        })
    });
    Ok(json!({ "file": settings.source, "values": values.collect::<Vec<_>>() }))
}

/// As a configuration file that says the same, origins as comments.
///
/// # Errors
/// As [`origin::shown`].
pub fn as_toml(settings: &Settings) -> Result<String> {
    let mut out = match &settings.source {
        Some(path) => format!("# {}\n", path.display()),
        None => "# no configuration file\n".into(),
    };
    let mut all = shown(settings)?;
    // a table's own values before the tables below it
    all.sort_by_key(|one| (table_of(one).to_vec(), !one.value.is_object()));
    let mut table: &[String] = &[];
    for one in &all {
        let Some((name, above)) = one.key.split_last() else {
            continue;
        };
        if let Value::Object(_) = one.value {
            table = &one.key;
            header(&mut out, &format!("[{}]", keys::name(table)), one);
            continue;
        }
        if let Some(items) = tables(&one.value) {
            for item in items {
                header(&mut out, &format!("[[{}]]", keys::name(&one.key)), one);
                for (name, value) in item.as_object().into_iter().flatten() {
                    if !value.is_null() {
                        let _ = writeln!(out, "{name} = {}", written(value));
                    }
                }
            }
            table = &one.key;
            continue;
        }
        if above != table {
            table = above;
            let _ = writeln!(out, "\n[{}]", keys::name(table));
        }
        let line = match &one.value {
            Value::Null => format!("#{name}"),
            value => format!("{name} = {}", written(value)),
        };
        let origin = match &one.value {
            Value::Null => "not set".to_owned(),
            _ => one.origin.to_string(),
        };
        let _ = writeln!(out, "{line:ORIGIN_COLUMN$}  # {origin}");
    }
    Ok(out)
}

/// The table that a key's value stands in, or is.
fn table_of(one: &Shown) -> &[String] {
    match &one.value {
        Value::Object(_) => &one.key,
        value if tables(value).is_some() => &one.key,
        _ => one.key.split_last().map_or(&[], |(_, above)| above),
    }
}

/// The items of an array of tables.
fn tables(value: &Value) -> Option<&[Value]> {
    let items = value.as_array()?;
    items.iter().any(Value::is_object).then_some(items)
}

fn header(out: &mut String, name: &str, one: &Shown) {
    let _ = writeln!(out, "\n{name:ORIGIN_COLUMN$}  # {}", one.origin);
}

/// A value as TOML has it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        // numbers and truth are written alike
        value => value.to_string(),
    }
}
