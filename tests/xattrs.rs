//! Extended attributes, from the mount through a commit: what is published, what is dropped and
//! named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use serde_json::Value;

use crate::support::{REPO, Sandbox, is_root, write};

fn set(path: &Path, name: &str, length: usize) {
    setxattr(path, name, &vec![b'v'; length], XattrFlags::empty()).unwrap();
}

fn length(path: &Path, name: &str) -> Option<usize> {
    let mut value = [0; 8192];
    getxattr(path, name, &mut value[..]).ok()
}

/// Path and name of each attribute that is said to be dropped.
fn dropped(answer: &Value) -> BTreeSet<(String, String)> {
    let listed = answer["dropped_xattrs"].as_array().unwrap();
    let text = |x: &Value, field: &str| x[field].as_str().unwrap().to_owned();
    listed
        .iter()
        .map(|x| (text(x, "path"), text(x, "name")))
        .collect()
}

#[test]
fn what_is_too_long_is_named_before_and_after() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let root = sandbox.root();
    write(&root.join("sw/file"), b"content");
    write(&root.join("sw/other"), b"content");
    set(&root.join("sw/file"), "user.fits", 255);
    let mut long = BTreeSet::new();
    for (path, name, bytes) in [
        ("sw/file", "user.just too long", 256),
        ("sw/file", "user.long", 257),
        ("sw/other", "user.much", 5000),
        ("sw", "user.dir", 300),
    ] {
        set(&root.join(path), name, bytes);
        long.insert((format!("/{path}"), name.to_owned()));
    }
    if is_root() {
        set(&root.join("sw/other"), "security.selinux", 20);
        long.insert(("/sw/other".into(), "security.selinux".into()));
    }

    assert_eq!(dropped(&sandbox.json(["diff", REPO])), long);
    assert_eq!(dropped(&sandbox.json(["commit", REPO, "--dry-run"])), long);
    let text = sandbox.ok(["diff", REPO]);
    assert!(
        text.contains("extended attributes that are not published:"),
        "{text}"
    );
    for (path, name) in &long {
        assert!(
            text.contains(&format!("{path}: {name} (")),
            "{path} {name}: {text}"
        );
    }
    // what stays behind while something else is committed is still named
    write(&root.join("elsewhere"), b"x");
    let part = sandbox.json(["commit", &format!("{REPO}/elsewhere")]);
    assert_eq!(dropped(&part), BTreeSet::new());
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(dropped(&committed), long);
    sandbox.check();

    // a change of none but these is no change
    set(&root.join("sw/file"), "user.long", 400);
    let again = sandbox.json(["commit", REPO]);
    assert_eq!(again["published"], false, "{again}");

    // what is published, and that alone, is what another machine sees
    sandbox.unmount();
    fs::remove_dir_all(sandbox.state().join("stage")).unwrap();
    sandbox.mount();
    assert_eq!(length(&root.join("sw/file"), "user.fits"), Some(255));
    for (path, name) in &long {
        assert_eq!(length(&root.join(&path[1..]), name), None, "{path} {name}");
    }
}

#[test]
fn access_control_lists_are_published() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let acl = "system.posix_acl_access";
    let path = sandbox.root().join("file");
    write(&path, b"content");
    // version 2; owner rw-, user 4242 r--, group r--, mask r--, others ---
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in [
        (0x01_u16, 6_u16, u32::MAX),
        (0x02, 4, 4242),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(perm.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    setxattr(&path, acl, &list, XattrFlags::empty()).unwrap();
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(dropped(&committed), BTreeSet::new());
    sandbox.unmount();
    fs::remove_dir_all(sandbox.state().join("stage")).unwrap();
    sandbox.mount();
    let mut value = [0; 100];
    let length = getxattr(&path, acl, &mut value[..]).unwrap();
    assert_eq!(value[..length], list);
}
