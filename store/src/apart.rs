//! Directories that lie apart on the disk.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// Has directories that are made below an open one from now on lie apart, where the filesystem knows how to.
///
/// ext4 looks for a new file's inode where its directory lies, and there looks at each inode that was freed
/// within the last minutes only to pass over it [Linux, `fs/ext4/ialloc.c:recently_deleted`]. Files of a
/// stage go all at once, with the commit; in one place they would make each of the next ones several times
/// as slow.
pub fn place_apart(dir: impl AsFd) {
    if let Ok(flags) = ioctl_getflags(&dir) {
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::{DirStore, Durability};

    #[test]
    fn a_storage_s_directories_lie_apart_where_they_can() {
        let dir = tempfile::tempdir().unwrap();
        let [ours, other] = ["ours", "other"].map(|name| dir.path().join(name));
        DirStore::create(&ours, Durability::Batch).unwrap();
        fs::create_dir(&other).unwrap();
        let [ours, other] = [ours.join("data"), other].map(|path| File::open(path).unwrap());
        let asked = ioctl_getflags(&other).and_then(|flags| {
            let flags = flags | IFlags::TOPDIR;
            ioctl_setflags(&other, flags)
        });
        let is_set = ioctl_getflags(&ours).is_ok_and(|flags| flags.contains(IFlags::TOPDIR));
        assert_eq!(is_set, asked.is_ok());
    }
}
