//! What the layer answers to each request of the kernel's.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;

use super::Cut;
use super::faults::{Call, Faults, Way};
use super::places::Places;
use super::record::Record;
use super::tree::{Bytes, Kind, Names, Node, Number, Tree};

/// Nobody but the kernel changes anything, so it may remember for ever.
const TTL: Duration = Duration::from_secs(3600);
/// Every read and write is to get here.
const UNCACHED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;
const SYNCED: &[u8] = b"user.prepub.syncfs";
/// Blocks that there seem to be: 64 GiB.
const BLOCKS: u64 = 16 << 20;

pub(super) struct State {
    record: Record,
    places: Places,
    listings: HashMap<u64, Vec<(Number, FileType, Vec<u8>)>>,
    next_handle: u64,
    /// Changes and syncs so far.
    count: u64,
    cut_at: Option<u64>,
    cut: Option<Cut>,
}

#[derive(Clone)]
pub(super) struct Adapter {
    pub state: Arc<parking_lot::Mutex<State>>,
    pub clock: Arc<AtomicU64>,
    pub faults: Arc<Faults>,
}

impl Adapter {
    pub fn over(tree: Tree, clock: Arc<AtomicU64>) -> Self {
        let state = State {
            places: Places::of(&tree),
            record: Record::over(tree),
            listings: HashMap::new(),
            next_handle: 1,
            count: 0,
            cut_at: None,
            cut: None,
        };
        Self {
            state: Arc::new(parking_lot::Mutex::new(state)),
            clock,
            faults: Arc::default(),
        }
    }

    /// Waits where calls are slow or hang; fails where they fail. For calls on an inode.
    fn pass(&self, by: &Request, call: Call, number: Number) -> Result<Way, Errno> {
        self.faults.pass(by.pid(), call, || {
            self.state.lock().places.path(number, None)
        })
    }

    /// The same for calls on a name in a directory.
    fn pass_name(&self, by: &Request, call: Call, dir: Number, name: &OsStr) -> Result<(), Errno> {
        let path = || self.state.lock().places.path(dir, Some(name.as_bytes()));
        self.faults.pass(by.pid(), call, path).map(|_| ())
    }
}

impl State {
    pub fn cut_after(&mut self, changes: u64) {
        self.cut = None;
        self.cut_at = Some(self.count + changes);
    }

    pub fn cut_now(&mut self, clock: u64) -> Cut {
        self.cut_at = None;
        let now = |record: &Record| Cut {
            record: record.clone(),
            clock,
        };
        self.cut.take().unwrap_or_else(|| now(&self.record))
    }

    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Something is about to change, or to become durable.
    fn count(&mut self, clock: &AtomicU64) {
        if self.cut_at == Some(self.count) {
            self.cut_at = None;
            self.cut = Some(Cut {
                record: self.record.clone(),
                clock: clock.load(Ordering::SeqCst),
            });
        }
        self.count += 1;
    }

    fn tree(&self) -> &Tree {
        self.record.live()
    }

    fn attr(&self, number: Number) -> Result<FileAttr, Errno> {
        let node = self.tree().node(number).ok_or(Errno::ENOENT)?;
        let (size, blocks) = match &node.kind {
            Kind::File(bytes) => (bytes.size, bytes.allocated() / 512),
            Kind::Symlink(target) => (target.len() as u64, 0),
            Kind::Directory(_) => (4096, 8),
            Kind::Special(_) => (0, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks,
            atime: node.mtime,
            mtime: node.mtime,
            ctime: node.mtime,
            crtime: node.mtime,
            kind: file_type(&node.kind),
            perm: (node.perm & 0o7777) as u16,
            // nobody asks
            nlink: 1,
            uid: node.uid,
            gid: node.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn make(&mut self, request: &Request, dir: Number, name: &OsStr, node: Node) -> Made {
        let name = name.as_bytes().to_vec();
        if self.tree().find(dir, &name).is_some() {
            return Err(Errno::EEXIST);
        }
        let node = Node {
            uid: request.uid(),
            gid: request.gid(),
            ..node
        };
        let number = self.record.make(node);
        self.places.set(number, dir, &name);
        self.record.names(Names::Add(dir, name, number));
        self.attr(number)
    }

    fn remove(&mut self, dir: Number, name: &OsStr, is_dir: bool) -> Result<(), Errno> {
        let name = name.as_bytes().to_vec();
        let number = self.tree().find(dir, &name).ok_or(Errno::ENOENT)?;
        match (self.tree().entries(number), is_dir) {
            (Some(entries), true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Some(_), false) => return Err(Errno::EISDIR),
            (None, true) => return Err(Errno::ENOTDIR),
            _ => {}
        }
        self.record.names(Names::Remove(dir, name, number));
        Ok(())
    }

    fn rename(
        &mut self,
        from: (Number, Vec<u8>),
        to: (Number, Vec<u8>),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let number = self.tree().find(from.0, &from.1).ok_or(Errno::ENOENT)?;
        let there = self.tree().find(to.0, &to.1);
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return Err(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && there.is_some() {
            return Err(Errno::EEXIST);
        }
        let full = there.and_then(|there| self.tree().entries(there));
        if full.is_some_and(|entries| !entries.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        if there != Some(number) {
            self.places.set(number, to.0, &to.1);
            self.record.names(Names::Move(from, to, number));
        }
        Ok(())
    }
}

type Made = Result<FileAttr, Errno>;

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Directory(_) => FileType::Directory,
        Kind::File(_) => FileType::RegularFile,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::Special(mode) if mode & libc_ifmt() == 0o010_000 => FileType::NamedPipe,
        Kind::Special(_) => FileType::Socket,
    }
}

/// The bits of a mode that say what it is.
const fn libc_ifmt() -> u32 {
    0o170_000
}

fn answer_entry(made: Made, reply: ReplyEntry) {
    match made {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Adapter {
    /// Changes something.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        state.count(&self.clock);
        change(&mut state)
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state.lock();
        let found = state.tree().find(parent.0, name.as_bytes());
        answer_entry(
            found.ok_or(Errno::ENOENT).and_then(|n| state.attr(n)),
            reply,
        );
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.state.lock().attr(ino.0) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if size.is_some()
            && let Err(error) = self.pass(request, Call::Resize, ino.0)
        {
            return reply.error(error);
        }
        let done = self.change(|state| {
            let node = state.tree().node(ino.0).ok_or(Errno::ENOENT)?;
            let (perm, owner) = (node.perm, (node.uid, node.gid));
            if mode.is_some() || uid.is_some() || gid.is_some() {
                let (uid, gid) = (uid.unwrap_or(owner.0), gid.unwrap_or(owner.1));
                state.record.set_attr(ino.0, mode.unwrap_or(perm), uid, gid);
            }
            if let Some(size) = size {
                state.record.set_size(ino.0, size);
            }
            match mtime {
                Some(TimeOrNow::Now) => state.record.touch(ino.0, SystemTime::now()),
                Some(TimeOrNow::SpecificTime(time)) => state.record.touch(ino.0, time),
                None => {}
            }
            state.attr(ino.0)
        });
        match done {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.state.lock().tree().node(ino.0).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => reply.data(target),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if let Err(error) = self.pass_name(request, Call::Create, parent.0, name) {
            return reply.error(error);
        }
        let kind = match mode & libc_ifmt() {
            0o100_000 => Kind::File(Bytes::default()),
            _ => Kind::Special(mode),
        };
        let node = Node::new(kind, mode);
        answer_entry(
            self.change(|state| state.make(request, parent.0, name, node)),
            reply,
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        if let Err(error) = self.pass_name(request, Call::MakeDir, parent.0, name) {
            return reply.error(error);
        }
        let node = Node::new(Kind::Directory(BTreeMap::new()), mode);
        answer_entry(
            self.change(|state| state.make(request, parent.0, name, node)),
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let passed = self.pass_name(request, Call::Remove, parent.0, name);
        let remove = |()| self.change(|state| state.remove(parent.0, name, false));
        answer(passed.and_then(remove), reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let passed = self.pass_name(request, Call::Remove, parent.0, name);
        let remove = |()| self.change(|state| state.remove(parent.0, name, true));
        answer(passed.and_then(remove), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        if let Err(error) = self.pass_name(request, Call::Link, parent.0, name) {
            return reply.error(error);
        }
        let target = target.as_os_str().as_bytes().to_vec();
        let node = Node::new(Kind::Symlink(target), 0o777);
        answer_entry(
            self.change(|state| state.make(request, parent.0, name, node)),
            reply,
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = (parent.0, name.as_bytes().to_vec());
        let to = (newparent.0, newname.as_bytes().to_vec());
        let passed = self.pass_name(request, Call::Rename, newparent.0, newname);
        let rename = |()| self.change(|state| state.rename(from, to, flags));
        answer(passed.and_then(rename), reply);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        if let Err(error) = self.pass_name(request, Call::Link, newparent.0, newname) {
            return reply.error(error);
        }
        let name = newname.as_bytes().to_vec();
        let made = self.change(|state| {
            if state.tree().find(newparent.0, &name).is_some() {
                return Err(Errno::EEXIST);
            }
            state.places.set(ino.0, newparent.0, &name);
            state.record.names(Names::Add(newparent.0, name, ino.0));
            state.attr(ino.0)
        });
        answer_entry(made, reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let node = Node::new(Kind::File(Bytes::default()), mode);
        let passed = self.pass_name(request, Call::Create, parent.0, name);
        let make = |()| self.change(|state| state.make(request, parent.0, name, node));
        match passed.and_then(make) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), FileHandle(0), UNCACHED),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.pass(request, Call::Open, ino.0) {
            Ok(_) => reply.opened(FileHandle(0), UNCACHED),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = match self.pass(request, Call::Read, ino.0) {
            Ok(Way::Whole) => size,
            Ok(Way::Short) => size.div_ceil(2),
            Err(error) => return reply.error(error),
        };
        match self.state.lock().tree().file(ino.0) {
            Some(file) => reply.data(&file.read(offset, u64::from(size))),
            None => reply.error(Errno::EBADF),
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = match self.pass(request, Call::Write, ino.0) {
            Ok(Way::Whole) => data,
            Ok(Way::Short) => &data[..data.len().div_ceil(2)],
            Err(error) => return reply.error(error),
        };
        self.change(|state| state.record.write(ino.0, offset, data));
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let passed = self.pass(request, Call::Sync, ino.0);
        let sync = |_| self.change(|state| state.record.sync(ino.0));
        answer(passed.map(sync), reply);
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let passed = self.pass(request, Call::Sync, ino.0);
        let sync = |_| self.change(|state| state.record.sync_dir(ino.0));
        answer(passed.map(sync), reply);
    }

    fn getxattr(&self, request: &Request, ino: INodeNo, name: &OsStr, _: u32, reply: ReplyXattr) {
        if name.as_bytes() == SYNCED {
            if let Err(error) = self.pass(request, Call::Sync, ino.0) {
                return reply.error(error);
            }
            self.change(|state| state.record.sync_all());
        }
        reply.error(Errno::ENODATA);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if let Err(error) = self.pass(request, Call::List, ino.0) {
            return reply.error(error);
        }
        let mut state = self.state.lock();
        let dots = [&b"."[..], b".."].map(|dot| (ino.0, FileType::Directory, dot.to_vec()));
        let tree = state.tree();
        let entries = tree.entries(ino.0).into_iter().flatten();
        let listed = entries.map(|(name, number)| {
            let kind = tree.node(*number).map(|node| file_type(&node.kind));
            (*number, kind.unwrap_or(FileType::RegularFile), name.clone())
        });
        let listing = dots.into_iter().chain(listed).collect();
        let handle = state.next_handle;
        state.next_handle += 1;
        state.listings.insert(handle, listing);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.state.lock();
        let Some(listing) = state.listings.get(&fh.0) else {
            return reply.error(Errno::EBADF);
        };
        let from = usize::try_from(offset).unwrap();
        for (at, (number, kind, name)) in listing.iter().enumerate().skip(from) {
            let next = at as u64 + 1;
            if reply.add(INodeNo(*number), next, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.state.lock().listings.remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let zeroes = mode.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE);
        if !zeroes && !(mode - FallocateFlags::KEEP_SIZE).is_empty() {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if let Err(error) = self.pass(request, Call::Resize, ino.0) {
            return reply.error(error);
        }
        self.change(|state| {
            let size = state.tree().file(ino.0).map_or(0, |file| file.size);
            if zeroes {
                state.record.zero(ino.0, offset, length);
            }
            if !mode.contains(FallocateFlags::KEEP_SIZE) && offset + length > size {
                state.record.set_size(ino.0, offset + length);
            }
        });
        reply.ok();
    }
}
