//! A server that fails, is slow, cuts connections, throttles or lies.

use store::s3::SAMPLE;
use store::{ObjectStore, S3Error, Stored, get, put, verify};

use super::{Site, s3_error, samples};
use crate::support::s3::{BUCKET, SECRET};
use crate::support::s3_proxy::Fault;
use crate::support::{chain, list, name_of, noise};

#[test]
fn what_passes_is_waited_for() {
    let site = Site::new();
    for fault in [
        Fault::Answer(500, "InternalError"),
        Fault::SlowDown(1),
        Fault::Answer(429, "TooManyRequests"),
        Fault::Cut,
        Fault::CutRequest(1000),
        Fault::LoseAnswer,
    ] {
        for (name, bytes) in samples() {
            site.proxy.fail("PUT", "data/", 2, fault);
            let stored = put(&site.store, &name, &bytes);
            assert_eq!(stored.unwrap(), Stored::New, "{fault:?}");
            assert_eq!(verify(&site.truth(), &name).unwrap(), bytes.len() as u64);
            site.store.delete(&name).unwrap();
        }
        site.proxy.fail("PUT", ".cvmfs", 2, fault);
        site.store.write_root(".cvmfspublished", b"new").unwrap();
        assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"new");
        site.proxy.fail("HEAD", "", 2, fault);
        site.proxy.fail("GET", "", 2, fault);
        let (name, bytes) = samples().pop().unwrap();
        put(&site.truth(), &name, &bytes).unwrap();
        assert!(site.store.has(&name).unwrap(), "{fault:?}");
        assert_eq!(
            get(&site.store, &name, 1 << 30).unwrap(),
            bytes,
            "{fault:?}"
        );
        site.proxy.fail("DELETE", "", 2, fault);
        assert!(site.store.delete(&name).unwrap(), "{fault:?}");
        assert_eq!(list(&site.truth()), []);
        site.proxy.behave();
    }
    // damaged on the way
    site.proxy
        .fail("PUT", "", 1, Fault::Answer(400, "BadDigest"));
    site.store.write_root(".cvmfspublished", b"newer").unwrap();
    assert!(site.spool_is_empty());
}

#[test]
fn what_does_not_pass_is_an_error_and_changes_nothing() {
    let site = Site::with("CVMFS_S3_MAX_RETRIES=1\n");
    site.store.write_root(".cvmfspublished", b"old").unwrap();
    for fault in [
        Fault::Answer(500, "InternalError"),
        Fault::Cut,
        Fault::CutRequest(1),
    ] {
        site.proxy.fail("PUT", "", usize::MAX, fault);
        for (name, bytes) in samples() {
            site.proxy.take_seen();
            let error = put(&site.store, &name, &bytes).unwrap_err();
            assert_eq!(site.proxy.count("PUT"), 2, "{fault:?}");
            let text = chain(&error);
            assert!(
                text.contains("2 attempt(s)") && text.contains(BUCKET),
                "{text}"
            );
            assert!(!text.contains(SECRET));
            assert!(!site.truth().has(&name).unwrap());
        }
        site.store
            .write_root(".cvmfspublished", b"new")
            .unwrap_err();
        assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"old");
        site.proxy.behave();
    }
    // and the next attempt needs no help
    for (name, bytes) in samples() {
        assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    }
    assert!(site.spool_is_empty());
}

#[test]
fn a_server_that_is_gone_is_named_and_comes_back() {
    let mut site = Site::with("CVMFS_S3_MAX_RETRIES=1\n");
    site.server.stop();
    let (name, bytes) = samples().pop().unwrap();
    for error in [
        site.store.has(&name).map(|_| ()),
        site.store.open(&name).map(|_| ()),
        put(&site.store, &name, &bytes).map(|_| ()),
        site.store.read_root("x").map(|_| ()),
        site.store.for_each(&mut |_, _| Ok(())),
    ] {
        let error = s3_error(error.unwrap_err());
        assert!(matches!(error, S3Error::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("CVMFS_S3_HOST"), "{error}");
    }
    site.server.go_on();
    assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    assert_eq!(verify(&site.truth(), &name).unwrap(), bytes.len() as u64);
}

/// Silence is waited for as long as the configuration says, not for ever.
#[test]
fn a_server_that_says_nothing_is_given_up() {
    let site = Site::with("CVMFS_S3_TIMEOUT=1\nCVMFS_S3_MAX_RETRIES=1\n");
    let (name, bytes) = samples().pop().unwrap();
    site.proxy.fail("PUT", "", 2, Fault::Hang);
    let error = put(&site.store, &name, &bytes).unwrap_err();
    assert!(
        error.to_string().contains("did not answer in time"),
        "{error}"
    );
    site.proxy.fail("PUT", "", 1, Fault::Hang);
    assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    site.proxy.fail("GET", "", 1, Fault::Hang);
    assert_eq!(get(&site.store, &name, 1 << 30).unwrap(), bytes);
}

/// Throttling is no failure: it does not count among the retries, and holds all threads back.
#[test]
fn an_overloaded_server_is_spared() {
    let site = Site::with("CVMFS_S3_MAX_RETRIES=0\n");
    let (name, bytes) = samples().pop().unwrap();
    site.proxy.fail("PUT", "", 4, Fault::SlowDown(0));
    assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    site.proxy.fail("HEAD", "", usize::MAX, Fault::SlowDown(0));
    let error = s3_error(site.store.has(&name).unwrap_err());
    assert!(matches!(error, S3Error::Busy { .. }), "{error}");
    assert!(
        error.to_string().contains("PARALLEL_CONNECTIONS"),
        "{error}"
    );
}

#[test]
fn a_body_that_breaks_off_goes_on_where_it_was() {
    let site = Site::new();
    let (name, bytes) = samples().pop().unwrap();
    put(&site.store, &name, &bytes).unwrap();
    site.proxy.take_seen();
    for cut in [0, 1, 1_000_000] {
        site.proxy.fail("GET", "data/", 2, Fault::CutAnswer(cut));
        assert_eq!(get(&site.store, &name, 1 << 30).unwrap(), bytes, "{cut}");
    }
    let ranges = site.proxy.take_seen();
    let ranges: Vec<_> = ranges
        .iter()
        .filter_map(|seen| seen.header("range"))
        .collect();
    assert!(ranges.contains(&"bytes=1000000-"), "{ranges:?}");
    // without end, it is an error of the reader
    site.proxy
        .fail("GET", "data/", usize::MAX, Fault::CutAnswer(0));
    let error = verify(&site.store, &name).unwrap_err();
    assert!(matches!(s3_error(error), S3Error::Unreachable { .. }));
    // a root file is read anew, never put together from two
    site.proxy.behave();
    site.store.write_root(".cvmfsreflog", &bytes).unwrap();
    site.proxy.take_seen();
    site.proxy.fail("GET", "reflog", 1, Fault::CutAnswer(1000));
    assert_eq!(site.store.read_root(".cvmfsreflog").unwrap(), bytes);
    assert!(
        site.proxy
            .take_seen()
            .iter()
            .all(|seen| seen.header("range").is_none())
    );
}

/// 200, and then it is not there.
#[test]
fn a_server_that_lies_is_caught() {
    let site = Site::with("CVMFS_S3_MAX_RETRIES=2\n");
    let (name, bytes) = samples().pop().unwrap();
    // once is forgiven: it is sent again
    site.proxy.fail("PUT", "data/", 1, Fault::Lie);
    assert_eq!(put(&site.store, &name, &bytes).unwrap(), Stored::New);
    assert_eq!(verify(&site.truth(), &name).unwrap(), bytes.len() as u64);
    // and from now on each is looked for
    let other = name_of(b"other");
    site.proxy.fail("PUT", "data/", usize::MAX, Fault::Lie);
    let error = s3_error(put(&site.store, &other, b"other").unwrap_err());
    assert!(matches!(error, S3Error::Untrue { .. }), "{error}");
    assert!(!site.store.has(&other).unwrap());
    // it is not taken for known either
    site.proxy.behave();
    assert_eq!(put(&site.store, &other, b"other").unwrap(), Stored::New);
}

#[test]
fn root_files_are_read_back() {
    let site = Site::with("CVMFS_S3_MAX_RETRIES=1\n");
    // lost: sent again
    site.proxy.fail("PUT", ".cvmfs", 1, Fault::Lie);
    site.store.write_root(".cvmfspublished", b"one").unwrap();
    assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"one");
    // of the same length, and still the old one
    site.proxy.fail("PUT", ".cvmfs", usize::MAX, Fault::Lie);
    let error = s3_error(
        site.store
            .write_root(".cvmfspublished", b"two")
            .unwrap_err(),
    );
    assert!(
        matches!(
            error,
            S3Error::Untrue {
                found: "other bytes are there",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(site.truth().read_root(".cvmfspublished").unwrap(), b"one");
    // too long to be read back: a look at its length
    let reflog = noise(1, 1_200_000);
    let error = s3_error(site.store.write_root(".cvmfsreflog", &reflog).unwrap_err());
    assert!(matches!(error, S3Error::Untrue { .. }), "{error}");
}

/// Most objects are taken on trust; once the server was caught, those are looked for too.
#[test]
fn what_was_taken_on_trust_is_looked_for_before_anything_refers_to_it() {
    let site = Site::with("CVMFS_S3_MAX_RETRIES=1\n");
    let many: Vec<_> = (0..SAMPLE).map(|n| noise(n + 1, 100)).collect();
    put(&site.store, &name_of(&many[0]), &many[0]).unwrap();
    site.store.sync().unwrap();
    // two are lost, and nobody notices
    site.proxy.take_seen();
    site.proxy.fail("PUT", "data/", 2, Fault::Lie);
    for bytes in &many[1..] {
        put(&site.store, &name_of(bytes), bytes).unwrap();
    }
    let heads = site.proxy.count("HEAD");
    assert_eq!(heads, many.len() - 1, "one look before each, none after");
    // this one is sampled, and caught
    site.proxy.fail("PUT", "data/", 1, Fault::Lie);
    put(&site.store, &name_of(b"sampled"), b"sampled").unwrap();
    let error = s3_error(site.store.sync().unwrap_err());
    let file = name_of(&many[1]).storage_path();
    assert!(error.to_string().contains(&file), "{error}");
    // the next attempt brings what is missing
    for bytes in &many {
        put(&site.store, &name_of(bytes), bytes).unwrap();
        assert!(site.truth().has(&name_of(bytes)).unwrap());
    }
    site.store.sync().unwrap();
}
