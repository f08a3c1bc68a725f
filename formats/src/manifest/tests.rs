use super::*;

fn golden(file: &str) -> Vec<u8> {
    let path = format!("{}/../tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap()
}

fn vector() -> Manifest {
    let mut manifest = Manifest::new("test.repo.org", "1".repeat(40).parse().unwrap(), 1024);
    manifest.revision = 1;
    manifest.certificate = Some("2".repeat(40).parse().unwrap());
    manifest.published = 1_700_000_000;
    manifest
}

#[test]
fn the_documented_vector() {
    let body = vector().body();
    assert_eq!(body.len(), 167);
    assert_eq!(
        Hash::of(Algorithm::Sha1, &body).to_string(),
        "fe21b64acdd5f8d5ea5b52d65103b3fa83ec742e"
    );
    assert_eq!(Manifest::parse_body(&body), Ok(vector()));
}

#[test]
fn golden_manifests_there_and_back() {
    for repository in [
        "sha1",
        "rmd160",
        "shake128",
        "uncompressed",
        "garbage-collectable",
        "mtime-ns",
        "autocatalogs",
    ] {
        for file in ["v1.cvmfspublished", "v2.cvmfspublished"] {
            let bytes = golden(&format!("{repository}/{file}"));
            let signed = SignedManifest::parse(&bytes).unwrap();
            assert_eq!(signed.manifest.body(), signed.body);
            assert_eq!(signed.to_bytes().unwrap(), bytes);
            assert_eq!(signed.manifest.name, format!("{repository}.example.org"));
            assert_eq!(
                signed.manifest.garbage_collectable,
                repository == "garbage-collectable"
            );
        }
    }
    let sha1 = SignedManifest::parse(&golden("sha1/v2.cvmfspublished")).unwrap();
    assert_eq!(sha1.manifest.revision, 3);
    assert_eq!(sha1.manifest.catalog_bytes, 47104);
    assert_eq!(sha1.manifest.ttl_seconds, 240);
    assert_eq!(
        sha1.manifest.reflog.unwrap().to_string().as_bytes(),
        golden("sha1/reflog.chksum")
    );
}

#[test]
fn lines_in_any_order_unknown_letters_and_the_last_of_two() {
    let body = b"S1\nZx\nZy\nqwhat\n\nS7\nRd41d8cd98f00b204e9800998ecf8427e\nD240\nC1111111111111111111111111111111111111111\n--\nS9\n";
    let manifest = Manifest::parse_body(body).unwrap();
    assert_eq!(manifest.revision, 7);
    assert_eq!(manifest.name, "");
    assert!(!manifest.garbage_collectable);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let good = String::from_utf8(vector().body()).unwrap();
    for key in ['C', 'R', 'D', 'S'] {
        let without: String = good
            .lines()
            .filter(|line| !line.starts_with(key))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(
            Manifest::parse_body(without.as_bytes()),
            Err(ManifestError::Missing(key))
        );
    }
    for (from, to) in [
        ("S1\n", "Sx\n"),
        ("S1\n", "S+1\n"),
        ("S1\n", "S\n"),
        ("S1\n", "S99999999999999999999\n"),
        ("Gno", "Gmaybe"),
        ("Rd4", "Rd5"),
        ("Ntest", "N\u{7}test"),
    ] {
        let bad = good.replace(from, to);
        assert!(
            matches!(
                Manifest::parse_body(bad.as_bytes()),
                Err(ManifestError::BadValue { .. })
            ),
            "{to:?}"
        );
    }
    let bad = good.replace("X22", "X2g");
    assert!(matches!(
        Manifest::parse_body(bad.as_bytes()),
        Err(ManifestError::BadHash { key: 'X', .. })
    ));
    let null = good.replace(&"1".repeat(40), &"0".repeat(40));
    assert_eq!(
        Manifest::parse_body(null.as_bytes()),
        Err(ManifestError::Missing('C'))
    );
}

#[test]
fn a_changed_or_cut_file_is_refused() {
    let bytes = golden("sha1/v2.cvmfspublished");
    let body_and_hash = bytes.windows(4).position(|w| w == b"\n--\n").unwrap() + 4 + 41;
    for at in 0..body_and_hash {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(SignedManifest::parse(&changed).is_err(), "byte {at}");
    }
    for len in 0..=body_and_hash {
        assert!(SignedManifest::parse(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(
        SignedManifest::parse(&vec![b'C'; MAX_MANIFEST_BYTES]),
        Err(ManifestError::TooLarge(MAX_MANIFEST_BYTES))
    );
}

#[test]
fn a_manifest_that_nobody_could_read_is_not_written() {
    let mut signed = SignedManifest::parse(&golden("sha1/v2.cvmfspublished")).unwrap();
    signed.signature = vec![0; 4000];
    assert!(matches!(signed.to_bytes(), Err(ManifestError::TooLarge(_))));
}
