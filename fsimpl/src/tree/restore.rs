//! The tree as the journal has it, after a restart.
//!
//! Inodes without a name were unlinked while open: they are dropped, and names that lead nowhere
//! with them. What unsealed files are like is asked of their backing files.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

use formats::Name;

use super::{Body, Data, Dentry, Entries, File, Names, Node, Raw, Record, Runtime, Tree, mtime_of};
use crate::backing::Backing;
use crate::error::{FsError, Result};
use crate::journal::{Batch, Journal, inode_key, name_key, split_key};
use crate::lower::Revisions;
use crate::types::{Ino, Time};

/// Reads the tree back. The root is always staged; `root` makes it where the journal has none.
/// Backing files that belong to nothing are removed.
pub(crate) fn restore(
    revisions: Revisions,
    journal: &Journal,
    backing: &Backing,
    root: impl FnOnce(&Revisions) -> Result<Record>,
) -> Result<Tree> {
    let mut tree = Tree::new(revisions);
    journal.for_each(b'n', |key, rec: Record| {
        if let Some(fault) = rec.fault() {
            return Err(journal.impossible(key, fault).into());
        }
        if let Some((ino, _)) = split_key(key) {
            tree.tick = tree.tick.max(rec.stamp);
            tree.last_serial = tree.last_serial.max(rec.serial);
            tree.nodes.insert(Ino(ino), bare(rec));
        }
        Ok::<_, FsError>(())
    })?;
    match tree.nodes.get(&Ino::ROOT) {
        None => {
            let rec = root(&tree.revisions)?;
            tree.nodes.insert(Ino::ROOT, bare(rec));
        }
        Some(root) if root.entries.is_none() => {
            let fault = "a root that is no directory";
            return Err(journal.impossible(&inode_key(Ino::ROOT.0), fault).into());
        }
        Some(_) => {}
    }
    let mut dropped = Batch::default();
    journal.for_each(b'd', |key, dentry: Dentry| {
        if let Some(fault) = dentry.fault() {
            return Err(journal.impossible(key, fault).into());
        }
        if let Some((parent, name)) = split_key(key) {
            let second = |ino| tree.is_second_name(Ino(parent), ino);
            if dentry.node().is_some_and(second) {
                let fault = "a second name of a directory";
                return Err(journal.impossible(key, fault).into());
            }
            tree.tick = tree.tick.max(dentry.stamp);
            tree.last_serial = tree.last_serial.max(dentry.published);
            if !tree.put_back(Ino(parent), name, dentry) {
                dropped.remove(name_key(parent, name));
            }
        }
        Ok::<_, FsError>(())
    })?;
    if let Some(ino) = tree.below_itself() {
        let fault = "a directory that is below itself";
        return Err(journal.impossible(&inode_key(ino.0), fault).into());
    }
    tree.drop_nameless(&mut dropped);
    if !dropped.is_empty() {
        journal.commit(dropped)?;
    }
    tree.ask_backing_files(journal, backing)?;
    Ok(tree)
}

fn bare(rec: Record) -> Node {
    let entries = rec.dir().map(|_| Box::new(Entries::new()));
    Node {
        rec,
        names: Names::None,
        entries,
        run: Runtime::default(),
    }
}

impl Tree {
    /// Drops inodes without a name, and with a directory the names in it: its number may be another's
    /// later, to whom they would come back.
    fn drop_nameless(&mut self, dropped: &mut Batch) {
        let nameless = |(ino, node): (&Ino, &Node)| {
            let lost = *ino != Ino::ROOT && node.names.is_empty();
            lost.then_some(*ino)
        };
        let mut lost: Vec<Ino> = self.nodes.iter().filter_map(nameless).collect();
        while let Some(ino) = lost.pop() {
            let Some(node) = self.nodes.remove(&ino) else {
                continue;
            };
            tracing::warn!(ino = ino.0, "dropping a staged inode that has no name");
            dropped.remove(inode_key(ino.0));
            for (name, dentry) in node.entries.into_iter().flat_map(|entries| *entries) {
                dropped.remove(name_key(ino.0, name.as_bytes()));
                let child = dentry.node();
                if let Some(child) = child
                    && let Some(node) = self.nodes.get_mut(&child)
                {
                    node.names.remove(ino, &name);
                    if node.names.is_empty() && child != Ino::ROOT {
                        lost.push(child);
                    }
                }
            }
        }
    }

    fn put_back(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> bool {
        let Ok(name) = Name::new(name) else {
            return false;
        };
        if let Some(ino) = dentry.node() {
            match self.nodes.get_mut(&ino) {
                Some(node) => node.names.add(parent, name.clone()),
                None => return false,
            }
        }
        let node = self.nodes.get_mut(&parent);
        match node.and_then(|node| node.entries.as_mut()) {
            Some(entries) => {
                entries.insert(name, dentry);
                true
            }
            None => {
                if let Some(node) = dentry.node().and_then(|ino| self.nodes.get_mut(&ino)) {
                    node.names.remove(parent, &name);
                }
                false
            }
        }
    }

    fn ask_backing_files(&mut self, journal: &Journal, backing: &Backing) -> Result<()> {
        let mut used = HashSet::new();
        let mut doubtful = Vec::new();
        for (ino, node) in &mut self.nodes {
            let Body::File(file) = &mut node.rec.body else {
                continue;
            };
            let Some(number) = file.data.backing() else {
                continue;
            };
            used.insert(number);
            backing.seen(number);
            match backing.stat(number)? {
                Some(metadata) => {
                    if matches!(file.data, Data::Staged { sealed: None, .. }) {
                        if file.raw == Raw::Synced && file.size != metadata.len() {
                            file.raw = Raw::Doubtful;
                            doubtful.push(*ino);
                        }
                        file.size = metadata.len();
                        if file.mtime_of_backing {
                            let written = Time {
                                secs: metadata.mtime(),
                                nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
                            };
                            node.rec.mtime = mtime_of(written);
                            node.rec.ctime = node.rec.ctime.max(written);
                        }
                    }
                }
                None => {
                    if lost_backing(file) {
                        doubtful.push(*ino);
                    }
                }
            }
        }
        let mut batch = Batch::default();
        self.write_records(&doubtful, &[], &mut batch);
        journal.commit(batch)?;
        for number in backing.all()? {
            backing.seen(number);
            if !used.contains(&number) {
                backing.remove(number);
            }
        }
        Ok(())
    }
}

/// A file that was never written has none; one that is sealed is read from its objects. True where
/// bytes that were there once are gone.
fn lost_backing(file: &mut File) -> bool {
    let Data::Staged { backing, sealed } = &mut file.data else {
        return false;
    };
    if sealed.is_some() {
        *backing = 0;
        file.raw = Raw::Unsynced;
        return false;
    }
    let lost = file.size > 0;
    if lost {
        file.size = 0;
        file.raw = Raw::Doubtful;
    }
    lost
}
