//! Records that can be read, and that nothing here ever wrote: what goes on from them would count
//! beyond all numbers, or follow parents without end. The engine's checksums keep damage on the disk
//! away from here; this is for all else.

use std::collections::HashSet;

use formats::Mtime;

use super::{Body, Data, Dentry, File, Record, Serial, Tree};
use crate::types::{Ino, Time};

/// Counts begin at 1 and go up by one with each change: none comes so far.
const COUNT_MAX: u64 = 1 << 62;
/// Largest file that the kernel knows.
const SIZE_MAX: u64 = i64::MAX as u64;
/// More subdirectories than any directory has.
const SUBDIRS_MAX: u32 = 1 << 30;
const NANOS_MAX: u32 = 999_999_999;
const PERM_MAX: u16 = 0o7777;

type Fault = Option<&'static str>;

fn count(stamp: u64, serial: Serial) -> Fault {
    (stamp > COUNT_MAX || serial.0 > COUNT_MAX).then_some("a count that is never reached")
}

fn time(nanos: impl IntoIterator<Item = u32>) -> Fault {
    let far = nanos.into_iter().any(|nanos| nanos > NANOS_MAX);
    far.then_some("a time with too many nanoseconds")
}

impl Record {
    /// What makes it impossible.
    pub(super) fn fault(&self) -> Fault {
        let Self { mtime, ctime, .. } = self;
        let atime = self.atime.map(|Time { nanos, .. }| nanos);
        let nanos = [ctime.nanos].into_iter().chain(mtime.nanos).chain(atime);
        let perm = (self.perm > PERM_MAX).then_some("permissions that are none");
        count(self.stamp, self.serial)
            .or(perm)
            .or_else(|| time(nanos))
            .or_else(|| match &self.body {
                Body::Directory(dir) => (dir.subdirs.unsigned_abs() > SUBDIRS_MAX)
                    .then_some("a number of subdirectories that is never reached"),
                Body::File(file) => file.fault(),
                _ => None,
            })
    }
}

impl File {
    fn fault(&self) -> Fault {
        let here = data_fault(self.size, &self.data, &Mtime::default());
        here.or_else(|| {
            let former = self.former.as_deref()?;
            data_fault(former.size, &former.data, &former.mtime)
        })
    }
}

fn data_fault(size: u64, data: &Data, mtime: &Mtime) -> Fault {
    let number = match data {
        Data::Published(_) => 0,
        Data::Staged { backing, sealed } => {
            let at = sealed.as_ref().map_or(0, |sealed| sealed.at);
            at.max(*backing)
        }
    };
    let size = (size > SIZE_MAX).then_some("a size that no file has");
    size.or_else(|| count(number, Serial::default()))
        .or_else(|| time(mtime.nanos))
}

impl Dentry {
    /// What makes it impossible.
    pub(super) fn fault(&self) -> Fault {
        count(self.stamp, self.published)
    }
}

impl Tree {
    /// True if `ino` would get a second name in `parent`, and is a directory. The root has its name
    /// outside of the repository.
    pub(super) fn is_second_name(&self, parent: Ino, ino: Ino) -> bool {
        let dir = |ino| self.node(ino).filter(|node| node.entries.is_some());
        let named = ino == Ino::ROOT || dir(ino).is_some_and(|node| !node.names.is_empty());
        named && dir(parent).is_some()
    }

    /// A directory that is below itself. Asked when all names are known, and before anything follows
    /// them up.
    pub(super) fn below_itself(&self) -> Option<Ino> {
        let mut ends: HashSet<Ino> = HashSet::from([Ino::ROOT]);
        let dirs = self.nodes.iter().filter(|(_, node)| node.entries.is_some());
        for (start, _) in dirs {
            let (mut at, mut way) = (*start, HashSet::new());
            while !ends.contains(&at) {
                if !way.insert(at) {
                    return Some(at);
                }
                let first = self.node(at).and_then(|node| node.names.first());
                let Some((parent, _)) = first else {
                    break;
                };
                at = parent;
            }
            ends.extend(way);
        }
        None
    }
}
