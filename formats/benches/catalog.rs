//! What catalogs cost: 100,000 rows written, one of them changed, all of them read.
//!
//! Prints seconds a step; run with `cargo bench -p prepub-formats --bench catalog`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use formats::{
    Algorithm, Catalog, CatalogWriter, Compression, Content, Counters, Entry, Hash, Kind, Mtime,
    Regular, RepoPath, Role, Row, Stamp, Xattrs,
};

const ROWS: u32 = 100_000;
const IN_ONE_DIRECTORY: u32 = 100;
const STAMP: Stamp = Stamp {
    revision: 1,
    previous: None,
    last_modified: 1,
    ttl: Some(240),
};

fn row(path: &RepoPath, kind: Kind) -> Row {
    Row {
        path: path.path_hash(),
        parent: path.parent().unwrap_or_default().path_hash(),
        name: path
            .name()
            .map(|n| n.as_bytes().to_vec())
            .unwrap_or_default(),
        entry: Entry {
            kind,
            perm: 0o644,
            uid: 0,
            gid: 0,
            mtime: Mtime {
                secs: 1_700_000_000,
                nanos: None,
            },
            xattrs: Xattrs::new(),
        },
        linkcount: 2,
        link_group: 0,
        role: Role::Plain,
        hidden: false,
    }
}

fn rows() -> Vec<Row> {
    let directory = || Kind::Directory { size: 4096 };
    let mut rows = vec![row(&RepoPath::root(), directory())];
    for i in 0..ROWS {
        let dir = format!("/directory-{:05}", i / IN_ONE_DIRECTORY);
        if i % IN_ONE_DIRECTORY == 0 {
            rows.push(row(&dir.parse().expect("a path"), directory()));
        }
        let path = format!("{dir}/a-file-of-some-name-{i}.h")
            .parse()
            .expect("a path");
        let file = Regular {
            size: u64::from(i),
            content: Content::Whole(Hash::of(Algorithm::Sha1, &i.to_le_bytes())),
            compression: Compression::Zlib,
            external: false,
            direct_io: false,
            link_group: 0,
        };
        rows.push(row(&path, Kind::Regular(file)));
    }
    rows
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    println!(
        "{what:<32} {:>10.3} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    value
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("catalog");
    let rows = rows();
    timed("write 100,000 rows", || -> formats::catalog::Result<()> {
        let mut writer = CatalogWriter::create(&file, &RepoPath::root())?;
        for row in &rows {
            writer.put(row)?;
        }
        let counters = Counters {
            self_: writer.recount_self()?,
            ..Counters::default()
        };
        writer.set_counters(&counters)?;
        println!("  {} bytes", writer.finish(STAMP)?.size);
        Ok(())
    })?;
    timed("change one row", || -> formats::catalog::Result<()> {
        let mut writer = CatalogWriter::open_update(&file)?;
        writer.put(&rows[rows.len() / 2])?;
        writer.finish(STAMP)?;
        Ok(())
    })?;
    timed("recount", || Catalog::open(&file)?.recount_self())?;
    let catalog = timed("open", || Catalog::open(&file))?;
    timed(
        "look up 100,000 rows",
        || -> formats::catalog::Result<()> {
            for row in &rows {
                assert!(catalog.lookup(&row.path)?.is_some());
            }
            Ok(())
        },
    )?;
    timed(
        "list 1,000 directories",
        || -> formats::catalog::Result<()> {
            for i in 0..ROWS / IN_ONE_DIRECTORY {
                let dir = format!("/directory-{i:05}").parse().expect("a path");
                assert_eq!(catalog.list(&dir)?.len() as u32, IN_ONE_DIRECTORY);
            }
            Ok(())
        },
    )?;
    timed("read all rows", || catalog.for_each_row(&mut |_| Ok(())))?;
    drop(catalog);
    timed(
        "remove a third, compact",
        || -> formats::catalog::Result<()> {
            let mut writer = CatalogWriter::open_update(&file)?;
            for row in rows.iter().skip(1).step_by(3) {
                writer.remove(&row.path)?;
            }
            writer.finish(STAMP)?;
            Ok(())
        },
    )?;
    Ok(())
}
