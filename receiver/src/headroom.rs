//! How much may still come in: what the filesystem has free, less what is to stay free, less what is
//! on its way.
//!
//! Room is taken before an object's first byte is read and given back once the bytes are on disk,
//! where the system counts them itself. A storage that cannot tell (a bucket) has room for everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use store::{ObjectStore, Result};

/// See the module.
#[derive(Debug)]
pub struct Headroom {
    store: Arc<dyn ObjectStore>,
    /// What stays free.
    keep: u64,
    /// On its way, in bytes.
    coming: AtomicU64,
}

/// Room that was taken; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    from: Arc<Headroom>,
    bytes: u64,
}

impl Headroom {
    /// Of a storage, of which `keep` bytes stay free.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, keep: u64) -> Self {
        Self {
            store,
            keep,
            coming: AtomicU64::new(0),
        }
    }

    /// How many more bytes fit; none: nobody can tell.
    ///
    /// # Errors
    /// When the system cannot say what is free.
    pub fn room(&self) -> Result<Option<u64>> {
        let free = self.store.available_bytes()?;
        let taken = self.keep.saturating_add(self.coming.load(Ordering::SeqCst));
        Ok(free.map(|free| free.saturating_sub(taken)))
    }

    /// Takes room for so many bytes; none if they do not fit.
    ///
    /// # Errors
    /// As [`Headroom::room`].
    pub fn take(self: &Arc<Self>, bytes: u64) -> Result<Option<Taken>> {
        // taken first, so that two who come at once do not both find the same room
        let before = self.coming.fetch_add(bytes, Ordering::SeqCst);
        let taken = Taken {
            from: Arc::clone(self),
            bytes,
        };
        let Some(free) = self.store.available_bytes()? else {
            return Ok(Some(taken));
        };
        let wanted = self.keep.saturating_add(before).saturating_add(bytes);
        Ok((wanted <= free).then_some(taken))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.coming.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use store::{DirStore, Durability};

    use super::*;

    #[test]
    fn room_is_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = DirStore::create(dir.path(), Durability::Batch).unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let free = store.available_bytes().unwrap().unwrap();
        let half = Arc::new(Headroom::new(Arc::clone(&store), free / 2));
        let first = half.take(free / 4).unwrap();
        assert!(first.is_some());
        assert!(half.take(free / 2).unwrap().is_none(), "beyond");
        drop(first);
        assert_eq!(
            half.coming.load(Ordering::SeqCst),
            0,
            "what was refused too"
        );
        let none = Arc::new(Headroom::new(store, u64::MAX));
        assert_eq!(none.room().unwrap(), Some(0));
        assert!(none.take(1).unwrap().is_none());
    }

    #[test]
    fn a_bucket_has_room() {
        let all = Headroom::new(Arc::new(store::MemoryStore::new()), u64::MAX);
        assert_eq!(all.room().unwrap(), None);
        assert!(Arc::new(all).take(1 << 40).unwrap().is_some());
    }
}
