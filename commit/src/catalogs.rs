//! A base revision and a change set, made into new catalogs.
//!
//! ```text
//! Plan::of      opens the catalogs that changed paths lead through, applies the changes,
//!               the dirtab, the markers, the balance           (nothing is stored)
//! Plan::close   writes, compresses and stores what changed, from the leaves up
//! ```
//!
//! Only catalogs on changed paths are read or written, and no file's bytes ever. What is published
//! is decided by the caller: nothing here writes a manifest.

pub(crate) mod apply;
pub(crate) mod finish;
pub(crate) mod markers;
mod reveal;
pub(crate) mod session;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::changeset::ChangeSet;
use formats::compress::compress;
use formats::dirtab::Dirtab;
use formats::hash::{Algorithm, Hash};
use formats::limit::{LimitExceeded, LimitKind};
use formats::object::{Compression, ObjectKind, ObjectName};
use formats::path::{PathError, RepoPath};
use formats::server_conf::Params;
use store::{ObjectStore, RepoError, Repository, StoreError};

use crate::policy::{self, Dropped};
use apply::{Applier, Rules};
use finish::{Closed, Seal};
use markers::MarkerStyle;
use session::Session;

/// Why catalogs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CatalogsError {
    /// A published catalog could not be read.
    #[error("cannot read the published catalog for {prefix}")]
    Read {
        /// The directory it was wanted for.
        prefix: RepoPath,
        /// Why.
        source: RepoError,
    },
    /// A catalog that is being changed.
    #[error("cannot change the catalog of {prefix}")]
    Catalog {
        /// Where it begins.
        prefix: RepoPath,
        /// Why.
        source: formats::catalog::CatalogError,
    },
    /// A published catalog that says it belongs elsewhere.
    #[error("catalog {hash} is linked at {expected}, but says that it belongs to {found}")]
    WrongPlace {
        /// The catalog.
        hash: Hash,
        /// Where it is linked.
        expected: RepoPath,
        /// Where it says it belongs.
        found: RepoPath,
    },
    /// A row with an impossible name.
    #[error("a row in {dir} has an impossible name")]
    BadRow {
        /// The directory.
        dir: RepoPath,
        /// Why.
        source: PathError,
    },
    /// A file in the working directory.
    #[error("cannot use {path}")]
    Work {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An object could not be stored.
    #[error("cannot store a new object of kind {kind:?}")]
    Put {
        /// What it holds.
        kind: ObjectKind,
        /// Why.
        source: StoreError,
    },
    /// The directory that a change stands in is not there.
    #[error("the directory that {0} stands in is not published any more")]
    ParentMissing(RepoPath),
    /// The source of a move is not there.
    #[error("{path} was moved from {source_path}, which is no published directory")]
    SourceMissing {
        /// Where it was moved to.
        path: RepoPath,
        /// Where it came from.
        source_path: RepoPath,
    },
    /// The source of a move is in an older revision alone, and cannot be read there.
    #[error(
        "{path} was moved from {source_path}, whose catalogs are those of an older revision and cannot be read any more; if a garbage collection took them, `prepub abort` {path} and make it again"
    )]
    SourceUnreadable {
        /// Where it was moved to.
        path: RepoPath,
        /// Where it came from.
        source_path: RepoPath,
        /// Why.
        source: RepoError,
    },
    /// A marker in the root directory.
    #[error("/.cvmfscatalog: the root directory always has a catalog of its own; remove the file")]
    MarkerInRoot,
    /// A marker that is no regular file.
    #[error("{0} has to be a regular file; remove it or replace it by an empty file")]
    MarkerNotRegular(RepoPath),
    /// The name that CVMFS keeps for itself.
    #[error("{0}: CernVM-FS keeps /.cvmfs for itself; use another name")]
    Reserved(RepoPath),
    /// A tag that `/.cvmfs/snapshots` should show.
    #[error(
        "the tag {tag:?} cannot be shown in /.cvmfs/snapshots; remove it with `prepub tag remove {repo} {tag}`, or set CVMFS_VIRTUAL_DIR=false"
    )]
    Snapshot {
        /// Of which repository.
        repo: String,
        /// Its name.
        tag: String,
        /// Why its revision cannot be read.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The root directory was removed or replaced.
    #[error("the root directory can be neither removed nor replaced")]
    RootReplaced,
    /// A nested catalog without an object when its parent is written.
    #[error("internal fault: the catalog of {0} was not written before its parent")]
    Unwritten(RepoPath),
    /// The rules for nested catalogs.
    #[error("/.cvmfsdirtab")]
    Dirtab {
        /// What is wrong with it.
        source: formats::dirtab::DirtabError,
    },
    /// Its content could not be read.
    #[error("cannot read the content of {path}")]
    Content {
        /// Which file.
        path: RepoPath,
        /// Why.
        source: crate::content::ContentError,
    },
}

/// What was done, and what deserves to be said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files, links and special files that were added or changed.
    pub files: u64,
    /// Directories that were added or changed.
    pub directories: u64,
    /// Entries that were removed, each with everything below it.
    pub removed: u64,
    /// Bytes of the files counted in `files`, uncompressed.
    pub bytes_raw: u64,
    /// Extended attributes that are not published.
    pub dropped_xattrs: Dropped,
    /// Special files that the repository does not keep.
    pub special_skipped: Vec<RepoPath>,
    /// Markers that were made.
    pub generated: Vec<RepoPath>,
    /// Directories whose generated markers were taken away again.
    pub ungenerated: Vec<RepoPath>,
    /// Directories that stayed heavier than balancing wants.
    pub overweight: Vec<RepoPath>,
    /// Hard-link groups that were broken up: the names of each.
    pub broken_links: Vec<Vec<RepoPath>>,
    /// Limits that are exceeded.
    pub limits: Vec<LimitExceeded>,
}

/// A catalog that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCatalog {
    /// Where it begins.
    pub path: RepoPath,
    /// Its object.
    pub hash: Hash,
    /// The object it replaces.
    pub previous: Option<Hash>,
    /// The length of its file.
    pub bytes: u64,
    /// The length of its object.
    pub stored_bytes: u64,
    /// False if the same object was there already.
    pub is_new: bool,
    /// Rows.
    pub entries: i64,
}

/// What a plan is made from.
pub(crate) struct Wish<'a> {
    pub(crate) change_set: &'a ChangeSet,
    pub(crate) params: &'a Params,
    /// Where the change set's objects lie before they are stored.
    pub(crate) staged: &'a dyn ObjectStore,
    pub(crate) storage: &'a dyn ObjectStore,
    pub(crate) remake_parents: bool,
    /// Where rows are merged by a receiver: what lies below this path alone, and not what it misses.
    pub(crate) merged_below: Option<&'a RepoPath>,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

impl Wish<'_> {
    /// True if what changes at `path` is published.
    fn reaches(&self, path: &RepoPath) -> bool {
        self.merged_below.is_none_or(|scope| path.is_within(scope))
    }
}

/// Changed catalogs, open and unstored.
pub(crate) struct Plan<'a> {
    session: Session<'a>,
    /// What was done.
    pub(crate) report: Report,
    algorithm: Algorithm,
    ttl_seconds: u64,
    /// Objects that generated markers need.
    empty_objects: Vec<(ObjectName, Vec<u8>)>,
    /// Objects that have to be there although the change set does not list them.
    pub(crate) referred: Vec<(ObjectName, RepoPath)>,
}

impl<'a> Plan<'a> {
    /// Applies a change set to the revision `base`. `work` is an empty directory.
    pub(crate) fn of(
        repo: &'a Arc<Repository>,
        base: &Hash,
        wish: &Wish<'_>,
        work: &'a Path,
    ) -> Result<Self, CatalogsError> {
        let params = wish.params;
        let mut session = Session::new(repo, base, work)?;
        let (dirtab, dirtab_changed) = effective_dirtab(&mut session, wish)?;
        let rules = Rules {
            params,
            dirtab: dirtab.as_ref(),
            remake_parents: wish.remake_parents,
        };
        let mut applier = Applier::new(&mut session, rules, &wish.change_set.changes)?;
        applier.run()?;
        let (mut touched, mut report) = (applier.touched, applier.report);

        let by_dirtab = style(params, params.compression, wish.now, 0o644);
        let by_weight = MarkerStyle {
            nanos: None,
            ..style(params, Compression::Zlib, wish.now, 0o600)
        };
        if let Some(rules) = &dirtab {
            if dirtab_changed {
                touched
                    .directories
                    .append(&mut markers::dirtab_candidates(&mut session, rules)?);
            }
            touched.directories.retain(|dir| wish.reaches(dir));
            let directories = &touched.directories;
            let made =
                markers::apply_dirtab(&mut session, rules, directories, &by_dirtab, &mut report)?;
            touched.markers.extend(made);
        }
        markers::settle(&mut session, &touched.markers)?;
        if params.hardlink_groups {
            for ((dir, _), members) in &touched.links {
                markers::join_group(&mut session, dir, members)?;
            }
        } else {
            report.broken_links = broken(&touched);
        }
        markers::settle_groups(&mut session)?;
        if let Some(weights) = &params.autocatalogs
            && wish.merged_below.is_none_or(RepoPath::is_root)
        {
            let weights = markers::Balance {
                min: weights.min,
                max: weights.max,
            };
            markers::balance(&mut session, weights, &by_weight, &mut report)?;
        }
        session.settle_linkcounts()?;
        touched.implicit.retain(|(dir, _)| wish.reaches(dir));
        publish_implicit_times(&mut session, &touched)?;
        if let Some(scope) = wish.merged_below {
            let published = published(repo, base)?;
            reveal::reveal(&mut session, &published, scope, &wish.change_set.changes)?;
        }
        report.limits = limits(&session, wish);
        Ok(Self {
            session,
            empty_objects: match report.generated.is_empty() {
                true => Vec::new(),
                false => empty_objects(params),
            },
            report,
            algorithm: params.algorithm,
            ttl_seconds: params.ttl_seconds,
            referred: touched.referred,
        })
    }

    /// True if a revision made of this would equal its base.
    pub(crate) fn is_empty(&self) -> bool {
        !self.session.is_dirty()
    }

    /// Where the catalogs begin that differ from what is published.
    pub(crate) fn changed_catalogs(&self) -> Vec<RepoPath> {
        self.session.changed()
    }

    /// The catalog in which the row of `path` ends up.
    pub(crate) fn catalog_of(&mut self, path: &RepoPath) -> Result<RepoPath, CatalogsError> {
        self.session.entry_home(path)
    }

    /// Stores the changed catalogs.
    pub(crate) fn close(
        self,
        storage: &dyn ObjectStore,
        now: i64,
        revision_min: u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Closed, CatalogsError> {
        for (name, bytes) in &self.empty_objects {
            store::put_whole(storage, name, bytes).map_err(|source| CatalogsError::Put {
                kind: name.kind,
                source,
            })?;
        }
        let seal = Seal {
            now,
            ttl_seconds: self.ttl_seconds,
            algorithm: self.algorithm,
            revision_min,
        };
        finish::close(self.session, seal, storage, progress)
    }
}

/// What the markers are that are made here: empty files, compressed in two ways.
fn empty_objects(params: &Params) -> Vec<(ObjectName, Vec<u8>)> {
    let object = |how| {
        let bytes = compress(how, b"");
        let hash = Hash::of(params.algorithm, &bytes);
        (ObjectName::new(hash, ObjectKind::Data), bytes)
    };
    [params.compression, Compression::Zlib].map(object).into()
}

fn published(repo: &Arc<Repository>, base: &Hash) -> Result<Arc<store::Revision>, CatalogsError> {
    repo.revision(base).map_err(|source| CatalogsError::Read {
        prefix: RepoPath::root(),
        source,
    })
}

fn style(params: &Params, compression: Compression, now: i64, perm: u16) -> MarkerStyle {
    MarkerStyle {
        empty: Hash::of(params.algorithm, &compress(compression, b"")),
        compression,
        now,
        nanos: params.mtime_ns.then_some(0),
        perm,
    }
}

/// The rules that hold after the change, and whether they changed.
fn effective_dirtab(
    session: &mut Session<'_>,
    wish: &Wish<'_>,
) -> Result<(Option<Dirtab>, bool), CatalogsError> {
    use formats::changeset::Op;
    let path = RepoPath::new(b"/.cvmfsdirtab").map_err(|source| CatalogsError::BadRow {
        dir: RepoPath::root(),
        source,
    })?;
    let published = session.lookup(&path)?.map(|row| row.entry);
    let changes = &wish.change_set.changes;
    let listed = changes
        .binary_search_by(|change| change.path.cmp(&path))
        .ok();
    let wanted = match listed.map(|at| &changes[at].op) {
        Some(Op::Remove) => None,
        // a look ahead may come before it is sealed; a commit never gets here with such a file
        Some(Op::Put { entry, .. }) if is_unsealed(entry) => published.clone(),
        Some(Op::Put { entry, .. }) => Some(entry.clone()),
        None => published.clone(),
    };
    let content = |entry: &Option<formats::Entry>| {
        entry
            .as_ref()
            .and_then(|entry| entry.regular())
            .map(|file| file.content.clone())
    };
    let changed = content(&wanted) != content(&published);
    let Some(file) = wanted.as_ref().and_then(|entry| entry.regular()) else {
        return Ok((None, changed));
    };
    let bytes = crate::content::read(&[wish.staged, wish.storage], file).map_err(|source| {
        CatalogsError::Content {
            path: path.clone(),
            source,
        }
    })?;
    let dirtab = Dirtab::parse(&bytes).map_err(|source| CatalogsError::Dirtab { source })?;
    Ok((Some(dirtab), changed))
}

fn is_unsealed(entry: &formats::Entry) -> bool {
    entry
        .regular()
        .is_some_and(|file| file.content.objects().any(|name| name.hash.is_null()))
}

/// Implicit times of directories go along with a real change, and alone are none. A directory of
/// which only a generated marker was removed, in vain, keeps its time.
fn publish_implicit_times(
    session: &mut Session<'_>,
    touched: &apply::Touched,
) -> Result<(), CatalogsError> {
    if !session.is_dirty() {
        return Ok(());
    }
    for (dir, mtime) in &touched.implicit {
        if touched.kept_markers.contains(dir) && !touched.effective.contains(dir) {
            continue;
        }
        let Some(old) = session.lookup(dir)? else {
            continue;
        };
        if old.entry.mtime != *mtime {
            let mut row = old.clone();
            row.entry.mtime = *mtime;
            session.rewrite(dir, &old, &row)?;
        }
    }
    Ok(())
}

fn broken(touched: &apply::Touched) -> Vec<Vec<RepoPath>> {
    let mut groups: std::collections::BTreeMap<u64, Vec<RepoPath>> = Default::default();
    for ((_, inode), names) in &touched.links {
        groups.entry(*inode).or_default().extend(names.clone());
    }
    groups
        .into_values()
        .filter(|names| names.len() > 1)
        .collect()
}

fn limits(session: &Session<'_>, wish: &Wish<'_>) -> Vec<LimitExceeded> {
    let limits = &wish.params.limits;
    let mut exceeded = Vec::new();
    for (prefix, open) in &session.open {
        let (limit, max) = if prefix.is_root() {
            (LimitKind::RootEntries, limits.root_entries)
        } else {
            (LimitKind::NestedEntries, limits.nested_entries)
        };
        let value = u64::try_from(open.counts.entries()).unwrap_or_default();
        if open.dirty && max > 0 && value > max {
            exceeded.push(LimitExceeded {
                path: prefix.clone(),
                limit,
                value,
                max,
            });
        }
    }
    exceeded.extend(policy::oversized(wish.params, wish.change_set));
    exceeded
}
