//! What is recorded of staged inodes and names.
//!
//! ```text
//! inode   -> Record                      what it is, its metadata, where its bytes are
//! (directory's inode, name) -> Dentry    which inode the name has, or that it is gone
//! ```
//!
//! A directory's record says where the names come from that it does not list ([`Origin`]). Nothing
//! here knows the journal's keys or does any I/O.

use formats::{
    Compression, Content, Entry, Kind, Mtime, Name, ObjectName, Regular, RepoPath, Xattrs,
};
use serde::{Deserialize, Serialize};

use super::Unpublished;
use super::raw::{Former, Raw};
use crate::types::{FileType, Ino, Time};

/// Which published revision, by the stage's own numbering; 0 names none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub(crate) struct RevId(pub(crate) u32);

/// A staged inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) body: Body,
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    pub(crate) ctime: Time,
    pub(crate) xattrs: Option<Box<Xattrs>>,
    /// The tree's tick when it last changed.
    pub(crate) stamp: u64,
    /// The access time, where one was set; never published.
    pub(crate) atime: Option<Time>,
    /// Tells it from all other inodes that ever were staged: a number may be another's later.
    pub(crate) serial: Serial,
}

/// Whose it is, for ever; 0 is nobody's.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub(crate) struct Serial(pub(crate) u64);

impl Serial {
    /// The repository's root's, which may not be recorded.
    pub(crate) const ROOT: Self = Self(1);
}

/// The type of a staged inode, and what only that type has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    Directory(Box<Dir>),
    File(File),
    Symlink(Box<[u8]>),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// A staged directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dir {
    pub(crate) origin: Origin,
    /// The path that inode numbers of unstaged children are made from.
    pub(crate) ino_path: RepoPath,
    /// Metadata was set, or it is new: more than an mtime that followed from its children.
    pub(crate) explicit: bool,
    /// Subdirectories more (or fewer) than the origin has.
    pub(crate) subdirs: i32,
}

impl Dir {
    /// True if nothing of the directory itself is staged: it is there for what is in it.
    pub(crate) fn is_implicit(&self) -> bool {
        !self.explicit && self.origin == Origin::Inherit
    }
}

/// Where a directory's unlisted names come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// There are none.
    Empty,
    /// The directory of the same name in the parent directory's origin; for the root, the root.
    Inherit,
    /// A published directory that was moved here.
    At { rev: RevId, path: RepoPath },
}

/// A staged regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// Bytes; while the file is unsealed, its backing file knows better, unless that is `Synced`.
    pub(crate) size: u64,
    pub(crate) data: Data,
    /// The mtime is the backing file's own.
    pub(crate) mtime_of_backing: bool,
    pub(crate) raw: Raw,
    /// What it was, in objects, before it got raw bytes that were not synced since.
    pub(crate) former: Option<Box<Former>>,
}

/// Where a staged file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Data {
    /// In objects that are published already.
    Published(Box<Regular>),
    /// In the stage.
    Staged {
        /// The file of raw bytes; 0 if there is none: it is empty, or its bytes are in objects only.
        backing: u64,
        /// The objects.
        sealed: Option<Box<SealedData>>,
    },
}

/// Objects of the stage's own store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealedData {
    pub(crate) content: Content,
    pub(crate) compression: Compression,
    /// Names the parameters it was sealed by, as far as they matter to a file of its size.
    pub(crate) params: u64,
    /// Counts sealed files; objects up to some count are known to survive a power loss.
    pub(crate) at: u64,
}

impl File {
    /// The backing file (0 for none) and size of one that is staged; none for one whose content is
    /// published already.
    pub(crate) fn staged(&self) -> Option<(u64, u64)> {
        match self.data {
            Data::Staged { backing, .. } => Some((backing, self.size)),
            Data::Published(_) => None,
        }
    }
}

impl Data {
    /// The stage's own objects that it refers to.
    pub(crate) fn sealed_objects(&self) -> impl Iterator<Item = ObjectName> {
        let sealed = match self {
            Self::Staged { sealed, .. } => sealed.as_ref(),
            Self::Published(_) => None,
        };
        sealed
            .into_iter()
            .flat_map(|sealed| sealed.content.objects())
    }

    pub(crate) const EMPTY: Self = Self::Staged {
        backing: 0,
        sealed: None,
    };

    /// The raw file, if there is one.
    pub(crate) fn backing(&self) -> Option<u64> {
        match self {
            Self::Staged { backing, .. } if *backing != 0 => Some(*backing),
            _ => None,
        }
    }

    /// The objects, published or the stage's own; none while unsealed.
    pub(crate) fn regular(&self, size: u64) -> Option<Regular> {
        match self {
            Self::Published(regular) => Some((**regular).clone()),
            Self::Staged { sealed, .. } => sealed.as_ref().map(|sealed| Regular {
                size,
                content: sealed.content.clone(),
                compression: sealed.compression,
                external: false,
                direct_io: false,
                link_group: 0,
            }),
        }
    }
}

/// What was published at a name, in the directory's origin, when the name was staged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Under {
    #[default]
    Nothing,
    File,
    Directory,
}

/// A staged name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dentry {
    /// The inode; 0 if the name is gone.
    pub(crate) ino: u64,
    /// The name is gone.
    pub(crate) white: bool,
    /// It is as published, and kept for its inode number or links alone.
    pub(crate) clean: bool,
    pub(crate) under: Under,
    /// The head revision when the name was staged.
    pub(crate) rev: RevId,
    /// The tree's tick when the name last changed.
    pub(crate) stamp: u64,
    /// The inode that is published there, wherever it is now; nobody's if that was never staged.
    pub(crate) published: Serial,
}

impl Dentry {
    /// The inode, unless the name is gone.
    pub(crate) fn node(&self) -> Option<Ino> {
        (!self.white).then_some(Ino(self.ino))
    }

    /// The inode that is published at this name, if it was staged.
    pub(crate) fn home_of(&self) -> Option<Serial> {
        let known = self.under != Under::Nothing && self.published != Serial::default();
        known.then_some(self.published)
    }
}

/// The names of an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Names {
    #[default]
    None,
    One(Ino, Name),
    Many(Vec<(Ino, Name)>),
}

impl Names {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(names) => names.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn first(&self) -> Option<(Ino, &Name)> {
        self.iter().next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ino, &Name)> {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(parent, name) => (Some((*parent, name)), &[][..]),
            Self::Many(names) => (None, names.as_slice()),
        };
        one.into_iter()
            .chain(many.iter().map(|(parent, name)| (*parent, name)))
    }

    pub(crate) fn add(&mut self, parent: Ino, name: Name) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(parent, name),
            Self::One(p, n) => Self::Many(vec![(p, n), (parent, name)]),
            Self::Many(mut names) => {
                names.push((parent, name));
                Self::Many(names)
            }
        };
    }

    pub(crate) fn remove(&mut self, parent: Ino, name: &Name) {
        *self = match std::mem::take(self) {
            Self::One(p, n) if p == parent && n == *name => Self::None,
            Self::Many(mut names) => {
                names.retain(|(p, n)| *p != parent || n != name);
                match names.len() {
                    1 => names.pop().map_or(Self::None, |(p, n)| Self::One(p, n)),
                    _ => Self::Many(names),
                }
            }
            other => other,
        };
    }
}

impl Record {
    /// A published row, staged as it is. A directory keeps its published children.
    pub(crate) fn from_entry(
        entry: &Entry,
        ino_path: RepoPath,
        stamp: u64,
        serial: Serial,
    ) -> Self {
        let body = match &entry.kind {
            Kind::Directory { .. } => Body::Directory(Box::new(Dir {
                origin: Origin::Inherit,
                ino_path,
                explicit: false,
                subdirs: 0,
            })),
            Kind::Regular(regular) => Body::File(File {
                size: regular.size,
                data: Data::Published(Box::new(Regular {
                    link_group: 0,
                    ..regular.clone()
                })),
                mtime_of_backing: false,
                raw: Raw::Unsynced,
                former: None,
            }),
            Kind::Symlink(target) => Body::Symlink(target.clone().into()),
            Kind::Fifo => Body::Fifo,
            Kind::Socket => Body::Socket,
            Kind::CharDevice(rdev) => Body::CharDevice(*rdev),
            Kind::BlockDevice(rdev) => Body::BlockDevice(*rdev),
        };
        Self {
            body,
            perm: entry.perm,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            ctime: time_of(entry.mtime),
            xattrs: (!entry.xattrs.is_empty()).then(|| Box::new(entry.xattrs.clone())),
            stamp,
            atime: None,
            serial,
        }
    }

    /// Takes over the metadata of a directory as it is published now.
    pub(crate) fn follow(&mut self, entry: &Entry, now: Time) {
        let published = Self::from_entry(entry, RepoPath::root(), self.stamp, self.serial);
        let body = std::mem::replace(&mut self.body, Body::Fifo);
        let ctime = self.ctime.max(now);
        *self = Self {
            body,
            ctime,
            ..published
        };
    }

    /// What a catalog would say. A file that is unsealed has no content yet: none.
    pub(crate) fn entry(&self, link_group: u64) -> Option<Entry> {
        let kind = match &self.body {
            Body::Directory(_) => Kind::Directory { size: 4096 },
            Body::File(file) => Kind::Regular(Regular {
                link_group,
                ..file.data.regular(file.size)?
            }),
            Body::Symlink(target) => Kind::Symlink(target.to_vec()),
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
            Body::CharDevice(rdev) => Kind::CharDevice(*rdev),
            Body::BlockDevice(rdev) => Kind::BlockDevice(*rdev),
        };
        Some(Entry {
            kind,
            perm: self.perm,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs.as_deref().cloned().unwrap_or_default(),
        })
    }

    pub(crate) fn file_type(&self) -> FileType {
        match self.body {
            Body::Directory(_) => FileType::Directory,
            Body::File(_) => FileType::Regular,
            Body::Symlink(_) => FileType::Symlink,
            Body::Fifo => FileType::Fifo,
            Body::Socket => FileType::Socket,
            Body::CharDevice(_) => FileType::CharDevice,
            Body::BlockDevice(_) => FileType::BlockDevice,
        }
    }

    pub(crate) fn dir(&self) -> Option<&Dir> {
        match &self.body {
            Body::Directory(dir) => Some(dir),
            _ => None,
        }
    }

    pub(crate) fn dir_mut(&mut self) -> Option<&mut Dir> {
        match &mut self.body {
            Body::Directory(dir) => Some(dir),
            _ => None,
        }
    }

    pub(crate) fn file(&self) -> Option<&File> {
        match &self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn file_mut(&mut self) -> Option<&mut File> {
        match &mut self.body {
            Body::File(file) => Some(file),
            _ => None,
        }
    }

    /// The file is to be sealed as soon as nobody writes to it.
    pub(crate) fn awaits_sealing(&self) -> bool {
        self.is_unsealed() && !self.is_doubtful()
    }

    /// What a catalog has no place for.
    pub(crate) fn unpublished(&self) -> Option<Box<Unpublished>> {
        let Self { atime, ctime, .. } = *self;
        let needed = atime.is_some() || ctime != time_of(self.mtime);
        needed.then(|| Box::new(Unpublished { atime, ctime }))
    }

    /// The file is staged and its content is not known as objects.
    pub(crate) fn is_unsealed(&self) -> bool {
        matches!(
            self.file(),
            Some(File {
                data: Data::Staged { sealed: None, .. },
                ..
            })
        )
    }
}

/// The type of a published entry.
pub(crate) fn type_of(entry: &Entry) -> FileType {
    match entry.kind {
        Kind::Directory { .. } => FileType::Directory,
        Kind::Regular(_) => FileType::Regular,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice(_) => FileType::CharDevice,
        Kind::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// The device number of a published entry.
pub(crate) fn rdev_of(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::CharDevice(rdev) | Kind::BlockDevice(rdev) => rdev,
        _ => 0,
    }
}

/// A catalog's time as a point in time.
pub(crate) fn time_of(mtime: Mtime) -> Time {
    Time {
        secs: mtime.secs,
        nanos: mtime.nanos.unwrap_or(0),
    }
}

/// A point in time as a catalog's time.
pub(crate) fn mtime_of(time: Time) -> Mtime {
    Mtime {
        secs: time.secs,
        nanos: Some(time.nanos),
    }
}
