//! Small repositories of the tests' own making, right or wrong as wanted.

use std::sync::Arc;

use formats::catalog::{CatalogWriter, NestedRef, Stamp};
use formats::{
    Compression, Content, Entry, Hash, Kind, Mtime, Name, ObjectKind, ObjectName, PathHash,
    Regular, RepoPath, Role, Row,
};
use store::{MemoryStore, ObjectStore, put};

pub fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// A row for anything at a path.
pub fn row(at: &str, kind: Kind) -> Row {
    let at = path(at);
    let linkcount = if matches!(kind, Kind::Directory { .. }) {
        2
    } else {
        1
    };
    Row {
        path: at.path_hash(),
        parent: at.parent().map_or(PathHash::NONE, |p| p.path_hash()),
        name: at.name().map(|n| n.as_bytes().to_vec()).unwrap_or_default(),
        entry: Entry {
            kind,
            perm: 0o755,
            uid: 1,
            gid: 2,
            mtime: Mtime::default(),
            xattrs: Default::default(),
        },
        linkcount,
        link_group: 0,
        role: Role::Plain,
        hidden: false,
    }
}

pub fn dir(at: &str) -> Row {
    row(at, Kind::Directory { size: 4096 })
}

pub fn with_role(mut row: Row, role: Role) -> Row {
    row.role = role;
    row
}

pub fn regular(size: u64, content: Content) -> Regular {
    Regular {
        size,
        content,
        compression: Compression::Zlib,
        external: false,
        direct_io: false,
        link_group: 0,
    }
}

/// A file whose object is nowhere.
pub fn file(at: &str) -> Row {
    let content = Content::Whole(Hash::of(Default::default(), at.as_bytes()));
    row(at, Kind::Regular(regular(1, content)))
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A catalog as it is stored.
pub struct Made {
    pub hash: Hash,
    pub size: u64,
}

impl Made {
    pub fn object(&self) -> ObjectName {
        ObjectName::new(self.hash, ObjectKind::Catalog)
    }

    pub fn at(&self, at: &str) -> NestedRef {
        NestedRef {
            path: path(at),
            hash: self.hash,
            size: self.size,
        }
    }
}

/// Stores a catalog that says it begins at `prefix`.
pub fn catalog(
    store: &dyn ObjectStore,
    prefix: &str,
    rows: &[Row],
    change: impl FnOnce(&mut CatalogWriter),
) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog");
    let mut writer = CatalogWriter::create(&file, &path(prefix)).unwrap();
    for row in rows {
        writer.put(row).unwrap();
    }
    change(&mut writer);
    let stamp = Stamp {
        revision: 1,
        previous: None,
        last_modified: 0,
        ttl: None,
    };
    let size = writer.finish(stamp).unwrap().size;
    let hash = store_zlib(store, &std::fs::read(&file).unwrap(), ObjectKind::Catalog).hash;
    Made { hash, size }
}

/// Compresses and stores any content.
pub fn store_zlib(store: &dyn ObjectStore, bytes: &[u8], kind: ObjectKind) -> ObjectName {
    let stored = formats::compress(Compression::Zlib, bytes);
    let object = ObjectName::new(Hash::of(Default::default(), &stored), kind);
    put(store, &object, &stored).unwrap();
    object
}

/// `/a`, `/a/f`, `/n` (nested: `/n/g`, `/n/m` (nested: `/n/m/h`)), `/z`, and what they are made of.
pub struct Tree {
    pub store: MemoryStore,
    pub root: Made,
    pub outer: Made,
}

pub fn tree() -> Tree {
    let store = MemoryStore::new();
    let top = |at: &str| with_role(dir(at), Role::Root);
    let inner = catalog(&store, "/n/m", &[top("/n/m"), file("/n/m/h")], |_| {});
    let rows = [
        top("/n"),
        file("/n/g"),
        with_role(dir("/n/m"), Role::Mountpoint),
    ];
    let outer = catalog(&store, "/n", &rows, |w| {
        w.put_nested(&inner.at("/n/m")).unwrap()
    });
    let rows = [
        dir(""),
        dir("/a"),
        file("/a/f"),
        with_role(dir("/n"), Role::Mountpoint),
        file("/z"),
    ];
    let root = catalog(&store, "", &rows, |w| {
        w.put_nested(&outer.at("/n")).unwrap()
    });
    Tree { store, root, outer }
}

/// A repository over any store, without keys.
pub fn repository(
    store: Arc<dyn ObjectStore>,
    limits: store::Limits,
) -> (Arc<store::Repository>, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    let repository =
        store::Repository::new("made.example.org", store, vec![], cache.path(), limits).unwrap();
    (Arc::new(repository), cache)
}
