//! The control API: what can be asked, and what is answered. CLI and daemon share these types.
//!
//! ```text
//! POST /v1/VERB   {"repo": ..., ...}      verbs and fields: [`Request`]
//!   -> 200 application/x-ndjson, one event a line:
//!      {"progress": {"step": "seal", "done": 3, "total": 10, "unit": "files"}}   any number
//!      {"note": "..."}                                                           any number
//!      {"done": {...}}  or  {"error": {"kind": ..., "message": ..., "hint": ...}}   the last
//! ```
//!
//! Paths are text: any byte that is not UTF-8 is written `\xNN`, a backslash `\\`; the root is `/`.

use std::path::PathBuf;

use formats::RepoPath;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::config::{OnConflict, OpenFiles};
use crate::report::{Failure, Kind};

pub mod reply;

/// A question. Its JSON has the verb in the address, the fields in the body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// Is there a daemon, and what does it do?
    Health,
    /// Makes a repository.
    Mkfs(Mkfs),
    /// What is staged.
    Status(Status),
    /// What would be published.
    Diff(Diff),
    /// Publishes.
    Commit(Commit),
    /// Drops staged changes.
    Abort(At),
    /// Lists tags.
    TagList(Repo),
    /// Sets a tag on the newest revision.
    TagAdd(TagAdd),
    /// Removes tags.
    TagRemove(TagRemove),
    /// Publishes an earlier revision again.
    Rollback(Rollback),
    /// Checks what is published.
    Check(Check),
    /// Renews the whitelist.
    Resign(Resign),
    /// Deletes a repository.
    Rmfs(Repo),
    /// Ends the daemon.
    Unmount(Unmount),
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repo {
    /// Its name.
    pub repo: String,
}

/// A path of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The repository.
    pub repo: String,
    /// The path.
    #[serde(default)]
    pub path: PathText,
}

/// `mkfs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mkfs {
    /// Its name.
    pub repo: String,
    /// Where its storage goes.
    #[serde(default)]
    pub storage: Option<PathBuf>,
    /// Where its keys come from.
    #[serde(default)]
    pub keys: Option<PathBuf>,
    /// sha1, rmd160 or shake128.
    #[serde(default)]
    pub hash: Option<String>,
    /// zlib or none.
    #[serde(default)]
    pub compression: Option<formats::Compression>,
    /// Whose the root directory shall be.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
}

/// `status`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// One repository; all if absent.
    #[serde(default)]
    pub repo: Option<String>,
    /// Answer when everything closed is sealed.
    #[serde(default)]
    pub wait: bool,
}

/// `diff`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The repository.
    pub repo: String,
    /// Below these paths; none: all of it.
    #[serde(default)]
    pub paths: Vec<PathText>,
}

/// `commit`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The repository.
    pub repo: String,
    /// What to publish; none: all of it.
    #[serde(default)]
    pub paths: Vec<PathText>,
    /// A name for the revision.
    #[serde(default)]
    pub tag: Option<String>,
    /// The tag's description.
    #[serde(default)]
    pub message: String,
    /// Publish nothing, say what would be.
    #[serde(default)]
    pub dry_run: bool,
    /// Make a revision even if nothing changed.
    #[serde(default)]
    pub allow_empty: bool,
    /// Longest wait for open files and for other commits.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
    /// What to do about open files.
    #[serde(default)]
    pub open_files: Option<OpenFiles>,
    /// What to do about collisions.
    #[serde(default)]
    pub on_conflict: Option<OnConflict>,
}

/// `tag-add`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagAdd {
    /// The repository.
    pub repo: String,
    /// The name.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub message: String,
}

/// `tag-remove`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagRemove {
    /// The repository.
    pub repo: String,
    /// Which.
    pub names: Vec<String>,
}

/// `rollback`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// The repository.
    pub repo: String,
    /// To which tag.
    pub tag: String,
}

/// `check`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The repository.
    pub repo: String,
    /// Hash every object.
    #[serde(default)]
    pub data: bool,
}

/// `resign`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resign {
    /// The repository.
    pub repo: String,
    /// For how long.
    pub days: u32,
    /// The keys were replaced on purpose: they sign the published revision, too.
    #[serde(default)]
    pub new_keys: bool,
}

/// `unmount`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmount {
    /// What becomes of staged changes.
    pub staged: Staged,
}

/// What becomes of staged changes when the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Staged {
    /// As the configuration says: `on_unmount`.
    Configured,
    /// They are published; if that fails the daemon stays.
    Commit,
    /// They are dropped.
    Discard,
}

impl Request {
    /// The verb in the address.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Mkfs(_) => "mkfs",
            Self::Status(_) => "status",
            Self::Diff(_) => "diff",
            Self::Commit(_) => "commit",
            Self::Abort(_) => "abort",
            Self::TagList(_) => "tag-list",
            Self::TagAdd(_) => "tag-add",
            Self::TagRemove(_) => "tag-remove",
            Self::Rollback(_) => "rollback",
            Self::Check(_) => "check",
            Self::Resign(_) => "resign",
            Self::Rmfs(_) => "rmfs",
            Self::Unmount(_) => "unmount",
        }
    }

    /// A question from the address's verb and the body.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for an unknown verb, [`Kind::Usage`] for a body that does not fit.
    pub fn from_http(verb: &str, body: &[u8]) -> Result<Self, Failure> {
        let mut value: serde_json::Value = match body {
            b"" => serde_json::json!({}),
            body => serde_json::from_slice(body)
                .map_err(|e| Failure::usage("the body is not JSON").because(&e))?,
        };
        let Some(object) = value.as_object_mut() else {
            return Err(Failure::usage("the body is not a JSON object"));
        };
        object.insert("verb".into(), verb.into());
        serde_json::from_value(value).map_err(|e| {
            let text = e.to_string();
            let kind = match text.starts_with("unknown variant") {
                true => Kind::NotFound,
                false => Kind::Usage,
            };
            Failure::new(kind, format!("cannot take {verb:?}: {text}"))
        })
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// Something worth saying on the way.
    Note(String),
    /// The answer.
    Done(serde_json::Value),
    /// Why there is none.
    Error(Failure),
}

/// How far something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// So much is done.
    pub done: u64,
    /// Of so much; 0 where that is not known.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Repositories are opened and their stages recovered.
    Recover,
    /// Files are sealed.
    Seal,
    /// Objects go into the storage.
    Store,
    /// Catalogs are written.
    Catalogs,
    /// Tags, reflog and manifest.
    Submit,
    /// Catalogs and objects are checked.
    Check,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Repositories.
    Repositories,
    /// Files.
    Files,
    /// Objects.
    Objects,
    /// Catalogs.
    Catalogs,
    /// Steps.
    Steps,
}

/// Hears how far something is. Called from several threads.
pub trait Watch: Send + Sync {
    /// So far.
    fn progress(&self, progress: Progress);
    /// Something worth saying.
    fn note(&self, text: &str);
}

/// A path in the API's text form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathText(pub RepoPath);

impl std::fmt::Display for PathText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_root() {
            return f.write_str("/");
        }
        for chunk in self.0.as_bytes().utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    // a newline in a name must not forge a line of output
                    c if c.is_control() => {
                        let mut bytes = [0; 4];
                        for byte in c.encode_utf8(&mut bytes).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => write!(f, "{c}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for PathText {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if matches!(s, "" | "/") {
            return Ok(Self(RepoPath::root()));
        }
        let mut bytes = Vec::with_capacity(s.len());
        let mut rest = s.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let hex = |at: usize| rest.get(at).and_then(|b| char::from(*b).to_digit(16));
            match (rest.first(), hex(1), hex(2)) {
                (Some(b'\\'), ..) => {
                    bytes.push(b'\\');
                    rest = &rest[1..];
                }
                (Some(b'x'), Some(high), Some(low)) => {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    rest = &rest[3..];
                }
                _ => return Err(format!("{s:?}: after a backslash comes another one or xNN")),
            }
        }
        RepoPath::new(&bytes).map(Self).map_err(|e| e.to_string())
    }
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl From<RepoPath> for PathText {
    fn from(path: RepoPath) -> Self {
        Self(path)
    }
}

impl From<&RepoPath> for PathText {
    fn from(path: &RepoPath) -> Self {
        Self(path.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_survive_text() {
        for bytes in [
            &b""[..],
            b"/a",
            b"/a\\b",
            b"/\xff\xfe/x",
            b"/n\nl",
            "/ü/\\x41".as_bytes(),
        ] {
            let path = PathText(RepoPath::new(bytes).unwrap());
            let text = path.to_string();
            assert!(!text.contains('\n'));
            assert_eq!(text.parse::<PathText>().unwrap(), path, "{text}");
        }
        assert_eq!(
            PathText(RepoPath::new(b"/\xff").unwrap()).to_string(),
            "/\\xff"
        );
        for bad in ["a", "/a/../b", "/\\q", "/\\x4", "/a\\"] {
            assert!(bad.parse::<PathText>().is_err(), "{bad}");
        }
    }

    #[test]
    fn requests_from_http() {
        let body = br#"{"repo":"a.example.org","paths":["/x"],"open_files":"skip"}"#;
        let request = Request::from_http("commit", body).unwrap();
        let Request::Commit(commit) = &request else {
            panic!("{request:?}");
        };
        assert_eq!(commit.paths[0].to_string(), "/x");
        assert_eq!(commit.open_files, Some(OpenFiles::Skip));
        assert_eq!(request.verb(), "commit");
        assert_eq!(Request::from_http("health", b"").unwrap(), Request::Health);
        assert_eq!(
            Request::from_http("frobnicate", b"{}").unwrap_err().kind,
            Kind::NotFound
        );
        for bad in [&b"{"[..], b"[]", b"{}"] {
            assert_eq!(
                Request::from_http("commit", bad).unwrap_err().kind,
                Kind::Usage
            );
        }
    }
}
