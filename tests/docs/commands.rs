//! Every command that the pages show can be typed, and every command that can be typed is on some page.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::page::{Page, pages};
use crate::cli::help::verbs_below;
use crate::support::{PREPUB, RECEIVER, program};

/// One command of a line of shell, in words.
type Words = Vec<String>;

/// The commands of a line, as far as a reader of documentation sees them: quotes, comments, and what ends a
/// command.
fn commands_of(line: &str) -> Vec<Words> {
    let mut commands = vec![Words::new()];
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                word.extend(chars.by_ref().take_while(|&inner| inner != c));
            }
            '#' if word.is_none() => break,
            ' ' | '\t' => commands.last_mut().unwrap().extend(word.take()),
            '|' | ';' | '&' | '(' | ')' | '<' | '>' => {
                // the number of what is redirected is no word
                let is_number = |word: &String| word.chars().all(|c| c.is_ascii_digit());
                let word = word.take().filter(|word| c != '>' || !is_number(word));
                commands.last_mut().unwrap().extend(word);
                commands.push(Words::new());
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().unwrap().extend(word);
    commands
}

/// A program of ours and its arguments, if the command is one.
fn ours(words: &[String]) -> Option<(&'static str, &[String])> {
    let before = |word: &str| {
        word.contains('=')
            || [
                "sudo", "exec", "until", "while", "if", "then", "do", "!", "$", "apt",
            ]
            .contains(&word)
    };
    let at = words.iter().position(|word| !before(word))?;
    let name = Path::new(&words[at]).file_name()?.to_str()?;
    let program = [PREPUB, RECEIVER]
        .into_iter()
        .find(|program| *program == name)?;
    Some((program, &words[at + 1..]))
}

/// Lines of code and words in code of a page; an ellipsis, or a verb in capitals, stands for anything.
fn shown(page: &Page) -> Vec<(&'static str, Words)> {
    let code = page.code().join("\n").replace("\\\n", " ");
    let spans = page.spans();
    let lines = code.lines().chain(spans.iter().map(String::as_str));
    let mut shown = Vec::new();
    for line in lines {
        for words in commands_of(line) {
            if let Some((program, rest)) = ours(&words) {
                let anything = |word: &String| word == "..." || word == "VERB";
                let known = rest.iter().take_while(|word| !anything(word));
                let known = known.map(|word| match word.as_str() {
                    "SECONDS" | "DAYS" => "1".to_owned(),
                    word => word.to_owned(),
                });
                shown.push((program, known.collect()));
            }
        }
    }
    shown
}

/// What the program says of such a command line when it is asked for help: that it understands it, or why not.
fn understood(name: &str, words: &[String]) -> Result<String, String> {
    let output = Command::new(program(name))
        .args(words)
        .arg("--help")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[test]
fn what_is_shown_can_be_typed() {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| page.name != "docs/cli.md") {
        for (name, words) in shown(page) {
            if !program(name).exists() {
                continue;
            }
            if let Err(said) = understood(name, &words) {
                let said = said.lines().next().unwrap_or_default();
                wrong.push(format!("{}: {name} {}: {said}", page.name, words.join(" ")));
            }
            seen.insert((name, words.first().cloned().unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 15, "the pages are read: {seen:?}");
}

#[test]
fn what_can_be_typed_is_shown() {
    let mut on_pages = BTreeSet::new();
    let mut generated = String::new();
    for page in pages() {
        match page.name.as_str() {
            "docs/cli.md" => generated = page.text,
            _ => on_pages.extend(shown(&page)),
        }
    }
    for name in [PREPUB, RECEIVER] {
        if !program(name).exists() {
            continue;
        }
        for verb in verbs_below(name, &[]) {
            let spelt = format!("{name} {}", verb.join(" "));
            assert!(
                generated.contains(&format!("\n## {spelt}\n")),
                "docs/cli.md lacks {spelt}"
            );
            let is_it =
                |(program, words): &(&str, Words)| *program == name && words.starts_with(&verb);
            // those are for packages, and for people who read the manual anyway
            if verb[0] != "util" {
                assert!(on_pages.iter().any(is_it), "no page shows {spelt}");
            }
        }
    }
}

#[test]
fn lines_are_read_as_a_shell_reads_them() {
    let read = |line: &str| {
        commands_of(line)
            .iter()
            .filter_map(|words| {
                ours(words).map(|(name, rest)| format!("{name} {}", rest.join(" ")))
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(read("prepub mkfs a.b   # prepub no"), ["prepub mkfs a.b"]);
    assert_eq!(
        read("A=b sudo ./target/prepub diff | jq '.a | prepub'"),
        ["prepub diff"]
    );
    assert_eq!(
        read("url=$(prepub status --json) && prepub tag list r"),
        ["prepub status --json", "prepub tag list r"]
    );
    assert_eq!(
        read("prepub commit r -m \"a b\" >out"),
        ["prepub commit r -m a b"]
    );
    assert_eq!(read("cvmfs-prepub x; echo prepub"), Vec::<String>::new());
}
