use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn golden(repository: &str) -> Vec<u8> {
    let path = format!(
        "{}/../tests/golden/{repository}/storage/.cvmfswhitelist",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

#[test]
fn golden_whitelists_there_and_back() {
    for repository in ["sha1", "rmd160", "shake128", "mtime-ns"] {
        let bytes = golden(repository);
        let signed = SignedWhitelist::parse(&bytes).unwrap();
        assert_eq!(signed.whitelist.body(), signed.body, "{repository}");
        assert_eq!(signed.to_bytes(), bytes);
        assert_eq!(signed.whitelist.name, format!("{repository}.example.org"));
        assert_eq!(signed.whitelist.fingerprints.len(), 1);
    }
}

#[test]
fn the_term_ends_with_the_last_full_hour() {
    // until 2026-12-21T03:12:35Z
    let whitelist = SignedWhitelist::parse(&golden("sha1")).unwrap().whitelist;
    let end = at(1_797_822_000);
    assert_eq!(whitelist.ends(), end);
    assert_eq!(
        whitelist.remaining(end - Duration::from_secs(1)),
        Some(Duration::from_secs(1))
    );
    assert_eq!(whitelist.remaining(end), None);
    assert_eq!(whitelist.remaining(end + DAY), None);
}

#[test]
fn made_renewed_and_read() {
    let fingerprint = Fingerprint(Hash::of(Algorithm::Shake128, b"certificate"));
    let now = at(1_797_822_755);
    let whitelist = Whitelist::new("demo.example.org", vec![fingerprint], now, 30 * DAY);
    let text = String::from_utf8(whitelist.body()).unwrap();
    assert_eq!(
        text,
        format!("20261221031235\nE20270120031235\nNdemo.example.org\n{fingerprint}\n")
    );
    assert!(text.ends_with("-SHAKE128\n"));
    assert_eq!(
        Whitelist::parse_body(text.as_bytes()),
        Ok(whitelist.clone())
    );
    assert!(whitelist.lists(&fingerprint));

    let later = whitelist.renewed(now + DAY, 7 * DAY);
    assert!(later.remaining(now + 7 * DAY).is_some());
    assert_eq!(later.fingerprints, whitelist.fingerprints);
}

#[test]
fn comments_and_foreign_fingerprints_are_kept() {
    let sha1 = "E1:10:D9:8F:39:97:D2:36:5B:AA:A6:2C:A1:79:E0:E6:02:79:EF:67";
    let md5 = "E1:10:D9:8F:39:97:D2:36:5B:AA:A6:2C:A1:79:E0:E6";
    let text = format!(
        "20261221031235\nE20270120031235\nNdemo\nVpkcs7\nWcachain\n# us\n{sha1} # a host\n{md5}\n--\nx"
    );
    let whitelist = Whitelist::parse_body(text.as_bytes()).unwrap();
    assert!(whitelist.pkcs7 && whitelist.ca_chain);
    assert_eq!(whitelist.fingerprints.len(), 1);
    assert_eq!(whitelist.fingerprints[0].to_string(), sha1);
    assert_eq!(whitelist.other_lines, ["# us", md5]);
    let again = Whitelist::parse_body(&whitelist.body()).unwrap();
    assert_eq!(again, whitelist);
}

#[test]
fn fingerprints() {
    let rmd = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33-RMD160";
    let fingerprint: Fingerprint = rmd.parse().unwrap();
    assert_eq!(fingerprint.0.algorithm(), Algorithm::Rmd160);
    assert_eq!(fingerprint.to_string(), rmd);
    for bad in [
        "",
        "#",
        "AA:BB",
        "zz",
        &format!("{rmd}x"),
        &rmd.replace("00:", "\u{e4}"),
    ] {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let line = |bytes: &[u8]| match Whitelist::parse_body(bytes) {
        Err(WhitelistError::BadLine { line, .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(line(b""), 1);
    assert_eq!(line(b"XXXXXXXXXXXXXX\n19840403000000"), 2);
    assert_eq!(line(b"XXXXXXXXXXXXXX\nE19841303000000"), 2);
    assert_eq!(line(b"XXXXXXXXXXXXXX\nE19840403000000"), 3);
    assert_eq!(line(b"XXXXXXXXXXXXXX\nE19840403000000\nN\n"), 3);
    assert!(Whitelist::parse_body(b"XXXXXXXXXXXXXX\nE19840403000000\nNabc").is_ok());
    assert_eq!(
        SignedWhitelist::parse(&vec![0; MAX_WHITELIST_BYTES + 1]),
        Err(WhitelistError::TooLarge(MAX_WHITELIST_BYTES + 1))
    );
}

#[test]
fn a_changed_or_cut_file_is_refused() {
    let bytes = golden("sha1");
    let body_and_hash = bytes.windows(4).position(|w| w == b"\n--\n").unwrap() + 4 + 41;
    for at in 0..body_and_hash {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(SignedWhitelist::parse(&changed).is_err(), "byte {at}");
    }
    for len in 0..=body_and_hash {
        assert!(SignedWhitelist::parse(&bytes[..len]).is_err());
    }
}
