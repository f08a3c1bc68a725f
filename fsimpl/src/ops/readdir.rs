//! Listing directories.
//!
//! A listing is made when a handle is first read, and afresh when it is rewound: all names at that
//! moment, ordered by cursor. A cursor is a hash of the name, so that it means the same to every
//! handle whatever was made or removed meanwhile; names that are gone when their turn comes are
//! passed over. Entries are handed out in batches, without a lock held.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use formats::{Name, RepoPath, Row};

use crate::error::Result;
use crate::fs::Emit;
use crate::handle::{Listed, Listing, OpenDir};
use crate::stage::Stage;
use crate::sync::atomic::Ordering;
use crate::tree::{Tree, group_of, lower_attr, type_of};
use crate::types::{Attr, DirEntryPlus, FileType, Handle, Ino};

/// Entries looked at in one go with the lock held.
const BATCH: usize = 64;
/// The cursors of `.` and `..`; names come after.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
const FIRST_NAME: u64 = 3;

struct Found {
    ino: Ino,
    kind: FileType,
    attr: Option<Attr>,
}

impl Stage {
    pub(crate) fn opendir(&self, ino: Ino) -> Result<Handle> {
        self.tree.read().require_dir(ino)?;
        self.open.add_dir(ino)
    }

    pub(crate) fn releasedir(&self, handle: Handle) -> Result<()> {
        self.open.remove_dir(handle).map(|_| ())
    }

    pub(crate) fn readdir(
        &self,
        handle: Handle,
        cursor: u64,
        plus: bool,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let dir = self.open.dir(handle)?;
        let listing = self.listing(&dir, cursor == 0)?;
        if cursor < DOT_DOT && self.emit_dots(&dir, cursor, emit).is_break() {
            return Ok(());
        }
        let start = listing.items.partition_point(|item| item.cursor <= cursor);
        for batch in listing.items[start..].chunks(BATCH) {
            let found = self.find_batch(dir.ino, batch, &listing, plus)?;
            let mut taken = true;
            for (item, found) in batch.iter().zip(found) {
                let Some(found) = found else {
                    continue;
                };
                if taken {
                    let entry = DirEntryPlus {
                        name: item.name.as_bytes(),
                        ino: found.ino,
                        kind: found.kind,
                        cursor: item.cursor,
                        attr: found.attr,
                    };
                    taken = emit(&entry).is_continue();
                }
                if !taken && found.attr.is_some() {
                    self.forget(found.ino, 1);
                }
            }
            if !taken {
                break;
            }
        }
        Ok(())
    }

    fn emit_dots(&self, dir: &OpenDir, cursor: u64, emit: &mut Emit<'_>) -> ControlFlow<()> {
        let parent = if dir.ino == Ino::ROOT {
            Ino(0)
        } else {
            self.tree.read().parent_of(dir.ino)
        };
        let dots: [(&[u8], Ino, u64); 2] = [(b".", dir.ino, DOT), (b"..", parent, DOT_DOT)];
        for (name, ino, at) in dots {
            let entry = DirEntryPlus {
                name,
                ino,
                kind: FileType::Directory,
                cursor: at,
                attr: None,
            };
            if at > cursor {
                emit(&entry)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn listing(&self, dir: &OpenDir, afresh: bool) -> Result<Arc<Listing>> {
        let mut held = dir.listing.lock();
        if let Some(listing) = &*held
            && !afresh
        {
            return Ok(Arc::clone(listing));
        }
        self.warm_listing(dir.ino)?;
        let listing = Arc::new(self.tree.read().list(dir.ino)?);
        *held = Some(Arc::clone(&listing));
        Ok(listing)
    }

    /// What the names of a batch are now; unstaged ones become known where `plus` says so.
    fn find_batch(
        &self,
        dir: Ino,
        batch: &[Listed],
        listing: &Listing,
        plus: bool,
    ) -> Result<Vec<Option<Found>>> {
        if !plus {
            let tree = self.tree.read();
            let ino_path = tree.ino_path(dir);
            return batch
                .iter()
                .map(|item| self.find_one(&tree, (dir, &ino_path), item, listing, plus))
                .collect();
        }
        let mut tree = self.tree.write();
        let ino_path = tree.ino_path(dir);
        let mut found = Vec::with_capacity(batch.len());
        for item in batch {
            let mut one = self.find_one(&tree, (dir, &ino_path), item, listing, plus)?;
            if let Some(found) = &mut one
                && found.attr.is_none()
            {
                let listed = item.lower.and_then(|at| listing.rows.get(at as usize));
                let (ino, attr) = match listed {
                    Some(row) => know(&mut tree, dir, &item.name, row),
                    None => match tree.lower_row(dir, &item.name)? {
                        Some(row) => know(&mut tree, dir, &item.name, &row),
                        None => continue,
                    },
                };
                (found.ino, found.attr) = (ino, Some(attr));
            }
            found.push(one);
        }
        Ok(found)
    }

    fn find_one(
        &self,
        tree: &Tree,
        dir: (Ino, &RepoPath),
        item: &Listed,
        listing: &Listing,
        plus: bool,
    ) -> Result<Option<Found>> {
        if let Some(dentry) = tree.dentry(dir.0, &item.name) {
            let Some(ino) = dentry.node() else {
                return Ok(None);
            };
            let node = tree.require(ino)?;
            let attr = if plus {
                let attr = self.attr_of(tree, ino)?;
                node.run.lookups.fetch_add(1, Ordering::Relaxed);
                Some(attr)
            } else {
                None
            };
            let kind = node.rec.file_type();
            return Ok(Some(Found { ino, kind, attr }));
        }
        if tree.is_gone(dir.0) {
            return Ok(None);
        }
        let found = |row: &Row| Found {
            ino: tree.lower_ino_in(dir, &item.name, group_of(row)),
            kind: type_of(&row.entry),
            attr: None,
        };
        if let Some(row) = item.lower.and_then(|at| listing.rows.get(at as usize)) {
            return Ok(Some(found(row)));
        }
        // staged when it was listed: removed, or published and no longer staged
        let row = tree.lower_row(dir.0, &item.name)?;
        Ok(row.filter(|row| !row.hidden).map(|row| found(&row)))
    }
}

fn know(tree: &mut Tree, dir: Ino, name: &Name, row: &Row) -> (Ino, Attr) {
    let ino = tree.know_lower(dir, name, row, 1);
    let known = tree.lower.get(&ino);
    (
        ino,
        lower_attr(ino, row, known.and_then(|n| n.unpublished.as_deref())),
    )
}

impl Tree {
    /// All names of a directory, by cursor.
    fn list(&self, ino: Ino) -> Result<Listing> {
        self.require_dir(ino)?;
        let entries = self.node(ino).and_then(|node| node.entries.as_deref());
        let rows = match self.origin(ino) {
            Some((rev, path)) if !self.is_gone(ino) => self.revisions.list(rev, &path)?,
            _ => Arc::default(),
        };
        let staged = entries.map_or(0, std::collections::BTreeMap::len);
        let mut items = Vec::with_capacity(staged + rows.len());
        for (name, dentry) in entries.into_iter().flatten() {
            if !dentry.white {
                items.push(Listed {
                    cursor: cursor_of(name),
                    name: name.clone(),
                    lower: None,
                });
            }
        }
        for (position, row) in rows.iter().enumerate() {
            if row.hidden || entries.is_some_and(|e| e.contains_key(row.name.as_slice())) {
                continue;
            }
            let name = Name::new(&row.name)?;
            items.push(Listed {
                cursor: cursor_of(&name),
                name,
                lower: u32::try_from(position).ok(),
            });
        }
        items.sort_unstable_by(|a, b| (a.cursor, &a.name).cmp(&(b.cursor, &b.name)));
        Ok(Listing { items, rows })
    }

    /// The directory an inode lies in.
    pub(crate) fn parent_of(&self, ino: Ino) -> Ino {
        match (self.node(ino), self.lower.get(&ino)) {
            (Some(node), _) => node.names.first().map_or(ino, |(parent, _)| parent),
            (None, Some(lower)) => lower.parent,
            (None, None) => ino,
        }
    }
}

fn cursor_of(name: &Name) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.as_bytes().hash(&mut hasher);
    // below 2^63, as off_t is signed, and clear of the dots
    (hasher.finish() >> 1).max(FIRST_NAME)
}
