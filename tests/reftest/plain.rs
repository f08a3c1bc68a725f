//! Operations as system calls below a directory: a plain one, or the mount.
//!
//! Knows paths and descriptors only. What a plain directory cannot do (commits, restarts) is never
//! asked of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use super::judge::{Observed, Subject};
use super::model::Kind;
use super::ops::{Answer, Fill, How, Making, Moving, Op, Path, SLOTS, Setting, Space};

type Outcome<T = Answer> = Result<T, Errno>;

/// See the module's head.
pub struct Plain {
    root: PathBuf,
    files: [Option<OwnedFd>; SLOTS],
}

impl Plain {
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            files: [const { None }; SLOTS],
        }
    }

    pub fn close_all(&mut self) {
        self.files = [const { None }; SLOTS];
    }

    fn at(&self, path: &Path) -> PathBuf {
        if *path == Path::root() {
            return self.root.clone();
        }
        self.root.join(OsStr::from_bytes(&path.0))
    }

    fn file(&self, slot: usize) -> &OwnedFd {
        self.files[slot].as_ref().expect("the model knows it open")
    }

    fn open(&self, path: &Path, how: How, perm: u16) -> Outcome<OwnedFd> {
        let mut flags = match (how.read, how.write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            _ => OFlags::RDONLY,
        };
        flags |= OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags.set(OFlags::CREATE, how.create);
        flags.set(OFlags::EXCL, how.exclusive);
        flags.set(OFlags::TRUNC, how.truncate);
        flags.set(OFlags::APPEND, how.append);
        rustix::fs::open(self.at(path), flags, mode(perm))
    }

    fn put(&self, path: &Path, fill: Fill) -> Outcome {
        let how = How {
            write: true,
            create: true,
            truncate: true,
            ..How::default()
        };
        let file = self.open(path, how, 0o644)?;
        let mut at = 0;
        for part in fill.bytes().chunks(17_000) {
            write_at(&file, at, part)?;
            at += part.len() as u64;
        }
        Ok(Answer::Done)
    }

    fn on_files(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Open {
                slot,
                path,
                how,
                perm,
            } => {
                self.files[*slot] = None;
                self.files[*slot] = Some(self.open(path, *how, *perm)?);
            }
            Op::Close { slot } => self.files[*slot] = None,
            Op::Write { slot, offset, fill } => {
                return write_at(self.file(*slot), *offset, &fill.bytes());
            }
            Op::Read {
                slot,
                offset,
                length,
            } => return read_at(self.file(*slot), *offset, *length).map(Answer::Bytes),
            Op::Resize { slot, size } => rustix::fs::ftruncate(self.file(*slot), *size)?,
            Op::Space {
                slot,
                offset,
                length,
                how,
            } => {
                let flags = match how {
                    Space::Allocate => FallocateFlags::empty(),
                    Space::KeepSize => FallocateFlags::KEEP_SIZE,
                    Space::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                };
                rustix::fs::fallocate(self.file(*slot), flags, *offset, *length)?;
            }
            Op::Copy {
                from,
                from_offset,
                to,
                to_offset,
                length,
            } => return self.copy((*from, *from_offset), (*to, *to_offset), *length),
            Op::Sync { slot } => rustix::fs::fsync(self.file(*slot))?,
            Op::Put { path, fill } => return self.put(path, *fill),
            other => panic!("{other:?} is not about open files"),
        }
        Ok(Answer::Done)
    }

    fn copy(&self, from: (usize, u64), to: (usize, u64), length: u64) -> Outcome {
        let (mut off_in, mut off_out) = (from.1, to.1);
        let (source, target) = (self.file(from.0), self.file(to.0));
        let length = usize::try_from(length).unwrap();
        // one call copies so little at once; a second would go on into what the first has appended
        let copied = rustix::fs::copy_file_range(
            source,
            Some(&mut off_in),
            target,
            Some(&mut off_out),
            length,
        )?;
        Ok(Answer::Count(copied as u64))
    }

    fn on_names(&self, op: &Op) -> Outcome {
        match op {
            Op::Mkdir { path, perm } => rustix::fs::mkdir(self.at(path), mode(*perm))?,
            Op::Rmdir { path } => rustix::fs::rmdir(self.at(path))?,
            Op::Unlink { path } => rustix::fs::unlink(self.at(path))?,
            Op::Rename { from, to, how } => {
                let flags = match how {
                    Moving::Replace => RenameFlags::empty(),
                    Moving::NoReplace => RenameFlags::NOREPLACE,
                    Moving::Exchange => RenameFlags::EXCHANGE,
                };
                rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags)?;
            }
            Op::Link { from, to } => {
                rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())?;
            }
            Op::Symlink { path, target } => {
                rustix::fs::symlink(OsStr::from_bytes(target), self.at(path))?;
            }
            Op::Mknod { path, perm, what } => {
                let (kind, device) = match what {
                    Making::Regular => (FileType::RegularFile, 0),
                    Making::Fifo => (FileType::Fifo, 0),
                    Making::Socket => (FileType::Socket, 0),
                    Making::CharDevice(rdev) => (FileType::CharacterDevice, *rdev),
                    Making::BlockDevice(rdev) => (FileType::BlockDevice, *rdev),
                };
                rustix::fs::mknodat(CWD, self.at(path), kind, mode(*perm), device)?;
            }
            other => panic!("{other:?} is not about names"),
        }
        Ok(Answer::Done)
    }

    fn on_attributes(&self, op: &Op) -> Outcome {
        match op {
            Op::Truncate { path, size } => {
                let path = std::ffi::CString::new(self.at(path).into_os_string().into_vec());
                truncate(&path.unwrap(), *size)?;
            }
            Op::Chmod { path, perm } => rustix::fs::chmod(self.at(path), mode(*perm))?,
            Op::Chown { path, uid, gid } => rustix::fs::chownat(
                CWD,
                self.at(path),
                Some(rustix::fs::Uid::from_raw(*uid)),
                Some(rustix::fs::Gid::from_raw(*gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )?,
            Op::Utimens { path, secs, nanos } => {
                let time = Timespec {
                    tv_sec: *secs,
                    tv_nsec: (*nanos).into(),
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(CWD, self.at(path), &times, flags)?;
            }
            Op::Setxattr {
                path,
                name,
                value,
                how,
            } => {
                let flags = match how {
                    Setting::Any => XattrFlags::empty(),
                    Setting::Create => XattrFlags::CREATE,
                    Setting::Replace => XattrFlags::REPLACE,
                };
                rustix::fs::lsetxattr(self.at(path), *name, value, flags)?;
            }
            Op::Removexattr { path, name } => rustix::fs::lremovexattr(self.at(path), *name)?,
            other => panic!("{other:?} is not for a directory"),
        }
        Ok(Answer::Done)
    }
}

impl Subject for Plain {
    fn apply(&mut self, op: &Op) -> Answer {
        let result = match op {
            Op::Open { .. }
            | Op::Close { .. }
            | Op::Write { .. }
            | Op::Read { .. }
            | Op::Resize { .. }
            | Op::Space { .. }
            | Op::Copy { .. }
            | Op::Sync { .. }
            | Op::Put { .. } => self.on_files(op),
            Op::Mkdir { .. }
            | Op::Rmdir { .. }
            | Op::Unlink { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Symlink { .. }
            | Op::Mknod { .. } => self.on_names(op),
            other => self.on_attributes(other),
        };
        result.unwrap_or_else(|errno| Answer::Failed(errno.raw_os_error()))
    }

    fn tree(&mut self) -> BTreeMap<Path, Observed> {
        let mut found = BTreeMap::new();
        let mut left = vec![Path::root()];
        while let Some(path) = left.pop() {
            let at = self.at(&path);
            let seen = observe(&at).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            if seen.kind == Kind::Directory {
                let listing = fs::read_dir(&at).unwrap_or_else(|e| panic!("{path:?}: {e}"));
                for entry in listing {
                    let name = entry
                        .unwrap_or_else(|e| panic!("{path:?}: {e}"))
                        .file_name();
                    left.push(path.join(name.as_bytes()));
                }
            }
            let twice = found.insert(path, seen);
            assert!(twice.is_none(), "listed twice: {twice:?}");
        }
        found
    }

    fn handle(&mut self, slot: usize, readable: bool) -> (Vec<u8>, u32) {
        let file = self.file(slot);
        let bytes = match readable {
            true => read_at(file, 0, 1 << 20).unwrap(),
            false => Vec::new(),
        };
        let stat = rustix::fs::fstat(file).unwrap();
        (bytes, u32::try_from(stat.st_nlink).unwrap())
    }

    fn published(&mut self) -> Option<(u64, BTreeMap<Path, Observed>)> {
        None
    }

    fn complaints(&mut self, _clean: bool) -> Vec<String> {
        Vec::new()
    }
}

fn mode(perm: u16) -> Mode {
    Mode::from_raw_mode(perm.into())
}

/// truncate(2): rustix has none.
fn truncate(path: &std::ffi::CStr, size: u64) -> Outcome<()> {
    let size = i64::try_from(size).unwrap();
    // SAFETY: the path is a string that ends with NUL and lives through the call.
    match unsafe { libc::truncate(path.as_ptr(), size) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

fn write_at(file: impl AsFd, offset: u64, data: &[u8]) -> Outcome {
    let mut done = 0;
    while done < data.len() {
        done += rustix::io::pwrite(&file, &data[done..], offset + done as u64)?;
    }
    Ok(Answer::Count(done as u64))
}

fn read_at(file: impl AsFd, offset: u64, length: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        let n = rustix::io::pread(&file, &mut bytes[done..], offset + done as u64)?;
        if n == 0 {
            break;
        }
        done += n;
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn observe(path: &std::path::Path) -> std::io::Result<Observed> {
    let stat = fs::symlink_metadata(path)?;
    let kind = stat.file_type();
    let kind = if kind.is_dir() {
        Kind::Directory
    } else if kind.is_file() {
        Kind::Regular(Arc::new(fs::read(path)?))
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::CharDevice(stat.rdev())
    } else {
        Kind::BlockDevice(stat.rdev())
    };
    Ok(Observed {
        xattrs: xattrs(path, &kind)?,
        kind,
        perm: u16::try_from(stat.mode() & 0o7777).unwrap(),
        uid: stat.uid(),
        gid: stat.gid(),
        nlink: u32::try_from(stat.nlink()).unwrap(),
        size: stat.size(),
        mtime: (stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap()),
        ino: stat.ino(),
    })
}

/// Extended attributes of users.
fn xattrs(path: &std::path::Path, kind: &Kind) -> std::io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    if !matches!(kind, Kind::Regular(_) | Kind::Directory) {
        return Ok(found);
    }
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names)?;
    for name in names[..length].split(|b| *b == 0) {
        if !name.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value)?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}
