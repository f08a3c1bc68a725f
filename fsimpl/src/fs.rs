//! The filesystem's operations, in our own types and testable without a mount.
//!
//! [`Fs`] is the mount point: a directory of repositories. An inode number or handle carries in its
//! upper bits which repository it belongs to; everything else is the [`Stage`]'s business. This
//! module must not know FUSE, and keeps no state of files.
//!
//! ```text
//! inode, handle:  [ 12 bits: repository, 0 = the mount point itself | 52 bits: within it ]
//! ```

mod operations;
mod root;
mod route;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{FsError, Result};
use crate::space::Space;
use crate::stage::Stage;
use crate::sync::RwLock;
use crate::types::{Clock, DirEntryPlus, Handle, Ino, Notifier, Time};
use route::tagged;

/// Bits of an inode number or handle that belong to the repository.
const LOCAL_BITS: u32 = 52;
const LOCAL_MASK: u64 = (1 << LOCAL_BITS) - 1;
/// Repositories below one mount point: what the upper bits can tell apart, without 0.
pub const MAX_REPOSITORIES: usize = 4000;
/// The one handle of the mount point's own directory; it has no state.
const ROOT_HANDLE: Handle = Handle(1);

/// Takes a directory entry, or breaks off where there is no more room for it.
pub type Emit<'a> = dyn FnMut(&DirEntryPlus<'_>) -> ControlFlow<()> + 'a;

struct Mounted {
    tag: u64,
    stage: Arc<Stage>,
}

/// The mount point and the repositories below it.
pub struct Fs {
    clock: Clock,
    started: Time,
    owner: (u32, u32),
    repositories: RwLock<BTreeMap<String, Mounted>>,
    notifier: RwLock<Option<Arc<dyn Notifier>>>,
}

impl Fs {
    /// A mount point without repositories, whose directory belongs to `owner` (uid, gid).
    #[must_use]
    pub fn new(clock: Clock, owner: (u32, u32)) -> Self {
        Self {
            clock,
            started: clock(),
            owner,
            repositories: RwLock::default(),
            notifier: RwLock::default(),
        }
    }

    /// Puts a repository below the mount point.
    ///
    /// # Errors
    /// [`FsError::Exists`] if one of that name is there; [`FsError::NoSpace`] beyond
    /// [`MAX_REPOSITORIES`].
    pub fn add_repository(&self, stage: Arc<Stage>) -> Result<()> {
        let name = stage.repository_name().to_owned();
        let mut repositories = self.repositories.write();
        if repositories.contains_key(&name) {
            return Err(FsError::Exists);
        }
        if repositories.len() >= MAX_REPOSITORIES {
            return Err(FsError::NoSpace);
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        // one above the highest tag is kept free, so that handles never reach u64::MAX
        let space = (1 << (64 - LOCAL_BITS)) - 2;
        let mut tag = hasher.finish() % space + 1;
        while repositories.values().any(|other| other.tag == tag) {
            tag = tag % space + 1;
        }
        if let Some(notifier) = &*self.notifier.read() {
            stage.set_notifier(Some(tagged(tag, notifier)));
        }
        repositories.insert(name.clone(), Mounted { tag, stage });
        drop(repositories);
        self.root_changed(&name);
        Ok(())
    }

    fn root_changed(&self, name: &str) {
        let notifier = self.notifier.read().clone();
        if let Some(notifier) = notifier {
            notifier.inval_entry(Ino::ROOT, name.as_bytes());
            notifier.inval_inode(Ino::ROOT);
        }
    }

    /// Takes a repository away from below the mount point; its open handles become invalid.
    pub fn remove_repository(&self, name: &str) -> Option<Arc<Stage>> {
        let mounted = self.repositories.write().remove(name)?;
        mounted.stage.set_notifier(None);
        self.root_changed(name);
        Some(mounted.stage)
    }

    /// The stage of a repository.
    #[must_use]
    pub fn repository(&self, name: &str) -> Option<Arc<Stage>> {
        let repositories = self.repositories.read();
        repositories.get(name).map(|m| Arc::clone(&m.stage))
    }

    /// All stages, by name.
    #[must_use]
    pub fn repositories(&self) -> Vec<Arc<Stage>> {
        let repositories = self.repositories.read();
        repositories
            .values()
            .map(|m| Arc::clone(&m.stage))
            .collect()
    }

    /// The filesystem that all stages lie on; none without repositories.
    pub(crate) fn space(&self) -> Option<Arc<Space>> {
        let repositories = self.repositories.read();
        let first = repositories.values().next();
        first.map(|mounted| Arc::clone(mounted.stage.space()))
    }

    /// Says who hears of changes made behind the kernel's back, in repositories added later, too.
    pub fn set_notifier(&self, notifier: &Arc<dyn Notifier>) {
        *self.notifier.write() = Some(Arc::clone(notifier));
        for mounted in self.repositories.read().values() {
            let tagged = tagged(mounted.tag, notifier);
            mounted.stage.set_notifier(Some(tagged));
        }
    }

    /// Now, by the clock the mount was given.
    #[must_use]
    pub fn now(&self) -> Time {
        (self.clock)()
    }
}
