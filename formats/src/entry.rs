//! What stands at a path: type, metadata, and for a regular file its content.
//!
//! An [`Entry`] is a catalog row without what follows from its place: no name, no path hash, no
//! link count of a directory, no nested-catalog flags.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::object::{Compression, Content};

/// Extended attributes by name, in ascending byte order.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A modification time. `nanos` is absent where the catalog's `mtimens` is NULL.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Mtime {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// 0 to 999,999,999, counted forward from `secs`.
    pub nanos: Option<u32>,
}

/// What stands at a path, and what a catalog row says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Type, and what only that type has.
    pub kind: Kind,
    /// Permission, setuid, setgid and sticky bits: `mode & 0o7777`.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Mtime,
    /// Extended attributes as published or staged.
    pub xattrs: Xattrs,
}

/// The type of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A directory; `size` is its `st_size` (4096 unless a catalog says otherwise).
    Directory {
        /// The size column.
        size: u64,
    },
    /// A regular file.
    Regular(Regular),
    /// A symbolic link and its target, unexpanded.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device and its 64-bit `st_rdev`.
    CharDevice(u64),
    /// A block device and its 64-bit `st_rdev`.
    BlockDevice(u64),
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regular {
    /// Bytes.
    pub size: u64,
    /// Which objects hold them. A null [`Content::Whole`] hash never occurs in a healthy catalog.
    pub content: Content,
    /// How those objects are stored.
    pub compression: Compression,
    /// The bytes lie outside the repository's storage (flag 128).
    pub external: bool,
    /// Clients bypass the page cache (flag 0x10000).
    pub direct_io: bool,
    /// Which entries of one directory share this file: in a catalog the row's group; in a change
    /// set an id of the stage's, alike for all names of one inode. 0: this name alone.
    pub link_group: u64,
}

impl Entry {
    /// The `st_size` that a client shows.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.kind {
            Kind::Directory { size } => *size,
            Kind::Regular(file) => file.size,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// `st_mode`: type bits and permission bits.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let type_bits = match self.kind {
            Kind::Directory { .. } => 0o040_000,
            Kind::Regular(_) => 0o100_000,
            Kind::Symlink(_) => 0o120_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
            Kind::CharDevice(_) => 0o020_000,
            Kind::BlockDevice(_) => 0o060_000,
        };
        type_bits | u32::from(self.perm)
    }

    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }

    /// The regular file, if it is one.
    #[must_use]
    pub fn regular(&self) -> Option<&Regular> {
        match &self.kind {
            Kind::Regular(file) => Some(file),
            _ => None,
        }
    }
}
