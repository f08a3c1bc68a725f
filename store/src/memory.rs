//! A store in memory, for tests and for what never needs a disk.
//!
//! It keeps the rules of the others to the letter, so that a test that passes over it means
//! something. It must not grow features the others lack.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::sync::Arc;

use formats::ObjectName;
use parking_lot::RwLock;

use crate::error::{Result, StoreError};
use crate::object_store::{ObjectStore, Pending, Stored, check_root_name};

const PLACE: &str = "memory";

/// Objects and root files in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<RwLock<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, Arc<[u8]>>,
    roots: BTreeMap<String, Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes under a name whatever they hash to, over what is there: how a test damages an object.
    pub fn overwrite(&self, name: &ObjectName, bytes: &[u8]) {
        self.0.write().objects.insert(*name, bytes.into());
    }

    /// How many objects there are.
    #[must_use]
    pub fn object_count(&self) -> usize {
        self.0.read().objects.len()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PLACE)
    }
}

impl ObjectStore for MemoryStore {
    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        Ok(self.0.read().objects.get(name).map(|b| b.len() as u64))
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        match self.0.read().objects.get(name) {
            Some(bytes) => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
            None => Err(StoreError::NotFound {
                name: *name,
                place: PLACE.to_owned(),
            }),
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        Ok(Box::new(MemoryPending {
            state: Arc::clone(&self.0),
            bytes: Vec::new(),
        }))
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        Ok(self.0.write().objects.remove(name).is_some())
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        check_root_name(file)?;
        let found = self.0.read().roots.get(file).cloned();
        found.ok_or_else(|| StoreError::RootNotFound {
            file: file.to_owned(),
            place: PLACE.to_owned(),
        })
    }

    fn write_root(&self, file: &str, bytes: &[u8]) -> Result<()> {
        check_root_name(file)?;
        self.0.write().roots.insert(file.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn remove_root(&self, file: &str) -> Result<bool> {
        check_root_name(file)?;
        Ok(self.0.write().roots.remove(file).is_some())
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        // a visitor may use the store, so it must not be called under the lock
        let all: Vec<_> = {
            let state = self.0.read();
            let sized = state.objects.iter().map(|(n, b)| (*n, b.len() as u64));
            sized.collect()
        };
        all.into_iter()
            .try_for_each(|(name, size)| visit(name, size))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

struct MemoryPending {
    state: Arc<RwLock<State>>,
    bytes: Vec<u8>,
}

impl Write for MemoryPending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending for MemoryPending {
    fn keep(self: Box<Self>, name: &ObjectName) -> Result<Stored> {
        use std::collections::btree_map::Entry;
        match self.state.write().objects.entry(*name) {
            Entry::Occupied(_) => Ok(Stored::Present),
            Entry::Vacant(slot) => {
                slot.insert(self.bytes.into());
                Ok(Stored::New)
            }
        }
    }
}
