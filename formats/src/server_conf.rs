//! `server.conf`: how a repository is published.
//!
//! `KEY=VALUE` lines that the official tools let a shell read. They are read here without one:
//! quotes, escapes, comments and `export` mean what they mean to a shell; nothing is expanded or
//! run. A key whose value only a shell could tell (`$VAR`, a backtick, an assignment inside `if`)
//! is an error to those who ask for it, and to nobody else.
//!
//! As in the official tool, the last assignment counts, an empty value is none, and a boolean is
//! on if it is exactly `true` [CVMFS `cvmfs_server_coda.sh`]. Values are taken from the text
//! alone: this module must never look at the environment or at another file.

mod shell;
mod timespan;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::chunk::{ChunkSizes, ChunkSizesError};
use crate::hash::{Algorithm, HashError};
use crate::object::Compression;

pub use timespan::Timespan;

/// Far above what anybody writes by hand.
pub const MAX_CONF_BYTES: usize = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerConfError {
    /// The file is too large.
    #[error("configuration of {0} bytes; it must not exceed {MAX_CONF_BYTES}")]
    TooLarge(usize),
    /// A quote is not closed.
    #[error("line {line}: a quotation mark is never closed")]
    OpenQuote {
        /// Where it was opened, counted from 1.
        line: usize,
    },
    /// What cannot be a key or a value was to be written.
    #[error("{0:?} cannot be written as a setting")]
    Unwritable(String),
    /// A key that must be there is not.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A value that only a shell can tell.
    #[error("line {line}: the value of {key} depends on shell code, which is not run: {text:?}")]
    NotEvaluated {
        /// Whose value.
        key: String,
        /// What stands there.
        text: String,
        /// Counted from 1.
        line: usize,
    },
    /// A value that makes no sense.
    #[error("line {line}: {key}={text:?} is not {expected}")]
    BadValue {
        /// Whose value.
        key: String,
        /// What stands there.
        text: String,
        /// What belongs there.
        expected: &'static str,
        /// Counted from 1.
        line: usize,
    },
    /// An unknown hash algorithm.
    #[error("CVMFS_HASH_ALGORITHM")]
    HashAlgorithm(#[source] HashError),
    /// Chunk sizes that contradict one another.
    #[error("CVMFS_MIN_CHUNK_SIZE, CVMFS_AVG_CHUNK_SIZE, CVMFS_MAX_CHUNK_SIZE")]
    ChunkSizes(#[from] ChunkSizesError),
}

/// How many entries and bytes are too many; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Exceeding them refuses the commit; otherwise it is a warning.
    pub enforce: bool,
    /// Entries of the root catalog.
    pub root_entries: u64,
    /// Entries of a nested catalog.
    pub nested_entries: u64,
    /// Bytes of a file.
    pub file_bytes: u64,
}

/// Between how many entries automatic balancing keeps a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// An automatic catalog with fewer is merged into its parent.
    pub min: u64,
    /// A catalog with more is split.
    pub max: u64,
}

/// How a repository is published, typed. The default is what an empty `server.conf` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// `CVMFS_HASH_ALGORITHM`
    pub algorithm: Algorithm,
    /// `CVMFS_COMPRESSION_ALGORITHM`
    pub compression: Compression,
    /// `CVMFS_USE_FILE_CHUNKING` and the three sizes; none: files are not cut.
    pub chunking: Option<ChunkSizes>,
    /// `CVMFS_GENERATE_LEGACY_BULK_CHUNKS`: cut files are stored whole, too.
    pub bulk_chunks: bool,
    /// `CVMFS_INCLUDE_XATTRS`
    pub include_xattrs: bool,
    /// `CVMFS_ENABLE_MTIME_NS`
    pub mtime_ns: bool,
    /// `CVMFS_IGNORE_SPECIAL_FILES`
    pub ignore_special_files: bool,
    /// `CVMFS_AUTOCATALOGS` and its weights.
    pub autocatalogs: Option<Weights>,
    /// `CVMFS_ENFORCE_LIMITS` and the three limits.
    pub limits: Limits,
    /// `CVMFS_REPOSITORY_TTL`
    pub ttl_seconds: u64,
    /// `CVMFS_GARBAGE_COLLECTION`
    pub garbage_collection: bool,
    /// `CVMFS_AUTO_TAG`: a generic tag for each revision.
    pub auto_tag: bool,
    /// `CVMFS_AUTO_TAG_TIMESPAN`: when those go; none: never.
    pub auto_tag_timespan: Option<Timespan>,
    /// `PREPUB_HARDLINKS=groups`: hard links within a directory stay links (`break` by default).
    pub hardlink_groups: bool,
    /// `CVMFS_EXTERNAL_DATA`
    pub external_data: bool,
    /// `CVMFS_CATALOG_ALT_PATHS`
    pub alt_paths: bool,
    /// `CVMFS_VIRTUAL_DIR`: `/.cvmfs/snapshots` shows the tags.
    pub virtual_dir: bool,
    /// `CVMFS_VOMS_AUTHZ`: who may read; for the root catalog.
    pub voms_authz: Option<String>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Sha1,
            compression: Compression::Zlib,
            chunking: None,
            bulk_chunks: false,
            include_xattrs: false,
            mtime_ns: false,
            ignore_special_files: false,
            autocatalogs: None,
            limits: Limits {
                enforce: false,
                root_entries: 200 * 1000,
                nested_entries: 500 * 1000,
                file_bytes: 1024 << 20,
            },
            ttl_seconds: 240,
            garbage_collection: false,
            auto_tag: false,
            auto_tag_timespan: None,
            hardlink_groups: false,
            external_data: false,
            alt_paths: false,
            virtual_dir: false,
            voms_authz: None,
        }
    }
}

/// Where a repository's storage is: `CVMFS_UPSTREAM_STORAGE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A directory.
    Local {
        /// Where objects grow, on the same filesystem.
        tmp: PathBuf,
        /// The storage's root.
        storage: PathBuf,
    },
    /// A bucket.
    S3 {
        /// Where objects grow.
        tmp: PathBuf,
        /// First part of each object's key.
        alias: String,
        /// The file with host, bucket and credentials.
        config: PathBuf,
    },
    /// A repository gateway.
    Gateway {
        /// Where objects grow.
        tmp: PathBuf,
        /// Of its API.
        url: String,
    },
}

impl Upstream {
    /// What such a value says; none if it is of no known kind or has an empty field.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split(',').collect();
        if fields.iter().any(|field| field.is_empty()) {
            return None;
        }
        match fields[..] {
            ["local", tmp, storage] => Some(Self::Local {
                tmp: tmp.into(),
                storage: storage.into(),
            }),
            ["S3", tmp, place] => {
                let (alias, config) = place.split_once('@')?;
                let full = !alias.is_empty() && !config.is_empty();
                full.then(|| Self::S3 {
                    tmp: tmp.into(),
                    alias: alias.to_owned(),
                    config: config.into(),
                })
            }
            ["gw", tmp, url] => Some(Self::Gateway {
                tmp: tmp.into(),
                url: url.to_owned(),
            }),
            _ => None,
        }
    }
}

/// Something that the reader of a configuration may have meant otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Oddity {
    /// A line that is no assignment and was not looked at.
    UnreadLine {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// A boolean that looks as if it were on, but counts as off, since it is not `true`.
    NotTrue {
        /// Which.
        key: &'static str,
        /// Its value.
        text: String,
    },
}

const BOOLEANS: [&str; 13] = [
    "CVMFS_USE_FILE_CHUNKING",
    "CVMFS_GENERATE_LEGACY_BULK_CHUNKS",
    "CVMFS_INCLUDE_XATTRS",
    "CVMFS_ENABLE_MTIME_NS",
    "CVMFS_IGNORE_SPECIAL_FILES",
    "CVMFS_AUTOCATALOGS",
    "CVMFS_ENFORCE_LIMITS",
    "CVMFS_GARBAGE_COLLECTION",
    "CVMFS_AUTO_TAG",
    "CVMFS_EXTERNAL_DATA",
    "CVMFS_CATALOG_ALT_PATHS",
    "CVMFS_VIRTUAL_DIR",
    "CVMFS_IGNORE_XDIR_HARDLINKS",
];

/// A key's value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    text: String,
    line: usize,
    /// Only a shell could tell the value.
    in_doubt: bool,
}

/// A `server.conf`, comments and unknown keys included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerConf {
    // put together again, the pieces are the file
    pieces: Vec<shell::Piece>,
    settings: BTreeMap<String, Setting>,
    unread: Vec<(usize, String)>,
}

impl ServerConf {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ServerConfError::TooLarge`], [`ServerConfError::OpenQuote`]; bad values are errors of
    /// [`ServerConf::params`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ServerConfError> {
        if bytes.len() > MAX_CONF_BYTES {
            return Err(ServerConfError::TooLarge(bytes.len()));
        }
        shell::parse(&String::from_utf8_lossy(bytes))
    }

    /// The configuration as a file.
    #[must_use]
    pub fn render(&self) -> String {
        self.pieces.iter().map(shell::Piece::raw).collect()
    }

    /// A key's value, unevaluated; an empty one counts as none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let setting = self.settings.get(key)?;
        Some(setting.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Every key and its value, unevaluated, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings
            .iter()
            .map(|(key, setting)| (key.as_str(), setting.text.as_str()))
    }

    /// Sets a key, in place if it has a line of its own already, else at the end.
    ///
    /// # Errors
    /// [`ServerConfError::Unwritable`] for a key that is no shell name, and for line breaks and NUL.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ServerConfError> {
        shell::set(self, key, value)
    }

    /// What may have been meant otherwise.
    #[must_use]
    pub fn oddities(&self) -> Vec<Oddity> {
        let unread = self.unread.iter().map(|(line, text)| Oddity::UnreadLine {
            line: *line,
            text: text.clone(),
        });
        let not_true = BOOLEANS.iter().filter_map(|key| {
            let text = self.get(key)?.to_owned();
            let off = ["true", "false", "no", "off", "0"].contains(&text.as_str());
            (!off).then_some(Oddity::NotTrue { key, text })
        });
        unread.chain(not_true).collect()
    }

    /// `CVMFS_REPOSITORY_NAME`.
    ///
    /// # Errors
    /// [`ServerConfError`].
    pub fn name(&self) -> Result<&str, ServerConfError> {
        let key = "CVMFS_REPOSITORY_NAME";
        self.value(key)?.ok_or(ServerConfError::Missing(key))
    }

    /// `CVMFS_STRATUM0`: where the storage is served.
    ///
    /// # Errors
    /// [`ServerConfError`].
    pub fn stratum0_url(&self) -> Result<&str, ServerConfError> {
        let key = "CVMFS_STRATUM0";
        self.value(key)?.ok_or(ServerConfError::Missing(key))
    }

    /// `CVMFS_UPSTREAM_STORAGE`.
    ///
    /// # Errors
    /// [`ServerConfError`].
    pub fn upstream(&self) -> Result<Upstream, ServerConfError> {
        let key = "CVMFS_UPSTREAM_STORAGE";
        let text = self.value(key)?.ok_or(ServerConfError::Missing(key))?;
        let expected = "local,TMP,STORAGE or S3,TMP,ALIAS@CONFIG or gw,TMP,URL";
        Upstream::parse(text).ok_or_else(|| self.bad(key, expected))
    }

    /// Everything that decides what a commit publishes.
    ///
    /// # Errors
    /// [`ServerConfError`] for the first value that makes no sense.
    pub fn params(&self) -> Result<Params, ServerConfError> {
        let default = Params::default();
        Ok(Params {
            algorithm: match self.value("CVMFS_HASH_ALGORITHM")? {
                Some(text) => text.parse().map_err(ServerConfError::HashAlgorithm)?,
                None => default.algorithm,
            },
            compression: match self.value("CVMFS_COMPRESSION_ALGORITHM")? {
                None | Some("default" | "zlib") => Compression::Zlib,
                Some("none") => Compression::None,
                Some(_) => {
                    return Err(self.bad("CVMFS_COMPRESSION_ALGORITHM", "default, zlib or none"));
                }
            },
            chunking: self.chunking()?,
            bulk_chunks: self.is_true("CVMFS_GENERATE_LEGACY_BULK_CHUNKS")?,
            include_xattrs: self.is_true("CVMFS_INCLUDE_XATTRS")?,
            mtime_ns: self.is_true("CVMFS_ENABLE_MTIME_NS")?,
            ignore_special_files: self.is_true("CVMFS_IGNORE_SPECIAL_FILES")?,
            autocatalogs: self.autocatalogs()?,
            limits: Limits {
                enforce: self.is_true("CVMFS_ENFORCE_LIMITS")?,
                root_entries: self.scaled("CVMFS_ROOT_KCATALOG_LIMIT", 200, 1000)?,
                nested_entries: self.scaled("CVMFS_NESTED_KCATALOG_LIMIT", 500, 1000)?,
                file_bytes: self.scaled("CVMFS_FILE_MBYTE_LIMIT", 1024, 1 << 20)?,
            },
            ttl_seconds: self.scaled("CVMFS_REPOSITORY_TTL", default.ttl_seconds, 1)?,
            garbage_collection: self.is_true("CVMFS_GARBAGE_COLLECTION")?,
            auto_tag: self.is_true("CVMFS_AUTO_TAG")?,
            auto_tag_timespan: self.timespan("CVMFS_AUTO_TAG_TIMESPAN")?,
            hardlink_groups: match self.value("PREPUB_HARDLINKS")? {
                None | Some("break") => false,
                Some("groups") => true,
                Some(_) => return Err(self.bad("PREPUB_HARDLINKS", "break or groups")),
            },
            external_data: self.is_true("CVMFS_EXTERNAL_DATA")?,
            alt_paths: self.is_true("CVMFS_CATALOG_ALT_PATHS")?,
            virtual_dir: self.is_true("CVMFS_VIRTUAL_DIR")?,
            voms_authz: self.value("CVMFS_VOMS_AUTHZ")?.map(str::to_owned),
        })
    }

    fn chunking(&self) -> Result<Option<ChunkSizes>, ServerConfError> {
        if !self.is_true("CVMFS_USE_FILE_CHUNKING")? {
            return Ok(None);
        }
        let default = ChunkSizes::default();
        let sizes = ChunkSizes::new(
            self.scaled("CVMFS_MIN_CHUNK_SIZE", default.min(), 1)?,
            self.scaled("CVMFS_AVG_CHUNK_SIZE", default.avg(), 1)?,
            self.scaled("CVMFS_MAX_CHUNK_SIZE", default.max(), 1)?,
        )?;
        Ok(Some(sizes))
    }

    fn autocatalogs(&self) -> Result<Option<Weights>, ServerConfError> {
        if !self.is_true("CVMFS_AUTOCATALOGS")? {
            return Ok(None);
        }
        let weights = Weights {
            min: self.scaled("CVMFS_AUTOCATALOGS_MIN_WEIGHT", 1000, 1)?,
            max: self.scaled("CVMFS_AUTOCATALOGS_MAX_WEIGHT", 100_000, 1)?,
        };
        if weights.min >= weights.max {
            let expected = "more than CVMFS_AUTOCATALOGS_MIN_WEIGHT";
            return Err(self.bad("CVMFS_AUTOCATALOGS_MAX_WEIGHT", expected));
        }
        Ok(Some(weights))
    }

    /// A key's value, if it is set, not empty, and plain text.
    ///
    /// # Errors
    /// [`ServerConfError::NotEvaluated`].
    pub fn value(&self, key: &str) -> Result<Option<&str>, ServerConfError> {
        match self.settings.get(key) {
            Some(setting) if setting.in_doubt => Err(ServerConfError::NotEvaluated {
                key: key.to_owned(),
                text: setting.text.clone(),
                line: setting.line,
            }),
            _ => Ok(self.get(key)),
        }
    }

    fn is_true(&self, key: &str) -> Result<bool, ServerConfError> {
        Ok(self.value(key)? == Some("true"))
    }

    fn timespan(&self, key: &str) -> Result<Option<Timespan>, ServerConfError> {
        let expected = "an age such as \"4 weeks ago\", \"-1 year\" or \"last month\", or a date such \
                        as 2026-01-31";
        match self.value(key)? {
            None => Ok(None),
            Some(text) => match Timespan::parse(text) {
                Some(timespan) => Ok(Some(timespan)),
                None => Err(self.bad(key, expected)),
            },
        }
    }

    /// A decimal number times `unit`.
    pub(crate) fn scaled(
        &self,
        key: &str,
        default: u64,
        unit: u64,
    ) -> Result<u64, ServerConfError> {
        let number = match self.value(key)? {
            None => default,
            Some(text) if text.starts_with('+') => return Err(self.bad(key, "a number")),
            Some(text) => u64::from_str(text).map_err(|_| self.bad(key, "a number"))?,
        };
        number
            .checked_mul(unit)
            .ok_or_else(|| self.bad(key, "a number in range"))
    }

    pub(crate) fn bad(&self, key: &str, expected: &'static str) -> ServerConfError {
        let setting = self.settings.get(key);
        ServerConfError::BadValue {
            key: key.to_owned(),
            text: setting.map_or_else(String::new, |s| s.text.clone()),
            expected,
            line: setting.map_or(0, |s| s.line),
        }
    }
}

#[cfg(test)]
mod tests;
