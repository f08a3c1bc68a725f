//! The official CVMFS tools as judges, where they are installed: `cvmfs_swissknife check` and
//! `scrub` on what we publish, `cvmfs2` mounting it. Elsewhere these tests say that they skip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, write};

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn url(sandbox: &Sandbox) -> String {
    sandbox.json(["status", REPO])["repositories"][0]["url"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// `cvmfs_swissknife check -c` with signature, and `scrub`.
#[track_caller]
pub fn judge(sandbox: &Sandbox) {
    let scratch = sandbox.dir.path().join("swissknife");
    fs::create_dir_all(&scratch).unwrap();
    let state = sandbox.state();
    run(Command::new("cvmfs_swissknife")
        .args([
            "check",
            "-c",
            "-l",
            "2",
            "-N",
            REPO,
            "-r",
            &url(sandbox),
            "-t",
        ])
        .arg(&scratch)
        .arg("-k")
        .arg(state.join(format!("keys/{REPO}.pub")))
        .arg("-R")
        .arg(state.join(format!("spool/{REPO}/reflog.chksum"))));
    run(Command::new("cvmfs_swissknife")
        .args(["scrub", "-r"])
        .arg(sandbox.storage().join("data")));
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

/// A source tree that the mount gets by `cp -a`.
fn make_source(dir: &Path) -> PathBuf {
    let source = dir.join("source");
    write(&source.join("a/b/c"), b"deep\n");
    write(&source.join("empty"), b"");
    write(&source.join("nested/.cvmfscatalog"), b"");
    write(&source.join("nested/x/y"), b"nested\n");
    write(&source.join("big"), &b"0123456789abcdef".repeat(2 << 20));
    std::os::unix::fs::symlink("a/b/c", source.join("link")).unwrap();
    for i in 0..300 {
        write(
            &source.join(format!("many/f{i}")),
            format!("{i}").as_bytes(),
        );
    }
    source
}

#[test]
fn swissknife_finds_every_revision_healthy() {
    if skip_unless(on_path("cvmfs_swissknife"), "cvmfs_swissknife on PATH") {
        return;
    }
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let source = make_source(sandbox.dir.path());
    judge(&sandbox);
    run(Command::new("cp")
        .arg("-a")
        .arg(&source)
        .arg(sandbox.root().join("v1")));
    sandbox.ok(["commit", REPO, "--tag", "v1"]);
    judge(&sandbox);
    fs::rename(sandbox.root().join("v1"), sandbox.root().join("v2")).unwrap();
    fs::remove_dir_all(sandbox.root().join("v2/many")).unwrap();
    write(&sandbox.root().join("v2/a/b/.cvmfscatalog"), b"");
    sandbox.ok(["commit", REPO, "--tag", "v2"]);
    judge(&sandbox);
    fs::remove_file(sandbox.root().join("v2/nested/.cvmfscatalog")).unwrap();
    sandbox.ok(["commit", REPO]);
    judge(&sandbox);
    sandbox.ok(["rollback", REPO, "--tag", "v1"]);
    judge(&sandbox);
    show_tags(&sandbox, true);
    for tag in ["v3", "v4"] {
        write(&sandbox.root().join(tag), tag.as_bytes());
        sandbox.ok(["commit", REPO, "--tag", tag]);
        judge(&sandbox);
    }
    show_tags(&sandbox, false);
    write(&sandbox.root().join("v5"), b"v5");
    sandbox.ok(["commit", REPO]);
    judge(&sandbox);
}

/// `CVMFS_VIRTUAL_DIR`, for the commits to come.
fn show_tags(sandbox: &Sandbox, on: bool) {
    let conf = sandbox
        .state()
        .join(format!("repositories/{REPO}/server.conf"));
    let mut text = fs::read_to_string(&conf).unwrap();
    text += &format!("CVMFS_VIRTUAL_DIR={on}\n");
    fs::write(&conf, text).unwrap();
}

#[test]
fn the_official_client_reads_what_was_written() {
    if skip_unless(on_path("cvmfs2"), "cvmfs2 on PATH")
        || skip_unless(can_mount() && is_root(), "root and /dev/fuse")
    {
        return;
    }
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    let source = make_source(sandbox.dir.path());
    run(Command::new("cp")
        .arg("-a")
        .arg(&source)
        .arg(sandbox.root().join("sw")));
    show_tags(&sandbox, true);
    sandbox.ok(["commit", REPO, "--tag", "v1"]);

    let dir = sandbox.dir.path().join("cvmfs2");
    let (cache, mountpoint, config) = (dir.join("cache"), dir.join("mnt"), dir.join("conf"));
    fs::create_dir_all(&cache).unwrap();
    fs::create_dir_all(&mountpoint).unwrap();
    let key = sandbox.state().join(format!("keys/{REPO}.pub"));
    let text = format!(
        "CVMFS_SERVER_URL={}\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY={}\nCVMFS_CACHE_BASE={}\n\
         CVMFS_RELOAD_SOCKETS={}\nCVMFS_SHARED_CACHE=no\nCVMFS_USE_GEOAPI=no\n\
         CVMFS_DEFAULT_DOMAIN=example.org\nCVMFS_USYSLOG={}\nCVMFS_CHECK_PERMISSIONS=no\n",
        url(&sandbox),
        key.display(),
        cache.display(),
        cache.display(),
        dir.join("log").display()
    );
    fs::write(&config, text).unwrap();
    // the client runs as its caller; it must read its way down to the cache
    run(Command::new("cvmfs2")
        .arg("-o")
        .arg(format!("config={}", config.display()))
        .arg(REPO)
        .arg(&mountpoint));
    // contents, modes, owners, links, times in seconds, extended attributes: nothing to transfer
    let differences = run(Command::new("rsync")
        .args(["-aXn", "--checksum", "--delete", "--itemize-changes"])
        .arg(format!("{}/", source.display()))
        .arg(format!("{}/", mountpoint.join("sw").display())));
    let snapshot = fs::read(mountpoint.join(".cvmfs/snapshots/v1/sw/a/b/c"));
    let unmounted = Command::new("umount").arg(&mountpoint).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(differences, "");
    assert_eq!(snapshot.unwrap(), b"deep\n");
    // and so it is for our own mount
    let ours = fs::read(sandbox.root().join(".cvmfs/snapshots/v1/sw/nested/x/y"));
    assert_eq!(ours.unwrap(), b"nested\n");
}
