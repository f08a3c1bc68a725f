//! Attributes.

use super::{require_changeable, xattr};
use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::tree::{Body, Record, Unpublished, mtime_of};
use crate::types::{Attr, Caller, Handle, Ino, SetAttr, SetTime, StatFs, Time};
use formats::Kind;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

impl Stage {
    pub(crate) fn getattr(&self, ino: Ino, handle: Option<Handle>) -> Result<Attr> {
        let _ = handle;
        self.warm_inode(ino)?;
        let tree = self.tree.read();
        self.attr_of(&tree, ino)
    }

    pub(crate) fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> Result<Attr> {
        let _ = caller;
        self.warm_inode(ino)?;
        if let Some(size) = set.size {
            self.truncate(ino, size)?;
        }
        let rest =
            set.perm.is_some() || set.uid.is_some() || set.gid.is_some() || set.mtime.is_some();
        if !rest {
            return match set.atime {
                Some(time) => self.set_atime(ino, time),
                None => self.getattr(ino, set.handle),
            };
        }
        self.change(|txn| {
            require_changeable(txn.tree, ino)?;
            txn.stage(ino)?;
            let now = txn.now;
            apply(txn.record(ino)?, set, now);
            // still under the tree's lock, so that a write cannot come between the two
            if let Some(open) = self.open.inode(ino) {
                let mut state = open.state.lock();
                state.ctime = now;
                if let Some(time) = set.mtime {
                    state.mtime = resolve(time, now);
                    state.mtime_set = true;
                }
            }
            self.attr_of(txn.tree, ino)
        })
    }

    /// Sets the access time alone, which changes nothing that is ever published: it stages nothing,
    /// and a snapshot has the inode as it was.
    fn set_atime(&self, ino: Ino, time: SetTime) -> Result<Attr> {
        self.change(|txn| {
            require_changeable(txn.tree, ino)?;
            let now = txn.now;
            let atime = resolve(time, now);
            if let Some(lower) = txn.tree.lower.get_mut(&ino) {
                lower.unpublished = Some(Box::new(Unpublished {
                    atime: Some(atime),
                    ctime: now,
                }));
            } else {
                let rec = txn.record_quietly(ino)?;
                (rec.atime, rec.ctime) = (Some(atime), now);
            }
            self.attr_of(txn.tree, ino)
        })
    }

    pub(crate) fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        self.warm_inode(ino)?;
        let tree = self.tree.read();
        if let Some(node) = tree.node(ino) {
            return match &node.rec.body {
                Body::Symlink(target) => Ok(target.to_vec()),
                _ => Err(FsError::Invalid("not a symbolic link")),
            };
        }
        match &tree.row_of(ino)?.entry.kind {
            Kind::Symlink(target) => Ok(target.clone()),
            _ => Err(FsError::Invalid("not a symbolic link")),
        }
    }

    pub(crate) fn statfs(&self) -> Result<StatFs> {
        let of = self.backing.statvfs()?;
        let block_size = u32::try_from(of.f_frsize).unwrap_or(4096).max(1);
        let mut answer = StatFs {
            block_size,
            blocks: of.f_blocks,
            free: of.f_bfree,
            available: of.f_bavail,
            files: of.f_files,
            files_free: of.f_ffree,
            name_max: 255,
        };
        if let Some(quota) = self.quota_bytes() {
            let block = u64::from(block_size);
            let left = quota.saturating_sub(self.usage.staged()) / block;
            answer.blocks = answer.blocks.min(quota / block);
            answer.free = answer.free.min(left);
            answer.available = answer.available.min(left);
        }
        if let Some((staged, quota)) = self.files_of_quota() {
            answer.files = answer.files.min(quota);
            answer.files_free = answer.files_free.min(quota.saturating_sub(staged));
        }
        Ok(answer)
    }
}

fn resolve(time: SetTime, now: Time) -> Time {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}

fn apply(rec: &mut Record, set: &SetAttr, now: Time) {
    rec.ctime = now;
    xattr::explicit(rec);
    if let Some(time) = set.atime {
        rec.atime = Some(resolve(time, now));
    }
    if let Some(time) = set.mtime {
        rec.mtime = mtime_of(resolve(time, now));
        if let Some(file) = rec.file_mut() {
            file.mtime_of_backing = false;
        }
    }
    if set.uid.is_some() || set.gid.is_some() {
        rec.uid = set.uid.unwrap_or(rec.uid);
        rec.gid = set.gid.unwrap_or(rec.gid);
        if rec.dir().is_none() {
            rec.perm = without_privileges(rec.perm);
        }
    }
    if let Some(perm) = set.perm {
        rec.perm = perm & 0o7777;
        xattr::follow_mode(rec);
    }
}

/// A mode after a change of owner, or a write by somebody who may not keep them: without set-ID
/// bits. The set-group-ID bit of a file that is not group-executable means something else.
pub(super) fn without_privileges(perm: u16) -> u16 {
    let perm = perm & !SETUID;
    if perm & GROUP_EXECUTE != 0 {
        perm & !SETGID
    } else {
        perm
    }
}
