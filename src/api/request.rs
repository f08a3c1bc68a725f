//! What can be asked: one type a verb, and [`Request`], which is one of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::PathText;
use crate::config::{OnConflict, OpenFiles};
use crate::report::{Failure, Kind};

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
    /// Makes a Stratum 1 a site.
    SiteAdd(SiteAdd),
    /// Ends a site.
    SiteRevoke(SiteRevoke),
    /// Lists the sites.
    SiteList,
    /// Issues a broker's certificate.
    SiteBroker(SiteBroker),
    /// Lets no commit in, or lets them in again.
    Drain(Drain),
    /// Reads the configuration again.
    Reload,
    /// What is logged.
    LogLevel(LogLevel),
    /// Removes what nobody needs.
    Gc(Gc),
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
    /// Where its storage goes: a directory, or `s3://BUCKET/PREFIX`.
    #[serde(default)]
    pub storage: Option<String>,
    /// How the bucket is reached: an `s3.conf`; absent: as AWS's tools do.
    #[serde(default)]
    pub s3_config: Option<PathBuf>,
    /// The bucket is made where it is missing.
    #[serde(default)]
    pub create_bucket: bool,
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
    /// Say how the Stratum 1s stand, too.
    #[serde(default)]
    pub sites: bool,
}

/// `site-add`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteAdd {
    /// Its name.
    pub site: String,
    /// Where its receiver is; none: it pulls.
    #[serde(default)]
    pub url: Option<String>,
    /// Repositories that it takes; none: all.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Most bytes a second.
    #[serde(default)]
    pub bandwidth: Option<u64>,
}

/// `site-broker`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteBroker {
    /// How the broker is called.
    pub hosts: Vec<String>,
}

/// `site-revoke`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRevoke {
    /// Which.
    pub site: String,
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
    /// Take files as they are that may have lost bytes when the machine stopped.
    #[serde(default)]
    pub accept_unsynced: bool,
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

/// `drain`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Lets them in again.
    #[serde(default)]
    pub resume: bool,
    /// Answer when none runs.
    #[serde(default)]
    pub wait: bool,
}

/// `log-level`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// What shall be logged from now on; absent: what is.
    #[serde(default)]
    pub filter: Option<String>,
}

/// `gc`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gc {
    /// One repository; all if absent, and what is left of those that are no more.
    #[serde(default)]
    pub repo: Option<String>,
    /// Remove nothing, say what would be.
    #[serde(default)]
    pub dry_run: bool,
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
            Self::SiteAdd(_) => "site-add",
            Self::SiteRevoke(_) => "site-revoke",
            Self::SiteList => "site-list",
            Self::SiteBroker(_) => "site-broker",
            Self::Drain(_) => "drain",
            Self::Reload => "reload",
            Self::LogLevel(_) => "log-level",
            Self::Gc(_) => "gc",
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

#[cfg(test)]
mod tests {
    use super::*;

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
