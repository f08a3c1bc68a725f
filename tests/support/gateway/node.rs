//! One catalog that is being changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use formats::catalog::{Role, Row, Stamp};
use formats::{CatalogWriter, Counters, Counts, Hash, Kind, NestedRef, ObjectKind, RepoPath};

use super::halt::Halt;
use super::receiver::Receiver;

type Result<T, E = Halt> = std::result::Result<T, E>;

/// An open catalog.
pub struct Node {
    /// Where the catalog begins that it is nested in.
    pub parent: RepoPath,
    pub writer: CatalogWriter,
    /// What it replaces; null if it is new.
    pub previous: Hash,
    /// The catalogs nested directly in it: hash and length.
    pub nested: BTreeMap<RepoPath, (Hash, u64)>,
    /// What the file says.
    pub before: Counters,
    /// What the changes add to that.
    pub delta: Counters,
    pub dirty: bool,
}

/// A catalog as it was stored.
pub struct Stored {
    pub hash: Hash,
    pub bytes: u64,
    pub revision: u64,
    pub ttl_seconds: u64,
    /// What the changes added to its counters.
    pub delta: Counters,
}

/// What a row adds to the catalog's own counters. References to nested catalogs are counted where
/// they are made.
pub fn counts(row: &Row) -> Counts {
    Counts {
        nested: 0,
        ..Counts::of(row)
    }
}

/// What of a row is carried over when it is added: nothing that ties it to other rows.
pub fn carried(row: &Row) -> Row {
    let mut row = Row {
        link_group: 0,
        role: Role::Plain,
        hidden: false,
        ..row.clone()
    };
    if let Kind::Regular(file) = &mut row.entry.kind {
        file.link_group = 0;
    }
    row
}

impl Node {
    /// Goes on with a private copy of a published catalog.
    pub fn open(file: &Path, parent: &RepoPath, hash: &Hash) -> Result<Self> {
        let writer = CatalogWriter::open_update(file)?;
        let nested = writer.nested()?.into_iter();
        Ok(Self {
            parent: parent.clone(),
            nested: nested.map(|at| (at.path, (at.hash, at.size))).collect(),
            before: writer.counters()?,
            writer,
            previous: *hash,
            delta: Counters::default(),
            dirty: false,
        })
    }

    /// Begins a new one with its first row.
    pub fn create(file: &Path, parent: &RepoPath, path: &RepoPath, root: &Row) -> Result<Self> {
        let mut writer = CatalogWriter::create(file, path)?;
        writer.put(root)?;
        let mut before = Counters::default();
        let mut delta = Counters::default();
        before.self_.dir = 1;
        delta.self_.xattr = counts(root).xattr;
        Ok(Self {
            parent: parent.clone(),
            writer,
            previous: Hash::null(),
            nested: BTreeMap::new(),
            before,
            delta,
            dirty: true,
        })
    }

    /// Adds a row where none may be.
    pub fn add(&mut self, row: &Row) -> Result<()> {
        if self.writer.lookup(&row.path)?.is_some() {
            return Err(Halt::Crash);
        }
        self.writer.put(row)?;
        self.delta.self_ += counts(row);
        self.dirty = true;
        Ok(())
    }

    /// Removes a row that must be there.
    pub fn remove(&mut self, path: &RepoPath) -> Result<()> {
        let row = self.writer.lookup_path(path)?.ok_or(Halt::Crash)?;
        self.writer.remove(&row.path)?;
        self.delta.self_ -= counts(&row);
        self.dirty = true;
        Ok(())
    }

    /// Replaces a row, its extended attributes apart; nothing happens if there is none.
    pub fn update(&mut self, row: &Row) -> Result<()> {
        if row.linkcount == 0 {
            return Err(Halt::Crash);
        }
        self.dirty = true;
        let Some(before) = self.writer.lookup(&row.path)? else {
            return Ok(());
        };
        let mut row = row.clone();
        row.entry.xattrs = before.entry.xattrs;
        row.parent = before.parent;
        Ok(self.writer.put(&row)?)
    }

    /// Gives a row that must be there the metadata and attributes of another, not its place in the
    /// tree of directories and catalogs.
    pub fn touch(&mut self, path: &RepoPath, row: &Row) -> Result<()> {
        let mut touched = self.writer.lookup_path(path)?.ok_or(Halt::Crash)?;
        self.delta.self_ -= counts(&touched);
        touched.entry = row.entry.clone();
        touched.name = row.name.clone();
        self.writer.put(&touched)?;
        self.delta.self_ += counts(&touched);
        self.dirty = true;
        Ok(())
    }

    /// Makes a reference to a nested catalog.
    pub fn refer(&mut self, path: &RepoPath, hash: Hash, bytes: u64) {
        self.nested.insert(path.clone(), (hash, bytes));
        self.delta.self_.nested += 1;
        self.dirty = true;
    }

    /// Takes a reference to a nested catalog away, which must be there.
    pub fn unrefer(&mut self, path: &RepoPath) -> Result<(Hash, u64)> {
        self.delta.self_.nested -= 1;
        self.dirty = true;
        self.nested.remove(path).ok_or(Halt::Crash)
    }

    /// What it says with the changes.
    pub fn counters(&self) -> Counters {
        let mut counters = self.before;
        counters.self_ += self.delta.self_;
        counters.subtree += self.delta.subtree;
        counters
    }

    /// Stores it as its next revision.
    pub fn store(mut self, receiver: &Receiver, now: i64) -> Result<Stored> {
        for reference in self.writer.nested()? {
            if !self.nested.contains_key(&reference.path) {
                self.writer.remove_nested(&reference.path)?;
            }
        }
        for (path, (hash, size)) in &self.nested {
            let (path, hash, size) = (path.clone(), *hash, *size);
            self.writer.put_nested(&NestedRef { path, hash, size })?;
        }
        self.writer.set_counters(&self.counters())?;
        let (revision, ttl) = (self.writer.revision() + 1, self.writer.ttl());
        let file = self.writer.file().to_owned();
        let finished = self.writer.finish(Stamp {
            revision,
            previous: Some(self.previous),
            last_modified: now,
            ttl: None,
        })?;
        let hash = receiver.keep(ObjectKind::Catalog, &fs::read(file).unwrap())?;
        Ok(Stored {
            hash,
            bytes: finished.size,
            revision,
            ttl_seconds: ttl.unwrap_or(240),
            delta: self.delta,
        })
    }
}
