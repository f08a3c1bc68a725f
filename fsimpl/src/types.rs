//! The filesystem's own words: inode numbers, attributes, callers, handles.
//!
//! Nothing here knows FUSE; `fuse.rs` translates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An inode number. [`Ino::ROOT`] is the mount point's own directory, which lists the repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount point.
    pub const ROOT: Self = Self(1);
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// A point in time: seconds since 1970 (negative before) and nanoseconds counted forward from them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Time {
    /// Seconds.
    pub secs: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// Tells the time. Handed in, so that tests own it.
pub type Clock = fn() -> Time;

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A directory.
    Directory,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The inode number.
    pub ino: Ino,
    /// Type.
    pub kind: FileType,
    /// `st_mode & 0o7777`.
    pub perm: u16,
    /// Names of a file; 2 and the subdirectories of a directory.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `st_rdev`.
    pub rdev: u64,
    /// Bytes; 4096 for a directory.
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Last access as it was set; reading never changes it. The modification time where it was
    /// never set.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process; 0 where the kernel does not say.
    pub pid: u32,
    /// File mode creation mask; applied by us (DONT_MASK).
    pub umask: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The clock's.
    Now,
    /// This one.
    At(Time),
}

/// What `setattr` changes; absent fields stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// `mode & 0o7777`.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// The handle it came through, if any: a file that was unlinked is still reachable by it.
    pub handle: Option<Handle>,
}

/// What `mknod` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeType {
    /// An empty regular file.
    Regular,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with this 64-bit `st_rdev`.
    CharDevice(u64),
    /// A block device with this 64-bit `st_rdev`.
    BlockDevice(u64),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// O_RDONLY or O_RDWR.
    pub read: bool,
    /// O_WRONLY or O_RDWR.
    pub write: bool,
    /// O_TRUNC.
    pub truncate: bool,
    /// O_APPEND: every write goes to the end, whatever its offset.
    pub append: bool,
    /// O_EXCL, for `create`.
    pub exclusive: bool,
}

/// What stands in the way of a name at the other end of a rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    #[default]
    Replace,
    /// RENAME_NOREPLACE: EEXIST.
    NoReplace,
    /// RENAME_EXCHANGE: both change places.
    Exchange,
}

/// Whether `setxattr` makes or replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    #[default]
    Any,
    /// XATTR_CREATE.
    Create,
    /// XATTR_REPLACE.
    Replace,
}

/// What `fallocate` does; all of them on `offset .. offset + length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Reserve, and grow the file.
    Allocate,
    /// Reserve without growing (FALLOC_FL_KEEP_SIZE).
    KeepSize,
    /// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE.
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE; the flag says whether the file grows.
    ZeroRange {
        /// With FALLOC_FL_KEEP_SIZE.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntryPlus<'a> {
    /// Its name; `.` and `..` come first.
    pub name: &'a [u8],
    /// Its inode number.
    pub ino: Ino,
    /// Its type.
    pub kind: FileType,
    /// Hand this in to go on after it. Never 0, and below 2^63.
    pub cursor: u64,
    /// Its attributes where they were asked for; always absent for `.` and `..`. An entry with
    /// attributes that was taken counts as a lookup.
    pub attr: Option<Attr>,
}

/// Free space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks there are.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Blocks free to ordinary users.
    pub available: u64,
    /// Inodes there are.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// Who must hear that something changed behind the kernel's back.
///
/// The calls come from a thread that holds no lock of the tree, and may block.
pub trait Notifier: Send + Sync {
    /// Attributes and cached pages of an inode are stale.
    fn inval_inode(&self, ino: Ino);
    /// What `name` in `parent` is, or that it is not, is stale.
    fn inval_entry(&self, parent: Ino, name: &[u8]);
}

/// How long a writer is held up at the most, once, when the seal queue is full.
pub const BACKPRESSURE_STEP: Duration = Duration::from_millis(50);
