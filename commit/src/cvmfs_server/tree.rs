//! The tree of an open transaction, changed by names in opened directories.
//!
//! A directory is opened below the mount's root with openat2(2): never through a symbolic link, never
//! out of the mount. What is made in it is named by one component and is new: it is never what somebody
//! put there. A user who is not root makes a directory of theirs accessible first; [`super::apply`]
//! gives each directory that was touched its own metadata at the end.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use formats::entry::{Entry, Kind, Mtime, Xattrs};
use formats::path::{Name, RepoPath};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, fstat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

/// Rights that whoever changes a directory needs in it.
const OWNER_ALL: u32 = 0o700;
/// Before a file has its owner, nobody else reads it.
const PRIVATE: u32 = 0o600;

/// The mount of a transaction.
pub(super) struct Tree {
    root: OwnedFd,
    /// The directory that was opened last: changes come sorted.
    last: Option<(RepoPath, OwnedFd)>,
    is_root_user: bool,
}

/// What is made besides directories and regular files.
fn special(kind: &Kind) -> Option<(FileType, u64)> {
    match kind {
        Kind::Fifo => Some((FileType::Fifo, 0)),
        Kind::Socket => Some((FileType::Socket, 0)),
        Kind::CharDevice(number) => Some((FileType::CharacterDevice, *number)),
        Kind::BlockDevice(number) => Some((FileType::BlockDevice, *number)),
        Kind::Directory { .. } | Kind::Regular(_) | Kind::Symlink(_) => None,
    }
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.secs,
            tv_nsec: mtime.nanos.unwrap_or_default().into(),
        },
    }
}

/// A name for what an `O_PATH` descriptor stands for, which no other call takes.
fn proc_name(fd: impl AsFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_fd().as_raw_fd().to_string())
}

fn only_path(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the mount's root.
    pub(super) fn open(union: &Path) -> io::Result<Self> {
        Ok(Self {
            root: openat(CWD, union, DIRECTORY, Mode::empty())?,
            last: None,
            is_root_user: rustix::process::geteuid().is_root(),
        })
    }

    fn beneath(&self, path: &RepoPath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let relative = path.as_bytes().strip_prefix(b"/").unwrap_or(b".");
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        openat2(&self.root, relative, flags, Mode::empty(), resolve)
    }

    /// A directory, opened.
    pub(super) fn dir(&mut self, path: &RepoPath) -> io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(at, _)| at != path) {
            let opened = match self.beneath(path, DIRECTORY) {
                Err(Errno::ACCESS) if !self.is_root_user => self.unlocked(path)?,
                opened => opened?,
            };
            if !self.is_root_user {
                make_accessible(&opened)?;
            }
            self.last = Some((path.clone(), opened));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => unreachable!("it was just opened"),
        }
    }

    /// A directory that its owner had no rights in, with rights.
    fn unlocked(&self, path: &RepoPath) -> io::Result<OwnedFd> {
        let mut at = RepoPath::root();
        for name in path.components() {
            at = at.join(&name);
            let found = self.beneath(&at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
            make_accessible(&found)?;
        }
        Ok(self.beneath(path, DIRECTORY)?)
    }

    /// Removes what stands at a name, whatever it is; nothing, if nothing does.
    pub(super) fn remove(&mut self, dir: &RepoPath, name: &Name) -> io::Result<()> {
        let dir = self.dir(dir)?;
        remove_at(dir, name.as_os_str())
    }

    pub(super) fn make_dir(&mut self, dir: &RepoPath, name: &Name) -> io::Result<()> {
        let mode = Mode::from_raw_mode(OWNER_ALL);
        Ok(rustix::fs::mkdirat(self.dir(dir)?, name.as_os_str(), mode)?)
    }

    /// A new, empty file.
    pub(super) fn make_file(&mut self, dir: &RepoPath, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(self.dir(dir)?, name, flags, Mode::from_raw_mode(PRIVATE))?;
        Ok(made.into())
    }

    /// A symbolic link, fifo, socket or device, with all its metadata.
    pub(super) fn make_other(
        &mut self,
        dir: &RepoPath,
        name: &Name,
        entry: &Entry,
    ) -> io::Result<()> {
        let dir = self.dir(dir)?;
        let name = name.as_os_str();
        if let Kind::Symlink(target) = &entry.kind {
            rustix::fs::symlinkat(target.as_slice(), dir, name)?;
        } else if let Some((kind, number)) = special(&entry.kind) {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(PRIVATE), number)?;
        }
        let made = only_path(dir, name)?;
        own(&made, &fstat(&made)?, entry, |uid, gid| {
            rustix::fs::chownat(&made, "", uid, gid, AtFlags::EMPTY_PATH)
        })?;
        let place = proc_name(&made);
        if !matches!(entry.kind, Kind::Symlink(_)) {
            rustix::fs::chmod(&place, Mode::from_raw_mode(entry.perm.into()))?;
            for (key, value) in &entry.xattrs {
                rustix::fs::setxattr(&place, key.as_slice(), value, XattrFlags::empty())?;
            }
        } else {
            // a link of that name would be followed; the directory's own name is safe to go through
            let place = proc_name(dir).join(name);
            for (key, value) in &entry.xattrs {
                rustix::fs::lsetxattr(&place, key.as_slice(), value, XattrFlags::empty())?;
            }
        }
        let times = times(entry.mtime);
        Ok(rustix::fs::utimensat(
            dir,
            name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// Gives an opened file or directory its metadata; `was` are the attributes that it has.
pub(super) fn dress(file: impl AsFd, entry: &Entry, was: &Xattrs) -> io::Result<()> {
    let file = file.as_fd();
    own(file, &fstat(file)?, entry, |uid, gid| {
        rustix::fs::fchown(file, uid, gid)
    })?;
    for key in was.keys().filter(|key| !entry.xattrs.contains_key(*key)) {
        match rustix::fs::fremovexattr(file, key.as_slice()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for (key, value) in &entry.xattrs {
        if was.get(key) != Some(value) {
            rustix::fs::fsetxattr(file, key.as_slice(), value, XattrFlags::empty())?;
        }
    }
    // after the owner: a change of it takes setuid and setgid away
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.perm.into()))?;
    Ok(rustix::fs::futimens(file, &times(entry.mtime))?)
}

/// Sets a modification time alone.
pub(super) fn set_time(file: impl AsFd, mtime: Mtime) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(mtime))?)
}

/// Changes the owner where it has to: a user who is not root may not even say what is so.
fn own(
    _file: impl AsFd,
    found: &Stat,
    entry: &Entry,
    change: impl FnOnce(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
) -> io::Result<()> {
    let uid = (found.st_uid != entry.uid).then(|| Uid::from_raw(entry.uid));
    let gid = (found.st_gid != entry.gid).then(|| Gid::from_raw(entry.gid));
    match (uid, gid) {
        (None, None) => Ok(()),
        (uid, gid) => Ok(change(uid, gid)?),
    }
}

/// Gives the owner of a directory the rights to change it.
fn make_accessible(dir: &OwnedFd) -> io::Result<()> {
    let mode = fstat(dir)?.st_mode & 0o7777;
    if mode & OWNER_ALL == OWNER_ALL {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(mode | OWNER_ALL);
    Ok(rustix::fs::chmod(proc_name(dir), mode)?)
}

fn remove_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // directories: Linux says the one, POSIX the other
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let found = only_path(dir, name)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Directory {
        return Err(Errno::PERM.into());
    }
    if !rustix::process::geteuid().is_root() {
        make_accessible(&found)?;
    }
    empty(&openat(dir, name, DIRECTORY, Mode::empty())?)?;
    Ok(unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Removes all that is in a directory.
fn empty(dir: &OwnedFd) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names
        .iter()
        .try_for_each(|name| remove_at(dir.as_fd(), OsStr::from_bytes(name)))
}
