//! Which repository an inode number or a handle belongs to, and back.

use std::sync::Arc;

use super::{Fs, LOCAL_BITS, LOCAL_MASK, Mounted};
use crate::error::{FsError, Result};
use crate::stage::Stage;
use crate::types::{Attr, Handle, Ino, Notifier};

impl Fs {
    pub(super) fn route(&self, ino: Ino) -> Result<(Route, Ino)> {
        if ino == Ino::ROOT {
            return Err(FsError::NotPermitted(
                "the mount point holds repositories only",
            ));
        }
        let route = self
            .by_tag(ino.0 >> LOCAL_BITS)
            .ok_or(FsError::Stale(ino.0))?;
        Ok((route, Ino(ino.0 & LOCAL_MASK)))
    }

    pub(super) fn route_handle(&self, handle: Handle) -> Result<Route> {
        self.by_tag(handle.0 >> LOCAL_BITS)
            .ok_or(FsError::BadHandle)
    }

    pub(super) fn same_repository(&self, one: Ino, other: Ino) -> Result<(Route, Ino)> {
        if one.0 >> LOCAL_BITS != other.0 >> LOCAL_BITS {
            return Err(FsError::CrossRepository);
        }
        self.route(one)
    }

    fn by_tag(&self, tag: u64) -> Option<Route> {
        let repositories = self.repositories.read();
        let found = repositories.values().find(|m| m.tag == tag);
        found.map(Route::new)
    }
}

/// A repository, found.
pub(super) struct Route {
    pub tag: u64,
    pub stage: Arc<Stage>,
}

impl Route {
    pub fn new(mounted: &Mounted) -> Self {
        Self {
            tag: mounted.tag,
            stage: Arc::clone(&mounted.stage),
        }
    }

    pub fn ino(&self, local: Ino) -> Ino {
        Ino(self.tag << LOCAL_BITS | local.0)
    }

    pub fn handle(&self, local: Handle) -> Handle {
        Handle(self.tag << LOCAL_BITS | local.0)
    }

    pub fn attr(&self, local: Result<Attr>) -> Result<Attr> {
        local.map(|attr| Attr {
            ino: self.ino(attr.ino),
            ..attr
        })
    }
}

pub(super) fn untag(handle: Handle) -> Handle {
    Handle(handle.0 & LOCAL_MASK)
}

/// Puts the repository's bits onto inode numbers on their way to the kernel.
struct Tagged {
    tag: u64,
    inner: Arc<dyn Notifier>,
}

pub(super) fn tagged(tag: u64, notifier: &Arc<dyn Notifier>) -> Arc<dyn Notifier> {
    Arc::new(Tagged {
        tag,
        inner: Arc::clone(notifier),
    })
}

impl Notifier for Tagged {
    fn inval_inode(&self, ino: Ino) {
        self.inner.inval_inode(Ino(self.tag << LOCAL_BITS | ino.0));
    }

    fn inval_entry(&self, parent: Ino, name: &[u8]) {
        let parent = Ino(self.tag << LOCAL_BITS | parent.0);
        self.inner.inval_entry(parent, name);
    }
}
