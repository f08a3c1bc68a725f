//! What `stat` says of an inode, as far as the tree knows: an open file may know better.

use formats::Row;

use super::{Body, Node, Tree, Unpublished, group_of, rdev_of, time_of, type_of};
use crate::error::{FsError, Result};
use crate::sync::atomic::Ordering;
use crate::types::{Attr, FileType, Ino};

/// The `st_size` of every directory.
const DIRECTORY_BYTES: u64 = 4096;

impl Tree {
    /// The attributes of an inode.
    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr> {
        if let Some(node) = self.node(ino) {
            return self.staged_attr(ino, node);
        }
        let lower = self.lower.get(&ino).ok_or(FsError::Stale(ino.0))?;
        let mut attr = lower_attr(ino, &*self.row_of(ino)?, lower.unpublished.as_deref());
        if lower.detached.is_some() {
            attr.nlink = 0;
        }
        Ok(attr)
    }

    fn staged_attr(&self, ino: Ino, node: &Node) -> Result<Attr> {
        let rec = &node.rec;
        let names = u32::try_from(node.names.len()).unwrap_or(u32::MAX);
        let (size, nlink, rdev) = match &rec.body {
            Body::Directory(_) => (DIRECTORY_BYTES, self.dir_links(ino, node)?, 0),
            Body::File(file) => (file.size, names, 0),
            Body::Symlink(target) => (target.len() as u64, names, 0),
            Body::CharDevice(rdev) | Body::BlockDevice(rdev) => (0, names, *rdev),
            Body::Fifo | Body::Socket => (0, names, 0),
        };
        Ok(Attr {
            ino,
            kind: rec.file_type(),
            perm: rec.perm,
            nlink,
            uid: rec.uid,
            gid: rec.gid,
            rdev,
            size,
            blocks: blocks(rec.file_type(), size),
            atime: rec.atime.unwrap_or_else(|| time_of(rec.mtime)),
            mtime: time_of(rec.mtime),
            ctime: rec.ctime,
        })
    }

    fn dir_links(&self, ino: Ino, node: &Node) -> Result<u32> {
        if ino != Ino::ROOT && node.names.is_empty() {
            return Ok(0);
        }
        let mut below = node.run.lower_links.load(Ordering::Relaxed);
        if below == 0 {
            below = match self.origin(ino) {
                Some((rev, path)) => {
                    let row = self.revisions.find(rev, &path)?;
                    row.map_or(2, |row| row.linkcount.max(2))
                }
                None => 2,
            };
            node.run.lower_links.store(below, Ordering::Relaxed);
        }
        let more = node.rec.dir().map_or(0, |dir| dir.subdirs);
        Ok(below.saturating_add_signed(more).max(2))
    }
}

/// The attributes of a published row, with what its inode has beyond that.
pub(crate) fn lower_attr(ino: Ino, row: &Row, more: Option<&Unpublished>) -> Attr {
    let entry = &row.entry;
    let kind = type_of(entry);
    let is_dir = kind == FileType::Directory;
    let size = if is_dir {
        DIRECTORY_BYTES
    } else {
        entry.size()
    };
    let nlink = if is_dir {
        row.linkcount.max(2)
    } else if group_of(row) != 0 {
        row.linkcount
    } else {
        1
    };
    let mtime = time_of(entry.mtime);
    Attr {
        ino,
        kind,
        perm: entry.perm,
        nlink,
        uid: entry.uid,
        gid: entry.gid,
        rdev: rdev_of(entry),
        size,
        blocks: blocks(kind, size),
        atime: more.and_then(|more| more.atime).unwrap_or(mtime),
        mtime,
        ctime: more.map_or(mtime, |more| more.ctime.max(mtime)),
    }
}

/// The 512-byte blocks that `size` bytes take.
pub(crate) fn blocks(kind: FileType, size: u64) -> u64 {
    match kind {
        FileType::Directory => DIRECTORY_BYTES / 512,
        FileType::Regular => size.div_ceil(512),
        _ => 0,
    }
}
