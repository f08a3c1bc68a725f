//! Where requests of the kernel become operations: the only file that names `fuser`.
//!
//! Each request is unpacked, given to [`Fs`] and answered; there is no state of files here. What
//! may take its time (copying published content, syncing, fetching) is answered from [`Aside`], so
//! that the threads that take requests never wait.
//!
//! What is negotiated, and why: plain writes, each of which reaches us before it returns (no
//! writeback cache, no passthrough). Entries, attributes and pages are cached for good and
//! invalidated exactly. The kernel keeps locks, applies no umask (default ACLs replace it), and
//! strips set-ID bits itself (no `HANDLE_KILLPRIV`: we could not tell whose write it is).
//!
//! fuser 0.18 reads times before 1970 wrongly; [`time_of`] puts that right. An overflow at
//! `i64::MIN` seconds is harmless without overflow checks, which the workspace's profiles turn off
//! for it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags as RawOpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use crate::aside::Aside;
use crate::device;
use crate::error::FsError;
use crate::fs::Fs;
use crate::session::MountOptions;
use crate::types::{
    Attr, Caller, DirEntryPlus, Fallocate, FileType, Handle, Ino, NodeType, Notifier, OpenFlags,
    RenameMode, Seek, SetAttr, SetTime, Time, XattrMode,
};

/// How long the kernel may remember names and attributes. Whatever changes behind its back is told
/// to it, so this only bounds what a forgotten notice could do.
const TTL: Duration = Duration::from_secs(24 * 3600);

/// The same for the mount point's own directory, which changes when a repository comes or goes.
const ROOT_TTL: Duration = Duration::from_secs(1);

/// Most bytes in one write request; more than 1 MiB the kernel does not send.
const WRITE_BYTES_MAX: u32 = 1 << 20;

/// Most bytes in one read request; bounds what a request makes us allocate.
const READ_BYTES_MAX: u32 = 1 << 20;

/// Reads ahead and the like that the kernel keeps going at once.
const BACKGROUND_MAX: u16 = 64;

/// Most bytes that one `copy_file_range` may report: its answer has 32 bits, and whole pages copy best.
const COPY_BYTES_MAX: u64 = 0xffff_f000;

/// Inode numbers are never reused while the kernel knows them.
const GENERATION: Generation = Generation(0);

/// A mounted filesystem's threads.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    notifier: Arc<dyn Notifier>,
}

/// Mounts, and serves in the background until unmounted.
pub(crate) fn start(fs: Arc<Fs>, mountpoint: &Path, options: &MountOptions) -> io::Result<Running> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut config = fuser::Config::default();
    config.n_threads = Some(options.threads.unwrap_or(cores.clamp(2, 4)).max(1));
    config.clone_fd = device::is_accessible();
    // the kernel has checked who may ask
    config.acl = SessionACL::All;

    let kernel = device::mount(mountpoint, options.allow_other)?;
    let target = Arc::new(Kernel::default());
    let adapter = Adapter::new(Arc::clone(&fs), Arc::clone(&target));
    let begun =
        fuser::Session::from_fd(adapter, kernel, SessionACL::All, config).and_then(|session| {
            *target.0.lock() = Some(session.notifier());
            std::thread::Builder::new()
                .name("fuse".to_owned())
                .spawn(move || session.run())
        });
    match begun {
        Ok(thread) => {
            let notifier: Arc<dyn Notifier> = target;
            fs.set_notifier(&notifier);
            Ok(Running { thread, notifier })
        }
        Err(error) => {
            // nobody answers there: better no mount than one that hangs
            if let Err(error) = crate::session::unmount(mountpoint, true) {
                tracing::warn!(%error, "cannot take the mount off again");
            }
            Err(error)
        }
    }
}

impl Running {
    /// True once nobody is served any more.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells the kernel what changed behind its back.
    pub fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.notifier
    }

    /// Waits until it was unmounted.
    pub fn join(self) -> io::Result<()> {
        let ended = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread that serves the mount panicked")));
        match ended {
            // one of several threads may see the end of the connection this way
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            ended => ended,
        }
    }
}

/// The kernel's caches; none once the mount is gone.
#[derive(Default)]
struct Kernel(Mutex<Option<fuser::Notifier>>);

impl Kernel {
    fn tell(&self, what: impl FnOnce(&fuser::Notifier) -> io::Result<()>) {
        let Some(notifier) = self.0.lock().clone() else {
            return;
        };
        if let Err(error) = what(&notifier) {
            // what the kernel does not know, it need not forget; a busy entry is asked for again
            tracing::debug!(%error, "an invalidation was not taken");
        }
    }
}

impl Notifier for Kernel {
    fn inval_inode(&self, ino: Ino) {
        self.tell(|kernel| kernel.inval_inode(INodeNo(ino.0), 0, 0));
    }

    fn inval_entry(&self, parent: Ino, name: &[u8]) {
        self.tell(|kernel| kernel.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name)));
    }
}

/// Handles of files that were there before they were opened for writing: the first write may have
/// to copy the whole file.
#[derive(Default)]
struct Cold {
    handles: Mutex<HashSet<u64>>,
    count: AtomicUsize,
}

impl Cold {
    fn insert(&self, handle: Handle) {
        self.handles.lock().insert(handle.0);
        self.count.fetch_add(1, Ordering::Release);
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
struct Adapter {
    fs: Arc<Fs>,
    kernel: Arc<Kernel>,
    aside: Aside,
    cold: Arc<Cold>,
}

impl Adapter {
    fn new(fs: Arc<Fs>, kernel: Arc<Kernel>) -> Self {
        Self {
            fs,
            kernel,
            aside: Aside::default(),
            cold: Arc::default(),
        }
    }
}

/// The errno of a failed operation; what is our fault or the machine's is logged.
fn errno(operation: &'static str, error: &FsError) -> Errno {
    if error.is_fault() {
        let source = std::error::Error::source(error);
        let reason = source.map(ToString::to_string).unwrap_or_default();
        tracing::warn!(operation, %error, reason, "a request failed");
    }
    Errno::from_i32(error.to_errno())
}

/// Answers a request with nothing to say.
fn answer(operation: &'static str, result: Result<(), FsError>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

/// Answers with an inode that was found or made.
fn answer_entry(operation: &'static str, result: Result<Attr, FsError>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), GENERATION),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

fn answer_attr(operation: &'static str, result: Result<Attr, FsError>, reply: ReplyAttr) {
    match result {
        Ok(attr) => reply.attr(ttl(attr.ino), &file_attr(&attr)),
        Err(error) => reply.error(errno(operation, &error)),
    }
}

/// Answers a request for an attribute or a list of them: its length, if no room is offered.
fn answer_xattr(
    operation: &'static str,
    result: Result<Vec<u8>, FsError>,
    room: u32,
    reply: ReplyXattr,
) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(length) if room == 0 => reply.size(length),
            Ok(length) if length <= room => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(operation, &error)),
    }
}

fn caller(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
        umask,
    }
}

fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

fn handle(number: FileHandle) -> Handle {
    Handle(number.0)
}

fn ttl(of: Ino) -> &'static Duration {
    if of == Ino::ROOT { &ROOT_TTL } else { &TTL }
}

fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = system_time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: mtime,
        mtime,
        ctime: system_time(attr.ctime),
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // the protocol's 32 bits are the lower ones of an st_rdev, for all that Linux has
        rdev: (attr.rdev & 0xffff_ffff) as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes of nothing: inode 0 says that a name is not there, and may be remembered.
fn nothing(number: Ino) -> Attr {
    let epoch = Time::default();
    Attr {
        ino: number,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 4096,
        blocks: 8,
        mtime: epoch,
        ctime: epoch,
    }
}

/// Our time as fuser takes it, on its way to the kernel.
fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(UNIX_EPOCH)
}

/// The time that the kernel sent. fuser 0.18 turns (-2 s, 800 ms), which is 1.2 s before 1970, into
/// 2.8 s before; the two fields can be read back from that.
fn time_of(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                secs: 0_i64
                    .checked_sub_unsigned(before.as_secs())
                    .unwrap_or(i64::MIN),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_of(time)),
    }
}

fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    let has = |flag| flags & flag != 0;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        truncate: has(libc::O_TRUNC),
        append: has(libc::O_APPEND),
        exclusive: has(libc::O_EXCL),
    }
}

/// What the kernel is told of an opened file: its pages are good, and a reader's close is no news.
fn opened(flags: OpenFlags) -> FopenFlags {
    if flags.write {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
    }
}

/// The permission bits of a mode.
fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            InitFlags::FUSE_ATOMIC_O_TRUNC,
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
        _atime: Option<TimeOrNow>,
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
            mtime: mtime.map(set_time),
            handle: fh.map(handle),
        };
        let (caller, number) = (caller(request, 0), ino(number));
        // cutting a published file to a length copies that much of it
        if size.is_some_and(|size| size > 0) {
            let fs = Arc::clone(&self.fs);
            return self.aside.run(move || {
                answer_attr("setattr", fs.setattr(&caller, number, &set), reply);
            });
        }
        answer_attr("setattr", self.fs.setattr(&caller, number, &set), reply);
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
        let made = self
            .fs
            .mknod(&caller, parent, name.as_bytes(), perm(mode), what);
        answer_entry("mknod", made, reply);
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
        let caller = caller(request, umask);
        let made = self
            .fs
            .mkdir(&caller, ino(parent), name.as_bytes(), perm(mode));
        answer_entry("mkdir", made, reply);
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
        let target = target.as_os_str().as_bytes();
        let made = self
            .fs
            .symlink(&caller(request, 0), ino(parent), name.as_bytes(), target);
        answer_entry("symlink", made, reply);
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
        let from = (ino(parent), name.as_bytes());
        let to = (ino(new_parent), new_name.as_bytes());
        answer(
            "rename",
            self.fs.rename(&caller(request, 0), from, to, mode),
            reply,
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
        let made = self
            .fs
            .link(&caller, ino(number), ino(parent), name.as_bytes());
        answer_entry("link", made, reply);
    }

    fn open(&self, request: &Request, number: INodeNo, flags: RawOpenFlags, reply: ReplyOpen) {
        let flags = open_flags(flags.0);
        match self.fs.open(&caller(request, 0), ino(number), flags) {
            Ok(made) => {
                if flags.write && !flags.truncate {
                    self.cold.insert(made);
                }
                reply.opened(FileHandle(made.0), opened(flags));
            }
            Err(error) => reply.error(errno("open", &error)),
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
        match self
            .fs
            .create(&caller, ino(parent), name.as_bytes(), perm(mode), flags)
        {
            Ok((attr, made)) => {
                let fh = FileHandle(made.0);
                reply.created(&TTL, &file_attr(&attr), GENERATION, fh, opened(flags));
            }
            Err(error) => reply.error(errno("create", &error)),
        }
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
            let (fs, cold, data) = (Arc::clone(&self.fs), Arc::clone(&self.cold), data.to_vec());
            return self.aside.run(move || {
                let written = fs.write(&caller, file, offset, &data);
                if written.is_ok() {
                    cold.remove(file);
                }
                answer(written, reply);
            });
        }
        answer(self.fs.write(&caller, file, offset, data), reply);
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
        let (fs, file) = (Arc::clone(&self.fs), handle(fh));
        self.aside
            .run(move || answer("fsync", fs.fsync(file, data_only), reply));
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
        let caller = caller(request, 0);
        let done = self
            .fs
            .setxattr(&caller, ino(number), name.as_bytes(), value, mode);
        answer("setxattr", done, reply);
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
        let (fs, caller, file) = (Arc::clone(&self.fs), caller(request, 0), handle(fh));
        self.aside.run(move || {
            answer(
                "fallocate",
                fs.fallocate(&caller, file, offset, length, how),
                reply,
            );
        });
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
        let (fs, caller) = (Arc::clone(&self.fs), caller(request, 0));
        let (from, to) = ((handle(from), from_offset), (handle(to), to_offset));
        self.aside.run(move || {
            match fs.copy_file_range(&caller, from, to, length.min(COPY_BYTES_MAX)) {
                // not more than was asked for
                Ok(copied) => reply.written(copied as u32),
                Err(error) => reply.error(errno("copy_file_range", &error)),
            }
        });
    }
}

fn full(is_full: bool) -> ControlFlow<()> {
    if is_full {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways() {
        for (secs, nanos) in [
            (0, 0),
            (1, 999_999_999),
            (-1, 0),
            (-2, 800_000_000),
            (-1, 1),
            (i64::MAX, 999_999_999),
            (i64::MIN, 0),
            (i64::MIN, 5),
            (4_000_000_000, 1),
        ] {
            let time = Time { secs, nanos };
            let exact = system_time(time);
            // what a correct reading of the fields would be
            let back = match exact.duration_since(UNIX_EPOCH) {
                Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
                Err(before) => {
                    let d = before.duration();
                    let whole = 0_i64.checked_sub_unsigned(d.as_secs()).unwrap();
                    match d.subsec_nanos() {
                        0 => (whole, 0),
                        n => (whole - 1, 1_000_000_000 - n),
                    }
                }
            };
            assert_eq!(back, (secs, nanos));
        }
        // what fuser makes of the kernel's two fields, as it is written there
        for (secs, nanos) in [(-1_i64, 0_u32), (-2, 800_000_000), (-1, 1), (i64::MIN, 0)] {
            let read = UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos);
            assert_eq!(time_of(read), Time { secs, nanos });
        }
        let later = UNIX_EPOCH + Duration::new(5, 6);
        assert_eq!(time_of(later), Time { secs: 5, nanos: 6 });
    }

    #[test]
    fn flags_are_unpacked() {
        let flags = open_flags(libc::O_RDWR | libc::O_APPEND | libc::O_TRUNC);
        assert!(flags.read && flags.write && flags.append && flags.truncate && !flags.exclusive);
        let flags = open_flags(libc::O_WRONLY | libc::O_EXCL);
        assert!(!flags.read && flags.write && flags.exclusive && !flags.append);
        assert!(opened(open_flags(libc::O_RDONLY)).contains(FopenFlags::FOPEN_NOFLUSH));
        assert!(!opened(flags).contains(FopenFlags::FOPEN_NOFLUSH));
    }
}
