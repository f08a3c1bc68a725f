//! What `cvmfs_server` published, held against what was staged.
//!
//! Looked at is each path that was to change, and each directory around one. Left to `cvmfs_server` are
//! sizes of directories, groups of hard links, permissions of links, the root directory's row, and the
//! catalog markers that its own `.cvmfsdirtab` and balancing make, with the times of the directories they
//! are made in. Nothing is changed here.

use std::fmt;

use formats::entry::{Entry, Kind, Regular};
use formats::path::{Name, RepoPath};
use store::{ObjectStore, Revision};

use super::apply::{copy, touched};
use super::error::ServerError;
use crate::difference::{Step, bare};

/// Most differences that are named.
const NAMED_MAX: usize = 100;
/// What `cvmfs_server` makes by itself in directories.
const MARKERS: [&[u8]; 2] = [b".cvmfscatalog", b".cvmfsautocatalog"];

/// A path that is published as it was not staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: RepoPath,
    /// What differs.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// What is published, and what should be.
pub(super) struct Compare<'a> {
    pub wanted: &'a Revision,
    pub published: &'a Revision,
    /// Where objects of both are.
    pub objects: &'a dyn ObjectStore,
}

impl Compare<'_> {
    /// An error that names what differs.
    pub(super) fn all(&self, steps: &[Step], revision: u64) -> Result<(), ServerError> {
        let (mut named, mut more) = (Vec::new(), 0);
        let mut look = |path: &RepoPath| {
            if let Some(what) = self.one(path)? {
                match named.len() < NAMED_MAX {
                    true => named.push(Difference {
                        path: path.clone(),
                        what,
                    }),
                    false => more += 1,
                }
            }
            Ok::<_, ServerError>(())
        };
        for step in steps {
            look(&step.path)?;
        }
        for dir in touched(steps) {
            let is_listed = steps.binary_search_by(|step| step.path.cmp(&dir)).is_ok();
            if !is_listed && !dir.is_root() {
                look(&dir)?;
            }
        }
        match named.is_empty() {
            true => Ok(()),
            false => Err(ServerError::Differs {
                revision,
                named,
                more,
            }),
        }
    }

    fn one(&self, path: &RepoPath) -> Result<Option<String>, ServerError> {
        let find = |revision: &Revision| {
            let row = revision.find(path).map_err(ServerError::Revisions)?;
            Ok::<_, ServerError>(row.map(|row| bare(&row.entry)))
        };
        let (wanted, published) = (find(self.wanted)?, find(self.published)?);
        match (wanted, published) {
            (None, None) => Ok(None),
            (None, Some(_)) if is_marker(path) => Ok(None),
            (None, Some(_)) => Ok(Some("it is still there".to_owned())),
            (Some(_), None) => Ok(Some("it is missing".to_owned())),
            (Some(wanted), Some(published)) => self.entries(path, &wanted, &published),
        }
    }

    fn entries(
        &self,
        path: &RepoPath,
        wanted: &Entry,
        published: &Entry,
    ) -> Result<Option<String>, ServerError> {
        let mut differs = Vec::new();
        if wanted.mode() != published.mode() {
            differs.push(format!(
                "mode {:o} instead of {:o}",
                published.mode(),
                wanted.mode()
            ));
        }
        if (wanted.uid, wanted.gid) != (published.uid, published.gid) {
            differs.push(format!(
                "owner {}:{} instead of {}:{}",
                published.uid, published.gid, wanted.uid, wanted.gid
            ));
        }
        if wanted.mtime != published.mtime && !self.has_new_marker(path, published)? {
            differs.push(format!(
                "modified at {} instead of {}",
                published.mtime.secs, wanted.mtime.secs
            ));
        }
        if wanted.xattrs != published.xattrs {
            differs.push("other extended attributes".to_owned());
        }
        match (&wanted.kind, &published.kind) {
            (Kind::Regular(wanted), Kind::Regular(published))
                if self.same_content(path, wanted, published)? => {}
            (Kind::Regular(_), Kind::Regular(_)) => differs.push("other content".to_owned()),
            (Kind::Symlink(wanted), Kind::Symlink(published)) if wanted != published => {
                differs.push("another target".to_owned());
            }
            (wanted, published) if wanted != published => {
                differs.push("another type or device number".to_owned());
            }
            _ => {}
        }
        Ok((!differs.is_empty()).then(|| differs.join(", ")))
    }

    /// Equal objects, or, where the file was cut or compressed in another way, equal bytes.
    fn same_content(
        &self,
        path: &RepoPath,
        wanted: &Regular,
        published: &Regular,
    ) -> Result<bool, ServerError> {
        if wanted == published {
            return Ok(true);
        }
        if (wanted.size, wanted.external, wanted.direct_io)
            != (published.size, published.external, published.direct_io)
        {
            return Ok(false);
        }
        let digest = |file| {
            let mut hasher = formats::Hasher::new(formats::Algorithm::Sha1);
            copy(self.objects, path, file, &mut |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            Ok::<_, ServerError>(hasher.finish())
        };
        Ok(digest(wanted)? == digest(published)?)
    }

    /// True for a directory in which `cvmfs_server` made a marker.
    fn has_new_marker(&self, path: &RepoPath, published: &Entry) -> Result<bool, ServerError> {
        if !published.is_dir() {
            return Ok(false);
        }
        for name in MARKERS {
            let Ok(name) = Name::new(name) else {
                continue;
            };
            let marker = path.join(&name);
            let there = |revision: &Revision| {
                let row = revision.find(&marker).map_err(ServerError::Revisions)?;
                Ok::<_, ServerError>(row.is_some())
            };
            if there(self.published)? && !there(self.wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_marker(path: &RepoPath) -> bool {
    path.name()
        .is_some_and(|name| MARKERS.contains(&name.as_bytes()))
}
