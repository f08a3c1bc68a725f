//! Where each value of the configuration comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::keys::{self, Key};
use crate::report::Result;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// This variable.
    Environment(&'static str),
    /// This flag.
    Flag(&'static str),
}

impl Origin {
    /// In one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File(..) => "file",
            Self::Environment(_) => "environment",
            Self::Flag(_) => "flag",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A key with its value and where that comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Which.
    pub key: Key,
    /// `null` where there is none.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// What stands over the file, besides [`super::Overrides`]: what `mount` takes from its environment.
const OF_MOUNT: [(&[&str], &str); 2] = [
    (&["mountpoint"], "PREPUB_MOUNTPOINT"),
    (&["serve", "listen"], "PREPUB_LISTEN"),
];

/// Every key that is set or could be, but of a repository only those that are set. `text` is what the
/// file holds, `env` the environment.
///
/// # Errors
/// As [`keys::flat`].
pub fn shown(
    settings: &Settings,
    text: &str,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Vec<Shown>> {
    let source = settings.source.as_deref().unwrap_or(Path::new(""));
    let lines = lines(text);
    let mut all = keys::flat(&settings.file)?;
    let mut put = |key: &str, path: &Path| {
        all.insert(vec![key.to_owned()], path.display().to_string().into());
    };
    put("state_dir", &settings.state_dir);
    put("mountpoint", &settings.mountpoint);
    let shown = all.into_iter().map(|(key, value)| {
        let over = over_the_file(settings, &key, env);
        let (value, origin) = match (over, lines.get(&key)) {
            (Some((value, origin)), _) => (value, origin),
            (None, Some(line)) => (value, Origin::File(source.to_owned(), *line)),
            (None, None) => (value, Origin::Default),
        };
        Shown { key, value, origin }
    });
    Ok(shown.collect())
}

fn over_the_file(
    settings: &Settings,
    key: &[String],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Option<(Value, Origin)> {
    let given = |value: String, flag, variable: &'static str| {
        // a flag stands over the variable; where both say the same, both are right
        let origin = match env(variable).is_some_and(|set| set == *value) {
            true => Origin::Environment(variable),
            false => Origin::Flag(flag),
        };
        (value.into(), origin)
    };
    let over = &settings.overrides;
    match key {
        [key] if key == "log_level" => {
            let level = over.log_level.clone()?;
            return Some(given(level, "--log-level", "PREPUB_LOG"));
        }
        [key] if key == "state_dir" => {
            let dir = over.state_dir.as_ref()?.display().to_string();
            return Some(given(dir, "--state-dir", "PREPUB_STATE_DIR"));
        }
        _ => {}
    }
    let (_, variable) = OF_MOUNT.iter().find(|(place, _)| *place == key)?;
    let value = env(variable)?.to_string_lossy().into_owned();
    Some((value.into(), Origin::Environment(variable)))
}

/// In which line each key stands.
fn lines(text: &str) -> BTreeMap<Key, usize> {
    let mut all = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        walk(table.get_ref(), text, &mut Vec::new(), &mut all);
    }
    all
}

fn walk(table: &DeTable<'_>, text: &str, at: &mut Key, all: &mut BTreeMap<Key, usize>) {
    for (name, value) in table {
        at.push(name.get_ref().to_string());
        let before = text.get(..name.span().start).unwrap_or_default();
        all.insert(at.clone(), before.matches('\n').count() + 1);
        if let DeValue::Table(inner) = value.get_ref() {
            walk(inner, text, at, all);
        }
        at.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    #[test]
    fn each_value_knows_its_origin() {
        let text = "# a comment\nlog_level = \"warn\"\nmountpoint = \"/m\"\n\n[stage]\nquota = \"1GiB\"\n\
            [repository.\"a.b\"]\n[[repository.\"a.b\".allow]]\nusers = [\"u\"]\nmay = [\"tag\"]\n";
        let path = Path::new("/etc/c.toml");
        let settings = Settings {
            source: Some(path.into()),
            state_dir: "/from/flag".into(),
            mountpoint: "/m".into(),
            file: parse(text, path).unwrap(),
            overrides: Overrides {
                state_dir: Some("/from/flag".into()),
                log_level: Some("debug".into()),
                ..Overrides::default()
            },
        };
        let env = |name: &str| match name {
            "PREPUB_LOG" => Some("debug".into()),
            "PREPUB_STATE_DIR" => Some("/from/environment".into()),
            "PREPUB_LISTEN" => Some("127.0.0.1:9".into()),
            _ => None,
        };
        let shown = shown(&settings, text, &env).unwrap();
        let of = |name: &str| {
            let found = shown.iter().find(|s| keys::name(&s.key) == name);
            let found = found.unwrap_or_else(|| panic!("no {name}"));
            (found.value.to_string(), found.origin.to_string())
        };
        let is = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
        assert_eq!(of("log_level"), is("\"debug\"", "environment PREPUB_LOG"));
        assert_eq!(of("state_dir"), is("\"/from/flag\"", "--state-dir"));
        assert_eq!(of("mountpoint"), is("\"/m\"", "/etc/c.toml:3"));
        assert_eq!(of("stage.quota"), is("\"1GiB\"", "/etc/c.toml:6"));
        assert_eq!(of("stage.workers"), is("0", "default"));
        assert_eq!(of("control.group"), is("null", "default"));
        assert_eq!(of("repository.\"a.b\""), is("{}", "/etc/c.toml:7"));
        assert_eq!(of("repository.\"a.b\".allow").1, "/etc/c.toml:8");
        assert_eq!(
            of("serve.listen"),
            is("\"127.0.0.1:9\"", "environment PREPUB_LISTEN")
        );
    }
}
