//! Open catalogs of one commit: private copies, edited row by row.
//!
//! A catalog is opened when a changed path leads through it, and stays as published until something
//! in it really changes. Link counts of directories are summed up and written once, at the end.
//!
//! Nothing here decides what changes; nothing here touches a storage's bytes or the network other
//! than by asking the repository for a catalog.

mod nesting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::catalog::{CatalogWriter, Counts, Role, Row};
use formats::entry::Entry;
use formats::hash::Hash;
use formats::path::{Name, RepoPath};
use store::Repository;

use super::CatalogsError;

/// Where a nested catalog is published; the hash is absent while its new version is unwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) hash: Option<Hash>,
    pub(crate) size: u64,
}

/// One catalog, open for change.
pub(crate) struct Open {
    pub(crate) writer: CatalogWriter,
    /// Its own file, below the session's directory.
    pub(crate) file: PathBuf,
    /// The object it was published as; none for a new catalog.
    pub(crate) base: Option<Hash>,
    /// Its own counters, kept current with every row.
    pub(crate) counts: Counts,
    /// What the published version says of everything below it.
    pub(crate) base_subtree: Counts,
    /// The catalogs directly below, now and as published.
    pub(crate) nested: BTreeMap<RepoPath, Link>,
    pub(crate) base_nested: BTreeMap<RepoPath, Hash>,
    pub(crate) dirty: bool,
}

impl Open {
    /// The nested catalog on the way to `path`, if one stands at or above it.
    fn child_above(&self, path: &RepoPath) -> Option<RepoPath> {
        // mountpoints of one catalog never lie within each other, so that only the last one that
        // sorts before the path can hold it
        let (prefix, _) = self.nested.range(..=path.clone()).next_back()?;
        path.is_within(prefix).then(|| prefix.clone())
    }

    fn insert(&mut self, row: &Row) -> Result<(), formats::catalog::CatalogError> {
        self.writer.put(row)?;
        self.counts += Counts::of(row);
        self.dirty = true;
        Ok(())
    }

    fn replace(&mut self, old: &Row, new: &Row) -> Result<(), formats::catalog::CatalogError> {
        self.writer.put(new)?;
        self.counts -= Counts::of(old);
        self.counts += Counts::of(new);
        self.dirty = true;
        Ok(())
    }

    fn delete(&mut self, row: &Row) -> Result<(), formats::catalog::CatalogError> {
        self.writer.remove(&row.path)?;
        self.counts -= Counts::of(row);
        self.dirty = true;
        Ok(())
    }
}

/// The catalogs that one commit has opened.
pub(crate) struct Session<'a> {
    repo: &'a Arc<Repository>,
    work: &'a Path,
    pub(crate) open: BTreeMap<RepoPath, Open>,
    /// Prefixes in the order in which they were opened or made.
    pub(crate) attached: Vec<RepoPath>,
    /// By how many subdirectories a directory has grown.
    links: BTreeMap<RepoPath, i64>,
    /// Directories in which a member of a hard-link group was changed or removed.
    pub(crate) regroup: BTreeSet<RepoPath>,
    files_made: u64,
    last_home: Option<(RepoPath, RepoPath)>,
}

impl<'a> Session<'a> {
    /// Opens the root catalog of the revision that is changed. `work` is an empty directory.
    pub(crate) fn new(
        repo: &'a Arc<Repository>,
        root: &Hash,
        work: &'a Path,
    ) -> Result<Self, CatalogsError> {
        let mut session = Self {
            repo,
            work,
            open: BTreeMap::new(),
            attached: Vec::new(),
            links: BTreeMap::new(),
            regroup: BTreeSet::new(),
            files_made: 0,
            last_home: None,
        };
        session.attach(&RepoPath::root(), root)?;
        Ok(session)
    }

    /// The repository whose catalogs these are.
    pub(crate) fn repo(&self) -> &'a Arc<Repository> {
        self.repo
    }

    fn next_file(&mut self) -> PathBuf {
        self.files_made += 1;
        self.work.join(format!("{}.catalog", self.files_made))
    }

    fn attach(&mut self, prefix: &RepoPath, hash: &Hash) -> Result<(), CatalogsError> {
        let file = self.next_file();
        self.repo
            .copy_catalog(hash, &file)
            .map_err(|source| CatalogsError::Read {
                prefix: prefix.clone(),
                source,
            })?;
        let fail = |source| CatalogsError::Catalog {
            prefix: prefix.clone(),
            source,
        };
        let writer = CatalogWriter::open_update(&file).map_err(fail)?;
        if writer.root_prefix() != prefix {
            return Err(CatalogsError::WrongPlace {
                hash: *hash,
                expected: prefix.clone(),
                found: writer.root_prefix().clone(),
            });
        }
        let counters = writer.counters().map_err(fail)?;
        let mut nested = BTreeMap::new();
        let mut base_nested = BTreeMap::new();
        for child in writer.nested().map_err(fail)? {
            base_nested.insert(child.path.clone(), child.hash);
            let link = Link {
                hash: Some(child.hash),
                size: child.size,
            };
            nested.insert(child.path, link);
        }
        let open = Open {
            writer,
            file,
            base: Some(*hash),
            counts: counters.self_,
            base_subtree: counters.subtree,
            nested,
            base_nested,
            dirty: false,
        };
        self.open.insert(prefix.clone(), open);
        self.attached.push(prefix.clone());
        Ok(())
    }

    /// The catalog that holds the children of `dir`.
    pub(crate) fn content_home(&mut self, dir: &RepoPath) -> Result<RepoPath, CatalogsError> {
        if let Some((last, home)) = &self.last_home
            && last == dir
        {
            return Ok(home.clone());
        }
        let mut at = RepoPath::root();
        while let Some(child) = self.at(&at).child_above(dir) {
            if !self.open.contains_key(&child) {
                let link = self.at(&at).nested[&child];
                // an unwritten catalog is always open
                let hash = link.hash.unwrap_or_else(Hash::null);
                self.attach(&child, &hash)?;
            }
            at = child;
        }
        self.last_home = Some((dir.clone(), at.clone()));
        Ok(at)
    }

    /// The catalog that holds the row of `path`; for a mountpoint the parent's.
    pub(crate) fn entry_home(&mut self, path: &RepoPath) -> Result<RepoPath, CatalogsError> {
        match path.parent() {
            Some(parent) => self.content_home(&parent),
            None => Ok(RepoPath::root()),
        }
    }

    pub(crate) fn at(&self, prefix: &RepoPath) -> &Open {
        &self.open[prefix]
    }

    fn at_mut(&mut self, prefix: &RepoPath) -> &mut Open {
        // every prefix that the session hands out is open until it is detached
        match self.open.get_mut(prefix) {
            Some(open) => open,
            None => unreachable!("catalog {prefix} is not open"),
        }
    }

    fn edit<T>(
        &mut self,
        prefix: &RepoPath,
        change: impl FnOnce(&mut Open) -> Result<T, formats::catalog::CatalogError>,
    ) -> Result<T, CatalogsError> {
        change(self.at_mut(prefix)).map_err(|source| CatalogsError::Catalog {
            prefix: prefix.clone(),
            source,
        })
    }

    /// The highest id of a hard-link group in an open catalog.
    pub(crate) fn max_link_group(&mut self, home: &RepoPath) -> Result<u32, CatalogsError> {
        self.edit(home, |open| open.writer.max_link_group())
    }

    /// The row of `path`: of a mountpoint, the parent's copy.
    pub(crate) fn lookup(&mut self, path: &RepoPath) -> Result<Option<Row>, CatalogsError> {
        let home = self.entry_home(path)?;
        self.edit(&home, |open| open.writer.lookup(&path.path_hash()))
    }

    /// The rows directly in `dir`, sorted by name, with their paths.
    pub(crate) fn children(
        &mut self,
        dir: &RepoPath,
    ) -> Result<Vec<(RepoPath, Row)>, CatalogsError> {
        let home = self.content_home(dir)?;
        self.children_in(&home, dir)
    }

    /// Inserts a row that is known not to exist.
    pub(crate) fn insert(&mut self, path: &RepoPath, entry: Entry) -> Result<(), CatalogsError> {
        let linkcount = if entry.is_dir() { 2 } else { 1 };
        self.insert_row(path, entry, linkcount, 0, false)
    }

    /// Inserts a row that is known not to exist, with link count and group.
    pub(crate) fn insert_row(
        &mut self,
        path: &RepoPath,
        entry: Entry,
        linkcount: u32,
        link_group: u32,
        hidden: bool,
    ) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        let row = make_row(path, entry, linkcount, link_group, hidden);
        if row.entry.is_dir() {
            self.grow(path, 1);
        }
        self.edit(&home, |open| open.insert(&row))
    }

    /// Replaces the row `old` of `path` by `entry`. A directory stays what it is otherwise: link
    /// count, mountpoint, children. Other types lose their hard-link group.
    pub(crate) fn replace(
        &mut self,
        path: &RepoPath,
        old: &Row,
        entry: Entry,
    ) -> Result<(), CatalogsError> {
        let mut row = Row {
            entry,
            ..old.clone()
        };
        if !row.entry.is_dir() {
            self.note_group(path, old);
            row.linkcount = 1;
            row.link_group = 0;
        }
        self.rewrite(path, old, &row)
    }

    /// Writes `row` over `old`, in both catalogs if it is a mountpoint.
    pub(crate) fn rewrite(
        &mut self,
        path: &RepoPath,
        old: &Row,
        row: &Row,
    ) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        self.edit(&home, |open| open.replace(old, row))?;
        if row.role == Role::Mountpoint {
            let child = self.content_home(path)?;
            let as_root = |row: &Row| Row {
                role: Role::Root,
                ..row.clone()
            };
            self.edit(&child, |open| open.replace(&as_root(old), &as_root(row)))?;
        }
        Ok(())
    }

    /// Removes `path` and everything below it.
    pub(crate) fn remove_tree(&mut self, path: &RepoPath, row: &Row) -> Result<(), CatalogsError> {
        self.remove_content(path, row)?;
        if row.entry.is_dir() {
            self.grow(path, -1);
        } else {
            self.note_group(path, row);
        }
        let home = self.entry_home(path)?;
        self.edit(&home, |open| open.delete(row))
    }

    /// Removes everything below `path`; a nested catalog there goes as a whole, unread.
    fn remove_content(&mut self, path: &RepoPath, row: &Row) -> Result<(), CatalogsError> {
        if !row.entry.is_dir() {
            return Ok(());
        }
        if row.role == Role::Mountpoint {
            self.detach(path)?;
        } else {
            // depth first, without recursion: a published tree may be deeper than the stack
            let home = self.content_home(path)?;
            let mut pending = vec![path.clone()];
            while let Some(dir) = pending.pop() {
                for (child, row) in self.children_in(&home, &dir)? {
                    if row.role == Role::Mountpoint {
                        self.detach(&child)?;
                    } else if row.entry.is_dir() {
                        pending.push(child);
                    }
                    self.edit(&home, |open| open.delete(&row))?;
                }
            }
        }
        self.forget_below(path);
        Ok(())
    }

    fn children_in(
        &mut self,
        home: &RepoPath,
        dir: &RepoPath,
    ) -> Result<Vec<(RepoPath, Row)>, CatalogsError> {
        let rows = self.edit(home, |open| open.writer.list(dir))?;
        rows.into_iter()
            .map(|row| Ok((child_path(dir, &row)?, row)))
            .collect()
    }

    /// Drops sums and marks that belong to `path` or lie below it.
    fn forget_below(&mut self, path: &RepoPath) {
        let within: Vec<RepoPath> = self
            .links
            .range(path.clone()..)
            .map(|(dir, _)| dir)
            .take_while(|dir| dir.is_within(path))
            .cloned()
            .collect();
        for dir in within {
            self.links.remove(&dir);
        }
        self.regroup.retain(|dir| !dir.is_within(path));
    }

    /// Forgets the nested catalog at `path` and all below it; the row stays.
    fn detach(&mut self, path: &RepoPath) -> Result<(), CatalogsError> {
        let home = self.entry_home(path)?;
        let open = self.at_mut(&home);
        open.nested.remove(path);
        open.dirty = true;
        self.open.retain(|prefix, _| !prefix.is_within(path));
        self.attached.retain(|prefix| !prefix.is_within(path));
        self.last_home = None;
        Ok(())
    }

    /// Adds to the number of subdirectories of the directory that `path` lies in.
    fn grow(&mut self, path: &RepoPath, by: i64) {
        if let Some(parent) = path.parent() {
            *self.links.entry(parent).or_default() += by;
        }
    }

    fn note_group(&mut self, path: &RepoPath, row: &Row) {
        if row.link_group != 0
            && let Some(parent) = path.parent()
        {
            self.regroup.insert(parent);
        }
    }

    /// Writes the link counts of all directories that gained or lost subdirectories.
    pub(crate) fn settle_linkcounts(&mut self) -> Result<(), CatalogsError> {
        for (dir, by) in std::mem::take(&mut self.links) {
            if by == 0 {
                continue;
            }
            let Some(old) = self.lookup(&dir)? else {
                continue;
            };
            let linkcount = i64::from(old.linkcount).saturating_add(by).max(2);
            let row = Row {
                linkcount: u32::try_from(linkcount).unwrap_or(u32::MAX),
                ..old.clone()
            };
            self.rewrite(&dir, &old, &row)?;
        }
        Ok(())
    }

    /// Where the catalogs begin that will be written: those with changes, and all above them.
    pub(crate) fn changed(&self) -> Vec<RepoPath> {
        let dirty = self.open.iter().filter(|(_, open)| open.dirty);
        let dirty: Vec<&RepoPath> = dirty.map(|(prefix, _)| prefix).collect();
        let leads_there = |prefix: &&RepoPath| dirty.iter().any(|dirty| dirty.is_within(prefix));
        self.open.keys().filter(leads_there).cloned().collect()
    }

    /// True if anything differs from what is published.
    pub(crate) fn is_dirty(&self) -> bool {
        self.open.values().any(|open| open.dirty)
            || self.links.values().any(|by| *by != 0)
            || !self.regroup.is_empty()
    }
}

/// A row of `path`, as a plain entry.
pub(crate) fn make_row(
    path: &RepoPath,
    entry: Entry,
    linkcount: u32,
    link_group: u32,
    hidden: bool,
) -> Row {
    Row {
        path: path.path_hash(),
        parent: path
            .parent()
            .map_or(formats::path::PathHash::NONE, |parent| parent.path_hash()),
        name: path
            .name()
            .map_or_else(Vec::new, |name| name.as_bytes().to_vec()),
        entry,
        linkcount,
        link_group,
        role: Role::Plain,
        hidden,
    }
}

fn child_path(dir: &RepoPath, row: &Row) -> Result<RepoPath, CatalogsError> {
    let name = Name::new(&row.name).map_err(|source| CatalogsError::BadRow {
        dir: dir.clone(),
        source,
    })?;
    Ok(dir.join(&name))
}
