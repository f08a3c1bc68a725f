//! The kernel's words in ours, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileHandle, FopenFlags, INodeNo, Request, TimeOrNow};

use crate::types::{Attr, Caller, FileType, Handle, Ino, OpenFlags, SetTime, Time};

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
        umask,
    }
}

pub(super) fn ino(number: INodeNo) -> Ino {
    Ino(number.0)
}

pub(super) fn handle(number: FileHandle) -> Handle {
    Handle(number.0)
}

pub(super) fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Regular => fuser::FileType::RegularFile,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = system_time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime,
        ctime: system_time(attr.ctime),
        crtime: mtime,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        // the protocol's 32 bits are the lower ones of an st_rdev, for all that Linux has
        rdev: (attr.rdev & 0xffff_ffff) as u32,
        blksize: 4096,
        flags: 0,
    }
}

/// Attributes of nothing: inode 0 says that a name is not there, and may be remembered.
pub(super) fn nothing(number: Ino) -> Attr {
    let epoch = Time::default();
    Attr {
        ino: number,
        kind: FileType::Directory,
        perm: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 4096,
        blocks: 8,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
    }
}

/// Our time as fuser takes it, on its way to the kernel.
fn system_time(time: Time) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(UNIX_EPOCH)
}

/// The time that the kernel sent. fuser 0.18 turns (-2 s, 800 ms), which is 1.2 s before 1970, into
/// 2.8 s before; the two fields can be read back from that.
fn time_of(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                secs: 0_i64
                    .checked_sub_unsigned(before.as_secs())
                    .unwrap_or(i64::MIN),
                nanos: before.subsec_nanos(),
            }
        }
    }
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_of(time)),
    }
}

pub(super) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    let has = |flag| flags & flag != 0;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        truncate: has(libc::O_TRUNC),
        append: has(libc::O_APPEND),
        exclusive: has(libc::O_EXCL),
    }
}

/// What the kernel is told of an opened file: its pages are good, and a reader's close is no news.
pub(super) fn opened(flags: OpenFlags) -> FopenFlags {
    if flags.write {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
    }
}

/// The permission bits of a mode.
pub(super) fn perm(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_both_ways() {
        for (secs, nanos) in [
            (0, 0),
            (1, 999_999_999),
            (-1, 0),
            (-2, 800_000_000),
            (-1, 1),
            (i64::MAX, 999_999_999),
            (i64::MIN, 0),
            (i64::MIN, 5),
            (4_000_000_000, 1),
        ] {
            let time = Time { secs, nanos };
            let exact = system_time(time);
            // what a correct reading of the fields would be
            let back = match exact.duration_since(UNIX_EPOCH) {
                Ok(after) => (after.as_secs() as i64, after.subsec_nanos()),
                Err(before) => {
                    let d = before.duration();
                    let whole = 0_i64.checked_sub_unsigned(d.as_secs()).unwrap();
                    match d.subsec_nanos() {
                        0 => (whole, 0),
                        n => (whole - 1, 1_000_000_000 - n),
                    }
                }
            };
            assert_eq!(back, (secs, nanos));
        }
        // what fuser makes of the kernel's two fields, as it is written there
        for (secs, nanos) in [(-1_i64, 0_u32), (-2, 800_000_000), (-1, 1), (i64::MIN, 0)] {
            let read = UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos);
            assert_eq!(time_of(read), Time { secs, nanos });
        }
        let later = UNIX_EPOCH + Duration::new(5, 6);
        assert_eq!(time_of(later), Time { secs: 5, nanos: 6 });
    }

    #[test]
    fn flags_are_unpacked() {
        let flags = open_flags(libc::O_RDWR | libc::O_APPEND | libc::O_TRUNC);
        assert!(flags.read && flags.write && flags.append && flags.truncate && !flags.exclusive);
        let flags = open_flags(libc::O_WRONLY | libc::O_EXCL);
        assert!(!flags.read && flags.write && flags.exclusive && !flags.append);
        assert!(opened(open_flags(libc::O_RDONLY)).contains(FopenFlags::FOPEN_NOFLUSH));
        assert!(!opened(flags).contains(FopenFlags::FOPEN_NOFLUSH));
    }
}
