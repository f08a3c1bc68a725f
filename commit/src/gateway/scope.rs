//! What of a change set a gateway can publish, and which lease that takes.
//!
//! The narrowest lease is one on the deepest path that everything changed lies at or below, whose
//! parent is published: the receiver needs that parent, and drops silently what lies outside. Where
//! the parents of what is new are new themselves, it is the topmost of those, which blocks nobody
//! else's work and makes all of them visible in one revision.
//!
//! The receiver cannot carry everything [CVMFS `catalog_merge_tool_impl.h`]: fifos, sockets and
//! devices are dropped silently; a file with hard links that is changed or removed ends it; so does a
//! directory that becomes something else while it has directories, whose removal takes links from what
//! is a file by then; and the root directory's own row is never looked at. That is refused here, before
//! anything is sent.

use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::changeset::{Change, ChangeSet, Children, Op, Source};
use formats::entry::Entry;
use formats::path::{Name, RepoPath};
use formats::server_conf::Params;
use store::{RepoError, Revision};

use crate::catalogs::apply::{AUTO_MARKER, MARKER, is_named};
use crate::policy::{self, Dropped};
use crate::publisher::{Refused, RefusedWhy};

/// Most refused paths that are named; the rest is counted.
const NAMED_MAX: usize = 1000;

/// The rules file, whose change concerns the whole tree.
const DIRTAB: &[u8] = b"/.cvmfsdirtab";

/// The path to lease for a change set upon `head`.
pub(super) fn lease_path(
    change_set: &ChangeSet,
    params: &Params,
    head: &Revision,
) -> Result<RepoPath, RepoError> {
    let whole = |targets: &[RepoPath]| targets.iter().any(RepoPath::is_root);
    // balancing looks at any directory of the catalogs that change
    if params.autocatalogs.is_some() && whole(&change_set.targets) {
        return Ok(RepoPath::root());
    }
    let changes = change_set.changes.iter().map(|change| &change.path);
    let mut path = match common(changes.filter(|path| !path.is_root()).map(concerned)) {
        Some(path) => path,
        None => common(change_set.targets.iter().cloned()).unwrap_or_default(),
    };
    while !may_be_leased(&path, head)? {
        path = path.parent().unwrap_or_default();
    }
    Ok(path)
}

/// True if the receiver finds the directory that a leased path lies in, and JSON can carry the path.
pub(super) fn may_be_leased(path: &RepoPath, head: &Revision) -> Result<bool, RepoError> {
    let Some(parent) = path.parent() else {
        return Ok(true);
    };
    let stands = || {
        let row = head.find(&parent)?;
        Ok(row.is_some_and(|row| row.entry.is_dir()))
    };
    Ok(std::str::from_utf8(path.as_bytes()).is_ok() && stands()?)
}

/// A path as the gateway writes it.
pub(super) fn text(path: &RepoPath) -> String {
    if path.is_root() {
        return "/".to_owned();
    }
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// What a change at a path touches: markers make and unmake catalogs at their directory.
fn concerned(path: &RepoPath) -> RepoPath {
    if path.as_bytes() == DIRTAB {
        return RepoPath::root();
    }
    if is_named(path, MARKER) || is_named(path, AUTO_MARKER) {
        return path.parent().unwrap_or_default();
    }
    path.clone()
}

/// The deepest path that all lie at or below.
fn common(mut paths: impl Iterator<Item = RepoPath>) -> Option<RepoPath> {
    let mut found = paths.next()?;
    for path in paths {
        while !path.is_within(&found) {
            found = found.parent().unwrap_or_default();
        }
    }
    Some(found)
}

/// What a receiver cannot publish; at most [`NAMED_MAX`] by name.
pub(super) struct Unfit {
    pub(super) named: Vec<Refused>,
    pub(super) more: u64,
}

/// Finds what of a change set upon `head` cannot be published under a lease on `lease`.
pub(super) fn unfit(
    change_set: &ChangeSet,
    params: &Params,
    head: &Arc<Revision>,
    lease: &RepoPath,
) -> Result<Unfit, RepoError> {
    let mut judge = Judge {
        changes: &change_set.changes,
        params,
        head,
        lease,
        unfit: Unfit {
            named: Vec::new(),
            more: 0,
        },
    };
    for change in &change_set.changes {
        judge.check(change)?;
    }
    Ok(judge.unfit)
}

struct Judge<'a> {
    changes: &'a [Change],
    params: &'a Params,
    head: &'a Arc<Revision>,
    lease: &'a RepoPath,
    unfit: Unfit,
}

impl Judge<'_> {
    fn refuse(&mut self, path: &RepoPath, why: RefusedWhy) {
        if self.unfit.named.len() >= NAMED_MAX {
            self.unfit.more += 1;
            return;
        }
        let path = path.clone();
        self.unfit.named.push(Refused { path, why });
    }

    fn check(&mut self, change: &Change) -> Result<(), RepoError> {
        let path = &change.path;
        let old = self.head.find(path)?;
        let old = old.as_deref();
        let new = match &change.op {
            Op::Remove => None,
            Op::Put { entry, .. } if !policy::is_kept(self.params, entry) => None,
            Op::Put { entry, .. } => Some(entry),
        };
        if path.is_root() {
            if is_explicit(&change.op) && !self.is_same(path, old, new) {
                self.refuse(path, RefusedWhy::RootAttributes);
            }
            return Ok(());
        }
        let same = self.is_same(path, old, new);
        if let Some(new) = new
            && policy::is_special(new)
            && !same
        {
            self.refuse(path, RefusedWhy::SpecialFile);
            return Ok(());
        }
        match old {
            Some(old) if old.entry.is_dir() => {
                if new.is_some_and(|new| !new.is_dir()) {
                    self.check_replaced(path)?;
                }
                self.check_directory(change, new)
            }
            Some(old) if !same && !self.is_swapped(path)? => {
                self.check_old(path, old);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn is_listed(&self, path: &RepoPath) -> bool {
        self.changes
            .binary_search_by(|change| change.path.cmp(path))
            .is_ok()
    }

    fn is_same(&self, path: &RepoPath, old: Option<&Row>, new: Option<&Entry>) -> bool {
        let (Some(old), Some(new)) = (old, new) else {
            return false;
        };
        let mut new = policy::publishable(self.params, path, new, &mut Dropped::default());
        if old.entry.is_dir() && path.is_root() {
            new.kind = old.entry.kind.clone();
        }
        policy::same(self.params, &old.entry, &new)
    }

    /// A published row that is changed or removed one by one.
    fn check_old(&mut self, path: &RepoPath, old: &Row) {
        if old.entry.is_dir() {
            return;
        }
        if policy::is_special(&old.entry) {
            self.refuse(path, RefusedWhy::SpecialFile);
        } else if old.linkcount > 1 {
            self.refuse(path, RefusedWhy::HardLink);
        }
    }

    /// A published directory: what is in it goes along where the directory itself goes or is filled
    /// from elsewhere.
    fn check_directory(&mut self, change: &Change, new: Option<&Entry>) -> Result<(), RepoError> {
        let stays = matches!(
            &change.op,
            Op::Put {
                children: Children::Same,
                ..
            }
        );
        if stays && new.is_some_and(Entry::is_dir) {
            return Ok(());
        }
        if let Op::Put {
            children: Children::From(source),
            ..
        } = &change.op
        {
            self.check_moved(&change.path, source)?;
        }
        // a nested catalog below goes unread, unless something else comes in its place
        let into_nested = new.is_some();
        let mut pending = vec![change.path.clone()];
        while let Some(dir) = pending.pop() {
            for row in self.head.listing(&dir)?.iter() {
                let Ok(name) = Name::new(&row.name) else {
                    continue;
                };
                let path = dir.join(&name);
                self.check_old(&path, row);
                if row.entry.is_dir() && (into_nested || row.role == Role::Plain) {
                    pending.push(path);
                }
            }
        }
        Ok(())
    }

    /// A published directory that becomes something else.
    fn check_replaced(&mut self, path: &RepoPath) -> Result<(), RepoError> {
        let below = self.head.listing(path)?;
        if below.iter().any(|row| row.entry.is_dir()) && !self.is_swapped(path)? {
            self.refuse(path, RefusedWhy::DirectoryReplaced);
        }
        Ok(())
    }

    /// A directory from elsewhere in the place of a published one: wherever both have a name.
    fn check_moved(&mut self, dir: &RepoPath, source: &Source) -> Result<(), RepoError> {
        let from = self.head.repository().revision(&source.root)?;
        let mut pending = vec![(dir.clone(), source.path.clone())];
        while let Some((old, new)) = pending.pop() {
            for row in from.listing(&new)?.iter() {
                let Ok(name) = Name::new(&row.name) else {
                    continue;
                };
                let (old, new) = (old.join(&name), new.join(&name));
                // what is listed stands there instead, and is looked at by itself
                let is_listed = self.is_listed(&old);
                let stands = self.head.find(&old)?;
                match stands.filter(|stands| stands.entry.is_dir()) {
                    Some(_) if row.entry.is_dir() => pending.push((old, new)),
                    Some(_) if !is_listed => self.check_replaced(&old)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// True if `path` lies in a nested catalog below the lease that stays one: the receiver takes such
    /// a catalog as it is.
    fn is_swapped(&self, path: &RepoPath) -> Result<bool, RepoError> {
        let dir = path.parent().unwrap_or_default();
        let home = self.head.catalog_path_of(&dir)?;
        if home.is_root() || !home.is_within(self.lease) {
            return Ok(false);
        }
        let touched = |change: &Change| {
            let of_marker = concerned(&change.path) == home && change.path != home;
            of_marker || (home.is_within(&change.path) && !is_same_directory(&change.op))
        };
        Ok(!self.changes.iter().any(touched))
    }
}

fn is_explicit(op: &Op) -> bool {
    !matches!(
        op,
        Op::Put {
            explicit: false,
            ..
        }
    )
}

fn is_same_directory(op: &Op) -> bool {
    matches!(
        op,
        Op::Put {
            children: Children::Same,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RepoPath {
        text.parse().unwrap()
    }

    fn common_of(paths: &[&str]) -> RepoPath {
        common(paths.iter().map(|p| concerned(&path(p)))).unwrap()
    }

    #[test]
    fn the_deepest_common_path() {
        assert_eq!(common_of(&["/a/b"]), path("/a/b"));
        assert_eq!(common_of(&["/a/b", "/a/bc"]), path("/a"));
        assert_eq!(common_of(&["/a/b", "/a/b/c"]), path("/a/b"));
        assert_eq!(common_of(&["/a", "/b"]), path(""));
        assert_eq!(common_of(&["/a/.cvmfscatalog"]), path("/a"));
        assert_eq!(common_of(&["/.cvmfsdirtab"]), path(""));
    }
}
