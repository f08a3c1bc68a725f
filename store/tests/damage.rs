//! What is damaged, missing or forged has a clear name, and spoils nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use formats::trust::{self, Certificate, PrivateKey, PublicKey, TrustError};
use formats::whitelist::{SignedWhitelist, Whitelist};
use formats::{Algorithm, Hash, ObjectKind, ObjectName, RepoPath, Role};
use store::faulty::{Fault, FaultyStore, Op, When};
use store::{CatalogFault, HeadError, Limits, ObjectFault, ObjectStore, RepoError, Repository};
use store::{DirStore, Durability, StoreError};

use crate::support::golden::{Golden, fqrn, keys, now, storage};
use crate::support::made::{self, Tree, catalog, dir, file, path, tree, with_role};
use crate::support::{chain, noise, shared};

fn open(tree: &Tree) -> (Arc<store::Revision>, tempfile::TempDir) {
    let (repository, cache) = made::repository(shared(tree.store.clone()), Limits::default());
    (repository.revision(&tree.root.hash).unwrap(), cache)
}

/// The fault of a catalog, and that the error names it and its path.
fn fault(error: &RepoError, object: &ObjectName, at: &str) -> CatalogFault {
    let text = chain(error);
    let RepoError::Catalog {
        object: found,
        path: begins,
        fault,
        ..
    } = error
    else {
        panic!("{text}");
    };
    assert_eq!((found, begins), (object, &path(at)), "{text}");
    assert!(
        text.contains(&object.to_string()) && text.contains("made.example.org"),
        "{text}"
    );
    CatalogFault::clone(fault)
}

/// Damages the nested catalog, and checks that only what is below it suffers.
fn damaged(stored: Option<&[u8]>) -> CatalogFault {
    let tree = tree();
    match stored {
        Some(bytes) => tree.store.overwrite(&tree.outer.object(), bytes),
        None => assert!(tree.store.delete(&tree.outer.object()).unwrap()),
    }
    let (revision, _cache) = open(&tree);
    let error = revision.list(&path("/n")).unwrap_err();
    let found = fault(&error, &tree.outer.object(), "/n");
    assert!(revision.lookup(&path("/n/m/h")).is_err());
    // its own row is the parent's, and the rest is elsewhere
    assert!(revision.lookup(&path("/n")).unwrap().is_some());
    assert_eq!(revision.list(&path("/a")).unwrap().len(), 1);
    assert_eq!(revision.list(&RepoPath::root()).unwrap().len(), 3);
    // once it is whole again it is found again
    let healthy = made::tree();
    let bytes = crate::support::read(&healthy.store, &healthy.outer.object());
    assert_eq!(healthy.outer.hash, tree.outer.hash);
    tree.store.overwrite(&tree.outer.object(), &bytes);
    assert_eq!(revision.list(&path("/n")).unwrap().len(), 2);
    found
}

fn outer_bytes() -> Vec<u8> {
    let tree = tree();
    crate::support::read(&tree.store, &tree.outer.object())
}

#[test]
fn a_missing_catalog() {
    let fault = damaged(None);
    assert!(
        matches!(fault, CatalogFault::Object(ObjectFault::Missing { .. })),
        "{fault}"
    );
}

#[test]
fn a_truncated_catalog() {
    let bytes = outer_bytes();
    for keep in [1, 2, bytes.len() / 2, bytes.len() - 1] {
        let fault = damaged(Some(&bytes[..keep]));
        let expected = keep as u64;
        assert!(
            matches!(fault, CatalogFault::Object(ObjectFault::Truncated { stored_bytes }) if stored_bytes == expected),
            "{fault}"
        );
    }
}

#[test]
fn an_empty_catalog_object() {
    let fault = damaged(Some(b""));
    assert!(
        matches!(
            fault,
            CatalogFault::Object(ObjectFault::Truncated { stored_bytes: 0 })
        ),
        "{fault}"
    );
}

#[test]
fn a_catalog_with_other_bytes() {
    let mut bytes = outer_bytes();
    for at in [0, 5, bytes.len() / 2, bytes.len() - 1] {
        bytes[at] ^= 0x10;
        let fault = damaged(Some(&bytes));
        bytes[at] ^= 0x10;
        assert!(
            matches!(fault, CatalogFault::Object(ObjectFault::Damaged { .. })),
            "{at}: {fault}"
        );
    }
    bytes.push(0);
    let fault = damaged(Some(&bytes));
    assert!(
        matches!(fault, CatalogFault::Object(ObjectFault::Damaged { .. })),
        "{fault}"
    );
}

/// A root catalog that refers to `/n` as given; what listing `/n` says.
fn referred(make: impl Fn(&store::MemoryStore) -> formats::NestedRef) -> RepoError {
    let store = store::MemoryStore::new();
    let reference = make(&store);
    let rows = [dir(""), with_role(dir("/n"), Role::Mountpoint), file("/f")];
    let root = catalog(&store, "", &rows, |w| w.put_nested(&reference).unwrap());
    let (repository, _cache) = made::repository(shared(store), Limits::default());
    let revision = repository.revision(&root.hash).unwrap();
    assert!(revision.lookup(&path("/f")).unwrap().is_some());
    revision.list(&path("/n")).unwrap_err()
}

#[test]
fn an_object_that_is_no_catalog() {
    for content in [&b""[..], b"hello", &noise(1, 5000)] {
        let error = referred(|store| {
            let object = made::store_zlib(store, content, ObjectKind::Catalog);
            formats::NestedRef {
                path: path("/n"),
                hash: object.hash,
                size: 0,
            }
        });
        let RepoError::Catalog { fault, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(**fault, CatalogFault::NotACatalog(_)),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn an_object_that_is_no_stream() {
    let error = referred(|store| {
        let bytes = b"not compressed at all";
        let hash = Hash::of(Algorithm::Sha1, bytes);
        let object = ObjectName::new(hash, ObjectKind::Catalog);
        store::put(store, &object, bytes).unwrap();
        formats::NestedRef {
            path: path("/n"),
            hash,
            size: 0,
        }
    });
    let RepoError::Catalog { fault, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(**fault, CatalogFault::Object(ObjectFault::NotAStream(_))),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_catalog_of_another_length() {
    for wrong in [1, 1024, 1 << 40] {
        let error = referred(|store| {
            let made = catalog(store, "/n", &[with_role(dir("/n"), Role::Root)], |_| {});
            formats::NestedRef {
                size: wrong,
                ..made.at("/n")
            }
        });
        let RepoError::Catalog { fault, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(**fault, CatalogFault::Object(ObjectFault::WrongSize { expected, .. }) if expected == wrong),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn a_catalog_that_belongs_elsewhere() {
    for prefix in ["", "/other", "/n/deeper"] {
        let error = referred(|store| catalog(store, prefix, &[dir(prefix)], |_| {}).at("/n"));
        let RepoError::Catalog { fault, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(&**fault, CatalogFault::WrongPlace { found } if *found == path(prefix)),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn a_nested_catalog_as_root() {
    let tree = tree();
    let (repository, _cache) = made::repository(shared(tree.store.clone()), Limits::default());
    let error = repository.revision(&tree.outer.hash).unwrap_err();
    let fault = fault(&error, &tree.outer.object(), "");
    assert!(matches!(fault, CatalogFault::WrongPlace { .. }), "{fault}");
}

#[test]
fn a_storage_that_fails() {
    let tree = tree();
    let faulty = FaultyStore::new(shared(tree.store.clone()));
    let (repository, _cache) = made::repository(shared(faulty.clone()), Limits::default());
    for (op, kind) in [(Op::Open, Fault::Fail), (Op::Read, Fault::Fail)] {
        faulty.fail(op, When::Always, kind);
        let error = repository.revision(&tree.root.hash).unwrap_err();
        let found = fault(&error, &tree.root.object(), "");
        assert!(
            matches!(
                found,
                CatalogFault::Object(ObjectFault::Store(StoreError::Injected(_)))
            ),
            "{}",
            chain(&error)
        );
        faulty.heal();
    }
    faulty.fail(Op::Open, When::Nth(1), Fault::Flip(100));
    assert!(repository.revision(&tree.root.hash).is_err());
    assert!(repository.revision(&tree.root.hash).is_ok());
}

/// A golden repository whose root files are changed, and what its head says.
fn head(change: impl FnOnce(&Path)) -> HeadError {
    head_at(now(), change)
}

fn head_at(now: SystemTime, change: impl FnOnce(&Path)) -> HeadError {
    let dir = storage("sha1", 2);
    change(dir.path());
    let store = shared(DirStore::open(dir.path(), Durability::Batch).unwrap());
    let golden = Golden::over("sha1", dir, store);
    let error = golden.repository.head(now).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("sha1.example.org"), "{text}");
    error
}

fn edit(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

#[test]
fn root_files_that_are_missing() {
    for name in [".cvmfspublished", ".cvmfswhitelist"] {
        let error = head(|dir| std::fs::remove_file(dir.join(name)).unwrap());
        assert!(
            matches!(&error, HeadError::Read { file, source, .. } if *file == name && source.is_not_found()),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn root_files_that_are_truncated() {
    let manifest =
        |n: usize| head(|dir| edit(&dir.join(".cvmfspublished"), |bytes| bytes.truncate(n)));
    for n in [0, 10, 200] {
        let error = manifest(n);
        assert!(
            matches!(error, HeadError::BadManifest { .. }),
            "{}",
            chain(&error)
        );
    }
    // only the signature is cut
    let whole = std::fs::read(crate::support::golden::folder("sha1").join("v2.cvmfspublished"));
    let error = manifest(whole.unwrap().len() - 1);
    assert!(
        matches!(
            error,
            HeadError::Signature { .. } | HeadError::BadManifest { .. }
        ),
        "{}",
        chain(&error)
    );
    for n in [0, 10, 60] {
        let error = head(|dir| edit(&dir.join(".cvmfswhitelist"), |bytes| bytes.truncate(n)));
        assert!(
            matches!(error, HeadError::BadWhitelist { .. }),
            "{}",
            chain(&error)
        );
    }
}

#[test]
fn a_manifest_that_was_changed() {
    let error = head(|dir| {
        edit(&dir.join(".cvmfspublished"), |bytes| {
            let at = find(bytes, b"\nS");
            bytes[at + 2] = b'9';
        });
    });
    assert!(
        matches!(error, HeadError::BadManifest { .. }),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_manifest_of_another_signature() {
    // the signature of v1 under the body of v2
    let error = head(|dir| {
        let v1 = std::fs::read(crate::support::golden::folder("sha1").join("v1.cvmfspublished"));
        let v1 = formats::manifest::SignedManifest::parse(&v1.unwrap()).unwrap();
        edit(&dir.join(".cvmfspublished"), |bytes| {
            let mut v2 = formats::manifest::SignedManifest::parse(bytes).unwrap();
            v2.signature = v1.signature;
            *bytes = v2.to_bytes().unwrap();
        });
    });
    assert!(
        matches!(
            &error,
            HeadError::Signature {
                source: TrustError::BadManifestSignature(_),
                ..
            }
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_whitelist_out_of_its_term() {
    let later = now() + Duration::from_secs(365 * 24 * 3600);
    let error = head_at(later, |_| {});
    assert!(error.is_expired(), "{}", chain(&error));
}

#[test]
fn a_repository_of_another_name() {
    let dir = storage("sha1", 2);
    let store = shared(DirStore::open(dir.path(), Durability::Batch).unwrap());
    let cache = tempfile::tempdir().unwrap();
    let other = Repository::new(
        "other.example.org",
        store,
        keys("sha1"),
        cache.path(),
        Limits::default(),
    );
    let error = other.unwrap().head(now()).unwrap_err();
    assert!(
        matches!(&error, HeadError::WrongName { found, .. } if *found == fqrn("sha1")),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_whitelist_that_nobody_known_signed() {
    let dir = storage("sha1", 2);
    let store = shared(DirStore::open(dir.path(), Durability::Batch).unwrap());
    let cache = tempfile::tempdir().unwrap();
    let others = keys("rmd160");
    let repository =
        Repository::new(fqrn("sha1"), store, others, cache.path(), Limits::default()).unwrap();
    let error = repository.head(now()).unwrap_err();
    assert!(
        matches!(
            &error,
            HeadError::Whitelist {
                source: TrustError::BadWhitelistSignature(1),
                ..
            }
        ),
        "{}",
        chain(&error)
    );
    // what it says can still be read, to make a new one
    assert_eq!(
        repository.unverified_head().unwrap().whitelist().name,
        fqrn("sha1")
    );
}

#[test]
fn certificates_that_are_of_no_use() {
    let certificate = || {
        let golden = Golden::open("sha1", 2);
        let head = golden.repository.head(now()).unwrap();
        ObjectName::new(
            head.manifest().certificate.unwrap(),
            ObjectKind::Certificate,
        )
    };
    let object = certificate();
    let place = |dir: &Path| dir.join(object.storage_path());
    let error = head(|dir| std::fs::remove_file(place(dir)).unwrap());
    assert!(
        matches!(&error, HeadError::Certificate { fault, .. } if matches!(**fault, ObjectFault::Missing { .. })),
        "{}",
        chain(&error)
    );
    let error = head(|dir| edit(&place(dir), |bytes| bytes[20] ^= 1));
    assert!(
        matches!(&error, HeadError::Certificate { fault, .. } if matches!(**fault, ObjectFault::Damaged { .. })),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).contains(&object.to_string()));
}

/// A golden repository that is ours by new keys.
struct Rekeyed {
    dir: tempfile::TempDir,
    cache: tempfile::TempDir,
    ring: trust::KeyRing,
    name: String,
}

impl Rekeyed {
    fn new() -> Self {
        let name = fqrn("sha1");
        let ring = trust::generate_keys(&name, now()).unwrap();
        let this = Self {
            dir: storage("sha1", 2),
            cache: tempfile::tempdir().unwrap(),
            ring,
            name,
        };
        this.sign_manifest(|_| {});
        this.sign_whitelist(&this.name, &this.ring.certificate);
        this
    }

    fn sign_manifest(&self, change: impl FnOnce(&mut formats::manifest::Manifest)) {
        let store = DirStore::create(self.dir.path(), Durability::Batch).unwrap();
        let object = made::store_zlib(&store, &self.ring.certificate, ObjectKind::Certificate);
        let old = store.read_root(".cvmfspublished").unwrap();
        let mut manifest = formats::manifest::SignedManifest::parse(&old)
            .unwrap()
            .manifest;
        manifest.certificate = Some(object.hash);
        change(&mut manifest);
        let key = PrivateKey::from_pem(&self.ring.key).unwrap();
        let signed = trust::sign_manifest(manifest, Algorithm::Sha1, &key).unwrap();
        store
            .write_root(".cvmfspublished", &signed.to_bytes().unwrap())
            .unwrap();
    }

    fn sign_whitelist(&self, name: &str, certificate: &[u8]) {
        let certificate = Certificate::from_pem(certificate).unwrap();
        let print = certificate.fingerprint(Algorithm::Sha1);
        let term = Duration::from_secs(30 * 24 * 3600);
        let list = Whitelist::new(name, vec![print], now(), term);
        let master = PrivateKey::from_pem(&self.ring.master_key).unwrap();
        let signed: SignedWhitelist =
            trust::sign_whitelist(list, Algorithm::Sha1, &master).unwrap();
        std::fs::write(self.dir.path().join(".cvmfswhitelist"), signed.to_bytes()).unwrap();
    }

    fn head(&self) -> Result<(Arc<Repository>, store::Head), HeadError> {
        let store = shared(DirStore::open(self.dir.path(), Durability::Batch).unwrap());
        let key = PublicKey::from_pem(&self.ring.public).unwrap();
        let limits = Limits::default();
        let cache = self.cache.path();
        let repository = Repository::new(&self.name, store, vec![key], cache, limits);
        let repository = Arc::new(repository.unwrap());
        let head = repository.head(now())?;
        Ok((repository, head))
    }
}

#[test]
fn a_repository_with_new_keys() {
    let ours = Rekeyed::new();
    let (repository, head) = ours.head().unwrap();
    repository.revision_of(&head).unwrap();
}

#[test]
fn a_certificate_that_is_not_listed() {
    let ours = Rekeyed::new();
    let stranger = trust::generate_keys(&ours.name, now()).unwrap();
    ours.sign_whitelist(&ours.name, &stranger.certificate);
    let error = ours.head().map(|_| ()).unwrap_err();
    assert!(
        matches!(
            &error,
            HeadError::NotListed {
                source: TrustError::NotListed(_),
                ..
            }
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_whitelist_of_another_repository() {
    let ours = Rekeyed::new();
    ours.sign_whitelist("other.example.org", &ours.ring.certificate);
    let error = ours.head().map(|_| ()).unwrap_err();
    assert!(
        matches!(
            &error,
            HeadError::Whitelist {
                source: TrustError::WrongRepository { .. },
                ..
            }
        ),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_manifest_that_promises_another_root() {
    let ours = Rekeyed::new();
    ours.sign_manifest(|manifest| manifest.catalog_bytes += 1024);
    let (repository, head) = ours.head().unwrap();
    let error = repository.revision_of(&head).unwrap_err();
    assert!(chain(&error).contains("bytes long"), "{}", chain(&error));
    ours.sign_manifest(|manifest| manifest.certificate = None);
    let error = ours.head().map(|_| ()).unwrap_err();
    assert!(
        matches!(error, HeadError::NoCertificate { .. }),
        "{}",
        chain(&error)
    );
}
