//! Catalogs of earlier schema revisions: read as they are, upgraded when they are changed.

use std::path::Path;

use super::support::{dir, file, hash_of, integer, path, row, rows, tamper};
use crate::catalog::{
    Catalog, CatalogError, CatalogWriter, Counters, DatabaseError, NestedRef, Role, Stamp,
};

const STAMP: Stamp = Stamp {
    revision: 2,
    previous: None,
    last_modified: 9,
    ttl: None,
};

/// What takes a catalog of revision 7 back to an earlier one, step by step.
const DOWN: [&str; 7] = [
    "ALTER TABLE catalog DROP COLUMN mtimens",
    "",
    "DELETE FROM statistics WHERE counter LIKE '%special'",
    "DROP TABLE bind_mountpoints",
    "DELETE FROM statistics WHERE counter LIKE '%external%'",
    "ALTER TABLE catalog DROP COLUMN xattr; DELETE FROM statistics WHERE counter LIKE '%xattr'",
    "ALTER TABLE nested_catalogs DROP COLUMN size",
];

fn write(at: &Path, revision: usize) {
    let mut writer = CatalogWriter::create(at, &path("/sw")).unwrap();
    let mut root = row("/sw", dir());
    root.role = Role::Root;
    writer.put(&root).unwrap();
    let mut plain = row("/sw/file", file("content"));
    plain.entry.mtime.nanos = Some(5);
    plain.entry.xattrs.insert(b"user.x".to_vec(), b"y".to_vec());
    writer.put(&plain).unwrap();
    let nested = NestedRef {
        path: path("/sw/n"),
        hash: hash_of("n"),
        size: 16384,
    };
    writer.put_nested(&nested).unwrap();
    let counters = Counters {
        self_: writer.recount_self().unwrap(),
        ..Counters::default()
    };
    writer.set_counters(&counters).unwrap();
    writer
        .finish(Stamp {
            revision: 1,
            ..STAMP
        })
        .unwrap();
    for step in &DOWN[..7 - revision] {
        tamper(at, step);
    }
    let sql = format!("UPDATE properties SET value = '{revision}' WHERE key = 'schema_revision'");
    tamper(at, &sql);
}

#[test]
fn every_revision_is_read_and_upgraded() {
    let scratch = tempfile::tempdir().unwrap();
    for revision in 0..=7 {
        let at = scratch.path().join(revision.to_string());
        write(&at, revision);
        let catalog = Catalog::open(&at).unwrap();
        assert_eq!(catalog.schema_revision() as usize, revision);
        let read = catalog.lookup_path(&path("/sw/file")).unwrap().unwrap();
        assert_eq!(read.entry.mtime.nanos, (revision >= 7).then_some(5));
        assert_eq!(read.entry.xattrs.len(), usize::from(revision >= 2));
        let nested = catalog.nested().unwrap();
        assert_eq!(nested[0].size, if revision >= 1 { 16384 } else { 0 });
        assert_eq!(
            catalog.nested_at(&path("/sw/n")).unwrap().as_ref(),
            nested.first()
        );
        assert_eq!(catalog.bind_mountpoints().unwrap(), []);
        let counters = catalog.counters().unwrap();
        assert_eq!((counters.self_.dir, counters.self_.regular), (1, 1));
        assert_eq!(catalog.recount_self().unwrap().regular, 1);
        catalog.verify().unwrap();
        drop(catalog);

        let mut writer = CatalogWriter::open_update(&at).unwrap();
        assert_eq!(writer.schema_revision(), 7);
        let mut new = row("/sw/new", file("new"));
        new.entry.mtime.nanos = Some(7);
        new.entry.xattrs.insert(b"user.x".to_vec(), b"z".to_vec());
        writer.put(&new).unwrap();
        let bound = NestedRef {
            path: path("/sw/b"),
            hash: hash_of("b"),
            size: 1,
        };
        writer.put_bind_mountpoint(&bound).unwrap();
        writer
            .put_nested(&NestedRef {
                size: 2,
                ..nested[0].clone()
            })
            .unwrap();
        writer.set_counters(&counters).unwrap();
        writer.finish(STAMP).unwrap();

        let catalog = Catalog::open(&at).unwrap();
        assert_eq!(catalog.lookup(&new.path).unwrap(), Some(new));
        assert_eq!(catalog.lookup(&read.path).unwrap(), Some(read));
        assert_eq!(catalog.nested().unwrap()[0].size, 2);
        assert_eq!(catalog.bind_mountpoints().unwrap(), [bound]);
        assert_eq!(catalog.counters().unwrap(), counters);
        assert_eq!(integer(&at, "SELECT count(*) FROM statistics"), 24);
        let schema = rows(&at, "SELECT value FROM properties WHERE key LIKE 'schema%'").concat();
        assert_eq!(schema, ["'2.5'", "'7'"]);
    }
}

#[test]
fn a_missing_counter_is_named() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    write(&at, 7);
    tamper(
        &at,
        "DELETE FROM statistics WHERE counter = 'subtree_special'",
    );
    match Catalog::open(&at).unwrap().counters() {
        Err(CatalogError::MissingCounter { counter, .. }) => assert_eq!(counter, "subtree_special"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_schemas_are_refused_and_2_4_is_read_only() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    for schema in ["1.0", "2.6", "3", "", "x", "NaN", "inf"] {
        let _ = std::fs::remove_file(&at);
        write(&at, 7);
        tamper(
            &at,
            &format!("UPDATE properties SET value = '{schema}' WHERE key = 'schema'"),
        );
        let opened = [
            Catalog::open(&at).err(),
            CatalogWriter::open_update(&at).err(),
        ];
        for error in opened {
            assert!(
                matches!(
                    error,
                    Some(CatalogError::Database(
                        DatabaseError::UnsupportedSchema { .. }
                    ))
                ),
                "{schema}: {error:?}"
            );
        }
    }
    let _ = std::fs::remove_file(&at);
    write(&at, 0);
    tamper(
        &at,
        "UPDATE properties SET value = '2.4' WHERE key = 'schema'",
    );
    assert!(Catalog::open(&at).is_ok());
    assert!(CatalogWriter::open_update(&at).is_err());
}
