//! The receiver's merge: what differs between the revision that a publisher began with and the one
//! it made is done again on the published one.
//!
//! Its gaps are part of it. A path is *ignored* unless it lies within the lease, or the lease lies
//! within it; what differs is *reported* only within the lease. What is not compared
//! ([`is_same`]) is not carried; devices, pipes and sockets never are; a directory that begins a
//! catalog before and after is exchanged catalog by catalog, unread.

use std::cmp::Ordering;
use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::{Content, Hash, Kind, Name, RepoPath};
use store::Repository;

use super::halt::Halt;
use super::output::Output;
use super::reading::Tree;

type Result<T, E = Halt> = std::result::Result<T, E>;

/// The path of a lease: without the slash at its beginning, as it stands in the request.
pub struct Scope<'l>(pub &'l [u8]);

impl Scope<'_> {
    fn contains(outer: &[u8], inner: &[u8]) -> bool {
        let ends = |rest: &[u8]| rest.is_empty() || rest[0] == b'/' || outer.ends_with(b"/");
        outer.is_empty() || inner.strip_prefix(outer).is_some_and(ends)
    }

    fn is_ignored(&self, path: &RepoPath) -> bool {
        !self.is_reported(path) && !Self::contains(relative(path), self.0)
    }

    fn is_reported(&self, path: &RepoPath) -> bool {
        Self::contains(self.0, relative(path))
    }
}

fn relative(path: &RepoPath) -> &[u8] {
    path.as_bytes().strip_prefix(b"/").unwrap_or_default()
}

/// Replays what a publisher changed.
pub struct Merge<'m> {
    pub scope: Scope<'m>,
    old: Tree,
    new: Tree,
    pub output: Output,
}

impl<'m> Merge<'m> {
    pub fn new(
        scope: Scope<'m>,
        repository: &Arc<Repository>,
        [old, new]: [&Hash; 2],
        output: Output,
    ) -> Result<Self> {
        Ok(Self {
            scope,
            old: Tree::open(repository, old)?,
            new: Tree::open(repository, new)?,
            output,
        })
    }

    pub fn run(mut self) -> Result<Output> {
        self.compare(&RepoPath::root())?;
        Ok(self.output)
    }

    fn compare(&mut self, dir: &RepoPath) -> Result<()> {
        if self.scope.is_ignored(dir) {
            return Ok(());
        }
        let mut old = listing(&self.old, dir, "old")?.into_iter().peekable();
        let mut new = listing(&self.new, dir, "new")?.into_iter().peekable();
        loop {
            let (before, after) = match (old.peek(), new.peek()) {
                (None, None) => return Ok(()),
                (Some(a), Some(b)) if a.name == b.name => (old.next(), new.next()),
                (Some(a), Some(b)) if in_order(a, b).is_lt() => (old.next(), None),
                (Some(_), None) => (old.next(), None),
                _ => (None, new.next()),
            };
            self.compare_entry(dir, before.as_ref(), after.as_ref())?;
        }
    }

    fn compare_entry(
        &mut self,
        dir: &RepoPath,
        old: Option<&Row>,
        new: Option<&Row>,
    ) -> Result<()> {
        let name = &old.or(new).ok_or(Halt::Crash)?.name;
        let path = dir.join(&Name::new(name).map_err(|_| Halt::Crash)?);
        let is_reported = self.scope.is_reported(&path);
        match (old, new) {
            (None, Some(new)) => {
                if is_reported {
                    self.added(&path, new)?;
                }
                if new.entry.is_dir() {
                    self.compare(&path)?;
                }
            }
            (Some(old), None) => {
                if old.entry.is_dir() && old.role != Role::Mountpoint {
                    self.compare(&path)?;
                }
                if is_reported {
                    self.removed(&path, old)?;
                }
            }
            (Some(old), Some(new)) => {
                let same = is_same(old, new);
                let was_nested = old.role == Role::Mountpoint;
                if same && was_nested && self.is_same_catalog(&path)? {
                    return Ok(());
                }
                let goes_on =
                    !is_reported || (same && !was_nested) || self.modified(&path, old, new)?;
                if goes_on && (old.entry.is_dir() || new.entry.is_dir()) {
                    self.compare(&path)?;
                }
            }
            (None, None) => {}
        }
        Ok(())
    }

    fn is_same_catalog(&self, path: &RepoPath) -> Result<bool> {
        let (old, new) = (self.old.nested(path)?, self.new.nested(path)?);
        let hashes = old.zip(new).ok_or(Halt::Crash)?;
        Ok(hashes.0.hash == hashes.1.hash)
    }

    fn added(&mut self, path: &RepoPath, new: &Row) -> Result<()> {
        match new.entry.kind {
            Kind::Directory { .. } => {
                self.output.add_directory(path, new)?;
                self.nest(path, new)
            }
            Kind::Regular(_) | Kind::Symlink(_) => self.output.add_file(path, new),
            _ => Ok(()),
        }
    }

    fn nest(&mut self, path: &RepoPath, new: &Row) -> Result<()> {
        match new.role {
            Role::Mountpoint => self.output.create_nested(path),
            _ => Ok(()),
        }
    }

    fn removed(&mut self, path: &RepoPath, old: &Row) -> Result<()> {
        match old.entry.kind {
            Kind::Directory { .. } => {
                if old.role == Role::Mountpoint {
                    self.output.remove_nested(path, false)?;
                }
                self.output.remove_directory(path)
            }
            Kind::Regular(_) | Kind::Symlink(_) => {
                must_be_alone(old)?;
                self.output.remove_file(path)
            }
            _ => Ok(()),
        }
    }

    /// False if what lies below needs no comparison.
    fn modified(&mut self, path: &RepoPath, old: &Row, new: &Row) -> Result<bool> {
        let is_file = |row: &Row| matches!(row.entry.kind, Kind::Regular(_) | Kind::Symlink(_));
        let nested = [old, new].map(|row| row.role == Role::Mountpoint);
        match [old, new].map(|row| row.entry.is_dir()) {
            [true, true] if nested == [true, true] => {
                self.swapped(path)?;
                return Ok(false);
            }
            [true, true] => {
                self.output.touch_directory(path, new)?;
                match nested {
                    [false, true] => self.output.create_nested(path)?,
                    [true, false] => self.output.remove_nested(path, true)?,
                    _ => {}
                }
            }
            [false, true] if is_file(old) => {
                must_be_alone(old)?;
                self.output.remove_file(path)?;
                self.output.add_directory(path, new)?;
                self.nest(path, new)?;
            }
            [true, false] if is_file(new) => {
                if nested[0] {
                    self.output.remove_nested(path, true)?;
                }
                self.output.remove_directory(path)?;
                self.output.add_file(path, new)?;
            }
            [false, false] if is_file(old) && is_file(new) => {
                must_be_alone(old)?;
                self.output.remove_file(path)?;
                self.output.add_file(path, new)?;
            }
            _ => {}
        }
        Ok(true)
    }

    fn swapped(&mut self, path: &RepoPath) -> Result<()> {
        let found = self.new.nested(path)?.filter(|nested| nested.size > 0);
        let missing = || {
            let path = String::from_utf8_lossy(relative(path)).into_owned();
            Halt::panic(format!(
                "CatalogMergeTool - nested catalog {path} not found. Aborting"
            ))
        };
        let nested = found.ok_or_else(missing)?;
        self.output.swap_nested(path, nested.hash, nested.size)
    }
}

/// Shorter names first, then by bytes, which are signed there.
fn in_order(a: &Row, b: &Row) -> Ordering {
    let signed = |row: &Row| {
        row.name
            .iter()
            .map(|byte| byte.cast_signed())
            .collect::<Vec<_>>()
    };
    let by_length = a.name.len().cmp(&b.name.len());
    by_length.then_with(|| signed(a).cmp(&signed(b)))
}

/// What is in a directory, but for what is hidden.
fn listing(tree: &Tree, dir: &RepoPath, which: &str) -> Result<Vec<Row>> {
    let mut rows = tree.list(dir)?;
    if let Some(row) = rows.iter().find(|row| row.linkcount == 0) {
        let name = String::from_utf8_lossy(&row.name);
        let text = format!("Entry {name} in {which} catalog has linkcount 0. Aborting.");
        return Err(Halt::panic(format!("CatalogDiffTool - {text}")));
    }
    rows.retain(|row| !row.hidden);
    rows.sort_by(in_order);
    Ok(rows)
}

fn must_be_alone(old: &Row) -> Result<()> {
    if old.linkcount <= 1 {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&old.name);
    let text = format!("Removal of file {name} with linkcount > 1 is not supported. Aborting");
    Err(Halt::panic(format!("CatalogMergeTool - {text}")))
}

/// True if two rows of one name differ in nothing that is compared. Not compared: owner and group,
/// what extended attributes hold, how content is compressed, of which chunks it is made.
fn is_same(a: &Row, b: &Row) -> bool {
    let compared = |row: &Row| {
        let (symlink, content) = match &row.entry.kind {
            Kind::Symlink(target) => (target.clone(), None),
            Kind::Regular(file) => {
                let (hash, chunked) = match &file.content {
                    Content::Whole(hash) => (*hash, false),
                    Content::Chunks { bulk, .. } => (bulk.unwrap_or(Hash::null()), true),
                };
                (
                    Vec::new(),
                    Some((hash, chunked, file.external, file.direct_io)),
                )
            }
            _ => (Vec::new(), None),
        };
        let size = match row.entry.kind {
            Kind::CharDevice(rdev) | Kind::BlockDevice(rdev) => rdev,
            _ => row.entry.size(),
        };
        let meta = (
            row.entry.mode(),
            row.entry.mtime,
            !row.entry.xattrs.is_empty(),
        );
        let place = (row.linkcount, row.link_group, row.role, row.hidden);
        (size, meta, symlink, content, place)
    };
    compared(a) == compared(b)
}
