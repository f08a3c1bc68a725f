//! A storage in a bucket: what is sent, asked for and remembered. What any store does is in suite.rs.

mod faults;

use std::io::Read;
use std::sync::Arc;

use formats::{ObjectName, S3Conf};
use store::{
    HttpOptions, HttpStore, ObjectStore, S3Error, S3Store, StoreError, Stored, get, put, transfer,
    verify,
};

use crate::support::s3::{BUCKET, DOMAIN, KEY, S3Server, SECRET};
use crate::support::s3_proxy::{Fault, S3Proxy, Seen};
use crate::support::{chain, list, name_of, noise, shared};

const ALIAS: &str = "repo.example.org";

/// A store that reaches its server through the proxy.
struct Site {
    store: S3Store,
    proxy: S3Proxy,
    server: S3Server,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with("")
    }

    fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = S3Server::start(&dir.path().join("server"));
        let proxy = S3Proxy::start(server.port);
        std::fs::create_dir(dir.path().join("spool")).unwrap();
        let store = open(&server.conf_at(proxy.port, more), dir.path());
        Self {
            store,
            proxy,
            server,
            dir,
        }
    }

    /// The server as it is, without the proxy and what the store remembers.
    fn truth(&self) -> S3Store {
        open(&self.server.conf(""), self.dir.path())
    }

    /// Nothing was left where objects grow.
    fn spool_is_empty(&self) -> bool {
        std::fs::read_dir(self.dir.path().join("spool"))
            .unwrap()
            .next()
            .is_none()
    }

    /// The same server for another store.
    fn again(&self, more: &str) -> S3Store {
        open(&self.server.conf_at(self.proxy.port, more), self.dir.path())
    }
}

fn open(conf: &str, dir: &std::path::Path) -> S3Store {
    let conf = S3Conf::parse(conf.as_bytes()).unwrap();
    S3Store::open(conf, ALIAS, dir.join("spool")).unwrap()
}

/// Small ones go from memory, large ones from a file.
fn samples() -> Vec<(ObjectName, Vec<u8>)> {
    let sizes = [0, 10, 3_000_000];
    let bytes = sizes.iter().map(|size| noise(*size as u64, *size));
    bytes.map(|bytes| (name_of(&bytes), bytes)).collect()
}

fn s3_error(error: StoreError) -> S3Error {
    match error {
        StoreError::S3(error) => error,
        error => panic!("{error:?}"),
    }
}

#[test]
fn requests_are_what_the_official_tools_send() {
    let site = Site::new();
    for (name, bytes) in samples() {
        put(&site.store, &name, &bytes).unwrap();
        let path = format!("/{BUCKET}/{ALIAS}/{}", name.storage_path());
        let seen = site.proxy.take_seen();
        let sent: Vec<&Seen> = seen.iter().filter(|seen| seen.method == "PUT").collect();
        let [sent] = sent[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(sent.path.split('?').next().unwrap(), path);
        assert_eq!(sent.body_bytes, bytes.len());
        assert_eq!(
            sent.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(sent.header("cache-control"), Some("max-age=259200"));
        assert_eq!(sent.header("x-amz-acl"), Some("public-read"));
        assert!(sent.header("content-md5").is_some() && sent.header("transfer-encoding").is_none());
        assert!(
            sent.header("authorization")
                .unwrap()
                .contains("/us-east-1/s3/")
        );
    }
    for (file, kind, age) in [
        (".cvmfspublished", "application/x-cvmfs", Some("max-age=61")),
        ("index.html", "text/html", None),
    ] {
        site.store.write_root(file, b"x").unwrap();
        let seen = site.proxy.take_seen();
        let sent = seen.iter().find(|seen| seen.method == "PUT").unwrap();
        assert!(
            sent.path.starts_with(&format!("/{BUCKET}/{ALIAS}/{file}")),
            "{}",
            sent.path
        );
        assert_eq!(sent.header("content-type"), Some(kind));
        assert_eq!(sent.header("cache-control"), age);
    }
    let bare = site.again("CVMFS_S3_X_AMZ_ACL=\nCVMFS_S3_REGION=eu-west-1\n");
    bare.write_root("x", b"").unwrap();
    let seen = site.proxy.take_seen();
    let sent = seen.iter().find(|seen| seen.method == "PUT").unwrap();
    assert_eq!(sent.header("x-amz-acl"), None);
    assert!(
        sent.header("authorization")
            .unwrap()
            .contains("/eu-west-1/s3/")
    );
}

#[test]
fn what_is_known_is_not_asked_for_until_it_is_forgotten() {
    let site = Site::new();
    let name = name_of(b"known");
    assert_eq!(put(&site.store, &name, b"known").unwrap(), Stored::New);
    site.proxy.take_seen();
    assert_eq!(put(&site.store, &name, b"known").unwrap(), Stored::Present);
    assert_eq!(site.proxy.take_seen().len(), 0);
    // somebody else's garbage collection
    site.truth().delete(&name).unwrap();
    assert!(
        !site.store.has(&name).unwrap(),
        "a question is always asked"
    );
    assert_eq!(put(&site.store, &name, b"known").unwrap(), Stored::New);
    site.truth().delete(&name).unwrap();
    site.store.forget();
    assert_eq!(put(&site.store, &name, b"known").unwrap(), Stored::New);
    assert!(site.truth().has(&name).unwrap());
}

#[test]
fn without_a_peek_it_is_sent_at_once() {
    let site = Site::with("CVMFS_S3_PEEK_BEFORE_PUT=off\n");
    put(&site.store, &name_of(b"a"), b"a").unwrap();
    site.proxy.take_seen();
    put(&site.store, &name_of(b"b"), b"b").unwrap();
    let seen = site.proxy.take_seen();
    assert_eq!(
        seen.iter().map(|seen| &*seen.method).collect::<Vec<_>>(),
        ["PUT"]
    );
}

/// The bucket as part of the host's name, which only a proxy can resolve here.
#[test]
fn buckets_with_names_of_their_own_behind_a_proxy() {
    let site = Site::new();
    let proxy = format!("CVMFS_S3_PROXY=http://127.0.0.1:{}\n", site.proxy.port);
    let conf = format!(
        "CVMFS_S3_HOST={DOMAIN}\nCVMFS_S3_BUCKET={BUCKET}\nCVMFS_S3_ACCESS_KEY={KEY}\nCVMFS_S3_SECRET_KEY={SECRET}\n{proxy}"
    );
    let store = open(&conf, site.dir.path());
    let (name, bytes) = samples().pop().unwrap();
    put(&store, &name, &bytes).unwrap();
    let seen = site.proxy.take_seen();
    let host = format!("{BUCKET}.{DOMAIN}");
    assert!(
        seen.iter().all(|seen| seen.header("host") == Some(&host)),
        "{seen:?}"
    );
    assert_eq!(verify(&site.truth(), &name).unwrap(), bytes.len() as u64);
}

/// A file of this machine is sent as it is.
#[test]
fn a_plain_file_needs_no_copy() {
    let site = Site::new();
    let (from_dir, stage) = (tempfile::tempdir().unwrap(), noise(9, 2_000_000));
    let from = store::DirStore::create(from_dir.path(), store::Durability::Batch).unwrap();
    let name = name_of(&stage);
    put(&from, &name, &stage).unwrap();
    // no spool, so nothing could be copied there
    std::fs::remove_dir(site.dir.path().join("spool")).unwrap();
    assert_eq!(
        transfer(&from, &site.store, &name, false).unwrap(),
        Stored::New
    );
    assert_eq!(
        transfer(&from, &site.store, &name, false).unwrap(),
        Stored::Present
    );
    assert_eq!(get(&site.truth(), &name, 1 << 30).unwrap(), stage);
    let error = put(
        &site.store,
        &name_of(&noise(1, 100_000)),
        &noise(1, 100_000),
    )
    .unwrap_err();
    assert!(error.to_string().contains("spool"), "{error}");
}

#[test]
fn no_more_connections_than_configured() {
    let site = Site::with("CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=3\n");
    assert_eq!(site.store.writers(), Some(3));
    std::thread::scope(|scope| {
        for n in 0..12 {
            let store = &site.store;
            scope.spawn(move || {
                let bytes = noise(n + 1, 200_000);
                put(store, &name_of(&bytes), &bytes).unwrap();
            });
        }
    });
    assert_eq!(list(&site.truth()).len(), 12);
    let most = site.proxy.most_parallel();
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn long_listings_come_in_pages() {
    let site = Site::new();
    let mut names: Vec<ObjectName> = (0..1100_u32).map(|n| name_of(&n.to_le_bytes())).collect();
    // as the server keeps it: a thousand requests take their time
    for name in &names {
        let path = site
            .dir
            .path()
            .join("server")
            .join(BUCKET)
            .join(ALIAS)
            .join(name.storage_path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }
    let stray = site
        .dir
        .path()
        .join("server")
        .join(BUCKET)
        .join(ALIAS)
        .join("data/stray");
    std::fs::write(stray, b"").unwrap();
    site.store.write_root(".cvmfspublished", b"").unwrap();
    site.proxy.take_seen();
    site.proxy
        .fail("GET", "list-type", 1, Fault::Answer(500, "InternalError"));
    let listed: Vec<ObjectName> = list(&site.store)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    assert_eq!(listed, names);
    assert!(site.proxy.count("GET") >= 3);
}

#[test]
fn refusals_say_what_to_do() {
    let site = Site::new();
    let bytes = b"refused";
    let name = name_of(bytes);
    for (status, code, words) in [
        (403, "AccessDenied", &["s3:PutObject", KEY][..]),
        (403, "SignatureDoesNotMatch", &["CVMFS_S3_SECRET_KEY", KEY]),
        (403, "InvalidAccessKeyId", &["CVMFS_S3_ACCESS_KEY"]),
        (403, "RequestTimeTooSkewed", &["clock"]),
        (404, "NoSuchBucket", &["--create-bucket"]),
        (301, "PermanentRedirect", &["CVMFS_S3_REGION"]),
        (507, "XMinioStorageFull", &["no room"]),
        (
            400,
            "AccessControlListNotSupported",
            &["CVMFS_S3_X_AMZ_ACL="],
        ),
        (405, "MethodNotAllowed", &["405", "wanted by a test"]),
    ] {
        site.proxy.take_seen();
        site.proxy.fail("PUT", "", 1, Fault::Answer(status, code));
        let error = put(&site.store, &name, bytes).unwrap_err();
        let text = chain(&error);
        for word in words {
            assert!(text.contains(word), "{code}: {text}");
        }
        assert!(!text.contains(SECRET));
        assert_eq!(site.proxy.count("PUT"), 1, "{code} was tried again");
        assert_eq!(error.is_out_of_space(), code == "XMinioStorageFull");
    }
    assert_eq!(put(&site.store, &name, bytes).unwrap(), Stored::New);
}

/// The same from a server that means it.
#[test]
fn real_refusals() {
    let site = Site::new();
    let conf = site.server.conf("");
    let error = |conf: String| {
        let store = open(&conf, site.dir.path());
        s3_error(store.for_each(&mut |_, _| Ok(())).unwrap_err())
    };
    let wrong_secret = error(conf.replace(SECRET, "guessed"));
    assert!(
        matches!(wrong_secret, S3Error::BadKey { .. }),
        "{wrong_secret}"
    );
    let stranger = error(conf.replace(KEY, "stranger"));
    assert!(
        matches!(stranger, S3Error::BadKey { .. } | S3Error::Denied { .. }),
        "{stranger}"
    );
    let elsewhere = error(conf.replace(BUCKET, "elsewhere"));
    assert!(matches!(elsewhere, S3Error::NoBucket { .. }), "{elsewhere}");
}

/// A web server's view of the bucket, as clients have it: no key at all.
#[test]
fn what_is_stored_is_read_over_http() {
    let site = Site::new();
    let (name, bytes) = samples().pop().unwrap();
    put(&site.store, &name, &bytes).unwrap();
    site.store.write_root(".cvmfspublished", b"C..").unwrap();
    let url = format!("http://127.0.0.1:{}/{BUCKET}/{ALIAS}", site.server.port);
    let options = HttpOptions::default();
    let front = HttpStore::new(&url, options.clone()).unwrap();
    assert_eq!(front.read_root(".cvmfspublished").unwrap(), b"C..");
    assert_eq!(get(&front, &name, 1 << 30).unwrap(), bytes);
    site.server.set_public(false);
    let error = front.read_root(".cvmfspublished").unwrap_err();
    assert!(error.to_string().contains("403"), "{error}");
    assert_eq!(site.store.read_root(".cvmfspublished").unwrap(), b"C..");
}

/// One store for all threads: bodies that are not read to their end hold nobody up.
#[test]
fn readers_do_not_take_one_anothers_place() {
    let site = Site::with("CVMFS_S3_MAX_NUMBER_OF_PARALLEL_CONNECTIONS=1\n");
    let (name, bytes) = samples().pop().unwrap();
    put(&site.store, &name, &bytes).unwrap();
    let store: Arc<dyn ObjectStore> = shared(site.store.clone());
    let mut open: Vec<_> = (0..4).map(|_| store.open(&name).unwrap()).collect();
    for reader in &mut open {
        reader.read_exact(&mut [0; 10]).unwrap();
    }
    assert!(store.has(&name).unwrap());
    for mut reader in open {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, bytes[10..]);
    }
}

/// Failpoints are the whole process's.
#[cfg(feature = "failpoints")]
#[test]
fn stopped_halfway() {
    crate::tiny::alone("s3::inside_stopped_halfway", &[], "true");
}

#[cfg(feature = "failpoints")]
#[test]
#[ignore = "run by stopped_halfway"]
fn inside_stopped_halfway() {
    let site = Site::new();
    site.store.write_root(".cvmfspublished", b"old").unwrap();
    let stopped = |at: &'static str, run: &dyn Fn() -> Option<StoreError>| {
        fail::cfg(at, "return").unwrap();
        let error = run().unwrap();
        fail::remove(at);
        assert!(
            matches!(error, StoreError::Injected(point) if point.0 == at),
            "{error}"
        );
        assert!(site.spool_is_empty());
    };
    for (name, bytes) in samples() {
        stopped("s3::put", &|| put(&site.store, &name, &bytes).err());
        assert!(!site.truth().has(&name).unwrap());
        assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    }
    stopped("s3::write_root", &|| {
        site.store.write_root(".cvmfspublished", b"new").err()
    });
    assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"old");
    // the new one is there, though the caller was not told
    stopped("s3::wrote_root", &|| {
        site.store.write_root(".cvmfspublished", b"new").err()
    });
    assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"new");
}
