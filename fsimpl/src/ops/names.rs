//! Finding, making and removing names.

use formats::Name;

use super::{changeable, known_child, require_changeable};
use crate::acl;
use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::tree::{
    Body, Child, Data, Dir, File, Origin, Raw, Record, Runtime, Tree, Txn, mtime_of,
};
use crate::types::{Attr, Caller, Handle, Ino, NodeType, OpenFlags};

/// Names of one file, at the most; as many as ext4 allows.
const MAX_LINKS: usize = 65_000;
/// Longest target of a symbolic link, without its NUL.
const MAX_TARGET: usize = 4095;
const SETGID: u16 = 0o2000;

impl Stage {
    pub(crate) fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let name = Name::new(name)?;
        self.warm(parent, &name)?;
        {
            let tree = self.tree.read();
            match tree.child(parent, &name)? {
                Child::Absent => return Err(FsError::NotFound),
                Child::Staged(ino) => {
                    let attr = self.attr_of(&tree, ino)?;
                    let node = tree.require(ino)?;
                    node.run.lookups.fetch_add(1, Ordering::Relaxed);
                    return Ok(attr);
                }
                Child::Lower(_) => {}
            }
        }
        let mut tree = self.tree.write();
        let ino = match tree.child(parent, &name)? {
            Child::Absent => return Err(FsError::NotFound),
            Child::Staged(ino) => {
                let node = tree.require(ino)?;
                node.run.lookups.fetch_add(1, Ordering::Relaxed);
                ino
            }
            Child::Lower(row) => tree.know_lower(parent, &name, &row, 1),
        };
        self.attr_of(&tree, ino)
    }

    pub(crate) fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        what: NodeType,
    ) -> Result<Attr> {
        let body = match what {
            NodeType::Regular => Body::File(File {
                size: 0,
                data: Data::EMPTY,
                mtime_of_backing: false,
                raw: Raw::Unsynced,
                former: None,
            }),
            NodeType::Fifo => Body::Fifo,
            NodeType::Socket => Body::Socket,
            NodeType::CharDevice(rdev) => Body::CharDevice(rdev),
            NodeType::BlockDevice(rdev) => Body::BlockDevice(rdev),
        };
        let attr = self.make(caller, parent, name, perm, body)?;
        if what == NodeType::Regular {
            self.queue_seal(attr.ino);
        }
        Ok(attr)
    }

    pub(crate) fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
    ) -> Result<Attr> {
        let dir = Dir {
            origin: Origin::Empty,
            ino_path: formats::RepoPath::root(),
            explicit: true,
            subdirs: 0,
        };
        self.make(caller, parent, name, perm, Body::Directory(Box::new(dir)))
    }

    pub(crate) fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr> {
        match target.len() {
            0 => return Err(FsError::NotFound),
            // a target with a NUL is none of the kernel's
            1..=MAX_TARGET if target.contains(&0) => {
                return Err(FsError::Invalid("a target with a NUL in it"));
            }
            1..=MAX_TARGET => {}
            _ => return Err(FsError::NameTooLong),
        }
        self.make(caller, parent, name, 0o777, Body::Symlink(target.into()))
    }

    pub(crate) fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        flags: OpenFlags,
    ) -> Result<(Attr, Handle)> {
        if flags.write {
            self.open.let_look();
        }
        let making = self.open.making();
        let number = self.backing.fresh();
        let body = Body::File(File {
            size: 0,
            data: Data::Staged {
                backing: number,
                sealed: None,
            },
            mtime_of_backing: true,
            raw: Raw::Unsynced,
            former: None,
        });
        match self.make(caller, parent, name, perm, body) {
            Ok(attr) => match self.open_new(caller, &attr, number, flags) {
                Ok(handle) => Ok((attr, handle)),
                Err(error) => {
                    drop(making);
                    // whoever is told that it failed finds no file
                    let _ = self.unlink(parent, name);
                    self.forget(attr.ino, 1);
                    Err(error)
                }
            },
            Err(FsError::Exists) if !flags.exclusive => {
                drop(making);
                let attr = self.lookup(parent, name)?;
                match self.open_file(caller, attr.ino, flags) {
                    Ok(handle) => Ok((self.getattr(attr.ino, None)?, handle)),
                    Err(error) => {
                        self.forget(attr.ino, 1);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    fn make(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        perm: u16,
        body: Body,
    ) -> Result<Attr> {
        let name = changeable(parent, name)?;
        self.warm(parent, &name)?;
        self.add(|txn| {
            txn.tree.require_dir(parent)?;
            if txn.tree.is_gone(parent) {
                return Err(FsError::NotFound);
            }
            if !matches!(txn.tree.child(parent, &name)?, Child::Absent) {
                return Err(FsError::Exists);
            }
            require_changeable(txn.tree, parent)?;
            self.allow_file(txn.tree)?;
            txn.stage(parent)?;
            let ino = new_inode(txn, caller, parent, &name, perm, body)?;
            txn.occupy(parent, &name, ino)?;
            txn.touch_dir(parent)?;
            if txn.tree.is_dir(ino)? {
                txn.count_subdir(parent, 1)?;
            }
            txn.tree.attr(ino)
        })
    }

    pub(crate) fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let name = changeable(parent, name)?;
        self.warm(parent, &name)?;
        let gone = self.change(|txn| {
            let ino = txn.removable(parent, &name)?;
            if txn.tree.is_dir(ino)? {
                return Err(FsError::IsDirectory);
            }
            txn.remove(parent, &name, ino)?;
            txn.touch_dir(parent)?;
            Ok(ino)
        })?;
        self.closed_if_unknown(gone);
        Ok(())
    }

    pub(crate) fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let name = changeable(parent, name)?;
        self.warm(parent, &name)?;
        let target = {
            let mut tree = self.tree.write();
            known_child(&mut tree, parent, &name)?.ok_or(FsError::NotFound)?
        };
        self.warm_listing(target)?;
        let gone = self.change(|txn| {
            let ino = txn.removable(parent, &name)?;
            txn.tree.require_dir(ino)?;
            if !txn.tree.is_empty(ino)? {
                return Err(FsError::NotEmpty);
            }
            txn.remove(parent, &name, ino)?;
            txn.touch_dir(parent)?;
            txn.count_subdir(parent, -1)?;
            Ok(ino)
        })?;
        self.closed_if_unknown(gone);
        Ok(())
    }

    /// An unstaged inode that lost its place may be forgotten at once.
    pub(crate) fn closed_if_unknown(&self, ino: Ino) {
        let tree = self.tree.read();
        let unknown = tree
            .lower
            .get(&ino)
            .is_some_and(|lower| lower.lookups.load(Ordering::Relaxed) == 0);
        drop(tree);
        if unknown {
            self.closed(ino);
        }
    }

    pub(crate) fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let name = changeable(parent, name)?;
        self.warm_inode(ino)?;
        self.warm(parent, &name)?;
        self.add(|txn| {
            txn.tree.require_dir(parent)?;
            if txn.tree.is_dir(ino)? {
                return Err(FsError::NotPermitted("a directory has one name"));
            }
            if txn.tree.is_gone(parent) || txn.tree.is_gone(ino) {
                return Err(FsError::NotFound);
            }
            if !matches!(txn.tree.child(parent, &name)?, Child::Absent) {
                return Err(FsError::Exists);
            }
            require_changeable(txn.tree, parent)?;
            require_changeable(txn.tree, ino)?;
            txn.stage(parent)?;
            txn.stage(ino)?;
            if txn.tree.require(ino)?.names.len() >= MAX_LINKS {
                return Err(FsError::TooManyLinks);
            }
            let now = txn.now;
            txn.record(ino)?.ctime = now;
            txn.occupy(parent, &name, ino)?;
            txn.touch_dir(parent)?;
            let node = txn.tree.require(ino)?;
            node.run.lookups.fetch_add(1, Ordering::Relaxed);
            self.attr_of(txn.tree, ino)
        })
    }
}

/// Makes an inode without a name; its owner, group and mode follow from caller and directory.
fn new_inode(
    txn: &mut Txn<'_>,
    caller: &Caller,
    parent: Ino,
    name: &Name,
    perm: u16,
    mut body: Body,
) -> Result<Ino> {
    let ino = txn.tree.fresh_ino(parent, name);
    if let Body::Directory(dir) = &mut body {
        dir.ino_path = txn.tree.path_to_lend(parent, name, ino);
    }
    let above = &txn.tree.require(parent)?.rec;
    let is_dir = matches!(body, Body::Directory(_));
    let is_link = matches!(body, Body::Symlink(_));
    let inherits_group = above.perm & SETGID != 0;
    let gid = if inherits_group {
        above.gid
    } else {
        caller.gid
    };
    let mut perm = perm & 0o7777;
    let mut xattrs = None;
    if !is_link {
        let default = above.xattrs.as_ref().and_then(|x| x.get(acl::DEFAULT));
        match default.and_then(|value| acl::Acl::parse(value)) {
            Some(default) => {
                let inherited = default.inherit(perm, is_dir);
                perm = inherited.perm;
                xattrs = (!inherited.xattrs.is_empty()).then(|| Box::new(inherited.xattrs));
            }
            None => perm &= !u16::try_from(caller.umask & 0o777).unwrap_or(0),
        }
    }
    if is_dir && inherits_group {
        perm |= SETGID;
    }
    let now = txn.now;
    let rec = Record {
        body,
        perm,
        uid: caller.uid,
        gid,
        mtime: mtime_of(now),
        ctime: now,
        xattrs,
        stamp: txn.tree.tick,
        atime: None,
        serial: txn.tree.fresh_serial(),
    };
    let run = Runtime {
        lookups: AtomicU64::new(1),
        ..Runtime::default()
    };
    txn.insert(ino, rec, run);
    Ok(ino)
}

impl Txn<'_> {
    /// The inode of a name that is to go: one that is, and may.
    pub(crate) fn removable(&mut self, parent: Ino, name: &Name) -> Result<Ino> {
        self.tree.require_dir(parent)?;
        let ino = known_child(self.tree, parent, name)?.ok_or(FsError::NotFound)?;
        require_changeable(self.tree, ino)?;
        Ok(ino)
    }

    /// Takes the name from an inode that may go.
    pub(crate) fn remove(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<()> {
        self.stage(parent)?;
        let grouped = self.tree.lower.get(&ino).is_some_and(|l| l.group != 0);
        if grouped {
            self.stage(ino)?;
        }
        if self.tree.node(ino).is_none() {
            self.detach(ino);
            return self.vacate(parent, name);
        }
        self.vacate(parent, name)?;
        let now = self.now;
        self.record(ino)?.ctime = now;
        self.clear_if_dir(ino)
    }

    fn clear_if_dir(&mut self, ino: Ino) -> Result<()> {
        if self.tree.is_dir(ino)? {
            self.clear_entries(ino)?;
        }
        Ok(())
    }
}

impl Tree {
    /// True if a directory shows no name.
    pub(crate) fn is_empty(&self, ino: Ino) -> Result<bool> {
        let entries = self.node(ino).and_then(|node| node.entries.as_deref());
        if let Some(entries) = entries
            && entries.values().any(|dentry| dentry.node().is_some())
        {
            return Ok(false);
        }
        let Some((rev, path)) = self.origin(ino) else {
            return Ok(true);
        };
        let rows = self.revisions.list(rev, &path)?;
        let shown = |row: &formats::Row| {
            let covered = entries.is_some_and(|e| e.contains_key(row.name.as_slice()));
            !row.hidden && !covered
        };
        Ok(!rows.iter().any(shown))
    }
}
