//! Damaged and forged files: an error that names the fault, in bounded time, never a panic.

use std::path::Path;

use super::support::{dir, file, golden_catalogs, path, row, tamper};
use crate::catalog::{
    Catalog, CatalogError, CatalogWriter, DatabaseError, Result, RowProblem, Stamp,
};
use crate::object::Content;
use crate::path::RepoPath;

const STAMP: Stamp = Stamp {
    revision: 2,
    previous: None,
    last_modified: 9,
    ttl: Some(1),
};

/// Uses a file in every way there is.
fn exercise(file: &Path) -> Result<()> {
    let read = Catalog::open(file).and_then(|catalog| {
        let _ = catalog.counters();
        let _ = catalog.nested();
        let _ = catalog.bind_mountpoints();
        let _ = catalog.recount_self();
        let _ = catalog.row_count();
        let mut dirs = vec![catalog.root_prefix().clone()];
        while let Some(dir) = dirs.pop() {
            let _ = catalog.lookup_path(&dir);
            for row in catalog.list(&dir).unwrap_or_default() {
                let child = RepoPath::new(&[dir.as_bytes(), b"/", &row.name].concat()).unwrap();
                if row.entry.is_dir() {
                    dirs.push(child);
                }
            }
        }
        catalog.for_each_raw_row(&mut |raw| {
            let chunks = catalog.raw_chunks(&raw.path)?;
            let _ = raw.interpret(&chunks);
            Ok(())
        })?;
        catalog.verify()
    });
    let mut writer = CatalogWriter::open_update(file)?;
    let root = writer.root_prefix().clone();
    let _ = writer.max_link_group();
    let _ = writer.recount_self();
    writer.put(&row(
        &format!("{}/x", String::from_utf8_lossy(root.as_bytes())),
        dir(),
    ))?;
    for child in writer.children(&root.path_hash())? {
        writer.remove(&child.path)?;
    }
    writer.finish(STAMP)?;
    read
}

/// A generator whose runs can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    const PAGE: usize = 1024;
    let len = bytes.len();
    match dice.below(6) {
        0 => bytes.truncate(dice.below(len)),
        1 => {
            // the header of a page: type, cell count, pointers
            let at = dice.below(len / PAGE) * PAGE + dice.below(16);
            bytes[at] = dice.below(256) as u8;
        }
        2 => {
            let (from, to) = (dice.below(len / PAGE) * PAGE, dice.below(len / PAGE) * PAGE);
            bytes.copy_within(from..from + PAGE, to);
        }
        3 => {
            let at = dice.below(len);
            let end = (at + dice.below(PAGE)).min(len);
            bytes[at..end].fill(dice.below(2) as u8 * 255);
        }
        4 => bytes[dice.below(100)] = dice.below(256) as u8,
        _ => {
            for _ in 0..=dice.below(30) {
                let at = dice.below(len);
                bytes[at] ^= 1 << dice.below(8);
            }
        }
    }
}

#[test]
fn mutated_golden_catalogs() {
    const ROUNDS: usize = 1500;
    let scratch = tempfile::tempdir().unwrap();
    let golden: Vec<Vec<u8>> = golden_catalogs(scratch.path())
        .iter()
        .map(|(_, _, file)| std::fs::read(file).unwrap())
        .collect();
    let at = scratch.path().join("mutant");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let mut bytes = golden[round % golden.len()].clone();
        for _ in 0..=dice.below(3) {
            if bytes.len() > 1024 {
                mutate(&mut bytes, &mut dice);
            }
        }
        std::fs::write(&at, &bytes).unwrap();
        refused += usize::from(exercise(&at).is_err());
        let _ = std::fs::remove_file(scratch.path().join("mutant.compact"));
    }
    assert!(refused > ROUNDS / 3, "{refused}");
}

#[test]
fn every_length_of_a_cut_file_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    fresh(&whole);
    let bytes = std::fs::read(&whole).unwrap();
    let at = scratch.path().join("cut");
    for end in (0..bytes.len()).step_by(97) {
        std::fs::write(&at, &bytes[..end]).unwrap();
        let error = Catalog::open(&at).unwrap_err();
        let named = matches!(
            error,
            CatalogError::Database(
                DatabaseError::Truncated { .. } | DatabaseError::NotADatabase { .. }
            )
        );
        assert!(named, "{end}: {error}");
    }
    std::fs::write(&at, b"not a database, but long enough".repeat(99)).unwrap();
    let error = Catalog::open(&at).unwrap_err();
    assert!(
        error.to_string().ends_with("cut is not a SQLite database"),
        "{error}"
    );
    assert!(Catalog::open(&scratch.path().join("missing")).is_err());
    assert!(Catalog::open(scratch.path()).is_err());
}

fn fresh(at: &Path) {
    let _ = std::fs::remove_file(at);
    let mut writer = CatalogWriter::create(at, &RepoPath::root()).unwrap();
    writer.put(&row("", dir())).unwrap();
    writer.put(&row("/a", file("a"))).unwrap();
    writer.finish(STAMP).unwrap();
}

/// What a lookup of `/a` says after a change of its row.
fn after(sql: &str) -> Result<Option<crate::catalog::Row>> {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    fresh(&at);
    tamper(&at, sql);
    let catalog = Catalog::open(&at)?;
    let found = catalog.lookup_path(&path("/a"));
    let misplaced = |e: &CatalogError| {
        matches!(
            e,
            CatalogError::BadRow {
                source: RowProblem::Misplaced(_),
                ..
            }
        )
    };
    if found.as_ref().is_err_and(|e| !misplaced(e)) {
        assert!(catalog.verify().is_err());
        assert!(catalog.children(&RepoPath::root().path_hash()).is_err());
    }
    found
}

#[test]
fn columns_of_wrong_types_are_named() {
    for (column, value) in [
        ("hardlinks", "NULL"),
        ("hardlinks", "'many'"),
        ("hash", "X'00'"),
        ("hash", "zeroblob(21)"),
        ("hash", "7"),
        ("size", "'big'"),
        ("size", "-1"),
        ("size", "1.5"),
        ("mode", "-1"),
        ("mode", "NULL"),
        ("mtime", "X'00'"),
        ("mtimens", "1000000000"),
        ("mtimens", "-1"),
        ("flags", "1 << 40"),
        ("name", "NULL"),
        ("uid", "-1"),
        ("gid", "4294967296"),
        ("xattr", "1"),
    ] {
        let error = after(&format!(
            "UPDATE catalog SET {column} = {value} WHERE name = 'a'"
        ));
        match error.unwrap_err() {
            CatalogError::BadRow {
                path: at, source, ..
            } => {
                assert_eq!(at, path("/a").path_hash());
                match source {
                    RowProblem::Column { column: named, .. } => assert_eq!(named, column),
                    other => panic!("{column} = {value}: {other}"),
                }
            }
            other => panic!("{column} = {value}: {other}"),
        }
    }
}

#[test]
fn rows_without_sense_are_named() {
    let problem = |sql: &str| match after(sql) {
        Err(CatalogError::BadRow { source, .. }) => source,
        other => panic!("{sql}: {other:?}"),
    };
    let set = |what: &str| problem(&format!("UPDATE catalog SET {what} WHERE name = 'a'"));
    assert!(matches!(set("mode = 420"), RowProblem::Mode(420)));
    assert!(matches!(
        set("flags = 4 + 7 * 256"),
        RowProblem::Algorithm(_)
    ));
    assert!(matches!(
        set("flags = 4 + 5 * 2048"),
        RowProblem::Compression(_)
    ));
    assert!(matches!(set("flags = 68"), RowProblem::Chunks { .. }));
    assert!(matches!(set("xattr = X'0201'"), RowProblem::Xattr(_)));
    for name in ["''", "'..'", "'a/b'", "X'6100'", "hex(zeroblob(300))"] {
        assert!(
            matches!(set(&format!("name = {name}")), RowProblem::Name(_)),
            "{name}"
        );
    }
    assert!(matches!(set("name = 'b'"), RowProblem::Misplaced(_)));
    assert!(matches!(
        set("mode = 41471, symlink = X'6100'"),
        RowProblem::Column { .. }
    ));
    let chunk = "INSERT INTO chunks SELECT md5path_1, md5path_2";
    for chunks in [
        "0, 2, zeroblob(20)",
        "1, 1, zeroblob(20)",
        "0, 0, zeroblob(20)",
        "0, -1, zeroblob(20)",
        "9223372036854775807, 9223372036854775807, zeroblob(20)",
    ] {
        let sql = format!(
            "UPDATE catalog SET flags = 68 WHERE name = 'a';
             {chunk}, {chunks} FROM catalog WHERE name = 'a';"
        );
        assert!(
            matches!(problem(&sql), RowProblem::Chunks { .. }),
            "{chunks}"
        );
    }
}

#[test]
fn a_null_hash_is_read_as_null() {
    let found = after("UPDATE catalog SET hash = NULL WHERE name = 'a'")
        .unwrap()
        .unwrap();
    match &found.entry.regular().unwrap().content {
        Content::Whole(hash) => assert!(hash.is_null()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn walks_do_not_go_in_circles() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    fresh(&at);
    let mut writer = CatalogWriter::open_update(&at).unwrap();
    let mut own_child = row("/d", dir());
    own_child.parent = own_child.path;
    writer.put(&own_child).unwrap();
    let mut elsewhere = row("/x/y", dir());
    elsewhere.parent = RepoPath::root().path_hash();
    writer.put(&elsewhere).unwrap();
    writer.finish(STAMP).unwrap();
    let catalog = Catalog::open(&at).unwrap();
    for dir in ["/d", ""] {
        match catalog.list(&path(dir)) {
            Err(CatalogError::BadRow {
                source: RowProblem::Misplaced(_),
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pages_that_are_linked_in_circles_end() {
    const PAGE: usize = 1024;
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    fresh(&at);
    let mut writer = CatalogWriter::open_update(&at).unwrap();
    for i in 0..20_000 {
        writer.put(&row(&format!("/{i}"), file("x"))).unwrap();
    }
    writer.finish(STAMP).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'catalog'";
    let root = super::support::integer(&at, sql) as usize - 1;
    let mut bytes = std::fs::read(&at).unwrap();
    let pages = |kind: u8| {
        let of_kind = |page: &usize| *page != root && bytes[page * PAGE] == kind;
        (1..bytes.len() / PAGE).filter(of_kind).collect::<Vec<_>>()
    };
    let (interior, leaves) = (pages(5), pages(13));
    let chain = [
        root,
        interior[0],
        interior[1],
        interior[2],
        interior[3],
        leaves[leaves.len() - 1],
    ];
    for link in chain.windows(2) {
        let (from, to) = (link[0] * PAGE, (link[1] as u32 + 1).to_be_bytes());
        let cells = u16::from_be_bytes([bytes[from + 3], bytes[from + 4]]) as usize;
        bytes[from + 8..from + 12].copy_from_slice(&to);
        for cell in 0..cells {
            let pointer = from + 12 + 2 * cell;
            let cell = from + u16::from_be_bytes([bytes[pointer], bytes[pointer + 1]]) as usize;
            bytes[cell..cell + 4].copy_from_slice(&to);
        }
    }
    std::fs::write(&at, &bytes).unwrap();
    let catalog = Catalog::open(&at).unwrap();
    match catalog.for_each_raw_row(&mut |_| Ok(())) {
        Err(CatalogError::Database(DatabaseError::TooManyRows {
            table: "catalog", ..
        })) => {}
        other => panic!("{other:?}"),
    }
    let _ = catalog.row_count();
    let _ = catalog.recount_self();
    assert!(catalog.verify().is_err());
    drop(catalog);
    // it is not written out as often as it seems to have rows
    tamper(&at, "PRAGMA user_version = 1");
    let writer = CatalogWriter::open_update(&at).unwrap();
    assert!(writer.max_link_group().is_ok());
    let _ = writer.finish(STAMP);
    assert!(std::fs::metadata(&at).unwrap().len() <= bytes.len() as u64);
}

#[test]
fn references_that_do_not_lead_down_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    let hash = "0123456789012345678901234567890123456789";
    for (reference, good) in [
        (format!("'/n/a', '{hash}', 1"), true),
        (format!("'/n/a', '{hash}', NULL"), true),
        (format!("'/n', '{hash}', 1"), false),
        (format!("'', '{hash}', 1"), false),
        (format!("'/na', '{hash}', 1"), false),
        (format!("'/n/../b', '{hash}', 1"), false),
        (format!("NULL, '{hash}', 1"), false),
        (format!("X'2f6e2f61', '{hash}', 1"), false),
        ("'/n/a', '', 0".to_owned(), false),
        (format!("'/n/a', '{hash}C', 0"), false),
        (format!("'/n/a', '{hash}', -1"), false),
        (format!("'/n/a', '{hash}', 'x'"), false),
    ] {
        let _ = std::fs::remove_file(&at);
        CatalogWriter::create(&at, &path("/n"))
            .unwrap()
            .finish(STAMP)
            .unwrap();
        tamper(
            &at,
            &format!("INSERT INTO nested_catalogs VALUES ({reference})"),
        );
        tamper(
            &at,
            &format!("INSERT INTO bind_mountpoints VALUES ({reference})"),
        );
        let catalog = Catalog::open(&at).unwrap();
        assert_eq!(catalog.nested().is_ok(), good, "{reference}");
        assert_eq!(catalog.bind_mountpoints().is_ok(), good, "{reference}");
    }
}

#[test]
fn forged_schemas_run_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    for sql in [
        "DROP TABLE chunks",
        "DROP TABLE chunks; CREATE VIEW chunks AS SELECT 1 AS md5path_1, 1 AS md5path_2, \
         0 AS offset, 0 AS size, X'' AS hash",
        "DROP TABLE nested_catalogs; \
         CREATE VIRTUAL TABLE nested_catalogs USING fts5(path, sha1, size)",
        "ALTER TABLE catalog DROP COLUMN gid",
        "ALTER TABLE statistics RENAME COLUMN value TO val",
        "DROP TABLE bind_mountpoints",
        "DROP TABLE properties",
    ] {
        fresh(&at);
        tamper(&at, sql);
        let error = Catalog::open(&at).expect_err(sql);
        let named = matches!(
            error,
            CatalogError::Database(
                DatabaseError::MissingTable { .. } | DatabaseError::MissingColumn { .. }
            )
        );
        assert!(named, "{sql}: {error}");
        assert!(CatalogWriter::open_update(&at).is_err(), "{sql}");
    }

    // a trigger that would undo what is written
    fresh(&at);
    tamper(
        &at,
        "CREATE TRIGGER t AFTER INSERT ON catalog BEGIN DELETE FROM catalog; END;
         CREATE TRIGGER u AFTER UPDATE ON catalog BEGIN DELETE FROM catalog; END;",
    );
    let mut writer = CatalogWriter::open_update(&at).unwrap();
    writer.put(&row("/b", file("b"))).unwrap();
    writer.put(&row("/a", file("b"))).unwrap();
    writer.finish(STAMP).unwrap();
    assert_eq!(Catalog::open(&at).unwrap().row_count().unwrap(), 3);
}

#[test]
fn huge_values_are_not_loaded() {
    let found = after("UPDATE catalog SET xattr = zeroblob(100000000) WHERE name = 'a'");
    let text = format!("{:?}", found.unwrap_err());
    assert!(
        text.contains("TooBig") || text.contains("too big"),
        "{text}"
    );
}

#[test]
fn values_of_properties_are_judged() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    for (key, value) in [
        ("revision", "-1"),
        ("revision", "99999999999999999999"),
        ("last_modified", "yesterday"),
        ("previous_revision", "0123"),
        ("TTL", "4 min"),
        ("root_prefix", "a/b"),
        ("root_prefix", "/"),
        ("schema_revision", "seven"),
    ] {
        fresh(&at);
        tamper(
            &at,
            &format!("INSERT OR REPLACE INTO properties VALUES ('{key}', '{value}')"),
        );
        match Catalog::open(&at) {
            Err(CatalogError::Database(DatabaseError::BadValue { column, .. })) => {
                assert_eq!(column, key);
            }
            other => panic!("{key} = {value}: {other:?}"),
        }
    }
    fresh(&at);
    tamper(
        &at,
        "INSERT OR REPLACE INTO properties VALUES ('revision', X'31')",
    );
    assert!(Catalog::open(&at).is_err());
}

#[test]
fn write_ahead_mode_leaves_nothing_beside_the_file() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("c");
    fresh(&at);
    tamper(
        &at,
        "PRAGMA journal_mode = WAL; UPDATE properties SET value = '5' WHERE key = 'TTL';",
    );
    assert_eq!(Catalog::open(&at).unwrap().ttl(), Some(5));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    // published, it must be an ordinary database again
    CatalogWriter::open_update(&at)
        .unwrap()
        .finish(STAMP)
        .unwrap();
    assert_eq!(std::fs::read(&at).unwrap()[18..20], [1, 1]);
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
}
