//! A web server that stumbles.

use std::time::Duration;

use store::{DirStore, Durability, HttpOptions, HttpStore, ObjectStore, StoreError, put, verify};

use crate::support::golden::{Golden, listing, storage};
use crate::support::server::Server;
use crate::support::{chain, name_of, noise, read, shared};

fn hasty() -> HttpOptions {
    HttpOptions {
        attempts: 3,
        backoff: Duration::from_millis(1),
        connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(2),
        proxy: None,
    }
}

struct Site {
    server: Server,
    store: HttpStore,
    name: formats::ObjectName,
    bytes: Vec<u8>,
    _dir: tempfile::TempDir,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let files = DirStore::create(dir.path(), Durability::Batch).unwrap();
    let bytes = noise(8, 1_000_000);
    let name = name_of(&bytes);
    put(&files, &name, &bytes).unwrap();
    files.write_root(".cvmfspublished", b"manifest").unwrap();
    let server = Server::start(dir.path());
    let store = HttpStore::new(&format!("{}/", server.url), hasty()).unwrap();
    Site {
        server,
        store,
        name,
        bytes,
        _dir: dir,
    }
}

#[test]
fn a_passing_failure_is_tried_again() {
    for status in [500, 502, 503, 504, 429, 408] {
        let site = site();
        site.server.answer_with(&[status, status]);
        assert_eq!(read(&site.store, &site.name), site.bytes);
        assert_eq!(site.server.requests(), 3, "{status}");
    }
}

#[test]
fn a_lasting_failure_is_reported() {
    for (status, requests) in [(500, 3), (503, 3), (403, 1), (400, 1), (401, 1)] {
        let site = site();
        site.server.answer_with(&[status; 3]);
        let error = site.store.open(&site.name).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::HttpStatus { .. }), "{error}");
        let text = chain(&error);
        assert!(
            text.contains(&status.to_string()) && text.contains(&site.server.url),
            "{text}"
        );
        assert_eq!(site.server.requests(), requests);
    }
    // gone is missing
    let site = site();
    site.server.answer_with(&[404, 410]);
    assert!(!site.store.has(&site.name).unwrap());
    assert!(!site.store.has(&site.name).unwrap());
    assert!(site.store.has(&site.name).unwrap());
}

#[test]
fn an_answer_that_breaks_off_goes_on() {
    let site = site();
    site.server.break_after(&[10, 500_000, 0]);
    assert_eq!(read(&site.store, &site.name), site.bytes);
    // with ranges nothing is sent twice, but for what was under way
    assert_eq!(site.server.body_bytes(), site.bytes.len() as u64);
}

#[test]
fn without_ranges_it_begins_again() {
    let site = site();
    site.server.without_ranges();
    site.server.break_after(&[10, 500_000]);
    assert_eq!(read(&site.store, &site.name), site.bytes);
    assert_eq!(verify(&site.store, &site.name).unwrap(), 1_000_000);
}

#[test]
fn an_answer_that_always_breaks_off() {
    let site = site();
    site.server.break_after(&[0; 20]);
    let error = verify(&site.store, &site.name).unwrap_err();
    assert!(
        matches!(error, StoreError::Http { .. }),
        "{}",
        chain(&error)
    );
    assert!(
        chain(&error).contains(&site.server.url),
        "{}",
        chain(&error)
    );
    assert!(site.server.requests() <= 4);
}

#[test]
fn nobody_is_there() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}/repo");
    let store = HttpStore::new(&url, hasty()).unwrap();
    for error in [
        store.has(&name_of(b"")).unwrap_err(),
        store.read_root(".cvmfspublished").unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Http { .. }), "{error}");
        assert!(chain(&error).contains(&url), "{}", chain(&error));
    }
}

#[test]
fn a_server_that_says_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo", silent.local_addr().unwrap());
    let options = HttpOptions {
        attempts: 2,
        read_timeout: Duration::from_millis(100),
        ..hasty()
    };
    let store = HttpStore::new(&url, options).unwrap();
    let error = store.has(&name_of(b"")).unwrap_err();
    assert!(chain(&error).contains("in time"), "{}", chain(&error));
}

#[test]
fn urls_that_are_none() {
    let store = HttpStore::new("not a url", hasty()).unwrap();
    assert!(matches!(
        store.has(&name_of(b"")),
        Err(StoreError::Http { .. })
    ));
    let options = HttpOptions {
        proxy: Some("::".to_owned()),
        ..hasty()
    };
    assert!(matches!(
        HttpStore::new("http://x", options),
        Err(StoreError::Http { .. })
    ));
}

#[test]
fn it_only_reads() {
    let site = site();
    let errors = [
        site.store.begin().map(|_| ()).unwrap_err(),
        site.store.delete(&site.name).map(|_| ()).unwrap_err(),
        site.store.write_root("x", b"").unwrap_err(),
        site.store.remove_root("x").map(|_| ()).unwrap_err(),
        site.store.for_each(&mut |_, _| Ok(())).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Unsupported { .. }), "{error}");
    }
    assert_eq!(site.store.local_dir(), None);
}

#[test]
fn a_repository_over_http() {
    let dir = storage("rmd160", 2);
    let server = Server::start(dir.path());
    let store = shared(HttpStore::new(&server.url, hasty()).unwrap());
    server.answer_with(&[503, 502]);
    let golden = Golden::over("rmd160", dir, store);
    let mut rows = 0;
    golden
        .revision()
        .walk::<store::RepoError>(&formats::RepoPath::root(), &mut |_, _| {
            rows += 1;
            Ok(store::Walk::Down)
        })
        .unwrap();
    assert_eq!(rows, listing("rmd160", 2).len());
}
