//! Open files: who has them open, where their bytes are, and what is not in the tree yet.
//!
//! All handles of an inode share one [`OpenInode`], so that each sees what the others write. While a
//! file is being written its size and time are here; they go into the tree when the last writer is
//! gone. Locks are taken in this order: [`OpenInode::bytes`], the tree, the table, then
//! [`OpenInode::state`]. Nothing here changes the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use store::ContentFile;

use crate::error::{FsError, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Instant, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use crate::tree::InoMap;
use crate::types::{Handle, Ino, OpenFlags, Time};

/// Handles that may be open in one repository.
const MAX_HANDLES: usize = 1 << 20;

/// Where an open file's bytes are.
pub(crate) enum Bytes {
    /// In objects.
    Objects(Arc<ContentFile>),
    /// In a backing file, which appears with the first byte.
    Backing {
        number: u64,
        file: Option<Arc<File>>,
    },
}

impl Bytes {
    /// Reads at `offset`; short only at the end.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
        match self {
            Self::Objects(content) => Ok(content.read_at(buffer, offset)?),
            Self::Backing { file: None, .. } => Ok(0),
            Self::Backing {
                file: Some(file),
                number,
            } => read_full(file, buffer, offset).map_err(|e| ReadError::Backing(*number, e)),
        }
    }
}

/// Why bytes could not be read.
pub(crate) enum ReadError {
    Content(store::ContentError),
    Backing(u64, io::Error),
}

impl From<store::ContentError> for ReadError {
    fn from(error: store::ContentError) -> Self {
        Self::Content(error)
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// An inode that is open.
pub(crate) struct OpenInode {
    pub(crate) ino: Ino,
    pub(crate) bytes: RwLock<Bytes>,
    pub(crate) state: Mutex<OpenState>,
}

/// What changes with every write.
#[derive(Default)]
pub(crate) struct OpenState {
    /// Handles open for writing, and by which process.
    pub(crate) writers: Vec<(u64, u32)>,
    /// Written to since the tree last heard of it: size and times are those here.
    pub(crate) dirty: bool,
    /// The modification time was set since, and is no longer the last write's.
    pub(crate) mtime_set: bool,
    pub(crate) size: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) syncs: Syncs,
}

/// What of an open file would survive a power loss.
#[derive(Default)]
pub(crate) struct Syncs {
    /// Counts changes of the bytes.
    pub(crate) version: u64,
    /// The version that was synced last.
    pub(crate) synced: Option<u64>,
    /// The journal vouches for the bytes as they are: it must take that back before they change.
    pub(crate) vouched: bool,
    /// It was made to take it back once: a log or a database, which is not vouched for again before
    /// it is closed, for that would cost a sync at each turn.
    pub(crate) is_log: bool,
    /// A writer came since it was vouched for or written to: of this one nobody knows how it writes.
    pub(crate) is_anew: bool,
    /// The backing file's name was synced.
    pub(crate) named: bool,
}

impl Syncs {
    /// The journal does not vouch for the bytes any more, and they are about to change.
    pub(crate) fn taken_back(&mut self) {
        // what was vouched for for another writer says nothing of this one
        self.is_log |= self.vouched && !self.is_anew;
        (self.vouched, self.is_anew) = (false, false);
    }
}

impl OpenState {
    /// The journal knows that the bytes are about to change.
    pub(crate) fn is_told(&self) -> bool {
        self.dirty && !self.mtime_set && !self.syncs.vouched
    }
}

impl OpenInode {
    /// The size that readers see.
    pub(crate) fn size(&self) -> u64 {
        self.state.lock().size
    }
}

/// An open file.
pub(crate) struct OpenFile {
    pub(crate) inode: Arc<OpenInode>,
    pub(crate) flags: OpenFlags,
}

/// An entry of a listing: a name, and what was published there when the listing was made.
pub(crate) struct Listed {
    pub(crate) cursor: u64,
    pub(crate) name: formats::Name,
    /// Position in the published listing.
    pub(crate) lower: Option<u32>,
}

/// A directory's names at one moment, by cursor.
pub(crate) struct Listing {
    pub(crate) items: Vec<Listed>,
    pub(crate) rows: Arc<Vec<formats::Row>>,
}

/// An open directory.
pub(crate) struct OpenDir {
    pub(crate) ino: Ino,
    pub(crate) listing: Mutex<Option<Arc<Listing>>>,
}

/// All that is open in a repository.
#[derive(Default)]
pub(crate) struct OpenTable {
    next: AtomicU64,
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    dirs: RwLock<HashMap<u64, Arc<OpenDir>>>,
    inodes: Mutex<InoMap<(Arc<OpenInode>, u32)>>,
    /// Read by whoever makes a file that is open from its beginning; taken before the tree's lock.
    making: RwLock<()>,
    closes: Mutex<Closes>,
    closed: Condvar,
    looked: Condvar,
}

/// Writers that are gone, and who waits for that.
#[derive(Default)]
struct Closes {
    /// How many are gone since the start.
    count: u64,
    /// A snapshot waits; this many were gone when it last looked whether a file is open.
    looked: Option<u64>,
}

/// A snapshot that waits for writers to go. Whoever is about to open a file for writing lets it look
/// after each that went, so that it misses no moment at which no file is open.
pub(crate) struct Waiting<'t>(&'t OpenTable);

impl Waiting<'_> {
    /// How many writers are gone since the start.
    pub(crate) fn gone(&self) -> u64 {
        self.0.closes.lock().count
    }

    /// Files were open after `seen` writers had gone: waits until one more is gone; false if that
    /// takes beyond `deadline`.
    pub(crate) fn for_another(&self, seen: u64, deadline: Instant) -> bool {
        let mut closes = self.0.closes.lock();
        closes.looked = Some(seen);
        self.0.looked.notify_all();
        while closes.count == seen {
            if self.0.closed.wait_until(&mut closes, deadline).timed_out() {
                return closes.count != seen;
            }
        }
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.closes.lock().looked = None;
        self.0.looked.notify_all();
    }
}

impl OpenTable {
    /// Held by whoever makes a file and opens it: a snapshot sees it open, or not at all.
    pub(crate) fn making(&self) -> RwLockReadGuard<'_, ()> {
        self.making.read()
    }

    /// As long as this is held, every file that was made to be open is.
    pub(crate) fn none_half_made(&self) -> RwLockWriteGuard<'_, ()> {
        self.making.write()
    }

    fn fresh(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 2
    }

    /// The open inode, made if nobody has it open; one user more.
    pub(crate) fn acquire(
        &self,
        ino: Ino,
        make: impl FnOnce() -> Result<OpenInode>,
    ) -> Result<Arc<OpenInode>> {
        let mut inodes = self.inodes.lock();
        if let Some((inode, users)) = inodes.get_mut(&ino) {
            *users += 1;
            return Ok(Arc::clone(inode));
        }
        let inode = Arc::new(make()?);
        inodes.insert(ino, (Arc::clone(&inode), 1));
        Ok(inode)
    }

    /// One user fewer; true if it was the last.
    pub(crate) fn give_back(&self, inode: &Arc<OpenInode>) -> bool {
        let mut inodes = self.inodes.lock();
        let Some((held, users)) = inodes.get_mut(&inode.ino) else {
            return true;
        };
        if !Arc::ptr_eq(held, inode) {
            return false;
        }
        *users -= 1;
        let last = *users == 0;
        if last {
            inodes.remove(&inode.ino);
        }
        last
    }

    /// Gives a handle to a user of an open inode.
    pub(crate) fn add_file(
        &self,
        inode: Arc<OpenInode>,
        flags: OpenFlags,
        pid: u32,
    ) -> Result<Handle> {
        let mut files = self.files.write();
        if files.len() >= MAX_HANDLES {
            return Err(FsError::TooManyOpen);
        }
        let number = self.fresh();
        if flags.write {
            let mut state = inode.state.lock();
            state.writers.push((number, pid));
            (state.syncs.is_log, state.syncs.is_anew) = (false, true);
        }
        files.insert(number, Arc::new(OpenFile { inode, flags }));
        Ok(Handle(number))
    }

    pub(crate) fn file(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let files = self.files.read();
        files.get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }

    pub(crate) fn remove_file(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let mut files = self.files.write();
        files.remove(&handle.0).ok_or(FsError::BadHandle)
    }

    pub(crate) fn add_dir(&self, ino: Ino) -> Result<Handle> {
        let mut dirs = self.dirs.write();
        if dirs.len() >= MAX_HANDLES {
            return Err(FsError::TooManyOpen);
        }
        let number = self.fresh();
        let listing = Mutex::new(None);
        dirs.insert(number, Arc::new(OpenDir { ino, listing }));
        Ok(Handle(number))
    }

    pub(crate) fn dir(&self, handle: Handle) -> Result<Arc<OpenDir>> {
        let dirs = self.dirs.read();
        dirs.get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }

    pub(crate) fn remove_dir(&self, handle: Handle) -> Result<Arc<OpenDir>> {
        let mut dirs = self.dirs.write();
        dirs.remove(&handle.0).ok_or(FsError::BadHandle)
    }

    /// The open inode of this number.
    pub(crate) fn inode(&self, ino: Ino) -> Option<Arc<OpenInode>> {
        let inodes = self.inodes.lock();
        inodes.get(&ino).map(|(inode, _)| Arc::clone(inode))
    }

    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.inodes.lock().contains_key(&ino)
    }

    /// Every open inode.
    pub(crate) fn all(&self) -> Vec<Arc<OpenInode>> {
        let inodes = self.inodes.lock();
        inodes
            .values()
            .map(|(inode, _)| Arc::clone(inode))
            .collect()
    }

    /// A writer is gone.
    pub(crate) fn tell_closed(&self) {
        self.closes.lock().count += 1;
        self.closed.notify_all();
    }

    /// A snapshot begins to wait. There is one at a time.
    pub(crate) fn wait_for_writers(&self) -> Waiting<'_> {
        Waiting(self)
    }

    /// Before a file is opened for writing, with no lock held: a snapshot that waits has looked since
    /// the last writer went.
    pub(crate) fn let_look(&self) {
        let mut closes = self.closes.lock();
        while closes.looked.is_some_and(|count| count != closes.count) {
            self.looked.wait(&mut closes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However soon a file is opened after another was closed: the snapshot that waits looks first.
    #[test]
    fn a_snapshot_looks_between_a_close_and_the_next_open() {
        let far = Instant::now() + std::time::Duration::from_secs(20);
        let (table, events) = (OpenTable::default(), Mutex::new(Vec::new()));
        let waiting = table.wait_for_writers();
        let seen = waiting.gone();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while table.closes.lock().looked.is_none() {
                    std::thread::yield_now();
                }
                for _ in 0..3 {
                    table.tell_closed();
                    table.let_look();
                    events.lock().push("opened");
                }
            });
            let mut seen = seen;
            for _ in 0..3 {
                assert!(waiting.for_another(seen, far));
                seen = waiting.gone();
                // nobody opens a file meanwhile, however long this takes
                for _ in 0..1000 {
                    std::thread::yield_now();
                }
                events.lock().push("looked");
            }
            drop(waiting);
        });
        assert_eq!(events.into_inner(), ["looked", "opened"].repeat(3));
    }
}
