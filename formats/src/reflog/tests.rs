//! Reference logs against those that CVMFS made, and damage.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::hash::{Algorithm, Hash};
use crate::object::ObjectKind;
use crate::reflog::{RefKind, Reference, Reflog, ReflogError, ReflogWriter};

fn golden(repo: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(repo)
}

fn text(file: &Path, sql: &str) -> Vec<String> {
    let conn = Connection::open(file).unwrap();
    let mut query = conn.prepare(sql).unwrap();
    query
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn official_ones_are_read_and_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    for repo in [
        "garbage-collectable",
        "rmd160",
        "sha1",
        "shake128",
        "uncompressed",
    ] {
        let file = golden(repo).join("storage/.cvmfsreflog");
        let chksum = std::fs::read_to_string(golden(repo).join("reflog.chksum")).unwrap();
        let chksum: Hash = chksum.trim().parse().unwrap();
        assert_eq!(
            Hash::of(chksum.algorithm(), &std::fs::read(&file).unwrap()),
            chksum
        );

        let official = Reflog::open(&file).unwrap();
        official.verify().unwrap();
        assert_eq!(official.fqrn(), format!("{repo}.example.org"));
        let references = official.references().unwrap();
        let names = std::fs::read_to_string(golden(repo).join("objects.txt")).unwrap();
        for reference in &references {
            let path = reference.object().storage_path();
            assert!(
                names.lines().any(|line| line == path),
                "{repo} lacks {path}"
            );
            let found = official.find(reference.kind, &reference.hash).unwrap();
            assert_eq!(found.as_ref(), Some(reference));
        }
        assert!(references.iter().any(|r| r.kind == RefKind::MetaInfo));

        let copy = scratch.path().join(repo);
        let mut writer = ReflogWriter::create(&copy, official.fqrn()).unwrap();
        for reference in &references {
            writer.add(reference).unwrap();
        }
        assert_eq!(
            writer.finish().unwrap(),
            std::fs::metadata(&file).unwrap().len()
        );
        for sql in [
            "SELECT name || coalesce(sql, '') FROM sqlite_schema ORDER BY rowid",
            "SELECT key || '=' || value FROM properties ORDER BY rowid",
            "SELECT hash || type || ',' || timestamp FROM refs ORDER BY hash",
        ] {
            assert_eq!(text(&copy, sql), text(&file, sql), "{repo}: {sql}");
        }
    }
}

#[test]
fn a_repeated_reference_gets_the_new_time() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("r");
    let mut log = ReflogWriter::create(&at, "a.b").unwrap();
    let hash = Hash::of(Algorithm::Rmd160, b"x");
    let reference = |timestamp| Reference {
        hash,
        kind: RefKind::Certificate,
        timestamp,
    };
    log.add(&reference(1)).unwrap();
    log.finish().unwrap();
    let mut log = ReflogWriter::open_update(&at).unwrap();
    log.add(&reference(2)).unwrap();
    assert_eq!(log.references().unwrap(), [reference(2)]);
    assert_eq!(log.find(RefKind::Catalog, &hash).unwrap(), None);
    assert_eq!(reference(2).object().kind, ObjectKind::Certificate);
    assert!(log.remove(&hash).unwrap());
    assert!(!log.remove(&hash).unwrap());
    assert_eq!(log.references().unwrap(), []);
}

#[test]
fn damage_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("r");
    let good = std::fs::read(golden("sha1").join("storage/.cvmfsreflog")).unwrap();
    let mut refused = 0;
    for round in 0..600_usize {
        let mut bytes = good.clone();
        for hit in 0..1 + round % 7 {
            let at = (round + 1).wrapping_mul(0x9e37_79b9).wrapping_mul(hit + 1) % bytes.len();
            bytes[at] ^= 1 << (round % 8);
        }
        bytes.truncate(if round % 9 == 0 {
            good.len() - round
        } else {
            good.len()
        });
        std::fs::write(&at, &bytes).unwrap();
        refused += usize::from(Reflog::open(&at).and_then(|log| log.verify()).is_err());
        if let Ok(mut log) = ReflogWriter::open_update(&at) {
            let hash = Hash::of(Algorithm::Sha1, b"x");
            let _ = log.add(&Reference {
                hash,
                kind: RefKind::History,
                timestamp: 1,
            });
            let _ = log.finish();
        }
    }
    assert!(refused > 60, "{refused}");
    let after = |sql: &str| {
        std::fs::write(&at, &good).unwrap();
        Connection::open(&at).unwrap().execute_batch(sql).unwrap();
        Reflog::open(&at)
            .and_then(|log| log.references())
            .unwrap_err()
    };
    assert!(matches!(
        after("UPDATE refs SET type = 4"),
        ReflogError::BadKind { found: 4, .. }
    ));
    assert!(matches!(
        after("UPDATE refs SET hash = hash || 'C'"),
        ReflogError::BadHash { .. }
    ));
    assert!(matches!(after("DROP TABLE refs"), ReflogError::Database(_)));
    assert!(matches!(
        after("UPDATE properties SET value = '2.0' WHERE key = 'schema'"),
        ReflogError::Database(_)
    ));
}
