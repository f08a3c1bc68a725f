//! Any row comes back as it was put.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::catalog::{Catalog, CatalogWriter, Counts, Role, Row, Stamp};
use crate::entry::{Entry, Kind, Mtime, Regular};
use crate::hash::{Algorithm, Hash};
use crate::object::{Chunk, Compression, Content};
use crate::path::{Name, RepoPath};

fn name() -> impl Strategy<Value = Name> {
    let any_byte = any::<u8>().prop_filter("no name", |b| !matches!(b, b'/' | 0));
    vec(any_byte, 1..=255).prop_filter_map("dots", |bytes| Name::new(&bytes).ok())
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::Sha1),
        Just(Algorithm::Rmd160),
        Just(Algorithm::Shake128)
    ]
}

fn digest() -> impl Strategy<Value = [u8; 20]> {
    any::<[u8; 20]>().prop_filter("null", |d| d != &[0; 20])
}

fn content() -> impl Strategy<Value = (u64, Content)> {
    let whole = (any::<u32>(), algorithm(), digest())
        .prop_map(|(size, a, d)| (u64::from(size) << 20, Content::Whole(Hash::new(a, d))));
    let pieces = vec((1..1_u64 << 33, digest()), 1..20);
    let chunks = (algorithm(), proptest::option::of(digest()), pieces).prop_map(|(a, bulk, c)| {
        let mut offset = 0;
        let chunk = |(size, digest)| {
            let chunk = Chunk {
                offset,
                size,
                hash: Hash::new(a, digest),
            };
            offset += size;
            chunk
        };
        let chunks = c.into_iter().map(chunk).collect();
        (
            offset,
            Content::Chunks {
                bulk: bulk.map(|d| Hash::new(a, d)),
                chunks,
            },
        )
    });
    prop_oneof![whole, chunks]
}

fn regular() -> impl Strategy<Value = Regular> {
    let compression = prop_oneof![Just(Compression::Zlib), Just(Compression::None)];
    (content(), compression, any::<bool>(), any::<bool>()).prop_map(
        |((size, content), compression, external, direct_io)| Regular {
            size,
            content,
            compression,
            external,
            direct_io,
            link_group: 0,
        },
    )
}

fn kind() -> impl Strategy<Value = Kind> {
    let target = vec(1..=255_u8, 0..4096);
    prop_oneof![
        (0..=i64::MAX as u64).prop_map(|size| Kind::Directory { size }),
        regular().prop_map(Kind::Regular),
        target.prop_map(Kind::Symlink),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        any::<u64>().prop_map(Kind::CharDevice),
        any::<u64>().prop_map(Kind::BlockDevice),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let mtime = (any::<i64>(), proptest::option::of(0..1_000_000_000_u32));
    let xattrs = btree_map(vec(any::<u8>(), 1..=255), vec(any::<u8>(), 0..=255), 0..5);
    (
        kind(),
        0..0o10000_u16,
        any::<u32>(),
        any::<u32>(),
        mtime,
        xattrs,
    )
        .prop_map(|(kind, perm, uid, gid, (secs, nanos), xattrs)| Entry {
            kind,
            perm,
            uid,
            gid,
            mtime: Mtime { secs, nanos },
            xattrs,
        })
}

fn row() -> impl Strategy<Value = Row> {
    let role = prop_oneof![
        Just(Role::Plain),
        Just(Role::Mountpoint),
        Just(Role::Root),
        Just(Role::Bind)
    ];
    let links = (any::<u32>(), 0..=u32::MAX >> 1);
    (vec(name(), 1..4), entry(), links, role, any::<bool>()).prop_map(
        |(names, mut entry, (linkcount, link_group), role, hidden)| {
            let path = names
                .iter()
                .fold(RepoPath::root(), |path, name| path.join(name));
            if let Kind::Regular(file) = &mut entry.kind {
                file.link_group = u64::from(link_group);
            }
            Row {
                path: path.path_hash(),
                parent: path.parent().unwrap_or_default().path_hash(),
                name: names[names.len() - 1].as_bytes().to_vec(),
                role: if entry.is_dir() { role } else { Role::Plain },
                entry,
                linkcount,
                link_group,
                hidden,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows(rows in vec(row(), 1..30)) {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().join("c");
        let mut writer = CatalogWriter::create(&at, &RepoPath::root()).unwrap();
        for row in &rows {
            writer.put(row).unwrap();
            let found = writer.lookup(&row.path).unwrap();
            prop_assert_eq!(found.as_ref(), Some(row));
        }
        let stamp = Stamp { revision: 1, previous: None, last_modified: 0, ttl: None };
        writer.finish(stamp).unwrap();

        let catalog = Catalog::open(&at).unwrap();
        let mut sum = Counts::default();
        for row in &rows {
            let found = catalog.lookup(&row.path).unwrap();
            prop_assert_eq!(found.as_ref(), Some(row));
            prop_assert!(catalog.children(&row.parent).unwrap().contains(row));
            sum += Counts::of(row);
        }
        // mountpoints are counted by their references, of which there are none
        sum.nested = 0;
        prop_assert_eq!(catalog.recount_self().unwrap(), sum);
        prop_assert_eq!(catalog.row_count().unwrap(), rows.len() as u64);
        catalog.verify().unwrap();
    }

    #[test]
    fn xattr_blobs(bytes in vec(any::<u8>(), 0..600)) {
        if let Ok(xattrs) = crate::catalog::xattr::parse(&bytes) {
            let again = crate::catalog::xattr::serialize(&xattrs).unwrap();
            let again = crate::catalog::xattr::parse(&again.unwrap_or(vec![1, 0])).unwrap();
            prop_assert_eq!(again, xattrs);
        }
    }
}
