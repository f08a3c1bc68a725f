//! What is wrong with a configuration file: the line, the key, and what was probably meant.

use std::path::Path;

use formats::RepoPath;

use super::File;
use super::warm::Quorum;
use crate::report::{Failure, Result};

/// More connections to one site fill no line better, and take a receiver's threads from others.
const CONNECTIONS_MAX: usize = 32;

/// A parser's error in the words of the person who wrote the file.
pub fn explain(error: &toml::de::Error, text: &str, path: &Path) -> Failure {
    let place = match error.span() {
        Some(span) => {
            let before = &text[..span.start.min(text.len())];
            let line = before.matches('\n').count() + 1;
            format!("{}, line {line}", path.display())
        }
        None => path.display().to_string(),
    };
    let message = error.message().lines().next().unwrap_or("not valid TOML");
    let failure = Failure::usage(format!("{place}: {message}"));
    // serde's wording of an unknown key names it first, and then every known one
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    match quoted.next() {
        Some(wrong) if is_unknown => match nearest(wrong, quoted) {
            Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
            None => failure.hint("`prepub config show` lists every key"),
        },
        _ => failure.hint("`prepub config check FILE` reads a file without using it"),
    }
}

/// Refuses values that are well written and make no sense.
pub fn check(file: &File, path: &Path) -> Result<()> {
    let wrong = |what: String| Err(Failure::usage(format!("{}: {what}", path.display())));
    for (name, repository) in &file.repository {
        if let Err(e) = commit::home::check_name(name) {
            return wrong(format!("[repository.\"{name}\"]: {e}"));
        }
        for allow in &repository.allow {
            if let Some(at) = &allow.path
                && at != "/"
                && RepoPath::new(at.as_bytes()).is_err()
            {
                return wrong(format!(
                    "[[repository.\"{name}\".allow]]: path = {at:?} is no path of a repository; write \"/a/b\""
                ));
            }
            if allow.users.is_empty() && allow.groups.is_empty() {
                return wrong(format!(
                    "[[repository.\"{name}\".allow]]: names neither users nor groups"
                ));
            }
            if allow.may.is_empty() {
                return wrong(format!(
                    "[[repository.\"{name}\".allow]]: `may` is empty; one or more of \"write\", \"commit\", \"abort\", \"tag\""
                ));
            }
        }
    }
    check_warm(file).or_else(&wrong)?;
    if file.stage.refresh_interval.0.is_zero() {
        return wrong("[stage]: refresh_interval must not be 0; use refresh = \"pinned\"".into());
    }
    Ok(())
}

/// What `[warm]` says of sites and of the publisher itself.
fn check_warm(file: &File) -> std::result::Result<(), String> {
    let section = &file.warm;
    let is_node = |name: &str| {
        name.parse::<formats::warm::NodeName>()
            .map_err(|e| e.to_string())
    };
    if let Some(name) = &section.name {
        is_node(name).map_err(|e| format!("[warm]: name: {e}"))?;
    }
    let own = file
        .repository
        .values()
        .filter_map(|r| r.warm.quorum.as_ref());
    for quorum in own.chain([&section.quorum]) {
        if let Quorum::Named(names) = quorum {
            for name in names {
                is_node(name).map_err(|e| format!("[warm]: quorum: {e}"))?;
            }
        }
    }
    if !(1..=CONNECTIONS_MAX).contains(&section.connections) {
        return Err(format!("[warm]: connections is 1 to {CONNECTIONS_MAX}"));
    }
    if let Some(url) = section
        .url
        .as_ref()
        .filter(|url| !url.starts_with("https://"))
    {
        return Err(format!(
            "[warm]: url = {url:?} does not begin with https://"
        ));
    }
    match &section.broker {
        Some(broker) if !broker.starts_with("mqtts://") => {
            return Err(format!(
                "[warm]: broker = {broker:?} does not begin with mqtts://"
            ));
        }
        None if section.broker_ca.is_some() => {
            return Err("[warm]: `broker_ca` stands without `broker`".into());
        }
        _ => {}
    }
    match (&section.listen, &section.url) {
        (Some(_), None) => Err("[warm]: `listen` needs `url`, by which sites find it".into()),
        _ => Ok(()),
    }
}

/// Names further than this from what was written are no suggestion.
const DISTANCE_MAX: usize = 3;

/// The candidate that differs least from `wrong`.
fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, name)| *distance <= DISTANCE_MAX.min(name.len() / 2 + 1))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's: letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
