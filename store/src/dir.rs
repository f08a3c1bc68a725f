//! A storage directory, as `cvmfs_server` lays it out and a web server serves it.
//!
//! ```text
//! ROOT/.cvmfspublished ...     root files, replaced by rename
//! ROOT/data/ab/cdef...P        objects, mode 0644, never changed once they have their name
//! ROOT/data/txn/               what is being written; nothing in it is ever served
//! ```
//!
//! An object gets its name only when its bytes are complete, and never takes the place of anything
//! that is there. A small object costs four system calls: look, open, write, link. Under
//! [`Durability::Batch`] nothing is durable before [`ObjectStore::sync`]; after a power loss an
//! object kept since then may be short, so whoever kept it must hash it again. Directories other
//! than the 257 of the skeleton are never made, and nothing follows a symbolic link below `data`.
//! What root writes belongs to whoever owns ROOT.

mod pending;
mod raw;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;

use formats::ObjectName;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Result, StoreError};
use crate::failpoint;
use crate::object_store::{ObjectStore, Pending, Stored, check_root_name};
use crate::owner::Owner;
use pending::DirPending;
use raw::{Temp, TempKind};

/// Mode of objects and root files: readable by the web server.
const FILE_MODE: u32 = 0o644;
/// Mode of the directories of the skeleton.
const DIR_MODE: u32 = 0o755;
/// A root file larger than this is not one of CVMFS's: reflogs of long-lived repositories reach
/// tens of megabytes.
const MAX_ROOT_FILE_BYTES: u64 = 1 << 30;

/// When what was kept survives power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Each object, before `keep` returns: fsync of the file and its directory.
    Each,
    /// All of them, when [`ObjectStore::sync`] returns: one syncfs for any number of objects.
    Batch,
}

/// A storage directory. Clones share its descriptors.
#[derive(Clone)]
pub struct DirStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    /// Open on `ROOT`, for root files.
    root_fd: OwnedFd,
    /// Open on `ROOT/data`; objects are reached as `ab/cdef...` from here.
    data: Arc<OwnedFd>,
    /// The filesystem that `data` is on: only there can files be linked or cloned.
    device: u64,
    durability: Durability,
    /// Whose files these are to be, if not ours.
    owner: Option<Owner>,
    /// How temporary files are made here; found out at the first write.
    temp_kind: OnceLock<TempKind>,
}

impl DirStore {
    /// Makes the skeleton where it is missing (the directory itself included) and opens it.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn create(path: impl Into<PathBuf>, durability: Durability) -> Result<Self> {
        let root = path.into();
        std::fs::create_dir_all(&root).map_err(|e| StoreError::io("create", &root, e))?;
        let root_fd = raw::open_dir(&root)?;
        let is_new = raw::make_dir(&root_fd, &root, "data")?;
        let data_path = root.join("data");
        let data = raw::open_dir(&data_path)?;
        if is_new {
            crate::place_apart(&data);
        }
        raw::make_dir(&data, &data_path, "txn")?;
        for byte in 0..=0xffu8 {
            raw::make_dir(&data, &data_path, &format!("{byte:02x}"))?;
        }
        if durability == Durability::Each {
            for (dir, path) in [(&data, &data_path), (&root_fd, &root)] {
                rustix::fs::fsync(dir).map_err(|e| StoreError::io("sync", path, e.into()))?;
            }
        }
        Self::open(root, durability)
    }

    /// Opens a storage directory that is there.
    ///
    /// # Errors
    /// [`StoreError::NotAStorage`] where `data` is missing. `data/txn` is missed at the first write,
    /// so that a read-only copy may lack it.
    pub fn open(path: impl Into<PathBuf>, durability: Durability) -> Result<Self> {
        let root = path.into();
        let missing = |missing| StoreError::NotAStorage {
            path: root.clone(),
            missing,
        };
        if !root.is_dir() {
            return Err(missing("the directory itself"));
        }
        let data_path = root.join("data");
        if !data_path.is_dir() {
            return Err(missing("data/"));
        }
        let data = raw::open_dir(&data_path)?;
        let device = rustix::fs::fstat(&data)
            .map_err(|e| StoreError::io("look up", &data_path, e.into()))?
            .st_dev;
        let root_fd = raw::open_dir(&root)?;
        let owner = Owner::of(&root_fd).map_err(|e| StoreError::io("look up", &root, e.into()))?;
        Ok(Self(Arc::new(Inner {
            root_fd,
            owner,
            data: Arc::new(data),
            device,
            root,
            durability,
            temp_kind: OnceLock::new(),
        })))
    }
}

impl Inner {
    /// The object's place, for messages.
    fn object_path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.storage_path())
    }

    /// The object's place from `data`.
    fn relative(name: &ObjectName) -> String {
        let mut path = name.to_string();
        path.insert(2, '/');
        path
    }

    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        let path = || self.object_path(name);
        match rustix::fs::statat(&self.data, Self::relative(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                must_be_file(FileType::from_raw_mode(stat.st_mode), path)?;
                Ok(Some(u64::try_from(stat.st_size).unwrap_or(0)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(StoreError::io("look up", path(), e.into())),
        }
    }

    fn temp(&self) -> Result<Temp> {
        let kind = match self.temp_kind.get() {
            Some(kind) => *kind,
            None => {
                let kind = TempKind::probe(&self.data).map_err(|e| self.no_temp(e))?;
                *self.temp_kind.get_or_init(|| kind)
            }
        };
        let temp = Temp::create(&self.data, kind).map_err(|e| self.no_temp(e))?;
        self.give(&temp).map_err(|e| self.no_temp(e))?;
        Ok(temp)
    }

    /// Lets the storage's owner have a new file.
    fn give(&self, temp: &Temp) -> std::result::Result<(), Errno> {
        match &self.owner {
            Some(owner) => owner.take(temp.file()),
            None => Ok(()),
        }
    }

    /// Why there is no temporary file.
    fn no_temp(&self, error: Errno) -> StoreError {
        match error {
            Errno::NOENT | Errno::NOTDIR => StoreError::NotAStorage {
                path: self.root.clone(),
                missing: "data/txn/",
            },
            e => StoreError::io("write to", self.root.join("data/txn"), e.into()),
        }
    }

    /// Gives a complete file its object name; with `sync`, once its bytes are synced.
    fn publish(&self, temp: Temp, name: &ObjectName, sync: bool) -> Result<Stored> {
        let failed = |action, e: Errno| StoreError::io(action, self.object_path(name), e.into());
        if sync || self.durability == Durability::Each {
            rustix::fs::fdatasync(temp.file()).map_err(|e| failed("sync", e))?;
        }
        failpoint::pass("store::keep")?;
        match temp.link_to(&self.data, &Self::relative(name)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.already_there(name),
            Err(Errno::NOENT) => {
                return Err(StoreError::NotAStorage {
                    path: self.root.clone(),
                    missing: "a directory of data/00 to data/ff",
                });
            }
            Err(e) => return Err(failed("store", e)),
        }
        self.named(name)
    }

    /// What is left to do for an object that has just got its name.
    fn named(&self, name: &ObjectName) -> Result<Stored> {
        if self.durability == Durability::Each {
            let dir = &Self::relative(name)[..2];
            raw::open_at_dir(&self.data, dir)
                .and_then(rustix::fs::fsync)
                .map_err(|e| {
                    let path = self.object_path(name);
                    StoreError::io("sync the directory of", path, e.into())
                })?;
        }
        Ok(Stored::New)
    }

    /// What stands at the name is an object, or an error.
    fn already_there(&self, name: &ObjectName) -> Result<Stored> {
        self.stored_size(name)?;
        Ok(Stored::Present)
    }

    fn root_path(&self, file: &str) -> Result<PathBuf> {
        check_root_name(file)?;
        Ok(self.root.join(file))
    }
}

/// Refuses anything but a regular file in an object's place.
fn must_be_file(kind: FileType, path: impl FnOnce() -> PathBuf) -> Result<()> {
    let what = match kind {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        _ => "device",
    };
    Err(StoreError::Occupied { path: path(), what })
}

impl std::fmt::Debug for DirStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.root.display())
    }
}

impl ObjectStore for DirStore {
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        self.0.stored_size(name)
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        let path = || self.0.object_path(name);
        // non-blocking, so that a named pipe in an object's place cannot hang the reader
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::openat(&self.0.data, Inner::relative(name), flags, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)
                    .map_err(|e| StoreError::io("look up", path(), e.into()))?;
                must_be_file(FileType::from_raw_mode(stat.st_mode), path)?;
                Ok(Box::new(File::from(fd)))
            }
            Err(Errno::NOENT) => Err(StoreError::NotFound {
                name: *name,
                place: self.0.root.display().to_string(),
            }),
            Err(Errno::LOOP) => Err(StoreError::Occupied {
                path: path(),
                what: "symbolic link",
            }),
            Err(e) => Err(StoreError::io("open", path(), e.into())),
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        Ok(Box::new(DirPending::new(Arc::clone(&self.0))))
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        // an unlink would take a link or pipe in the object's place just as well
        if self.0.stored_size(name)?.is_none() {
            return Ok(false);
        }
        raw::unlink(&self.0.data, &Inner::relative(name))
            .map_err(|e| StoreError::io("delete", self.0.object_path(name), e.into()))
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        let path = self.0.root_path(file)?;
        let failed = |e| StoreError::io("read", &path, e);
        let opened = match File::open(&path) {
            Ok(opened) => opened,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::RootNotFound {
                    file: file.to_owned(),
                    place: self.0.root.display().to_string(),
                });
            }
            Err(e) => return Err(failed(e)),
        };
        let mut bytes = Vec::new();
        opened
            .take(MAX_ROOT_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_ROOT_FILE_BYTES {
            return Err(StoreError::TooLarge {
                what: path.display().to_string(),
                limit: MAX_ROOT_FILE_BYTES,
            });
        }
        Ok(bytes)
    }

    fn write_root(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.root_path(file)?;
        let failed = |e: std::io::Error| StoreError::io("write", &path, e);
        if path.is_dir() {
            return Err(StoreError::Occupied {
                path,
                what: "directory",
            });
        }
        let mut temp = Temp::named(&self.0.data).map_err(|e| self.0.no_temp(e))?;
        self.0.give(&temp).map_err(|e| self.0.no_temp(e))?;
        temp.file_mut().write_all(bytes).map_err(failed)?;
        rustix::fs::fsync(temp.file()).map_err(|e| failed(e.into()))?;
        failpoint::pass("store::write_root")?;
        temp.rename_over(&self.0.root_fd, file)
            .map_err(|e| failed(e.into()))?;
        failpoint::pass("store::wrote_root")?;
        rustix::fs::fsync(&self.0.root_fd).map_err(|e| failed(e.into()))
    }

    fn remove_root(&self, file: &str) -> Result<bool> {
        let path = self.0.root_path(file)?;
        let failed = |e: Errno| StoreError::io("delete", &path, e.into());
        let removed = raw::unlink(&self.0.root_fd, file).map_err(failed)?;
        if removed {
            rustix::fs::fsync(&self.0.root_fd).map_err(failed)?;
        }
        Ok(removed)
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        for byte in 0..=0xffu8 {
            let prefix = format!("{byte:02x}");
            let path = self.0.root.join("data").join(&prefix);
            let failed = |e: Errno| StoreError::io("list", &path, e.into());
            let dir = match raw::open_at_dir(&self.0.data, &prefix) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(failed(e)),
            };
            for entry in Dir::read_from(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Ok(rest) = entry.file_name().to_str() else {
                    continue;
                };
                let Ok(name) = format!("{prefix}{rest}").parse::<ObjectName>() else {
                    continue;
                };
                match rustix::fs::statat(&dir, rest, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_file() => {
                        visit(name, u64::try_from(stat.st_size).unwrap_or(0))?;
                    }
                    // no object, or deleted since it was listed
                    Ok(_) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(failed(e)),
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        crate::sync_filesystem(&self.0.data)
            .map_err(|e| StoreError::io("sync", &self.0.root, e.into()))
    }

    fn clean_leftovers(&self) -> Result<u64> {
        let path = self.0.root.join("data/txn");
        let failed = |e: Errno| StoreError::io("clean", &path, e.into());
        let mut removed = 0;
        for entry in Dir::read_from(raw::open_dir(&path)?).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name.to_bytes().starts_with(raw::TEMP_PREFIX.as_bytes()) {
                let name = format!("txn/{}", name.to_string_lossy());
                removed += u64::from(raw::unlink_leftover(&self.0.data, &name).map_err(failed)?);
            }
        }
        Ok(removed)
    }

    fn local_dir(&self) -> Option<&Path> {
        Some(&self.0.root)
    }

    fn available_bytes(&self) -> Result<Option<u64>> {
        let stat = rustix::fs::fstatvfs(self.0.data.as_fd())
            .map_err(|e| StoreError::io("look up the free space of", &self.0.root, e.into()))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Links the file where it is ours, of the right mode and on this filesystem; clones its
    /// extents where only those can be shared. A link costs two system calls.
    fn adopt(&self, file: &Path, name: &ObjectName) -> Result<Option<Stored>> {
        let inner = &self.0;
        let failed = |e: Errno| StoreError::io("store", inner.object_path(name), e.into());
        // whatever is wrong with the source, the copy that follows tells
        let Ok(stat) = rustix::fs::statat(CWD, file, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(None);
        };
        if !FileType::from_raw_mode(stat.st_mode).is_file() || stat.st_dev != inner.device {
            return Ok(None);
        }
        let open = || {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            rustix::fs::open(file, flags, Mode::empty())
        };
        let is_owners = inner.owner.is_some_and(|owner| owner.is(stat.st_uid));
        let ours = stat.st_mode & 0o7777 == FILE_MODE
            && (is_owners || stat.st_uid == rustix::process::geteuid().as_raw());
        if ours {
            if inner.durability == Durability::Each {
                open().and_then(rustix::fs::fdatasync).map_err(failed)?;
            }
            let to = Inner::relative(name);
            return match rustix::fs::linkat(CWD, file, &inner.data, &to, AtFlags::empty()) {
                Ok(()) => {
                    if let Some(owner) = inner.owner {
                        owner.take_at(&inner.data, &to).map_err(failed)?;
                    }
                    inner.named(name).map(Some)
                }
                Err(Errno::EXIST) => inner.already_there(name).map(Some),
                // too many links, or linking is not allowed: a copy will do
                Err(_) => Ok(None),
            };
        }
        let Ok(source) = open() else {
            return Ok(None);
        };
        let temp = inner.temp()?;
        match rustix::fs::ioctl_ficlone(temp.file(), &source) {
            Ok(()) => inner.publish(temp, name, false).map(Some),
            Err(_) => Ok(None),
        }
    }
}
