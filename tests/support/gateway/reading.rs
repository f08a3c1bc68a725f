//! A revision as the receiver reads it: what is asked for is looked up, nothing is judged.

use std::sync::Arc;

use formats::{Hash, NestedRef, ObjectKind, ObjectName, RepoPath, Row};
use store::{CatalogFile, Repository};

use super::halt::Halt;

/// A published revision, or one that is to be.
pub struct Tree {
    repository: Arc<Repository>,
    root: Arc<CatalogFile>,
}

impl Tree {
    pub fn open(repository: &Arc<Repository>, root: &Hash) -> Result<Self, Halt> {
        Ok(Self {
            root: load(repository, root)?,
            repository: repository.clone(),
        })
    }

    /// What is in a directory; nothing if there is no directory.
    pub fn list(&self, dir: &RepoPath) -> Result<Vec<Row>, Halt> {
        let hash = dir.path_hash();
        let (catalog, _) = self.below(dir)?;
        let rows = catalog.with(|catalog| catalog.children(&hash));
        rows.map_err(|_| Halt::Crash)
    }

    /// The reference to the nested catalog that begins at a path.
    pub fn nested(&self, path: &RepoPath) -> Result<Option<NestedRef>, Halt> {
        let (_, reference) = self.below(path)?;
        Ok(reference.filter(|reference| reference.path == *path))
    }

    /// The catalog of what is in a directory, and the reference that led there.
    fn below(&self, path: &RepoPath) -> Result<(Arc<CatalogFile>, Option<NestedRef>), Halt> {
        let mut at = self.root.clone();
        let mut led = None;
        loop {
            let next = at.nested().iter().find(|next| path.is_within(&next.path));
            let Some(next) = next.cloned() else {
                return Ok((at, led));
            };
            at = load(&self.repository, &next.hash)?;
            led = Some(next);
        }
    }
}

/// Fetches a catalog; its length and where it begins are not looked at.
pub fn load(repository: &Repository, hash: &Hash) -> Result<Arc<CatalogFile>, Halt> {
    repository.catalog(hash, None).map_err(|error| {
        let name = ObjectName::new(*hash, ObjectKind::Catalog).storage_path();
        Halt::panic(format!("failed to load {name} from Stratum 0 ({error})"))
    })
}
