//! What each fuzz target does with its bytes: parse, and where that succeeds, check what must hold.
//!
//! A target may not panic, hang, or hold more memory than a small multiple of its input. This file
//! is a module of formats/tests/corpus.rs too, so it names nothing but `formats` and `tempfile`.

use std::io::{Read, Write};
use std::path::Path;

use formats::catalog::{self, Catalog, CatalogWriter};
use formats::compress::{compress, decompress, decompress_all};
use formats::dirtab::Dirtab;
use formats::history::{History, HistoryWriter};
use formats::reflog::{Reflog, ReflogWriter};
use formats::s3_conf::{self, S3Conf};
use formats::server_conf::ServerConf;
use formats::trust::{PrivateKey, sign_manifest, verify_manifest};
use formats::warm::message::Message;
use formats::warm::{self, BundleReader, Encoder, ListReader, Listed, Missing, Topic};
use formats::{
    Algorithm, Certificate, Compression, Fingerprint, Hash, Manifest, Name, ObjectName, PublicKey,
    RepoPath, SignedManifest, SignedWhitelist, Whitelist, meta_info,
};

/// `.cvmfspublished`
pub fn manifest(bytes: &[u8]) {
    if let Ok(signed) = SignedManifest::parse(bytes) {
        let written = signed.to_bytes().expect("what was read can be written");
        assert_eq!(SignedManifest::parse(&written).as_ref(), Ok(&signed));
    }
    if let Ok(manifest) = Manifest::parse_body(bytes) {
        assert_eq!(Manifest::parse_body(&manifest.body()), Ok(manifest));
    }
}

/// `.cvmfswhitelist`, and the PEM files around it.
pub fn whitelist(bytes: &[u8]) {
    if let Ok(signed) = SignedWhitelist::parse(bytes) {
        let written = signed.to_bytes();
        assert_eq!(SignedWhitelist::parse(&written).as_ref(), Ok(&signed));
    }
    if let Ok(whitelist) = Whitelist::parse_body(bytes) {
        let written = whitelist.body();
        assert_eq!(Whitelist::parse_body(&written), Ok(whitelist));
    }
    let _ = Certificate::from_pem(bytes);
    let _ = PublicKey::from_pem(bytes);
}

/// The PEM files that sign: keys, and the certificate of one.
pub fn keys(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_pem(bytes) {
        let written = key.to_pem().expect("what was read can be written");
        let again = PublicKey::from_pem(&written).expect("what was written");
        assert_eq!(again.to_pem().ok(), Some(written));
    }
    if let Ok(certificate) = Certificate::from_pem(bytes) {
        assert_eq!(certificate.pem(), bytes);
        assert!(verify_manifest(&unsigned(), &certificate).is_err());
    }
    let Ok(key) = PrivateKey::from_pem(bytes) else {
        return;
    };
    let written = key.to_pem().expect("what was read can be written");
    let again = PrivateKey::from_pem(&written).expect("what was written");
    assert_eq!(again.to_pem().ok(), Some(written));
    // a key that fits itself badly must not sign what nobody can verify: that is an error of its own
    let _ = sign_manifest(unsigned().manifest, Algorithm::Sha1, &key);
}

/// A manifest whose signature is none.
fn unsigned() -> SignedManifest {
    let body = b"C1111111111111111111111111111111111111111\n\
        Rd41d8cd98f00b204e9800998ecf8427e\nD240\nS1\nNa.example.org\n";
    let manifest = Manifest::parse_body(body).expect("a manifest");
    SignedManifest {
        body_hash: Hash::of(Algorithm::Sha1, body),
        body: body.to_vec(),
        signature: vec![0; 256],
        manifest,
    }
}

/// `server.conf`
pub fn server_conf(bytes: &[u8]) {
    let Ok(mut conf) = ServerConf::parse(bytes) else {
        return;
    };
    assert_eq!(conf.render(), String::from_utf8_lossy(bytes));
    let _ = (conf.params(), conf.upstream(), conf.name(), conf.oddities());
    conf.set("CVMFS_USER", "it's \"me\" $x")
        .expect("a key and a line");
    let again = ServerConf::parse(conf.render().as_bytes()).expect("what was written");
    // unless it ended up inside an `if` that is never closed
    if let Ok(value) = again.value("CVMFS_USER") {
        assert_eq!(value, Some("it's \"me\" $x"));
    }
}

/// `s3.conf`
pub fn s3_conf(bytes: &[u8]) {
    let Ok(conf) = S3Conf::parse(bytes) else {
        return;
    };
    let endpoint = conf.endpoint();
    let host = endpoint.split_once("://").expect("a scheme").1;
    assert!(!host.is_empty() && !host.contains(['/', ' ', '@', '?', '#']));
    assert!(s3_conf::is_bucket(&conf.bucket) && !conf.bucket.contains('/'));
    assert!((1..=1024).contains(&conf.connections) && conf.timeout_seconds > 0);
    if let Some(key) = conf.key {
        assert_eq!(format!("{key:?}"), format!("AccessKey({})", key.id));
    }
}

/// `.cvmfsdirtab`: the first line is the path to ask for.
pub fn dirtab(bytes: &[u8]) {
    let line_end = bytes.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (path, rules) = bytes.split_at(line_end);
    let path = RepoPath::new(path).unwrap_or_default();
    let Ok(dirtab) = Dirtab::parse(rules) else {
        return;
    };
    if dirtab.matches(&path) {
        assert!(!dirtab.is_empty());
        let parent = path.parent().expect("the root never matches");
        assert!(dirtab.may_match_below(&parent));
    }
}

/// Meta information.
pub fn meta_info(bytes: &[u8]) {
    let _ = meta_info::parse(bytes);
}

/// Hashes, object names, paths, fingerprints, algorithms.
pub fn names(bytes: &[u8]) {
    if let Ok(name) = Name::new(bytes) {
        assert_eq!(name.as_bytes(), bytes);
    }
    if let Ok(path) = RepoPath::new(bytes) {
        assert_eq!(path.as_bytes(), bytes);
        let parts: Vec<Name> = path.components().collect();
        let joined = parts.iter().fold(RepoPath::root(), |p, name| p.join(name));
        assert_eq!(joined, path);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(hash) = text.parse::<Hash>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(name) = text.parse::<ObjectName>() {
        assert_eq!(name.to_string(), text);
        assert!(name.storage_path().starts_with("data/"));
    }
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
    let _ = text.parse::<Algorithm>();
}

/// A catalog row's extended attributes.
pub fn xattr(bytes: &[u8]) {
    let Ok(xattrs) = catalog::xattr::parse(bytes) else {
        return;
    };
    let written = catalog::xattr::serialize(&xattrs).expect("what was read can be written");
    match written {
        Some(written) => assert_eq!(catalog::xattr::parse(&written), Ok(xattrs)),
        None => assert!(xattrs.is_empty()),
    }
}

/// A stored object.
pub fn decompress_object(bytes: &[u8]) {
    const LIMIT: usize = 1 << 20;
    let all = decompress_all(Compression::Zlib, bytes, LIMIT);
    let mut by_bytes = Vec::new();
    let outcome = decompress(Compression::Zlib, bytes)
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut by_bytes);
    match all {
        Ok(content) => {
            assert!(outcome.is_ok() && content == by_bytes);
            let again = compress(Compression::Zlib, &content);
            assert_eq!(
                decompress_all(Compression::Zlib, &again, LIMIT),
                Ok(content)
            );
        }
        Err(_) => assert!(outcome.is_err() || by_bytes.len() > LIMIT),
    }
}

/// A file catalog.
pub fn catalog(bytes: &[u8]) {
    with_file(bytes, |file| {
        let _ = Catalog::open(file).and_then(|catalog| {
            let _ = catalog.lookup_path(&RepoPath::root());
            let _ = catalog.list(&RepoPath::root());
            let _ = catalog.recount_self();
            catalog.verify()
        });
        let _ = CatalogWriter::open_update(file).and_then(|catalog| catalog.max_link_group());
    });
}

/// A tag database.
pub fn history(bytes: &[u8]) {
    with_file(bytes, |file| {
        let _ = History::open(file).and_then(|history| history.verify());
        let _ = HistoryWriter::open_update(file).and_then(|history| history.finish());
    });
}

/// A reflog.
pub fn reflog(bytes: &[u8]) {
    with_file(bytes, |file| {
        let _ = Reflog::open(file).and_then(|reflog| reflog.verify());
        let _ = ReflogWriter::open_update(file).and_then(|reflog| reflog.finish());
    });
}

/// A list of objects, and the answer to one.
pub fn warm_list(bytes: &[u8]) {
    if let Ok(missing) = Missing::parse(bytes) {
        assert_eq!(missing.render().expect("what was read"), bytes);
        assert_eq!(
            missing.absent.ones().count(),
            missing.absent.count() as usize
        );
    }
    let Ok(list) = ListReader::new(bytes) else {
        return;
    };
    let objects: Result<Vec<Listed>, _> = list.collect();
    if let Ok(objects) = objects {
        let mut written = Vec::new();
        warm::list::write_list(&mut written, objects.into_iter()).expect("what was read");
        assert_eq!(written, bytes);
    }
}

/// A bundle of objects.
pub fn warm_bundle(bytes: &[u8]) {
    let Ok(mut reader) = BundleReader::new(bytes) else {
        return;
    };
    let mut objects = Vec::new();
    loop {
        match reader.next_object() {
            Ok(Some(listed)) => {
                let mut content = Vec::new();
                let read = reader.content().read_to_end(&mut content);
                assert!(read.expect("memory can be read") as u64 <= listed.bytes);
                objects.push((listed, content));
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    let listed: Vec<Listed> = objects.iter().map(|(listed, _)| *listed).collect();
    let mut contents = objects.into_iter().map(|(_, content)| content);
    let mut encoder = Encoder::new(listed, |_: &ObjectName| {
        let content = contents.next().expect("one for each object");
        Ok(Box::new(std::io::Cursor::new(content)) as Box<dyn Read + Send>)
    })
    .expect("what was read can be sent");
    let mut written = Vec::new();
    encoder
        .read_to_end(&mut written)
        .expect("contents of their sizes");
    assert_eq!(written, bytes);
}

/// What is said on a broker: the first line is the topic, the rest the message.
pub fn warm_message(bytes: &[u8]) {
    let line_end = bytes.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (topic, message) = bytes.split_at(line_end);
    if let Ok(topic) = String::from_utf8_lossy(topic).parse::<Topic>() {
        let text = topic.render().expect("what was read is a topic");
        assert_eq!(text.as_bytes(), topic.to_string().as_bytes());
    }
    there_and_back::<warm::Announce>(message);
    there_and_back::<warm::Ready>(message);
    there_and_back::<warm::Published>(message);
    there_and_back::<warm::Presence>(message);
}

/// The file that makes a receiver a site: names, URLs, certificates and a key.
pub fn warm_enrolment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(enrolment) = warm::Enrolment::parse(text) {
        let written = enrolment.text();
        let again = warm::Enrolment::parse(&written).expect("what was written");
        assert_eq!(again.text(), written);
    }
}

fn there_and_back<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::parse(bytes) {
        let written = message.render().expect("what was read can be written");
        assert_eq!(M::parse(&written).expect("what was written"), message);
    }
}

fn with_file(bytes: &[u8], parse: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    let path = directory.path().join("database");
    let mut file = std::fs::File::create(&path).expect("a temporary file");
    file.write_all(bytes).expect("space for a temporary file");
    drop(file);
    parse(&path);
}
