//! The two mounts that `cvmfs_server` keeps of a repository on its release manager's machine.
//!
//! ```text
//! SPOOL/rdonly    cvmfs2: the revision that the next transaction starts from
//! /cvmfs/REPO     overlayfs upon it: writable while a transaction is open
//! ```
//!
//! `cvmfs_server transaction` looks whether the first one shows the newest revision, and only then
//! waits for its turn; what it publishes replaces everything that came between [CVMFS
//! `publish/repository_transaction.cc:TransactionRetry`, `cvmfs_server_publish.sh`]. So the mounts go
//! on to a new revision before others get their turn, by the official helper, which may do so for
//! root and for the repository's owner.
//!
//! Nothing here forces a mount that is in use: those who look at it may go on. Where nothing is
//! mounted nothing is done, and `cvmfs_server` mounts when it needs to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use formats::hash::Hash;

use crate::home::RepoHome;

/// Mounts and unmounts for those who own a repository.
const HELPER: &str = "/usr/bin/cvmfs_suid_helper";
/// The revision that a mount shows.
const ROOT_HASH: &str = "user.root_hash";
/// Longest text of a hash, with room for algorithms to come.
const HASH_BYTES_MAX: usize = 256;

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct Mounts {
    name: String,
    rdonly: PathBuf,
    union: PathBuf,
}

impl Mounts {
    /// Those of a repository of `cvmfs_server`.
    pub(crate) fn of(home: &RepoHome) -> Self {
        let conf = home.conf().ok();
        let union = conf.as_ref().and_then(|conf| conf.get("CVMFS_UNION_DIR"));
        let default = || Path::new("/cvmfs").join(&home.name);
        Self {
            name: home.name.clone(),
            rdonly: home.spool_dir.join("rdonly"),
            union: union.map_or_else(default, PathBuf::from),
        }
    }

    /// Where the union is.
    pub(crate) fn union(&self) -> &Path {
        &self.union
    }

    /// True if something is mounted there.
    pub(crate) fn is_there(&self) -> bool {
        options(&self.union).is_some()
    }

    /// True if a transaction has made the union writable.
    pub(crate) fn is_writable(&self) -> bool {
        options(&self.union).is_some_and(|options| options.split(',').any(|option| option == "rw"))
    }

    /// The root catalog that the lower mount shows; none if nothing is mounted.
    pub(crate) fn shown(&self) -> Option<Hash> {
        options(&self.rdonly)?;
        let mut text = [0_u8; HASH_BYTES_MAX];
        let length = rustix::fs::getxattr(&self.rdonly, ROOT_HASH, &mut text[..]).ok()?;
        std::str::from_utf8(&text[..length]).ok()?.parse().ok()
    }

    /// Lets both go on to a revision that is published and pinned.
    ///
    /// # Errors
    /// They show the old one: somebody uses them, or we may not.
    pub(super) fn follow(&self, root: &Hash) -> io::Result<()> {
        if self.shown().is_none_or(|shown| shown == *root) {
            return Ok(());
        }
        self.help("rw_umount")?;
        let moved = self
            .help("rdonly_umount")
            .and_then(|()| self.help("rdonly_mount"));
        // whatever became of the lower one, the upper one belongs there
        self.help("rw_mount").and(moved)
    }

    fn help(&self, verb: &str) -> io::Result<()> {
        let status = Command::new(HELPER)
            .args([verb, &self.name])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            // a mount lives on, and would keep a pipe open
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("{HELPER} {verb}: {status}"))),
        }
    }
}

/// How a directory is mounted; none if it is no mount point.
fn options(dir: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    options_in(&table, dir.to_str()?)
}

/// The options of the topmost mount on a directory [proc(5), `mountinfo`].
fn options_in(table: &str, dir: &str) -> Option<String> {
    let lines = table.lines().rev();
    lines
        .map(|line| line.split(' ').skip(4))
        .find_map(|mut fields| (fields.next()? == dir).then(|| fields.next())?)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_counts() {
        let table = "45 27 0:42 / /s/rdonly ro,nodev - fuse a.example.org ro,user_id=0\n\
                     48 27 0:43 / /cvmfs/a ro,nodev,relatime - overlay o ro,lowerdir=/s/rdonly\n\
                     49 27 0:44 / /cvmfs/a rw,nodev - overlay o rw\n";
        assert_eq!(options_in(table, "/cvmfs/a").as_deref(), Some("rw,nodev"));
        assert_eq!(options_in(table, "/s/rdonly").as_deref(), Some("ro,nodev"));
        assert_eq!(options_in(table, "/s"), None);
    }
}
