//! Syncing a whole filesystem: one call for any number of files.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// Asked of the directory under `failpoints`, to tell a filesystem that a test put below us.
#[cfg(feature = "failpoints")]
const SYNCED: &str = "user.prepub.syncfs";

/// Makes all that was written on an open directory's filesystem survive power loss.
///
/// The kernel passes this on to every local filesystem, but to none in userspace (FUSE): there only
/// fsync means something.
///
/// # Errors
/// When the system reports that something was lost.
pub fn sync_filesystem(dir: impl AsFd) -> Result<(), Errno> {
    rustix::fs::syncfs(&dir)?;
    #[cfg(feature = "failpoints")]
    {
        // nobody but that filesystem has an attribute of this name; there only a failure is an answer
        let mut nothing: [u8; 0] = [];
        let answer = rustix::fs::fgetxattr(&dir, SYNCED, &mut nothing);
        if let Err(error @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) = answer {
            return Err(error);
        }
    }
    Ok(())
}
