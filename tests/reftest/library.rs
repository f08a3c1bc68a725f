//! The staging tree without a mount: operations of [`fsimpl::Fs`] over a stage, and commits by the
//! `commit` crate.
//!
//! Does what the kernel does before it asks a filesystem: walks paths, keeps account of lookups, and
//! makes the checks that never reach one.

mod stage;
mod view;

use std::collections::BTreeMap;

use fsimpl::{
    Attr, Caller, Fallocate, FileType, Fs, FsError, Handle, Ino, NodeType, OpenFlags, RenameMode,
    SetAttr, SetTime, Time, XattrMode,
};
use rustix::io::Errno;

use super::judge::{Observed, Subject};
use super::model::Rules;
use super::ops::{Answer, Fill, How, Making, Moving, Op, Path, SLOTS, Setting, Space};
use stage::World;

/// Like an errno of the kernel's own, or one of the filesystem's.
type Outcome<T = Answer> = Result<T, i32>;

#[derive(Clone, Copy)]
struct Open {
    handle: Handle,
    ino: Ino,
    how: How,
}

/// See the module's head.
pub struct Library {
    world: World,
    caller: Caller,
    files: [Option<Open>; SLOTS],
    /// Lookups to take back; not at once, as the kernel does not.
    forgets: Vec<Ino>,
    count: u64,
}

impl Library {
    pub fn new(seed: u64, rules: Rules) -> Self {
        Self {
            world: World::new(seed),
            caller: Caller {
                uid: rules.uid,
                gid: rules.gid,
                pid: std::process::id(),
                umask: rules.umask.into(),
            },
            files: [None; SLOTS],
            forgets: Vec::new(),
            count: 0,
        }
    }

    fn fs(&self) -> &Fs {
        self.world.fs()
    }

    fn lookup_in(&mut self, dir: Ino, name: &[u8]) -> Outcome<Attr> {
        let attr = self.fs().lookup(&self.caller, dir, name).map_err(errno)?;
        self.forgets.push(attr.ino);
        Ok(attr)
    }

    /// The directory of a path's last name.
    fn parent<'p>(&mut self, path: &'p Path) -> Outcome<(Ino, &'p [u8])> {
        let (dir, name) = path.split().ok_or(Errno::BUSY.raw_os_error())?;
        let mut at = self.world.root();
        for name in dir.names() {
            let attr = self.lookup_in(at, name)?;
            match attr.kind {
                FileType::Directory => at = attr.ino,
                FileType::Symlink => return Err(Errno::NOENT.raw_os_error()),
                _ => return Err(Errno::NOTDIR.raw_os_error()),
            }
        }
        Ok((at, name))
    }

    fn lookup(&mut self, path: &Path) -> Outcome<Attr> {
        if *path == Path::root() {
            return self.fs().getattr(self.world.root(), None).map_err(errno);
        }
        let (dir, name) = self.parent(path)?;
        self.lookup_in(dir, name)
    }

    fn follow(&mut self, path: &Path) -> Outcome<Attr> {
        let attr = self.lookup(path)?;
        match attr.kind {
            FileType::Symlink => Err(Errno::NOENT.raw_os_error()),
            _ => Ok(attr),
        }
    }

    /// True if a path stands; its parent's errors.
    fn stands(&mut self, dir: Ino, name: &[u8]) -> Outcome<bool> {
        match self.lookup_in(dir, name) {
            Ok(_) => Ok(true),
            Err(e) if e == Errno::NOENT.raw_os_error() => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn open(&mut self, path: &Path, how: How, perm: u16) -> Outcome<Open> {
        let flags = OpenFlags {
            read: how.read,
            write: how.write,
            truncate: how.truncate,
            append: how.append,
            exclusive: how.exclusive,
        };
        let (dir, name) = self.parent(path)?;
        let attr = match self.lookup_in(dir, name) {
            Ok(_) if how.create && how.exclusive => return Err(Errno::EXIST.raw_os_error()),
            Ok(attr) => attr,
            Err(e) if how.create && e == Errno::NOENT.raw_os_error() => {
                let made = self.fs().create(&self.caller, dir, name, perm, flags);
                let (attr, handle) = made.map_err(errno)?;
                self.forgets.push(attr.ino);
                let ino = attr.ino;
                return Ok(Open { handle, ino, how });
            }
            Err(e) => return Err(e),
        };
        match attr.kind {
            FileType::Symlink => return Err(Errno::LOOP.raw_os_error()),
            FileType::Directory => return Err(Errno::ISDIR.raw_os_error()),
            _ => {}
        }
        let ino = attr.ino;
        let handle = self.fs().open(&self.caller, ino, flags).map_err(errno)?;
        Ok(Open { handle, ino, how })
    }

    fn close(&mut self, open: Open) -> Outcome {
        self.fs().flush(open.handle).map_err(errno)?;
        self.fs().release(open.handle).map_err(errno)?;
        Ok(Answer::Done)
    }

    fn close_slot(&mut self, slot: usize) -> Outcome {
        match self.files[slot].take() {
            Some(open) => self.close(open),
            None => Ok(Answer::Done),
        }
    }

    fn file(&self, slot: usize) -> Open {
        self.files[slot].expect("the model knows it open")
    }

    fn write(&self, open: Open, offset: u64, data: &[u8]) -> Outcome {
        if !open.how.write {
            return Err(Errno::BADF.raw_os_error());
        }
        let written = self.fs().write(&self.caller, open.handle, offset, data);
        Ok(Answer::Count(written.map_err(errno)? as u64))
    }

    fn put(&mut self, path: &Path, fill: Fill) -> Outcome {
        let how = How {
            write: true,
            create: true,
            truncate: true,
            ..How::default()
        };
        let open = self.open(path, how, 0o644)?;
        let mut at = 0;
        for part in fill.bytes().chunks(17_000) {
            self.write(open, at, part)?;
            at += part.len() as u64;
        }
        self.close(open)
    }

    fn on_files(&mut self, op: &Op) -> Outcome {
        let done = match op {
            Op::Open {
                slot,
                path,
                how,
                perm,
            } => {
                self.close_slot(*slot)?;
                self.files[*slot] = Some(self.open(path, *how, *perm)?);
                return Ok(Answer::Done);
            }
            Op::Close { slot } => return self.close_slot(*slot),
            Op::Write { slot, offset, fill } => {
                return self.write(self.file(*slot), *offset, &fill.bytes());
            }
            Op::Read {
                slot,
                offset,
                length,
            } => {
                let open = self.file(*slot);
                if !open.how.read {
                    return Err(Errno::BADF.raw_os_error());
                }
                let mut bytes = vec![0; *length];
                let n = self.fs().read(open.handle, *offset, &mut bytes);
                bytes.truncate(n.map_err(errno)?);
                return Ok(Answer::Bytes(bytes));
            }
            Op::Resize { slot, size } => return self.resize(self.file(*slot), *size),
            Op::Space {
                slot,
                offset,
                length,
                how,
            } => {
                let how = match how {
                    Space::Allocate => Fallocate::Allocate,
                    Space::KeepSize => Fallocate::KeepSize,
                    Space::Punch => Fallocate::PunchHole,
                };
                let handle = self.file(*slot).handle;
                self.fs()
                    .fallocate(&self.caller, handle, *offset, *length, how)
            }
            Op::Copy {
                from,
                from_offset,
                to,
                to_offset,
                length,
            } => return self.copy((*from, *from_offset), (*to, *to_offset), *length),
            Op::Sync { slot } => self.fs().fsync(self.file(*slot).handle, false),
            Op::Put { path, fill } => return self.put(path, *fill),
            other => panic!("{other:?} is not about open files"),
        };
        done.map(|()| Answer::Done).map_err(errno)
    }

    fn resize(&self, open: Open, size: u64) -> Outcome {
        if !open.how.write {
            return Err(Errno::INVAL.raw_os_error());
        }
        let set = SetAttr {
            size: Some(size),
            handle: Some(open.handle),
            ..SetAttr::default()
        };
        self.set(open.ino, &set)
    }

    fn set(&self, ino: Ino, set: &SetAttr) -> Outcome {
        let attr = self.fs().setattr(&self.caller, ino, set).map_err(errno)?;
        assert_eq!(attr.ino, ino, "setattr answers for another inode");
        Ok(Answer::Done)
    }

    fn copy(&self, from: (usize, u64), to: (usize, u64), length: u64) -> Outcome {
        let (source, target) = (self.file(from.0), self.file(to.0));
        if !source.how.read || !target.how.write || target.how.append {
            return Err(Errno::BADF.raw_os_error());
        }
        // one call copies so little at once; a second would go on into what the first has appended
        let copied = self.fs().copy_file_range(
            &self.caller,
            (source.handle, from.1),
            (target.handle, to.1),
            length,
        );
        let copied = copied.map_err(errno)?;
        Ok(Answer::Count(copied))
    }

    fn on_names(&mut self, op: &Op) -> Outcome {
        let caller = self.caller;
        let made = match op {
            Op::Mkdir { path, perm } => {
                let (dir, name) = self.parent(path)?;
                self.fs().mkdir(&caller, dir, name, *perm)
            }
            Op::Symlink { path, target } => {
                let (dir, name) = self.parent(path)?;
                self.fs().symlink(&caller, dir, name, target)
            }
            Op::Mknod { path, perm, what } => {
                let (dir, name) = self.parent(path)?;
                let what = match *what {
                    Making::Regular => NodeType::Regular,
                    Making::Fifo => NodeType::Fifo,
                    Making::Socket => NodeType::Socket,
                    Making::CharDevice(rdev) => NodeType::CharDevice(rdev),
                    Making::BlockDevice(rdev) => NodeType::BlockDevice(rdev),
                };
                self.fs().mknod(&caller, dir, name, *perm, what)
            }
            Op::Link { from, to } => {
                let ino = self.lookup(from)?.ino;
                let (dir, name) = self.parent(to)?;
                if self.stands(dir, name)? {
                    return Err(Errno::EXIST.raw_os_error());
                }
                self.fs().link(&caller, ino, dir, name)
            }
            Op::Rename { from, to, how } => return self.rename(from, to, *how),
            Op::Rmdir { path } | Op::Unlink { path } => {
                let (dir, name) = self.parent(path)?;
                let removed = match op {
                    Op::Rmdir { .. } => self.fs().rmdir(&caller, dir, name),
                    _ => self.fs().unlink(&caller, dir, name),
                };
                return removed.map(|()| Answer::Done).map_err(errno);
            }
            other => panic!("{other:?} is not about names"),
        };
        self.forgets.push(made.map_err(errno)?.ino);
        Ok(Answer::Done)
    }

    fn rename(&mut self, from: &Path, to: &Path, how: Moving) -> Outcome {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        // the kernel looks both up, and never asks to move a directory below itself
        self.lookup_in(from_dir, from_name)?;
        let target = self.stands(to_dir, to_name)?;
        let mode = match how {
            Moving::NoReplace if target => return Err(Errno::EXIST.raw_os_error()),
            Moving::Exchange if !target => return Err(Errno::NOENT.raw_os_error()),
            Moving::Replace => RenameMode::Replace,
            Moving::NoReplace => RenameMode::NoReplace,
            Moving::Exchange => RenameMode::Exchange,
        };
        if from != to && from.is_within(to) {
            return Err(match how {
                Moving::Exchange => Errno::INVAL.raw_os_error(),
                _ => Errno::NOTEMPTY.raw_os_error(),
            });
        }
        let (from, to) = ((from_dir, from_name), (to_dir, to_name));
        let moved = self.fs().rename(&self.caller, from, to, mode);
        moved.map(|()| Answer::Done).map_err(errno)
    }

    fn on_attributes(&mut self, op: &Op) -> Outcome {
        let none = SetAttr::default();
        let (ino, set) = match op {
            Op::Truncate { path, size } => {
                let attr = self.follow(path)?;
                match attr.kind {
                    FileType::Regular => {}
                    FileType::Directory => return Err(Errno::ISDIR.raw_os_error()),
                    _ => return Err(Errno::INVAL.raw_os_error()),
                }
                let size = Some(*size);
                (attr.ino, SetAttr { size, ..none })
            }
            Op::Chmod { path, perm } => {
                let perm = Some(*perm);
                (self.follow(path)?.ino, SetAttr { perm, ..none })
            }
            Op::Chown { path, uid, gid } => {
                let (uid, gid) = (Some(*uid), Some(*gid));
                (self.lookup(path)?.ino, SetAttr { uid, gid, ..none })
            }
            Op::Utimens { path, secs, nanos } => {
                let (secs, nanos) = (*secs, *nanos);
                let mtime = Some(SetTime::At(Time { secs, nanos }));
                (self.lookup(path)?.ino, SetAttr { mtime, ..none })
            }
            Op::Setxattr { .. } | Op::Removexattr { .. } => return self.on_xattrs(op),
            other => panic!("{other:?} is not about attributes"),
        };
        self.set(ino, &set)
    }

    fn on_xattrs(&mut self, op: &Op) -> Outcome {
        let (Op::Setxattr { path, .. } | Op::Removexattr { path, .. }) = op else {
            panic!("{op:?} is not about extended attributes");
        };
        let attr = self.lookup(path)?;
        // of these, users have no extended attributes: the kernel says so itself
        if !matches!(attr.kind, FileType::Regular | FileType::Directory) {
            return Err(Errno::PERM.raw_os_error());
        }
        let done = match op {
            Op::Setxattr {
                name, value, how, ..
            } => {
                let how = match how {
                    Setting::Any => XattrMode::Any,
                    Setting::Create => XattrMode::Create,
                    Setting::Replace => XattrMode::Replace,
                };
                let name = name.as_bytes();
                self.fs().setxattr(&self.caller, attr.ino, name, value, how)
            }
            Op::Removexattr { name, .. } => {
                self.fs()
                    .removexattr(&self.caller, attr.ino, name.as_bytes())
            }
            _ => Ok(()),
        };
        done.map(|()| Answer::Done).map_err(errno)
    }

    /// Takes lookups back. While a file is open, the kernel keeps it and the directories above it.
    fn forget(&mut self) {
        if self.files.iter().any(Option::is_some) {
            return;
        }
        for ino in std::mem::take(&mut self.forgets) {
            self.fs().forget(ino, 1);
        }
    }

    fn restart(&mut self) -> Answer {
        for slot in 0..SLOTS {
            if let Err(errno) = self.close_slot(slot) {
                return Answer::Failed(errno);
            }
        }
        // a mount that ends has every inode forgotten; a process that dies has not
        if self.count.is_multiple_of(2) {
            self.forget();
        }
        self.forgets.clear();
        self.world.restart();
        Answer::Done
    }
}

impl Subject for Library {
    fn apply(&mut self, op: &Op) -> Answer {
        self.count += 1;
        let result = match op {
            Op::Commit { paths, writers } => return self.world.commit(paths, *writers),
            Op::Abort { path } => return self.world.abort(path),
            Op::Restart | Op::Kill => return self.restart(),
            Op::Seal => return self.world.seal(),
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
        if self.count.is_multiple_of(3) {
            self.forget();
        }
        result.unwrap_or_else(Answer::Failed)
    }

    fn tree(&mut self) -> BTreeMap<Path, Observed> {
        let page = 1 + usize::try_from(self.count % 7).unwrap();
        view::tree(self.fs(), &self.caller, self.world.root(), page)
    }

    fn handle(&mut self, slot: usize, readable: bool) -> (Vec<u8>, u32) {
        let open = self.file(slot);
        let bytes = match readable {
            true => view::read_all(self.fs(), open.handle),
            false => Vec::new(),
        };
        let attr = self.fs().getattr(open.ino, Some(open.handle)).unwrap();
        (bytes, attr.nlink)
    }

    fn published(&mut self) -> Option<(u64, BTreeMap<Path, Observed>)> {
        Some(self.world.published())
    }

    fn complaints(&mut self, clean: bool) -> Vec<String> {
        self.world.complaints(clean)
    }
}

fn errno(error: FsError) -> i32 {
    // a fault is never what a model expects: say what it was
    if error.is_fault() {
        let mut text = error.to_string();
        let mut at: &dyn std::error::Error = &error;
        while let Some(source) = at.source() {
            text = format!("{text}: {source}");
            at = source;
        }
        eprintln!("fault: {text}");
    }
    error.to_errno()
}
