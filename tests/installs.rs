//! What scripts/deps would install on a machine that has nothing, by family of distribution. Whether
//! the packages are enough, only such a machine can tell: this keeps the two lists together.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::workspace_root;

/// Where a machine has its programs that has no more than these.
fn machine(dir: &Path, fakes: &[(&str, &str)]) {
    for tool in ["bash", "env"] {
        let real = ["/usr/bin", "/bin"]
            .map(|bin| Path::new(bin).join(tool))
            .into_iter()
            .find(|path| path.exists());
        symlink(real.expect(tool), dir.join(tool)).unwrap();
    }
    // as root, who needs no sudo
    for (name, body) in fakes.iter().chain(&[("id", "echo 0")]) {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// What it says and does for `want` on such a machine.
fn deps(want: &str, fakes: &[(&str, &str)]) -> (bool, String) {
    let dir = tempfile::tempdir().unwrap();
    machine(dir.path(), fakes);
    let output = Command::new("/bin/bash")
        .arg(workspace_root().join("scripts/deps"))
        .arg(want)
        .env_clear()
        .env("PATH", dir.path())
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.success(), text.concat())
}

const CARGO: (&str, &str) = ("cargo", "exit 0");

#[test]
fn enterprise_linux_gets_its_own_packages() {
    let dnf = ("dnf", "echo dnf \"$@\"");
    let (ok, text) = deps("test", &[dnf, CARGO]);
    assert!(ok, "{text}");
    let call = text.lines().find(|line| line.starts_with("dnf install -y"));
    let call = call.unwrap_or_else(|| panic!("{text}"));
    for package in [
        "gcc",
        "pkgconf-pkg-config",
        "fuse3",
        "python3",
        "openssl-devel",
        "attr",
        "acl",
        "libcap",
        "rsync",
        "git",
        "make",
        "util-linux",
    ] {
        let named = call.split(' ').any(|word| word == package);
        assert!(named, "{package}: {call}");
    }
    assert!(
        !call.contains("-dev ") && !call.contains("python3-venv"),
        "{call}"
    );
    assert!(
        text.starts_with("deps: installing "),
        "it says so before: {text}"
    );
}

#[test]
fn debian_gets_its_own_packages() {
    let apt = ("apt-get", "echo apt-get \"$@\" >&2");
    let (ok, text) = deps("", &[apt, CARGO]);
    assert!(ok, "{text}");
    let call = text.lines().find(|line| line.contains("install -y"));
    let call = call.unwrap_or_else(|| panic!("{text}"));
    for package in ["gcc", "pkg-config", "fuse3", "python3", "libssl-dev"] {
        assert!(call.split(' ').any(|word| word == package), "{call}");
    }
    assert!(
        !call.contains("rsync"),
        "no more than was asked for: {call}"
    );
}

#[test]
fn what_cannot_be_installed_is_named() {
    let (ok, text) = deps("", &[CARGO]);
    assert!(!ok);
    assert!(text.contains("neither apt-get nor dnf"), "{text}");
    assert!(text.contains("fuse3"), "{text}");
    // everything is there, but for Rust
    let there = ["cc", "fusermount3", "python3", "pkg-config"].map(|name| (name, "exit 0"));
    let (ok, text) = deps("", &there);
    assert!(!ok);
    assert!(text.contains("https://rustup.rs"), "{text}");
}
