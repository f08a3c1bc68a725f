//! `/.cvmfs/snapshots`: each tag as a directory, where `CVMFS_VIRTUAL_DIR=true`.
//!
//! ```text
//! /.cvmfs                  hidden, 0555, a nested catalog of its own with a marker
//! /.cvmfs/snapshots/TAG    the root directory of the tagged revision; its catalog is bound in here
//! ```
//!
//! A tag cannot name the root catalog that shows it, so this is a revision of its own on top of the
//! one that was asked for; both become visible with one manifest. Rows are those of the official
//! tool [CVMFS `catalog_virtual.cc`], which makes that revision with every publication; here there is
//! none if it would show nothing new. Where the setting is off and the directory is there, it goes.
//!
//! Tags whose name is no name of a directory are not shown. Nothing here decides which tags there
//! are, and nothing signs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use formats::catalog::{NestedRef, Role, Row};
use formats::compress::compress;
use formats::entry::{Entry, Kind, Mtime, Regular, Xattrs};
use formats::hash::Hash;
use formats::history::{TRUNK, TRUNK_PREVIOUS, Tag};
use formats::object::{Compression, Content, ObjectKind, ObjectName};
use formats::path::{Name, RepoPath};
use formats::server_conf::Params;
use store::{ObjectStore, Repository};

use crate::catalogs::CatalogsError;
use crate::catalogs::apply::MARKER;
use crate::catalogs::finish::{self, Seal};
use crate::catalogs::session::{Session, make_row};
use crate::publisher::NewRevision;

/// What the official tool gives as the size of both directories.
const DIRECTORY_BYTES: u64 = 97;

/// What the directory is made from.
pub(crate) struct Show<'a> {
    pub(crate) repository: &'a Arc<Repository>,
    pub(crate) storage: &'a dyn ObjectStore,
    pub(crate) params: &'a Params,
    /// The root catalog that is published until now.
    pub(crate) published: Hash,
    /// All tags that there are with the revision below.
    pub(crate) tags: &'a [Tag],
    /// An empty directory.
    pub(crate) work: &'a Path,
}

/// The revision on top of `below` that shows the tags as `params` want it; none if `below` does.
pub(crate) fn on_top(
    below: &NewRevision,
    show: &Show<'_>,
) -> Result<Option<NewRevision>, CatalogsError> {
    let place = Place::new()?;
    // nobody but this module makes it: what is published, and at hand, says whether it is there
    if !show.params.virtual_dir && !place.is_published(show)? {
        return Ok(None);
    }
    let mut session = Session::new(show.repository, &below.root_hash, show.work)?;
    let stands = session.lookup(&place.dir)?;
    match (show.params.virtual_dir, stands) {
        (false, None) => return Ok(None),
        // somebody's own directory of that name, from before it was reserved
        (_, Some(row)) if row.role != Role::Mountpoint || !row.hidden => {
            return match show.params.virtual_dir {
                true => Err(CatalogsError::Reserved(place.dir)),
                false => Ok(None),
            };
        }
        (false, Some(row)) => session.remove_tree(&place.dir, &row)?,
        (true, None) => {
            place.make(&mut session, below.timestamp, show)?;
            place.fill(&mut session, show)?;
        }
        (true, Some(_)) => place.fill(&mut session, show)?,
    }
    session.settle_linkcounts()?;
    if !session.is_dirty() {
        return Ok(None);
    }
    let seal = Seal {
        now: below.timestamp,
        ttl_seconds: below.ttl_seconds,
        algorithm: show.params.algorithm,
        revision_min: below.revision.saturating_add(1),
    };
    let closed = finish::close(session, seal, show.storage, &mut |_, _| {})?;
    Ok(Some(NewRevision {
        root_hash: closed.root,
        root_bytes: closed.root_bytes,
        revision: closed.revision,
        previous_root: below.root_hash,
        ..below.clone()
    }))
}

/// The paths.
struct Place {
    dir: RepoPath,
    marker: RepoPath,
    snapshots: RepoPath,
}

impl Place {
    fn new() -> Result<Self, CatalogsError> {
        let root = RepoPath::root();
        let dir = join(&root, b".cvmfs")?;
        Ok(Self {
            marker: join(&dir, MARKER)?,
            snapshots: join(&dir, b"snapshots")?,
            dir,
        })
    }

    fn is_published(&self, show: &Show<'_>) -> Result<bool, CatalogsError> {
        let published = show.repository.revision(&show.published);
        published
            .and_then(|revision| revision.lookup(&self.dir))
            .map(|row| row.is_some())
            .map_err(|source| CatalogsError::Read {
                prefix: RepoPath::root(),
                source,
            })
    }

    /// The directory without any tag.
    fn make(
        &self,
        session: &mut Session<'_>,
        now: i64,
        show: &Show<'_>,
    ) -> Result<(), CatalogsError> {
        let entry = |kind, perm| Entry {
            kind,
            perm,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: now,
                nanos: None,
            },
            xattrs: Xattrs::new(),
        };
        let directory = entry(
            Kind::Directory {
                size: DIRECTORY_BYTES,
            },
            0o555,
        );
        session.insert_row(&self.dir, directory.clone(), 2, 0, true)?;
        let row = make_row(&self.dir, directory.clone(), 2, 0, true);
        session.make_nested(&self.dir, &row)?;
        let marker = Kind::Regular(Regular {
            size: 0,
            content: Content::Whole(store_empty(show)?),
            compression: Compression::Zlib,
            external: false,
            direct_io: false,
            link_group: 0,
        });
        session.insert(&self.marker, entry(marker, 0o444))?;
        session.insert(&self.snapshots, directory)
    }

    /// Binds in what is missing, and takes away what no tag names any more.
    fn fill(&self, session: &mut Session<'_>, show: &Show<'_>) -> Result<(), CatalogsError> {
        let mut wanted: BTreeMap<RepoPath, &Tag> = BTreeMap::new();
        for tag in show.tags {
            let follows = tag.name == TRUNK || tag.name == TRUNK_PREVIOUS;
            if let Some(name) = Name::new(tag.name.as_bytes()).ok().filter(|_| !follows) {
                wanted.insert(self.snapshots.join(&name), tag);
            }
        }
        for bound in session.bound(&self.snapshots)? {
            let same = wanted.get(&bound.path).map(|tag| tag.hash) == Some(bound.hash);
            match same {
                true => drop(wanted.remove(&bound.path)),
                false => session.unbind(&bound.path)?,
            }
        }
        for (path, tag) in wanted {
            let (row, size) = root_of(tag, &path, show)?;
            let bound = NestedRef {
                path,
                hash: tag.hash,
                size,
            };
            session.bind(&bound, &row)?;
        }
        Ok(())
    }
}

fn join(dir: &RepoPath, name: &[u8]) -> Result<RepoPath, CatalogsError> {
    let name = Name::new(name).map_err(|source| CatalogsError::BadRow {
        dir: dir.clone(),
        source,
    })?;
    Ok(dir.join(&name))
}

/// The root directory of a tagged revision as it is shown at `path`, and its catalog's length.
fn root_of(tag: &Tag, path: &RepoPath, show: &Show<'_>) -> Result<(Row, u64), CatalogsError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| CatalogsError::Snapshot {
        repo: show.repository.name().to_owned(),
        tag: tag.name.clone(),
        source,
    };
    let catalog = show.repository.catalog(&tag.hash, None);
    let catalog = catalog.map_err(|e| unreadable(e.into()))?;
    let root = catalog
        .with(|catalog| catalog.lookup_path(&RepoPath::root()))
        .map_err(|e| unreadable(e.into()))?
        .ok_or_else(|| unreadable("it has no root directory".into()))?;
    let entry = Entry {
        xattrs: Xattrs::new(),
        ..root.entry
    };
    let row = Row {
        role: Role::Bind,
        ..make_row(path, entry, root.linkcount, 0, false)
    };
    Ok((row, catalog.size()))
}

fn store_empty(show: &Show<'_>) -> Result<Hash, CatalogsError> {
    let bytes = compress(Compression::Zlib, b"");
    let hash = Hash::of(show.params.algorithm, &bytes);
    let name = ObjectName::new(hash, ObjectKind::Data);
    store::put(show.storage, &name, &bytes).map_err(|source| CatalogsError::Put {
        kind: name.kind,
        source,
    })?;
    Ok(hash)
}
