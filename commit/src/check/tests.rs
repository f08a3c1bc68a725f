//! The golden repositories are healthy; each rule finds the fault that it is for.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use formats::catalog::{CatalogWriter, RawRow, Role, Row, Stamp};
use formats::{
    Algorithm, Compression, Content, Counters, Entry, Hash, Kind, Mtime, NestedRef, ObjectKind,
    ObjectName, PublicKey, Regular, RepoPath, Xattrs, compress,
};
use store::{DirStore, Durability, Limits, MemoryStore, put};

use super::*;

struct Silent;
impl Watch for Silent {
    fn checked(&self, _: u64, _: u64, _: u64) {}
}

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(folder)
}

/// A day on which the golden whitelists are valid.
fn then() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_300_000)
}

fn check_golden(folder: &str, now: SystemTime, options: Options) -> Report {
    let scratch = tempfile::tempdir().unwrap();
    let name = format!("{folder}.example.org");
    let folder = golden(folder);
    let key = std::fs::read(folder.join(format!("keys/{name}.pub"))).unwrap();
    let store = DirStore::open(folder.join("storage"), Durability::Batch).unwrap();
    let keys = vec![PublicKey::from_pem(&key).unwrap()];
    let cache = scratch.path().join("cache");
    let repository =
        Repository::new(name, Arc::new(store), keys, cache, Limits::default()).unwrap();
    let checksum = std::fs::read_to_string(folder.join("reflog.chksum")).unwrap();
    let subject = Subject {
        repository: &Arc::new(repository),
        reflog_checksum: Some(checksum.trim().parse().unwrap()),
        scratch: scratch.path(),
        now,
    };
    check(&subject, options, &Silent)
}

#[test]
fn official_repositories_are_healthy() {
    let report = check_golden("sha1", then(), Options { data: true });
    assert_eq!(report.findings, []);
    assert!(report.catalogs >= 4 && report.rows > 200 && report.bytes_hashed > 1_000_000);
    // of the others only catalogs and root objects are kept: nothing but data may be missing
    for folder in [
        "rmd160",
        "shake128",
        "uncompressed",
        "garbage-collectable",
        "mtime-ns",
        "autocatalogs",
    ] {
        let report = check_golden(folder, then(), Options::default());
        let other: Vec<_> = report
            .findings
            .iter()
            .filter(|f| ![22, 31].contains(&f.rule))
            .collect();
        assert!(other.is_empty(), "{folder}: {other:?}");
        assert!(report.rows > 200, "{folder}");
    }
}

#[test]
fn an_expired_whitelist_is_a_finding_and_the_rest_is_checked() {
    let later = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let report = check_golden("sha1", later, Options::default());
    assert_eq!(
        report.findings.iter().map(|f| f.rule).collect::<Vec<_>>(),
        [1]
    );
    assert!(report.rows > 200);
}

/// A small tree of two catalogs in memory, broken on purpose.
struct Broken {
    dir: tempfile::TempDir,
    store: Arc<MemoryStore>,
}

fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

fn entry(kind: Kind) -> Entry {
    Entry {
        kind,
        perm: 0o644,
        uid: 0,
        gid: 0,
        mtime: Mtime::default(),
        xattrs: Xattrs::new(),
    }
}

fn row(at: &str, kind: Kind, linkcount: u32) -> Row {
    let at = path(at);
    Row {
        path: at.path_hash(),
        parent: at
            .parent()
            .map_or(formats::PathHash::NONE, |p| p.path_hash()),
        name: at.name().map(|n| n.as_bytes().to_vec()).unwrap_or_default(),
        entry: entry(kind),
        linkcount,
        link_group: 0,
        role: Role::Plain,
        hidden: false,
    }
}

fn dir(at: &str, subdirectories: u32) -> Row {
    row(at, Kind::Directory { size: 4096 }, 2 + subdirectories)
}

fn empty_object() -> (Hash, Vec<u8>) {
    let stored = compress(Compression::Zlib, b"");
    (Hash::of(Algorithm::Sha1, &stored), stored)
}

fn file(at: &str) -> Row {
    let regular = Regular {
        size: 0,
        content: Content::Whole(empty_object().0),
        compression: Compression::Zlib,
        external: false,
        direct_io: false,
        link_group: 0,
    };
    row(at, Kind::Regular(regular), 1)
}

impl Broken {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let (hash, stored) = empty_object();
        put(
            store.as_ref(),
            &ObjectName::new(hash, ObjectKind::Data),
            &stored,
        )
        .unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            store,
        }
    }

    fn catalog(
        &self,
        root: &str,
        rows: &[Row],
        nested: &[NestedRef],
        subtree: Counters,
        spoil: &dyn Fn(&mut CatalogWriter),
    ) -> (NestedRef, Counters) {
        let root = path(root);
        let file = self
            .dir
            .path()
            .join(format!("catalog{}", root.path_hash().0));
        let _ = std::fs::remove_file(&file);
        let mut writer = CatalogWriter::create(&file, &root).unwrap();
        for row in rows {
            writer.put(row).unwrap();
        }
        for nested in nested {
            writer.put_nested(nested).unwrap();
        }
        let counters = Counters {
            self_: writer.recount_self().unwrap(),
            subtree: subtree.total(),
        };
        writer.set_counters(&counters).unwrap();
        spoil(&mut writer);
        let stamp = Stamp {
            revision: 1,
            previous: None,
            last_modified: 1,
            ttl: None,
        };
        let size = writer.finish(stamp).unwrap().size;
        let stored = compress(Compression::Zlib, &std::fs::read(&file).unwrap());
        let hash = Hash::of(Algorithm::Sha1, &stored);
        let name = ObjectName::new(hash, ObjectKind::Catalog);
        put(self.store.as_ref(), &name, &stored).unwrap();
        (
            NestedRef {
                path: root,
                hash,
                size,
            },
            counters,
        )
    }

    /// The rules that a walk reports for `/`, `/file`, `/dir/file` and the nested catalog `/nested`.
    fn rules(
        spoil_root: &dyn Fn(&mut CatalogWriter),
        spoil_nested: &dyn Fn(&mut CatalogWriter),
    ) -> Vec<u8> {
        let broken = Self::new();
        let nested_root = Row {
            role: Role::Root,
            ..dir("/nested", 0)
        };
        let rows = [
            nested_root,
            file("/nested/.cvmfscatalog"),
            file("/nested/file"),
        ];
        let (nested, counters) =
            broken.catalog("/nested", &rows, &[], Counters::default(), spoil_nested);
        let mountpoint = Row {
            role: Role::Mountpoint,
            ..dir("/nested", 0)
        };
        let rows = [
            dir("", 2),
            file("/file"),
            dir("/dir", 0),
            file("/dir/file"),
            mountpoint,
        ];
        let (root, _) = broken.catalog("", &rows, &[nested], counters, spoil_root);
        broken.walk(&root)
    }

    fn walk(&self, root: &NestedRef) -> Vec<u8> {
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        let cache = self.dir.path().join("cache");
        let repository =
            Repository::new("x.example.org", store, vec![], cache, Limits::default()).unwrap();
        let subject = Subject {
            repository: &Arc::new(repository),
            reflog_checksum: None,
            scratch: self.dir.path(),
            now: then(),
        };
        let mut report = Report::default();
        let mut walk = catalog::Walk {
            subject: &subject,
            report: &mut report,
            watch: &Silent,
        };
        walk.tree(&root.hash, root.size);
        let mut rules: Vec<u8> = report.findings.iter().map(|f| f.rule).collect();
        rules.dedup();
        rules
    }
}

fn nothing(_: &mut CatalogWriter) {}

/// Changes the columns of `/file`, sized like the row it replaces so that counters still fit.
fn raw(change: impl Fn(&mut RawRow)) -> impl Fn(&mut CatalogWriter) {
    move |writer| {
        let mut raw = file("/file").to_raw().unwrap();
        change(&mut raw);
        writer.put_raw(&raw, &[]).unwrap();
    }
}

fn set(row: Row) -> impl Fn(&mut CatalogWriter) {
    move |writer| writer.put(&row).unwrap()
}

#[test]
fn each_rule_finds_its_fault() {
    assert_eq!(Broken::rules(&nothing, &nothing), [0_u8; 0]);
    let has = |rule: u8, found: Vec<u8>| assert!(found.contains(&rule), "{rule}: {found:?}");
    let root = |spoil: &dyn Fn(&mut CatalogWriter)| Broken::rules(spoil, &nothing);
    let nested = |spoil: &dyn Fn(&mut CatalogWriter)| Broken::rules(&nothing, spoil);

    has(
        10,
        nested(&|w| w.set_property("root_prefix", "/other").unwrap()),
    );
    has(
        11,
        nested(&|w| assert!(w.remove(&path("/nested").path_hash()).unwrap())),
    );
    let differs = Row {
        role: Role::Root,
        ..dir("/nested", 0)
    };
    let differs = Row {
        entry: Entry {
            perm: 0o700,
            ..differs.entry.clone()
        },
        ..differs
    };
    has(12, nested(&set(differs)));
    has(12, nested(&set(dir("/nested", 0))));
    has(13, root(&set(file("/no/such/parent"))));
    has(
        14,
        root(&|w| assert!(w.remove_nested(&path("/nested")).unwrap())),
    );
    has(
        15,
        root(&|w| {
            let at = NestedRef {
                path: path("/nested"),
                hash: Hash::null(),
                size: 0,
            };
            w.put_bind_mountpoint(&at).unwrap();
        }),
    );
    has(16, root(&set(dir("/nested", 0))));
    has(
        17,
        root(&|w| {
            let mut counters = w.counters().unwrap();
            counters.self_.regular += 1;
            w.set_counters(&counters).unwrap();
        }),
    );
    has(
        17,
        root(&|w| {
            let mut counters = w.counters().unwrap();
            counters.subtree.file_size += 1;
            w.set_counters(&counters).unwrap();
        }),
    );
    has(19, root(&set(file("/dir/.cvmfscatalog"))));
    has(
        20,
        nested(&|w| {
            assert!(
                w.remove(&path("/nested/.cvmfscatalog").path_hash())
                    .unwrap()
            );
        }),
    );
    has(21, root(&raw(|raw| raw.hash = None)));
    has(22, root(&raw(|raw| raw.hash = Some([1; 20]))));
    has(23, root(&raw(|raw| raw.hardlinks = 0)));
    has(24, root(&raw(|raw| raw.hardlinks = 2)));
    has(24, root(&raw(|raw| raw.hardlinks = (7 << 32) | 2)));
    has(26, root(&set(dir("/dir", 3))));
    has(27, root(&set(file("/nested/here"))));
    has(31, root(&raw(|raw| raw.flags |= 0x40)));
    let special = |change: fn(&mut RawRow)| {
        raw(move |raw| {
            (raw.mode, raw.flags, raw.hash) = (0o010_644, 4 | 16, None);
            change(raw);
        })
    };
    has(25, root(&special(|raw| raw.flags |= 0x1_0000)));
    has(29, root(&special(|raw| raw.hash = Some([1; 20]))));
    has(29, root(&special(|raw| raw.size = 1)));
    has(29, root(&special(|raw| raw.symlink = b"x".to_vec())));
    has(30, root(&special(|raw| raw.flags |= 0x80)));
    has(
        28,
        root(&raw(|raw| {
            (raw.mode, raw.flags, raw.symlink) = (0o120_777, 4 | 8, b"x".to_vec());
        })),
    );
}

#[test]
fn a_missing_catalog_is_named() {
    let broken = Broken::new();
    let gone = NestedRef {
        path: path(""),
        hash: Hash::of(Algorithm::Sha1, b"x"),
        size: 0,
    };
    assert_eq!(broken.walk(&gone), [8]);
}

#[test]
fn findings_are_bounded() {
    let mut report = Report::default();
    for i in 0..MAX_FINDINGS_KEPT + 5 {
        report.find(8, i, "x");
    }
    assert_eq!(report.findings.len(), MAX_FINDINGS_KEPT);
    assert_eq!(report.problems, MAX_FINDINGS_KEPT as u64 + 5);
}
