//! Published repositories that are not whole: whatever is truncated, corrupted, wrongly signed or
//! missing is named, and nothing else suffers.

use std::fs;
use std::path::{Path, PathBuf};

use formats::{Algorithm, Hash, ObjectKind, ObjectName};

use crate::support::golden::manifest_field;
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

const OTHER: &str = "other.example.org";

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Missing,
    Empty,
    Truncated,
    Corrupted,
}

const DAMAGES: [Damage; 4] = [
    Damage::Missing,
    Damage::Empty,
    Damage::Truncated,
    Damage::Corrupted,
];

/// A damaged file, whole again when dropped.
struct Damaged {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Damaged {
    fn new(path: PathBuf, damage: Damage) -> Self {
        let whole = fs::read(&path).unwrap();
        // an object is read-only, and may be linked into a stage
        fs::remove_file(&path).unwrap();
        let mut bytes = whole.clone();
        match damage {
            Damage::Missing => return Self { path, whole },
            Damage::Empty => bytes.clear(),
            Damage::Truncated => bytes.truncate(whole.len() / 2),
            // near the end: of a root file that is the signature
            Damage::Corrupted => *bytes.iter_mut().nth_back(2).unwrap() ^= 1,
        }
        fs::write(&path, bytes).unwrap();
        Self { path, whole }
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        fs::write(&self.path, &self.whole).unwrap();
    }
}

fn hash_in_manifest(sandbox: &Sandbox, key: u8) -> Hash {
    let manifest = fs::read(sandbox.storage().join(".cvmfspublished")).unwrap();
    let text = manifest_field(&manifest, key).unwrap();
    text.parse().unwrap()
}

fn object_of(bytes: &[u8]) -> ObjectName {
    let stored = formats::compress(formats::Compression::Zlib, bytes);
    ObjectName::new(Hash::of(Algorithm::Sha1, &stored), ObjectKind::Data)
}

/// Forgets what was read of the published tree, so that it is read again.
fn forget(sandbox: &Sandbox) {
    for dir in [
        sandbox.state().join("stage").join(REPO).join("cache"),
        sandbox.state().join("cache").join(REPO),
    ] {
        if dir.exists() {
            fs::remove_dir_all(dir).unwrap();
        }
    }
}

/// The repository that is whole is used as if nothing were wrong.
fn other_goes_on(sandbox: &Sandbox, what: &str) {
    write(
        &sandbox.mountpoint().join(OTHER).join(what),
        what.as_bytes(),
    );
    let committed = sandbox.json(["commit", OTHER]);
    assert_eq!(committed["published"], true, "{what}");
}

#[test]
fn root_files_and_the_certificate() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    sandbox.ok(["mkfs", OTHER]);
    let certificate = ObjectName::new(hash_in_manifest(&sandbox, b'X'), ObjectKind::Certificate);
    let parts = [
        (".cvmfspublished".to_owned(), ".cvmfspublished".to_owned()),
        (".cvmfswhitelist".to_owned(), ".cvmfswhitelist".to_owned()),
        (certificate.storage_path(), certificate.to_string()),
    ];
    for (file, name) in &parts {
        for damage in DAMAGES {
            let what = format!("{file} {damage:?}");
            let path = sandbox.storage().join(file);
            let damaged = Damaged::new(path, damage);
            for verb in ["check", "commit"] {
                let message = sandbox.fails(1, [verb, REPO]);
                assert!(message.contains(name), "{what}: {verb} says {message}");
            }
            let status = sandbox.json(["status", REPO]);
            let errors = status["repositories"][0]["errors"].to_string();
            assert!(errors.contains(name), "{what}: {status}");
            drop(damaged);
            sandbox.ok(["check", REPO]);
        }
        // never mounted before, it is left out, and comes when it is mended
        let _ = fs::remove_dir_all(sandbox.state().join("stage").join(REPO));
        let damaged = Damaged::new(sandbox.storage().join(file), Damage::Corrupted);
        sandbox.mount_for(OTHER, &[]);
        assert!(!sandbox.root().exists(), "{file}");
        assert!(sandbox.log().contains(name), "{file}");
        other_goes_on(&sandbox, name);
        drop(damaged);
        sandbox.ok(["status", REPO]);
        assert!(sandbox.root().is_dir());
        sandbox.unmount();
    }
}

#[test]
fn a_lost_whitelist_is_made_anew() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    fs::remove_file(sandbox.storage().join(".cvmfswhitelist")).unwrap();
    let message = sandbox.fails(1, ["commit", REPO]);
    assert!(message.contains("prepub resign"), "{message}");
    let output = sandbox.run(["resign", REPO]);
    assert!(output.status.success());
    let remark = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(remark.contains("no readable whitelist"), "{remark}");
    sandbox.check();
    sandbox.ok(["commit", REPO, "--allow-empty"]);
}

/// Reads a file that must fail with EIO.
fn cannot_be_read(path: &Path, what: &str) {
    let error = fs::read(path).unwrap_err();
    let eio = rustix::io::Errno::IO.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(eio), "{what}: {error}");
}

#[test]
fn objects_and_nested_catalogs() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.ok(["mkfs", OTHER]);
    let root = sandbox.root();
    write(&root.join("good"), b"good");
    write(&root.join("bad"), b"bad");
    write(&root.join("nested/.cvmfscatalog"), b"");
    write(&root.join("nested/file"), b"nested");
    sandbox.ok(["commit", REPO]);
    sandbox.unmount();
    let nested = nested_catalog(&sandbox);
    for (object, spoilt) in [(object_of(b"bad"), "bad"), (nested, "nested/file")] {
        for damage in DAMAGES {
            let what = format!("{spoilt} {damage:?}");
            forget(&sandbox);
            let path = sandbox.storage().join(object.storage_path());
            let damaged = Damaged::new(path, damage);
            sandbox.mount();
            let log_before = sandbox.log().len();
            cannot_be_read(&root.join(spoilt), &what);
            let log = sandbox.log()[log_before..].to_owned();
            assert!(log.contains(&object.to_string()), "{what}: {log}");
            assert_eq!(fs::read(root.join("good")).unwrap(), b"good", "{what}");
            let message = sandbox.fails(1, ["check", REPO, "--data"]);
            assert!(message.contains(&object.to_string()), "{what}: {message}");
            // publishing goes on beside it
            write(&root.join("more"), what.as_bytes());
            assert_eq!(sandbox.json(["commit", REPO])["published"], true, "{what}");
            other_goes_on(&sandbox, &what);
            drop(damaged);
            assert!(fs::read(root.join(spoilt)).is_ok(), "{what}: mended");
            sandbox.unmount();
        }
    }
    sandbox.check();
}

/// The catalog of `/nested`.
fn nested_catalog(sandbox: &Sandbox) -> ObjectName {
    let root = ObjectName::new(hash_in_manifest(sandbox, b'C'), ObjectKind::Catalog);
    let file = sandbox.dir.path().join("root.catalog");
    let stored = fs::read(sandbox.storage().join(root.storage_path())).unwrap();
    let mut bytes = Vec::new();
    let mut plain = formats::decompress(formats::Compression::Zlib, stored.as_slice());
    std::io::Read::read_to_end(&mut plain, &mut bytes).unwrap();
    fs::write(&file, bytes).unwrap();
    let catalog = formats::Catalog::open(&file).unwrap();
    let nested = catalog.nested().unwrap();
    ObjectName::new(nested[0].hash, ObjectKind::Catalog)
}

#[test]
fn the_root_catalog() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    sandbox.ok(["mkfs", OTHER]);
    write(&sandbox.root().join("file"), b"published");
    sandbox.ok(["commit", REPO]);
    write(&sandbox.root().join("staged"), b"staged");
    sandbox.unmount();
    let object = ObjectName::new(hash_in_manifest(&sandbox, b'C'), ObjectKind::Catalog);
    for damage in DAMAGES {
        forget(&sandbox);
        let path = sandbox.storage().join(object.storage_path());
        let damaged = Damaged::new(path, damage);
        for verb in ["check", "diff", "commit"] {
            let message = sandbox.fails(1, [verb, REPO]);
            assert!(
                message.contains(&object.to_string()),
                "{damage:?}: {verb} says {message}"
            );
        }
        sandbox.mount_for(OTHER, &[]);
        other_goes_on(&sandbox, &format!("{damage:?}"));
        drop(damaged);
        assert!(sandbox.ok(["diff", REPO]).contains("/staged"), "{damage:?}");
        assert_eq!(fs::read(sandbox.root().join("staged")).unwrap(), b"staged");
        sandbox.unmount();
    }
    sandbox.mount();
    sandbox.ok(["commit", REPO]);
    sandbox.check();
}
