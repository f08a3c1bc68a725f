//! The plain files that hold the raw bytes of staged files.
//!
//! ```text
//! DIR/ab/00000000000012ab      the lowest byte of the number, then the number
//! ```
//!
//! A file appears with its first byte. Nothing here knows an inode.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatVfs, Timespec, Timestamps, UTIME_OMIT};
use store::failpoint;

use crate::error::{FsError, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::Time;

/// Bytes copied at a time where the filesystem cannot share them.
const COPY_BYTES: usize = 1 << 20;

/// See the module's head.
pub(crate) struct Backing {
    dir: PathBuf,
    next: AtomicU64,
}

impl Backing {
    /// Opens or makes the directory of backing files.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let opened = fs::create_dir_all(dir).and_then(|()| File::open(dir));
        let opened = opened.map_err(|source| failed(dir, source))?;
        store::place_apart(&opened);
        for low in 0..=0xffu32 {
            let sub = dir.join(format!("{low:02x}"));
            fs::create_dir_all(&sub).map_err(|source| failed(&sub, source))?;
        }
        let empty = dir.join("empty");
        File::create(&empty).map_err(|source| failed(&empty, source))?;
        Ok(Self {
            dir: dir.to_owned(),
            next: AtomicU64::new(1),
        })
    }

    /// A number that no file has.
    pub(crate) fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Numbers up to this one are taken.
    pub(crate) fn seen(&self, number: u64) {
        self.next
            .fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// Where a file lies.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        if number == 0 {
            return self.dir.join("empty");
        }
        self.dir
            .join(format!("{:02x}", number & 0xff))
            .join(format!("{number:016x}"))
    }

    /// Opens a file for reading and writing, making it if it is not there.
    pub(crate) fn create(&self, number: u64) -> Result<File> {
        let path = self.path(number);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .and_then(|file| {
                failpoint::pass("backing::made").map_err(io::Error::other)?;
                Ok(file)
            })
            .map_err(|source| failed(&path, source))
    }

    /// Size and modification time of a file; none if it is not there.
    pub(crate) fn stat(&self, number: u64) -> Result<Option<fs::Metadata>> {
        let path = self.path(number);
        match fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Gives a file that is there the modification time that was shown of it. Best effort: it is the
    /// clock's all the same, to some microseconds.
    pub(crate) fn set_mtime(&self, number: u64, time: Time) {
        if number == 0 {
            return;
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: time.secs,
                tv_nsec: i64::from(time.nanos),
            },
        };
        let set = rustix::fs::utimensat(CWD, self.path(number), &times, AtFlags::empty());
        if let Err(error) = set {
            tracing::debug!(number, %error, "cannot set the time of a backing file");
        }
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, number: u64) {
        if number == 0 {
            return;
        }
        let path = self.path(number);
        let removed = failpoint::pass("backing::remove")
            .map_err(io::Error::other)
            .and_then(|()| fs::remove_file(&path));
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a backing file");
            }
            _ => {}
        }
    }

    /// The numbers of all files.
    pub(crate) fn all(&self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for low in 0..=0xffu32 {
            let sub = self.dir.join(format!("{low:02x}"));
            for item in fs::read_dir(&sub).map_err(|source| failed(&sub, source))? {
                let item = item.map_err(|source| failed(&sub, source))?;
                let name = item.file_name();
                numbers.extend(name.to_str().and_then(|n| u64::from_str_radix(n, 16).ok()));
            }
        }
        Ok(numbers)
    }

    /// A new file with the first `length` bytes of `from`; shared where the filesystem can.
    pub(crate) fn copy(&self, from: &File, length: u64) -> Result<(u64, File)> {
        let number = self.fresh();
        let to = self.create(number)?;
        let copied = copy_bytes(from, &to, length);
        if let Err(source) = copied {
            self.remove(number);
            return Err(failed(&self.path(number), source));
        }
        Ok((number, to))
    }

    /// Makes a file's name survive power loss.
    pub(crate) fn sync_name(&self, number: u64) -> Result<()> {
        let path = self.path(number);
        let parent = path.parent().unwrap_or(&self.dir);
        File::open(parent)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| failed(parent, source))
    }

    /// Makes all bytes written so far survive power loss.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let dir = File::open(&self.dir).map_err(|source| failed(&self.dir, source))?;
        store::sync_filesystem(&dir).map_err(|errno| failed(&self.dir, errno.into()))
    }

    /// The filesystem that the stage lies on.
    pub(crate) fn statvfs(&self) -> Result<StatVfs> {
        rustix::fs::statvfs(&self.dir).map_err(|errno| failed(&self.dir, errno.into()))
    }

    /// Wraps an error on the file with this number.
    pub(crate) fn failed(&self, number: u64, source: io::Error) -> FsError {
        failed(&self.path(number), source)
    }
}

fn failed(path: &Path, source: io::Error) -> FsError {
    FsError::Backing {
        path: path.to_owned(),
        source,
    }
}

fn copy_bytes(from: &File, to: &File, length: u64) -> io::Result<()> {
    let whole = from.metadata()?.len();
    if whole <= length && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let (mut read_at, mut write_at) = (0, 0);
    let end = whole.min(length);
    while read_at < end {
        let want = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        let got =
            rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want);
        match got {
            Ok(0) => break,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::NOSPC) => return Err(rustix::io::Errno::NOSPC.into()),
            Err(_) => return copy_by_hand(from, to, read_at, end),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    while at < end {
        let want = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let got = from.read_at(&mut buffer[..want], at)?;
        if got == 0 {
            break;
        }
        to.write_all_at(&buffer[..got], at)?;
        at += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_files_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let backing = Backing::open(dir.path()).unwrap();
        let number = backing.fresh();
        let file = backing.create(number).unwrap();
        file.write_all_at(b"0123456789", 0).unwrap();
        let (copy, copied) = backing.copy(&file, 4).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let mut bytes = [0; 10];
        assert_eq!(copied.read_at(&mut bytes, 0).unwrap(), 4);
        assert_eq!(&bytes[..4], b"0123");
        let mut all = backing.all().unwrap();
        all.sort_unstable();
        assert_eq!(all, [number, copy]);
        backing.remove(copy);
        assert!(backing.stat(copy).unwrap().is_none());
        assert_eq!(backing.stat(number).unwrap().unwrap().len(), 10);
    }
}
