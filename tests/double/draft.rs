//! The smallest publisher: a revision as a map of rows, changed at will, and made into catalogs. It
//! makes what it is told, healthy or not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use formats::catalog::{Role, Row, Stamp};
use formats::compress::{compress, decompress};
use formats::{
    Algorithm, Catalog, CatalogWriter, Chunk, Compression, Content, Counters, Counts, Entry, Hash,
    Kind, Mtime, NestedRef, ObjectKind, ObjectName, PathHash, Regular, RepoPath, SignedManifest,
    Xattrs,
};

/// Objects with their names.
pub type Objects = Vec<(ObjectName, Vec<u8>)>;

/// What is to be sent: two root catalogs and what has to be there for the second.
pub struct Made {
    pub base: Hash,
    pub root: Hash,
    pub objects: Objects,
}

/// One catalog of a revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub hash: Hash,
    pub bytes: u64,
    pub revision: u64,
    pub counters: Counters,
    pub rows: BTreeMap<RepoPath, Row>,
}

/// All catalogs of a revision, by where they begin.
pub struct Snapshot(pub BTreeMap<RepoPath, Part>);

/// A revision in the making.
pub struct Draft {
    pub base: Hash,
    pub revision: u64,
    before: Snapshot,
    rows: BTreeMap<RepoPath, Row>,
    /// What the reference to a catalog says of its length, where that is not true.
    pub claimed_bytes: BTreeMap<RepoPath, u64>,
    objects: Objects,
}

pub fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// The time that everything has that is not given another one.
pub const MTIME: i64 = 1_700_000_000;

impl Snapshot {
    pub fn of_head(storage: &Path) -> Self {
        Self::of(storage, &head(storage).0)
    }

    pub fn of(storage: &Path, root: &Hash) -> Self {
        let mut parts = BTreeMap::new();
        let scratch = tempfile::tempdir().unwrap();
        let mut pending = vec![*root];
        while let Some(hash) = pending.pop() {
            let name = ObjectName::new(hash, ObjectKind::Catalog);
            let stored = fs::File::open(storage.join(name.storage_path())).unwrap();
            let mut plain = Vec::new();
            let mut reader = decompress(Compression::Zlib, stored);
            reader.read_to_end(&mut plain).unwrap();
            let file = scratch.path().join(name.to_string());
            fs::write(&file, &plain).unwrap();
            let catalog = Catalog::open(&file).unwrap();
            let mut rows = BTreeMap::new();
            let begins = catalog.root_prefix().clone();
            let top = catalog.lookup_path(&begins).unwrap().unwrap();
            rows.insert(begins.clone(), top);
            collect(&catalog, &begins, &mut rows);
            let part = Part {
                hash,
                bytes: plain.len() as u64,
                revision: catalog.revision(),
                counters: catalog.counters().unwrap(),
                rows,
            };
            parts.insert(begins, part);
            pending.extend(catalog.nested().unwrap().iter().map(|nested| nested.hash));
        }
        Self(parts)
    }

    /// Every row, once: of two where catalogs meet, the upper one.
    pub fn rows(&self) -> BTreeMap<RepoPath, Row> {
        let all = self.0.values().flat_map(|part| &part.rows);
        let upper = all.filter(|(_, row)| row.role != Role::Root);
        upper
            .map(|(path, row)| (path.clone(), row.clone()))
            .collect()
    }

    #[track_caller]
    pub fn row(&self, at: &str) -> Row {
        self.find(at).unwrap_or_else(|| panic!("no {at}"))
    }

    pub fn find(&self, at: &str) -> Option<Row> {
        self.rows().remove(&path(at))
    }

    /// Where catalogs begin, the root's apart.
    pub fn nested(&self) -> Vec<String> {
        let nested = self.0.keys().filter(|path| !path.is_root());
        nested.map(ToString::to_string).collect()
    }
}

fn collect(catalog: &Catalog, dir: &RepoPath, rows: &mut BTreeMap<RepoPath, Row>) {
    for row in catalog.list(dir).unwrap() {
        let path = dir.join(&formats::Name::new(&row.name).unwrap());
        let goes_on = row.entry.is_dir() && row.role != Role::Mountpoint;
        rows.insert(path.clone(), row);
        if goes_on {
            collect(catalog, &path, rows);
        }
    }
}

/// The published root catalog and revision.
fn head(storage: &Path) -> (Hash, u64) {
    let manifest = fs::read(storage.join(".cvmfspublished")).unwrap();
    let manifest = SignedManifest::parse(&manifest).unwrap().manifest;
    (manifest.root_catalog, manifest.revision)
}

impl Draft {
    pub fn of_head(storage: &Path) -> Self {
        let (base, revision) = head(storage);
        let before = Snapshot::of(storage, &base);
        Self {
            base,
            revision,
            rows: before.rows(),
            before,
            claimed_bytes: BTreeMap::new(),
            objects: Vec::new(),
        }
    }

    fn put(&mut self, at: &str, perm: u16, kind: Kind) -> &mut Row {
        let at = path(at);
        let row = Row {
            path: at.path_hash(),
            parent: at.parent().map_or(PathHash::NONE, |dir| dir.path_hash()),
            name: at
                .name()
                .map_or(Vec::new(), |name| name.as_bytes().to_vec()),
            entry: Entry {
                kind,
                perm,
                uid: 0,
                gid: 0,
                mtime: Mtime {
                    secs: MTIME,
                    nanos: None,
                },
                xattrs: Xattrs::new(),
            },
            linkcount: 1,
            link_group: 0,
            role: Role::Plain,
            hidden: false,
        };
        self.rows.remove(&at);
        self.rows.entry(at).or_insert(row)
    }

    pub fn dir(&mut self, at: &str) -> &mut Row {
        self.put(at, 0o755, Kind::Directory { size: 4096 })
    }

    pub fn other(&mut self, at: &str, kind: Kind) -> &mut Row {
        self.put(at, 0o644, kind)
    }

    pub fn file(&mut self, at: &str, bytes: &[u8]) -> &mut Row {
        let hash = self.object(ObjectKind::Data, bytes);
        self.regular(at, bytes.len(), Content::Whole(hash))
    }

    pub fn chunked(&mut self, at: &str, pieces: &[&[u8]]) -> &mut Row {
        let (mut chunks, mut offset) = (Vec::new(), 0);
        for piece in pieces {
            let (hash, size) = (self.object(ObjectKind::Chunk, piece), piece.len() as u64);
            chunks.push(Chunk { offset, size, hash });
            offset += size;
        }
        self.regular(at, offset as usize, Content::Chunks { bulk: None, chunks })
    }

    fn regular(&mut self, at: &str, bytes: usize, content: Content) -> &mut Row {
        let file = Regular {
            size: bytes as u64,
            content,
            compression: Compression::Zlib,
            external: false,
            direct_io: false,
            link_group: 0,
        };
        self.put(at, 0o644, Kind::Regular(file))
    }

    fn object(&mut self, kind: ObjectKind, bytes: &[u8]) -> Hash {
        let stored = compress(Compression::Zlib, bytes);
        let name = ObjectName::new(Hash::of(Algorithm::Sha1, &stored), kind);
        self.objects.push((name, stored));
        name.hash
    }

    /// The row of a path, to be changed.
    #[track_caller]
    pub fn row(&mut self, at: &str) -> &mut Row {
        let row = self.rows.get_mut(&path(at));
        row.unwrap_or_else(|| panic!("no {at}"))
    }

    /// Removes what stands at a path and below it.
    pub fn remove(&mut self, at: &str) {
        let gone = path(at);
        self.rows.retain(|path, _| !path.is_within(&gone));
    }

    /// Makes a directory the beginning of a catalog.
    pub fn nest(&mut self, at: &str) {
        self.file(&format!("{at}/.cvmfscatalog"), b"");
        self.row(at).role = Role::Mountpoint;
    }

    pub fn unnest(&mut self, at: &str) {
        self.remove(&format!("{at}/.cvmfscatalog"));
        self.row(at).role = Role::Plain;
    }

    /// True if there is a directory with directories in it in the published revision.
    pub fn held_directories(&self, at: &str) -> bool {
        let row = self.before.find(at);
        row.is_some_and(|row| row.entry.is_dir() && row.linkcount > 2)
    }

    /// The paths there are, with what stands there.
    pub fn rows(&self) -> &BTreeMap<RepoPath, Row> {
        &self.rows
    }

    /// Makes catalogs of it. An unchanged one stays what it was.
    pub fn make(self) -> Made {
        self.make_and_show().0
    }

    /// The same, and the rows that are in them.
    pub fn make_and_show(mut self) -> (Made, BTreeMap<RepoPath, Row>) {
        let mut subdirectories: BTreeMap<RepoPath, u32> = BTreeMap::new();
        for (path, _) in self.rows.iter().filter(|(_, row)| row.entry.is_dir()) {
            if let Some(parent) = path.parent() {
                *subdirectories.entry(parent).or_default() += 1;
            }
        }
        for (path, row) in self.rows.iter_mut().filter(|(_, row)| row.entry.is_dir()) {
            row.linkcount = 2 + subdirectories.get(path).copied().unwrap_or(0);
        }
        let (root, _) = self.make_catalog(&RepoPath::root());
        let made = Made {
            base: self.base,
            root: root.hash,
            objects: self.objects,
        };
        (made, self.rows)
    }

    fn make_catalog(&mut self, begins: &RepoPath) -> (NestedRef, Counters) {
        let mut rows = BTreeMap::new();
        let mut nested: Vec<RepoPath> = Vec::new();
        for (path, row) in self.rows.iter().filter(|(path, _)| path.is_within(begins)) {
            if nested.iter().any(|other| path.is_within(other)) {
                continue;
            }
            let mut row = row.clone();
            if path != begins && row.role == Role::Mountpoint {
                nested.push(path.clone());
            } else if path == begins && !begins.is_root() {
                row.role = Role::Root;
            }
            rows.insert(path.clone(), row);
        }
        let below: Vec<_> = nested.iter().map(|at| self.make_catalog(at)).collect();
        let before = self.before.0.get(begins);
        let is_before = |(reference, _): &(NestedRef, Counters)| {
            let part = self.before.0.get(&reference.path);
            part.is_some_and(|part| part.hash == reference.hash && part.bytes == reference.size)
        };
        if let Some(part) = before.filter(|part| part.rows == rows && below.iter().all(is_before)) {
            return (self.reference(begins, part.hash, part.bytes), part.counters);
        }
        let mut counters = Counters::default();
        for row in rows.values() {
            counters.self_ += Counts::of(row);
        }
        for (_, of) in &below {
            counters.subtree += of.total();
        }
        let stamp = Stamp {
            revision: before.map_or(0, |part| part.revision) + 1,
            previous: Some(before.map_or(Hash::null(), |part| part.hash)),
            last_modified: MTIME,
            ttl: begins.is_root().then_some(240),
        };
        let (stored, bytes) = write(begins, rows.values(), &below, &counters, stamp);
        let name = ObjectName::new(Hash::of(Algorithm::Sha1, &stored), ObjectKind::Catalog);
        self.objects.push((name, stored));
        (self.reference(begins, name.hash, bytes), counters)
    }

    fn reference(&self, path: &RepoPath, hash: Hash, bytes: u64) -> NestedRef {
        let claimed = self.claimed_bytes.get(path);
        NestedRef {
            path: path.clone(),
            hash,
            size: claimed.copied().unwrap_or(bytes),
        }
    }
}

/// A catalog's stored bytes, and the length of its file.
fn write<'r>(
    begins: &RepoPath,
    rows: impl Iterator<Item = &'r Row>,
    below: &[(NestedRef, Counters)],
    counters: &Counters,
    stamp: Stamp,
) -> (Vec<u8>, u64) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("catalog");
    let mut writer = CatalogWriter::create(&file, begins).unwrap();
    for row in rows {
        writer.put(row).unwrap();
    }
    for (reference, _) in below {
        writer.put_nested(reference).unwrap();
    }
    writer.set_counters(counters).unwrap();
    let finished = writer.finish(stamp).unwrap();
    let plain = fs::read(&file).unwrap();
    (compress(Compression::Zlib, &plain), finished.size)
}
