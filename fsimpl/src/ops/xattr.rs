//! Extended attributes: all namespaces are data here, but for the access control lists.

use formats::Xattrs;

use super::require_changeable;
use crate::acl::{self, Acl};
use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::tree::{Record, Tree};
use crate::types::{Caller, Ino, XattrMode};

/// Longest name (XATTR_NAME_MAX).
const MAX_NAME: usize = 255;
/// Longest value (XATTR_SIZE_MAX).
const MAX_VALUE: usize = 64 << 10;
/// Names and values of one inode together; they are recorded with every change of it.
const MAX_ALL: usize = 256 << 10;

impl Stage {
    pub(crate) fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<()> {
        let _ = caller;
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(FsError::Invalid("the name of an extended attribute"));
        }
        if value.len() > MAX_VALUE {
            return Err(FsError::AttributeTooBig);
        }
        self.warm_inode(ino)?;
        self.add(|txn| {
            require_changeable(txn.tree, ino)?;
            let has = txn.tree.xattrs(ino)?.contains_key(name);
            match mode {
                XattrMode::Create if has => return Err(FsError::Exists),
                XattrMode::Replace if !has => return Err(FsError::NoAttribute),
                _ => {}
            }
            txn.stage(ino)?;
            let now = txn.now;
            let rec = txn.record(ino)?;
            rec.ctime = now;
            put(rec, name, value)
        })
    }

    pub(crate) fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.warm_inode(ino)?;
        let xattrs = self.tree.read().xattrs(ino)?;
        xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    pub(crate) fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.warm_inode(ino)?;
        Ok(self.tree.read().xattrs(ino)?.into_keys().collect())
    }

    pub(crate) fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.warm_inode(ino)?;
        self.change(|txn| {
            require_changeable(txn.tree, ino)?;
            if !txn.tree.xattrs(ino)?.contains_key(name) {
                return Err(FsError::NoAttribute);
            }
            txn.stage(ino)?;
            let now = txn.now;
            let rec = txn.record(ino)?;
            rec.ctime = now;
            take(rec, name);
            explicit(rec);
            Ok(())
        })
    }
}

fn put(rec: &mut Record, name: &[u8], value: &[u8]) -> Result<()> {
    explicit(rec);
    if name == acl::DEFAULT && rec.dir().is_none() {
        return Err(FsError::Access);
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        let list = Acl::parse(value).ok_or(FsError::Invalid("an access control list"))?;
        if name == acl::ACCESS {
            rec.perm = rec.perm & !0o777 | list.mode_bits();
            if list.is_minimal() {
                take(rec, name);
                return Ok(());
            }
        }
    }
    let xattrs = rec.xattrs.get_or_insert_default();
    let others = xattrs.iter().filter(|(n, _)| n.as_slice() != name);
    let size: usize = others.map(|(n, v)| n.len() + v.len()).sum();
    if size + name.len() + value.len() > MAX_ALL {
        return Err(FsError::AttributesFull);
    }
    xattrs.insert(name.to_vec(), value.to_vec());
    Ok(())
}

fn take(rec: &mut Record, name: &[u8]) {
    if let Some(xattrs) = &mut rec.xattrs {
        xattrs.remove(name);
        if xattrs.is_empty() {
            rec.xattrs = None;
        }
    }
}

/// Metadata of a directory was set, not only its children changed.
pub(super) fn explicit(rec: &mut Record) {
    if let Some(dir) = rec.dir_mut() {
        dir.explicit = true;
    }
}

/// The access control list follows a chmod.
pub(super) fn follow_mode(rec: &mut Record) {
    let perm = rec.perm;
    let Some(xattrs) = &mut rec.xattrs else {
        return;
    };
    if let Some(value) = xattrs.get_mut(acl::ACCESS)
        && let Some(mut list) = Acl::parse(value)
    {
        list.follow_mode(perm);
        *value = list.render();
    }
}

impl Tree {
    fn xattrs(&self, ino: Ino) -> Result<Xattrs> {
        if let Some(node) = self.node(ino) {
            return Ok(node.rec.xattrs.as_deref().cloned().unwrap_or_default());
        }
        Ok(self.row_of(ino)?.entry.xattrs.clone())
    }
}
