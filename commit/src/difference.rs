//! What differs between two revisions, path by path.
//!
//! Trees are compared through catalogs: what has the same catalog is the same. The root directory's own
//! row is never among what differs. Nothing is changed here.

use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::entry::{Entry, Kind};
use formats::path::{Name, RepoPath};
use store::{RepoError, Revision};

use crate::conflicts::same_catalog;

/// A path at which two revisions differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where.
    pub path: RepoPath,
    /// What stood there; none if nothing did.
    pub was: Option<Entry>,
    /// What stands there afterwards; none if nothing does. Of a directory that is gone, what was below
    /// it is not listed; of a new one, everything is.
    pub now: Option<Entry>,
}

/// What turns `base` into `new`, sorted by path; no more than about `most` paths.
///
/// # Errors
/// When a catalog of either cannot be read.
pub(crate) fn between(
    base: &Revision,
    new: &Revision,
    most: usize,
) -> Result<Vec<Step>, RepoError> {
    let mut found = Vec::new();
    let mut pending = vec![(RepoPath::root(), true)];
    while let Some((dir, stood)) = pending.pop() {
        if found.len() >= most {
            break;
        }
        if stood && same_catalog(base, new, &dir)? {
            continue;
        }
        let was = match stood {
            true => base.listing(&dir)?,
            false => Arc::default(),
        };
        let is = new.listing(&dir)?;
        for row in shown(&was).filter(|row| twin(&is, row).is_none()) {
            found.extend(step(&dir, Some(row), None));
        }
        for row in shown(&is) {
            let old = twin(&was, row);
            if old.is_none_or(|old| bare(&old.entry) != bare(&row.entry)) {
                found.extend(step(&dir, old, Some(row)));
            }
            if row.entry.is_dir()
                && let Ok(name) = Name::new(&row.name)
            {
                let stood = old.is_some_and(|old| old.entry.is_dir());
                pending.push((dir.join(&name), stood));
            }
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.truncate(most);
    Ok(found)
}

/// Rows of a directory that are its own.
fn shown(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.role != Role::Bind)
}

fn twin<'r>(rows: &'r [Row], of: &Row) -> Option<&'r Row> {
    let at = rows.binary_search_by(|row| row.name.cmp(&of.name));
    at.ok()
        .map(|at| &rows[at])
        .filter(|row| row.role != Role::Bind)
}

fn step(dir: &RepoPath, was: Option<&Row>, now: Option<&Row>) -> Option<Step> {
    let name = Name::new(&was.or(now)?.name).ok()?;
    Some(Step {
        path: dir.join(&name),
        was: was.map(|row| row.entry.clone()),
        now: now.map(|row| row.entry.clone()),
    })
}

/// An entry without what each publisher numbers and measures itself, and without the permissions of a
/// link, which no filesystem keeps.
pub(crate) fn bare(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    match &mut entry.kind {
        Kind::Directory { size } => *size = 0,
        Kind::Regular(file) => file.link_group = 0,
        Kind::Symlink(_) => entry.perm = 0o777,
        _ => {}
    }
    entry
}
