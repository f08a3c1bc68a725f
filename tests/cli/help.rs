//! What `--help` says, and what is refused before anything is done.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{PREPUB, RECEIVER, program, receiver, workspace_root};

/// Every command's help, as `docs/cli.md` has it. `PREPUB_BLESS=1` writes the file anew.
#[test]
fn help_is_what_the_documentation_shows() {
    let mut text = String::from(
        "# Command line\n\nWritten by `PREPUB_BLESS=1 cargo test --test prepub cli::help`; do not edit.\n",
    );
    text += &help_of_all(PREPUB);
    let helper = workspace_root().join("packaging/prepub-build");
    let helper = Command::new(helper).arg("--help").output().unwrap();
    text += &section("prepub-build", &String::from_utf8(helper.stdout).unwrap());
    let of_receiver = format!("\n## {RECEIVER}\n");
    let is_there = receiver().is_some();
    if is_there {
        text += &help_of_all(RECEIVER);
    }
    let file = workspace_root().join("docs/cli.md");
    if std::env::var_os("PREPUB_BLESS").is_some() {
        assert!(is_there, "build the workspace, for prepub-receiver's");
        fs::write(&file, &text).unwrap();
    }
    let mut documented = fs::read_to_string(&file).unwrap_or_default();
    if !is_there {
        documented.truncate(documented.find(&of_receiver).unwrap_or(documented.len()));
    }
    assert!(
        documented == text,
        "docs/cli.md is not what --help says; run with PREPUB_BLESS=1 and look at the difference"
    );
}

fn section(name: &str, help: &str) -> String {
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let lines = lines.join("\n");
    format!("\n## {name}\n\n```text\n{}\n```\n", lines.trim_end())
}

fn help_of_all(name: &str) -> String {
    let mut words = vec![Vec::new()];
    words.extend(verbs_below(name, &[]));
    let one = |words: &Vec<String>| {
        let called = [&[name.to_owned()], &words[..]].concat().join(" ");
        section(&called, &help_of(name, words))
    };
    words.iter().map(one).collect()
}

fn help_of(name: &str, words: &[String]) -> String {
    let mut command = bare(&program(name));
    let output = command.args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{name} {words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What can be typed behind these words, down to what has nothing below it, in the order of the help.
pub fn verbs_below(name: &str, words: &[String]) -> Vec<Vec<String>> {
    let help = help_of(name, words);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // what is explained on a second line stands further in
    let listed = listed
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "));
    let mut found = Vec::new();
    for verb in listed.filter_map(|line| line.split_whitespace().next()) {
        let below = [words, &[verb.to_owned()]].concat();
        if verb != "help" {
            found.extend(verbs_below(name, &below));
        }
    }
    match found.is_empty() {
        true => vec![words.to_vec()],
        false => found,
    }
}

/// A program with nothing of ours in its environment.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null());
    command
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["frobnicate"][..],
        &["commit"],
        &["commit", "a.example.org", "--open-files", "perhaps"],
        &["unmount", "--commit", "--discard"],
        &["mkfs", "a.example.org", "--hash", "md5"],
        &["resign", "a.example.org", "--days", "0"],
        &["tag"],
        &[],
    ] {
        let output = bare(&program(PREPUB)).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let output = bare(&program(PREPUB)).arg("--version").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}
