//! What another publisher changed since a path was staged, and whether it collides with ours.
//!
//! | ours | theirs | |
//! | --- | --- | --- |
//! | any | the same row | fine |
//! | changed | changed | conflict |
//! | changed | removed, and the other way round | conflict |
//! | another type | changed | conflict |
//! | made a directory | made it too | the two merge, our metadata wins |
//! | times that followed from a change below | any | fine, while it is a directory |
//! | removed, replaced or moved | changed below | conflict, naming what changed |
//! | moved, and its old place published as gone | any, at the old place | fine |
//! | in a directory | removed that directory | conflict, never silently made again |
//!
//! Trees are compared through catalogs: what has the same catalog is the same. Nothing is changed
//! here.

use std::collections::HashMap;
use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::changeset::{Change, ChangeSet, Children, Op};
use formats::entry::{Entry, Kind};
use formats::hash::Hash;
use formats::path::{Name, RepoPath};
use formats::server_conf::Params;
use store::{RepoError, Repository, Revision};

use crate::policy;

/// Most conflicts that are named; the rest is counted.
pub const NAMED_MAX: usize = 1000;

/// A path that two publishers changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Conflict {
    /// Ours: the path that was staged.
    pub path: RepoPath,
    /// What collides.
    pub kind: ConflictKind,
    /// Theirs, where it is another path: below ours, or below the source of a move.
    pub theirs: Option<RepoPath>,
}

/// How two changes collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Both added something else.
    BothAdded,
    /// Both changed it.
    BothChanged,
    /// We changed it, they removed it.
    RemovedByThem,
    /// We removed it, they changed it.
    RemovedByUs,
    /// They put another type there.
    TypeChanged,
    /// They changed something below a directory that we removed, replaced or moved.
    ChangedBelow,
    /// They removed the directory that our change stands in.
    ParentRemoved,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = &self.path;
        let theirs = self.theirs.as_ref().unwrap_or(path);
        match self.kind {
            ConflictKind::BothAdded => write!(f, "{path}: both added it"),
            ConflictKind::BothChanged => write!(f, "{path}: both changed it"),
            ConflictKind::RemovedByThem => write!(f, "{path}: changed here, removed there"),
            ConflictKind::RemovedByUs => write!(f, "{path}: removed here, changed there"),
            ConflictKind::TypeChanged => write!(f, "{path}: of another type there"),
            ConflictKind::ChangedBelow => {
                write!(
                    f,
                    "{path}: removed, replaced or moved here; {theirs} changed there"
                )
            }
            ConflictKind::ParentRemoved => {
                write!(f, "{path}: the directory {theirs} was removed there")
            }
        }
    }
}

/// All conflicts of a change set with a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// At most [`NAMED_MAX`].
    pub named: Vec<Conflict>,
    /// How many more there are.
    pub more: u64,
}

impl Conflicts {
    /// True if nothing collides.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    fn add(&mut self, path: &RepoPath, kind: ConflictKind, theirs: Option<RepoPath>) {
        if self.named.len() >= NAMED_MAX {
            self.more += 1;
            return;
        }
        self.named.push(Conflict {
            path: path.clone(),
            kind,
            theirs,
        });
    }
}

/// Finds what collides between `change_set` and the revision `head`.
///
/// # Errors
/// When a catalog of either side cannot be read.
pub fn find(
    repo: &Arc<Repository>,
    head: &Arc<Revision>,
    params: &Params,
    change_set: &ChangeSet,
) -> Result<Conflicts, RepoError> {
    let mut finder = Finder {
        repo,
        head,
        params,
        changes: &change_set.changes,
        bases: HashMap::new(),
        checked_parent: None,
        found: Conflicts::default(),
    };
    for change in &change_set.changes {
        if change.base_root != *head.root_hash() {
            finder.check(change)?;
        }
        finder.check_source(change)?;
    }
    Ok(finder.found)
}

struct Finder<'a> {
    repo: &'a Arc<Repository>,
    head: &'a Arc<Revision>,
    params: &'a Params,
    changes: &'a [Change],
    bases: HashMap<Hash, Arc<Revision>>,
    checked_parent: Option<RepoPath>,
    found: Conflicts,
}

impl Finder<'_> {
    fn base(&mut self, root: &Hash) -> Result<Arc<Revision>, RepoError> {
        if let Some(known) = self.bases.get(root) {
            return Ok(known.clone());
        }
        let revision = self.repo.revision(root)?;
        self.bases.insert(*root, revision.clone());
        Ok(revision)
    }

    fn check(&mut self, change: &Change) -> Result<(), RepoError> {
        let path = &change.path;
        if matches!(change.op, Op::Put { .. }) && !self.parent_stands(path)? {
            let parent = path.parent();
            self.found.add(path, ConflictKind::ParentRemoved, parent);
            return Ok(());
        }
        let theirs = self.head.lookup(path)?.map(|row| row.entry);
        let base = change.base.as_deref();
        match &change.op {
            Op::Remove => self.check_removal(change, base, theirs.as_ref()),
            Op::Put {
                entry,
                children: Children::Same,
                explicit,
            } if entry.is_dir() => {
                self.check_directory(change, entry, *explicit, theirs.as_ref());
                Ok(())
            }
            Op::Put { entry, .. } => self.check_put(change, entry, base, theirs.as_ref()),
        }
    }

    /// The old place of a moved directory, as long as that is not published as gone.
    fn check_source(&mut self, change: &Change) -> Result<(), RepoError> {
        if let Op::Put {
            children: Children::From(source),
            ..
        } = &change.op
            && let Some(root) = source.removed_over.filter(|r| r != self.head.root_hash())
        {
            self.check_below(change, &root, &source.path)?;
        }
        Ok(())
    }

    fn parent_stands(&mut self, path: &RepoPath) -> Result<bool, RepoError> {
        let Some(parent) = path.parent() else {
            return Ok(true);
        };
        if self.checked_parent.as_ref() == Some(&parent) {
            return Ok(true);
        }
        // a listed parent answers for itself; one that was moved here brings its content along
        let listed = self
            .changes
            .binary_search_by(|change| change.path.cmp(&parent))
            .is_ok();
        let stands = listed
            || self.is_moved(&parent)
            || self
                .head
                .lookup(&parent)?
                .is_some_and(|row| row.entry.is_dir());
        if stands {
            self.checked_parent = Some(parent);
        }
        Ok(stands)
    }

    /// True if `dir` lies in a directory whose content does not come from the same path.
    fn is_moved(&self, dir: &RepoPath) -> bool {
        let mut above = Some(dir.clone());
        while let Some(at) = above {
            if let Ok(found) = self.changes.binary_search_by(|c| c.path.cmp(&at)) {
                let op = &self.changes[found].op;
                return matches!(
                    op,
                    Op::Put {
                        children: Children::From(_),
                        ..
                    }
                );
            }
            above = at.parent();
        }
        false
    }

    fn check_removal(
        &mut self,
        change: &Change,
        base: Option<&Entry>,
        theirs: Option<&Entry>,
    ) -> Result<(), RepoError> {
        let path = &change.path;
        match (base, theirs) {
            (_, None) => {}
            (Some(base), Some(theirs)) if base.is_dir() && theirs.is_dir() => {
                if !unchanged(base, theirs) {
                    self.found.add(path, ConflictKind::RemovedByUs, None);
                }
                self.check_below(change, &change.base_root, path)?;
            }
            (Some(base), Some(theirs)) if unchanged(base, theirs) => {}
            _ => self.found.add(path, ConflictKind::RemovedByUs, None),
        }
        Ok(())
    }

    /// A directory that stays, with its metadata changed.
    fn check_directory(
        &mut self,
        change: &Change,
        ours: &Entry,
        explicit: bool,
        theirs: Option<&Entry>,
    ) {
        let path = &change.path;
        match (change.base.as_deref(), theirs) {
            (_, None) => self.found.add(path, ConflictKind::RemovedByThem, None),
            (_, Some(theirs)) if !theirs.is_dir() => {
                self.found.add(path, ConflictKind::TypeChanged, None);
            }
            (_, Some(theirs)) if !explicit || self.same(path, ours, theirs) => {}
            (Some(base), Some(theirs)) if unchanged(base, theirs) => {}
            _ => self.found.add(path, ConflictKind::BothChanged, None),
        }
    }

    /// Anything that is put where something else stood, or nothing.
    fn check_put(
        &mut self,
        change: &Change,
        ours: &Entry,
        base: Option<&Entry>,
        theirs: Option<&Entry>,
    ) -> Result<(), RepoError> {
        let path = &change.path;
        let moved_here = matches!(
            change.op,
            Op::Put {
                children: Children::From(_),
                ..
            }
        );
        match (base, theirs) {
            (None, None) => {}
            (None, Some(theirs)) if ours.is_dir() && theirs.is_dir() && !moved_here => {}
            (_, Some(theirs)) if !ours.is_dir() && self.same(path, ours, theirs) => {}
            (None, Some(theirs)) => {
                let kind = if theirs.is_dir() == ours.is_dir() {
                    ConflictKind::BothAdded
                } else {
                    ConflictKind::TypeChanged
                };
                self.found.add(path, kind, None);
            }
            (Some(_), None) => self.found.add(path, ConflictKind::RemovedByThem, None),
            (Some(base), Some(theirs)) if unchanged(base, theirs) => {
                if base.is_dir() {
                    self.check_below(change, &change.base_root, path)?;
                }
            }
            (Some(base), Some(theirs)) => {
                let kind = if theirs.mode() & TYPE_MASK == base.mode() & TYPE_MASK {
                    ConflictKind::BothChanged
                } else {
                    ConflictKind::TypeChanged
                };
                self.found.add(path, kind, None);
            }
        }
        Ok(())
    }

    fn same(&self, path: &RepoPath, ours: &Entry, theirs: &Entry) -> bool {
        let ours = policy::publishable(self.params, path, ours, &mut policy::Dropped::default());
        if ours.is_dir() {
            return unchanged(&ours, theirs);
        }
        policy::same(self.params, theirs, &ours)
    }

    /// Names what they changed below `dir`, a directory of the revision `root`.
    fn check_below(
        &mut self,
        change: &Change,
        root: &Hash,
        dir: &RepoPath,
    ) -> Result<(), RepoError> {
        let base = self.base(root)?;
        let head = self.head.clone();
        for theirs in differences(&base, &head, dir)? {
            self.found
                .add(&change.path, ConflictKind::ChangedBelow, Some(theirs));
        }
        Ok(())
    }
}

const TYPE_MASK: u32 = 0o170_000;

/// True if they left an entry alone. Times of directories follow from changes below, which are found
/// on their own; sizes of directories mean nothing.
fn unchanged(base: &Entry, theirs: &Entry) -> bool {
    let strip = |entry: &Entry| {
        let mut entry = entry.clone();
        match &mut entry.kind {
            Kind::Directory { size } => {
                *size = 0;
                entry.mtime = formats::entry::Mtime::default();
            }
            Kind::Regular(file) => file.link_group = 0,
            _ => {}
        }
        entry
    };
    strip(base) == strip(theirs)
}

/// Paths below `dir` at which two revisions differ; of a removed or added directory only itself.
fn differences(
    base: &Arc<Revision>,
    head: &Arc<Revision>,
    dir: &RepoPath,
) -> Result<Vec<RepoPath>, RepoError> {
    let mut found = Vec::new();
    let mut pending = vec![dir.clone()];
    while let Some(dir) = pending.pop() {
        // where nothing was, they took nothing from us
        let Some(was) = base.lookup(&dir)? else {
            continue;
        };
        let Some(is) = head.lookup(&dir)? else {
            found.push(dir);
            continue;
        };
        if !was.entry.is_dir() || !is.entry.is_dir() {
            continue;
        }
        if same_catalog(base, head, &dir)? {
            continue;
        }
        let mut theirs = by_name(head.list(&dir)?);
        for was in base.list(&dir)? {
            let Ok(name) = Name::new(&was.name) else {
                continue;
            };
            let path = dir.join(&name);
            match theirs.remove(&was.name) {
                Some(is) if unchanged(&was.entry, &is.entry) => {
                    if was.entry.is_dir() {
                        pending.push(path);
                    }
                }
                _ => found.push(path),
            }
        }
        for name in theirs.into_keys() {
            if let Ok(name) = Name::new(&name) {
                found.push(dir.join(&name));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn by_name(rows: Vec<Row>) -> HashMap<Vec<u8>, Row> {
    rows.into_iter()
        .filter(|row| row.role != Role::Bind)
        .map(|row| (row.name.clone(), row))
        .collect()
}

/// True if `dir` lies in the same catalog object in both revisions, so that nothing below differs.
pub(crate) fn same_catalog(
    base: &Revision,
    head: &Revision,
    dir: &RepoPath,
) -> Result<bool, RepoError> {
    let place = base.catalog_path_of(dir)?;
    if place != head.catalog_path_of(dir)? {
        return Ok(false);
    }
    Ok(base.catalog(&place)?.hash() == head.catalog(&place)?.hash())
}
