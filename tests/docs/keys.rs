//! docs/configuration.md has every key that is read and no other, and says the defaults.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use receiver::config::Config;

use super::page::{Table, page, pages, spans};
use super::sources::sources;
use crate::support::{Sandbox, workspace_root};

/// What stands for the key of a map in the sections' names.
const NAME: &str = "demo.example.org";

/// `known(section)` gives the keys of a section, or what is wrong with asking.
fn keys_below(
    known: &dyn Fn(&str) -> Option<Vec<String>>,
    section: &str,
    found: &mut BTreeSet<(String, String)>,
) {
    for key in known(section).unwrap_or_else(|| panic!("{section} is a table")) {
        let inner = match section {
            "" => key.clone(),
            _ => format!("{section}.{key}"),
        };
        // a table of things with names, a table, several tables
        let named = format!("{inner}.\"{NAME}\"");
        let several = format!("[{inner}]");
        if key == "repository" {
            keys_below(known, &named, found);
        } else if known(&inner).is_some() {
            keys_below(known, &inner, found);
        } else if known(&several).is_some() {
            keys_below(known, &several, found);
        } else {
            found.insert((section.to_owned(), key));
        }
    }
}

/// A configuration with a key that cannot be.
fn impossible(section: &str) -> String {
    match section {
        "" => "xyzzy = 1\n".to_owned(),
        _ => format!("[{section}]\nxyzzy = 1\n"),
    }
}

/// The keys that a refusal of that key lists; none if something else was refused.
fn listed(message: &str) -> Option<Vec<String>> {
    let (_, list) = message.split_once("unknown field `xyzzy`, expected ")?;
    let list = list.lines().next().unwrap_or_default();
    Some(spans(list))
}

/// The tables of keys on the page, by section.
fn documented(receiver: bool) -> Vec<(String, Table)> {
    let mut tables = Vec::new();
    for table in page("docs/configuration.md").tables() {
        let mark = "Receiver: ";
        if table.header.first().map(String::as_str) != Some("key")
            || table.header[1] != "default"
            || table.heading.starts_with(mark) != receiver
        {
            continue;
        }
        let title = table.heading.trim_start_matches(mark);
        let section = match title.eq_ignore_ascii_case("at the top") {
            true => String::new(),
            false => title
                .trim_matches('`')
                .strip_prefix('[')
                .and_then(|inner| inner.strip_suffix(']'))
                .unwrap_or_else(|| panic!("{title} names no section"))
                .replace("\"NAME\"", &format!("\"{NAME}\"")),
        };
        tables.push((section, table));
    }
    tables
}

/// The first cell's key, and the second's value if it is one in TOML.
fn key_and_default(row: &[String]) -> (String, Option<String>) {
    let key = row[0].trim_matches('`').to_owned();
    let cell = row[1].as_str();
    let inner = cell
        .strip_prefix('`')
        .and_then(|rest| rest.strip_suffix('`'));
    let value = inner.filter(|inner| !inner.contains('`'));
    // a path, or a value
    let is_toml = |value: &&str| {
        value.starts_with(['"', '['])
            || value.parse::<i64>().is_ok()
            || ["true", "false"].contains(value)
    };
    (key, value.filter(is_toml).map(str::to_owned))
}

fn compare(found: &BTreeSet<(String, String)>, tables: &[(String, Table)]) {
    let rows = tables.iter().flat_map(|(section, table)| {
        let key = |row: &Vec<String>| (section.clone(), key_and_default(row).0);
        table.rows.iter().map(key).collect::<Vec<_>>()
    });
    let rows: BTreeSet<_> = rows.collect();
    let missing: Vec<_> = found.difference(&rows).collect();
    let invented: Vec<_> = rows.difference(found).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "docs/configuration.md lacks {missing:?}; nobody reads {invented:?}"
    );
}

/// With each key set to the default that the page says.
fn defaults(tables: &[(String, Table)]) -> String {
    let mut text = String::new();
    for (section, table) in tables {
        // values that another section's stand for are not said again
        if section.contains(NAME) {
            continue;
        }
        if !section.is_empty() {
            text += &format!("[{section}]\n");
        }
        for row in &table.rows {
            if let (key, Some(value)) = key_and_default(row) {
                text += &format!("{key} = {value}\n");
            }
        }
    }
    text
}

#[test]
fn every_key_of_config_toml() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir.path().join("config.toml");
    let ask = |command: &[&str], text: &str| {
        fs::write(&file, text).unwrap();
        let output = sandbox
            .command(command)
            .env("PREPUB_CONFIG", &file)
            .env_remove("PREPUB_LOG")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    };
    let known = |section: &str| listed(&ask(&["config", "check"], &impossible(section)));
    let mut found = BTreeSet::new();
    keys_below(&known, "", &mut found);
    assert!(found.len() > 40, "{found:?}");
    let tables = documented(false);
    compare(&found, &tables);
    // what is behind a value says where it comes from
    let show = |text: &str| {
        ask(&["config", "show"], text)
            .parse::<toml::Table>()
            .unwrap()
    };
    assert_eq!(
        show(&defaults(&tables)),
        show(""),
        "the page says the defaults"
    );
    // and so does the file that the packages install
    let shown = fs::read_to_string(workspace_root().join("packaging/config.toml")).unwrap();
    for (section, key) in &found {
        assert!(
            shown.contains(&format!("#{key} = ")),
            "packaging/config.toml lacks {section}: {key}"
        );
    }
}

#[test]
fn every_key_of_receiver_toml() {
    let path = Path::new("receiver.toml");
    let known = |section: &str| {
        listed(
            &Config::parse(&impossible(section), path)
                .unwrap_err()
                .to_string(),
        )
    };
    let mut found = BTreeSet::new();
    keys_below(&known, "", &mut found);
    assert!(found.len() > 15, "{found:?}");
    let tables = documented(true);
    compare(&found, &tables);
    assert_eq!(
        Config::parse(&defaults(&tables), path).unwrap(),
        Config::default(),
        "the page says the defaults"
    );
    let shown = fs::read_to_string(workspace_root().join("packaging/receiver.toml")).unwrap();
    for (section, key) in &found {
        assert!(
            shown.contains(&format!("#{key} = ")),
            "packaging/receiver.toml lacks {section}: {key}"
        );
    }
}

/// The sources without their tests.
fn shipped() -> impl Iterator<Item = String> {
    let files = sources().filter(|(path, _)| path.file_stem().is_none_or(|stem| stem != "tests"));
    // tests are at the end of a file
    files.map(|(_, text)| text.split("#[cfg(test)]\nmod ").next().unwrap().to_owned())
}

/// Words of capitals that begin like that.
fn words<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.split(move |c| !is_part(c))
        .filter(move |word| word.starts_with(prefix) && word.len() > prefix.len())
}

/// Keys of `server.conf` and `s3.conf` are literals in the sources, and nothing else is one that looks so.
#[test]
fn every_key_of_server_conf_and_s3_conf() {
    let mut read = BTreeSet::new();
    for text in shipped() {
        let quoted = text.split('"').skip(1).step_by(2);
        for literal in quoted {
            let is_key = words(literal, "CVMFS_")
                .chain(words(literal, "PREPUB_HARD"))
                .next()
                == Some(literal);
            if is_key {
                read.insert(literal.to_owned());
            }
        }
    }
    assert!(read.len() > 40, "{read:?}");
    let mut documented = BTreeSet::new();
    for name in ["docs/configuration.md", "docs/publishing.md"] {
        for table in page(name).tables() {
            for row in &table.rows {
                let cell = row[0].replace("`, `_SECRET_KEY`", "` `CVMFS_S3_SECRET_KEY`");
                let keys = words(&cell, "CVMFS_").chain(words(&cell, "PREPUB_HARD"));
                documented.extend(keys.map(str::to_owned));
            }
        }
        // the example of an s3.conf has a line for each key
        let fences = page(name).fences();
        let lines = fences.iter().flat_map(|fence| fence.text.lines());
        let keys = lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, _)| key.to_owned());
        documented.extend(keys.filter(|key| key.starts_with("CVMFS_S3_")));
    }
    let missing: Vec<_> = read.difference(&documented).collect();
    assert!(missing.is_empty(), "no page says what {missing:?} is");
    let invented: Vec<_> = documented.difference(&read).collect();
    assert!(invented.is_empty(), "nobody reads {invented:?}");
}

#[test]
fn every_variable_of_the_environment() {
    let mut help = String::new();
    for words in [&["--help"][..], &["mount", "--help"]] {
        help += &Sandbox::new().ok(words);
    }
    let main = workspace_root().join("receiver/src/main.rs");
    help += &fs::read_to_string(main).unwrap();
    let taken: BTreeSet<&str> = words(&help, "PREPUB_").collect();
    let tables = page("docs/configuration.md").tables();
    let table = tables
        .iter()
        .find(|table| table.heading == "Environment")
        .unwrap();
    let mut told: BTreeSet<String> = table
        .rows
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert!(told.remove("PREPUB_PREFIX"), "the helper's");
    assert_eq!(
        told.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        taken
    );
}

/// A key that any page names in code with its section's brackets exists.
#[test]
fn sections_that_pages_name_are_there() {
    let sections: BTreeSet<String> = documented(false)
        .into_iter()
        .chain(documented(true))
        .map(|(section, _)| section.replace(&format!("\"{NAME}\""), "\"NAME\""))
        .map(|section| section.trim_matches(['[', ']']).to_owned())
        .collect();
    for page in pages() {
        for span in page.spans() {
            let Some(inner) = span
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next())
            else {
                continue;
            };
            let is_section =
                inner.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !inner.is_empty();
            if is_section {
                assert!(
                    sections.contains(inner),
                    "{}: there is no section [{inner}]",
                    page.name
                );
            }
        }
    }
}
