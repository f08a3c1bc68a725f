//! What is published, with catalogs of ours laid over it that never will be.
//!
//! `cvmfs_server` writes catalogs of its own; ours say what they have to hold. They lie in a directory of
//! the state, so that a commit that died can be asked after, and the repository's storage never sees
//! them. Where that storage cannot be written from here, the objects of files lie there too, until their
//! bytes are copied into the transaction.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use formats::hash::Hash;
use formats::object::ObjectName;
use store::{DirStore, Durability, ObjectStore, Pending, Result, StoreError, Stored};

/// See the module.
#[derive(Debug)]
pub(super) struct Shelf {
    published: Arc<dyn ObjectStore>,
    own: DirStore,
    /// Objects of files come here, too.
    takes_files: bool,
    needed: Mutex<Needed>,
}

/// Who needs what lies on a shelf.
#[derive(Debug, Default)]
struct Needed {
    /// Commits that are under way.
    commits: u64,
    /// Root catalogs of which nobody has found out whether they are visible.
    doubtful: BTreeSet<Hash>,
}

impl Shelf {
    /// What an earlier process left on it stays until a commit has ended.
    pub(super) fn open(
        published: Arc<dyn ObjectStore>,
        takes_files: bool,
        dir: &Path,
    ) -> Result<Self> {
        let own = match dir.join("data").is_dir() {
            true => DirStore::open(dir, Durability::Batch)?,
            false => DirStore::create(dir, Durability::Batch)?,
        };
        Ok(Self {
            published,
            own,
            takes_files,
            needed: Mutex::default(),
        })
    }

    /// A commit lays its catalogs here from now on.
    pub(super) fn begins(&self) {
        self.needed().commits += 1;
    }

    /// A revision may be visible, and ours is needed to find out.
    pub(super) fn doubts(&self, root: Hash) {
        self.needed().doubtful.insert(root);
    }

    /// What became of a revision is known.
    pub(super) fn is_settled(&self, root: &Hash) {
        self.needed().doubtful.remove(root);
    }

    /// A commit is over: what nobody needs any more goes.
    pub(super) fn ended(&self) -> Result<()> {
        let mut needed = self.needed();
        needed.commits = needed.commits.saturating_sub(1);
        if needed.commits > 0 || !needed.doubtful.is_empty() {
            return Ok(());
        }
        // whoever begins meanwhile waits, and finds it empty
        self.clear()
    }

    fn needed(&self) -> MutexGuard<'_, Needed> {
        // every change is a single one, so what a panic leaves is whole
        self.needed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self) -> Result<()> {
        let mut names = Vec::new();
        self.own.for_each(&mut |name, _| {
            names.push(name);
            Ok(())
        })?;
        names.iter().try_for_each(|name| {
            self.own.delete(name)?;
            Ok(())
        })
    }

    fn read_only(&self, action: &'static str) -> StoreError {
        let refused = io::Error::from(io::ErrorKind::Unsupported);
        StoreError::io(action, format!("{:?}", self.published), refused)
    }
}

impl ObjectStore for Shelf {
    fn has(&self, name: &ObjectName) -> Result<bool> {
        Ok(self.own.has(name)? || self.published.has(name)?)
    }

    fn stored_size(&self, name: &ObjectName) -> Result<Option<u64>> {
        match self.own.stored_size(name)? {
            Some(size) => Ok(Some(size)),
            None => self.published.stored_size(name),
        }
    }

    fn open(&self, name: &ObjectName) -> Result<Box<dyn Read + Send>> {
        match self.own.open(name) {
            Err(error) if error.is_not_found() => self.published.open(name),
            opened => opened,
        }
    }

    fn begin(&self) -> Result<Box<dyn Pending>> {
        self.own.begin()
    }

    fn delete(&self, name: &ObjectName) -> Result<bool> {
        self.own.delete(name)
    }

    fn read_root(&self, file: &str) -> Result<Vec<u8>> {
        self.published.read_root(file)
    }

    fn write_root(&self, _file: &str, _bytes: &[u8]) -> Result<()> {
        Err(self.read_only("write a root file in"))
    }

    fn remove_root(&self, _file: &str) -> Result<bool> {
        Err(self.read_only("remove a root file from"))
    }

    fn for_each(&self, visit: &mut dyn FnMut(ObjectName, u64) -> Result<()>) -> Result<()> {
        self.published.for_each(visit)
    }

    fn sync(&self) -> Result<()> {
        self.own.sync()
    }

    fn clean_leftovers(&self) -> Result<u64> {
        self.own.clean_leftovers()
    }

    /// For what a commit notes of the objects that it stores here.
    fn local_dir(&self) -> Option<&Path> {
        self.own.local_dir().filter(|_| self.takes_files)
    }

    fn available_bytes(&self) -> Result<Option<u64>> {
        self.own.available_bytes()
    }

    fn adopt(&self, file: &Path, name: &ObjectName) -> Result<Option<Stored>> {
        match self.published.has(name)? {
            true => Ok(Some(Stored::Present)),
            false => self.own.adopt(file, name),
        }
    }
}
