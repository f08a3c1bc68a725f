//! Configuration: one TOML file; flags over environment over file over built-in defaults.
//!
//! ```text
//! root           /etc/prepub/config.toml             state /var/lib/prepub            mount /prepub
//! ordinary user  $XDG_CONFIG_HOME/prepub/config.toml  state $XDG_STATE_HOME/prepub    mount $XDG_RUNTIME_DIR/prepub
//! ```
//!
//! Unknown keys and numbers without units are refused with line and suggestion. A repository's
//! publishing parameters are not here: they are CVMFS's own, in its `server.conf`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::{Failure, Result};

mod explain;
pub mod keys;
pub mod metrics;
pub mod origin;
pub mod places;
pub mod warm;

pub use formats::units;

use metrics::MetricsSection;
use places::Places;
use units::{Bytes, Span};
use warm::{WarmOverride, WarmSection, WarmSettings};

/// The file, key by key. `packaging/config.toml` shows every key with its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Where state is kept.
    pub state_dir: Option<PathBuf>,
    /// Where the repositories are mounted.
    pub mountpoint: Option<PathBuf>,
    /// What stands before `/etc/cvmfs` and `/var/spool/cvmfs`, where `cvmfs_server` keeps its
    /// repositories' things; absent: nothing.
    pub cvmfs_root: Option<PathBuf>,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or filters by module.
    pub log_level: LogLevel,
    /// The mount.
    pub mount: MountSection,
    /// Staging.
    pub stage: StageSection,
    /// What `commit` does unless its flags say otherwise.
    pub commit: CommitSection,
    /// Stratum 1s that get objects before a revision is visible.
    pub warm: WarmSection,
    /// Embedded repositories over HTTP.
    pub serve: ServeSection,
    /// Figures for monitoring.
    pub metrics: MetricsSection,
    /// The control socket.
    pub control: ControlSection,
    /// What holds for one repository only, by its name.
    pub repository: BTreeMap<String, RepositorySection>,
}

/// A filter for log messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct LogLevel(pub String);

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".into())
    }
}

/// `[mount]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MountSection {
    /// Other users than the daemon's may enter the mount; the kernel checks permissions. Absent:
    /// yes for root, for others where `/etc/fuse.conf` has `user_allow_other`.
    pub allow_other: Option<bool>,
    /// Threads that take requests from the kernel; 0: as many as cores, 2 to 4.
    pub threads: usize,
}

/// `[stage]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageSection {
    /// How long a closed file rests before it is sealed.
    pub settle: Span,
    /// Threads that compress and hash; 0: one a core.
    pub workers: usize,
    /// Most raw bytes staged per repository; absent: what the disk holds.
    pub quota: Option<Bytes>,
    /// Most files staged per repository, new or changed; absent: any number.
    pub quota_files: Option<u64>,
    /// Raw bytes kept per repository: beyond, those of sealed files are dropped and read from the
    /// objects; absent: when the disk gets full.
    pub backing_max: Option<Bytes>,
    /// Decompressed published content kept per repository.
    pub content_cache: Bytes,
    /// What unmounting does with staged changes.
    pub on_unmount: OnUnmount,
    /// Whether paths that are not staged follow revisions that others publish.
    pub refresh: Refresh,
    /// How often to look for them.
    pub refresh_interval: Span,
}

impl Default for StageSection {
    fn default() -> Self {
        Self {
            settle: Span(Duration::from_millis(200)),
            workers: 0,
            quota: None,
            quota_files: None,
            backing_max: None,
            content_cache: Bytes(1 << 30),
            on_unmount: OnUnmount::Keep,
            refresh: Refresh::Follow,
            refresh_interval: Span(Duration::from_secs(10)),
        }
    }
}

/// What unmounting does with staged changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnmount {
    /// They stay for the next mount.
    #[default]
    Keep,
    /// They are published; where that fails they stay.
    Commit,
}

/// Whether unstaged paths follow the published head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Refresh {
    /// Yes.
    #[default]
    Follow,
    /// No: only a commit or a new mount moves them.
    Pinned,
}

/// `[commit]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitSection {
    /// How long to wait for files that are open for writing.
    pub wait: Span,
    /// What to do about them.
    pub open_files: OpenFiles,
    /// What to do about changes that collide with a newer revision.
    pub on_conflict: OnConflict,
    /// A commit is refused where the whitelist is valid for less than this.
    pub whitelist_min: Span,
}

impl Default for CommitSection {
    fn default() -> Self {
        Self {
            wait: Span(Duration::from_secs(30)),
            open_files: OpenFiles::Wait,
            on_conflict: OnConflict::Fail,
            whitelist_min: Span(Duration::from_secs(3600)),
        }
    }
}

/// What a commit does about files that are open for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OpenFiles {
    /// Wait until they are closed, at most --wait seconds; then exit code 5
    #[default]
    Wait,
    /// Leave them out: the file as it is published, a new one absent
    Skip,
    /// Refuse at once with exit code 5
    Fail,
}

/// What a commit does about changes that collide with a newer revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Refuse with exit code 3 and the list of paths
    #[default]
    Fail,
    /// Publish the staged side
    Ours,
}

/// `[serve]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSection {
    /// Serve the embedded repositories over HTTP while mounted.
    pub enabled: bool,
    /// Where. If the port is taken, another one is used; `status` shows it.
    pub listen: SocketAddr,
}

impl Default for ServeSection {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 8330)),
        }
    }
}

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSection {
    /// Members of this group may reach the control socket. Absent: the daemon's own group.
    pub group: Option<String>,
}

/// `[repository."NAME"]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositorySection {
    /// Who makes changes visible; absent: stratum0.
    pub publisher: Option<PublisherKind>,
    /// Where the publisher "gateway" finds what it needs.
    pub gateway: GatewaySection,
    /// As in `[stage]`.
    pub settle: Option<Span>,
    /// As in `[stage]`.
    pub quota: Option<Bytes>,
    /// As in `[stage]`.
    pub quota_files: Option<u64>,
    /// As in `[stage]`.
    pub backing_max: Option<Bytes>,
    /// As in `[stage]`.
    pub on_unmount: Option<OnUnmount>,
    /// As in `[stage]`.
    pub refresh: Option<Refresh>,
    /// What of `[warm]` holds here.
    pub warm: WarmOverride,
    /// Who, besides root and the daemon's own user, may do what below which path.
    pub allow: Vec<Allow>,
}

/// Who makes changes visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublisherKind {
    /// prepub itself: it writes the storage and signs, alone or beside `cvmfs_server`.
    #[default]
    Stratum0,
    /// A repository gateway: `cvmfs_gateway`.
    Gateway,
    /// `cvmfs_server`, in a transaction of its own.
    CvmfsServer,
}

impl PublisherKind {
    /// As it is written in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stratum0 => "stratum0",
            Self::Gateway => "gateway",
            Self::CvmfsServer => "cvmfs-server",
        }
    }
}

/// `[repository."NAME".gateway]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Of its API; absent: what `CVMFS_UPSTREAM_STORAGE` says.
    pub url: Option<String>,
    /// A file of the form `plain_text ID SECRET`; absent: NAME.gw beside the repository's public key.
    pub key: Option<PathBuf>,
    /// The gateway's storage, where it can be written from here: a directory, or a value of
    /// `CVMFS_UPSTREAM_STORAGE` (`S3,TMP,ALIAS@CONFIG`); absent: objects go through the gateway.
    pub storage: Option<String>,
    /// The Stratum 0's URL; absent: what `CVMFS_STRATUM0` says.
    pub stratum0: Option<String>,
}

/// `[[repository."NAME".allow]]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Below this path of the repository; absent: anywhere in it.
    pub path: Option<String>,
    /// Users by name or number.
    pub users: Vec<String>,
    /// Groups by name or number; supplementary groups count.
    pub groups: Vec<String>,
    /// What they may do there.
    pub may: Vec<Right>,
}

/// What a user who is neither root nor the owner may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Changing files on the mount, where their permissions allow it too. As soon as somebody has
    /// this right in a repository, nobody else may.
    Write,
    /// `commit`
    Commit,
    /// `abort`
    Abort,
    /// `tag add`, `tag remove`
    Tag,
}

/// Flags and environment variables that stand over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--config`, `PREPUB_CONFIG`
    pub config: Option<PathBuf>,
    /// `--state-dir`, `PREPUB_STATE_DIR`
    pub state_dir: Option<PathBuf>,
    /// `--log-level`, `PREPUB_LOG`
    pub log_level: Option<String>,
}

/// What is in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that was read, if there is one.
    pub source: Option<PathBuf>,
    /// Where state is kept; absolute.
    pub state_dir: PathBuf,
    /// Where the repositories are mounted unless `mount` is told otherwise.
    pub mountpoint: PathBuf,
    /// The file's content, or the defaults.
    pub file: File,
    /// What stands over the file.
    pub overrides: Overrides,
}

impl Settings {
    /// The file that was read, or that would be.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        let source = self.source.clone();
        source.unwrap_or_else(|| Places::of_this_process().config)
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// A file that was asked for and is not there; one that cannot be read or understood.
    pub fn load(overrides: &Overrides) -> Result<Self> {
        Self::load_at(overrides, &Places::of_this_process())
    }

    /// Reads it again, as it was read before.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn again(&self) -> Result<Self> {
        Self::load(&self.overrides)
    }

    fn load_at(overrides: &Overrides, places: &Places) -> Result<Self> {
        let path = overrides.config.as_ref().unwrap_or(&places.config);
        let (mut file, source) = match std::fs::read_to_string(path) {
            Ok(text) => (parse(&text, path)?, Some(path.clone())),
            // after `su` without a login HOME is another user's: that is not our configuration
            Err(e)
                if overrides.config.is_none()
                    && matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
            {
                (File::default(), None)
            }
            Err(e) => {
                return Err(Failure::usage(format!(
                    "cannot read the configuration {}",
                    path.display()
                ))
                .because(&e));
            }
        };
        if let Some(level) = &overrides.log_level {
            file.log_level = LogLevel(level.clone());
        }
        let state_dir = overrides.state_dir.as_ref().or(file.state_dir.as_ref());
        let state_dir = absolute(state_dir.unwrap_or(&places.state_dir))?;
        let mountpoint = match (&file.mountpoint, &places.mountpoint) {
            (Some(path), _) | (None, Some(path)) => absolute(path)?,
            (None, None) => state_dir.join("mnt"),
        };
        Ok(Self {
            source,
            state_dir,
            mountpoint,
            file,
            overrides: overrides.clone(),
        })
    }

    /// What holds for a repository.
    #[must_use]
    pub fn repository(&self, name: &str) -> RepositorySettings<'_> {
        let own = self.file.repository.get(name);
        let stage = &self.file.stage;
        RepositorySettings {
            publisher: own.and_then(|r| r.publisher).unwrap_or_default(),
            gateway: own.map(|r| &r.gateway),
            settle: own.and_then(|r| r.settle).unwrap_or(stage.settle).0,
            quota: own.and_then(|r| r.quota).or(stage.quota).map(|b| b.0),
            quota_files: own.and_then(|r| r.quota_files).or(stage.quota_files),
            backing_max: own
                .and_then(|r| r.backing_max)
                .or(stage.backing_max)
                .map(|b| b.0),
            on_unmount: own.and_then(|r| r.on_unmount).unwrap_or(stage.on_unmount),
            refresh: own.and_then(|r| r.refresh).unwrap_or(stage.refresh),
            warm: self.file.warm.with(own.map(|r| &r.warm)),
            allow: own.map_or(&[], |r| &r.allow),
        }
    }
}

/// What holds for one repository.
#[derive(Clone, Debug)]
pub struct RepositorySettings<'a> {
    /// Who makes changes visible.
    pub publisher: PublisherKind,
    /// Where the publisher "gateway" finds what it needs, if anything is said.
    pub gateway: Option<&'a GatewaySection>,
    /// How long a closed file rests before it is sealed.
    pub settle: Duration,
    /// Most raw bytes staged.
    pub quota: Option<u64>,
    /// Most files staged.
    pub quota_files: Option<u64>,
    /// Raw bytes kept.
    pub backing_max: Option<u64>,
    /// What unmounting does.
    pub on_unmount: OnUnmount,
    /// How Stratum 1s are warmed.
    pub warm: WarmSettings,
    /// Whether unstaged paths follow.
    pub refresh: Refresh,
    /// Who else may.
    pub allow: &'a [Allow],
}

/// Reads a configuration file's text.
///
/// # Errors
/// With line, and for an unknown key the nearest known one.
pub fn parse(text: &str, path: &Path) -> Result<File> {
    let file: File = toml::from_str(text).map_err(|error| explain::explain(&error, text, path))?;
    explain::check(&file, path)?;
    Ok(file)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|e| Failure::usage(format!("{} is no usable path", path.display())).because(&e))
}

#[cfg(test)]
mod tests;
