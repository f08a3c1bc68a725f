//! The filesystem that a daemon's state lies on: in memory, recorded, faulty on demand, mounted
//! through FUSE.
//!
//! What it does not have: unnamed temporary files (fuser 0.18 has no such request; a storage then
//! names them, which takes the same durable steps), shared extents, and news of syncfs, which the
//! kernel sends to no filesystem of its kind. The program tells of that under `failpoints`, by asking
//! for an attribute (store/src/sync.rs). No page is cached, so that every read and write gets here.

pub mod faults;
mod places;
mod record;
mod serve;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::{BackgroundSession, Config, MountOption};

use faults::Faults;
pub use record::{Record, Rules};
use serve::Adapter;
pub use tree::Tree;

/// Requests served at once. Those that hang keep a thread each: more than a daemon has threads that
/// may meet them.
const THREADS: usize = 48;

/// A moment at which the power might have gone.
pub struct Cut {
    pub record: Record,
    /// What the workload's clock said.
    pub clock: u64,
}

/// The mounted layer; taken off when dropped.
pub struct Layer {
    adapter: Adapter,
    mountpoint: PathBuf,
    session: Option<BackgroundSession>,
}

impl Layer {
    /// Mounts a filesystem that holds `tree`. `clock` is read at the cut.
    pub fn mount(tree: Tree, mountpoint: &Path, clock: Arc<AtomicU64>) -> Self {
        let adapter = Adapter::over(tree, clock);
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("prepub-layer".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(adapter.clone(), mountpoint, &config).unwrap();
        Self {
            adapter,
            mountpoint: mountpoint.to_owned(),
            session: Some(session),
        }
    }

    /// All that is on it now.
    pub fn tree(&self) -> Tree {
        self.cut().record.live().clone()
    }

    /// What goes wrong on it.
    pub fn faults(&self) -> Arc<Faults> {
        Arc::clone(&self.adapter.faults)
    }

    /// The power may go after so many more changes.
    pub fn cut_after(&self, changes: u64) {
        self.adapter.state.lock().cut_after(changes);
    }

    /// The power goes now, if it has not gone yet.
    pub fn cut(&self) -> Cut {
        let clock = self.adapter.clock.load(Ordering::SeqCst);
        self.adapter.state.lock().cut_now(clock)
    }

    /// True if it has gone.
    pub fn is_cut(&self) -> bool {
        self.adapter.state.lock().is_cut()
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.faults().clear();
        let detach = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(&self.mountpoint, detach) {
            eprintln!("cannot take off the layer: {error}");
        }
        drop(self.session.take());
    }
}
