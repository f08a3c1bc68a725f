//! Tag databases against those that CVMFS made, older ones, and damage.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::compress::decompress;
use crate::hash::{Algorithm, Hash};
use crate::history::{Branch, Head, History, HistoryError, HistoryWriter, Tag};
use crate::object::Compression;

const REPOS: [&str; 7] = [
    "autocatalogs",
    "garbage-collectable",
    "mtime-ns",
    "rmd160",
    "sha1",
    "shake128",
    "uncompressed",
];

/// Every tag database of a golden repository, unpacked.
fn golden(repo: &str, to: &Path) -> Vec<PathBuf> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(repo);
    let objects = std::fs::read_to_string(dir.join("objects.txt")).unwrap();
    let histories = objects.lines().filter(|line| line.ends_with('H'));
    histories
        .enumerate()
        .map(|(at, path)| {
            let packed = std::fs::File::open(dir.join("storage").join(path)).unwrap();
            let file = to.join(format!("{repo}-{at}"));
            let mut out = std::fs::File::create(&file).unwrap();
            std::io::copy(&mut decompress(Compression::Zlib, packed), &mut out).unwrap();
            file
        })
        .collect()
}

fn schema(file: &Path) -> Vec<(String, Option<String>)> {
    let conn = Connection::open(file).unwrap();
    let mut query = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE name <> 'x' ORDER BY rowid")
        .unwrap();
    let rows = query
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
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

fn hash_of(text: &str) -> Hash {
    Hash::of(Algorithm::Shake128, text.as_bytes())
}

fn head(revision: u64) -> Head {
    let hash = hash_of(&revision.to_string());
    Head {
        hash,
        size: 1024 * revision,
        revision,
        timestamp: 1000 + revision as i64,
    }
}

fn tag(name: &str, revision: u64) -> Tag {
    let Head {
        hash,
        size,
        revision,
        timestamp,
    } = head(revision);
    let (name, description) = (name.to_owned(), format!("about {name}"));
    Tag {
        name,
        hash,
        size,
        revision,
        timestamp,
        description,
        branch: String::new(),
    }
}

fn names(history: &History) -> Vec<String> {
    history
        .tags()
        .unwrap()
        .into_iter()
        .map(|tag| tag.name)
        .collect()
}

#[test]
fn official_ones_are_read_and_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    for repo in REPOS {
        let files = golden(repo, scratch.path());
        assert!(files.len() >= 2, "{repo}");
        for file in files {
            let official = History::open(&file).unwrap();
            assert_eq!(official.fqrn(), format!("{repo}.example.org"));
            official.verify().unwrap();
            let trunk = official.tag("trunk").unwrap().unwrap();
            assert_eq!(trunk.description, "current HEAD");
            let branches = official.branches().unwrap();
            assert_eq!(branches.len(), 1);
            assert_eq!(branches[0].parent, None);

            let copy = scratch.path().join("copy");
            let _ = std::fs::remove_file(&copy);
            let mut writer = HistoryWriter::create(&copy, official.fqrn()).unwrap();
            for tag in official.tags().unwrap() {
                writer.insert(&tag).unwrap();
            }
            let previous = official.previous_revision().unwrap_or(Hash::null());
            writer.set_previous_revision(&previous).unwrap();
            assert_eq!(
                writer.finish().unwrap(),
                std::fs::metadata(&file).unwrap().len()
            );
            assert_eq!(schema(&copy), schema(&file), "{repo}");
            for sql in [
                "SELECT key || '=' || value FROM properties ORDER BY rowid",
                "SELECT quote(branch) || quote(parent) || initial_revision FROM branches",
                "SELECT name || hash || revision || ',' || timestamp || channel || description \
                 || size || quote(branch) FROM tags ORDER BY name",
                "SELECT hash FROM recycle_bin",
                "SELECT CAST(page_size AS TEXT) FROM pragma_page_size",
            ] {
                assert_eq!(text(&copy, sql), text(&file, sql), "{repo}: {sql}");
            }
        }
    }
}

#[test]
fn a_publish_moves_trunk() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("h");
    let mut history = HistoryWriter::create(&at, "a.b").unwrap();
    history.set_trunk(&head(1)).unwrap();
    assert_eq!(names(&history), ["trunk"]);
    history.set_trunk(&head(2)).unwrap();
    history.insert(&tag("v2", 2)).unwrap();
    history.set_trunk(&head(3)).unwrap();
    history.finish().unwrap();

    let history = History::open(&at).unwrap();
    assert_eq!(names(&history), ["trunk", "trunk-previous", "v2"]);
    let (trunk, before) = (
        history.tag("trunk").unwrap(),
        history.tag("trunk-previous").unwrap(),
    );
    let undo = Tag {
        description: "default undo target".into(),
        ..tag("trunk-previous", 2)
    };
    assert_eq!(before, Some(undo));
    assert_eq!(
        trunk,
        Some(Tag {
            description: "current HEAD".into(),
            ..tag("trunk", 3)
        })
    );
    assert_eq!(history.tag_at(1002).unwrap().unwrap().revision, 2);
    assert!(history.tag_at(10).unwrap().is_none());
}

#[test]
fn a_tag_is_inserted_once() {
    let scratch = tempfile::tempdir().unwrap();
    let mut history = HistoryWriter::create(&scratch.path().join("h"), "a.b").unwrap();
    history.insert(&tag("v1", 1)).unwrap();
    assert!(matches!(history.insert(&tag("v1", 2)), Err(HistoryError::Exists(n)) if n == "v1"));
    let stray = Tag {
        branch: "none".into(),
        ..tag("v2", 2)
    };
    assert!(matches!(
        history.insert(&stray),
        Err(HistoryError::MissingBranch(_))
    ));
    assert!(history.remove("v1").unwrap());
    assert!(!history.remove("v1").unwrap());
    history.insert(&tag("v1", 2)).unwrap();
    assert_eq!(history.tag("v1").unwrap(), Some(tag("v1", 2)));
}

#[test]
fn a_rollback_to_a_name() {
    let scratch = tempfile::tempdir().unwrap();
    let mut history = HistoryWriter::create(&scratch.path().join("h"), "a.b").unwrap();
    for revision in 1..=5 {
        history
            .insert(&tag(&format!("v{revision}"), revision))
            .unwrap();
        history.set_trunk(&head(revision)).unwrap();
    }
    history.insert(&tag("also2", 2)).unwrap();
    assert!(matches!(
        history.rollback("v9", &head(6)),
        Err(HistoryError::Missing(_))
    ));
    let mut removed: Vec<_> = history
        .rollback("v2", &head(6))
        .unwrap()
        .into_iter()
        .map(|t| t.name)
        .collect();
    removed.sort();
    assert_eq!(removed, ["trunk", "trunk-previous", "v2", "v3", "v4", "v5"]);
    let mut left = names(&history);
    left.sort();
    assert_eq!(left, ["also2", "trunk", "v1", "v2"]);
    let moved = history.tag("v2").unwrap().unwrap();
    assert_eq!(
        moved,
        Tag {
            description: "about v2".into(),
            name: "v2".into(),
            ..tag("v2", 6)
        }
    );
    assert_eq!(history.tag("trunk").unwrap().unwrap().hash, head(6).hash);
}

#[test]
fn a_rollback_without_a_name_works_once() {
    let scratch = tempfile::tempdir().unwrap();
    let mut history = HistoryWriter::create(&scratch.path().join("h"), "a.b").unwrap();
    history.set_trunk(&head(1)).unwrap();
    history.set_trunk(&head(2)).unwrap();
    history.rollback("trunk-previous", &head(3)).unwrap();
    assert_eq!(names(&history), ["trunk"]);
    assert_eq!(history.tag("trunk").unwrap().unwrap().revision, 3);
    assert!(history.rollback("trunk-previous", &head(4)).is_err());
}

#[test]
fn automatic_tags_expire() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("h");
    let mut history = HistoryWriter::create(&at, "a.b").unwrap();
    for revision in 0..100 {
        let name = crate::history::auto_tag_name(revision, |_| false);
        history.insert(&tag(&name, revision as u64)).unwrap();
    }
    history.insert(&tag("kept", 1)).unwrap();
    assert_eq!(history.remove_auto_tags(1090).unwrap().len(), 90);
    assert_eq!(history.tags().unwrap().len(), 11);
    history.finish().unwrap();
    assert_eq!(
        text(
            &at,
            "SELECT CAST(freelist_count AS TEXT) FROM pragma_freelist_count"
        ),
        ["0"]
    );
}

#[test]
fn branches_go_with_their_last_tag() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("h");
    let mut history = HistoryWriter::create(&at, "a.b").unwrap();
    history.insert(&tag("v1", 1)).unwrap();
    history.finish().unwrap();
    let conn = Connection::open(&at).unwrap();
    conn.execute_batch(
        "INSERT INTO branches VALUES ('b', '', 1), ('c', 'b', 2);
         INSERT INTO tags SELECT 'in-b', hash, 2, 2, 0, '', 0, 'b' FROM tags;
         INSERT INTO tags SELECT 'in-c', hash, 3, 3, 0, '', 0, 'c' FROM tags WHERE name = 'v1';",
    )
    .unwrap();
    drop(conn);
    let mut history = HistoryWriter::open_update(&at).unwrap();
    assert!(matches!(
        history.rollback("in-b", &head(4)),
        Err(HistoryError::OtherBranch(_))
    ));
    let branch = |name: &str, parent: &str, initial_revision| Branch {
        name: name.into(),
        parent: Some(parent.into()),
        initial_revision,
    };
    assert_eq!(
        history.branches().unwrap()[1..],
        [branch("b", "", 1), branch("c", "b", 2)]
    );
    history.remove("in-b").unwrap();
    assert_eq!(history.branches().unwrap()[1..], [branch("c", "", 2)]);
    history.remove("in-c").unwrap();
    assert_eq!(history.branches().unwrap().len(), 1);
}

#[test]
fn older_revisions() {
    let scratch = tempfile::tempdir().unwrap();
    for revision in 0..=2 {
        let at = scratch.path().join(revision.to_string());
        let conn = Connection::open(&at).unwrap();
        let size = if revision > 0 { ", size INTEGER" } else { "" };
        conn.execute_batch(&format!(
            "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk PRIMARY KEY (key));
             INSERT INTO properties VALUES ('schema', '1.0'), ('schema_revision', '{revision}'),
                 ('fqrn', 'a.b');
             CREATE TABLE tags (name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER,
                 channel INTEGER, description TEXT{size}, CONSTRAINT pk_tags PRIMARY KEY (name));
             INSERT INTO tags (name, hash, revision, timestamp, channel, description)
                 VALUES ('v1', '{}', 1, 2, 4, NULL);",
            hash_of("v1")
        ))
        .unwrap();
        if revision == 2 {
            conn.execute_batch(
                "CREATE TABLE recycle_bin (hash TEXT, flags INTEGER);
                 INSERT INTO recycle_bin VALUES ('x', 1);",
            )
            .unwrap();
        }
        drop(conn);
        let old = History::open(&at).unwrap();
        let read = old.tags().unwrap();
        assert_eq!((read[0].size, read[0].branch.as_str()), (0, ""));
        assert_eq!(old.branches().unwrap().len(), 1);
        drop(old);
        let mut writer = HistoryWriter::open_update(&at).unwrap();
        writer.insert(&tag("v2", 2)).unwrap();
        assert_eq!(writer.tag("v1").unwrap().as_ref(), read.first());
        writer.finish().unwrap();
        assert_eq!(text(&at, "SELECT branch FROM tags"), ["", ""]);
        assert_eq!(text(&at, "SELECT hash FROM recycle_bin"), [""; 0]);
        assert_eq!(text(&at, "SELECT branch FROM branches"), [""]);
        assert_eq!(
            text(
                &at,
                "SELECT value FROM properties WHERE key = 'schema_revision'"
            ),
            ["3"]
        );
        History::open(&at).unwrap().verify().unwrap();
    }
}

#[test]
fn damage_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let good = std::fs::read(&golden("sha1", scratch.path())[0]).unwrap();
    let at = scratch.path().join("mutant");
    let mut refused = 0;
    for round in 0..600_usize {
        let mut bytes = good.clone();
        for hit in 0..1 + round % 7 {
            let at = (round + 1).wrapping_mul(0x9e37_79b9).wrapping_mul(hit + 1) % bytes.len();
            bytes[at] ^= 1 << (round % 8);
        }
        std::fs::write(&at, &bytes).unwrap();
        let read = History::open(&at).and_then(|history| history.verify());
        refused += usize::from(read.is_err());
        if let Ok(mut writer) = HistoryWriter::open_update(&at) {
            let _ = writer.set_trunk(&head(9));
            let _ = writer.rollback("v1.0", &head(10));
            let _ = writer.remove("v1.0");
            let _ = writer.finish();
        }
    }
    assert!(refused > 20, "{refused}");

    std::fs::write(&at, &good).unwrap();
    for (sql, name) in [
        (
            "UPDATE tags SET hash = 'none' WHERE name = 'trunk'",
            "trunk",
        ),
        (
            "UPDATE tags SET revision = -1 WHERE name = 'trunk'",
            "revision",
        ),
        (
            "UPDATE tags SET timestamp = 'now' WHERE name = 'trunk'",
            "timestamp",
        ),
        ("UPDATE tags SET name = X'ff' WHERE name = 'trunk'", "name"),
    ] {
        std::fs::write(&at, &good).unwrap();
        Connection::open(&at).unwrap().execute_batch(sql).unwrap();
        let error = History::open(&at).unwrap().tags().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    for damage in [
        "DROP TABLE tags",
        "ALTER TABLE tags DROP COLUMN hash",
        "DROP TABLE properties",
    ] {
        std::fs::write(&at, &good).unwrap();
        Connection::open(&at)
            .unwrap()
            .execute_batch(damage)
            .unwrap();
        assert!(History::open(&at).is_err(), "{damage}");
        assert!(HistoryWriter::open_update(&at).is_err(), "{damage}");
    }
}
