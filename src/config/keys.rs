//! The configuration key by key: names as people write them, values, and which of them a daemon can take
//! up while it runs.
//!
//! Keys are found by writing the [`File`] out, so that one that is new in `config.rs` is here at once; it
//! needs a restart until it is said here that it does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::File;
use crate::report::{Context, Result};

/// A key's place: the tables and its name.
pub type Key = Vec<String>;

/// What is read whenever it is needed, or handed on to whoever holds it (`daemon/reload.rs`). A table stands for all in it; `*` for any repository.
const AT_ONCE: &[&[&str]] = &[
    &["log_level"],
    &["stage", "settle"],
    &["stage", "quota"],
    &["stage", "quota_files"],
    &["stage", "backing_max"],
    &["stage", "on_unmount"],
    &["stage", "refresh"],
    &["stage", "refresh_interval"],
    &["commit"],
    &["warm", "quorum"],
    &["warm", "deadline"],
    &["warm", "reach_within"],
    &["warm", "commit_anyway"],
    &["warm", "push"],
    &["repository", "*", "settle"],
    &["repository", "*", "quota"],
    &["repository", "*", "quota_files"],
    &["repository", "*", "backing_max"],
    &["repository", "*", "on_unmount"],
    &["repository", "*", "refresh"],
    &["repository", "*", "warm"],
    &["repository", "*", "allow"],
];

/// Every key with its value, `null` where there is none; of a repository only those that are set, and
/// that it is named at all, as an empty table.
///
/// # Errors
/// A value that cannot be written, which is a mistake in the program.
pub fn flat(file: &File) -> Result<BTreeMap<Key, Value>> {
    let mut all = BTreeMap::new();
    if let Value::Object(tables) = written(file)? {
        flatten(&tables, &mut Vec::new(), &mut all);
    }
    Ok(all)
}

fn written(file: &File) -> Result<Value> {
    serde_json::to_value(file).context("cannot write the configuration")
}

fn flatten(table: &Map<String, Value>, at: &mut Key, all: &mut BTreeMap<Key, Value>) {
    let below_repository = at.first().is_some_and(|table| table == "repository");
    if at.len() == 2 && below_repository {
        all.insert(at.clone(), Value::Object(Map::new()));
    }
    for (name, value) in table {
        at.push(name.clone());
        match value {
            Value::Object(inner) => flatten(inner, at, all),
            Value::Null if below_repository => {}
            Value::Array(items) if below_repository && items.is_empty() => {}
            value => drop(all.insert(at.clone(), value.clone())),
        }
        at.pop();
    }
}

/// As people write it: `stage.settle`, `repository."a.example.org".quota`.
#[must_use]
pub fn name(key: &[String]) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let words = key.iter().map(|word| match word.chars().all(is_bare) {
        true => word.clone(),
        false => format!("{word:?}"),
    });
    words.collect::<Vec<_>>().join(".")
}

/// Repositories that are open, and how much their being named in the configuration means.
#[derive(Debug, Default)]
pub struct OpenRepositories {
    /// All of them.
    pub all: BTreeSet<String>,
    /// Those that are served because they are named.
    pub foreign: BTreeSet<String>,
}

/// True if a daemon takes it up at once.
fn is_at_once(key: &[String], open: &OpenRepositories) -> bool {
    if let [table, repo, rest @ ..] = key
        && table == "repository"
        && (!open.all.contains(repo) || rest.is_empty() && !open.foreign.contains(repo))
    {
        return true;
    }
    AT_ONCE.iter().any(|pattern| {
        pattern.len() <= key.len()
            && pattern
                .iter()
                .zip(key)
                .all(|(word, own)| *word == "*" || word == own)
    })
}

/// What became of a new configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What holds now.
    pub file: File,
    /// Keys that changed.
    pub changed: Vec<String>,
    /// Keys that need a restart, and are as they were.
    pub restart: Vec<String>,
}

/// Takes up of a new file what can be taken up while repositories are open.
///
/// # Errors
/// As [`flat`].
pub fn take_up(old: &File, new: &File, open: &OpenRepositories) -> Result<Taken> {
    let (before, after) = (flat(old)?, flat(new)?);
    let mut taken = Taken::default();
    let mut merged = written(new)?;
    let keys = before.keys().chain(after.keys());
    let keys: BTreeSet<&Key> = keys.collect();
    for key in keys {
        let (was, is) = (before.get(key), after.get(key));
        if was == is {
            continue;
        }
        match is_at_once(key, open) {
            true => taken.changed.push(name(key)),
            false => {
                taken.restart.push(name(key));
                put(&mut merged, key, was.cloned());
            }
        }
    }
    taken.file = serde_json::from_value(merged).context("cannot merge the configuration")?;
    Ok(taken)
}

/// Puts a value where a key has its place; tables above it are made.
fn put(at: &mut Value, key: &[String], value: Option<Value>) {
    let Value::Object(table) = at else {
        return;
    };
    match (key, value) {
        ([last], Some(value)) => drop(table.insert(last.clone(), value)),
        ([last], None) => drop(table.remove(last)),
        ([first, rest @ ..], value) => {
            let inner = table
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            put(inner, rest, value);
        }
        ([], _) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn file(text: &str) -> File {
        parse(text, Path::new("x")).unwrap()
    }

    const OLD: &str = "log_level = \"info\"\n[stage]\nquota = \"1GiB\"\n[warm]\nquorum = 2\n\
        [serve]\nlisten = \"127.0.0.1:1\"\n[repository.\"a.b\"]\npublisher = \"gateway\"\nquota = \"2GiB\"\n";

    fn open(names: &[&str]) -> OpenRepositories {
        let all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
        OpenRepositories {
            foreign: all.clone(),
            all,
        }
    }

    #[test]
    fn what_can_be_is_taken_up_and_the_rest_is_as_it_was() {
        let new = file(
            "log_level = \"debug\"\n[stage]\nworkers = 3\n[warm]\nquorum = \"60%\"\n\
             [serve]\nlisten = \"127.0.0.1:2\"\n[repository.\"a.b\"]\nquota = \"3GiB\"\n\
             [[repository.\"a.b\".allow]]\nusers = [\"u\"]\nmay = [\"commit\"]\n\
             [repository.\"c.d\"]\npublisher = \"cvmfs-server\"\n",
        );
        let old = file(OLD);
        let taken = take_up(&old, &new, &open(&["a.b"])).unwrap();
        assert_eq!(
            taken.restart,
            [
                "repository.\"a.b\".publisher",
                "serve.listen",
                "stage.workers"
            ]
        );
        assert_eq!(
            taken.changed,
            [
                "log_level",
                "repository.\"a.b\".allow",
                "repository.\"a.b\".quota",
                "repository.\"c.d\"",
                "repository.\"c.d\".publisher",
                "stage.quota",
                "warm.quorum"
            ]
        );
        let mut wanted = new.clone();
        wanted.serve = old.serve.clone();
        wanted.stage.workers = 0;
        wanted.repository.get_mut("a.b").unwrap().publisher = old.repository["a.b"].publisher;
        assert_eq!(taken.file, wanted);
        // what needs a restart is named again until there was one
        let again = take_up(&taken.file, &new, &open(&["a.b", "c.d"])).unwrap();
        assert_eq!((again.changed.len(), again.restart), (0, taken.restart));
    }

    #[test]
    fn a_repository_that_is_named_no_more_stays_while_it_is_open() {
        let old = file(OLD);
        let mut new = old.clone();
        new.repository.clear();
        let taken = take_up(&old, &new, &open(&["a.b"])).unwrap();
        let name = "repository.\"a.b\"".to_owned();
        assert_eq!(taken.restart, [name.clone(), name.clone() + ".publisher"]);
        let kept = &taken.file.repository["a.b"];
        assert_eq!(kept.publisher, old.repository["a.b"].publisher);
        assert_eq!(kept.quota, None);
        // one of our own is served whether it is named or not
        let ours = OpenRepositories {
            foreign: BTreeSet::new(),
            ..open(&["a.b"])
        };
        assert!(!take_up(&old, &new, &ours).unwrap().restart.contains(&name));
        let taken = take_up(&old, &new, &open(&[])).unwrap();
        assert!(taken.restart.is_empty() && taken.file.repository.is_empty());
    }

    /// A pattern that names nothing would be of no use: a key was renamed.
    #[test]
    fn each_pattern_names_keys_that_there_are() {
        let all = flat(&file(
            "[repository.\"a.b\"]\nsettle = \"1s\"\nquota = \"1GiB\"\nquota_files = 1\nbacking_max = \"1GiB\"\n\
             on_unmount = \"keep\"\nrefresh = \"pinned\"\n[repository.\"a.b\".warm]\nquorum = 1\n\
             [[repository.\"a.b\".allow]]\nusers = [\"u\"]\nmay = [\"commit\"]\n",
        ))
        .unwrap();
        for pattern in AT_ONCE {
            let of_it = |key: &&Key| {
                let mut words = pattern.iter().zip(*key);
                pattern.len() <= key.len() && words.all(|(w, own)| *w == "*" || w == own)
            };
            let key = all.keys().find(of_it);
            assert!(
                key.is_some_and(|key| is_at_once(key, &open(&["a.b"]))),
                "{pattern:?}"
            );
        }
    }
}
