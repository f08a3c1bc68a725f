//! What of a staged entry a repository publishes: extended attributes, fractions of seconds,
//! special files.
//!
//! Pure decisions on values. Nothing here reads a catalog or a file.

use formats::changeset::{ChangeSet, Op};
use formats::entry::{Entry, Kind};
use formats::limit::{LimitExceeded, LimitKind};
use formats::path::RepoPath;
use formats::server_conf::Params;

/// Longest value of an extended attribute. CVMFS's tools drop values of more than 256 bytes and
/// corrupt those of exactly 256 [`xattr.cc:Serialize`, a length of one byte].
pub const XATTR_VALUE_BYTES_MAX: usize = 255;

/// Most extended attributes of one entry: their number is stored in one byte.
pub const XATTRS_MAX: usize = 255;

/// Host policy, not content: never published.
const NEVER_PUBLISHED: &[u8] = b"security.selinux";

/// An extended attribute that is staged, but not published.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DroppedXattr {
    /// Of which entry.
    pub path: RepoPath,
    /// Its name.
    pub name: Vec<u8>,
    /// Why not.
    pub why: DropReason,
}

/// Most dropped attributes that are named; on a host with SELinux every file has one.
pub const DROPPED_NAMED_MAX: usize = 10_000;

/// Extended attributes that are not published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// At most [`DROPPED_NAMED_MAX`].
    pub named: Vec<DroppedXattr>,
    /// How many more there are.
    pub more: u64,
}

impl Dropped {
    fn add(&mut self, path: &RepoPath, name: &[u8], why: DropReason) {
        if self.named.len() >= DROPPED_NAMED_MAX {
            self.more += 1;
            return;
        }
        self.named.push(DroppedXattr {
            path: path.clone(),
            name: name.to_vec(),
            why,
        });
    }
}

/// Why an extended attribute is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// `CVMFS_INCLUDE_XATTRS` is not on.
    NotIncluded,
    /// Longer than [`XATTR_VALUE_BYTES_MAX`].
    TooLong,
    /// More than [`XATTRS_MAX`] on one entry.
    TooMany,
    /// `security.selinux`.
    HostPolicy,
}

/// True if the repository keeps entries of this type.
#[must_use]
pub fn is_kept(params: &Params, entry: &Entry) -> bool {
    !params.ignore_special_files || !is_special(entry)
}

/// True for fifos, sockets and devices.
#[must_use]
pub fn is_special(entry: &Entry) -> bool {
    matches!(
        entry.kind,
        Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_)
    )
}

/// The entry as it is published at `path`; what is left out is appended to `dropped`.
#[must_use]
pub fn publishable(
    params: &Params,
    path: &RepoPath,
    entry: &Entry,
    dropped: &mut Dropped,
) -> Entry {
    let mut published = entry.clone();
    published.mtime.nanos = params
        .mtime_ns
        .then(|| entry.mtime.nanos.unwrap_or_default());
    if let Kind::Regular(file) = &mut published.kind {
        file.link_group = 0;
    }
    let mut kept = 0;
    published.xattrs.retain(|name, value| {
        let why = if name.as_slice() == NEVER_PUBLISHED {
            Some(DropReason::HostPolicy)
        } else if !params.include_xattrs {
            Some(DropReason::NotIncluded)
        } else if value.len() > XATTR_VALUE_BYTES_MAX || name.len() > XATTR_VALUE_BYTES_MAX {
            Some(DropReason::TooLong)
        } else if kept == XATTRS_MAX {
            Some(DropReason::TooMany)
        } else {
            kept += 1;
            None
        };
        if let Some(why) = why {
            dropped.add(path, name, why);
        }
        why.is_none()
    });
    published
}

/// True if publishing `new` over `old` would change nothing that the repository keeps.
///
/// Fractions of seconds count only where they are published; a hard-link group is no property of
/// the entry.
#[must_use]
pub fn same(params: &Params, old: &Entry, new: &Entry) -> bool {
    let same_time = old.mtime.secs == new.mtime.secs
        && (!params.mtime_ns
            || old.mtime.nanos.unwrap_or_default() == new.mtime.nanos.unwrap_or_default());
    same_time
        && old.perm == new.perm
        && old.uid == new.uid
        && old.gid == new.gid
        && old.xattrs == new.xattrs
        && same_content(&old.kind, &new.kind)
}

/// True if two entries are of one type and hold the same.
pub(crate) fn same_content(old: &Kind, new: &Kind) -> bool {
    match (old, new) {
        (Kind::Regular(old), Kind::Regular(new)) => {
            old.size == new.size
                && old.content == new.content
                && old.compression == new.compression
                && old.external == new.external
                && old.direct_io == new.direct_io
        }
        // a directory's size is whatever filesystem it last lay on
        (Kind::Directory { .. }, Kind::Directory { .. }) => true,
        (old, new) => old == new,
    }
}

/// Files of a change set that are larger than the repository likes.
pub(crate) fn oversized<'a>(
    params: &Params,
    change_set: &'a ChangeSet,
) -> impl Iterator<Item = LimitExceeded> + 'a {
    let max = params.limits.file_bytes;
    change_set.changes.iter().filter_map(move |change| {
        let Op::Put { entry, .. } = &change.op else {
            return None;
        };
        let value = entry.regular()?.size;
        (max > 0 && value > max).then(|| LimitExceeded {
            path: change.path.clone(),
            limit: LimitKind::FileBytes,
            value,
            max,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::entry::{Mtime, Xattrs};

    fn dir(xattrs: &[(&[u8], usize)]) -> Entry {
        Entry {
            kind: Kind::Directory { size: 4096 },
            perm: 0o755,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: 1,
                nanos: Some(5),
            },
            xattrs: xattrs
                .iter()
                .map(|(name, len)| (name.to_vec(), vec![7; *len]))
                .collect::<Xattrs>(),
        }
    }

    #[test]
    fn long_and_host_attributes_are_left_out_and_named() {
        let params = Params {
            include_xattrs: true,
            ..Params::default()
        };
        let entry = dir(&[
            (b"security.selinux", 3),
            (b"user.a", 255),
            (b"user.b", 256),
            (b"user.c", 257),
        ]);
        let mut dropped = Dropped::default();
        let path = "/d".parse().unwrap();
        let published = publishable(&params, &path, &entry, &mut dropped);
        assert_eq!(published.xattrs.len(), 1);
        assert_eq!(published.mtime.nanos, None);
        let why: Vec<_> = dropped.named.iter().map(|d| d.why).collect();
        assert_eq!(
            why,
            [
                DropReason::HostPolicy,
                DropReason::TooLong,
                DropReason::TooLong
            ]
        );
    }

    #[test]
    fn fractions_count_only_where_they_are_published() {
        let coarse = Params::default();
        let fine = Params {
            mtime_ns: true,
            ..Params::default()
        };
        let (a, mut b) = (dir(&[]), dir(&[]));
        b.mtime.nanos = Some(6);
        assert!(same(&coarse, &a, &b));
        assert!(!same(&fine, &a, &b));
    }
}
