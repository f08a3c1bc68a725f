//! Each operation: finds its repository and hands on what it was given.
//!
//! What the mount point itself answers is in `root`; what a repository does is its stage's business.

use std::time::Duration;

use super::route::{Route, untag};
use super::{Emit, Fs, LOCAL_BITS, LOCAL_MASK, ROOT_HANDLE};
use crate::error::{FsError, Result};
use crate::types::{
    Attr, Caller, DirEntryPlus, Fallocate, FileType, Handle, Ino, NodeType, OpenFlags, RenameMode,
    Seek, SetAttr, StatFs, XattrMode,
};

impl Fs {
    /// Finds `name` in `parent`; counts as a lookup of what it finds.
    ///
    /// # Errors
    /// [`FsError::NotFound`] and those of reading the published tree.
    pub fn lookup(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _ = caller;
        if parent == Ino::ROOT {
            let name = std::str::from_utf8(name).map_err(|_| FsError::NotFound)?;
            let repositories = self.repositories.read();
            let mounted = repositories.get(name).ok_or(FsError::NotFound)?;
            let root = Route::new(mounted);
            drop(repositories);
            return root.attr(root.stage.getattr(Ino::ROOT, None));
        }
        let (at, dir) = self.route(parent)?;
        at.attr(at.stage.lookup(dir, name))
    }

    /// Takes back `count` lookups of an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Ok((at, local)) = self.route(ino) {
            at.stage.forget(local, count);
        }
    }

    /// What `stat` says; of an open file's own inode where `handle` is given.
    ///
    /// # Errors
    /// [`FsError::Stale`] and those of reading the published tree.
    pub fn getattr(&self, ino: Ino, handle: Option<Handle>) -> Result<Attr> {
        if ino == Ino::ROOT {
            return Ok(self.root_attr());
        }
        let (at, local) = self.route(ino)?;
        at.attr(at.stage.getattr(local, handle.map(untag)))
    }

    /// Changes mode, owner, size or time.
    ///
    /// # Errors
    /// As `chmod`, `chown`, `truncate`, `utimensat`.
    pub fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> Result<Attr> {
        let (at, local) = self.route(ino)?;
        at.stage.allow_inode(caller, local)?;
        let set = SetAttr {
            handle: set.handle.map(untag),
            ..*set
        };
        at.attr(at.stage.setattr(caller, local, &set))
    }

    /// A symbolic link's target.
    ///
    /// # Errors
    /// [`FsError::Invalid`] where it is none.
    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let (at, local) = self.route(ino)?;
        at.stage.readlink(local)
    }

    /// Makes a file, fifo, socket or device; counts as a lookup.
    ///
    /// # Errors
    /// As `mknod`.
    pub fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        what: NodeType,
    ) -> Result<Attr> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        at.attr(at.stage.mknod(caller, dir, name, perm, what))
    }

    /// Makes a directory; counts as a lookup.
    ///
    /// # Errors
    /// As `mkdir`.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], perm: u16) -> Result<Attr> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        at.attr(at.stage.mkdir(caller, dir, name, perm))
    }

    /// Makes a symbolic link; counts as a lookup.
    ///
    /// # Errors
    /// As `symlink`.
    pub fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        at.attr(at.stage.symlink(caller, dir, name, target))
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<()> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        at.stage.unlink(dir, name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `rmdir`.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<()> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        at.stage.rmdir(dir, name)
    }

    /// Moves a name, as `renameat2`.
    ///
    /// # Errors
    /// As `renameat2`; [`FsError::CrossRepository`].
    pub fn rename(
        &self,
        caller: &Caller,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        mode: RenameMode,
    ) -> Result<()> {
        let (at, from) = self.same_repository(parent, new_parent)?;
        let to = Ino(new_parent.0 & LOCAL_MASK);
        at.stage.allow_name(caller, from, name)?;
        at.stage.allow_name(caller, to, new_name)?;
        at.stage.rename((from, name), (to, new_name), mode)
    }

    /// Gives a file another name; counts as a lookup.
    ///
    /// # Errors
    /// As `link`; [`FsError::CrossRepository`].
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let (at, local) = self.same_repository(ino, parent)?;
        let dir = Ino(parent.0 & LOCAL_MASK);
        at.stage.allow_name(caller, dir, name)?;
        at.attr(at.stage.link(local, dir, name))
    }

    /// Opens a file. The kernel may keep its cached pages: what changes behind its back is told to
    /// the [`Notifier`].
    ///
    /// # Errors
    /// As `open`.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: OpenFlags) -> Result<Handle> {
        let (at, local) = self.route(ino)?;
        if flags.write {
            at.stage.allow_inode(caller, local)?;
        }
        at.stage
            .open_file(caller, local, flags)
            .map(|handle| at.handle(handle))
    }

    /// Makes a file and opens it, or opens the one that is there; counts as a lookup.
    ///
    /// # Errors
    /// As `open` with O_CREAT.
    pub fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        flags: OpenFlags,
    ) -> Result<(Attr, Handle)> {
        let (at, dir) = self.route(parent)?;
        at.stage.allow_name(caller, dir, name)?;
        let (attr, handle) = at.stage.create(caller, dir, name, perm, flags)?;
        Ok((at.attr(Ok(attr))?, at.handle(handle)))
    }

    /// Reads at `offset`; short only at the end of the file.
    ///
    /// # Errors
    /// As `pread`.
    pub fn read(&self, handle: Handle, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.route_handle(handle)?
            .stage
            .read(untag(handle), offset, buffer)
    }

    /// True if a read of this file waits for nothing but the disk: its bytes are in a plain file.
    #[must_use]
    pub fn reads_at_once(&self, handle: Handle) -> bool {
        self.route_handle(handle)
            .map_or(true, |at| at.stage.reads_at_once(untag(handle)))
    }

    /// How long the reply to a writer's close should be held up, because too many files wait to be
    /// sealed.
    #[must_use]
    pub fn backpressure(&self, handle: Handle) -> Option<Duration> {
        self.route_handle(handle).ok()?.stage.backpressure()
    }

    /// Writes all of `data` at `offset` (at the end where the file was opened with O_APPEND). When
    /// it returns, the bytes survive the daemon.
    ///
    /// # Errors
    /// As `pwrite`.
    pub fn write(
        &self,
        caller: &Caller,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<usize> {
        self.route_handle(handle)?
            .stage
            .write(caller, untag(handle), offset, data)
    }

    /// One descriptor of an open file was closed. Reports nothing: sealing has its own way.
    ///
    /// # Errors
    /// [`FsError::BadHandle`].
    pub fn flush(&self, handle: Handle) -> Result<()> {
        self.route_handle(handle)?.stage.flush(untag(handle))
    }

    /// The last descriptor and mapping of an open file are gone.
    ///
    /// # Errors
    /// [`FsError::BadHandle`].
    pub fn release(&self, handle: Handle) -> Result<()> {
        self.route_handle(handle)?.stage.release(untag(handle))
    }

    /// Makes a file's bytes and its name durable against power loss.
    ///
    /// # Errors
    /// As `fsync`, and what went wrong when the file was sealed.
    pub fn fsync(&self, handle: Handle, data_only: bool) -> Result<()> {
        self.route_handle(handle)?
            .stage
            .fsync(untag(handle), data_only)
    }

    /// Opens a directory.
    ///
    /// # Errors
    /// As `opendir`.
    pub fn opendir(&self, ino: Ino) -> Result<Handle> {
        if ino == Ino::ROOT {
            return Ok(ROOT_HANDLE);
        }
        let (at, local) = self.route(ino)?;
        at.stage.opendir(local).map(|handle| at.handle(handle))
    }

    /// Lists an open directory from after `cursor` (0: from the start, afresh). With `plus`,
    /// entries have attributes, and each one taken counts as a lookup.
    ///
    /// # Errors
    /// As `readdir`.
    pub fn readdirplus(
        &self,
        handle: Handle,
        cursor: u64,
        plus: bool,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        if handle == ROOT_HANDLE {
            self.read_root(cursor, plus, emit);
            return Ok(());
        }
        let at = self.route_handle(handle)?;
        at.stage.readdir(untag(handle), cursor, plus, &mut |entry| {
            let dot_dot_of_root = entry.ino == Ino(0);
            emit(&DirEntryPlus {
                ino: if dot_dot_of_root {
                    Ino::ROOT
                } else {
                    at.ino(entry.ino)
                },
                attr: entry.attr.map(|attr| Attr {
                    ino: at.ino(attr.ino),
                    ..attr
                }),
                ..*entry
            })
        })
    }

    /// Closes a directory.
    ///
    /// # Errors
    /// [`FsError::BadHandle`].
    pub fn releasedir(&self, handle: Handle) -> Result<()> {
        if handle == ROOT_HANDLE {
            return Ok(());
        }
        self.route_handle(handle)?.stage.releasedir(untag(handle))
    }

    /// Makes a directory's names durable against power loss.
    ///
    /// # Errors
    /// As `fsync`.
    pub fn fsyncdir(&self, handle: Handle) -> Result<()> {
        if handle == ROOT_HANDLE {
            return Ok(());
        }
        self.route_handle(handle)?.stage.sync_journal()
    }

    /// Free space, of the state directory, capped by the quota.
    ///
    /// # Errors
    /// As `statfs`.
    pub fn statfs(&self, ino: Ino) -> Result<StatFs> {
        if ino == Ino::ROOT {
            let first = self.repositories.read().values().next().map(Route::new);
            return first.map_or_else(|| Ok(StatFs::default()), |at| at.stage.statfs());
        }
        self.route(ino)?.0.stage.statfs()
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// As `setxattr`.
    pub fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        let (at, local) = self.route(ino)?;
        at.stage.allow_inode(caller, local)?;
        at.stage.setxattr(caller, local, name, value, mode)
    }

    /// An extended attribute's value.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`].
    pub fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        if ino == Ino::ROOT {
            return Err(FsError::NoAttribute);
        }
        let (at, local) = self.route(ino)?;
        at.stage.getxattr(local, name)
    }

    /// The names of the extended attributes.
    ///
    /// # Errors
    /// As `listxattr`.
    pub fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        if ino == Ino::ROOT {
            return Ok(Vec::new());
        }
        let (at, local) = self.route(ino)?;
        at.stage.listxattr(local)
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`].
    pub fn removexattr(&self, caller: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        let (at, local) = self.route(ino)?;
        at.stage.allow_inode(caller, local)?;
        at.stage.removexattr(local, name)
    }

    /// Whether the mode lets the caller do it (`mask` as in `access`). With default_permissions the
    /// kernel never asks.
    ///
    /// # Errors
    /// [`FsError::Access`].
    pub fn access(&self, caller: &Caller, ino: Ino, mask: u32) -> Result<()> {
        let attr = self.getattr(ino, None)?;
        if caller.uid == 0 {
            let executable = attr.kind == FileType::Directory || attr.perm & 0o111 != 0;
            let wants_execute = mask & 1 != 0;
            return if wants_execute && !executable {
                Err(FsError::Access)
            } else {
                Ok(())
            };
        }
        let shift = if caller.uid == attr.uid {
            6
        } else if caller.gid == attr.gid {
            3
        } else {
            0
        };
        let granted = u32::from(attr.perm >> shift) & 7;
        if mask & 7 & !granted == 0 {
            Ok(())
        } else {
            Err(FsError::Access)
        }
    }

    /// Reserves, punches or zeroes a range of an open file.
    ///
    /// # Errors
    /// As `fallocate`.
    pub fn fallocate(
        &self,
        caller: &Caller,
        handle: Handle,
        offset: u64,
        length: u64,
        how: Fallocate,
    ) -> Result<()> {
        self.route_handle(handle)?
            .stage
            .fallocate(caller, untag(handle), offset, length, how)
    }

    /// The next data or hole at or after `offset`.
    ///
    /// # Errors
    /// [`FsError::NoSeekTarget`].
    pub fn lseek(&self, handle: Handle, offset: u64, what: Seek) -> Result<u64> {
        self.route_handle(handle)?
            .stage
            .lseek(untag(handle), offset, what)
    }

    /// Copies bytes between open files of one repository; a whole file onto an empty one copies a
    /// reference. May copy less than asked.
    ///
    /// # Errors
    /// As `copy_file_range`; [`FsError::CrossRepository`].
    pub fn copy_file_range(
        &self,
        caller: &Caller,
        (from, from_offset): (Handle, u64),
        (to, to_offset): (Handle, u64),
        length: u64,
    ) -> Result<u64> {
        if from.0 >> LOCAL_BITS != to.0 >> LOCAL_BITS {
            return Err(FsError::CrossRepository);
        }
        self.route_handle(from)?.stage.copy_file_range(
            caller,
            (untag(from), from_offset),
            (untag(to), to_offset),
            length,
        )
    }
}
