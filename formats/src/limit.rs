//! A limit of a repository that something exceeds: said the same while staging, in a preview and by a
//! commit.
//!
//! The limits themselves are parameters ([`crate::server_conf::Limits`]).

use serde::{Deserialize, Serialize};

use crate::path::RepoPath;

const BYTES_PER_MIB: u64 = 1 << 20;

/// A limit that a catalog or file exceeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExceeded {
    /// The catalog's directory, or the file.
    pub path: RepoPath,
    /// Which limit.
    pub limit: LimitKind,
    /// How many entries, or bytes.
    pub value: u64,
    /// How many are allowed.
    pub max: u64,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// Entries in the root catalog.
    RootEntries,
    /// Entries in a nested catalog.
    NestedEntries,
    /// Bytes in a file.
    FileBytes,
}

/// As people write it: mebibytes for files, entries for catalogs.
impl std::fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            path, value, max, ..
        } = self;
        match self.limit {
            LimitKind::FileBytes => write!(
                f,
                "{path} has {} MiB; the limit is {} MiB",
                value.div_ceil(BYTES_PER_MIB),
                max / BYTES_PER_MIB
            ),
            LimitKind::RootEntries | LimitKind::NestedEntries => write!(
                f,
                "the catalog of {path} has {value} entries; the limit is {max}: split it with .cvmfscatalog or .cvmfsdirtab"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_too_much_does_not_read_like_none() {
        let exceeded = LimitExceeded {
            path: "/a".parse().unwrap(),
            limit: LimitKind::FileBytes,
            value: (1 << 20) + 1,
            max: 1 << 20,
        };
        assert_eq!(exceeded.to_string(), "/a has 2 MiB; the limit is 1 MiB");
    }
}
