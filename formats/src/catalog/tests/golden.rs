//! Official catalogs are read as they are, and made again from what was read.

use std::collections::BTreeMap;
use std::path::Path;

use super::support::{GOLDEN, golden_catalogs, golden_dir, integer, rows};
use crate::catalog::{Catalog, CatalogWriter, Counts, RawRow, Role, Stamp};
use crate::hash::Hash;
use crate::path::RepoPath;

/// The rows of one table of a `.dump`, value by value; names of any bytes.
fn dumped(dump: &[u8], table: &str) -> Vec<Vec<String>> {
    let prefix = format!("INSERT INTO {table} VALUES(");
    dump.split(|b| *b == b'\n')
        .filter_map(|line| line.strip_prefix(prefix.as_bytes())?.strip_suffix(b");"))
        .map(values)
        .collect()
}

/// `1,NULL,'it''s',X'00'` as values, text escaped as [`rows`] does.
fn values(mut text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let quoted = text.starts_with(b"'");
        let mut bytes = Vec::new();
        let mut at = usize::from(quoted);
        while at < text.len() {
            match (quoted, &text[at..]) {
                (true, [b'\'', b'\'', ..]) => at += 1,
                (true, [b'\'', ..]) | (false, [b',', ..]) => break,
                _ => {}
            }
            bytes.push(text[at]);
            at += 1;
        }
        found.push(match quoted {
            true => format!("'{}'", bytes.escape_ascii()),
            false => String::from_utf8(bytes).unwrap(),
        });
        let end = at + usize::from(quoted);
        if end >= text.len() {
            return found;
        }
        text = &text[end + 1..];
    }
}

/// A row that was read, in the order of columns of a dump.
fn columns(raw: &RawRow) -> Vec<String> {
    let blob = |b: Option<&[u8]>| b.map_or("NULL".into(), |b| format!("X'{}'", hex::encode(b)));
    vec![
        raw.path.0.to_string(),
        raw.path.1.to_string(),
        raw.parent.0.to_string(),
        raw.parent.1.to_string(),
        raw.hardlinks.to_string(),
        blob(raw.hash.as_ref().map(|h| &h[..])),
        raw.size.to_string(),
        raw.mode.to_string(),
        raw.mtime.to_string(),
        raw.mtimens.map_or("NULL".into(), |n| n.to_string()),
        raw.flags.to_string(),
        format!("'{}'", raw.name.escape_ascii()),
        format!("'{}'", raw.symlink.escape_ascii()),
        raw.uid.to_string(),
        raw.gid.to_string(),
        blob(raw.xattr.as_deref()),
    ]
}

#[test]
fn rows_equal_the_dumps() {
    let scratch = tempfile::tempdir().unwrap();
    let mut dumps = 0;
    for (repo, hash, file) in golden_catalogs(scratch.path()) {
        let dump = golden_dir(repo).join(format!("dump/catalog-{hash}.sql"));
        let Ok(dump) = std::fs::read(dump) else {
            continue;
        };
        dumps += 1;
        let catalog = Catalog::open(&file).unwrap();
        let mut expected = dumped(&dump, "catalog");
        let mut found = Vec::new();
        catalog
            .for_each_row(&mut |row| {
                let bad = |e| panic!("{repo} {hash} {row:?}: {e}");
                found.push(columns(&row.to_raw().unwrap_or_else(bad)));
                Ok(())
            })
            .unwrap();
        assert_eq!(found.len() as u64, catalog.row_count().unwrap());
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{repo} {hash}");

        let mut expected = dumped(&dump, "chunks");
        let mut found = Vec::new();
        catalog
            .for_each_raw_row(&mut |raw| {
                for c in catalog.raw_chunks(&raw.path)? {
                    let (path_1, path_2) = (raw.path.0.to_string(), raw.path.1.to_string());
                    let hash = format!("X'{}'", hex::encode(c.hash));
                    found.push(vec![
                        path_1,
                        path_2,
                        c.offset.to_string(),
                        c.size.to_string(),
                        hash,
                    ]);
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(found.len() as u64, catalog.chunk_count().unwrap());
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{repo} {hash}");
        compare_tables(&catalog, &dump);
    }
    assert_eq!(dumps, 37);
}

fn compare_tables(catalog: &Catalog, dump: &[u8]) {
    let counters = catalog.counters().unwrap();
    let mut found = Vec::new();
    for (prefix, counts) in [("self_", counters.self_), ("subtree_", counters.subtree)] {
        for (name, value) in counts.by_name() {
            found.push(vec![format!("'{prefix}{name}'"), value.to_string()]);
        }
    }
    assert_eq!(found, dumped(dump, "statistics"));

    let mut expected = dumped(dump, "nested_catalogs");
    expected.sort();
    let mut found: Vec<_> = catalog
        .nested()
        .unwrap()
        .iter()
        .map(|n| {
            vec![
                format!("'{}'", n.path),
                format!("'{}'", n.hash),
                n.size.to_string(),
            ]
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);

    let property = |key: &str| {
        let rows = dumped(dump, "properties");
        rows.into_iter()
            .find(|row| row[0] == format!("'{key}'"))
            .map(|row| row[1].clone())
    };
    let quoted = |text: String| Some(format!("'{text}'"));
    assert_eq!(property("revision"), quoted(catalog.revision().to_string()));
    assert_eq!(
        property("last_modified"),
        quoted(catalog.last_modified().to_string())
    );
    assert_eq!(
        property("TTL"),
        catalog.ttl().and_then(|ttl| quoted(ttl.to_string()))
    );
    let prefix = property("root_prefix").unwrap_or("''".into());
    assert_eq!(
        Some(prefix),
        quoted(String::from_utf8_lossy(catalog.root_prefix().as_bytes()).into())
    );
    let previous = catalog.previous_revision().unwrap_or(Hash::null());
    assert_eq!(property("previous_revision"), quoted(previous.to_string()));
}

#[test]
fn counters_are_what_a_recount_finds() {
    let scratch = tempfile::tempdir().unwrap();
    for (repo, hash, file) in golden_catalogs(scratch.path()) {
        let catalog = Catalog::open(&file).unwrap();
        let official = catalog.counters().unwrap().self_;
        assert_eq!(catalog.recount_self().unwrap(), official, "{repo} {hash}");
        let mut sum = Counts::default();
        catalog
            .for_each_row(&mut |row| {
                sum += Counts::of(&row);
                Ok(())
            })
            .unwrap();
        assert_eq!(sum, official, "{repo} {hash}");
        catalog.verify().unwrap();
    }
}

#[test]
fn a_walk_finds_every_row_once() {
    let scratch = tempfile::tempdir().unwrap();
    for (repo, hash, file) in golden_catalogs(scratch.path()) {
        let catalog = Catalog::open(&file).unwrap();
        let root = catalog.root_prefix().clone();
        let row = catalog.lookup_path(&root).unwrap().expect("a root row");
        let nested = !root.is_root();
        assert_eq!(row.role, if nested { Role::Root } else { Role::Plain });
        let (mut seen, mut mountpoints) = (1, Vec::new());
        let mut open = vec![root];
        while let Some(dir) = open.pop() {
            let rows = catalog.list(&dir).unwrap();
            assert!(rows.is_sorted_by(|a, b| a.name < b.name));
            for row in rows {
                seen += 1;
                let path = RepoPath::new(&[dir.as_bytes(), b"/", &row.name].concat()).unwrap();
                assert_eq!(catalog.lookup_path(&path).unwrap().as_ref(), Some(&row));
                match row.role {
                    Role::Mountpoint => mountpoints.push(path),
                    _ if row.entry.is_dir() => open.push(path),
                    _ => {}
                }
            }
        }
        assert_eq!(seen, catalog.row_count().unwrap(), "{repo} {hash}");
        mountpoints.sort();
        let nested = catalog.nested().unwrap();
        assert!(
            nested.iter().map(|n| &n.path).eq(&mountpoints),
            "{repo} {hash}"
        );
        for reference in nested {
            assert_eq!(catalog.nested_at(&reference.path).unwrap(), Some(reference));
        }
    }
}

/// Writes a catalog with the content of another.
fn rebuild(from: &Catalog, to: &Path) -> u64 {
    let mut writer = CatalogWriter::create(to, from.root_prefix()).unwrap();
    from.for_each_row(&mut |row| writer.put(&row)).unwrap();
    for nested in from.nested().unwrap() {
        writer.put_nested(&nested).unwrap();
    }
    writer.set_counters(&from.counters().unwrap()).unwrap();
    assert_eq!(
        writer.recount_self().unwrap(),
        from.counters().unwrap().self_
    );
    let previous = from.property("previous_revision").unwrap();
    let stamp = Stamp {
        revision: from.revision(),
        previous: previous.map(|text| text.parse().unwrap()),
        last_modified: from.last_modified(),
        ttl: from.ttl(),
    };
    writer.finish(stamp).unwrap().size
}

#[test]
fn rebuilt_catalogs_equal_the_official_ones() {
    let scratch = tempfile::tempdir().unwrap();
    let mut sizes: BTreeMap<bool, u32> = BTreeMap::new();
    for (repo, hash, file) in golden_catalogs(scratch.path()) {
        let copy = scratch.path().join("rebuilt");
        let _ = std::fs::remove_file(&copy);
        let size = rebuild(&Catalog::open(&file).unwrap(), &copy);
        assert_eq!(size, std::fs::metadata(&copy).unwrap().len());
        for sql in [
            // compacted files list their indexes last
            "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name",
            "SELECT * FROM properties ORDER BY rowid",
            "SELECT * FROM catalog ORDER BY md5path_1, md5path_2",
            "SELECT * FROM chunks ORDER BY md5path_1, md5path_2, offset",
            "SELECT * FROM nested_catalogs ORDER BY path",
            "SELECT * FROM bind_mountpoints ORDER BY path",
            "SELECT * FROM statistics ORDER BY rowid",
            "PRAGMA page_size",
            "PRAGMA encoding",
            "PRAGMA auto_vacuum",
            "PRAGMA user_version",
            "PRAGMA application_id",
            "PRAGMA journal_mode",
        ] {
            assert_eq!(rows(&copy, sql), rows(&file, sql), "{repo} {hash}: {sql}");
        }
        assert_eq!(integer(&copy, "PRAGMA freelist_count"), 0);
        assert_eq!(
            integer(&copy, "SELECT max(rowid) - count(*) FROM catalog"),
            0
        );
        *sizes
            .entry(size == std::fs::metadata(&file).unwrap().len())
            .or_default() += 1;
    }
    // rows come in another order and older files have gaps, so not all have the same length
    assert!(
        sizes[&true] > 2 * sizes.get(&false).copied().unwrap_or(0),
        "{sizes:?}"
    );
}

#[test]
fn the_first_catalog_of_a_repository() {
    let scratch = tempfile::tempdir().unwrap();
    for repo in GOLDEN {
        let firsts: Vec<_> = golden_catalogs(scratch.path())
            .into_iter()
            .filter(|(r, _, file)| *r == repo && Catalog::open(file).unwrap().revision() == 0)
            .collect();
        let [(_, _, file)] = &firsts[..] else {
            panic!("{repo}: {firsts:?}");
        };
        let catalog = Catalog::open(file).unwrap();
        assert_eq!(catalog.row_count().unwrap(), 1);
        assert_eq!(catalog.ttl(), None);
        assert_eq!(catalog.property("previous_revision").unwrap(), None);
        assert_eq!(std::fs::metadata(file).unwrap().len(), 16384);
        let copy = scratch.path().join(repo);
        assert_eq!(rebuild(&catalog, &copy), 16384);
        let schema = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid";
        assert_eq!(rows(&copy, schema), rows(file, schema));
    }
}
