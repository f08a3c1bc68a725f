//! Failures as people and scripts meet them: what went wrong, what to do, and the exit code.
//!
//! Every error of the libraries becomes a [`Failure`] here, once, by exhaustive match
//! (`report/convert.rs`). This module prints only at the very end, from `main`.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::{clock, users};

mod convert;

/// Shorthand.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// What sort of failure it is. Decides the exit code; part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Anything without a kind of its own.
    Failed,
    /// What was named is not there.
    NotFound,
    /// The caller may not.
    Denied,
    /// Disk or quota is full.
    NoSpace,
    /// Something of the repository is corrupt, wrongly signed or missing.
    Damaged,
    /// Whitelist or certificate ran out.
    Expired,
    /// The question makes no sense.
    Usage,
    /// Others changed the same paths meanwhile.
    Conflict,
    /// Somebody else publishes, or holds the lock.
    Busy,
    /// Files are open for writing.
    OpenFiles,
    /// Not enough Stratum 1s.
    Quorum,
    /// The daemon does not answer.
    Unreachable,
}

impl Kind {
    /// Each.
    pub const ALL: [Self; 12] = [
        Self::Failed,
        Self::NotFound,
        Self::Denied,
        Self::NoSpace,
        Self::Damaged,
        Self::Expired,
        Self::Usage,
        Self::Conflict,
        Self::Busy,
        Self::OpenFiles,
        Self::Quorum,
        Self::Unreachable,
    ];

    /// As the API and figures name it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::NoSpace => "no_space",
            Self::Damaged => "damaged",
            Self::Expired => "expired",
            Self::Usage => "usage",
            Self::Conflict => "conflict",
            Self::Busy => "busy",
            Self::OpenFiles => "open_files",
            Self::Quorum => "quorum",
            Self::Unreachable => "unreachable",
        }
    }

    /// The exit code that scripts rely on.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed
            | Self::NotFound
            | Self::Denied
            | Self::NoSpace
            | Self::Damaged
            | Self::Expired => 1,
            Self::Usage => 2,
            Self::Conflict => 3,
            Self::Busy => 4,
            Self::OpenFiles => 5,
            Self::Quorum => 6,
            Self::Unreachable => 7,
        }
    }
}

/// Paths that are printed one by one; the rest is counted.
const PATHS_PRINTED_MAX: usize = 20;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Sort and exit code.
    pub kind: Kind,
    /// One sentence.
    pub message: String,
    /// What led to it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The paths it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            paths: Vec::new(),
        }
    }

    /// Plain failure, exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Wrong usage, exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is none yet.
    #[must_use]
    pub fn hint_if_none(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() {
            return self;
        }
        self.hint(hint)
    }

    /// Adds the paths it is about.
    #[must_use]
    pub fn paths<T: ToString>(mut self, paths: impl IntoIterator<Item = T>) -> Self {
        self.paths.extend(paths.into_iter().map(|p| p.to_string()));
        self
    }

    /// Adds an error and all it stems from.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Puts what was being done in front; what it was becomes the first cause.
    #[must_use]
    pub fn while_doing(mut self, what: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.message, what.into());
        self.causes.insert(0, inner);
        self
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    /// As one JSON object, for `--json`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut error = serde_json::to_value(self).unwrap_or_default();
        error["exit_code"] = self.kind.exit_code().into();
        serde_json::json!({ "error": error })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        for path in self.paths.iter().take(PATHS_PRINTED_MAX) {
            write!(f, "\n  {path}")?;
        }
        if let Some(more) = self.paths.len().checked_sub(PATHS_PRINTED_MAX)
            && more > 0
        {
            write!(f, "\n  and {more} more")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Turns any error into a plain failure with a sentence in front.
pub trait Context<T> {
    /// `what` says what was being done.
    ///
    /// # Errors
    /// The failure, with the error as its cause.
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| {
            let kind = match (&error as &dyn Error).downcast_ref::<std::io::Error>() {
                Some(e) => kind_of_io(e),
                None => Kind::Failed,
            };
            Failure::new(kind, what.to_string()).because(&error)
        })
    }
}

/// The kind of an operating system's error.
#[must_use]
pub fn kind_of_io(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::NotFound => Kind::NotFound,
        E::PermissionDenied => Kind::Denied,
        E::StorageFull | E::QuotaExceeded => Kind::NoSpace,
        _ => Kind::Failed,
    }
}

/// What to do about a transaction that somebody has open in a repository of `cvmfs_server`.
#[must_use]
pub fn transaction_hint(repo: &str, uid: u32, since: SystemTime) -> String {
    let seconds = clock::wall().duration_since(since).unwrap_or_default();
    let age = match seconds.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    let user = users::name_of(uid);
    format!(
        "{user} opened it {age} ago; `cvmfs_server publish {repo}` or `cvmfs_server abort {repo}` ends it. What is staged here is kept: try again then"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of DESIGN: 0 done, 1 failed, 2 usage, 3 conflict, 4 busy, 5 open files, 6 quorum,
    /// 7 daemon not reachable.
    #[test]
    fn exit_codes() {
        let table = [
            (Kind::Failed, 1),
            (Kind::NotFound, 1),
            (Kind::Denied, 1),
            (Kind::NoSpace, 1),
            (Kind::Damaged, 1),
            (Kind::Expired, 1),
            (Kind::Usage, 2),
            (Kind::Conflict, 3),
            (Kind::Busy, 4),
            (Kind::OpenFiles, 5),
            (Kind::Quorum, 6),
            (Kind::Unreachable, 7),
        ];
        for (kind, code) in table {
            assert_eq!(kind.exit_code(), code, "{kind:?}");
        }
        assert_eq!(table.map(|(kind, _)| kind), Kind::ALL);
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }

    /// docs/troubleshooting.md explains each word, with its exit code, and no other.
    #[test]
    fn each_word_is_explained() {
        let page = include_str!("../docs/troubleshooting.md");
        let (_, table) = page.split_once("| kind | exit code |").unwrap();
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let explained: Vec<String> = rows.map(|row| row.replace(' ', "")).collect();
        // the only list of them that the compiler keeps
        let refused = serde_json::from_str::<Kind>("\"?\"")
            .unwrap_err()
            .to_string();
        let words: Vec<&str> = refused.split('`').skip(3).step_by(2).collect();
        assert_eq!(words.len(), explained.len());
        for word in words {
            let kind: Kind = serde_json::from_value(word.into()).unwrap();
            let row = format!("|`{word}`|{}|", kind.exit_code());
            assert!(
                explained.iter().any(|line| line.starts_with(&row)),
                "{word}"
            );
            assert!(
                page.contains(&format!("\n| {} | ", kind.exit_code())),
                "by exit code"
            );
        }
    }

    #[test]
    fn says_causes_paths_and_hint() {
        let failure = Failure::new(Kind::Conflict, "a newer revision changed the same paths")
            .because(&std::io::Error::other("inner"))
            .paths((0..22).map(|i| format!("/p{i}")))
            .hint("look at `prepub diff`");
        let text = failure.to_string();
        assert!(text.starts_with("a newer revision changed the same paths: inner\n  /p0\n"));
        assert!(text.ends_with("  /p19\n  and 2 more\nhint: look at `prepub diff`"));
        assert_eq!(failure.to_json()["error"]["exit_code"], 3);
        let back: Failure = serde_json::from_value(failure.to_json()["error"].clone()).unwrap();
        assert_eq!(back, failure, "goes through the API unchanged");
    }
}
