//! Modes, owners, times and attributes.

use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use rustix::io::Errno;

use crate::fixture::Mounted;

fn set_mtime(path: &Path, secs: i64, nanos: i64) -> rustix::io::Result<()> {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::empty())
}

fn mtime(path: &Path) -> (i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.mtime(), meta.mtime_nsec())
}

#[test]
fn times_of_any_century_go_through() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("times");
    fs::write(&path, "x").unwrap();
    for (secs, nanos) in [
        (0, 0),
        (1, 1),
        (1_700_000_000, 123_456_789),
        (5_000_000_000, 999_999_999),
        // before 1970, with and without a fraction
        (-1, 0),
        (-1, 1),
        (-2, 800_000_000),
        (-86_400 * 365 * 100, 500_000_000),
    ] {
        set_mtime(&path, secs, nanos).unwrap();
        assert_eq!(mtime(&path), (secs, nanos));
        // and so does what comes back from the daemon, not from the kernel's cache
        fs::rename(&path, mounted.path("elsewhere")).unwrap();
        fs::rename(mounted.path("elsewhere"), &path).unwrap();
        fs::write(mounted.path("other"), "y").unwrap();
        assert_eq!(mtime(&path), (secs, nanos));
    }
    set_mtime(&path, -2, 800_000_000).unwrap();
    let mounted = mounted.again();
    assert_eq!(mtime(&mounted.path("times")), (-2, 800_000_000));
}

/// Any user may set such a time; the daemon must not mind.
#[test]
fn the_smallest_and_the_largest_time_do_no_harm() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("times");
    fs::write(&path, "x").unwrap();
    for secs in [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1] {
        for nanos in [0, 1, 999_999_999] {
            // the kernel may cut it to what it can say itself; no answer is wrong but silence
            let _ = set_mtime(&path, secs, nanos);
            assert_eq!(fs::read(&path).unwrap(), b"x");
        }
    }
    set_mtime(&path, 7, 7).unwrap();
    assert_eq!(mtime(&path), (7, 7));
}

#[test]
fn modes_owners_and_umask() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("mode");
    // in a process of its own: the umask is everybody's
    let made = Command::new("sh")
        .args(["-c", "umask 027; : > mode; mkdir dir; mkfifo fifo"])
        .current_dir(&mounted.repo)
        .status();
    assert!(made.unwrap().success());
    let mode = |name: &str| mounted.path(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("mode"), mode("dir"), mode("fifo")),
        (0o640, 0o750, 0o640)
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(mode("mode"), 0o4755);
    fs::set_permissions(mounted.path("dir"), fs::Permissions::from_mode(0o2775)).unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(mounted.path("dir"), Some(1234), Some(4321)).unwrap();
    fs::create_dir(mounted.path("dir/sub")).unwrap();
    let sub = fs::metadata(mounted.path("dir/sub")).unwrap();
    assert_eq!(
        (sub.gid(), sub.mode() & 0o2000),
        (4321, 0o2000),
        "set-group-ID is passed on"
    );
    std::os::unix::fs::chown(&path, Some(u32::MAX - 1), Some(4_000_000_000)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (u32::MAX - 1, 4_000_000_000));
    assert_eq!(
        meta.mode() & 0o7777,
        0o755,
        "a new owner loses the set-ID bits"
    );
}

/// Runs a shell command as somebody else, with no other groups and no privileges.
pub fn as_user(uid: u32, gid: u32, dir: &Path, command: &str) -> Option<bool> {
    let output = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={gid}")])
        .args(["--clear-groups", "sh", "-c", command])
        .current_dir(dir)
        .output();
    match output {
        Ok(output) => Some(output.status.success()),
        Err(error) => {
            eprintln!("skipped: setpriv: {error}");
            None
        }
    }
}

fn as_nobody(dir: &Path, command: &str) -> Option<bool> {
    as_user(65534, 65534, dir, command)
}

#[test]
fn permissions_are_checked() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let dir = mounted.repo.as_path();
    mounted.open_to_all();
    fs::write(mounted.path("secret"), "s").unwrap();
    fs::set_permissions(mounted.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(mounted.path("open")).unwrap();
    fs::set_permissions(mounted.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    let Some(read) = as_nobody(dir, "cat hello.txt") else {
        return;
    };
    assert!(read);
    assert_eq!(as_nobody(dir, "cat secret"), Some(false));
    assert_eq!(as_nobody(dir, ": > new"), Some(false));
    assert_eq!(
        as_nobody(dir, "echo mine > open/mine && chmod 600 open/mine"),
        Some(true)
    );
    let mine = fs::metadata(mounted.path("open/mine")).unwrap();
    assert_eq!((mine.uid(), mine.mode() & 0o7777), (65534, 0o600));
    fs::write(mounted.path("open/yours"), "y").unwrap();
    assert_eq!(
        as_nobody(dir, "rm -f open/yours"),
        Some(false),
        "the directory is sticky"
    );
    // another user's write takes the set-ID bits, whoever strips them
    fs::write(mounted.path("open/tool"), "t").unwrap();
    fs::set_permissions(
        mounted.path("open/tool"),
        fs::Permissions::from_mode(0o6777),
    )
    .unwrap();
    assert_eq!(as_nobody(dir, "echo evil >> open/tool"), Some(true));
    assert_eq!(
        fs::metadata(mounted.path("open/tool")).unwrap().mode() & 0o7777,
        0o777
    );
}

#[test]
fn extended_attributes() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    use rustix::fs::XattrFlags;
    let path = mounted.path("hello.txt");
    let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
    let get = |name: &str| {
        let mut buffer = vec![0; 70_000];
        rustix::fs::getxattr(&path, name, &mut buffer[..]).map(|n| buffer[..n].to_vec())
    };
    set("user.a", b"1", XattrFlags::empty()).unwrap();
    assert_eq!(set("user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(set("user.b", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
    set("user.a", b"", XattrFlags::REPLACE).unwrap();
    assert_eq!(get("user.a"), Ok(Vec::new()));
    let long = vec![b'l'; 4000];
    set("user.long", &long, XattrFlags::empty()).unwrap();
    assert_eq!(get("user.long"), Ok(long));
    rustix::fs::removexattr(&path, "user.a").unwrap();
    assert_eq!(get("user.a"), Err(Errno::NODATA));
    let (name, file) = (
        c"user.long",
        std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap(),
    );
    // SAFETY: two strings that outlive the call, and no buffer: only the size is asked for
    let size = unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    assert_eq!(size, 4000);
}

#[test]
fn creating_keeps_what_open_asked_for() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("read only");
    // writable through this descriptor although the mode forbids it
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&path)
        .unwrap();
    std::io::Write::write_all(&mut made, b"text").unwrap();
    drop(made);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);
    assert_eq!(fs::read(&path).unwrap(), b"text");
    let stat = rustix::fs::statvfs(&mounted.repo).unwrap();
    assert!(stat.f_blocks > 0 && stat.f_bavail <= stat.f_blocks && stat.f_namemax == 255);
    fs::File::open(&path).unwrap().sync_all().unwrap();
    fs::File::open(&mounted.repo).unwrap().sync_all().unwrap();
}
