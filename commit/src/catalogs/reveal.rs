//! Changes that a gateway's receiver would not see, made visible to it.
//!
//! A receiver compares rows by name, link count, size, mode, time, symlink, content hash, and flags
//! [CVMFS `directory_entry.cc:CompareTo`]. It does not compare owners, values of extended attributes,
//! compression or chunks, and a chunked file has no content hash: a change of those alone is lost.
//! Such a row gets a time that is later by the least step there is; then the whole row is carried.
//!
//! Catalogs that are published as they are, below the lease and nested before and after, need none of
//! this. Nothing else is changed here.

use formats::catalog::{Role, Row};
use formats::changeset::{Change, Children, Op};
use formats::entry::{Kind, Mtime, Regular};
use formats::hash::Hash;
use formats::object::Content;
use formats::path::RepoPath;
use store::Revision;

use super::CatalogsError;
use super::session::Session;

const NANOS_MAX: u32 = 999_999_999;

/// Makes what `changes` did visible to a receiver that merges what lies below `scope`.
pub(super) fn reveal(
    session: &mut Session<'_>,
    base: &Revision,
    scope: &RepoPath,
    changes: &[Change],
) -> Result<(), CatalogsError> {
    let mut pass = Pass {
        session,
        base,
        scope,
        last_home: None,
    };
    for change in changes {
        let Op::Put { children, .. } = &change.op else {
            continue;
        };
        if change.path.is_root() {
            continue;
        }
        pass.row(&change.path)?;
        if matches!(children, Children::From(_)) {
            pass.below(&change.path)?;
        }
    }
    Ok(())
}

struct Pass<'p, 's> {
    session: &'p mut Session<'s>,
    base: &'p Revision,
    scope: &'p RepoPath,
    /// The catalog that was looked at last, and whether it is published as it is.
    last_home: Option<(RepoPath, bool)>,
}

impl Pass<'_, '_> {
    fn published(&self, path: &RepoPath) -> Result<Option<std::sync::Arc<Row>>, CatalogsError> {
        self.base.find(path).map_err(|source| CatalogsError::Read {
            prefix: path.clone(),
            source,
        })
    }

    fn row(&mut self, path: &RepoPath) -> Result<(), CatalogsError> {
        let Some(row) = self.session.lookup(path)? else {
            return Ok(());
        };
        let Some(old) = self.published(path)? else {
            return Ok(());
        };
        let swapped = row.role == Role::Mountpoint && old.role == Role::Mountpoint;
        if swapped || !is_hidden_change(&old, &row) || self.is_taken_as_it_is(path)? {
            return Ok(());
        }
        let mut later = row.clone();
        later.entry.mtime = after(row.entry.mtime);
        self.session.rewrite(path, &row, &later)
    }

    /// A directory that came from elsewhere may stand where another one stood.
    fn below(&mut self, dir: &RepoPath) -> Result<(), CatalogsError> {
        let mut pending = vec![dir.clone()];
        while let Some(dir) = pending.pop() {
            let old = self.published(&dir)?;
            let Some(old) = old.filter(|old| old.entry.is_dir()) else {
                continue;
            };
            let now = self.session.lookup(&dir)?;
            let both_nested =
                now.is_some_and(|now| now.role == Role::Mountpoint) && old.role == Role::Mountpoint;
            if both_nested && dir.is_within(self.scope) {
                continue;
            }
            for (path, row) in self.session.children(&dir)? {
                self.row(&path)?;
                if row.entry.is_dir() {
                    pending.push(path);
                }
            }
        }
        Ok(())
    }

    /// True if the catalog of this row is nested, before and after, below the scope.
    fn is_taken_as_it_is(&mut self, path: &RepoPath) -> Result<bool, CatalogsError> {
        let home = self.session.entry_home(path)?;
        if let Some((last, answer)) = &self.last_home
            && *last == home
        {
            return Ok(*answer);
        }
        let answer = !home.is_root()
            && home.is_within(self.scope)
            && self
                .published(&home)?
                .is_some_and(|row| row.role == Role::Mountpoint);
        self.last_home = Some((home, answer));
        Ok(answer)
    }
}

/// True if two rows differ, and not in what a receiver compares.
fn is_hidden_change(old: &Row, new: &Row) -> bool {
    let (was, is) = (&old.entry, &new.entry);
    let seen = old.linkcount != new.linkcount
        || (old.role == Role::Mountpoint) != (new.role == Role::Mountpoint)
        || was.mode() != is.mode()
        || was.size() != is.size()
        || moment(was.mtime) != moment(is.mtime)
        || was.xattrs.is_empty() != is.xattrs.is_empty()
        || content_is_seen(&was.kind, &is.kind);
    !seen && was != is
}

/// Absent fractions may be equal to none, so they do not count as a difference.
fn moment(mtime: Mtime) -> (i64, u32) {
    (mtime.secs, mtime.nanos.unwrap_or_default())
}

fn content_is_seen(old: &Kind, new: &Kind) -> bool {
    match (old, new) {
        (Kind::Symlink(old), Kind::Symlink(new)) => old != new,
        (Kind::Regular(old), Kind::Regular(new)) => {
            compared(old) != compared(new)
                || old.external != new.external
                || old.direct_io != new.direct_io
        }
        _ => false,
    }
}

/// The content hash of the row, and the flag of chunked files.
fn compared(file: &Regular) -> (Option<Hash>, bool) {
    match &file.content {
        Content::Whole(hash) => (Some(*hash), false),
        Content::Chunks { bulk, .. } => (*bulk, true),
    }
}

/// The next moment that the row can hold.
fn after(mtime: Mtime) -> Mtime {
    match mtime.nanos {
        Some(nanos) if nanos < NANOS_MAX => Mtime {
            nanos: Some(nanos + 1),
            ..mtime
        },
        nanos => Mtime {
            // at the end of time one earlier has to do
            secs: mtime.secs.checked_add(1).unwrap_or(mtime.secs - 1),
            nanos: nanos.map(|_| 0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::entry::Entry;
    use formats::hash::Algorithm;
    use formats::object::{Chunk, Compression};

    fn row(kind: Kind) -> Row {
        let entry = Entry {
            kind,
            perm: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: 5,
                nanos: None,
            },
            xattrs: [(b"user.a".to_vec(), b"1".to_vec())].into(),
        };
        let path: RepoPath = "/x".parse().unwrap();
        crate::catalogs::session::make_row(&path, entry, 1, 0, false)
    }

    fn chunked(seed: &[u8]) -> Kind {
        let chunk = |offset| Chunk {
            offset,
            size: 5,
            hash: Hash::of(Algorithm::Sha1, seed),
        };
        Kind::Regular(Regular {
            size: 10,
            content: Content::Chunks {
                bulk: None,
                chunks: vec![chunk(0), chunk(5)],
            },
            compression: Compression::Zlib,
            external: false,
            direct_io: false,
            link_group: 0,
        })
    }

    #[test]
    fn what_a_receiver_misses() {
        let old = row(chunked(b"a"));
        let changed = |change: &dyn Fn(&mut Row)| {
            let mut new = old.clone();
            change(&mut new);
            is_hidden_change(&old, &new)
        };
        assert!(!changed(&|_| {}), "no change at all");
        assert!(changed(&|row| row.entry.uid = 7));
        assert!(changed(&|row| row.entry.gid = 7));
        assert!(changed(&|row| row.entry.kind = chunked(b"b")));
        assert!(changed(&|row| {
            row.entry.xattrs.insert(b"user.a".to_vec(), b"2".to_vec());
        }));
        assert!(!changed(&|row| row.entry.xattrs.clear()));
        assert!(!changed(&|row| row.entry.perm = 0o600));
        assert!(!changed(&|row| row.entry.mtime = after(row.entry.mtime)));
        assert!(!changed(&|row| row.linkcount = 2));
    }

    #[test]
    fn the_least_step() {
        let at = |secs, nanos| Mtime { secs, nanos };
        assert_eq!(after(at(-1, None)), at(0, None));
        assert_eq!(after(at(3, Some(7))), at(3, Some(8)));
        assert_eq!(after(at(3, Some(NANOS_MAX))), at(4, Some(0)));
        assert_eq!(after(at(i64::MAX, None)), at(i64::MAX - 1, None));
    }
}
