//! `.cvmfsdirtab`: which directories become nested catalogs, by rules.
//!
//! ```text
//! # a comment
//! /software/*             each directory directly below /software
//! /data/run?[0-9]         wildcards match dot names, never a slash
//! ! */.git                none of those that match this; here * does match slashes
//! ```
//!
//! A positive rule is absolute and is matched as `glob(3)` does, component by component. A negative
//! rule is matched against the whole path: `*` is any run of bytes, `?` any byte but a slash. In
//! both, a backslash takes the meaning off `*`, `?` and itself, and a rule does not reach below the
//! directories it names [CVMFS `dirtab.cc`, `pathspec.cc`, `swissknife_sync.cc:CommandApplyDirtab`].
//!
//! Matching is on bytes and needs no memory; this module never looks at a tree.

mod glob;

use crate::path::RepoPath;
use glob::Token;

/// Far above what anybody writes by hand.
pub const MAX_DIRTAB_BYTES: usize = 1 << 20;

/// The longest path that a system call takes.
const MAX_RULE_BYTES: usize = 4096;

/// Four times the longest name, for escapes and brackets.
const MAX_ELEMENT_BYTES: usize = 1024;

/// Why a dirtab cannot be used. One bad line makes the whole file void, as with the official tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirtabError {
    /// The file is too large.
    #[error(".cvmfsdirtab of {0} bytes; it must not exceed {MAX_DIRTAB_BYTES}")]
    TooLarge(usize),
    /// A line is no rule.
    #[error(".cvmfsdirtab, line {line}: {rule:?} {what}")]
    BadRule {
        /// Counted from 1.
        line: usize,
        /// The rule.
        rule: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// One line says yes and one says no to the same.
    #[error(".cvmfsdirtab: {rule:?} stands on line {positive}, and with a ! on line {negative}")]
    Contradiction {
        /// The rule.
        rule: String,
        /// The line without `!`, counted from 1.
        positive: usize,
        /// The line with it.
        negative: usize,
    },
}

/// A parsed `.cvmfsdirtab`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirtab {
    positive: Vec<Rule>,
    negative: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    line: usize,
    text: String,
    absolute: bool,
    /// As written, to tell equal rules by.
    elements: Vec<Vec<Token>>,
    /// What is matched: a pattern for each component, or in a negative rule one for all.
    patterns: Vec<Vec<Token>>,
}

impl Dirtab {
    /// Reads a dirtab.
    ///
    /// # Errors
    /// [`DirtabError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DirtabError> {
        if bytes.len() > MAX_DIRTAB_BYTES {
            return Err(DirtabError::TooLarge(bytes.len()));
        }
        let mut dirtab = Self::default();
        for (line, text) in (1..).zip(bytes.split(|b| *b == b'\n')) {
            let text = skip_spaces(text);
            if text.starts_with(b"#") {
                continue;
            }
            let (negative, text) = match text.strip_prefix(b"!") {
                Some(rest) => (true, skip_spaces(rest)),
                None => (false, text),
            };
            let text = trim(text);
            if text.is_empty() {
                continue;
            }
            let rule = Rule::parse(line, text, negative)?;
            if negative {
                dirtab.negative.push(rule);
            } else {
                dirtab.positive.push(rule);
            }
        }
        dirtab.contradiction()?;
        Ok(dirtab)
    }

    /// True if the directory at `path` is to have a catalog of its own.
    ///
    /// The caller knows that a real directory stands there. The root never matches.
    #[must_use]
    pub fn matches(&self, path: &RepoPath) -> bool {
        self.is_named(path.as_bytes()) && !self.is_excluded(path.as_bytes())
    }

    /// True if a directory strictly below `path` could match: is a tree worth walking?
    #[must_use]
    pub fn may_match_below(&self, path: &RepoPath) -> bool {
        self.positive.iter().any(|rule| {
            let mut patterns = rule.patterns.iter();
            let mut follows = |name| patterns.next().is_some_and(|p| glob::matches(p, name));
            components(path.as_bytes()).all(&mut follows) && patterns.next().is_some()
        })
    }

    /// True if there is no positive rule, so that nothing can match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positive.is_empty()
    }

    fn is_named(&self, path: &[u8]) -> bool {
        self.positive.iter().any(|rule| {
            let mut patterns = rule.patterns.iter();
            let mut follows = |name| patterns.next().is_some_and(|p| glob::matches(p, name));
            components(path).all(&mut follows) && patterns.next().is_none()
        })
    }

    fn is_excluded(&self, path: &[u8]) -> bool {
        let excludes = |pattern: &Vec<Token>| glob::matches(pattern, path);
        self.negative
            .iter()
            .any(|rule| rule.patterns.iter().any(excludes))
    }

    fn contradiction(&self) -> Result<(), DirtabError> {
        // relative rules are negative alone, so the elements are enough to compare
        let mut seen: std::collections::HashMap<_, _> = self
            .negative
            .iter()
            .filter(|rule| rule.absolute)
            .map(|rule| (&rule.elements, rule))
            .collect();
        let clash = |rule: &Rule| seen.remove(&rule.elements).map(|n| (rule.line, n));
        match self.positive.iter().find_map(clash) {
            None => Ok(()),
            Some((positive, negative)) => Err(DirtabError::Contradiction {
                rule: negative.text.clone(),
                positive,
                negative: negative.line,
            }),
        }
    }
}

impl Rule {
    fn parse(line: usize, text: &[u8], negative: bool) -> Result<Self, DirtabError> {
        let text_shown: String = text.escape_ascii().take(200).map(char::from).collect();
        let bad = |what| DirtabError::BadRule {
            line,
            rule: text_shown.clone(),
            what,
        };
        let absolute = text.starts_with(b"/");
        if !absolute && !negative {
            return Err(bad("must begin with a slash"));
        }
        if text.contains(&0) {
            return Err(bad("has a NUL in it"));
        }
        if text.len() > MAX_RULE_BYTES || components(text).any(|e| e.len() > MAX_ELEMENT_BYTES) {
            return Err(bad("is longer than any path"));
        }
        let elements = components(text)
            .map(glob::tokens)
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad("has a backslash before something that needs none"))?;
        if elements.is_empty() {
            return Err(bad("names no directory"));
        }
        let patterns = match negative {
            true => vec![glob::join(&elements, absolute)],
            false => elements.iter().map(|e| glob::glob(e)).collect(),
        };
        Ok(Self {
            line,
            text: text_shown,
            absolute,
            elements,
            patterns,
        })
    }
}

/// The parts between slashes; empty ones do not count.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty())
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let spaces = text.iter().take_while(|b| **b == b' ').count();
    &text[spaces..]
}

fn trim(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let begin = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|b| !blank(b))
        .map_or(begin, |i| i + 1);
    &text[begin..end]
}

#[cfg(test)]
mod tests;
