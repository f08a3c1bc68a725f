//! How a revision is read: catalogs, transitions, caches, threads.

use std::sync::{Arc, Barrier};

use formats::catalog::NestedRef;
use formats::{Kind, RepoPath, Role};
use store::faulty::{FaultyStore, Op};
use store::{Limits, MemoryStore, ObjectStore, RepoError, Revision, Walk};

use crate::support::golden::{FOLDERS, Golden, listing};
use crate::support::made::{self, catalog, dir, file, name, path, row, tree, with_role};
use crate::support::{noise, shared};

fn walked(revision: &Revision, from: &str) -> Vec<String> {
    let mut paths = Vec::new();
    revision
        .walk::<RepoError>(&path(from), &mut |path, _| {
            paths.push(path.to_string());
            Ok(Walk::Down)
        })
        .unwrap();
    paths
}

#[test]
fn a_walk_crosses_catalogs_in_order() {
    let tree = tree();
    let (repository, _cache) = made::repository(shared(tree.store), Limits::default());
    let revision = repository.revision(&tree.root.hash).unwrap();
    assert_eq!(
        walked(&revision, ""),
        ["/", "/a", "/a/f", "/n", "/n/g", "/n/m", "/n/m/h", "/z"]
    );
    assert_eq!(walked(&revision, "/n"), ["/n", "/n/g", "/n/m", "/n/m/h"]);
    assert_eq!(walked(&revision, "/z"), ["/z"]);
    let mut top = Vec::new();
    revision
        .walk::<RepoError>(&RepoPath::root(), &mut |path, _| {
            top.push(path.to_string());
            Ok(if path.is_root() {
                Walk::Down
            } else {
                Walk::Over
            })
        })
        .unwrap();
    assert_eq!(top, ["/", "/a", "/n", "/z"]);
    for (at, begins) in [
        ("", ""),
        ("/a", ""),
        ("/nn/x", ""),
        ("/n", "/n"),
        ("/n/new", "/n"),
        ("/n/m", "/n/m"),
        ("/n/m/x/y", "/n/m"),
        ("/n/mm", "/n"),
    ] {
        assert_eq!(
            revision.catalog_path_of(&path(at)).unwrap(),
            path(begins),
            "{at}"
        );
    }
}

#[test]
fn what_is_not_there() {
    let tree = tree();
    let (repository, _cache) = made::repository(shared(tree.store), Limits::default());
    let revision = repository.revision(&tree.root.hash).unwrap();
    for at in ["/b", "/a/b", "/a/f/x", "/n/x", "/n/m/x", "/z/x/y"] {
        assert_eq!(revision.lookup(&path(at)).unwrap(), None, "{at}");
        let error = revision.list(&path(at)).unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(error.to_string().contains(at), "{error}");
        let walk = revision.walk::<RepoError>(&path(at), &mut |_, _| Ok(Walk::Down));
        assert!(walk.unwrap_err().is_not_found());
    }
    for at in ["/z", "/a/f", "/n/m/h"] {
        let error = revision.list(&path(at)).unwrap_err();
        assert!(matches!(error, RepoError::NotADirectory { .. }), "{error}");
    }
}

#[test]
fn only_what_is_asked_for_is_fetched() {
    let tree = tree();
    let counting = FaultyStore::new(shared(tree.store));
    let (repository, _cache) = made::repository(shared(counting.clone()), Limits::default());
    let revision = repository.revision(&tree.root.hash).unwrap();
    let fetched = || counting.calls(Op::Open);
    revision.list(&RepoPath::root()).unwrap();
    revision.lookup(&path("/n")).unwrap();
    revision.lookup(&path("/a/f")).unwrap();
    assert_eq!(fetched(), 1);
    revision.lookup(&path("/n/m")).unwrap();
    assert_eq!(fetched(), 2);
    revision.list(&path("/n/m")).unwrap();
    assert_eq!(fetched(), 3);
    walked(&revision, "");
    repository.revision(&tree.root.hash).unwrap();
    assert_eq!(fetched(), 3);
}

#[test]
fn a_start_later_the_files_are_still_good() {
    let tree = tree();
    let counting = FaultyStore::new(shared(tree.store));
    let cache = tempfile::tempdir().unwrap();
    let open = || {
        let store = shared(counting.clone());
        let repository =
            store::Repository::new("x.org", store, vec![], cache.path(), Limits::default());
        let revision = Arc::new(repository.unwrap())
            .revision(&tree.root.hash)
            .unwrap();
        walked(&revision, "").len()
    };
    assert_eq!(open(), 8);
    assert_eq!(counting.calls(Op::Open), 3);
    assert_eq!(open(), 8);
    assert_eq!(counting.calls(Op::Open), 3);
    // damaged on disk, in whatever way: fetched again
    let kept = cache.path().join(tree.outer.hash.to_string());
    let sum = kept.with_extension("sum");
    let whole = std::fs::read(&kept).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut fetches = 3;
    for damage in [&b""[..], &whole[..whole.len() - 1], &flipped] {
        std::fs::write(&kept, damage).unwrap();
        assert_eq!(open(), 8);
        fetches += 1;
        assert_eq!(counting.calls(Op::Open), fetches);
    }
    std::fs::remove_file(&sum).unwrap();
    assert_eq!(open(), 8);
    assert_eq!(counting.calls(Op::Open), fetches + 1);
    // cleared away while it is in use
    let store = shared(counting.clone());
    let repository =
        store::Repository::new("x.org", store, vec![], cache.path(), Limits::default());
    let revision = Arc::new(repository.unwrap())
        .revision(&tree.root.hash)
        .unwrap();
    walked(&revision, "");
    std::fs::remove_file(&kept).unwrap();
    assert!(revision.catalog(&path("/n")).unwrap().file().exists());
    assert_eq!(walked(&revision, "").len(), 8);
    // what an interrupted fetch left is cleared away, what is not ours stays
    std::fs::write(cache.path().join("tmp.1.2"), b"half").unwrap();
    std::fs::write(cache.path().join("README"), b"mine").unwrap();
    assert_eq!(open(), 8);
    assert!(!cache.path().join("tmp.1.2").exists());
    assert!(cache.path().join("README").exists());
}

#[test]
fn the_disk_bound_is_kept() {
    let tree = tree();
    let counting = FaultyStore::new(shared(tree.store));
    let limits = Limits {
        catalog_disk_bytes: tree.root.size + tree.outer.size,
        listing_rows: 1,
        single_rows: 1,
        ..Limits::default()
    };
    let (repository, cache) = made::repository(shared(counting.clone()), limits);
    let revision = repository.revision(&tree.root.hash).unwrap();
    let on_disk = || {
        let entries = std::fs::read_dir(cache.path()).unwrap();
        let bytes = entries
            .map(|e| e.unwrap())
            .filter(|e| !e.file_name().to_string_lossy().ends_with(".sum"));
        bytes.map(|e| e.metadata().unwrap().len()).sum::<u64>()
    };
    for _ in 0..3 {
        assert_eq!(walked(&revision, "").len(), 8);
        // the last ones were in use when they came; the next look lets them go
        revision.catalog(&path("/n")).unwrap();
        assert!(on_disk() <= tree.root.size + tree.outer.size);
    }
    assert!(counting.calls(Op::Open) > 3);
    // one that somebody holds stays whatever the bound
    let held = revision.catalog(&path("/n/m")).unwrap();
    let other = revision.catalog(&path("/n")).unwrap();
    assert!(held.file().exists() && other.file().exists());
    assert_eq!(held.with(|c| c.row_count()).unwrap(), 2);
}

#[test]
fn copies_are_private() {
    let tree = tree();
    let (repository, _cache) = made::repository(shared(tree.store), Limits::default());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy");
    assert_eq!(
        repository.copy_catalog(&tree.outer.hash, &to).unwrap(),
        tree.outer.size
    );
    let mut writer = formats::CatalogWriter::open_update(&to).unwrap();
    assert!(writer.remove(&path("/n/g").path_hash()).unwrap());
    drop(writer);
    assert!(
        repository.copy_catalog(&tree.outer.hash, &to).is_err(),
        "must not overwrite"
    );
    let revision = repository.revision(&tree.root.hash).unwrap();
    assert!(revision.lookup(&path("/n/g")).unwrap().is_some());
}

#[test]
fn many_threads_read_at_once() {
    for folder in ["sha1", "autocatalogs"] {
        let golden = Golden::open(folder, 2);
        let counting = FaultyStore::new(golden.repository.store().clone());
        let (repository, _cache) = made::repository(shared(counting.clone()), Limits::default());
        let head = golden.repository.unverified_head().unwrap();
        let expected = listing(folder, 2).len();
        let catalogs = {
            let file = crate::support::golden::folder(folder).join("dump/catalogs.txt");
            std::fs::read_to_string(file).unwrap().lines().count() as u64
        };
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let revision = repository.revision_of(&head).unwrap();
                    assert_eq!(walked(&revision, "").len(), expected);
                });
            }
        });
        assert_eq!(
            counting.calls(Op::Open),
            catalogs,
            "each catalog is fetched once"
        );
    }
}

#[test]
fn threads_share_one_revision_in_tight_bounds() {
    let golden = Golden::open("autocatalogs", 2);
    let limits = Limits {
        catalog_disk_bytes: 1,
        listing_rows: 3,
        single_rows: 2,
        ..Limits::default()
    };
    let (repository, _cache) = made::repository(golden.repository.store().clone(), limits);
    let head = golden.repository.unverified_head().unwrap();
    let revision = repository.revision_of(&head).unwrap();
    let lines = listing("autocatalogs", 2);
    std::thread::scope(|scope| {
        for shift in 0..4 {
            let (revision, lines) = (&revision, &lines);
            scope.spawn(move || {
                for n in 0..lines.len() {
                    let line = &lines[(n * 7 + shift * 31) % lines.len()];
                    let at = RepoPath::new(&line.path).unwrap();
                    let row = revision.lookup(&at).unwrap().unwrap();
                    if row.entry.is_dir() {
                        revision.listing(&at).unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn lookups_agree_with_listings_at_hand() {
    for folder in FOLDERS {
        let golden = Golden::open(folder, 1);
        let (cold, warm) = (golden.revision(), golden.revision());
        for line in listing(folder, 1) {
            let at = RepoPath::new(&line.path).unwrap();
            if let Some(parent) = at.parent() {
                warm.listing(&parent).unwrap();
            }
            assert_eq!(cold.lookup(&at).unwrap(), warm.lookup(&at).unwrap());
            let absent = at.join(&name("no such name"));
            assert_eq!(warm.lookup(&absent).unwrap(), None);
            assert_eq!(warm.lookup(&absent).unwrap(), None);
        }
    }
}

#[test]
fn a_directory_of_200_000_names() {
    const NAMES: usize = 200_000;
    let store = MemoryStore::new();
    let mut rows = vec![dir(""), dir("/big")];
    rows.extend((0..NAMES).map(|n| row(&format!("/big/{n:06}"), Kind::Fifo)));
    let root = catalog(&store, "", &rows, |_| {});
    let (repository, _cache) = made::repository(shared(store), Limits::default());
    let revision = repository.revision(&root.hash).unwrap();
    let listed = revision.listing(&path("/big")).unwrap();
    assert_eq!(listed.len(), NAMES);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    assert!(Arc::ptr_eq(
        &listed,
        &revision.listing(&path("/big")).unwrap()
    ));
    assert!(revision.lookup(&path("/big/123456")).unwrap().is_some());
}

#[test]
fn a_bound_snapshot_is_read_through() {
    let store = MemoryStore::new();
    let inner = catalog(
        &store,
        "/s",
        &[with_role(dir("/s"), Role::Root), file("/s/t")],
        |_| {},
    );
    let old = catalog(
        &store,
        "",
        &[
            dir(""),
            file("/old"),
            with_role(dir("/s"), Role::Mountpoint),
        ],
        |w| w.put_nested(&inner.at("/s")).unwrap(),
    );
    let rows = [
        dir(""),
        dir("/snap"),
        with_role(dir("/snap/v1"), Role::Bind),
        file("/new"),
    ];
    let bound = NestedRef {
        path: path("/snap/v1"),
        hash: old.hash,
        size: old.size,
    };
    let root = catalog(&store, "", &rows, |w| {
        w.put_bind_mountpoint(&bound).unwrap()
    });
    let (repository, _cache) = made::repository(shared(store), Limits::default());
    let revision = repository.revision(&root.hash).unwrap();
    assert_eq!(
        walked(&revision, ""),
        [
            "/",
            "/new",
            "/snap",
            "/snap/v1",
            "/snap/v1/old",
            "/snap/v1/s",
            "/snap/v1/s/t"
        ]
    );
    assert!(revision.lookup(&path("/snap/v1/s/t")).unwrap().is_some());
    assert_eq!(revision.lookup(&path("/snap/v1/new")).unwrap(), None);
    assert_eq!(
        revision.catalog_path_of(&path("/snap/v1/s/x")).unwrap(),
        path("/snap/v1/s")
    );
}

#[test]
fn names_of_any_bytes() {
    let store = MemoryStore::new();
    let names: Vec<Vec<u8>> = (1..=255u8)
        .filter(|b| *b != b'/')
        .map(|b| vec![b'x', b, b'y'])
        .chain([
            vec![b'l'; 255],
            noise(3, 200)
                .into_iter()
                .filter(|b| !matches!(b, 0 | b'/'))
                .collect(),
        ])
        .collect();
    let mut rows = vec![dir("")];
    for name in &names {
        let at = RepoPath::root().join(&formats::Name::new(name).unwrap());
        let mut row = file("/stand-in");
        row.path = at.path_hash();
        row.name.clone_from(name);
        rows.push(row);
    }
    let root = catalog(&store, "", &rows, |_| {});
    let (repository, _cache) = made::repository(shared(store), Limits::default());
    let revision = repository.revision(&root.hash).unwrap();
    assert_eq!(revision.list(&RepoPath::root()).unwrap().len(), names.len());
    for name in &names {
        let at = RepoPath::root().join(&formats::Name::new(name).unwrap());
        let row = revision.lookup(&at).unwrap().unwrap();
        assert_eq!(&row.name, name);
    }
}

#[test]
fn a_cache_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let store: Arc<dyn ObjectStore> = shared(MemoryStore::new());
    let error = store::Repository::new("x.org", store, vec![], file.join("c"), Limits::default());
    assert!(error.unwrap_err().to_string().contains("file/c"));
}
