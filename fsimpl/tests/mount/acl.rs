//! POSIX access control lists through `setfacl` and `getfacl` (package acl), and what they permit.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::fixture::{Mounted, run};
use crate::metadata::as_user;

/// Somebody who owns nothing here.
const SOMEBODY: u32 = 4242;
const GROUP: u32 = 4343;

/// A mount, where there are the tools; said otherwise.
fn mounted() -> Option<Mounted> {
    if Command::new("setfacl").arg("--version").output().is_err() {
        eprintln!("skipped: setfacl is not installed (package acl)");
        return None;
    }
    Mounted::new()
}

fn setfacl(words: &str, path: &Path) {
    let mut arguments: Vec<&std::ffi::OsStr> = words.split(' ').map(AsRef::as_ref).collect();
    arguments.push(path.as_os_str());
    run("setfacl", &arguments);
}

/// The entries, by number, without the remarks on what the mask leaves of them.
fn getfacl(path: &Path) -> Vec<String> {
    let flags = [
        "--omit-header",
        "--numeric",
        "--no-effective",
        "--absolute-names",
    ];
    let mut arguments: Vec<&std::ffi::OsStr> = flags.map(AsRef::as_ref).to_vec();
    arguments.push(path.as_os_str());
    let said = run("getfacl", &arguments);
    said.lines()
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

#[test]
fn lists_and_modes_follow_each_other() {
    let Some(mounted) = mounted() else {
        return;
    };
    let path = mounted.path("file");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(getfacl(&path), ["user::rw-", "group::r--", "other::---"]);

    setfacl("-m u:4242:rwx,g:4343:r", &path);
    let list = [
        "user::rw-",
        "user:4242:rwx",
        "group::r--",
        "group:4343:r--",
        "mask::rwx",
        "other::---",
    ];
    assert_eq!(getfacl(&path), list);
    assert_eq!(mode(&path), 0o670, "the group's bits are the mask");

    // chmod moves the mask, and leaves the entries alone
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let masked = list.map(|e| match e {
        "mask::rwx" => "mask::r--",
        "other::---" => "other::r--",
        e => e,
    });
    assert_eq!(getfacl(&path), masked);

    setfacl("-m m::rw", &path);
    assert_eq!(mode(&path), 0o664);
    setfacl("-x u:4242", &path);
    assert!(!getfacl(&path).contains(&"user:4242:rwx".to_owned()));
    setfacl("-b", &path);
    assert_eq!(getfacl(&path).len(), 3);
    let mut names = [0; 1000];
    let listed = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    assert_eq!(listed, 0, "a mode says it all");
}

#[test]
fn new_entries_inherit_the_default_list() {
    let Some(mounted) = mounted() else {
        return;
    };
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    setfacl("-d -m u::rwx,g::rx,o::-,u:4242:rwx", &dir);
    assert_eq!(
        mode(&dir),
        0o755,
        "it does not say who may use the directory itself"
    );

    // with a default list there is no umask
    let made = Command::new("sh")
        .args([
            "-c",
            "umask 077; : > file; mkdir sub; mkfifo fifo; ln -s file link",
        ])
        .current_dir(&dir)
        .status();
    assert!(made.unwrap().success());
    let inherited = [
        "user::rw-",
        "user:4242:rwx",
        "group::r-x",
        "mask::rw-",
        "other::---",
    ];
    assert_eq!(getfacl(&dir.join("file")), inherited);
    assert_eq!(getfacl(&dir.join("fifo")), inherited);
    assert_eq!(mode(&dir.join("file")), 0o660);
    let sub = getfacl(&dir.join("sub"));
    assert_eq!(
        sub[..5],
        [
            "user::rwx",
            "user:4242:rwx",
            "group::r-x",
            "mask::rwx",
            "other::---"
        ]
    );
    assert_eq!(sub[5..], getfacl(&dir)[3..], "and hands it on");
    assert_eq!(sub.iter().filter(|e| e.starts_with("default:")).count(), 5);
    let deeper = dir.join("sub/deeper");
    fs::create_dir(&deeper).unwrap();
    assert_eq!(getfacl(&deeper), sub);

    // neither a move nor a link asks the directory again
    fs::write(mounted.path("plain"), "x").unwrap();
    fs::set_permissions(mounted.path("plain"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(mounted.path("plain"), dir.join("plain")).unwrap();
    assert_eq!(getfacl(&dir.join("plain")).len(), 3);

    setfacl("-k", &dir);
    assert_eq!(getfacl(&dir).len(), 3);
    assert_eq!(getfacl(&deeper), sub, "what was inherited stays");
    let refused = Command::new("setfacl")
        .args(["-d", "-m", "u:4242:r"])
        .arg(dir.join("file"))
        .output()
        .unwrap();
    assert!(!refused.status.success(), "only a directory has one");
}

#[test]
fn the_kernel_checks_them() {
    let Some(mounted) = mounted() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    mounted.open_to_all();
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join("file"), "content").unwrap();
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let may = |command: &str| as_user(SOMEBODY, GROUP, &mounted.repo, command);
    let Some(reads) = may("cat dir/file") else {
        return;
    };
    assert!(!reads);

    setfacl("-m u:4242:x", &dir);
    assert_eq!(
        may("cat dir/file"),
        Some(false),
        "the way is free, the file is not"
    );
    setfacl("-m g:4343:rw", &dir.join("file"));
    assert_eq!(may("cat dir/file"), Some(true));
    assert_eq!(may("echo more >> dir/file"), Some(true));
    assert_eq!(may("ls dir"), Some(false), "to pass is not to list");
    assert_eq!(may(": > dir/new"), Some(false));

    // the mask bounds named entries
    fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(may("cat dir/file"), Some(true));
    assert_eq!(may("echo more >> dir/file"), Some(false));
    // an entry of one's own comes before the group's
    setfacl("-m u:4242:-", &dir.join("file"));
    assert_eq!(may("cat dir/file"), Some(false));

    setfacl("-m u:4242:rwx -d -m u:4242:rwx,g::-,o::-", &dir);
    assert_eq!(
        may("mkdir dir/own && echo x > dir/own/file && rm dir/file"),
        Some(true)
    );
    let made = fs::metadata(dir.join("own/file")).unwrap();
    assert_eq!((made.uid(), made.gid()), (SOMEBODY, GROUP));
    // only the owner sets lists
    fs::write(mounted.path("roots"), "r").unwrap();
    assert_eq!(may("setfacl -m u:4242:rw roots"), Some(false));
    assert_eq!(may("setfacl -m u:1:r dir/own/file"), Some(true));
}

#[test]
fn a_remount_keeps_them() {
    let Some(mounted) = mounted() else {
        return;
    };
    let published = mounted.path("hello.txt");
    let dir = mounted.path("dir");
    fs::create_dir(&dir).unwrap();
    setfacl("-m u:4242:rw,m::r", &published);
    setfacl("-d -m g:4343:rwx", &dir);
    let (file_list, dir_list) = (getfacl(&published), getfacl(&dir));
    assert!(
        file_list.len() == 5 && dir_list.len() > 5,
        "{file_list:?} {dir_list:?}"
    );
    let mounted = mounted.again();
    assert_eq!(getfacl(&mounted.path("hello.txt")), file_list);
    assert_eq!(getfacl(&mounted.path("dir")), dir_list);
}
