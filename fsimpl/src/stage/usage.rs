//! How many bytes are staged, and how many of them lie raw in backing files.
//!
//! Counted file by file as sizes change; what is published or referred to there counts nothing. A
//! file whose raw bytes were dropped is staged all the same.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Where a staged file's bytes are and how many: the number of its backing file, 0 for none.
pub(crate) type Staged = (u64, u64);

/// See the module's head.
#[derive(Default)]
pub(crate) struct Usage {
    staged: AtomicU64,
    raw: AtomicU64,
}

impl Usage {
    /// Bytes of staged files.
    pub(crate) fn staged(&self) -> u64 {
        self.staged.load(Ordering::Relaxed)
    }

    /// Bytes in backing files.
    pub(crate) fn raw(&self) -> u64 {
        self.raw.load(Ordering::Relaxed)
    }

    /// A file is staged.
    pub(crate) fn came(&self, (backing, size): Staged) {
        self.staged.fetch_add(size, Ordering::Relaxed);
        if backing != 0 {
            self.raw.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// A file is staged no longer, or not as it was.
    pub(crate) fn went(&self, (backing, size): Staged) {
        take(&self.staged, size);
        if backing != 0 {
            take(&self.raw, size);
        }
    }

    /// A backing file has another length.
    pub(crate) fn resized(&self, from: u64, to: u64) {
        // what is there afterwards comes first: the sum is never too small
        self.came((1, to));
        self.went((1, from));
    }

    /// A file's raw bytes were dropped.
    pub(crate) fn dropped(&self, size: u64) {
        take(&self.raw, size);
    }
}

fn take(sum: &AtomicU64, bytes: u64) {
    let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |have| {
        Some(have.saturating_sub(bytes))
    });
}
