//! The published revision, being changed: catalogs are opened where something changes, and what
//! changed is stored from the leaves up.
//!
//! As in the receiver, counters are never counted: each catalog keeps what it said before, and what
//! the changes add to it. What must hold for a change and does not, ends in a [`Halt`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::{Content, Hash, RepoPath};
use store::Repository;

use super::halt::Halt;
use super::node::{Node, Stored, carried};
use super::reading;
use super::receiver::Receiver;

type Result<T, E = Halt> = std::result::Result<T, E>;

/// A revision in the making.
pub struct Output {
    repository: Arc<Repository>,
    /// The catalogs that are open, by where they begin.
    pub(super) nodes: BTreeMap<RepoPath, Node>,
    work: PathBuf,
    files: u32,
}

impl Output {
    /// Begins with a published root catalog. `work` is an empty directory.
    pub fn open(repository: &Arc<Repository>, root: &Hash, work: PathBuf) -> Result<Self> {
        let mut output = Self {
            repository: repository.clone(),
            nodes: BTreeMap::new(),
            work,
            files: 0,
        };
        output.load(&RepoPath::root(), &RepoPath::root(), root)?;
        output.node(&RepoPath::root()).dirty = true;
        Ok(output)
    }

    pub(super) fn node(&mut self, at: &RepoPath) -> &mut Node {
        self.nodes.get_mut(at).expect("an open catalog")
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(super) fn new_file(&mut self) -> PathBuf {
        self.files += 1;
        self.work.join(format!("catalog.{}", self.files))
    }

    fn load(&mut self, path: &RepoPath, parent: &RepoPath, hash: &Hash) -> Result<()> {
        reading::load(&self.repository, hash)?;
        let file = self.new_file();
        let copied = self.repository.copy_catalog(hash, &file);
        copied.map_err(|_| Halt::Crash)?;
        let node = Node::open(&file, parent, hash)?;
        self.nodes.insert(path.clone(), node);
        Ok(())
    }

    /// The catalog of what is in a directory, and the directory's row there; none if there is no
    /// such row.
    pub(super) fn host(&mut self, dir: &RepoPath) -> Result<Option<(RepoPath, Row)>> {
        let mut at = RepoPath::root();
        loop {
            let mut nested = self.node(&at).nested.iter();
            let next = nested.find(|(path, _)| dir.is_within(path));
            let Some((path, hash)) = next.map(|(path, (hash, _))| (path.clone(), *hash)) else {
                break;
            };
            if !self.nodes.contains_key(&path) {
                self.load(&path, &at, &hash)?;
            }
            at = path;
        }
        let row = self.node(&at).writer.lookup_path(dir)?;
        Ok(row.map(|row| (at, row)))
    }

    /// As [`Output::host`], of the directory that something lies in.
    pub(super) fn host_of(&mut self, path: &RepoPath, what: &str) -> Result<(RepoPath, Row)> {
        let parent = path.parent().ok_or(Halt::Crash)?;
        let found = self.host(&parent)?;
        let missing = || Halt::panic(format!("catalog for {what} '{path}' cannot be found"));
        found.ok_or_else(missing)
    }

    /// One more subdirectory, or one less; a directory where catalogs meet has a row in both.
    fn count_subdirectory(&mut self, at: &RepoPath, mut dir: Row, more: i32) -> Result<()> {
        dir.linkcount = dir.linkcount.wrapping_add_signed(more);
        let is_root = dir.role == Role::Root;
        let node = self.node(at);
        node.update(&dir)?;
        let parent = node.parent.clone();
        if is_root {
            dir.role = Role::Mountpoint;
            self.node(&parent).update(&dir)?;
        }
        Ok(())
    }

    pub fn add_directory(&mut self, path: &RepoPath, row: &Row) -> Result<()> {
        let (at, parent) = self.host_of(path, "directory")?;
        let mut row = carried(row);
        row.linkcount = 2;
        self.node(&at).add(&row)?;
        self.count_subdirectory(&at, parent, 1)
    }

    /// Adds a regular file or a symbolic link, as its only name.
    pub fn add_file(&mut self, path: &RepoPath, row: &Row) -> Result<()> {
        let (at, _) = self.host_of(path, "file")?;
        let mut row = carried(row);
        row.linkcount = 1;
        let content = row.entry.regular().map(|file| &file.content);
        if matches!(content, Some(Content::Whole(hash)) if hash.is_null()) {
            return Err(Halt::Crash);
        }
        self.node(&at).add(&row)
    }

    pub fn remove_file(&mut self, path: &RepoPath) -> Result<()> {
        let (at, _) = self.host_of(path, "file")?;
        self.node(&at).remove(path)
    }

    pub fn remove_directory(&mut self, path: &RepoPath) -> Result<()> {
        let (at, parent) = self.host_of(path, "directory")?;
        self.node(&at).remove(path)?;
        self.count_subdirectory(&at, parent, -1)
    }

    /// Gives a directory new metadata, in both catalogs that may have a row of it.
    pub fn touch_directory(&mut self, path: &RepoPath, row: &Row) -> Result<()> {
        let (at, _) = self.host_of(path, "entry")?;
        self.node(&at).touch(path, row)?;
        if self.node(&at).nested.contains_key(path) {
            let (nested, _) = self.host(path)?.ok_or(Halt::Crash)?;
            self.node(&nested).touch(path, row)?;
        }
        Ok(())
    }

    /// The open catalogs directly below one.
    pub(super) fn children(&self, of: &RepoPath) -> Vec<RepoPath> {
        let is_child = |(at, node): &(&RepoPath, &Node)| !at.is_root() && node.parent == *of;
        let children = self.nodes.iter().filter(is_child);
        children.map(|(at, _)| at.clone()).collect()
    }

    /// Forgets a catalog and what is open below it.
    pub(super) fn close(&mut self, at: &RepoPath) {
        for child in self.children(at) {
            self.close(&child);
        }
        self.nodes.remove(at);
    }

    /// True if a catalog or one below it changed.
    pub(super) fn is_dirty(&self, at: &RepoPath) -> bool {
        let below = || self.children(at).iter().any(|child| self.is_dirty(child));
        self.nodes.get(at).is_some_and(|node| node.dirty) || below()
    }

    /// Stores what changed; there is a new root catalog even if nothing did.
    pub fn store(mut self, receiver: &Receiver, now: i64) -> Result<Stored> {
        self.store_below(&RepoPath::root(), receiver, now)
    }

    fn store_below(&mut self, at: &RepoPath, receiver: &Receiver, now: i64) -> Result<Stored> {
        for child in self.children(at) {
            if self.is_dirty(&child) {
                let stored = self.store_below(&child, receiver, now)?;
                let node = self.node(at);
                node.nested.insert(child, (stored.hash, stored.bytes));
                node.delta.subtree += stored.delta.total();
            }
        }
        let node = self.nodes.remove(at).ok_or(Halt::Crash)?;
        node.store(receiver, now)
    }
}
