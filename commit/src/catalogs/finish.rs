//! Changed catalogs, closed and stored, from the leaves up.
//!
//! A catalog is written if something in it or below it changed. Its file is stamped, compressed,
//! hashed and stored; then its parent learns the new hash and size. Counters of a subtree follow
//! from those of the catalogs directly below: what left is subtracted, what came is added.
//!
//! Nothing here knows why a row changed.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};

use formats::catalog::{Counters, Counts, NestedRef, Stamp};
use formats::compress::Compressor;
use formats::hash::{Algorithm, Hash, Hasher};
use formats::object::{Compression, ObjectKind, ObjectName};
use formats::path::RepoPath;
use store::{ObjectStore, Repository, Stored};

use super::session::{Link, Open, Session};
use super::{CatalogsError, NewCatalog};

/// Bytes read from a catalog's file at a time.
const COPY_BUFFER_BYTES: usize = 1 << 20;

/// What every catalog of a revision is stamped with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) now: i64,
    pub(crate) ttl_seconds: u64,
    pub(crate) algorithm: Algorithm,
    /// The root catalog's new revision is at least this.
    pub(crate) revision_min: u64,
}

/// What closing the session's catalogs made.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) root: Hash,
    pub(crate) root_bytes: u64,
    pub(crate) revision: u64,
    pub(crate) catalogs: Vec<NewCatalog>,
}

/// Counters of catalogs that are not open, by object; each is read once.
struct Totals<'a> {
    repo: &'a Repository,
    known: HashMap<Hash, Counts>,
}

impl Totals<'_> {
    fn of(&mut self, at: &RepoPath, hash: &Hash) -> Result<Counts, CatalogsError> {
        if let Some(known) = self.known.get(hash) {
            return Ok(*known);
        }
        let counters = self
            .repo
            .catalog_counters(hash)
            .map_err(|source| CatalogsError::Read {
                prefix: at.clone(),
                source,
            })?;
        let total = counters.total();
        self.known.insert(*hash, total);
        Ok(total)
    }
}

/// Closes and stores every catalog that changed, and the root in any case.
pub(crate) fn close(
    mut session: Session<'_>,
    seal: Seal,
    storage: &dyn ObjectStore,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Closed, CatalogsError> {
    let mut totals = Totals {
        repo: session.repo(),
        known: HashMap::new(),
    };
    let mut open = std::mem::take(&mut session.open);
    mark_ancestors(&mut open);
    let total = open.values().filter(|open| open.dirty).count() as u64;
    let mut catalogs = Vec::new();
    let mut root = None;
    // a catalog sorts before everything below it: backwards is from the leaves up
    while let Some((prefix, catalog)) = open.pop_last() {
        if !catalog.dirty {
            continue;
        }
        let counters = counters(&catalog, &mut totals)?;
        let base = catalog.base;
        let written = write(&prefix, catalog, counters, seal, storage)?;
        totals.known.insert(written.hash, counters.total());
        progress(catalogs.len() as u64 + 1, total);
        catalogs.push(NewCatalog {
            path: prefix.clone(),
            hash: written.hash,
            previous: base,
            bytes: written.bytes,
            stored_bytes: written.stored_bytes,
            is_new: written.stored == Stored::New,
            entries: counters.self_.entries(),
        });
        if prefix.is_root() {
            root = Some(written);
        } else if let Some(parent) = parent_of(&mut open, &prefix) {
            let link = Link {
                hash: Some(written.hash),
                size: written.bytes,
            };
            parent.nested.insert(prefix, link);
        }
    }
    let Some(root) = root else {
        unreachable!("the root catalog is open and marked")
    };
    Ok(Closed {
        root: root.hash,
        root_bytes: root.bytes,
        revision: root.revision,
        catalogs,
    })
}

/// Everything above a changed catalog changes too; the root always does.
fn mark_ancestors(open: &mut BTreeMap<RepoPath, Open>) {
    let mut dirty: Vec<RepoPath> = vec![RepoPath::root()];
    for (prefix, catalog) in open.iter() {
        if catalog.dirty {
            dirty.push(prefix.clone());
        }
    }
    for prefix in dirty {
        let mut above = Some(prefix);
        while let Some(dir) = above {
            if let Some(catalog) = open.get_mut(&dir) {
                catalog.dirty = true;
            }
            above = dir.parent();
        }
    }
}

fn parent_of<'o>(
    open: &'o mut BTreeMap<RepoPath, Open>,
    prefix: &RepoPath,
) -> Option<&'o mut Open> {
    let mut above = prefix.parent();
    while let Some(dir) = above {
        if open.contains_key(&dir) {
            return open.get_mut(&dir);
        }
        above = dir.parent();
    }
    None
}

fn counters(catalog: &Open, totals: &mut Totals<'_>) -> Result<Counters, CatalogsError> {
    let mut subtree = catalog.base_subtree;
    for (path, hash) in &catalog.base_nested {
        if catalog.nested.get(path).and_then(|link| link.hash) != Some(*hash) {
            subtree -= totals.of(path, hash)?;
        }
    }
    for (path, link) in &catalog.nested {
        if link.hash != catalog.base_nested.get(path).copied()
            && let Some(hash) = &link.hash
        {
            subtree += totals.of(path, hash)?;
        }
    }
    Ok(Counters {
        self_: catalog.counts,
        subtree,
    })
}

struct Written {
    hash: Hash,
    bytes: u64,
    stored_bytes: u64,
    stored: Stored,
    revision: u64,
}

fn write(
    prefix: &RepoPath,
    catalog: Open,
    counters: Counters,
    seal: Seal,
    storage: &dyn ObjectStore,
) -> Result<Written, CatalogsError> {
    let fail = |source| CatalogsError::Catalog {
        prefix: prefix.clone(),
        source,
    };
    let mut writer = catalog.writer;
    for path in catalog.base_nested.keys() {
        if !catalog.nested.contains_key(path) {
            writer.remove_nested(path).map_err(fail)?;
        }
    }
    for (path, link) in &catalog.nested {
        let Some(hash) = link.hash else {
            return Err(CatalogsError::Unwritten(path.clone()));
        };
        if catalog.base_nested.get(path) != Some(&hash) {
            let nested = NestedRef {
                path: path.clone(),
                hash,
                size: link.size,
            };
            writer.put_nested(&nested).map_err(fail)?;
        }
    }
    writer.set_counters(&counters).map_err(fail)?;
    let revision_min = if prefix.is_root() {
        seal.revision_min
    } else {
        1
    };
    let revision = match catalog.base {
        Some(_) => writer.revision().saturating_add(1).max(revision_min),
        None => revision_min,
    };
    let stamp = Stamp {
        revision,
        previous: Some(catalog.base.unwrap_or_else(Hash::null)),
        last_modified: seal.now,
        ttl: prefix.is_root().then_some(seal.ttl_seconds),
    };
    let finished = writer.finish(stamp).map_err(fail)?;
    let (hash, stored_bytes, stored) =
        store_file(&catalog.file, seal.algorithm, ObjectKind::Catalog, storage)?;
    // the work directory goes later; its space is wanted now
    let _ = std::fs::remove_file(&catalog.file);
    Ok(Written {
        hash,
        bytes: finished.size,
        stored_bytes,
        stored,
        revision,
    })
}

/// Compresses a file into the storage; yields its name's hash and its stored size.
pub(crate) fn store_file(
    file: &std::path::Path,
    algorithm: Algorithm,
    kind: ObjectKind,
    storage: &dyn ObjectStore,
) -> Result<(Hash, u64, Stored), CatalogsError> {
    let read = |source| CatalogsError::Work {
        path: file.to_path_buf(),
        source,
    };
    let put = |source| CatalogsError::Put { kind, source };
    let mut input = File::open(file).map_err(read)?;
    let pending = storage.begin().map_err(put)?;
    let sink = Hashing {
        hasher: Hasher::new(algorithm),
        bytes: 0,
        inner: pending,
    };
    let mut compressor = Compressor::new(Compression::Zlib, sink);
    let failed = |source: io::Error| {
        let source = source
            .downcast::<store::StoreError>()
            .unwrap_or_else(|source| store::StoreError::io("write", "a new object", source));
        put(source)
    };
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let n = input.read(&mut buffer).map_err(read)?;
        if n == 0 {
            break;
        }
        compressor.write_all(&buffer[..n]).map_err(failed)?;
    }
    let hashing = compressor.finish().map_err(failed)?;
    let hash = hashing.hasher.finish();
    // catalogs are few: what a power loss leaves of a commit that was not done is whole
    let stored = hashing
        .inner
        .keep_whole(&ObjectName::new(hash, kind))
        .map_err(put)?;
    Ok((hash, hashing.bytes, stored))
}

struct Hashing<W> {
    hasher: Hasher,
    bytes: u64,
    inner: W,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
