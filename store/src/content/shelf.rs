//! Which contents are kept: two bounded collections, one in memory, one in files.

use std::sync::Arc;

use super::{Body, Cached, ContentLimits, Key};
use crate::lru::Lru;

#[derive(Debug)]
pub(super) struct Shelf {
    /// Weighs bytes.
    memory: Lru<Key, Arc<Cached>>,
    /// Weighs files; their bytes are counted until they are closed.
    disk: Lru<Key, Arc<Cached>>,
}

impl Shelf {
    pub fn new() -> Self {
        Self {
            memory: Lru::new(),
            disk: Lru::new(),
        }
    }

    pub fn get(&mut self, key: &Key) -> Option<Arc<Cached>> {
        let found = match self.memory.get(key) {
            Some(cached) => cached,
            None => self.disk.get(key)?,
        };
        Some(Arc::clone(found))
    }

    pub fn insert(&mut self, key: Key, cached: &Arc<Cached>, limits: &ContentLimits) {
        match cached.body {
            Body::Memory(_) => {
                // an empty file takes a place too
                self.memory
                    .insert(key, Arc::clone(cached), cached.bytes.max(64));
                while self.memory.weight() > limits.memory_bytes {
                    self.memory.pop_oldest(|_| true);
                }
            }
            Body::Disk(..) => {
                self.disk.insert(key, Arc::clone(cached), 1);
                while self.disk.weight() > limits.disk_files {
                    self.disk.pop_oldest(|_| true);
                }
            }
        }
    }

    /// Files that only this collection holds, and their bytes.
    pub fn unused(&self) -> (u64, u64) {
        let files = self.disk.iter().map(|(_, cached, _)| cached);
        let unused = files.filter(|cached| Arc::strong_count(cached) == 1);
        unused.fold((0, 0), |(n, sum), cached| (n + 1, sum + cached.bytes))
    }

    /// Lets go of files until `more` bytes fit beside what is then `in_use`.
    pub fn make_room(&mut self, more: u64, in_use: u64, limits: &ContentLimits) {
        let mut in_use = in_use;
        while in_use.saturating_add(more) > limits.disk_bytes {
            // one that is open elsewhere keeps its bytes whether it is on the shelf or not
            let Some((_, gone)) = self.disk.pop_oldest(|c| Arc::strong_count(c) == 1) else {
                return;
            };
            in_use = in_use.saturating_sub(gone.bytes);
        }
    }

    pub fn memory_bytes(&self) -> u64 {
        self.memory.weight()
    }

    pub fn clear(&mut self) {
        self.memory = Lru::new();
        self.disk = Lru::new();
    }
}
