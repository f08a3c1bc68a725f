//! The repository's limits, seen while staging.
//!
//! A file is refused at the write that takes it over an enforced limit; one that is not enforced is
//! logged then, and shown by `status`. How many entries a catalog will have is decided by the commit
//! (markers, dirtab, balancing): here is only known, from memory and the published counters, whether
//! one of them *may* have too many. Whoever wants to know looks closer then, as `diff` does.

use std::collections::HashMap;

use formats::{LimitExceeded, LimitKind, Name, RepoPath};

use super::Stage;
use crate::error::{FsError, Result};
use crate::tree::{Dentry, Node, Origin, RevId, Tree, Under};
use crate::types::Ino;

/// Limits on files are whole mebibytes: shorter files need no look at the parameters.
const SMALLEST_LIMIT_BYTES: u64 = 1 << 20;
/// Files that are named as too large; more would drown the rest.
const NAMED_MAX: usize = 1000;
/// Whose directory has a catalog of its own.
const MARKER: &[u8] = b".cvmfscatalog";

impl Stage {
    /// A file of `before` bytes is to have `after`.
    ///
    /// # Errors
    /// As [`Stage::enforce_size`].
    pub(crate) fn allow_size(&self, ino: Ino, before: u64, after: u64) -> Result<()> {
        if let Some(max) = self.enforce_size(after)?
            && before <= max
        {
            let path = self.tree.read().view_path(ino).unwrap_or_default();
            let exceeded = oversized(path, after, max);
            tracing::warn!(repository = %self.name, "{exceeded}");
        }
        Ok(())
    }

    /// The limit that a file of this size exceeds, if it does. Takes no lock.
    ///
    /// # Errors
    /// [`FsError::TooBig`] where the limit is enforced.
    pub(crate) fn enforce_size(&self, size: u64) -> Result<Option<u64>> {
        if size <= SMALLEST_LIMIT_BYTES {
            return Ok(None);
        }
        let limits = (self.params)().limits;
        match limits.file_bytes {
            0 => Ok(None),
            max if size <= max => Ok(None),
            _ if limits.enforce => Err(FsError::TooBig),
            max => Ok(Some(max)),
        }
    }

    /// Staged files that are larger than the repository likes, the first of them by path.
    #[must_use]
    pub fn oversized_files(&self) -> Vec<LimitExceeded> {
        let max = (self.params)().limits.file_bytes;
        if max == 0 {
            return Vec::new();
        }
        let tree = self.tree.read();
        let mut found = Vec::new();
        for (ino, node) in &tree.nodes {
            let Some(file) = node.rec.file().filter(|_| tree.is_changed(node)) else {
                continue;
            };
            let size = self.dirty_size(*ino).unwrap_or(file.size);
            if size > max {
                let path = tree.view_path(*ino).unwrap_or_default();
                found.push(oversized(path, size, max));
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.truncate(NAMED_MAX);
        found
    }

    /// False if no catalog can come to have more entries than the repository likes. True says only
    /// that a closer look is needed.
    ///
    /// # Errors
    /// Those of reading the published catalogs that staged directories lie in.
    pub fn entries_may_exceed(&self) -> Result<bool> {
        let limits = (self.params)().limits;
        let (directories, revisions) = {
            let tree = self.tree.read();
            (tree.count_added(), tree.revisions.clone())
        };
        let Some(directories) = directories else {
            return Ok(true);
        };
        let mut homes: Vec<Home> = Vec::with_capacity(directories.len());
        let mut entries: HashMap<Home, u64> = HashMap::new();
        for (index, dir) in directories.iter().enumerate() {
            let published = match &dir.origin {
                Some((rev, path)) => Some((*rev, revisions.get(*rev)?.catalog_path_of(path)?)),
                None => None,
            };
            let home = match (dir.marked, &published, dir.parent) {
                (true, ..) => Home::New(index),
                (false, Some((rev, begins)), _) => Home::Published(*rev, begins.clone()),
                (false, None, Some(parent)) => homes[parent].clone(),
                (false, None, None) => Home::New(index),
            };
            let sum = match entries.get_mut(&home) {
                Some(sum) => sum,
                None => {
                    let base = match &published {
                        Some((rev, begins)) => published_entries(&revisions, *rev, begins)?,
                        None => 0,
                    };
                    entries.entry(home.clone()).or_insert(base)
                }
            };
            *sum += dir.added;
            homes.push(home);
        }
        let exceeds = |(home, sum): (&Home, &u64)| {
            let root = matches!(home, Home::Published(_, begins) if begins.is_root());
            let max = match root {
                true => limits.root_entries,
                false => limits.nested_entries,
            };
            max > 0 && *sum > max
        };
        Ok(entries.iter().any(exceeds))
    }

    /// Counts changes of the tree: as long as it is the same, nothing has changed.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.tree.read().tick
    }
}

fn oversized(path: RepoPath, value: u64, max: u64) -> LimitExceeded {
    LimitExceeded {
        path,
        limit: LimitKind::FileBytes,
        value,
        max,
    }
}

/// The catalog that a directory's names are in: a published one, or one that begins at this staged
/// directory.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Home {
    Published(RevId, RepoPath),
    New(usize),
}

/// A staged directory, after the one above it.
struct Directory {
    /// Its place among them all; none for the root.
    parent: Option<usize>,
    origin: Option<(RevId, RepoPath)>,
    /// It gets a catalog of its own.
    marked: bool,
    /// Names in it that are not published there. One that was removed counts nothing.
    added: u64,
}

fn published_entries(
    revisions: &crate::lower::Revisions,
    rev: RevId,
    begins: &RepoPath,
) -> Result<u64> {
    let catalog = revisions.get(rev)?.catalog(begins)?;
    let counted = catalog.with(|catalog| Ok(catalog.counters()?.self_.entries()));
    // one without counters is looked at closer
    Ok(counted.map_or(u64::MAX / 2, |n| u64::try_from(n).unwrap_or(0)))
}

impl Tree {
    /// An inode that a commit would look at: not one that is kept for its number alone.
    pub(super) fn is_changed(&self, node: &Node) -> bool {
        let clean =
            |(parent, name): (Ino, &Name)| self.dentry(parent, name).is_some_and(|d| d.clean);
        node.names.iter().any(|name| !clean(name))
    }

    /// What is added to each staged directory, parents first. None if more comes to a catalog than
    /// can be seen here: a published directory was moved, or a marker removed.
    fn count_added(&self) -> Option<Vec<Directory>> {
        let mut directories = Vec::new();
        let mut ahead = vec![(Ino::ROOT, None)];
        while let Some((ino, parent)) = ahead.pop() {
            let Some(node) = self.node(ino) else {
                continue;
            };
            if matches!(node.rec.dir()?.origin, Origin::At { .. }) {
                return None;
            }
            let index = directories.len();
            let (mut marked, mut added) = (false, 0);
            for (name, dentry) in node.entries.as_deref().into_iter().flatten() {
                let is_marker = name.as_bytes() == MARKER && ino != Ino::ROOT;
                match dentry.node() {
                    None if is_marker => return None,
                    None => continue,
                    Some(_) => marked |= is_marker,
                }
                added += u64::from(dentry.under == Under::Nothing);
                if let Some(child) = self.staged_dir(dentry) {
                    ahead.push((child, Some(index)));
                }
            }
            directories.push(Directory {
                parent,
                origin: self.origin(ino),
                marked,
                added,
            });
        }
        Some(directories)
    }

    fn staged_dir(&self, dentry: &Dentry) -> Option<Ino> {
        let ino = dentry.node()?;
        self.node(ino)?.rec.dir().map(|_| ino)
    }
}
