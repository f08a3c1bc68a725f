//! What was published is there, in every attribute.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::fixture::{GOLDEN, Mounted, run};

/// Fields of the listing that the official client gave: type, mode, owner, group, size, mtime,
/// links, target or device, SHA-256, extended attributes.
fn listing() -> BTreeMap<Vec<u8>, Vec<String>> {
    let text = fs::read(format!("{GOLDEN}/v2.listing.tsv")).unwrap();
    let lines = text.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut fields = line.split(|b| *b == b'\t');
            let path = fields.next().unwrap().to_vec();
            (
                path,
                fields
                    .map(|f| String::from_utf8_lossy(f).into_owned())
                    .collect(),
            )
        })
        .collect()
}

fn walk(dir: &Path, inside: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = inside.join(entry.file_name());
        // what readdir says of the type is what stat says
        let meta = entry.path().symlink_metadata().unwrap();
        assert_eq!(
            entry.file_type().unwrap(),
            meta.file_type(),
            "{}",
            path.display()
        );
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), meta.ino());
        found.push(path.clone());
        if meta.is_dir() {
            walk(&entry.path(), &path, found);
        }
    }
}

#[test]
fn the_published_tree_is_as_the_official_client_shows_it() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let listing = listing();
    let mut found = Vec::new();
    walk(&mounted.repo, Path::new("/"), &mut found);
    assert!(found.len() > 150);
    let mut sums = Vec::new();
    for path in &found {
        let fields = listing.get(path.as_os_str().as_bytes());
        // names that are no UTF-8 are written in some escaped form there
        let Some(fields) = fields else {
            let odd = path.as_os_str().as_bytes().iter().any(|b| !b.is_ascii());
            assert!(
                odd || path.ends_with("new_repository"),
                "{}",
                path.display()
            );
            continue;
        };
        let full = mounted.repo.join(path.strip_prefix("/").unwrap());
        let meta = full.symlink_metadata().unwrap();
        let shown = path.display();
        assert_eq!(format!("{:o}", meta.mode() & 0o7777), fields[1], "{shown}");
        assert_eq!(meta.uid().to_string(), fields[2], "{shown}");
        assert_eq!(meta.gid().to_string(), fields[3], "{shown}");
        assert_eq!(meta.mtime().to_string(), fields[5], "{shown}");
        match fields[0].as_str() {
            "f" => {
                assert!(meta.is_file());
                assert_eq!(meta.size().to_string(), fields[4], "{shown}");
                let name = full.as_os_str().as_bytes();
                sums.extend([fields[8].as_bytes(), b"  ", name, b"\n"].concat());
            }
            "d" => assert!(meta.is_dir()),
            "l" if !path.ends_with("link_variant") => {
                let target = fs::read_link(&full).unwrap();
                assert_eq!(target.to_string_lossy(), fields[7], "{shown}");
            }
            _ => {}
        }
    }
    let list = tempfile::NamedTempFile::new().unwrap();
    fs::write(list.path(), sums).unwrap();
    run(
        "sha256sum",
        &[
            "--check".as_ref(),
            "--quiet".as_ref(),
            list.path().as_os_str(),
        ],
    );
    // a variant is shown as it is, not expanded
    let variant = fs::read_link(mounted.path("link_variant")).unwrap();
    assert_eq!(variant.as_os_str(), "$(REF_VAR:-hello.txt)");
}

#[test]
fn special_files_and_attributes_are_there() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let meta = |name| mounted.path(name).symlink_metadata().unwrap();
    assert!(meta("special/fifo").file_type().is_fifo());
    assert!(meta("special/sock").file_type().is_socket());
    let device = meta("special/blk");
    assert!(device.file_type().is_block_device());
    assert_eq!(device.rdev(), rustix::fs::makedev(8, 17));
    assert_eq!(meta("special/chr").rdev(), rustix::fs::makedev(1, 3));
    let mut buffer = [0; 64];
    let one = mounted.path("xattr/one");
    let n = rustix::fs::getxattr(&one, "user.second", &mut buffer[..]).unwrap();
    assert_eq!(&buffer[..n], b"value with spaces");
    let missing = rustix::fs::getxattr(&one, "user.none", &mut buffer[..]);
    assert_eq!(missing, Err(rustix::io::Errno::NODATA));
    let small = rustix::fs::getxattr(&one, "user.second", &mut buffer[..3]);
    assert_eq!(small, Err(rustix::io::Errno::RANGE));
    let n = rustix::fs::listxattr(&one, &mut buffer[..]).unwrap();
    let names: Vec<&[u8]> = buffer[..n]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .collect();
    assert_eq!(names, [&b"user.ref"[..], b"user.second"]);
    // devices cannot be opened: the mount is nodev
    let opened = fs::File::open(mounted.path("special/chr"));
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::EACCES));
}

#[test]
fn the_mount_point_lists_the_repositories() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let names: Vec<_> = fs::read_dir(&mounted.mountpoint)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, [crate::fixture::REPO]);
    let made = fs::create_dir(mounted.mountpoint.join("other"));
    assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert!(!mounted.mountpoint.join("missing.example.org").exists());
}
