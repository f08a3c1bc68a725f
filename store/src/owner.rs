//! Whose new files are: where root writes into another user's directories, that user's.
//!
//! `cvmfs_server` runs what it runs on a repository as the repository's owner, who must be able to
//! open, replace and lock whatever lies there. Nothing here changes what is there already.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Uid};
use rustix::io::Errno;

/// A user and a group that new files are given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// Who gets new files in a directory; none if they are its owner's anyway, or cannot be given away.
    ///
    /// # Errors
    /// A directory that cannot be looked at.
    pub fn of(dir: impl AsFd) -> Result<Option<Self>, Errno> {
        let stat = rustix::fs::fstat(dir)?;
        let is_given = rustix::process::geteuid().is_root() && stat.st_uid != 0;
        Ok(is_given.then(|| Self {
            uid: Uid::from_raw(stat.st_uid),
            gid: Gid::from_raw(stat.st_gid),
        }))
    }

    /// True if a file of this user is this owner's.
    #[must_use]
    pub fn is(&self, uid: u32) -> bool {
        self.uid.as_raw() == uid
    }

    /// Gives away an open file.
    ///
    /// # Errors
    /// `EPERM` in a user namespace that does not know the owner.
    pub fn take(&self, file: impl AsFd) -> Result<(), Errno> {
        rustix::fs::fchown(file, Some(self.uid), Some(self.gid))
    }

    /// Gives away a file by its name in a directory; a link itself, not what it names.
    ///
    /// # Errors
    /// As [`Owner::take`].
    pub fn take_at(&self, dir: impl AsFd, name: impl AsRef<Path>) -> Result<(), Errno> {
        let (uid, gid) = (Some(self.uid), Some(self.gid));
        rustix::fs::chownat(dir, name.as_ref(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    use formats::{Hash, ObjectKind, ObjectName};

    use crate::{DirStore, Durability, ObjectStore};

    const DAEMON: u32 = 1;

    /// Objects that are written or linked, and root files.
    #[test]
    fn what_root_writes_is_the_directorys_owners() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (root, staged) = (dir.path().join("storage"), dir.path().join("staged"));
        DirStore::create(&root, Durability::Batch).unwrap();
        chown(&root, Some(DAEMON), Some(DAEMON)).unwrap();
        let storage = DirStore::open(&root, Durability::Batch).unwrap();
        let name = |bytes: &[u8]| {
            ObjectName::new(Hash::of(formats::Algorithm::Sha1, bytes), ObjectKind::Data)
        };
        crate::put(&storage, &name(b"written"), b"written").unwrap();
        std::fs::write(&staged, b"linked").unwrap();
        storage.adopt(&staged, &name(b"linked")).unwrap().unwrap();
        storage.write_root(".cvmfspublished", b"manifest").unwrap();
        let owner = |file: &str| std::fs::metadata(root.join(file)).unwrap().uid();
        for file in [
            name(b"written").storage_path(),
            name(b"linked").storage_path(),
            ".cvmfspublished".to_owned(),
        ] {
            assert_eq!(owner(&file), DAEMON, "{file}");
        }
        // and a link itself, not what it names
        let outside = dir.path().join("outside");
        std::fs::write(&outside, b"").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let fd = std::fs::File::open(&root).unwrap();
        let owner = super::Owner::of(&fd).unwrap().unwrap();
        owner.take_at(&fd, "link").unwrap();
        assert_eq!(std::fs::metadata(&outside).unwrap().uid(), 0);
        assert_eq!(
            std::fs::symlink_metadata(root.join("link")).unwrap().uid(),
            DAEMON
        );
    }
}
