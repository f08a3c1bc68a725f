//! A change set, applied to open catalogs, path by path in the order of a walk.
//!
//! What stands at a path before its own change is applied has an origin: the published tree at the
//! same path, a directory that was moved here, or nothing. A directory whose wanted source is where
//! its content already comes from is edited; any other is rebuilt from its source. Objects are
//! never read: a move costs rows.
//!
//! Conflicts were found before; nothing here asks who else changed a path.

mod graft;

use std::collections::{BTreeMap, BTreeSet};

use formats::changeset::{Change, Children, Op};
use formats::dirtab::Dirtab;
use formats::entry::{Entry, Kind, Mtime};
use formats::hash::Hash;
use formats::object::ObjectName;
use formats::path::{Name, RepoPath};
use formats::server_conf::Params;

use super::session::{Session, make_row};
use super::{CatalogsError, Report};
use crate::policy;

/// The file whose presence makes a directory a nested catalog's root.
pub(crate) const MARKER: &[u8] = b".cvmfscatalog";
/// Beside [`MARKER`] where balancing made it.
pub(crate) const AUTO_MARKER: &[u8] = b".cvmfsautocatalog";
/// The name that CVMFS keeps for itself in the root directory.
const RESERVED: &[u8] = b"/.cvmfs";

/// Where the content of a directory comes from before its own change is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// The newest revision, at the same path.
    InPlace,
    /// Nothing: all below is new.
    Fresh,
    /// Nothing, but for our changes: it was removed in the newest revision and is made again.
    Remade,
    /// Rows copied from this path of this revision.
    From(RepoPath, Hash),
}

/// The rules and the choices that changes are applied with.
pub(crate) struct Rules<'a> {
    pub(crate) params: &'a Params,
    /// The rules that hold after this commit.
    pub(crate) dirtab: Option<&'a Dirtab>,
    /// Make parents again that the newest revision has lost.
    pub(crate) remake_parents: bool,
}

/// What the later passes need to know of the changes.
#[derive(Default)]
pub(crate) struct Touched {
    /// Directories whose marker was put or removed.
    pub(crate) markers: BTreeSet<RepoPath>,
    /// Directories that a dirtab rule may newly apply to.
    pub(crate) directories: BTreeSet<RepoPath>,
    /// Directories whose list of names or files really changed.
    pub(crate) effective: BTreeSet<RepoPath>,
    /// Directories of which a generated marker was removed, and kept.
    pub(crate) kept_markers: BTreeSet<RepoPath>,
    /// Implicit times of directories, published only along with a real change.
    pub(crate) implicit: Vec<(RepoPath, Mtime)>,
    /// Objects that rows taken from another revision than the newest refer to.
    pub(crate) referred: Vec<(ObjectName, RepoPath)>,
    /// Names of one inode within one directory.
    pub(crate) links: BTreeMap<(RepoPath, u64), Vec<RepoPath>>,
}

pub(crate) struct Applier<'s, 'a> {
    session: &'s mut Session<'a>,
    rules: Rules<'s>,
    changes: &'s [Change],
    frames: Vec<(RepoPath, Origin)>,
    checked_parent: Option<RepoPath>,
    marker: Name,
    auto_marker: Name,
    pub(crate) touched: Touched,
    pub(crate) report: Report,
}

impl<'s, 'a> Applier<'s, 'a> {
    pub(crate) fn new(
        session: &'s mut Session<'a>,
        rules: Rules<'s>,
        changes: &'s [Change],
    ) -> Result<Self, CatalogsError> {
        let name = |bytes| {
            Name::new(bytes).map_err(|source| CatalogsError::BadRow {
                dir: RepoPath::root(),
                source,
            })
        };
        Ok(Self {
            session,
            rules,
            changes,
            frames: Vec::new(),
            checked_parent: None,
            marker: name(MARKER)?,
            auto_marker: name(AUTO_MARKER)?,
            touched: Touched::default(),
            report: Report::default(),
        })
    }

    /// Applies every change.
    pub(crate) fn run(&mut self) -> Result<(), CatalogsError> {
        for change in self.changes {
            self.check(change)?;
            while let Some((frame, _)) = self.frames.last()
                && !change.path.is_within(frame)
            {
                self.frames.pop();
            }
            self.note_touched(change);
            match &change.op {
                _ if change.path.is_root() => self.put_root(change)?,
                Op::Remove => self.remove(change)?,
                Op::Put { entry, .. } if !policy::is_kept(self.rules.params, entry) => {
                    self.report.special_skipped.push(change.path.clone());
                    self.remove(change)?;
                }
                Op::Put {
                    entry,
                    children,
                    explicit,
                } if entry.is_dir() => self.put_directory(change, entry, children, *explicit)?,
                Op::Put { entry, .. } => self.put_other(change, entry)?,
            }
        }
        Ok(())
    }

    fn check(&self, change: &Change) -> Result<(), CatalogsError> {
        let path = &change.path;
        let bytes = path.as_bytes();
        if bytes
            .strip_prefix(RESERVED)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        {
            return Err(CatalogsError::Reserved(path.clone()));
        }
        let Op::Put { entry, .. } = &change.op else {
            return Ok(());
        };
        if is_named(path, MARKER) {
            if path.parent().is_some_and(|parent| parent.is_root()) {
                return Err(CatalogsError::MarkerInRoot);
            }
            if entry.regular().is_none() {
                return Err(CatalogsError::MarkerNotRegular(path.clone()));
            }
        }
        Ok(())
    }

    fn note_touched(&mut self, change: &Change) {
        if self.rules.dirtab.is_none() {
            return;
        }
        if matches!(&change.op, Op::Put { entry, .. } if entry.is_dir()) {
            self.touched.directories.insert(change.path.clone());
        }
        let mut above = change.path.parent();
        while let Some(dir) = above {
            above = dir.parent();
            if !self.touched.directories.insert(dir) {
                break;
            }
        }
    }

    fn origin(&self, path: &RepoPath) -> Origin {
        match self.frames.last() {
            Some((frame, Origin::From(source, root))) => match path.below(frame) {
                Some(rest) => Origin::From(source.concat(&rest), *root),
                None => Origin::InPlace,
            },
            Some((_, origin)) => origin.clone(),
            None => Origin::InPlace,
        }
    }

    fn lookup(&mut self, path: &RepoPath) -> Result<Option<formats::catalog::Row>, CatalogsError> {
        match self.frames.last() {
            Some((_, Origin::Fresh)) => Ok(None),
            _ => self.session.lookup(path),
        }
    }

    fn publishable(&mut self, path: &RepoPath, entry: &Entry) -> Entry {
        policy::publishable(
            self.rules.params,
            path,
            entry,
            &mut self.report.dropped_xattrs,
        )
    }

    /// Something at `path` really changed.
    fn note_effective(&mut self, path: &RepoPath) {
        if is_named(path, MARKER)
            && let Some(dir) = path.parent()
        {
            self.touched.markers.insert(dir);
        }
        if let Some(dir) = path.parent() {
            self.touched.effective.insert(dir);
        }
    }

    /// The root directory itself: only what was asked for explicitly is published.
    fn put_root(&mut self, change: &Change) -> Result<(), CatalogsError> {
        let Op::Put {
            entry,
            children: Children::Same,
            explicit,
        } = &change.op
        else {
            return Err(CatalogsError::RootReplaced);
        };
        if !explicit {
            return Ok(());
        }
        let old = self.session.lookup(&change.path)?;
        let Some(old) = old else {
            return Err(CatalogsError::ParentMissing(change.path.clone()));
        };
        let mut new = self.publishable(&change.path, entry);
        new.kind = old.entry.kind.clone();
        if !policy::same(self.rules.params, &old.entry, &new) {
            self.session.replace(&change.path, &old, new)?;
            self.report.directories += 1;
        }
        Ok(())
    }

    fn remove(&mut self, change: &Change) -> Result<(), CatalogsError> {
        let Some(old) = self.lookup(&change.path)? else {
            return Ok(());
        };
        if self.is_kept_marker(&change.path)? {
            return Ok(());
        }
        self.session.remove_tree(&change.path, &old)?;
        self.report.removed += 1;
        self.note_effective(&change.path);
        Ok(())
    }

    /// True for a generated marker whose rule still holds: removing it is no change.
    fn is_kept_marker(&mut self, path: &RepoPath) -> Result<bool, CatalogsError> {
        let (Some(name), Some(dir)) = (path.name(), path.parent()) else {
            return Ok(false);
        };
        let by_rule = name == self.marker
            && !dir.is_root()
            && self.rules.dirtab.is_some_and(|rules| rules.matches(&dir));
        let by_weight = self.rules.params.autocatalogs.is_some()
            && (name == self.marker || name == self.auto_marker)
            && self.lookup(&dir.join(&self.auto_marker.clone()))?.is_some()
            && self.lookup(&dir.join(&self.marker.clone()))?.is_some();
        if by_rule || by_weight {
            self.touched.kept_markers.insert(dir);
        }
        Ok(by_rule || by_weight)
    }

    fn put_other(&mut self, change: &Change, entry: &Entry) -> Result<(), CatalogsError> {
        let path = &change.path;
        self.need_parent(change)?;
        let new = self.publishable(path, entry);
        if let Kind::Regular(file) = &entry.kind
            && file.link_group != 0
            && let Some(dir) = path.parent()
        {
            let names = self.touched.links.entry((dir, file.link_group));
            names.or_default().push(path.clone());
        }
        match self.lookup(path)? {
            Some(old) if policy::same(self.rules.params, &old.entry, &new) => return Ok(()),
            Some(old) if old.entry.is_dir() => {
                self.session.remove_tree(path, &old)?;
                self.session.insert(path, new)?;
            }
            Some(old) => self.session.replace(path, &old, new)?,
            None => self.session.insert(path, new)?,
        }
        self.report.files += 1;
        self.report.bytes_raw += entry.regular().map_or(0, |file| file.size);
        self.note_effective(path);
        Ok(())
    }

    fn put_directory(
        &mut self,
        change: &Change,
        entry: &Entry,
        children: &Children,
        explicit: bool,
    ) -> Result<(), CatalogsError> {
        let path = &change.path;
        self.need_parent(change)?;
        let source = match children {
            Children::None => None,
            Children::Same => Some((path, &change.base_root)),
            Children::From(source) => Some((&source.path, &source.root)),
        };
        let origin = self.origin(path);
        let old = self.lookup(path)?;
        let new = self.publishable(path, entry);
        match (source, old) {
            (None, Some(old)) if old.entry.is_dir() => {
                // made by us and by another publisher: the two merge
                if change.base.is_some() || origin != Origin::InPlace {
                    self.remove_unlisted(path)?;
                }
                self.edit_directory(path, &old, new)
            }
            (None, old) => {
                self.clear(path, old.as_ref())?;
                self.make_directory(path, new)?;
                self.frames.push((path.clone(), Origin::Fresh));
                Ok(())
            }
            (Some(source), Some(old))
                if old.entry.is_dir() && self.is_source(&origin, children, path, source) =>
            {
                if explicit {
                    self.edit_directory(path, &old, new)
                } else {
                    self.touched.implicit.push((path.clone(), new.mtime));
                    Ok(())
                }
            }
            (Some((source, _)), old)
                if source == path && matches!(origin, Origin::InPlace | Origin::Remade) =>
            {
                if !self.rules.remake_parents {
                    return Err(CatalogsError::ParentMissing(path.clone()));
                }
                self.clear(path, old.as_ref())?;
                self.make_directory(path, new)?;
                self.frames.push((path.clone(), Origin::Remade));
                Ok(())
            }
            (Some((source, root)), old) => {
                self.clear(path, old.as_ref())?;
                self.graft(source, root, path, new)
            }
        }
    }

    /// True if a directory's content already is what its change says it should be.
    fn is_source(
        &self,
        origin: &Origin,
        children: &Children,
        path: &RepoPath,
        (source, root): (&RepoPath, &Hash),
    ) -> bool {
        match origin {
            // one that came back is as it was when it was moved, unless that was not looked at
            Origin::InPlace => {
                source == path
                    && (*children == Children::Same
                        || !self.rules.remake_parents
                        || self.session.at(&RepoPath::root()).base == Some(*root))
            }
            Origin::From(at, of) => at == source && of == root,
            Origin::Fresh | Origin::Remade => false,
        }
    }

    fn clear(
        &mut self,
        path: &RepoPath,
        old: Option<&formats::catalog::Row>,
    ) -> Result<(), CatalogsError> {
        match old {
            Some(old) => self.session.remove_tree(path, old),
            None => Ok(()),
        }
    }

    fn edit_directory(
        &mut self,
        path: &RepoPath,
        old: &formats::catalog::Row,
        new: Entry,
    ) -> Result<(), CatalogsError> {
        if !policy::same(self.rules.params, &old.entry, &new) {
            self.session.replace(path, old, new)?;
            self.report.directories += 1;
        }
        Ok(())
    }

    /// Inserts a new directory; one that comes with a marker is a nested catalog from the start.
    fn make_directory(&mut self, path: &RepoPath, entry: Entry) -> Result<(), CatalogsError> {
        self.session.insert(path, entry.clone())?;
        let marker = path.join(&self.marker);
        if self
            .change_at(&marker)
            .is_some_and(|change| matches!(change.op, Op::Put { .. }))
        {
            self.session
                .make_nested(path, &make_row(path, entry, 2, 0, false))?;
        }
        self.report.directories += 1;
        self.note_effective(path);
        Ok(())
    }

    fn change_at(&self, path: &RepoPath) -> Option<&'s Change> {
        let at = self
            .changes
            .binary_search_by(|change| change.path.cmp(path))
            .ok()?;
        Some(&self.changes[at])
    }

    /// Removes what stands in `dir` and is not in the change set.
    fn remove_unlisted(&mut self, dir: &RepoPath) -> Result<(), CatalogsError> {
        for (child, row) in self.session.children(dir)? {
            if self.change_at(&child).is_some() || self.is_kept_marker(&child)? {
                continue;
            }
            self.session.remove_tree(&child, &row)?;
            self.report.removed += 1;
            self.note_effective(&child);
        }
        Ok(())
    }

    /// A change needs a directory to stand in.
    fn need_parent(&mut self, change: &Change) -> Result<(), CatalogsError> {
        let Some(parent) = change.path.parent() else {
            return Ok(());
        };
        if self.checked_parent.as_ref() == Some(&parent) {
            return Ok(());
        }
        let in_listed_directory = self
            .frames
            .last()
            .is_some_and(|(frame, _)| *frame == parent);
        let stands = in_listed_directory
            || self
                .session
                .lookup(&parent)?
                .is_some_and(|row| row.entry.is_dir());
        if !stands {
            if !self.rules.remake_parents {
                return Err(CatalogsError::ParentMissing(change.path.clone()));
            }
            self.remake(&parent, &change.base_root)?;
        }
        self.checked_parent = Some(parent);
        Ok(())
    }
}

/// True if the last component of `path` is `name`.
pub(crate) fn is_named(path: &RepoPath, name: &[u8]) -> bool {
    path.as_bytes()
        .strip_suffix(name)
        .is_some_and(|dir| dir.last() == Some(&b'/'))
}
