//! Who is at the other end of the control socket, by the kernel's word.
//!
//! The only unsafe code of the program is here: `SO_PEERGROUPS` has no safe wrapper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A process's user and all of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// The one at the other end, as it was when it connected.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn of(socket: &tokio::net::UnixStream) -> io::Result<Self> {
        let credentials = socket.peer_cred()?;
        Ok(Self {
            uid: credentials.uid(),
            gid: credentials.gid(),
            groups: groups(socket.as_fd())?,
        })
    }

    /// This process.
    #[cfg(test)]
    pub fn this_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: rustix::process::getgroups()
                .map(|groups| groups.into_iter().map(|g| g.as_raw()).collect())
                .unwrap_or_default(),
        }
    }

    /// True if it is in the group.
    #[must_use]
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Supplementary groups of a socket's peer.
fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX
    const GROUPS_MAX: usize = 65_536;
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(groups.len() * size_of::<u32>()).map_err(io::Error::other)?;
        // SAFETY: `groups` is writable for the `bytes` bytes that the kernel is told of, and
        // `bytes` outlives the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count > GROUPS_MAX {
            return Err(error);
        }
        groups.resize(count.max(groups.len() * 2), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sees_this_process() {
        let (a, _b) = tokio::net::UnixStream::pair().unwrap();
        let mut peer = Peer::of(&a).unwrap();
        let mut this = Peer::this_process();
        peer.groups.sort_unstable();
        this.groups.sort_unstable();
        assert_eq!(peer, this);
    }
}
