//! The names of objects: what the official tools published, made again from the content.
//!
//! Only classic zlib passes: miniz_oxide, zlib-rs and zlib-ng make other (valid) streams, and so
//! other names. Should a dependency's features ever switch flate2's engine, this file fails.

use std::fs;
use std::path::{Path, PathBuf};

use formats::compress::{compress, decompress_all};
use formats::{Algorithm, ChunkSizes, Compression, Hash, ObjectName, Xor32};

#[path = "names/vectors.rs"]
mod vectors;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

fn sha1(bytes: &[u8]) -> String {
    Hash::of(Algorithm::Sha1, bytes).to_string()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    compress(Compression::Zlib, bytes)
}

fn generated(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn chunks(data: &[u8], sizes: ChunkSizes) -> Vec<&[u8]> {
    let mut chunker = Xor32::new(sizes);
    let (mut pieces, mut rest) = (Vec::new(), data);
    while let Some(n) = chunker.scan(rest) {
        let (piece, later) = rest.split_at(n);
        pieces.push(piece);
        rest = later;
    }
    pieces.push(rest);
    pieces
}

/// Every object of a storage directory: the name its path gives it, and its stored bytes.
fn objects(storage: &Path) -> Vec<(ObjectName, Vec<u8>)> {
    let mut found = Vec::new();
    for directory in fs::read_dir(storage.join("data")).unwrap() {
        let directory = directory.unwrap();
        let Ok(entries) = fs::read_dir(directory.path()) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            let mut text = directory.file_name().into_string().unwrap();
            text.push_str(entry.file_name().to_str().unwrap());
            found.push((text.parse().unwrap(), fs::read(entry.path()).unwrap()));
        }
    }
    found
}

#[test]
fn published_objects_are_made_again_bit_for_bit() {
    let mut count = 0;
    for repository in fs::read_dir(golden()).unwrap() {
        let storage = repository.unwrap().path().join("storage");
        if !storage.is_dir() {
            continue;
        }
        for (name, stored) in objects(&storage) {
            assert_eq!(Hash::of(name.hash.algorithm(), &stored), name.hash);
            let content = decompress_all(Compression::Zlib, &stored, 64 << 20).unwrap();
            let again = zlib(&content);
            assert!(again == stored, "{name} is compressed differently");
            count += 1;
        }
    }
    assert!(count > 200, "only {count} golden objects");
}

#[test]
fn mkfs_meta_info_vector() {
    let content = fs::read(golden().join("sha1/dump/metainfo.json")).unwrap();
    assert_eq!(content.len(), 385);
    let stored = zlib(&content);
    assert_eq!(stored.len(), 215);
    assert_eq!(sha1(&stored), "85e4f386da0d5d77c7f66cf2f58e10951f24b653");
}

/// Chunk rows as the catalogs hold them, by file: offset, size, hash.
fn published_chunks(dump: &Path) -> Vec<Vec<(u64, u64, String)>> {
    let mut by_file = std::collections::BTreeMap::<String, Vec<_>>::new();
    for file in fs::read_dir(dump).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().starts_with("catalog-") {
            continue;
        }
        for line in String::from_utf8_lossy(&fs::read(file.path()).unwrap()).lines() {
            let Some(values) = line.strip_prefix("INSERT INTO chunks VALUES(") else {
                continue;
            };
            let fields: Vec<&str> = values.trim_end_matches(");").split(',').collect();
            let hash = fields[4].trim_start_matches("X'").trim_end_matches('\'');
            by_file
                .entry(format!("{} {}", fields[0], fields[1]))
                .or_default()
                .push((
                    fields[2].parse().unwrap(),
                    fields[3].parse().unwrap(),
                    hash.to_owned(),
                ));
        }
    }
    by_file
        .into_values()
        .map(|mut rows| {
            rows.sort();
            rows
        })
        .collect()
}

#[test]
fn published_files_are_cut_at_the_same_places() {
    let folder = golden().join("sha1");
    let sizes = ChunkSizes::new(65_536, 131_072, 262_144).unwrap();
    let files = published_chunks(&folder.join("dump"));
    assert!(!files.is_empty());
    for rows in files {
        let mut content = Vec::new();
        for (offset, size, hash) in &rows {
            let stored =
                fs::read(folder.join(format!("storage/data/{}/{}P", &hash[..2], &hash[2..])))
                    .unwrap();
            let piece = decompress_all(Compression::Zlib, &stored, 1 << 20).unwrap();
            assert_eq!((*offset, *size), (content.len() as u64, piece.len() as u64));
            content.extend(piece);
        }
        let made: Vec<(u64, String)> = chunks(&content, sizes)
            .iter()
            .map(|piece| (piece.len() as u64, sha1(&zlib(piece))))
            .collect();
        let expected: Vec<(u64, String)> = rows.into_iter().map(|r| (r.1, r.2)).collect();
        assert_eq!(made, expected);
    }
}

#[test]
fn unit_test_vectors_of_small_and_big_files() {
    let sizes = ChunkSizes::new(512_000, 1_024_000, 2_048_000).unwrap();
    let names = |data: &[u8]| -> Vec<String> {
        chunks(data, sizes)
            .iter()
            .map(|piece| sha1(&zlib(piece)))
            .collect()
    };
    for (data, whole) in [
        (vec![], "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78"),
        (
            generated(314, 50 << 10),
            "7935fe23e1f9959b176999d63f6b8ccacc7c6eff",
        ),
        (
            vec![0; 50 << 10],
            "b05b2dd3d5336b9ef1e4ce01b70bc40a9b676754",
        ),
        (
            generated(1337, 4 << 20),
            "32f526af5fb573ee70925b108310447529d9b9eb",
        ),
        (vec![0; 4 << 20], "7bda09b8a07d28b293ff67a32b763d8c86d78a5c"),
    ] {
        assert_eq!(sha1(&zlib(&data)), whole);
    }
    assert_eq!(names(&generated(1337, 4 << 20)), vectors::BIG_CHUNKS);
    let zeros = names(&vec![0; 4 << 20]);
    assert_eq!(
        zeros,
        [
            "9a3cc4a3dd5f68bbd3a959359f213fda59b8c319",
            "9a3cc4a3dd5f68bbd3a959359f213fda59b8c319",
            "e5cb4b67a2f23f95ac6b55f2a9a265520abdcf77"
        ]
    );
}

#[test]
fn unit_test_vectors_of_a_huge_file() {
    let sizes = ChunkSizes::new(512_000, 1_024_000, 2_048_000).unwrap();
    let data = generated(1, 100 << 20);
    let pieces = chunks(&data, sizes);
    assert_eq!(pieces.len(), vectors::HUGE_CHUNKS.len());
    // the content is noise: compressing all of it would show no more than a part does
    for (piece, name) in pieces.iter().zip(vectors::HUGE_CHUNKS).step_by(7) {
        assert_eq!(sha1(&zlib(piece)), *name);
    }
}

#[test]
fn unit_test_vectors_of_hashes() {
    let million = "a".repeat(1_000_000);
    let long = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopq\
                klmnopqrlmnopqrsmnopqrstnopqrstu";
    for (text, expected) in [
        (
            "",
            [
                "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160",
                "7f9c2ba4e88f827d616045507605853ed73b8093-shake128",
            ],
        ),
        (
            "abc",
            [
                "a9993e364706816aba3e25717850c26c9cd0d89d",
                "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc-rmd160",
                "5881092dd818bf5cf8a3ddb793fbcba74097d5c5-shake128",
            ],
        ),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            [
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
                "12a053384a9c0c88e405a06c27dcf49ada62eb2b-rmd160",
                "1a96182b50fb8c7e74e0a707788f55e98209b8d9-shake128",
            ],
        ),
        (
            long,
            [
                "a49b2446a02c645bf419f995b67091253a04a259",
                "6f3fa39b6b503c384f919a49a7aa5c2c08bdfb45-rmd160",
                "7b6df6ff181173b6d7898d7ff63fb07b7c237daf-shake128",
            ],
        ),
        (
            "The quick brown fox jumps over the lazy dog",
            [
                "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
                "37f332f68db77bd9d7edd4969571ad671cf9dd3b-rmd160",
                "f4202e3c5852f9182a0430fd8144f0a74b95e741-shake128",
            ],
        ),
        (
            &million,
            [
                "34aa973cd4c4daa4f61eeb2bdbad27316534016f",
                "52783243c1697bdbe16d37f97f68f08325dc1528-rmd160",
                "9d222c79c4ff9d092cf6ca86143aa411e3699738-shake128",
            ],
        ),
    ] {
        for hash in expected {
            let expected: Hash = hash.parse().unwrap();
            assert_eq!(Hash::of(expected.algorithm(), text.as_bytes()), expected);
        }
    }
}
