//! Mounting, unmounting, and what dead daemons leave.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fsimpl::Fs;
use fsimpl::session::{self, MountError, MountOptions};

use crate::fixture::{Mounted, REPO, fuse_works, mount_stage, open_stage};

/// Tells a child process of a test where to work.
const CHILD_DIR: &str = "PREPUB_TEST_CHILD_DIR";

#[test]
fn a_mount_point_in_use_is_refused() {
    let Some(mut mounted) = Mounted::new() else {
        return;
    };
    assert!(session::is_mounted(&mounted.mountpoint));
    let another = || {
        let fs = Fs::new(fsimpl::Time::default, (0, 0));
        session::mount(fs.into(), &mounted.mountpoint, &MountOptions::default())
    };
    assert!(matches!(another(), Err(MountError::AlreadyMounted(_))));
    let open = File::create(mounted.path("open")).unwrap();
    assert!(matches!(
        mounted.session().unmount(),
        Err(MountError::Busy(_))
    ));
    drop(open);
    // a release may be on its way still
    let since = Instant::now();
    while let Err(error) = mounted.session().unmount() {
        assert!(since.elapsed() < Duration::from_secs(10), "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!session::is_mounted(&mounted.mountpoint));
    let since = Instant::now();
    while !mounted.session().is_finished() {
        assert!(since.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    // a mount made there meanwhile must not be taken off by the end of the first
    let second = mount_stage(
        open_stage(&mounted.mountpoint.join("../second")),
        &mounted.mountpoint,
    );
    drop(mounted.session.take().map(session::Session::wait));
    assert!(session::is_mounted(&mounted.mountpoint));
    second.unmount().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_detached_mount_serves_who_has_it_open() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    fs::write(mounted.path("kept"), "kept").unwrap();
    let open = File::open(mounted.path("kept")).unwrap();
    mounted.session().detach().unwrap();
    assert!(!mounted.repo.exists());
    assert_eq!(std::io::read_to_string(&open).unwrap(), "kept");
    assert!(!mounted.session().is_finished());
    drop(open);
    let since = Instant::now();
    while !mounted.session().is_finished() {
        assert!(since.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a test of this program in a process of its own.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(CHILD_DIR, dir);
    command
}

fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// A daemon that dies without a word. Part of the test below.
#[test]
#[ignore = "part of another test"]
fn child_that_dies() {
    let Some(dir) = child_dir() else { return };
    let session = mount_stage(open_stage(&dir), &dir.join("mnt"));
    fs::write(dir.join("mnt").join(REPO).join("survivor"), "written").unwrap();
    drop(File::create(dir.join("mounted")));
    std::thread::sleep(Duration::from_secs(60));
    drop(session);
}

#[test]
fn the_mount_of_a_dead_daemon_is_recovered() {
    if !fuse_works() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mountpoint = dir.path().join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let mut daemon = child("sessions::child_that_dies", dir.path());
    let mut daemon = daemon.stdout(Stdio::null()).spawn().unwrap();
    let since = Instant::now();
    while !dir.path().join("mounted").exists() {
        assert!(since.elapsed() < Duration::from_secs(60) && daemon.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(session::is_mounted(&mountpoint) && !session::is_stale(&mountpoint));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(session::is_stale(&mountpoint) && !session::is_mounted(&mountpoint));
    let session = mount_stage(open_stage(dir.path()), &mountpoint);
    assert_eq!(
        fs::read(mountpoint.join(REPO).join("survivor")).unwrap(),
        b"written"
    );
    session.unmount().unwrap();
    session.wait().unwrap();
}

/// Mounts as whoever runs it. Part of the test below.
#[test]
#[ignore = "part of another test"]
fn child_without_privileges() {
    let Some(dir) = child_dir() else { return };
    assert!(!rustix::process::geteuid().is_root());
    let mountpoint = dir.join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let session = mount_stage(open_stage(&dir), &mountpoint);
    let file = mountpoint.join(REPO).join("mine");
    fs::write(&file, "mine").unwrap_err();
    // published owners are kept: only what is open to all can be written
    assert_eq!(
        fs::read(mountpoint.join(REPO).join("nonl.txt")).unwrap(),
        b"no newline at end"
    );
    fs::write(mountpoint.join(REPO).join("modes/stickydir/mine"), "mine").unwrap();
    session.unmount().unwrap();
    session.wait().unwrap();
    assert!(!session::is_mounted(&mountpoint));
    fs::write(dir.join("done"), "").unwrap();
}

#[test]
fn ordinary_users_mount_through_the_helper() {
    let tools = ["unshare", "setpriv", "fusermount3"];
    let lacks = |tool: &&&str| Command::new(tool).arg("--version").output().is_err();
    if !fuse_works() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to set up a device that everybody may use");
        return;
    }
    if let Some(tool) = tools.iter().find(lacks) {
        eprintln!("skipped: {tool} is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    // the program itself may lie where nobody else can read
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    // in a mount namespace of its own, with a device that everybody may open
    let script = "mknod device c 10 229 && chmod 666 device && mount --bind device /dev/fuse && \
        exec setpriv --reuid=65534 --regid=65534 --clear-groups ./program --exact \
        sessions::child_without_privileges --nocapture --include-ignored";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(dir.path())
        .env(CHILD_DIR, &home)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("unshare") {
        eprintln!("skipped: no mount namespaces here: {said}");
        return;
    }
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(home.join("done").exists());
}
