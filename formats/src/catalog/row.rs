//! One row of a catalog: the columns as they stand, and what they mean.
//!
//! `flags`, bit by bit [CVMFS `catalog_sql.h:SqlDirent`]:
//!
//! ```text
//!  0 directory        4 special (with 2)     8-10  hash algorithm, where there is a hash
//!  1 mountpoint       5 nested root         11-13  compression, regular files only
//!  2 not a directory  6 chunked             14     bind mountpoint     16  direct I/O
//!  3 symlink (with 2) 7 external            15     hidden
//! ```
//!
//! `hardlinks` is link group << 32 | link count. `size` of a device is its `st_rdev`. The type is
//! read from `mode`; flags that merely repeat it are written and not read. No SQL here.

use crate::catalog::xattr::{self, XattrError};
use crate::entry::{Entry, Kind, Mtime, Regular};
use crate::hash::{Algorithm, DIGEST_LEN, Hash};
use crate::object::{Chunk, Compression, Content};
use crate::path::{Name, PathError, PathHash, RepoPath};

const DIR: u32 = 1;
const MOUNTPOINT: u32 = 2;
const FILE: u32 = 4;
const SYMLINK: u32 = 8;
const SPECIAL: u32 = 0x10;
const NESTED_ROOT: u32 = 0x20;
/// Of a chunked file; such a row has rows in `chunks`.
pub(crate) const CHUNKED: u32 = 0x40;
const EXTERNAL: u32 = 0x80;
const ALGORITHM_SHIFT: u32 = 8;
const COMPRESSION_SHIFT: u32 = 11;
const THREE_BITS: u32 = 7;
const BIND: u32 = 0x4000;
const HIDDEN: u32 = 0x8000;
const DIRECT_IO: u32 = 0x1_0000;

const TYPE_MASK: u32 = 0o170_000;
const NANOS_PER_SEC: i64 = 1_000_000_000;
/// Where the link group begins in `hardlinks`.
const LINK_COUNT_BITS: u32 = 32;

/// An entry where it stands: a catalog row, its chunks included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of the full path in the repository.
    pub path: PathHash,
    /// Of the directory it lies in; [`PathHash::NONE`] for the repository's root.
    pub parent: PathHash,
    /// The last component; empty for the repository's root.
    pub name: Vec<u8>,
    /// Type, metadata, content.
    pub entry: Entry,
    /// What `st_nlink` shows: for a directory 2 and its subdirectories.
    pub linkcount: u32,
    /// Which files of one directory are one inode; 0 for none. `entry` says the same, where it is
    /// a regular file; on writing this one counts.
    pub link_group: u32,
    /// Whether another catalog begins here.
    pub role: Role,
    /// Not shown in listings.
    pub hidden: bool,
}

/// Whether a directory is where catalogs meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is not, or it is the repository's root.
    #[default]
    Plain,
    /// A nested catalog goes on here; this is the parent's copy of the row.
    Mountpoint,
    /// A nested catalog begins here; this is its own copy of the row.
    Root,
    /// A catalog of another revision is bound here.
    Bind,
}

/// The columns of a row as they stand, of the right types and otherwise unjudged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// `md5path_1`, `md5path_2`.
    pub path: PathHash,
    /// `parent_1`, `parent_2`.
    pub parent: PathHash,
    /// Link group << 32 | link count.
    pub hardlinks: i64,
    /// The digest; its algorithm is in the flags.
    pub hash: Option<[u8; DIGEST_LEN]>,
    /// Bytes, or a device number.
    pub size: i64,
    /// `st_mode`.
    pub mode: u32,
    /// Seconds.
    pub mtime: i64,
    /// Nanoseconds.
    pub mtimens: Option<i64>,
    /// See the module's head.
    pub flags: u32,
    /// The last component.
    pub name: Vec<u8>,
    /// A symbolic link's target.
    pub symlink: Vec<u8>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// See [`xattr`].
    pub xattr: Option<Vec<u8>>,
}

/// One row of the table `chunks` without the path it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawChunk {
    /// Where it begins.
    pub offset: i64,
    /// How long it is.
    pub size: i64,
    /// The digest; its algorithm is in the file's flags.
    pub hash: [u8; DIGEST_LEN],
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowProblem {
    /// A column has a value of a type or range that it cannot have.
    #[error("column {column} holds {found}")]
    Column {
        /// Which.
        column: &'static str,
        /// What it holds.
        found: String,
    },
    /// Not the name of anything.
    #[error("its name cannot be: {0}")]
    Name(PathError),
    /// Not the path that its name and its directory give.
    #[error("its path hash does not belong to {0}")]
    Misplaced(RepoPath),
    /// A mode of no known type.
    #[error("mode {0:o} is of no file type")]
    Mode(u32),
    /// Flags that name an unknown hash algorithm.
    #[error("flags {0:#x} name an unknown hash algorithm")]
    Algorithm(u32),
    /// Flags that name an unknown compression.
    #[error("flags {0:#x} name an unknown compression")]
    Compression(u32),
    /// Chunks that do not tile the file.
    #[error("its chunks do not make up its {size} bytes: at offset {offset}")]
    Chunks {
        /// The file's size.
        size: i64,
        /// Where the first fault is.
        offset: i64,
    },
    /// Chunks of different hash algorithms, which flags cannot say.
    #[error("its objects are of different hash algorithms")]
    MixedAlgorithms,
    /// Larger than the column can say.
    #[error("a size of {0} bytes does not fit")]
    Size(u64),
    /// A role that only a directory can have.
    #[error("only a directory can be where catalogs meet")]
    Role,
    /// Attributes that cannot be read or written.
    #[error("its extended attributes: {0}")]
    Xattr(XattrError),
}

impl RawRow {
    /// True if there should be rows in `chunks`.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.flags & CHUNKED != 0 && self.mode & TYPE_MASK == 0o100_000
    }

    /// The algorithm of the digests in this row and its chunks.
    ///
    /// # Errors
    /// [`RowProblem::Algorithm`].
    pub fn algorithm(&self) -> Result<Algorithm, RowProblem> {
        Algorithm::from_flag_bits((self.flags >> ALGORITHM_SHIFT) & THREE_BITS)
            .ok_or(RowProblem::Algorithm(self.flags))
    }

    /// What the columns mean. `chunks` are the row's chunks, offsets ascending.
    ///
    /// # Errors
    /// [`RowProblem`], the first found.
    pub fn interpret(self, chunks: &[RawChunk]) -> Result<Row, RowProblem> {
        let kind = self.kind(chunks)?;
        if !(self.name.is_empty() && self.path == RepoPath::root().path_hash()) {
            Name::new(&self.name).map_err(RowProblem::Name)?;
        }
        let (link_group, linkcount) = split_hardlinks(self.hardlinks);
        let role = match kind {
            Kind::Directory { .. } => self.role(),
            _ => Role::Plain,
        };
        let xattrs = match &self.xattr {
            Some(blob) if !blob.is_empty() => xattr::parse(blob).map_err(RowProblem::Xattr)?,
            _ => Default::default(),
        };
        Ok(Row {
            path: self.path,
            parent: self.parent,
            entry: Entry {
                kind,
                perm: (self.mode & 0o7777) as u16,
                uid: self.uid,
                gid: self.gid,
                mtime: Mtime {
                    secs: self.mtime,
                    nanos: self.nanos()?,
                },
                xattrs,
            },
            name: self.name,
            linkcount,
            link_group,
            role,
            hidden: self.flags & HIDDEN != 0,
        })
    }

    fn kind(&self, chunks: &[RawChunk]) -> Result<Kind, RowProblem> {
        Ok(match self.mode & TYPE_MASK {
            0o040_000 => Kind::Directory {
                size: self.bytes()?,
            },
            0o100_000 => Kind::Regular(self.regular(chunks)?),
            0o120_000 => {
                if self.symlink.contains(&0) {
                    return Err(bad_column("symlink", "a target with a NUL in it"));
                }
                Kind::Symlink(self.symlink.clone())
            }
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            0o020_000 => Kind::CharDevice(self.size.cast_unsigned()),
            0o060_000 => Kind::BlockDevice(self.size.cast_unsigned()),
            _ => return Err(RowProblem::Mode(self.mode)),
        })
    }

    fn regular(&self, chunks: &[RawChunk]) -> Result<Regular, RowProblem> {
        let algorithm = self.algorithm()?;
        let hash = self.hash.map(|digest| Hash::new(algorithm, digest));
        let content = if self.is_chunked() {
            self.check_tiling(chunks)?;
            let chunk = |c: &RawChunk| Chunk {
                offset: c.offset.cast_unsigned(),
                size: c.size.cast_unsigned(),
                hash: Hash::new(algorithm, c.hash),
            };
            let chunks = chunks.iter().map(chunk).collect();
            Content::Chunks {
                bulk: hash.filter(|h| !h.is_null()),
                chunks,
            }
        } else {
            Content::Whole(hash.unwrap_or(Hash::null()))
        };
        Ok(Regular {
            size: self.bytes()?,
            content,
            compression: match (self.flags >> COMPRESSION_SHIFT) & THREE_BITS {
                0 => Compression::Zlib,
                1 => Compression::None,
                _ => return Err(RowProblem::Compression(self.flags)),
            },
            external: self.flags & EXTERNAL != 0,
            direct_io: self.flags & DIRECT_IO != 0,
            link_group: u64::from(split_hardlinks(self.hardlinks).0),
        })
    }

    fn check_tiling(&self, chunks: &[RawChunk]) -> Result<(), RowProblem> {
        let mut end = 0_i64;
        for chunk in chunks {
            let next = end.checked_add(chunk.size).filter(|n| *n > end);
            match next {
                Some(next) if chunk.offset == end => end = next,
                _ => {
                    return Err(RowProblem::Chunks {
                        size: self.size,
                        offset: chunk.offset,
                    });
                }
            }
        }
        if end == self.size && !chunks.is_empty() {
            return Ok(());
        }
        Err(RowProblem::Chunks {
            size: self.size,
            offset: end,
        })
    }

    fn role(&self) -> Role {
        if self.flags & NESTED_ROOT != 0 {
            Role::Root
        } else if self.flags & MOUNTPOINT != 0 {
            Role::Mountpoint
        } else if self.flags & BIND != 0 {
            Role::Bind
        } else {
            Role::Plain
        }
    }

    fn bytes(&self) -> Result<u64, RowProblem> {
        u64::try_from(self.size).map_err(|_| bad_column("size", self.size))
    }

    fn nanos(&self) -> Result<Option<u32>, RowProblem> {
        match self.mtimens {
            None => Ok(None),
            Some(n) if (0..NANOS_PER_SEC).contains(&n) => Ok(Some(n as u32)),
            Some(n) => Err(bad_column("mtimens", n)),
        }
    }
}

impl Row {
    /// The columns that say this row.
    ///
    /// # Errors
    /// [`RowProblem`] for what the format cannot hold.
    pub fn to_raw(&self) -> Result<RawRow, RowProblem> {
        if !(self.name.is_empty() && self.path == RepoPath::root().path_hash()) {
            Name::new(&self.name).map_err(RowProblem::Name)?;
        }
        if self.role != Role::Plain && !self.entry.is_dir() {
            return Err(RowProblem::Role);
        }
        let size = match &self.entry.kind {
            Kind::CharDevice(rdev) | Kind::BlockDevice(rdev) => rdev.cast_signed(),
            _ => signed(self.entry.size())?,
        };
        let symlink = match &self.entry.kind {
            Kind::Symlink(target) if target.contains(&0) => {
                return Err(bad_column("symlink", "a target with a NUL in it"));
            }
            Kind::Symlink(target) => target.clone(),
            _ => Vec::new(),
        };
        let mtimens = self.entry.mtime.nanos.map(i64::from);
        if mtimens.is_some_and(|n| n >= NANOS_PER_SEC) {
            return Err(bad_column("mtimens", mtimens.unwrap_or_default()));
        }
        let hash = self.bulk_hash().map(|hash| *hash.digest());
        Ok(RawRow {
            path: self.path,
            parent: self.parent,
            hardlinks: i64::from(self.link_group) << LINK_COUNT_BITS | i64::from(self.linkcount),
            hash,
            size,
            mode: self.entry.mode(),
            mtime: self.entry.mtime.secs,
            mtimens,
            flags: self.flags()?,
            name: self.name.clone(),
            symlink,
            uid: self.entry.uid,
            gid: self.entry.gid,
            xattr: xattr::serialize(&self.entry.xattrs).map_err(RowProblem::Xattr)?,
        })
    }

    /// The row's chunks; none unless the file is chunked.
    ///
    /// # Errors
    /// [`RowProblem::Chunks`] when they do not tile the file.
    pub fn raw_chunks(&self) -> Result<Vec<RawChunk>, RowProblem> {
        let Some(Content::Chunks { chunks, .. }) = self.entry.regular().map(|f| &f.content) else {
            return Ok(Vec::new());
        };
        let size = signed(self.entry.size())?;
        let mut end = 0;
        let mut raw = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            if chunk.offset != end || chunk.size == 0 {
                return Err(RowProblem::Chunks {
                    size,
                    offset: signed(chunk.offset)?,
                });
            }
            end = chunk
                .offset
                .checked_add(chunk.size)
                .ok_or(RowProblem::Size(chunk.size))?;
            let (offset, size) = (signed(chunk.offset)?, signed(chunk.size)?);
            raw.push(RawChunk {
                offset,
                size,
                hash: *chunk.hash.digest(),
            });
        }
        if end == self.entry.size() && !chunks.is_empty() {
            return Ok(raw);
        }
        Err(RowProblem::Chunks {
            size,
            offset: signed(end)?,
        })
    }

    /// The hash column: none for what has no object of its own.
    fn bulk_hash(&self) -> Option<Hash> {
        match &self.entry.regular()?.content {
            Content::Whole(hash) => Some(*hash),
            Content::Chunks { bulk, .. } => *bulk,
        }
        .filter(|hash| !hash.is_null())
    }

    /// The one algorithm of all the row's hashes; none without hashes.
    fn algorithm(&self) -> Result<Option<Algorithm>, RowProblem> {
        let mut found = self.bulk_hash().map(|hash| hash.algorithm());
        if let Some(Content::Chunks { chunks, .. }) = self.entry.regular().map(|f| &f.content) {
            for chunk in chunks {
                let algorithm = chunk.hash.algorithm();
                if *found.get_or_insert(algorithm) != algorithm {
                    return Err(RowProblem::MixedAlgorithms);
                }
            }
        }
        Ok(found)
    }

    fn flags(&self) -> Result<u32, RowProblem> {
        let mut flags = match self.role {
            Role::Plain => 0,
            Role::Mountpoint => MOUNTPOINT,
            Role::Root => NESTED_ROOT,
            Role::Bind => BIND,
        };
        flags |= match &self.entry.kind {
            Kind::Directory { .. } => DIR,
            Kind::Symlink(_) => FILE | SYMLINK,
            Kind::Regular(file) => FILE | regular_flags(file),
            Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                FILE | SPECIAL
            }
        };
        if let Some(algorithm) = self.algorithm()? {
            flags |= algorithm.flag_bits() << ALGORITHM_SHIFT;
        }
        if self.hidden {
            flags |= HIDDEN;
        }
        Ok(flags)
    }
}

fn regular_flags(file: &Regular) -> u32 {
    let mut flags = match file.compression {
        Compression::Zlib => 0,
        Compression::None => 1 << COMPRESSION_SHIFT,
    };
    if matches!(file.content, Content::Chunks { .. }) {
        flags |= CHUNKED;
    }
    if file.external {
        flags |= EXTERNAL;
    }
    if file.direct_io {
        flags |= DIRECT_IO;
    }
    flags
}

/// Link group and link count.
fn split_hardlinks(hardlinks: i64) -> (u32, u32) {
    let bits = hardlinks.cast_unsigned();
    ((bits >> LINK_COUNT_BITS) as u32, bits as u32)
}

fn signed(bytes: u64) -> Result<i64, RowProblem> {
    i64::try_from(bytes).map_err(|_| RowProblem::Size(bytes))
}

fn bad_column(column: &'static str, found: impl ToString) -> RowProblem {
    RowProblem::Column {
        column,
        found: found.to_string(),
    }
}
