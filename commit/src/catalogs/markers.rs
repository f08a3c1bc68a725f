//! Where nested catalogs begin and end: markers put by hand, by `.cvmfsdirtab`, and by weight.
//!
//! Rows and references move between open catalogs here; which rows there are was decided before,
//! but for generated markers. A generated marker never changes the time of its directory.

use std::collections::BTreeSet;

use formats::catalog::{Role, Row};
use formats::dirtab::Dirtab;
use formats::entry::{Entry, Kind, Mtime, Regular, Xattrs};
use formats::hash::Hash;
use formats::object::{Compression, Content};
use formats::path::{Name, RepoPath};

use super::apply::{AUTO_MARKER, MARKER};
use super::session::Session;
use super::{CatalogsError, Report};

/// How generated markers look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkerStyle {
    /// The object of an empty file, stored as `compression` says.
    pub(crate) empty: Hash,
    pub(crate) compression: Compression,
    pub(crate) now: i64,
    pub(crate) nanos: Option<u32>,
    pub(crate) perm: u16,
}

impl MarkerStyle {
    fn entry(&self, owner: &Entry) -> Entry {
        Entry {
            kind: Kind::Regular(Regular {
                size: 0,
                content: Content::Whole(self.empty),
                compression: self.compression,
                external: false,
                direct_io: false,
                link_group: 0,
            }),
            perm: self.perm,
            uid: owner.uid,
            gid: owner.gid,
            mtime: Mtime {
                secs: self.now,
                nanos: self.nanos,
            },
            xattrs: Xattrs::new(),
        }
    }
}

fn join(dir: &RepoPath, name: &[u8]) -> Result<RepoPath, CatalogsError> {
    let name = Name::new(name).map_err(|source| CatalogsError::BadRow {
        dir: dir.clone(),
        source,
    })?;
    Ok(dir.join(&name))
}

/// Adds markers to those of `directories` that a rule applies to and that have none. Their owner is
/// the repository's: that of its root directory.
pub(crate) fn apply_dirtab(
    session: &mut Session<'_>,
    rules: &Dirtab,
    directories: &BTreeSet<RepoPath>,
    style: &MarkerStyle,
    report: &mut Report,
) -> Result<Vec<RepoPath>, CatalogsError> {
    let Some(root) = session.lookup(&RepoPath::root())? else {
        return Err(CatalogsError::ParentMissing(RepoPath::root()));
    };
    let mut made = Vec::new();
    for dir in directories {
        if dir.is_root() || !rules.matches(dir) {
            continue;
        }
        let marker = join(dir, MARKER)?;
        let stands = session.lookup(dir)?.is_some_and(|row| row.entry.is_dir());
        if stands && session.lookup(&marker)?.is_none() {
            session.insert(&marker, style.entry(&root.entry))?;
            report.generated.push(marker);
            made.push(dir.clone());
        }
    }
    Ok(made)
}

/// All directories of the tree that a rule may apply to: what a changed dirtab has to look at.
pub(crate) fn dirtab_candidates(
    session: &mut Session<'_>,
    rules: &Dirtab,
) -> Result<BTreeSet<RepoPath>, CatalogsError> {
    let mut found = BTreeSet::new();
    let mut pending = vec![RepoPath::root()];
    while let Some(dir) = pending.pop() {
        if !rules.may_match_below(&dir) {
            continue;
        }
        for (path, row) in session.children(&dir)? {
            if row.entry.is_dir() && row.role != Role::Bind {
                if rules.matches(&path) {
                    found.insert(path.clone());
                }
                pending.push(path);
            }
        }
    }
    Ok(found)
}

/// Makes catalogs agree with the markers of `directories`: splits off where one was added, merges
/// back where it is gone.
pub(crate) fn settle(
    session: &mut Session<'_>,
    directories: &BTreeSet<RepoPath>,
) -> Result<(), CatalogsError> {
    // deepest first, so that no row moves twice
    for dir in directories.iter().rev() {
        if dir.is_root() {
            continue;
        }
        let Some(row) = session.lookup(dir)? else {
            continue;
        };
        if !row.entry.is_dir() {
            continue;
        }
        let marker = join(dir, MARKER)?;
        let marked = match session.lookup(&marker)? {
            Some(marker_row) if marker_row.entry.regular().is_some() => true,
            Some(_) => return Err(CatalogsError::MarkerNotRegular(marker)),
            None => false,
        };
        match (marked, row.role) {
            (true, Role::Plain) => session.split(dir, &row)?,
            (false, Role::Mountpoint) => session.merge(dir, &row)?,
            _ => {}
        }
    }
    Ok(())
}

/// Weights, in rows of one catalog, that balancing goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Balance {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

/// Merges catalogs that balancing made and that have become too light, and splits those that are too
/// heavy; of the catalogs that this commit has opened, the last opened first.
pub(crate) fn balance(
    session: &mut Session<'_>,
    weights: Balance,
    style: &MarkerStyle,
    report: &mut Report,
) -> Result<(), CatalogsError> {
    let attached: Vec<RepoPath> = session.attached.iter().rev().cloned().collect();
    for prefix in attached {
        let Some(open) = session.open.get(&prefix) else {
            continue;
        };
        let weight = u64::try_from(open.counts.entries()).unwrap_or_default();
        if weight < weights.min && !prefix.is_root() {
            unbalance(session, &prefix, report)?;
        } else if weight > weights.max {
            partition(session, &prefix, weights, style, report)?;
        }
    }
    Ok(())
}

fn unbalance(
    session: &mut Session<'_>,
    prefix: &RepoPath,
    report: &mut Report,
) -> Result<(), CatalogsError> {
    let auto_marker = join(prefix, AUTO_MARKER)?;
    let Some(auto_row) = session.lookup(&auto_marker)? else {
        return Ok(());
    };
    session.remove_tree(&auto_marker, &auto_row)?;
    let marker = join(prefix, MARKER)?;
    if let Some(marker_row) = session.lookup(&marker)? {
        session.remove_tree(&marker, &marker_row)?;
    }
    report.ungenerated.push(prefix.clone());
    if let Some(row) = session.lookup(prefix)? {
        session.merge(prefix, &row)?;
    }
    Ok(())
}

/// A directory of the catalog that is partitioned.
struct Node {
    path: RepoPath,
    /// Rows directly in it that are no directories of this catalog.
    leaves: u64,
    children: Vec<usize>,
    weight: u64,
    is_catalog: bool,
}

fn partition(
    session: &mut Session<'_>,
    prefix: &RepoPath,
    weights: Balance,
    style: &MarkerStyle,
    report: &mut Report,
) -> Result<(), CatalogsError> {
    let mut nodes = directories_of(session, prefix)?;
    let target = weights.max / 2;
    // a directory stands before those below it, so that backwards is from the leaves up
    for at in (0..nodes.len()).rev() {
        let below: u64 = nodes[at].children.iter().map(|c| nodes[*c].weight).sum();
        nodes[at].weight = 1 + nodes[at].leaves + below;
        while nodes[at].weight > target {
            // the first of the heaviest
            let heaviest = nodes[at]
                .children
                .iter()
                .copied()
                .filter(|child| !nodes[*child].is_catalog)
                .reduce(|best, next| {
                    if nodes[next].weight > nodes[best].weight {
                        next
                    } else {
                        best
                    }
                });
            let Some(child) = heaviest.filter(|child| nodes[*child].weight >= weights.min) else {
                report.overweight.push(nodes[at].path.clone());
                break;
            };
            mark_by_weight(session, &nodes[child].path.clone(), style, report)?;
            nodes[at].weight -= nodes[child].weight - 1;
            nodes[child].weight = 1;
            nodes[child].is_catalog = true;
        }
    }
    Ok(())
}

fn directories_of(
    session: &mut Session<'_>,
    prefix: &RepoPath,
) -> Result<Vec<Node>, CatalogsError> {
    let node = |path| Node {
        path,
        leaves: 0,
        children: Vec::new(),
        weight: 1,
        is_catalog: false,
    };
    let mut nodes = vec![node(prefix.clone())];
    let mut at = 0;
    while at < nodes.len() {
        for (path, row) in session.children(&nodes[at].path.clone())? {
            if row.entry.is_dir() && row.role == Role::Plain {
                nodes.push(node(path));
                let child = nodes.len() - 1;
                nodes[at].children.push(child);
            } else {
                nodes[at].leaves += 1;
            }
        }
        at += 1;
    }
    Ok(nodes)
}

fn mark_by_weight(
    session: &mut Session<'_>,
    dir: &RepoPath,
    style: &MarkerStyle,
    report: &mut Report,
) -> Result<(), CatalogsError> {
    let Some(row) = session.lookup(dir)? else {
        return Err(CatalogsError::ParentMissing(dir.clone()));
    };
    for name in [MARKER, AUTO_MARKER] {
        let marker = join(dir, name)?;
        if session.lookup(&marker)?.is_none() {
            session.insert(&marker, style.entry(&row.entry))?;
            report.generated.push(marker);
        }
    }
    session.split(dir, &row)
}

/// Numbers hard-link groups: `members` are names of one inode in one directory.
pub(crate) fn join_group(
    session: &mut Session<'_>,
    dir: &RepoPath,
    members: &[RepoPath],
) -> Result<(), CatalogsError> {
    let mut rows: Vec<(RepoPath, Row)> = Vec::new();
    for path in members {
        if let Some(row) = session.lookup(path)?
            && row.entry.regular().is_some()
        {
            rows.push((path.clone(), row));
        }
    }
    let links = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let Some(((_, first), _)) = rows.split_first() else {
        return Ok(());
    };
    let joined = first.link_group != 0
        && rows
            .iter()
            .all(|(_, row)| row.link_group == first.link_group && row.linkcount == links);
    if links < 2 || joined {
        return Ok(());
    }
    let home = session.content_home(dir)?;
    let group = session.max_link_group(&home)? + 1;
    for (path, old) in rows {
        let row = Row {
            linkcount: links,
            link_group: group,
            ..old.clone()
        };
        if old.link_group != 0 {
            session.regroup.insert(dir.clone());
        }
        session.rewrite(&path, &old, &row)?;
    }
    Ok(())
}

/// Counts anew the groups of directories in which members were changed or removed.
pub(crate) fn settle_groups(session: &mut Session<'_>) -> Result<(), CatalogsError> {
    for dir in std::mem::take(&mut session.regroup) {
        let rows: Vec<(RepoPath, Row)> = session
            .children(&dir)?
            .into_iter()
            .filter(|(_, row)| row.link_group != 0)
            .collect();
        for (path, old) in &rows {
            let members = rows.iter().filter(|(_, r)| r.link_group == old.link_group);
            let linkcount = u32::try_from(members.count()).unwrap_or(u32::MAX);
            if linkcount == old.linkcount {
                continue;
            }
            let row = Row {
                linkcount,
                link_group: if linkcount > 1 { old.link_group } else { 0 },
                ..old.clone()
            };
            session.rewrite(path, old, &row)?;
        }
    }
    Ok(())
}
