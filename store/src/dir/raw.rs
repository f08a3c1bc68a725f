//! The few system calls a storage directory is made of.
//!
//! A temporary file has no name where the filesystem can do that (nothing is left behind by a
//! crash), else a name in `data/txn`. Nothing here knows what an object is.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{DIR_MODE, FILE_MODE};
use crate::error::StoreError;

type Result<T, E = Errno> = std::result::Result<T, E>;

/// How our own temporary files are called.
pub(super) const TEMP_PREFIX: &str = "prepub.";

/// Tells the temporary files of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Opens a directory for reading names and for `*at` calls.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|e| StoreError::io("open", path, e.into()))
}

/// Opens a directory below another.
pub(super) fn open_at_dir(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Makes a directory unless it is there; true if it was not. Its mode does not depend on the umask.
pub(super) fn make_dir(parent: &OwnedFd, path: &Path, name: &str) -> Result<bool, StoreError> {
    let failed = |e: Errno| StoreError::io("create", path.join(name), e.into());
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(DIR_MODE)) {
        Ok(()) => {
            let made = open_at_dir(parent, name).map_err(failed)?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(DIR_MODE)).map_err(failed)?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(failed(e)),
    }
}

/// Unlinks a name; false if it was not there.
pub(super) fn unlink(dir: &OwnedFd, name: &str) -> Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes a temporary file, unless somebody is writing it; false then, or if it was not there.
pub(super) fn unlink_leftover(dir: &OwnedFd, name: &str) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(e),
    };
    Ok(is_ours(&file)? && unlink(dir, name)?)
}

/// Whoever writes a file, or removes it as left over, has its lock. False if another one has it, or
/// removed the file before.
fn is_ours(file: &OwnedFd) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(rustix::fs::fstat(file)?.st_nlink > 0),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

/// How temporary files are made on a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TempKind {
    /// Without a name, linked through `/proc/self/fd`.
    unnamed: bool,
    /// The umask takes bits of the mode away, so it must be set each time.
    chmod: bool,
}

impl TempKind {
    /// Tries it.
    pub(super) fn probe(data: &Arc<OwnedFd>) -> Result<Self> {
        let chmod = |temp: &Temp| -> Result<bool> {
            Ok(rustix::fs::fstat(temp.file())?.st_mode & 0o7777 != FILE_MODE)
        };
        let unnamed = Self {
            unnamed: true,
            chmod: false,
        };
        if let Ok(temp) = Temp::create(data, unnamed) {
            let kind = Self {
                unnamed: true,
                chmod: chmod(&temp)?,
            };
            let name = format!("txn/{}", temp_name());
            if temp.link_to(data, &name).is_ok() {
                unlink(data, &name)?;
                return Ok(kind);
            }
        }
        let named = Self {
            unnamed: false,
            chmod: false,
        };
        let temp = Temp::create(data, named)?;
        Ok(Self {
            unnamed: false,
            chmod: chmod(&temp)?,
        })
    }
}

fn temp_name() -> String {
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{TEMP_PREFIX}{}.{count}", std::process::id())
}

/// A file that has no object name yet. Dropping it leaves nothing behind.
pub(super) struct Temp {
    file: File,
    /// Its name below `data`, to be removed.
    name: Option<(Arc<OwnedFd>, String)>,
}

impl Temp {
    /// A fresh file of mode 0644.
    pub(super) fn create(data: &Arc<OwnedFd>, kind: TempKind) -> Result<Self> {
        let mode = Mode::from_raw_mode(FILE_MODE);
        let temp = if kind.unnamed {
            let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
            // by turns, so that not all of them lie in one place
            let turn = COUNTER.fetch_add(1, Ordering::Relaxed) as u8;
            let fd = match rustix::fs::openat(data, format!("{turn:02x}"), flags, mode) {
                Err(Errno::NOENT) => rustix::fs::openat(data, "txn", flags, mode)?,
                made => made?,
            };
            Self {
                file: fd.into(),
                name: None,
            }
        } else {
            Self::exclusive(data)?
        };
        if kind.chmod {
            rustix::fs::fchmod(&temp.file, mode)?;
        }
        Ok(temp)
    }

    /// A fresh file with a name, mode 0644 whatever the umask.
    pub(super) fn named(data: &Arc<OwnedFd>) -> Result<Self> {
        let temp = Self::exclusive(data)?;
        rustix::fs::fchmod(&temp.file, Mode::from_raw_mode(FILE_MODE))?;
        Ok(temp)
    }

    fn exclusive(data: &Arc<OwnedFd>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        loop {
            let name = format!("txn/{}", temp_name());
            match rustix::fs::openat(data, &name, flags, Mode::from_raw_mode(FILE_MODE)) {
                // whoever cleans up may have come between
                Ok(fd) if is_ours(&fd)? => {
                    return Ok(Self {
                        file: fd.into(),
                        name: Some((Arc::clone(data), name)),
                    });
                }
                Ok(_) => {}
                // left by a process that had our id
                Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub(super) fn file(&self) -> impl AsFd + '_ {
        &self.file
    }

    pub(super) fn file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file a name, unless that name is taken (`EEXIST`).
    pub(super) fn link_to(mut self, dir: &OwnedFd, to: &str) -> Result<()> {
        let Some((data, name)) = &self.name else {
            let fd = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            return rustix::fs::linkat(CWD, fd, dir, to, AtFlags::SYMLINK_FOLLOW);
        };
        match rustix::fs::renameat_with(data, name, dir, to, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.name = None;
                Ok(())
            }
            // a filesystem without that flag: link, and let go of the old name in drop
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                rustix::fs::linkat(data, name, dir, to, AtFlags::empty())
            }
            Err(e) => Err(e),
        }
    }

    /// Gives a named file a name in place of whatever file is there.
    pub(super) fn rename_over(mut self, dir: &OwnedFd, to: &str) -> Result<()> {
        let Some((data, name)) = &self.name else {
            return Err(Errno::INVAL);
        };
        rustix::fs::renameat(data, name, dir, to)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Some((data, name)) = &self.name {
            // a leftover is harmless and removed by the next publication
            let _ = unlink(data, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Both ways of making a file behave alike, also where the filesystem offers only one.
    #[test]
    fn with_and_without_a_name() {
        for unnamed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("txn")).unwrap();
            let data = Arc::new(open_dir(dir.path()).unwrap());
            let kind = TempKind {
                unnamed,
                chmod: true,
            };
            let names = || std::fs::read_dir(dir.path().join("txn")).unwrap().count();
            let write = |bytes: &[u8]| {
                let mut temp = Temp::create(&data, kind).unwrap();
                temp.file_mut().write_all(bytes).unwrap();
                temp
            };
            drop(write(b"dropped"));
            assert_eq!(names(), 0);
            let temp = write(b"first");
            assert_eq!(names(), usize::from(!unnamed));
            temp.link_to(&data, "object").unwrap();
            assert_eq!(write(b"second").link_to(&data, "object"), Err(Errno::EXIST));
            assert_eq!(
                write(b"third").link_to(&data, "no/object"),
                Err(Errno::NOENT)
            );
            assert_eq!(std::fs::read(dir.path().join("object")).unwrap(), b"first");
            assert_eq!(names(), 0);
        }
    }

    #[test]
    fn only_a_named_file_replaces() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("txn")).unwrap();
        let data = Arc::new(open_dir(dir.path()).unwrap());
        for _ in 0..2 {
            Temp::named(&data)
                .unwrap()
                .rename_over(&data, "root")
                .unwrap();
        }
        let kind = TempKind {
            unnamed: true,
            chmod: false,
        };
        let unnamed = Temp::create(&data, kind).unwrap();
        assert_eq!(unnamed.rename_over(&data, "root"), Err(Errno::INVAL));
    }
}
