//! Configuration: one TOML file, `/etc/prepub-receiver/receiver.toml`.
//!
//! Unknown keys and numbers without units are refused with line and reason.
//! `packaging/receiver.toml` shows every key with its default. Who may send what is not here but in
//! the enrolments ([`crate::trust`]); where a replica lies is read from its own `server.conf` unless it
//! is said here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formats::path::is_repository_name;
use formats::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

mod changes;

/// Where the file is looked for.
pub const DEFAULT_FILE: &str = "/etc/prepub-receiver/receiver.toml";
/// The longest file that is read: nobody writes more by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file.
    #[error("{path}: cannot be read; `--config FILE` names another")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// Well written, and without sense.
    #[error("{path}: {what}")]
    Sense {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The file, key by key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the ledger is kept.
    pub state_dir: PathBuf,
    /// Where the enrolments lie, one file for each publisher.
    pub enrolments: PathBuf,
    /// Where publishers call, over HTTPS; empty text: nowhere, for a site that only pulls.
    #[serde(with = "address")]
    pub listen: Option<SocketAddr>,
    /// The same as others see it, `https://HOST:PORT`: said of itself over a broker.
    pub url: Option<String>,
    /// Where `/health` and `/metrics` are, over plain HTTP.
    pub local: SocketAddr,
    /// What is logged.
    pub log_level: String,
    /// What stands before `/etc/cvmfs`, where `cvmfs_server` keeps what it knows of replicas.
    pub cvmfs_root: Option<PathBuf>,
    /// How much is taken at one time.
    pub limits: Limits,
    /// How long, and how much.
    pub keep: Keep,
    /// What follows a publication.
    pub snapshot: Snapshot,
    /// The replicas.
    pub repository: BTreeMap<String, Repository>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/prepub-receiver".into(),
            enrolments: "/etc/prepub-receiver/enrolments".into(),
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 8443))),
            url: None,
            local: SocketAddr::from(([127, 0, 0, 1], 9101)),
            log_level: "info".into(),
            cvmfs_root: None,
            limits: Limits::default(),
            keep: Keep::default(),
            snapshot: Snapshot::default(),
            repository: BTreeMap::new(),
        }
    }
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at one time.
    pub connections: usize,
    /// Bundles that are taken in at one time; more are told to come again.
    pub bundles: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            // each holds the files of one batch open
            bundles: 8,
        }
    }
}

/// `[keep]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// So much of the replica's filesystem stays free.
    pub headroom: Bytes,
    /// Objects of a transaction that was not published are removed after so long without a word of it.
    pub unpublished: Span,
    /// How often to look for such.
    pub look: Span,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            headroom: Bytes(10 << 30),
            unpublished: Span(Duration::from_secs(7 * 86_400)),
            look: Span(Duration::from_secs(600)),
        }
    }
}

/// `[snapshot]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshot {
    /// Program and arguments; `{repo}` stands for the repository. Empty: nothing is run.
    pub command: Vec<String>,
    /// How long to wait for more publications of the same repository.
    pub delay: Span,
    /// How often one that fails is tried again, each time after twice as long.
    pub retries: u32,
    /// How long before the first of these.
    pub retry_after: Span,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            delay: Span(Duration::from_secs(1)),
            retries: 4,
            retry_after: Span(Duration::from_secs(30)),
        }
    }
}

/// `[repository."NAME"]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// The replica's storage: a directory, or as in `CVMFS_UPSTREAM_STORAGE`; absent: what the
    /// replica's `server.conf` says.
    pub storage: Option<String>,
    /// Where `cvmfs_server` has its locks; absent: as `server.conf` says. Where neither says, nothing
    /// is ever removed.
    pub spool: Option<PathBuf>,
}

mod address {
    //! An address, or nothing as an empty text.

    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(it: &Option<SocketAddr>, s: S) -> Result<S::Ok, S::Error> {
        match it {
            Some(address) => s.collect_str(address),
            None => s.serialize_str(""),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(d)?;
        if text.is_empty() {
            return Ok(None);
        }
        let wrong =
            format!("{text:?} is no address; write it as \"0.0.0.0:8443\", or \"\" for none");
        text.parse()
            .map(Some)
            .map_err(|_| serde::de::Error::custom(wrong))
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_text(path).map_err(|source| ConfigError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Takes a file's text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.get(..span.start).unwrap_or(text);
                before.matches('\n').count() + 1
            });
            let place = match line {
                Some(line) => format!("{}, line {line}", path.display()),
                None => path.display().to_string(),
            };
            let message = error.message().trim().to_owned();
            ConfigError::Syntax { place, message }
        })?;
        config.check().map_err(|what| ConfigError::Sense {
            path: path.to_path_buf(),
            what,
        })?;
        Ok(config)
    }

    /// Keys whose values another configuration has otherwise, sorted.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let (before, after) = (changes::flat(self), changes::flat(other));
        let keys = before.keys().chain(after.keys());
        let keys: BTreeSet<&String> = keys.collect();
        let changed = keys
            .into_iter()
            .filter(|key| before.get(*key) != after.get(*key));
        changed.cloned().collect()
    }

    fn check(&self) -> Result<(), String> {
        for (name, repository) in &self.repository {
            if !is_repository_name(name) {
                return Err(format!(
                    "[repository.\"{name}\"]: not a repository's name; write it in full, such as \"sw.example.org\""
                ));
            }
            if let Some(storage) = &repository.storage
                && !storage.starts_with('/')
                && formats::server_conf::Upstream::parse(storage).is_none()
            {
                return Err(format!(
                    "[repository.\"{name}\"]: storage = {storage:?} is neither an absolute path nor as in CVMFS_UPSTREAM_STORAGE"
                ));
            }
        }
        if self.limits.bundles == 0 || self.limits.connections == 0 {
            return Err("[limits]: neither may be 0".into());
        }
        if self.keep.look.0.is_zero() {
            return Err("[keep]: look must not be 0".into());
        }
        Ok(())
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
