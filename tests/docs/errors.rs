//! What the pages say that the programs say, they say; and what `prepub doctor` looks at is explained.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::page::{page, pages, spans};
use super::sources::sources;
use crate::support::{REPO, Sandbox, workspace_root};

/// All of it as one text, with what is written over several lines put together, and blanks made one.
fn all_sources() -> String {
    let mut text: String = sources().map(|(_, text)| text).collect();
    text += &fs::read_to_string(workspace_root().join("packaging/prepub-build")).unwrap();
    let text = text.replace("\\\n", "").replace("\\\"", "\"");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is shorter is often put together of two, and may stand anywhere.
const SENTENCE_BYTES_MIN: usize = 10;

/// A message's parts between what stands for something else (words in capitals, dots, the name of a program)
/// and between errors that stem from one another.
fn parts(message: &str) -> Vec<String> {
    let is_capital = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
    let stands_for = |word: &str| {
        let mut names = word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        word.contains("...")
            || word.contains('`')
            || names.any(|name| is_capital(name) || name == "cvmfs_server")
    };
    let mut parts = vec![Vec::new()];
    for word in message.split_whitespace() {
        if stands_for(word) {
            parts.push(Vec::new());
            continue;
        }
        let bare = word.trim_end_matches([':', ',']);
        parts.last_mut().unwrap().push(bare);
        if bare != word {
            parts.push(Vec::new());
        }
    }
    let long = |part: &String| part.len() >= SENTENCE_BYTES_MIN;
    parts
        .into_iter()
        .map(|words| words.join(" "))
        .filter(long)
        .collect()
}

#[test]
fn what_is_said_to_be_said_is_said() {
    let sources = all_sources();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for page in pages() {
        let tables = page.tables();
        let said = tables
            .iter()
            .filter(|table| table.header[0].starts_with("said"));
        for row in said.flat_map(|table| &table.rows) {
            // those are another program's words
            if row[0].starts_with("`cvmfs_server`:") {
                continue;
            }
            for part in spans(&row[0]).iter().flat_map(|message| parts(message)) {
                looked_at += 1;
                if !sources.contains(&part) {
                    wrong.push(format!("{}: {part}", page.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "nobody says\n{}", wrong.join("\n"));
    assert!(looked_at > 60, "the pages are read: {looked_at}");
}

/// What stands in cells of messages, in parts and as a whole, on any page.
fn said() -> Vec<String> {
    let tables = pages().into_iter().flat_map(|page| page.tables());
    let tables = tables.filter(|table| table.header[0].starts_with("said"));
    let cells = tables
        .flat_map(|table| table.rows)
        .map(|row| row[0].clone());
    let messages = cells.flat_map(|cell| spans(&cell));
    let all = messages.flat_map(|message| [parts(&message), vec![message]].concat());
    all.filter(|text| text.len() >= SENTENCE_BYTES_MIN)
        .collect()
}

/// The sentences that begin the program's own errors, as they stand in its sources.
fn sentences() -> Vec<String> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(workspace_root().join("src")) {
        let entry = entry.unwrap();
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "rs") || path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(path)
            .unwrap()
            .replace("\\\n", "")
            .replace("\\\"", "'");
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for call in text.split("Failure::").skip(1) {
            let makes = ["new(", "failed(", "usage("]
                .iter()
                .any(|name| call.starts_with(name));
            let Some((before, rest)) = call.split_once('"') else {
                continue;
            };
            let is_first = before.split_whitespace().all(|word| {
                let word = word.trim_end_matches(['(', ',']);
                ["new", "failed", "usage", "format!", ""].contains(&word)
                    || word.ends_with("(format!")
                    || word.contains("Kind::")
            });
            if makes && is_first {
                let sentence = rest.split('"').next().unwrap();
                found.push(sentence.split_whitespace().collect::<Vec<_>>().join(" "));
            }
        }
    }
    found
}

#[test]
fn what_the_program_says_is_explained() {
    let said = said();
    let sentences = sentences();
    assert!(sentences.len() > 60, "{sentences:?}");
    let mut missing = Vec::new();
    for sentence in &sentences {
        // of some nothing is left but what they are about
        let mut fixed = sentence.split(['{', '}']).step_by(2);
        let is_bare = fixed.all(|part| part.trim().len() < SENTENCE_BYTES_MIN);
        if !is_bare && !said.iter().any(|part| sentence.contains(part)) {
            missing.push(sentence.as_str());
        }
    }
    assert!(
        missing.is_empty(),
        "no page explains\n{}",
        missing.join("\n")
    );
}

#[test]
fn what_doctor_looks_at_is_explained() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let output = sandbox.run(["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tables = page("docs/troubleshooting.md").tables();
    let table = tables
        .iter()
        .find(|table| table.header[0] == "subject")
        .unwrap();
    let explained: BTreeSet<&str> = table
        .rows
        .iter()
        .map(|row| row[0].trim_matches('`'))
        .collect();
    for finding in diagnosis["findings"].as_array().unwrap() {
        let subject = finding["subject"].as_str().unwrap();
        assert!(subject == REPO || explained.contains(subject), "{subject}");
    }
    let sources = all_sources();
    for subject in explained.iter().filter(|subject| !subject.contains("name")) {
        assert!(
            sources.contains(&format!("\"{subject}\"")),
            "nobody looks at {subject}"
        );
    }
    let of_receiver = tables
        .iter()
        .find(|table| table.header[0] == "check")
        .unwrap();
    for name in of_receiver.rows.iter().flat_map(|row| spans(&row[0])) {
        let first = name.split(' ').next().unwrap();
        assert!(
            sources.contains(&format!("\"{first}")),
            "nobody looks at {name}"
        );
    }
}

/// What a commit says of a site is one of three words.
#[test]
fn states_of_a_site_are_explained() {
    let source = fs::read_to_string(workspace_root().join("commit/src/warm/outcome.rs")).unwrap();
    let (_, after) = source
        .split_once("pub enum SiteState {")
        .expect("its definition");
    let body = after.split('}').next().unwrap();
    let variants = body
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with(','));
    let variants: BTreeSet<String> = variants
        .map(|line| line.trim_end_matches(',').to_lowercase())
        .collect();
    let tables = page("docs/troubleshooting.md").tables();
    let table = tables
        .iter()
        .find(|table| table.header[0] == "state")
        .unwrap();
    let explained: BTreeSet<String> = table
        .rows
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(explained, variants);
}

/// In columns of exit codes stand those that there are; each has a row of its own in one table.
#[test]
fn exit_codes_are_those_that_there_are() {
    let page_of_them = page("docs/troubleshooting.md");
    let tables = page_of_them.tables();
    let table = tables
        .iter()
        .find(|table| table.header[0] == "exit code")
        .unwrap();
    let codes: Vec<&str> = table.rows.iter().map(|row| row[0].as_str()).collect();
    let help = Sandbox::new().ok(["--help"]);
    let (_, listed) = help.split_once("Exit codes:").unwrap();
    let listed = listed.split("\n\n").next().unwrap();
    let is_number = |word: &&str| word.len() == 1 && word.parse::<u8>().is_ok();
    let mut known: Vec<&str> = listed.split_whitespace().filter(is_number).collect();
    known.sort_unstable();
    assert_eq!(codes, known);
    for page in pages() {
        for table in page.tables() {
            let columns = table.header.iter().enumerate();
            for (at, _) in columns.filter(|(_, title)| title.starts_with("exit")) {
                for row in &table.rows {
                    let is_number = row[at].parse::<u8>().is_ok();
                    assert!(
                        !is_number || codes.contains(&row[at].as_str()),
                        "{}: {row:?}",
                        page.name
                    );
                }
            }
        }
    }
}
