//! Each request of the kernel, unpacked and handed on.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags as RawOpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::Kernel;
use super::answers::{
    GENERATION, TTL, answer, answer_attr, answer_entry, answer_xattr, errno, ttl,
};
use super::patience::{WaitingBytes, may_wait, patient, put_off};
use super::words::{
    caller, file_attr, file_type, handle, ino, nothing, open_flags, opened, perm, set_time,
};
use crate::aside::Aside;
use crate::error::FsError;
use crate::fs::Fs;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::types::{
    DirEntryPlus, Fallocate, Handle, Ino, NodeType, RenameMode, Seek, SetAttr, XattrMode,
};

/// Most bytes in one write request; more than 1 MiB the kernel does not send.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Most bytes in one read request; bounds what a request makes us allocate.
const READ_BYTES_MAX: u32 = 1 << 20;

/// Reads ahead and the like that the kernel keeps going at once.
const BACKGROUND_MAX: u16 = 64;

/// Most bytes that one `copy_file_range` may report: its answer has 32 bits, and whole pages copy best.
const COPY_BYTES_MAX: u64 = 0xffff_f000;

/// Handles whose next write may take its time: that of a file which was there before it was opened
/// may have to copy all of it, and one after an fsync has to sync the journal.
#[derive(Default)]
struct Cold {
    handles: Mutex<HashSet<u64>>,
    count: AtomicUsize,
}

impl Cold {
    fn insert(&self, handle: Handle) {
        if self.handles.lock().insert(handle.0) {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    fn contains(&self, handle: Handle) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.handles.lock().contains(&handle.0)
    }

    fn remove(&self, handle: Handle) {
        if self.count.load(Ordering::Acquire) > 0 && self.handles.lock().remove(&handle.0) {
            self.count.fetch_sub(1, Ordering::Release);
        }
    }
}

/// What answering needs, shared with the threads aside.
pub(super) struct Adapter {
    fs: Arc<Fs>,
    kernel: Arc<Kernel>,
    aside: Aside,
    cold: Arc<Cold>,
    waiting: Arc<WaitingBytes>,
}

impl Adapter {
    pub fn new(fs: Arc<Fs>, kernel: Arc<Kernel>) -> Self {
        Self {
            fs,
            kernel,
            aside: Aside::default(),
            cold: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Does something that takes room, now if there is any; if some may come, again in a while.
    fn roomy<T: 'static>(
        &self,
        attempt: impl FnMut(&Fs) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        let work = patient(&self.fs, attempt, answer);
        if let Some(later) = work() {
            self.aside.run_later(later);
        }
    }

    /// The same, for what may take its time even where there is room.
    fn roomy_aside<T: 'static>(
        &self,
        attempt: impl FnMut(&Fs) -> Result<T, FsError> + Send + 'static,
        answer: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        self.aside.run_steps(patient(&self.fs, attempt, answer));
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_DONT_MASK,
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ];
        for capability in wanted {
            if config.add_capabilities(capability).is_err() {
                tracing::debug!(?capability, "the kernel does not offer");
            }
        }
        // the nearest value is taken where ours is too large
        if let Err(most) = config.set_max_write(WRITE_BYTES_MAX) {
            let _ = config.set_max_write(most);
        }
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn destroy(&mut self) {
        // an open descriptor of the mount would make its last users hang instead of fail
        *self.kernel.0.lock() = None;
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = ino(parent);
        match self.fs.lookup(&caller(request, 0), parent, name.as_bytes()) {
            Ok(attr) => reply.entry(ttl(parent), &file_attr(&attr), GENERATION),
            Err(FsError::NotFound) if parent != Ino::ROOT => {
                reply.entry(&TTL, &file_attr(&nothing(Ino(0))), GENERATION);
            }
            Err(error) => reply.error(errno("lookup", &error)),
        }
    }

    fn forget(&self, _request: &Request, number: INodeNo, lookups: u64) {
        self.fs.forget(ino(number), lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(
            "getattr",
            self.fs.getattr(ino(number), fh.map(handle)),
            reply,
        );
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            handle: fh.map(handle),
        };
        let (caller, number) = (caller(request, 0), ino(number));
        // cutting a published file to a length copies that much of it, and the journal may have to
        // take back that it vouched for the bytes
        if size.is_some() {
            return self.roomy_aside(
                move |fs| fs.setattr(&caller, number, &set),
                move |done| answer_attr("setattr", done, reply),
            );
        }
        let done = self.fs.setattr(&caller, number, &set);
        if let (Some(0), Some(emptied), true) = (size, set.handle, done.is_ok()) {
            // nothing is left to copy
            self.cold.remove(emptied);
        }
        answer_attr("setattr", done, reply);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.fs.readlink(ino(number)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno("readlink", &error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let device = u64::from(rdev);
        let what = match mode & libc::S_IFMT {
            libc::S_IFREG | 0 => NodeType::Regular,
            libc::S_IFIFO => NodeType::Fifo,
            libc::S_IFSOCK => NodeType::Socket,
            libc::S_IFCHR => NodeType::CharDevice(device),
            libc::S_IFBLK => NodeType::BlockDevice(device),
            _ => return reply.error(Errno::EINVAL),
        };
        let (caller, parent) = (caller(request, umask), ino(parent));
        let (name, perm) = (name.to_owned(), perm(mode));
        self.roomy(
            move |fs| fs.mknod(&caller, parent, name.as_bytes(), perm, what),
            move |made| answer_entry("mknod", made, reply),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, parent) = (caller(request, umask), ino(parent));
        let (name, perm) = (name.to_owned(), perm(mode));
        self.roomy(
            move |fs| fs.mkdir(&caller, parent, name.as_bytes(), perm),
            move |made| answer_entry("mkdir", made, reply),
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .fs
            .unlink(&caller(request, 0), ino(parent), name.as_bytes());
        answer("unlink", done, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .fs
            .rmdir(&caller(request, 0), ino(parent), name.as_bytes());
        answer("rmdir", done, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, parent) = (caller(request, 0), ino(parent));
        let (name, target) = (name.to_owned(), target.as_os_str().to_owned());
        self.roomy(
            move |fs| fs.symlink(&caller, parent, name.as_bytes(), target.as_bytes()),
            move |made| answer_entry("symlink", made, reply),
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mode = if flags.is_empty() {
            RenameMode::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameMode::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameMode::Exchange
        } else {
            return reply.error(Errno::EINVAL);
        };
        let caller = caller(request, 0);
        let (parent, new_parent) = (ino(parent), ino(new_parent));
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.roomy(
            move |fs| {
                let from = (parent, name.as_bytes());
                fs.rename(&caller, from, (new_parent, new_name.as_bytes()), mode)
            },
            move |done| answer("rename", done, reply),
        );
    }

    fn link(
        &self,
        request: &Request,
        number: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let caller = caller(request, 0);
        let (number, parent, name) = (ino(number), ino(parent), name.to_owned());
        self.roomy(
            move |fs| fs.link(&caller, number, parent, name.as_bytes()),
            move |made| answer_entry("link", made, reply),
        );
    }

    fn open(&self, request: &Request, number: INodeNo, flags: RawOpenFlags, reply: ReplyOpen) {
        let (caller, number, flags) = (caller(request, 0), ino(number), open_flags(flags.0));
        let (fs, cold) = (Arc::clone(&self.fs), Arc::clone(&self.cold));
        let open = move || match fs.open(&caller, number, flags) {
            Ok(made) => {
                if flags.write {
                    cold.insert(made);
                }
                reply.opened(FileHandle(made.0), opened(flags));
            }
            Err(error) => reply.error(errno("open", &error)),
        };
        // as a cut is
        if flags.write && flags.truncate {
            self.aside.run(open);
        } else {
            open();
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, flags) = (caller(request, umask), open_flags(flags));
        let (parent, name, perm) = (ino(parent), name.to_owned(), perm(mode));
        self.roomy(
            move |fs| fs.create(&caller, parent, name.as_bytes(), perm, flags),
            move |made| match made {
                Ok((attr, made)) => {
                    let fh = FileHandle(made.0);
                    reply.created(&TTL, &file_attr(&attr), GENERATION, fh, opened(flags));
                }
                Err(error) => reply.error(errno("create", &error)),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: RawOpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (fs, file) = (Arc::clone(&self.fs), handle(fh));
        let read = move || {
            let mut buffer = vec![0; size.min(READ_BYTES_MAX) as usize];
            match fs.read(file, offset, &mut buffer) {
                Ok(n) => reply.data(&buffer[..n]),
                Err(error) => reply.error(errno("read", &error)),
            }
        };
        if self.fs.reads_at_once(file) {
            read();
        } else {
            self.aside.run(read);
        }
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: RawOpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (caller, file) = (caller(request, 0), handle(fh));
        let answer = |written: Result<usize, FsError>, reply: ReplyWrite| match written {
            // never more than one request's data
            Ok(n) => reply.written(n as u32),
            Err(error) => reply.error(errno("write", &error)),
        };
        if self.cold.contains(file) {
            let (cold, data) = (Arc::clone(&self.cold), data.to_vec());
            return self.roomy_aside(
                move |fs| fs.write(&caller, file, offset, &data),
                move |written| {
                    if written.is_ok() {
                        cold.remove(file);
                    }
                    answer(written, reply);
                },
            );
        }
        let written = self.fs.write(&caller, file, offset, data);
        if may_wait(&self.fs, &written)
            && let Some(data) = self.waiting.keep(data)
        {
            let again = move |fs: &Fs| fs.write(&caller, file, offset, &data);
            let work = patient(&self.fs, again, move |written| answer(written, reply));
            return self.aside.run_later(put_off(work));
        }
        answer(written, reply);
    }

    fn flush(&self, _: &Request, _: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let done = self.fs.flush(handle(fh));
        match self.fs.backpressure(handle(fh)) {
            Some(delay) => self
                .aside
                .run_after(delay, move || answer("flush", done, reply)),
            None => answer("flush", done, reply),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: RawOpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.cold.remove(handle(fh));
        answer("release", self.fs.release(handle(fh)), reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let (fs, cold, file) = (Arc::clone(&self.fs), Arc::clone(&self.cold), handle(fh));
        self.aside.run(move || {
            let done = fs.fsync(file, data_only);
            cold.insert(file);
            answer("fsync", done, reply);
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: RawOpenFlags, reply: ReplyOpen) {
        match self.fs.opendir(ino(number)) {
            Ok(made) => reply.opened(FileHandle(made.0), FopenFlags::empty()),
            Err(error) => reply.error(errno("opendir", &error)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut emit = |entry: &DirEntryPlus<'_>| {
            let (number, name) = (INodeNo(entry.ino.0), OsStr::from_bytes(entry.name));
            full(reply.add(number, entry.cursor, file_type(entry.kind), name))
        };
        match self.fs.readdirplus(handle(fh), offset, false, &mut emit) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno("readdir", &error)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut emit = |entry: &DirEntryPlus<'_>| {
            let name = OsStr::from_bytes(entry.name);
            let (attr, ttl) = match &entry.attr {
                Some(attr) => (*attr, &TTL),
                // `.` and `..`, of which the kernel takes no attributes, and what cannot be read
                None => (nothing(entry.ino), &Duration::ZERO),
            };
            let number = INodeNo(entry.ino.0);
            full(reply.add(
                number,
                entry.cursor,
                name,
                ttl,
                &file_attr(&attr),
                GENERATION,
            ))
        };
        match self.fs.readdirplus(handle(fh), offset, true, &mut emit) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno("readdir", &error)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: RawOpenFlags,
        reply: ReplyEmpty,
    ) {
        answer("releasedir", self.fs.releasedir(handle(fh)), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        let (fs, dir) = (Arc::clone(&self.fs), handle(fh));
        self.aside
            .run(move || answer("fsyncdir", fs.fsyncdir(dir), reply));
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        match self.fs.statfs(ino(number)) {
            Ok(s) => reply.statfs(
                s.blocks,
                s.free,
                s.available,
                s.files,
                s.files_free,
                s.block_size,
                s.name_max,
                s.block_size,
            ),
            Err(error) => reply.error(errno("statfs", &error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (caller, number) = (caller(request, 0), ino(number));
        let (name, value) = (name.to_owned(), value.to_owned());
        self.roomy(
            move |fs| fs.setxattr(&caller, number, name.as_bytes(), &value, mode),
            move |done| answer("setxattr", done, reply),
        );
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.fs.getxattr(ino(number), name.as_bytes());
        answer_xattr("getxattr", value, size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.fs.listxattr(ino(number)).map(|names| {
            let mut list = Vec::new();
            for name in names {
                list.extend_from_slice(&name);
                list.push(0);
            }
            list
        });
        answer_xattr("listxattr", names, size, reply);
    }

    fn removexattr(&self, request: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self
            .fs
            .removexattr(&caller(request, 0), ino(number), name.as_bytes());
        answer("removexattr", done, reply);
    }

    fn access(&self, request: &Request, number: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let mask = mask.bits().unsigned_abs();
        answer(
            "access",
            self.fs.access(&caller(request, 0), ino(number), mask),
            reply,
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
        let how = match mode {
            0 => Fallocate::Allocate,
            libc::FALLOC_FL_KEEP_SIZE => Fallocate::KeepSize,
            PUNCH => Fallocate::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => Fallocate::ZeroRange { keep_size: false },
            ZERO_KEEP => Fallocate::ZeroRange { keep_size: true },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let (caller, file) = (caller(request, 0), handle(fh));
        self.roomy_aside(
            move |fs| fs.fallocate(&caller, file, offset, length, how),
            move |done| answer("fallocate", done, reply),
        );
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        match self.fs.lseek(handle(fh), offset, what) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno("lseek", &error)),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let caller = caller(request, 0);
        let (from, to) = ((handle(from), from_offset), (handle(to), to_offset));
        self.roomy_aside(
            move |fs| fs.copy_file_range(&caller, from, to, length.min(COPY_BYTES_MAX)),
            move |copied| match copied {
                // not more than was asked for
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno("copy_file_range", &error)),
            },
        );
    }
}

fn full(is_full: bool) -> ControlFlow<()> {
    if is_full {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}
