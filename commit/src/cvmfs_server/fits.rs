//! Changes that a transaction of `cvmfs_server` has no way to make. Pure decisions on values.

use formats::entry::{Entry, Kind};
use formats::path::RepoPath;
use rustix::process::{getegid, geteuid, getgroups};

use super::apply::GRAFT;
use crate::publisher::{Refused, RefusedWhy};

/// Most refused changes that are named.
const NAMED_MAX: usize = 1000;
/// Attributes that the union keeps its own affairs in.
const OVERLAY_XATTR: &[u8] = b"trusted.overlay.";

/// Who makes the changes.
pub(super) struct Maker {
    is_root: bool,
    uid: u32,
    gids: Vec<u32>,
}

/// What is refused.
#[derive(Debug, Default)]
pub(super) struct Unfit {
    pub named: Vec<Refused>,
    pub more: u64,
}

impl Maker {
    /// This process.
    pub(super) fn this_process() -> Self {
        let gids = getgroups().unwrap_or_default();
        Self {
            is_root: geteuid().is_root(),
            uid: geteuid().as_raw(),
            gids: gids
                .into_iter()
                .chain([getegid()])
                .map(|g| g.as_raw())
                .collect(),
        }
    }

    /// What of these entries is refused.
    pub(super) fn refuses<'e>(
        &self,
        entries: impl Iterator<Item = (&'e RepoPath, &'e Entry)>,
    ) -> Unfit {
        let mut unfit = Unfit::default();
        for (path, entry) in entries {
            let Some(why) = self.why_not(path, entry) else {
                continue;
            };
            match unfit.named.len() < NAMED_MAX {
                true => unfit.named.push(Refused {
                    path: path.clone(),
                    why,
                }),
                false => unfit.more += 1,
            }
        }
        unfit
    }

    fn why_not(&self, path: &RepoPath, entry: &Entry) -> Option<RefusedWhy> {
        let name = path.name();
        if name.is_some_and(|name| name.as_bytes().starts_with(GRAFT)) {
            return Some(RefusedWhy::GraftName);
        }
        let own = |name: &Vec<u8>| name.starts_with(OVERLAY_XATTR);
        if matches!(entry.kind, Kind::CharDevice(0)) || entry.xattrs.keys().any(own) {
            return Some(RefusedWhy::UnionsOwn);
        }
        if let Kind::Regular(file) = &entry.kind
            && (file.external || file.direct_io)
        {
            return Some(RefusedWhy::ExternalFile);
        }
        if self.is_root {
            return None;
        }
        if matches!(entry.kind, Kind::CharDevice(_) | Kind::BlockDevice(_)) {
            return Some(RefusedWhy::NeedsRoot);
        }
        let is_mine = entry.uid == self.uid && self.gids.contains(&entry.gid);
        (!is_mine).then_some(RefusedWhy::OtherOwner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::entry::{Mtime, Xattrs};

    #[test]
    fn who_may_make_what() {
        let entry = |kind, uid, gid| Entry {
            kind,
            perm: 0o644,
            uid,
            gid,
            mtime: Mtime::default(),
            xattrs: Xattrs::new(),
        };
        let maker = |is_root| Maker {
            is_root,
            uid: 7,
            gids: vec![7, 8],
        };
        let path = |text: &str| text.parse().unwrap();
        let (root, owner) = (maker(true), maker(false));
        let fifo = |uid, gid| entry(Kind::Fifo, uid, gid);
        let judged = [
            (&owner, "/a", fifo(7, 8), None),
            (&owner, "/a", fifo(7, 9), Some(RefusedWhy::OtherOwner)),
            (&owner, "/a", fifo(0, 7), Some(RefusedWhy::OtherOwner)),
            (&root, "/a", fifo(0, 7), None),
            (
                &owner,
                "/a",
                entry(Kind::CharDevice(259), 7, 7),
                Some(RefusedWhy::NeedsRoot),
            ),
            (&root, "/a", entry(Kind::CharDevice(259), 7, 7), None),
            (
                &root,
                "/a",
                entry(Kind::CharDevice(0), 7, 7),
                Some(RefusedWhy::UnionsOwn),
            ),
            (
                &root,
                "/d/.cvmfsgraft-a",
                fifo(0, 0),
                Some(RefusedWhy::GraftName),
            ),
        ];
        for (maker, at, entry, why) in judged {
            let (at, entries): (RepoPath, _) = (path(at), entry);
            let unfit = maker.refuses([(&at, &entries)].into_iter());
            assert_eq!(unfit.named.first().map(|refused| refused.why), why, "{at}");
        }
    }
}
