//! Where requests of the kernel become operations: the only room that names `fuser`.
//!
//! Each request is unpacked, given to [`Fs`] and answered; there is no state of files here. What
//! may take its time (copying published content, syncing, fetching) is answered from [`crate::aside`], so
//! that the threads that take requests never wait.
//!
//! What is negotiated, and why: plain writes, each of which reaches us before it returns (no
//! writeback cache, no passthrough). Entries, attributes and pages are cached for good and
//! invalidated exactly. O_TRUNC comes as a request of its own, once the kernel has made sure that
//! nobody executes the file: taken with the open, the running program would be gone before the
//! caller hears ETXTBSY. The kernel keeps locks, applies no umask (default ACLs replace it), and
//! strips set-ID bits itself (no `HANDLE_KILLPRIV`: we could not tell whose write it is).
//!
//! fuser 0.18 reads times before 1970 wrongly; `words.rs` puts that right. An overflow at
//! `i64::MIN` seconds is harmless without overflow checks, which the workspace's profiles turn off
//! for it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use fuser::{INodeNo, SessionACL};

use crate::device;
use crate::fs::Fs;
use crate::session::MountOptions;
use crate::sync::thread::JoinHandle;
use crate::sync::{Mutex, thread};
use crate::types::{Ino, Notifier};

mod answers;
mod patience;
mod requests;
mod words;

use requests::Adapter;

/// A mounted filesystem's threads.
pub(crate) struct Running {
    thread: JoinHandle<io::Result<()>>,
    notifier: Arc<dyn Notifier>,
}

/// Mounts, and serves in the background until unmounted.
pub(crate) fn start(fs: Arc<Fs>, mountpoint: &Path, options: &MountOptions) -> io::Result<Running> {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let mut config = fuser::Config::default();
    config.n_threads = Some(options.threads.unwrap_or(cores.clamp(2, 4)).max(1));
    config.clone_fd = device::is_accessible();
    // the kernel has checked who may ask
    config.acl = SessionACL::All;

    let kernel = device::mount(mountpoint, options.allow_other)?;
    let target = Arc::new(Kernel::default());
    let adapter = Adapter::new(Arc::clone(&fs), Arc::clone(&target));
    let begun =
        fuser::Session::from_fd(adapter, kernel, SessionACL::All, config).and_then(|session| {
            *target.0.lock() = Some(session.notifier());
            thread::Builder::new()
                .name("fuse".to_owned())
                .spawn(move || session.run())
        });
    match begun {
        Ok(thread) => {
            let notifier: Arc<dyn Notifier> = target;
            fs.set_notifier(&notifier);
            Ok(Running { thread, notifier })
        }
        Err(error) => {
            // nobody answers there: better no mount than one that hangs
            if let Err(error) = crate::session::unmount(mountpoint, true) {
                tracing::warn!(%error, "cannot take the mount off again");
            }
            Err(error)
        }
    }
}

impl Running {
    /// True once nobody is served any more.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells the kernel what changed behind its back.
    pub fn notifier(&self) -> &Arc<dyn Notifier> {
        &self.notifier
    }

    /// Waits until it was unmounted.
    pub fn join(self) -> io::Result<()> {
        let ended = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread that serves the mount panicked")));
        match ended {
            // one of several threads may see the end of the connection this way
            Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => Ok(()),
            ended => ended,
        }
    }
}

/// The kernel's caches; none once the mount is gone.
#[derive(Default)]
struct Kernel(Mutex<Option<fuser::Notifier>>);

impl Kernel {
    fn tell(&self, what: impl FnOnce(&fuser::Notifier) -> io::Result<()>) {
        let Some(notifier) = self.0.lock().clone() else {
            return;
        };
        if let Err(error) = what(&notifier) {
            // what the kernel does not know, it need not forget; a busy entry is asked for again
            tracing::debug!(%error, "an invalidation was not taken");
        }
    }
}

impl Notifier for Kernel {
    fn inval_inode(&self, ino: Ino) {
        self.tell(|kernel| kernel.inval_inode(INodeNo(ino.0), 0, 0));
    }

    fn inval_entry(&self, parent: Ino, name: &[u8]) {
        self.tell(|kernel| kernel.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name)));
    }
}
