//! Writing: the first byte moves a file onto a backing file of its own, all others just go there.
//!
//! [`Stage::writable`] hands out the backing file. Before its first change since the file was last
//! sealed, published or opened, the journal is told that the backing file now holds the truth; later
//! writes tell nobody. A file that a snapshot still needs unsealed gives the snapshot a copy first.

use std::fs::File as RawFile;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::attr::without_privileges;
use super::require_changeable;
use crate::error::{FsError, Result};
use crate::handle::{Bytes, OpenInode, OpenState};
use crate::stage::Stage;
use crate::sync::{RwLockReadGuard, RwLockWriteGuard};
use crate::tree::{Data, File, Raw, Txn};
use crate::types::{Caller, Handle, Ino};

/// Largest file: what `off_t` can say.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Bytes copied at a time when published content moves to a backing file.
const COPY_BYTES: usize = 1 << 20;

/// A backing file, ready to be changed; published bytes cannot come back while it is held.
pub(crate) struct Writable<'a> {
    guard: RwLockReadGuard<'a, Bytes>,
}

impl Writable<'_> {
    pub(crate) fn file(&self) -> Result<&RawFile> {
        match &*self.guard {
            Bytes::Backing {
                file: Some(file), ..
            } => Ok(file),
            _ => Err(FsError::BadHandle),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        match &*self.guard {
            Bytes::Backing { number, .. } => *number,
            Bytes::Objects(_) => 0,
        }
    }
}

impl Stage {
    pub(crate) fn write(
        &self,
        caller: &Caller,
        handle: Handle,
        offset: u64,
        data: &[u8],
    ) -> Result<usize> {
        let open = self.open.file(handle)?;
        if !open.flags.write {
            return Err(FsError::BadHandle);
        }
        if data.is_empty() {
            return Ok(0);
        }
        let length = data.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > MAX_SIZE) {
            return Err(FsError::TooBig);
        }
        let inode = &open.inode;
        let size = inode.size();
        let begin = if open.flags.append { size } else { offset };
        self.allow_size(inode.ino, size, begin + length)?;
        self.claim(length)?;
        self.drop_privileges(caller, inode)?;
        let target = self.writable(inode, u64::MAX)?;
        if open.flags.append {
            // appenders must not share an offset
            let mut state = inode.state.lock();
            let end = state.size;
            self.enforce_size(end + length)?;
            let done = self.put(&target, data, end)?;
            self.wrote(&mut state, end + done as u64);
            Ok(done)
        } else {
            let done = self.put(&target, data, offset)?;
            self.wrote(&mut inode.state.lock(), offset + done as u64);
            Ok(done)
        }
    }

    /// Writes as much as can be; less than all of it where the disk is full in the middle.
    pub(crate) fn put(&self, target: &Writable<'_>, data: &[u8], offset: u64) -> Result<usize> {
        let file = target.file()?;
        let mut done = 0;
        while done < data.len() {
            match file.write_at(&data[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::StorageFull {
                        self.space.was_full();
                    }
                    if done == 0 {
                        return Err(self.backing.failed(target.number(), error));
                    }
                    // what is in the file is what its size must say
                    break;
                }
            }
        }
        Ok(done)
    }

    /// The file was changed up to `end`.
    pub(crate) fn wrote(&self, state: &mut OpenState, end: u64) {
        if end > state.size {
            self.usage.resized(state.size, end);
            state.size = end;
        }
        self.touched(state);
    }

    /// The file was changed.
    pub(crate) fn touched(&self, state: &mut OpenState) {
        state.syncs.version += 1;
        state.mtime = (self.clock)();
        state.ctime = state.mtime;
    }

    /// Space for `bytes` more.
    pub(crate) fn claim(&self, bytes: u64) -> Result<()> {
        if let Some(quota) = self.quota_bytes()
            && self.usage.staged().saturating_add(bytes) > quota
        {
            return Err(FsError::Quota);
        }
        self.claim_room(bytes)
    }

    /// Space for `bytes` of a file that is staged already.
    pub(crate) fn claim_room(&self, bytes: u64) -> Result<()> {
        let room = self.space.claim(bytes);
        room.inspect_err(|_| self.feed.remove_now())
    }

    /// A write by an ordinary user takes the set-ID bits. The kernel sees to later writes.
    fn drop_privileges(&self, caller: &Caller, inode: &OpenInode) -> Result<()> {
        if caller.uid == 0 || inode.state.lock().dirty {
            return Ok(());
        }
        let perm = {
            let tree = self.tree.read();
            self.attr_of(&tree, inode.ino)?.perm
        };
        let kept = without_privileges(perm);
        if kept == perm {
            return Ok(());
        }
        self.change(|txn| {
            txn.stage(inode.ino)?;
            txn.record(inode.ino)?.perm = kept;
            Ok(())
        })
    }

    /// The backing file of an open inode, for a change. Its first `keep` bytes are those the file
    /// had.
    pub(crate) fn writable<'a>(&self, inode: &'a OpenInode, keep: u64) -> Result<Writable<'a>> {
        {
            let guard = inode.bytes.read();
            let made = matches!(&*guard, Bytes::Backing { file: Some(_), .. });
            if made && inode.state.lock().is_told() {
                return Ok(Writable { guard });
            }
        }
        let mut bytes = inode.bytes.write();
        self.make_writable(inode, &mut bytes, keep)?;
        let guard = RwLockWriteGuard::downgrade(bytes);
        Ok(Writable { guard })
    }

    fn make_writable(&self, inode: &OpenInode, bytes: &mut Bytes, keep: u64) -> Result<()> {
        while !self.try_writable(inode, bytes, keep)? {}
        Ok(())
    }

    /// False if a commit has just published the file: its backing file goes, and it takes another.
    fn try_writable(&self, inode: &OpenInode, bytes: &mut Bytes, keep: u64) -> Result<bool> {
        let ino = inode.ino;
        let staged = {
            let tree = self.tree.read();
            require_changeable(&tree, ino)?;
            let file = tree.node(ino).and_then(|node| node.rec.file());
            file.and_then(File::staged)
        };
        let owned = staged
            .map(|(number, _)| number)
            .filter(|number| *number != 0);
        self.give_snapshot_a_copy(ino, owned)?;
        let (number, file) = match &*bytes {
            Bytes::Backing { number, file } if owned == Some(*number) => {
                let file = match file {
                    Some(file) => Arc::clone(file),
                    None => Arc::new(self.backing.create(*number)?),
                };
                (*number, file)
            }
            other => {
                let length = inode.size().min(keep);
                match staged {
                    Some(_) => self.claim_room(length)?,
                    None => self.claim(length)?,
                }
                let (number, file) = self.copy_up(other, length)?;
                (number, Arc::new(file))
            }
        };
        let fresh = owned != Some(number);
        let told = self.tell_dirty(inode, number, fresh, keep);
        if told.is_err() && fresh {
            // what the journal was told may have reached it all the same
            self.feed.remove_later(number);
        }
        if told? {
            *bytes = Bytes::Backing {
                number,
                file: Some(file),
            };
            return Ok(true);
        }
        Ok(false)
    }

    /// Records that the backing file holds the truth from now on. Where the journal vouched for its
    /// bytes, taking that back survives power loss before they change. False if it is not the file's
    /// any more.
    fn tell_dirty(&self, inode: &OpenInode, number: u64, fresh: bool, keep: u64) -> Result<bool> {
        if !fresh && inode.state.lock().is_told() {
            return Ok(true);
        }
        let marked = self.change(|txn| {
            let file = txn.tree.node(inode.ino).and_then(|node| node.rec.file());
            if !fresh && file.and_then(|file| file.data.backing()) != Some(number) {
                return Ok(None);
            }
            mark_dirty(txn, inode.ino, number, keep).map(Some)
        })?;
        let Some(was) = marked else {
            return Ok(false);
        };
        self.feed.cancel(inode.ino);
        let vouched = {
            let mut state = inode.state.lock();
            if !state.dirty {
                state.dirty = true;
                state.size = was.size.min(keep);
                self.usage.came((number, state.size));
                if let Some(before) = was.staged {
                    self.usage.went(before);
                }
            }
            state.mtime_set = false;
            let vouched = !fresh && (state.syncs.vouched || was.vouched);
            state.syncs.taken_back();
            state.syncs.vouched = vouched;
            state.syncs.named &= !fresh;
            self.touched(&mut state);
            state.syncs.vouched
        };
        if vouched {
            // should that fail, the next change has to do it
            self.sync_journal()?;
            inode.state.lock().syncs.vouched = false;
        }
        Ok(true)
    }

    /// A new backing file with the first `length` bytes of what there is.
    fn copy_up(&self, from: &Bytes, length: u64) -> Result<(u64, RawFile)> {
        match from {
            Bytes::Backing {
                file: Some(file), ..
            } => self.backing.copy(file, length),
            _ => {
                let number = self.backing.fresh();
                let to = self.backing.create(number)?;
                match self.copy_content(from, &to, number, length) {
                    Ok(()) => Ok((number, to)),
                    Err(error) => {
                        self.backing.remove(number);
                        Err(error)
                    }
                }
            }
        }
    }

    fn copy_content(&self, from: &Bytes, to: &RawFile, number: u64, length: u64) -> Result<()> {
        let chunk = usize::try_from(length).map_or(COPY_BYTES, |n| n.min(COPY_BYTES));
        let mut buffer = vec![0; chunk];
        let mut at = 0;
        while at < length {
            let want = buffer
                .len()
                .min(usize::try_from(length - at).unwrap_or(COPY_BYTES));
            let got = from
                .read_at(&mut buffer[..want], at)
                .map_err(|error| self.read_error(error))?;
            if got == 0 {
                break;
            }
            to.write_all_at(&buffer[..got], at)
                .map_err(|error| self.backing.failed(number, error))?;
            at += got as u64;
        }
        Ok(())
    }

    /// Cuts or extends a file that may not be open.
    pub(crate) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        if size > MAX_SIZE {
            return Err(FsError::TooBig);
        }
        let inode = self.acquire(ino)?;
        // counts as a writer, so that a snapshot waits for us
        inode.state.lock().writers.push((0, 0));
        let done = self.cut(&inode, size);
        let last = {
            let mut state = inode.state.lock();
            let ours = state.writers.iter().position(|(number, _)| *number == 0);
            if let Some(at) = ours {
                state.writers.swap_remove(at);
            }
            state.writers.is_empty()
        };
        if last {
            self.settle(&inode);
        }
        self.open.tell_closed();
        self.let_go(&inode);
        done
    }

    /// Cuts or extends an open file.
    pub(crate) fn cut(&self, inode: &OpenInode, size: u64) -> Result<()> {
        let before = inode.size();
        self.allow_size(inode.ino, before, size)?;
        self.claim(size.saturating_sub(before).min(1))?;
        let target = self.writable(inode, size)?;
        target
            .file()?
            .set_len(size)
            .map_err(|error| self.backing.failed(target.number(), error))?;
        {
            let mut state = inode.state.lock();
            self.usage.resized(state.size, size);
            state.size = size;
            self.touched(&mut state);
        }
        match size {
            0 => self.doubt_no_more(inode.ino),
            _ => Ok(()),
        }
    }

    /// All that was in doubt is gone from a file that is open for writing.
    fn doubt_no_more(&self, ino: Ino) -> Result<()> {
        let doubtful = {
            let tree = self.tree.read();
            tree.node(ino).is_some_and(|node| node.rec.is_doubtful())
        };
        if !doubtful {
            return Ok(());
        }
        self.change(|txn| {
            if let Some(file) = txn.record(ino)?.file_mut() {
                file.raw = Raw::Unsynced;
            }
            Ok(())
        })
    }
}

/// A file before it was changed.
struct Before {
    size: u64,
    /// What of it was staged.
    staged: Option<(u64, u64)>,
    /// Its bytes were vouched for.
    vouched: bool,
}

/// Points an inode to its backing file.
fn mark_dirty(txn: &mut Txn<'_>, ino: Ino, number: u64, keep: u64) -> Result<Before> {
    txn.stage(ino)?;
    let rec = txn.record(ino)?;
    let mtime = rec.mtime;
    let Some(file) = rec.file_mut() else {
        return Err(FsError::Invalid("not a regular file"));
    };
    let before = Before {
        size: file.size,
        staged: file.staged(),
        vouched: file.raw == Raw::Synced,
    };
    let was_doubtful = file.raw.is_doubtful();
    file.former = file.to_revert_to(mtime);
    file.data = Data::Staged {
        backing: number,
        sealed: None,
    };
    file.mtime_of_backing = true;
    // only bytes that are all gone are in doubt no more
    let still = was_doubtful && keep > 0;
    file.raw = if still { Raw::Doubtful } else { Raw::Unsynced };
    if let Some(node) = txn.tree.nodes.get_mut(&ino) {
        node.run.generation = node.run.generation.wrapping_add(1);
        node.run.seal_error = None;
        node.run.keep_raw = false;
    }
    Ok(before)
}
