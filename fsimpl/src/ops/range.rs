//! Ranges of files: reserving, punching, seeking, copying.

use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use store::ContentFile;

use super::require_changeable;
use crate::error::{FsError, Result};
use crate::handle::{Bytes, OpenFile, OpenInode, Syncs};
use crate::stage::Stage;
use crate::tree::{Data, Raw, Tree, Txn};
use crate::types::{Caller, Fallocate, Handle, Ino, Seek};

/// Most bytes copied by one `copy_file_range` that cannot share them: a request must not take long.
const COPY_STEP_BYTES: u64 = 16 << 20;
const COPY_BUFFER_BYTES: usize = 1 << 20;

impl Stage {
    pub(crate) fn fallocate(
        &self,
        caller: &Caller,
        handle: Handle,
        offset: u64,
        length: u64,
        how: Fallocate,
    ) -> Result<()> {
        let _ = caller;
        let open = self.open.file(handle)?;
        if !open.flags.write {
            return Err(FsError::BadHandle);
        }
        if length == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        let end = offset
            .checked_add(length)
            .filter(|end| i64::try_from(*end).is_ok())
            .ok_or(FsError::TooBig)?;
        let (flags, grows, reserves) = match how {
            Fallocate::Allocate => (FallocateFlags::empty(), true, true),
            Fallocate::KeepSize => (FallocateFlags::KEEP_SIZE, false, true),
            Fallocate::PunchHole => (
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                false,
                false,
            ),
            Fallocate::ZeroRange { keep_size: true } => (
                FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                false,
                true,
            ),
            Fallocate::ZeroRange { keep_size: false } => (FallocateFlags::ZERO_RANGE, true, true),
        };
        if grows {
            self.allow_size(open.inode.ino, open.inode.size(), end)?;
        }
        if reserves {
            self.claim(length)?;
        }
        let target = self.writable(&open.inode, u64::MAX)?;
        let file = target.file()?;
        let done = rustix::fs::fallocate(file, flags, offset, length);
        let mut state = open.inode.state.lock();
        match done {
            Ok(()) => {
                self.wrote(&mut state, if grows { end } else { 0 });
                Ok(())
            }
            Err(Errno::OPNOTSUPP) => {
                Err(FsError::NotSupported("by the state directory's filesystem"))
            }
            Err(errno) => {
                // some grow the file as far as there was room
                let grown = file.metadata().map_or(0, |of| of.len());
                self.wrote(&mut state, grown);
                Err(self.backing.failed(target.number(), errno.into()))
            }
        }
    }

    pub(crate) fn lseek(&self, handle: Handle, offset: u64, what: Seek) -> Result<u64> {
        let open = self.open.file(handle)?;
        let size = open.inode.size();
        if offset >= size {
            return Err(FsError::NoSeekTarget);
        }
        let bytes = open.inode.bytes.read();
        let Bytes::Backing {
            file: Some(file),
            number,
        } = &*bytes
        else {
            // published content is all data, and ends with a hole as every file does
            return Ok(match what {
                Seek::Data => offset,
                Seek::Hole => size,
            });
        };
        let from = match what {
            Seek::Data => SeekFrom::Data(offset),
            Seek::Hole => SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(&**file, from) {
            Ok(at) => Ok(at),
            Err(Errno::NXIO) => Err(FsError::NoSeekTarget),
            Err(errno) => Err(self.backing.failed(*number, errno.into())),
        }
    }

    pub(crate) fn copy_file_range(
        &self,
        caller: &Caller,
        (from, from_offset): (Handle, u64),
        (to, to_offset): (Handle, u64),
        length: u64,
    ) -> Result<u64> {
        let _ = caller;
        let (from, to) = (self.open.file(from)?, self.open.file(to)?);
        if !to.flags.write || to.flags.append {
            return Err(FsError::BadHandle);
        }
        let size = from.inode.size();
        let length = length.min(size.saturating_sub(from_offset));
        let (Some(from_end), Some(to_end)) = (
            from_offset.checked_add(length),
            to_offset.checked_add(length),
        ) else {
            return Err(FsError::TooBig);
        };
        if Arc::ptr_eq(&from.inode, &to.inode) && from_offset < to_end && to_offset < from_end {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        if length == 0 {
            return Ok(0);
        }
        self.allow_size(to.inode.ino, to.inode.size(), to_end)?;
        let whole = from_offset == 0 && to_offset == 0 && length == size;
        if whole && self.refer(&from, &to, size)? {
            return Ok(length);
        }
        self.copy_bytes(&from.inode, from_offset, &to.inode, to_offset, length)
    }

    /// Lets an empty file have the content of another by reference; false if it cannot.
    fn refer(&self, from: &OpenFile, to: &OpenFile, size: u64) -> Result<bool> {
        if Arc::ptr_eq(&from.inode, &to.inode)
            || from.inode.state.lock().dirty
            || to.inode.size() != 0
        {
            return Ok(false);
        }
        let Some((data, content)) = self.content_of(from.inode.ino, size)? else {
            return Ok(false);
        };
        let mut bytes = to.inode.bytes.write();
        if to.inode.size() != 0 {
            return Ok(false);
        }
        let ino = to.inode.ino;
        let number = match &*bytes {
            Bytes::Backing { number, .. } if *number != 0 => Some(*number),
            _ => None,
        };
        self.give_snapshot_a_copy(ino, number)?;
        let staged = matches!(data, Data::Staged { .. });
        self.change(|txn| set_content(txn, ino, data, size))?;
        if staged {
            // it was empty, whatever it was
            self.usage.came((0, size));
        }
        self.feed.cancel(ino);
        let emptied = std::mem::replace(&mut *bytes, Bytes::Objects(content));
        if let Bytes::Backing { number, .. } = emptied {
            self.feed.remove_later(number);
        }
        let mut state = to.inode.state.lock();
        state.dirty = false;
        state.mtime_set = false;
        state.syncs = Syncs::default();
        state.size = size;
        self.touched(&mut state);
        Ok(true)
    }

    /// The objects that hold an inode's content, if they do. They stay for as long as that is open.
    fn content_of(&self, ino: Ino, size: u64) -> Result<Option<(Data, Arc<ContentFile>)>> {
        let tree = self.tree.read();
        let Some(data) = referable(&tree, ino)? else {
            return Ok(None);
        };
        let regular = data
            .regular(size)
            .ok_or(FsError::Invalid("a file without content"))?;
        let content = match &data {
            Data::Published(_) => self.content.open(&regular)?,
            Data::Staged { .. } => self.open_sealed(&tree, &regular)?,
        };
        Ok(Some((data, content)))
    }

    fn copy_bytes(
        &self,
        from: &OpenInode,
        from_offset: u64,
        to: &OpenInode,
        to_offset: u64,
        length: u64,
    ) -> Result<u64> {
        let length = length.min(COPY_STEP_BYTES);
        self.claim(length)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut done = 0;
        while done < length {
            let want = buffer
                .len()
                .min(usize::try_from(length - done).unwrap_or(COPY_BUFFER_BYTES));
            // one after the other: both may be the same file
            let got = self.read_inode(from, from_offset + done, &mut buffer[..want])?;
            if got == 0 {
                break;
            }
            let target = self.writable(to, u64::MAX)?;
            match self.put(&target, &buffer[..got], to_offset + done) {
                Ok(put) => {
                    done += put as u64;
                    self.wrote(&mut to.state.lock(), to_offset + done);
                    if put < got {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// What another file may have as its content, to be read from objects.
fn referable(tree: &Tree, ino: Ino) -> Result<Option<Data>> {
    if let Some(node) = tree.node(ino) {
        let Some(file) = node.rec.file() else {
            return Ok(None);
        };
        return Ok(match &file.data {
            Data::Published(_) => Some(file.data.clone()),
            Data::Staged {
                backing,
                sealed: Some(sealed),
            } => {
                // of one that lost its names only the raw bytes are kept, if there are any
                let kept = *backing == 0 || !node.names.is_empty();
                (kept && !file.raw.is_doubtful()).then(|| Data::Staged {
                    backing: 0,
                    sealed: Some(sealed.clone()),
                })
            }
            Data::Staged { .. } => None,
        });
    }
    let row = tree.row_of(ino)?;
    Ok(row.entry.regular().map(|regular| {
        Data::Published(Box::new(formats::Regular {
            link_group: 0,
            ..regular.clone()
        }))
    }))
}

fn set_content(txn: &mut Txn<'_>, ino: Ino, data: Data, size: u64) -> Result<()> {
    require_changeable(txn.tree, ino)?;
    txn.stage(ino)?;
    let now = txn.now;
    let rec = txn.record(ino)?;
    rec.mtime = crate::tree::mtime_of(now);
    rec.ctime = now;
    let file = rec
        .file_mut()
        .ok_or(FsError::Invalid("not a regular file"))?;
    if matches!(data, Data::Published(_)) {
        // nothing of it can be lost
        file.former = None;
    }
    file.size = size;
    file.data = data;
    file.mtime_of_backing = false;
    file.raw = Raw::Unsynced;
    if let Some(node) = txn.tree.nodes.get_mut(&ino) {
        node.run.generation = node.run.generation.wrapping_add(1);
        node.run.seal_error = None;
    }
    Ok(())
}
