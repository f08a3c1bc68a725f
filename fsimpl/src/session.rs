//! Putting the filesystem on a mount point, and taking it off again.
//!
//! A daemon that was killed leaves a mount point on which every call fails (ENOTCONN): it is
//! detached before the next mount. Anything else that stands in the way is refused by name. The
//! FUSE library itself is `fuse.rs`'s business.

mod table;
mod users;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::fs::Fs;
use crate::fuse::{self, Running};
use crate::types::Notifier;

pub use table::Holder;
pub use users::{User, users_below};

/// How the kernel lists our mounts: `fuse.` and this.
pub const SUBTYPE: &str = "prepub";

/// How the filesystem is mounted.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// Everybody may use the mount, within the permissions that it shows; as root, or where
    /// `/etc/fuse.conf` says `user_allow_other`.
    pub allow_other: bool,
    /// Threads that take requests from the kernel; by default as many as cores, 2 to 4.
    pub threads: Option<usize>,
}

/// Why something cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is nothing to mount on.
    #[error("the mount point {0} does not exist; make it with `mkdir -p {0}`")]
    Missing(PathBuf),
    /// It cannot carry a mount.
    #[error("the mount point {0} is not a directory")]
    NotADirectory(PathBuf),
    /// What is in it would be hidden.
    #[error("the mount point {0} is not empty, and a mount would hide what is in it")]
    NotEmpty(PathBuf),
    /// prepub is there.
    #[error("prepub is already mounted on {0}; `prepub unmount {0}` takes it off")]
    AlreadyMounted(PathBuf),
    /// Something else is there.
    #[error("{mountpoint} is already a mount point ({fstype} of {source_name})")]
    Occupied {
        /// Where.
        mountpoint: PathBuf,
        /// Its filesystem type.
        fstype: String,
        /// What is mounted.
        source_name: String,
    },
    /// Files are open, or somebody's working directory is in it.
    #[error("{0} is in use; close the files that are open there (`fuser -vm {0}` lists who)")]
    Busy(PathBuf),
    /// A dead daemon's mount cannot be detached.
    #[error(
        "{mountpoint} has the mount of a daemon that is gone, and it cannot be detached; try `umount -l {mountpoint}` as root"
    )]
    Stale {
        /// Where.
        mountpoint: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel, or `fusermount3`, refused.
    #[error("cannot mount on {mountpoint}; `prepub doctor` says what is missing")]
    Refused {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anything else about the mount point.
    #[error("{action} {mountpoint}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        mountpoint: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A mounted filesystem.
pub struct Session {
    mountpoint: PathBuf,
    /// Tells this mount from any other that may come to stand there.
    device: Option<String>,
    running: Running,
}

/// Mounts. A dead daemon's mount is taken off first.
///
/// # Errors
/// [`MountError`].
pub fn mount(
    fs: Arc<Fs>,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Session, MountError> {
    let mountpoint = prepare(mountpoint)?;
    match fuse::start(fs, &mountpoint, options) {
        Ok(running) => Ok(Session {
            device: device_at(&mountpoint),
            mountpoint,
            running,
        }),
        Err(source) => Err(MountError::Refused { mountpoint, source }),
    }
}

impl Session {
    /// Where it is mounted: an absolute path without symbolic links.
    #[must_use]
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Who tells the kernel what changed: for [`Fs::set_notifier`] after a repository was added.
    #[must_use]
    pub fn notifier(&self) -> &Arc<dyn Notifier> {
        self.running.notifier()
    }

    /// True once it was unmounted, by whomever.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running.is_finished()
    }

    /// Waits until it was unmounted, by whomever.
    ///
    /// # Errors
    /// [`MountError::Io`] when the connection to the kernel broke.
    pub fn wait(self) -> Result<(), MountError> {
        let mountpoint = self.mountpoint;
        self.running.join().map_err(|source| MountError::Io {
            action: "serve",
            mountpoint,
            source,
        })
    }

    /// Takes the mount off, if it is there still; refuses while files are open. [`Session::wait`]
    /// then returns, once no other mount namespace has it.
    ///
    /// # Errors
    /// [`MountError::Busy`], [`MountError::Io`].
    pub fn unmount(&self) -> Result<(), MountError> {
        self.take_off(false)
    }

    /// Takes the mount off the tree at once; what is open goes on until it is closed.
    ///
    /// # Errors
    /// [`MountError::Io`].
    pub fn detach(&self) -> Result<(), MountError> {
        self.take_off(true)
    }

    fn take_off(&self, lazy: bool) -> Result<(), MountError> {
        let unmounted = unmount(&self.mountpoint, lazy);
        // somebody was faster, or it was taken off before and lives on elsewhere
        if unmounted.is_err() && self.device.is_some() && device_at(&self.mountpoint) != self.device
        {
            return Ok(());
        }
        unmounted
    }

    /// Who keeps it alive after it was taken off: processes in mount namespaces of their own, which
    /// were made while it stood.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let device = self.device.as_deref();
        device.map(table::elsewhere).unwrap_or_default()
    }
}

fn device_at(mountpoint: &Path) -> Option<String> {
    let mount = table::at(mountpoint).ok().flatten()?;
    Some(mount.device)
}

/// What stands at a mount point.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Free,
    Stale,
    Prepub,
    Other { fstype: String, source_name: String },
}

/// Makes sure that the mount point can be used; returns its absolute path.
fn prepare(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let absolute =
        std::path::absolute(mountpoint).map_err(|source| io_error("find", mountpoint, source))?;
    if look(&absolute)? == Found::Stale {
        detach_stale(&absolute)?;
    }
    let absolute = fs::canonicalize(&absolute).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => MountError::Missing(absolute.clone()),
        _ => io_error("find", &absolute, source),
    })?;
    match look(&absolute)? {
        Found::Free => {}
        Found::Stale => detach_stale(&absolute)?,
        Found::Prepub => return Err(MountError::AlreadyMounted(absolute)),
        Found::Other {
            fstype,
            source_name,
        } => {
            return Err(MountError::Occupied {
                mountpoint: absolute,
                fstype,
                source_name,
            });
        }
    }
    if !absolute.is_dir() {
        return Err(MountError::NotADirectory(absolute));
    }
    let mut entries = fs::read_dir(&absolute).map_err(|e| io_error("list", &absolute, e))?;
    if entries.next().is_some() {
        return Err(MountError::NotEmpty(absolute));
    }
    Ok(absolute)
}

fn look(mountpoint: &Path) -> Result<Found, MountError> {
    match fs::metadata(mountpoint) {
        Err(e) if e.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()) => {
            return Ok(Found::Stale);
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing(mountpoint.to_owned()));
        }
        _ => {}
    }
    let mount = table::at(mountpoint).map_err(|e| io_error("look up", mountpoint, e))?;
    Ok(match mount {
        None => Found::Free,
        Some(mount) => match mount.fstype.as_str() {
            "fuse.prepub" if is_deaf(mountpoint) => Found::Stale,
            "fuse.prepub" => Found::Prepub,
            _ => Found::Other {
                fstype: mount.fstype,
                source_name: mount.source_name,
            },
        },
    })
}

/// True if nobody answers any more. The kernel may know the attributes of a dead mount's root for
/// as long as they were said to hold; how much room there is it has to ask.
fn is_deaf(mountpoint: &Path) -> bool {
    rustix::fs::statfs(mountpoint).is_err_and(|e| e == Errno::NOTCONN)
}

/// True if a live prepub is mounted there.
#[must_use]
pub fn is_mounted(mountpoint: &Path) -> bool {
    matches!(look(mountpoint), Ok(Found::Prepub))
}

/// True if a dead daemon's mount is there: every call on it fails with ENOTCONN.
#[must_use]
pub fn is_stale(mountpoint: &Path) -> bool {
    matches!(look(mountpoint), Ok(Found::Stale))
}

fn detach_stale(mountpoint: &Path) -> Result<(), MountError> {
    tracing::info!(mountpoint = %mountpoint.display(), "detaching the mount of a daemon that is gone");
    take_off(mountpoint, true).map_err(|source| MountError::Stale {
        mountpoint: mountpoint.to_owned(),
        source,
    })
}

/// Takes a mount of ours off, whoever serves it.
///
/// # Errors
/// [`MountError::Busy`] unless `lazy`, [`MountError::Io`].
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    take_off(mountpoint, lazy).map_err(|source| {
        if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
            return MountError::Busy(mountpoint.to_owned());
        }
        io_error("unmount", mountpoint, source)
    })
}

fn take_off(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::NOFOLLOW
    };
    match rustix::mount::unmount(mountpoint, flags) {
        Err(Errno::PERM) => take_off_unprivileged(mountpoint, lazy),
        other => other.map_err(io::Error::from),
    }
}

/// Ordinary users unmount through the setuid helper.
fn take_off_unprivileged(mountpoint: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(Errno::BUSY.into());
    }
    Err(io::Error::other(said))
}

fn io_error(action: &'static str, mountpoint: &Path, source: io::Error) -> MountError {
    MountError::Io {
        action,
        mountpoint: mountpoint.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_carry_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(prepare(&missing), Err(MountError::Missing(_))));
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(prepare(&file), Err(MountError::NotADirectory(_))));
        assert!(matches!(prepare(dir.path()), Err(MountError::NotEmpty(_))));
        assert!(matches!(
            prepare(Path::new("/proc")),
            Err(MountError::Occupied { .. })
        ));
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        assert_eq!(prepare(&empty).unwrap(), fs::canonicalize(&empty).unwrap());
    }
}
