//! What was published at the paths of a snapshot, looked up after its instant; items that say
//! nothing new are left out.

use std::sync::Arc;

use formats::{Change, Entry, Kind, Mtime, Op, RepoPath, Row};

use super::walk::{Item, Same, What};
use crate::error::Result;
use crate::lower::Revisions;
use crate::tree::RevId;

/// Paths of one directory looked up one by one before the whole directory is listed.
const SINGLES: u32 = 4;

/// Rows by path, in the order of a walk.
pub(super) struct Bases<'a> {
    revisions: &'a Revisions,
    hardlink_groups: bool,
    last: Option<(RevId, RepoPath)>,
    count: u32,
}

impl<'a> Bases<'a> {
    pub(super) fn new(revisions: &'a Revisions, hardlink_groups: bool) -> Self {
        Self {
            revisions,
            hardlink_groups,
            last: None,
            count: 0,
        }
    }

    /// The change an item makes; none if it makes none.
    pub(super) fn change(&mut self, item: Item) -> Result<Option<Change>> {
        let base = match item.base {
            Some(rev) => self.find(rev, &item.path)?,
            None => None,
        };
        let op = match item.what {
            // what was never published there needs no removal, unless a moved directory has it
            What::Remove => Op::Remove,
            What::Put {
                entry,
                children,
                explicit,
                ..
            } => {
                let same = match &item.same {
                    Same::No => false,
                    Same::AsBase => base.as_ref().is_some_and(|row| self.equal(&entry, row)),
                    Same::As(rev, path) => {
                        let row = self.find(*rev, path)?;
                        row.is_some_and(|row| self.equal(&entry, &row))
                    }
                };
                if same {
                    return Ok(None);
                }
                Op::Put {
                    entry: *entry,
                    children,
                    explicit,
                }
            }
        };
        Ok(Some(Change {
            path: item.path,
            op,
            base: base.map(|row| Box::new(row.entry.clone())),
            base_root: self.revisions.root_of(item.rev),
        }))
    }

    fn find(&mut self, rev: RevId, path: &RepoPath) -> Result<Option<Arc<Row>>> {
        if let Some(dir) = path.parent() {
            let here = (rev, dir);
            if self.last.as_ref() == Some(&here) {
                self.count += 1;
            } else {
                self.last = Some(here);
                self.count = 1;
            }
            if self.count == SINGLES
                && let Some((rev, dir)) = &self.last
            {
                // remembered by the revision, and asked there from now on
                self.revisions.list(*rev, dir)?;
            }
        }
        Ok(self.revisions.find(rev, path)?)
    }

    /// True if publishing the entry would change nothing in the row.
    fn equal(&self, entry: &Entry, row: &Row) -> bool {
        let base = &row.entry;
        entry.perm == base.perm
            && entry.uid == base.uid
            && entry.gid == base.gid
            && entry.xattrs == base.xattrs
            && same_time(entry.mtime, base.mtime)
            && self.same_kind(&entry.kind, &base.kind)
    }

    fn same_kind(&self, new: &Kind, base: &Kind) -> bool {
        match (new, base) {
            (Kind::Directory { .. }, Kind::Directory { .. }) => true,
            (Kind::Regular(new), Kind::Regular(base)) => {
                let linked = (new.link_group != 0) == (base.link_group != 0);
                new.size == base.size
                    && new.content == base.content
                    && new.compression == base.compression
                    && new.external == base.external
                    && new.direct_io == base.direct_io
                    && (linked || !self.hardlink_groups)
            }
            (new, base) => new == base,
        }
    }
}

/// A catalog without fractions of seconds cannot tell times within one second apart.
fn same_time(new: Mtime, base: Mtime) -> bool {
    new.secs == base.secs
        && (base.nanos.is_none() || new.nanos.unwrap_or(0) == base.nanos.unwrap_or(0))
}
