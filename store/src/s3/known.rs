//! Names of objects that a bucket was seen to have.
//!
//! It spares a question before each object that is stored again, and it may be wrong where somebody
//! else removes objects: so it is forgotten whenever that matters ([`ObjectStore::forget`]
//! [`crate::ObjectStore::forget`]), and answers no question of a caller.

use formats::ObjectName;
use parking_lot::Mutex;

use crate::lru::Lru;

/// Remembered at a time: some 200 bytes each, so 20 MB. The files of a large commit fit.
const NAMES_MAX: u64 = 100_000;

/// See the module.
pub(super) struct Known(Mutex<Lru<ObjectName, ()>>);

impl Known {
    pub fn new() -> Self {
        Self(Mutex::new(Lru::new()))
    }

    pub fn has(&self, name: &ObjectName) -> bool {
        self.0.lock().get(name).is_some()
    }

    pub fn add(&self, name: &ObjectName) {
        let mut names = self.0.lock();
        names.insert(*name, (), 1);
        if names.weight() > NAMES_MAX {
            names.pop_oldest(|()| true);
        }
    }

    pub fn remove(&self, name: &ObjectName) {
        self.0.lock().remove(name);
    }

    pub fn clear(&self) {
        *self.0.lock() = Lru::new();
    }
}
