//! Opening, reading, closing.

use std::sync::Arc;

use crate::error::{FsError, Result};
use crate::handle::{Bytes, OpenInode, OpenState, ReadError};
use crate::stage::Stage;
use crate::sync::{Mutex, RwLock};
use crate::tree::{Body, Data, File, Tree, mtime_of, time_of};
use crate::types::{Attr, Caller, Handle, Ino, OpenFlags};

impl Stage {
    pub(crate) fn open_file(&self, caller: &Caller, ino: Ino, flags: OpenFlags) -> Result<Handle> {
        if flags.write {
            self.open.let_look();
        }
        let inode = self.acquire(ino)?;
        let handle = match self.open.add_file(Arc::clone(&inode), flags, caller.pid) {
            Ok(handle) => handle,
            Err(error) => {
                self.let_go(&inode);
                return Err(error);
            }
        };
        if flags.truncate && flags.write {
            let cut = {
                let tree = self.tree.read();
                super::require_changeable(&tree, ino)
            };
            if let Err(error) = cut.and_then(|()| self.cut(&inode, 0)) {
                drop(self.release(handle));
                return Err(error);
            }
        }
        Ok(handle)
    }

    /// Opens the file that was just made.
    pub(crate) fn open_new(
        &self,
        caller: &Caller,
        attr: &Attr,
        number: u64,
        flags: OpenFlags,
    ) -> Result<Handle> {
        let inode = self.open.acquire(attr.ino, || {
            Ok(OpenInode {
                ino: attr.ino,
                bytes: RwLock::new(Bytes::Backing { number, file: None }),
                state: Mutex::new(OpenState {
                    // whoever writes first need not tell the journal: it knows the backing file
                    dirty: flags.write,
                    size: 0,
                    mtime: attr.mtime,
                    ctime: attr.ctime,
                    ..OpenState::default()
                }),
            })
        })?;
        if !flags.write {
            self.queue_seal(attr.ino);
        }
        self.open
            .add_file(Arc::clone(&inode), flags, caller.pid)
            .inspect_err(|_| {
                self.settle(&inode);
                self.let_go(&inode);
                self.forget(attr.ino, 1);
            })
    }

    /// The open inode, one user more.
    pub(crate) fn acquire(&self, ino: Ino) -> Result<Arc<OpenInode>> {
        self.warm_inode(ino)?;
        let tree = self.tree.read();
        self.open.acquire(ino, || self.open_inode(&tree, ino))
    }

    fn open_inode(&self, tree: &Tree, ino: Ino) -> Result<OpenInode> {
        let state = |size, mtime, ctime| {
            Mutex::new(OpenState {
                size,
                mtime,
                ctime,
                ..OpenState::default()
            })
        };
        if let Some(node) = tree.node(ino) {
            let Body::File(file) = &node.rec.body else {
                return Err(not_a_file(node.rec.dir().is_some()));
            };
            return Ok(OpenInode {
                ino,
                bytes: RwLock::new(self.bytes_of(tree, file)?),
                state: state(file.size, time_of(node.rec.mtime), node.rec.ctime),
            });
        }
        let row = tree.row_of(ino)?;
        let Some(regular) = row.entry.regular() else {
            return Err(not_a_file(row.entry.is_dir()));
        };
        let mtime = time_of(row.entry.mtime);
        Ok(OpenInode {
            ino,
            bytes: RwLock::new(Bytes::Objects(self.content.open(regular)?)),
            state: state(regular.size, mtime, mtime),
        })
    }

    fn bytes_of(&self, tree: &Tree, file: &File) -> Result<Bytes> {
        match &file.data {
            Data::Published(regular) => Ok(Bytes::Objects(self.content.open(regular)?)),
            Data::Staged {
                backing: 0,
                sealed: Some(_),
            } => {
                let regular = file.data.regular(file.size);
                let regular = regular.ok_or(FsError::Invalid("a file without content"))?;
                Ok(Bytes::Objects(self.open_sealed(tree, &regular)?))
            }
            Data::Staged { backing: 0, .. } => Ok(Bytes::Backing {
                number: 0,
                file: None,
            }),
            Data::Staged { backing, .. } => {
                let number = *backing;
                let file = match self.backing.stat(number)? {
                    Some(_) => Some(Arc::new(self.backing.create(number)?)),
                    None => None,
                };
                Ok(Bytes::Backing { number, file })
            }
        }
    }

    pub(crate) fn read(&self, handle: Handle, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.open.file(handle)?;
        if !open.flags.read && !open.flags.write {
            return Err(FsError::BadHandle);
        }
        self.read_inode(&open.inode, offset, buffer)
    }

    pub(crate) fn read_inode(
        &self,
        inode: &OpenInode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        let bytes = inode.bytes.read();
        bytes
            .read_at(buffer, offset)
            .map_err(|error| self.read_error(error))
    }

    pub(crate) fn read_error(&self, error: ReadError) -> FsError {
        match error {
            ReadError::Content(error) => error.into(),
            ReadError::Backing(number, error) => self.backing.failed(number, error),
        }
    }

    pub(crate) fn reads_at_once(&self, handle: Handle) -> bool {
        let Ok(open) = self.open.file(handle) else {
            return true;
        };
        let bytes = open.inode.bytes.try_read();
        matches!(bytes.as_deref(), Some(Bytes::Backing { .. }))
    }

    pub(crate) fn flush(&self, handle: Handle) -> Result<()> {
        self.open.file(handle).map(|_| ())
    }

    pub(crate) fn release(&self, handle: Handle) -> Result<()> {
        let open = self.open.remove_file(handle)?;
        if open.flags.write {
            let last = {
                let mut state = open.inode.state.lock();
                state.writers.retain(|(number, _)| *number != handle.0);
                state.writers.is_empty()
            };
            if last {
                self.settle(&open.inode);
            }
            self.open.tell_closed();
        }
        self.let_go(&open.inode);
        Ok(())
    }

    pub(crate) fn let_go(&self, inode: &Arc<OpenInode>) {
        if self.open.give_back(inode) {
            if matches!(&*inode.bytes.read(), Bytes::Backing { file: Some(_), .. }) {
                self.raw_was_closed();
            }
            self.closed(inode.ino);
        }
    }

    /// What is written goes into the tree and is queued for sealing, if no writer is left.
    pub(crate) fn settle(&self, inode: &OpenInode) {
        let ino = inode.ino;
        let settled = {
            let mut tree = self.tree.write();
            let mut state = inode.state.lock();
            if !state.writers.is_empty() || !state.dirty {
                return;
            }
            state.dirty = false;
            match tree.nodes.get_mut(&ino) {
                Some(node) => {
                    node.rec.ctime = node.rec.ctime.max(state.ctime);
                    if !state.mtime_set {
                        node.rec.mtime = mtime_of(state.mtime);
                    }
                    let mut written = None;
                    if let Some(file) = node.rec.file_mut() {
                        file.size = state.size;
                        // until it is sealed, the time is recorded there and nowhere else
                        if file.mtime_of_backing {
                            written = file.data.backing().map(|number| (number, state.mtime));
                        }
                    }
                    self.vouch_at_last(ino, node, &mut state);
                    (!node.names.is_empty(), written)
                }
                None => (false, None),
            }
        };
        if let (_, Some((number, mtime))) = settled {
            self.backing.set_mtime(number, mtime);
        }
        if settled.0 {
            self.queue_seal(ino);
        }
    }
}

fn not_a_file(is_dir: bool) -> FsError {
    if is_dir {
        FsError::IsDirectory
    } else {
        FsError::Invalid("not a regular file")
    }
}
