//! What a writer does to the file.

use super::support::{dir, file, hash_of, integer, path, row, rows, tamper};
use crate::catalog::{
    Catalog, CatalogError, CatalogWriter, Counters, Counts, NestedRef, Role, RowProblem, Stamp,
};
use crate::entry::{Kind, Regular};
use crate::hash::{Algorithm, Hash};
use crate::object::{Chunk, Compression, Content};
use crate::path::RepoPath;

const STAMP: Stamp = Stamp {
    revision: 1,
    previous: None,
    last_modified: 1,
    ttl: None,
};

fn chunked(sizes: &[u64]) -> Kind {
    let mut offset = 0;
    let chunks = sizes
        .iter()
        .map(|size| {
            let chunk = Chunk {
                offset,
                size: *size,
                hash: hash_of(&offset.to_string()),
            };
            offset += size;
            chunk
        })
        .collect();
    Kind::Regular(Regular {
        size: offset,
        content: Content::Chunks { bulk: None, chunks },
        compression: Compression::Zlib,
        external: false,
        direct_io: false,
        link_group: 0,
    })
}

#[test]
fn a_row_keeps_its_rowid_and_loses_its_old_chunks() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let mut writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
    writer.put(&row("", dir())).unwrap();
    writer.put(&row("/a", chunked(&[3, 4, 5]))).unwrap();
    writer.put(&row("/b", file("b"))).unwrap();
    writer.finish(STAMP).unwrap();

    let mut writer = CatalogWriter::open_update(&at).unwrap();
    assert_eq!(
        writer
            .lookup_path(&path("/a"))
            .unwrap()
            .unwrap()
            .entry
            .size(),
        12
    );
    writer.put(&row("/a", chunked(&[9, 9]))).unwrap();
    let changed = writer.lookup_path(&path("/a")).unwrap().unwrap();
    assert_eq!(changed, row("/a", chunked(&[9, 9])));
    writer.finish(STAMP).unwrap();
    assert_eq!(
        integer(&at, "SELECT rowid FROM catalog WHERE name = 'a'"),
        2
    );
    assert_eq!(integer(&at, "SELECT count(*) FROM chunks"), 2);

    let mut writer = CatalogWriter::open_update(&at).unwrap();
    writer.put(&row("/a", file("whole"))).unwrap();
    assert!(writer.remove(&path("/b").path_hash()).unwrap());
    assert!(!writer.remove(&path("/b").path_hash()).unwrap());
    writer.finish(STAMP).unwrap();
    assert_eq!(integer(&at, "SELECT count(*) FROM chunks"), 0);
    assert_eq!(integer(&at, "SELECT count(*) FROM catalog"), 2);
}

#[test]
fn properties_move_to_the_end_in_the_order_of_the_official_tools() {
    let scratch = tempfile::tempdir().unwrap();
    let keys = |at: &std::path::Path| -> Vec<String> {
        rows(at, "SELECT key FROM properties ORDER BY rowid").concat()
    };
    let at = scratch.path().join("root");
    let writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
    writer
        .finish(Stamp {
            revision: 0,
            ..STAMP
        })
        .unwrap();
    assert_eq!(
        keys(&at),
        [
            "'schema'",
            "'schema_revision'",
            "'revision'",
            "'last_modified'"
        ]
    );
    assert_eq!(std::fs::metadata(&at).unwrap().len(), 16384);

    let stamp = Stamp {
        revision: 1,
        previous: Some(hash_of("before")),
        last_modified: -5,
        ttl: Some(240),
    };
    CatalogWriter::open_update(&at)
        .unwrap()
        .finish(stamp)
        .unwrap();
    let committed = [
        "'schema'",
        "'schema_revision'",
        "'TTL'",
        "'last_modified'",
        "'revision'",
        "'previous_revision'",
    ];
    assert_eq!(keys(&at), committed);
    CatalogWriter::open_update(&at)
        .unwrap()
        .finish(Stamp {
            revision: 2,
            ..stamp
        })
        .unwrap();
    assert_eq!(keys(&at), committed);
    let catalog = Catalog::open(&at).unwrap();
    assert_eq!((catalog.revision(), catalog.last_modified()), (2, -5));
    assert_eq!(
        (catalog.ttl(), catalog.previous_revision()),
        (Some(240), stamp.previous)
    );

    let at = scratch.path().join("nested");
    let writer = CatalogWriter::create(&at, &path("/a/b")).unwrap();
    assert_eq!(
        writer
            .finish(Stamp {
                previous: Some(Hash::null()),
                ..STAMP
            })
            .unwrap()
            .size,
        16384
    );
    let nested = [
        "'schema'",
        "'schema_revision'",
        "'root_prefix'",
        "'last_modified'",
        "'revision'",
        "'previous_revision'",
    ];
    assert_eq!(keys(&at), nested);
    let catalog = Catalog::open(&at).unwrap();
    assert_eq!(catalog.previous_revision(), None);
    assert_eq!(
        catalog.property("previous_revision").unwrap(),
        Some("0".repeat(40))
    );
}

#[test]
fn gaps_and_free_pages_are_compacted_only_when_they_are_many() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let name = |i: u32| format!("/{i:04}");
    let mut writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
    writer.put(&row("", dir())).unwrap();
    for i in 0..4000 {
        writer.put(&row(&name(i), file(&name(i)))).unwrap();
    }
    let full = writer.finish(STAMP).unwrap().size;

    let mut writer = CatalogWriter::open_update(&at).unwrap();
    for i in 0..100 {
        assert!(writer.remove(&path(&name(i)).path_hash()).unwrap());
    }
    assert_eq!(writer.finish(STAMP).unwrap().size, full);
    assert_eq!(integer(&at, "SELECT max(rowid) FROM catalog"), 4001);
    assert!(integer(&at, "PRAGMA freelist_count") > 0);

    let mut writer = CatalogWriter::open_update(&at).unwrap();
    for i in (0..4000).filter(|i| i % 3 == 0) {
        writer.remove(&path(&name(i)).path_hash()).unwrap();
    }
    assert!(writer.finish(STAMP).unwrap().size < full);
    assert_eq!(integer(&at, "PRAGMA freelist_count"), 0);
    assert_eq!(integer(&at, "PRAGMA page_size"), 1024);
    assert_eq!(integer(&at, "SELECT max(rowid) - count(*) FROM catalog"), 0);
    // the order is as it was
    let found: Vec<String> = rows(
        &at,
        "SELECT name FROM catalog WHERE rowid > 1 ORDER BY rowid",
    )
    .concat();
    assert!(found.is_sorted());
    assert_eq!(
        std::fs::read_dir(scratch.path()).unwrap().count(),
        1,
        "leftovers"
    );
    Catalog::open(&at).unwrap().verify().unwrap();
}

#[test]
fn counters_and_references() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let mut writer = CatalogWriter::create(&at, &path("/n")).unwrap();
    assert_eq!(writer.counters().unwrap(), Counters::default());
    let mut counters = Counters::default();
    counters.self_.dir = 7;
    counters.subtree = Counts {
        external_file_size: i64::MAX,
        ..Counts::default()
    };
    writer.set_counters(&counters).unwrap();
    assert_eq!(writer.counters().unwrap(), counters);
    assert_eq!(counters.total().dir, 7);

    let mut nested = NestedRef {
        path: path("/n/\u{fc}"),
        hash: Hash::of(Algorithm::Rmd160, b"x"),
        size: 1,
    };
    writer.put_nested(&nested).unwrap();
    nested.size = 2;
    writer.put_nested(&nested).unwrap();
    assert_eq!(writer.nested().unwrap(), [nested.clone()]);
    assert_eq!(writer.recount_self().unwrap().nested, 1);
    let bound = NestedRef {
        path: path("/n/.cvmfs/s"),
        ..nested.clone()
    };
    writer.put_bind_mountpoint(&bound).unwrap();
    writer.finish(STAMP).unwrap();

    let catalog = Catalog::open(&at).unwrap();
    assert_eq!(
        catalog.nested_at(&nested.path).unwrap(),
        Some(nested.clone())
    );
    assert_eq!(catalog.bind_mountpoints().unwrap().first(), Some(&bound));
    drop(catalog);
    let mut writer = CatalogWriter::open_update(&at).unwrap();
    assert!(writer.remove_nested(&nested.path).unwrap());
    assert!(!writer.remove_nested(&nested.path).unwrap());
    assert!(writer.remove_bind_mountpoint(&bound.path).unwrap());
    assert_eq!(writer.nested().unwrap(), []);
}

#[test]
fn link_groups() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let mut writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
    assert_eq!(writer.max_link_group().unwrap(), 0);
    for group in [1, 77, u32::MAX >> 1] {
        let mut member = row(&format!("/{group}"), file("same"));
        (member.link_group, member.linkcount) = (group, u32::MAX);
        writer.put(&member).unwrap();
        assert_eq!(writer.max_link_group().unwrap(), group);
        let read = writer.lookup(&member.path).unwrap().unwrap();
        assert_eq!((read.link_group, read.linkcount), (group, u32::MAX));
        assert_eq!(read.entry.regular().unwrap().link_group, u64::from(group));
    }
}

#[test]
fn refuses_what_a_catalog_cannot_hold() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let mut writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
    let problem = |result: crate::catalog::Result<()>| match result {
        Err(CatalogError::BadRow { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let mut long_xattr = row("/a", dir());
    long_xattr
        .entry
        .xattrs
        .insert(b"user.a".to_vec(), vec![0; 256]);
    assert!(matches!(
        problem(writer.put(&long_xattr)),
        RowProblem::Xattr(_)
    ));

    let mut role = row("/a", file("a"));
    role.role = Role::Mountpoint;
    assert_eq!(problem(writer.put(&role)), RowProblem::Role);

    for sizes in [&[][..], &[3, 0]] {
        let holes = row("/a", chunked(sizes));
        assert!(matches!(
            problem(writer.put(&holes)),
            RowProblem::Chunks { .. }
        ));
    }
    let mut mixed = row("/a", chunked(&[1, 2]));
    let Kind::Regular(regular) = &mut mixed.entry.kind else {
        unreachable!()
    };
    let Content::Chunks { bulk, .. } = &mut regular.content else {
        unreachable!()
    };
    *bulk = Some(Hash::of(Algorithm::Shake128, b""));
    assert_eq!(problem(writer.put(&mixed)), RowProblem::MixedAlgorithms);

    let mut name = row("/a", dir());
    name.name = b"..".to_vec();
    assert!(matches!(problem(writer.put(&name)), RowProblem::Name(_)));
    name.name.clear();
    assert!(matches!(problem(writer.put(&name)), RowProblem::Name(_)));

    let mut nanos = row("/a", dir());
    nanos.entry.mtime.nanos = Some(1_000_000_000);
    assert!(matches!(
        problem(writer.put(&nanos)),
        RowProblem::Column {
            column: "mtimens",
            ..
        }
    ));
    let nul = row("/a", Kind::Symlink(b"a\0b".to_vec()));
    assert!(matches!(
        problem(writer.put(&nul)),
        RowProblem::Column {
            column: "symlink",
            ..
        }
    ));
    assert_eq!(writer.row_count().unwrap(), 0);

    // somebody else's file is not overwritten
    assert!(matches!(
        CatalogWriter::create(&at, &RepoPath::root()),
        Err(CatalogError::Database(
            crate::catalog::DatabaseError::Io { .. }
        ))
    ));
}

#[test]
fn odd_file_names_are_opened_as_they_are() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = tempfile::tempdir().unwrap();
    for name in [
        &b"a b?mode=ro#%41"[..],
        b":memory:",
        b"file:x",
        b"\xff\xfe",
        "ü'\"".as_bytes(),
    ] {
        let at = scratch.path().join(std::ffi::OsStr::from_bytes(name));
        let writer = CatalogWriter::create(&at, &path("/x")).unwrap();
        writer.finish(STAMP).unwrap();
        assert_eq!(Catalog::open(&at).unwrap().root_prefix(), &path("/x"));
        // compaction renames a file of a like name
        tamper(
            &at,
            "INSERT INTO catalog (md5path_1, md5path_2, hardlinks) VALUES (1, 1, 0), (2, 2, 0);
                     DELETE FROM catalog WHERE md5path_1 = 1;",
        );
        CatalogWriter::open_update(&at)
            .unwrap()
            .finish(STAMP)
            .unwrap();
        assert_eq!(integer(&at, "SELECT max(rowid) FROM catalog"), 1);
    }
}
