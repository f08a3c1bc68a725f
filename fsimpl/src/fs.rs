//! The filesystem's operations, in our own types and testable without a mount.
//!
//! [`Fs`] is the mount point: a directory of repositories. An inode number or handle carries in its
//! upper bits which repository it belongs to; everything else is the [`Stage`]'s business. This
//! module must not know FUSE, and keeps no state of files.
//!
//! ```text
//! inode, handle:  [ 12 bits: repository, 0 = the mount point itself | 52 bits: within it ]
//! ```

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::types::{
    Attr, Caller, Clock, DirEntryPlus, Fallocate, FileType, Handle, Ino, NodeType, Notifier,
    OpenFlags, RenameMode, Seek, SetAttr, StatFs, Time, XattrMode,
};

/// Bits of an inode number or handle that belong to the repository.
const LOCAL_BITS: u32 = 52;
const LOCAL_MASK: u64 = (1 << LOCAL_BITS) - 1;
/// Repositories below one mount point: what the upper bits can tell apart, without 0.
pub const MAX_REPOSITORIES: usize = 4000;
/// The one handle of the mount point's own directory; it has no state.
const ROOT_HANDLE: Handle = Handle(1);

/// Takes a directory entry, or breaks off where there is no more room for it.
pub type Emit<'a> = dyn FnMut(&DirEntryPlus<'_>) -> ControlFlow<()> + 'a;

struct Mounted {
    tag: u64,
    stage: Arc<Stage>,
}

/// The mount point and the repositories below it.
pub struct Fs {
    clock: Clock,
    started: Time,
    owner: (u32, u32),
    repositories: RwLock<BTreeMap<String, Mounted>>,
    notifier: RwLock<Option<Arc<dyn Notifier>>>,
}

impl Fs {
    /// A mount point without repositories, whose directory belongs to `owner` (uid, gid).
    #[must_use]
    pub fn new(clock: Clock, owner: (u32, u32)) -> Self {
        Self {
            clock,
            started: clock(),
            owner,
            repositories: RwLock::default(),
            notifier: RwLock::default(),
        }
    }

    /// Puts a repository below the mount point.
    ///
    /// # Errors
    /// [`FsError::Exists`] if one of that name is there; [`FsError::NoSpace`] beyond
    /// [`MAX_REPOSITORIES`].
    pub fn add_repository(&self, stage: Arc<Stage>) -> Result<()> {
        let name = stage.repository_name().to_owned();
        let mut repositories = self.repositories.write();
        if repositories.contains_key(&name) {
            return Err(FsError::Exists);
        }
        if repositories.len() >= MAX_REPOSITORIES {
            return Err(FsError::NoSpace);
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        // one above the highest tag is kept free, so that handles never reach u64::MAX
        let space = (1 << (64 - LOCAL_BITS)) - 2;
        let mut tag = hasher.finish() % space + 1;
        while repositories.values().any(|other| other.tag == tag) {
            tag = tag % space + 1;
        }
        if let Some(notifier) = &*self.notifier.read() {
            stage.set_notifier(Some(tagged(tag, notifier)));
        }
        repositories.insert(name.clone(), Mounted { tag, stage });
        drop(repositories);
        self.root_changed(&name);
        Ok(())
    }

    fn root_changed(&self, name: &str) {
        let notifier = self.notifier.read().clone();
        if let Some(notifier) = notifier {
            notifier.inval_entry(Ino::ROOT, name.as_bytes());
            notifier.inval_inode(Ino::ROOT);
        }
    }

    /// Takes a repository away from below the mount point; its open handles become invalid.
    pub fn remove_repository(&self, name: &str) -> Option<Arc<Stage>> {
        let mounted = self.repositories.write().remove(name)?;
        mounted.stage.set_notifier(None);
        self.root_changed(name);
        Some(mounted.stage)
    }

    /// The stage of a repository.
    #[must_use]
    pub fn repository(&self, name: &str) -> Option<Arc<Stage>> {
        let repositories = self.repositories.read();
        repositories.get(name).map(|m| Arc::clone(&m.stage))
    }

    /// All stages, by name.
    #[must_use]
    pub fn repositories(&self) -> Vec<Arc<Stage>> {
        let repositories = self.repositories.read();
        repositories
            .values()
            .map(|m| Arc::clone(&m.stage))
            .collect()
    }

    /// Says who hears of changes made behind the kernel's back, in repositories added later, too.
    pub fn set_notifier(&self, notifier: &Arc<dyn Notifier>) {
        *self.notifier.write() = Some(Arc::clone(notifier));
        for mounted in self.repositories.read().values() {
            let tagged = tagged(mounted.tag, notifier);
            mounted.stage.set_notifier(Some(tagged));
        }
    }

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
        at.attr(at.stage.mknod(caller, dir, name, perm, what))
    }

    /// Makes a directory; counts as a lookup.
    ///
    /// # Errors
    /// As `mkdir`.
    pub fn mkdir(&self, caller: &Caller, parent: Ino, name: &[u8], perm: u16) -> Result<Attr> {
        let (at, dir) = self.route(parent)?;
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
        at.attr(at.stage.symlink(caller, dir, name, target))
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn unlink(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<()> {
        let _ = caller;
        let (at, dir) = self.route(parent)?;
        at.stage.unlink(dir, name)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As `rmdir`.
    pub fn rmdir(&self, caller: &Caller, parent: Ino, name: &[u8]) -> Result<()> {
        let _ = caller;
        let (at, dir) = self.route(parent)?;
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
        let _ = caller;
        let (at, from) = self.same_repository(parent, new_parent)?;
        let to = Ino(new_parent.0 & LOCAL_MASK);
        at.stage.rename((from, name), (to, new_name), mode)
    }

    /// Gives a file another name; counts as a lookup.
    ///
    /// # Errors
    /// As `link`; [`FsError::CrossRepository`].
    pub fn link(&self, caller: &Caller, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _ = caller;
        let (at, local) = self.same_repository(ino, parent)?;
        at.attr(at.stage.link(local, Ino(parent.0 & LOCAL_MASK), name))
    }

    /// Opens a file. The kernel may keep its cached pages: what changes behind its back is told to
    /// the [`Notifier`].
    ///
    /// # Errors
    /// As `open`.
    pub fn open(&self, caller: &Caller, ino: Ino, flags: OpenFlags) -> Result<Handle> {
        let (at, local) = self.route(ino)?;
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
        let _ = caller;
        let (at, local) = self.route(ino)?;
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

    fn root_attr(&self) -> Attr {
        let count = self.repositories.read().len();
        Attr {
            ino: Ino::ROOT,
            kind: FileType::Directory,
            perm: 0o755,
            nlink: 2 + u32::try_from(count).unwrap_or(u32::MAX - 2),
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            size: 4096,
            blocks: 8,
            mtime: self.started,
            ctime: self.started,
        }
    }

    fn read_root(&self, cursor: u64, plus: bool, emit: &mut Emit<'_>) {
        let mut entries: Vec<(Vec<u8>, Ino, Option<Attr>)> = vec![
            (b".".to_vec(), Ino::ROOT, None),
            (b"..".to_vec(), Ino::ROOT, None),
        ];
        let routes: Vec<(String, Route)> = {
            let repositories = self.repositories.read();
            let all = repositories.iter();
            all.map(|(name, m)| (name.clone(), Route::new(m))).collect()
        };
        for (name, at) in routes {
            // a repository whose published tree cannot be read is still listed
            let attr = at.attr(at.stage.getattr(Ino::ROOT, None)).ok();
            entries.push((name.into_bytes(), at.ino(Ino::ROOT), attr.filter(|_| plus)));
        }
        for (position, (name, ino, attr)) in (1..).zip(&entries) {
            if position <= cursor {
                continue;
            }
            let entry = DirEntryPlus {
                name,
                ino: *ino,
                kind: FileType::Directory,
                cursor: position,
                attr: *attr,
            };
            if emit(&entry).is_break() {
                return;
            }
        }
    }

    /// Now, by the clock the mount was given.
    #[must_use]
    pub fn now(&self) -> Time {
        (self.clock)()
    }

    fn route(&self, ino: Ino) -> Result<(Route, Ino)> {
        if ino == Ino::ROOT {
            return Err(FsError::NotPermitted(
                "the mount point holds repositories only",
            ));
        }
        let route = self
            .by_tag(ino.0 >> LOCAL_BITS)
            .ok_or(FsError::Stale(ino.0))?;
        Ok((route, Ino(ino.0 & LOCAL_MASK)))
    }

    fn route_handle(&self, handle: Handle) -> Result<Route> {
        self.by_tag(handle.0 >> LOCAL_BITS)
            .ok_or(FsError::BadHandle)
    }

    fn same_repository(&self, one: Ino, other: Ino) -> Result<(Route, Ino)> {
        if one.0 >> LOCAL_BITS != other.0 >> LOCAL_BITS {
            return Err(FsError::CrossRepository);
        }
        self.route(one)
    }

    fn by_tag(&self, tag: u64) -> Option<Route> {
        let repositories = self.repositories.read();
        let found = repositories.values().find(|m| m.tag == tag);
        found.map(Route::new)
    }
}

/// A repository, found.
struct Route {
    tag: u64,
    stage: Arc<Stage>,
}

impl Route {
    fn new(mounted: &Mounted) -> Self {
        Self {
            tag: mounted.tag,
            stage: Arc::clone(&mounted.stage),
        }
    }

    fn ino(&self, local: Ino) -> Ino {
        Ino(self.tag << LOCAL_BITS | local.0)
    }

    fn handle(&self, local: Handle) -> Handle {
        Handle(self.tag << LOCAL_BITS | local.0)
    }

    fn attr(&self, local: Result<Attr>) -> Result<Attr> {
        local.map(|attr| Attr {
            ino: self.ino(attr.ino),
            ..attr
        })
    }
}

fn untag(handle: Handle) -> Handle {
    Handle(handle.0 & LOCAL_MASK)
}

/// Puts the repository's bits onto inode numbers on their way to the kernel.
struct Tagged {
    tag: u64,
    inner: Arc<dyn Notifier>,
}

fn tagged(tag: u64, notifier: &Arc<dyn Notifier>) -> Arc<dyn Notifier> {
    Arc::new(Tagged {
        tag,
        inner: Arc::clone(notifier),
    })
}

impl Notifier for Tagged {
    fn inval_inode(&self, ino: Ino) {
        self.inner.inval_inode(Ino(self.tag << LOCAL_BITS | ino.0));
    }

    fn inval_entry(&self, parent: Ino, name: &[u8]) {
        let parent = Ino(self.tag << LOCAL_BITS | parent.0);
        self.inner.inval_entry(parent, name);
    }
}
