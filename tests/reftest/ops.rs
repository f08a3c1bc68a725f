//! Operations as values.
//!
//! An operation names its paths and open files outright and depends on nothing that went before, so
//! that any part of a list can be replayed: what fails now fails for model and subject alike. Nothing
//! here executes anything.

use std::fmt;

use super::draw::Dice;

/// Open files at a time.
pub const SLOTS: usize = 4;
/// The file that makes a directory the root of a catalog.
pub const MARKER: &[u8] = b".cvmfscatalog";

/// A path below the tree's root, without a leading slash; empty for the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub Vec<u8>);

impl Path {
    pub fn root() -> Self {
        Self(Vec::new())
    }

    pub fn join(&self, name: &[u8]) -> Self {
        if self.0.is_empty() {
            return Self(name.to_vec());
        }
        Self([self.0.as_slice(), b"/", name].concat())
    }

    /// The directory and the name in it; none for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => Some((Self(self.0[..at].to_vec()), &self.0[at + 1..])),
            None => Some((Self::root(), &self.0)),
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|n| !n.is_empty())
    }

    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_prefix(other.0.as_slice()) {
            Some(rest) => other.0.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 60 {
            let (start, end) = (&self.0[..20], &self.0[self.0.len() - 20..]);
            let long = self.0.len();
            let (start, end) = (start.escape_ascii(), end.escape_ascii());
            return write!(f, "'{start}...({long} bytes)...{end}'");
        }
        write!(f, "'{}'", self.0.escape_ascii())
    }
}

/// Bytes that are told from others, by a number.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub tag: u32,
    pub length: usize,
}

impl Fill {
    pub fn bytes(self) -> Vec<u8> {
        // some compress well, some not at all; some are the same over and over
        if self.tag.is_multiple_of(5) {
            let line = format!("line {} of a text\n", self.tag);
            return line.bytes().cycle().take(self.length).collect();
        }
        let mut dice = Dice::new(u64::from(self.tag));
        let mut bytes = Vec::with_capacity(self.length + 8);
        while bytes.len() < self.length {
            bytes.extend_from_slice(&dice.number().to_le_bytes());
        }
        bytes.truncate(self.length);
        bytes
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub read: bool,
    pub write: bool,
    pub create: bool,
    pub exclusive: bool,
    pub truncate: bool,
    pub append: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    Replace,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Making {
    Regular,
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Allocate,
    KeepSize,
    Punch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Any,
    Create,
    Replace,
}

/// What a commit does with files that are open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    Skip,
    Fail,
}

/// One operation. `slot` counts open files; opening closes what was open there.
#[derive(Clone, Debug)]
pub enum Op {
    Open {
        slot: usize,
        path: Path,
        how: How,
        perm: u16,
    },
    Close {
        slot: usize,
    },
    Write {
        slot: usize,
        offset: u64,
        fill: Fill,
    },
    Read {
        slot: usize,
        offset: u64,
        length: usize,
    },
    Resize {
        slot: usize,
        size: u64,
    },
    Space {
        slot: usize,
        offset: u64,
        length: u64,
        how: Space,
    },
    Copy {
        from: usize,
        from_offset: u64,
        to: usize,
        to_offset: u64,
        length: u64,
    },
    Sync {
        slot: usize,
    },
    /// open(O_CREAT | O_TRUNC), write, close.
    Put {
        path: Path,
        fill: Fill,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    Mkdir {
        path: Path,
        perm: u16,
    },
    Rmdir {
        path: Path,
    },
    Unlink {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        how: Moving,
    },
    Link {
        from: Path,
        to: Path,
    },
    Symlink {
        path: Path,
        target: Vec<u8>,
    },
    Mknod {
        path: Path,
        perm: u16,
        what: Making,
    },
    Chmod {
        path: Path,
        perm: u16,
    },
    Chown {
        path: Path,
        uid: u32,
        gid: u32,
    },
    Utimens {
        path: Path,
        secs: i64,
        nanos: u32,
    },
    Setxattr {
        path: Path,
        name: &'static str,
        value: Vec<u8>,
        how: Setting,
    },
    Removexattr {
        path: Path,
        name: &'static str,
    },
    /// Publishes what is staged at and below some paths.
    Commit {
        paths: Vec<Path>,
        writers: Writers,
    },
    /// Drops what is staged at and below a path.
    Abort {
        path: Path,
    },
    /// Stops in good order and starts again. Open files are closed first.
    Restart,
    /// Dies and starts again.
    Kill,
    /// Waits until everything closed is sealed.
    Seal,
}

/// What an operation answered.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    Count(u64),
    Bytes(Vec<u8>),
    /// An errno, or one of [`refusal`].
    Failed(i32),
    /// Never right.
    Other(String),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Count(n) => write!(f, "{n}"),
            Self::Bytes(bytes) => write!(f, "{} bytes, {}", bytes.len(), digest(bytes)),
            Self::Failed(errno) => write!(f, "failed: {errno}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Enough of a content to tell it from another in a message.
pub fn digest(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("#{:08x}", hasher.finish() & 0xffff_ffff)
}

/// What a commit or an abort may answer, beside the errnos.
pub mod refusal {
    pub const OPEN_FILES: i32 = 1001;
    pub const REPLACED_ANCESTOR: i32 = 1002;
    pub const NOT_FOUND: i32 = 1003;
}
