//! Files and names, as programs use them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{CWD, FallocateFlags, RenameFlags};
use rustix::io::Errno;

use crate::fixture::{Mounted, errno, run};

#[test]
fn files_are_written_and_read() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("new.txt");
    fs::write(&path, "one two three").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two three");
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b" four")
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two three four");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"TWO", 4).unwrap();
    file.write_all_at(b"far", 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_003);
    file.set_len(7).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one TWO");
    file.set_len(10).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one TWO\0\0\0");
    File::create(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(
        errno(OpenOptions::new().create_new(true).write(true).open(&path)),
        libc::EEXIST
    );
}

#[test]
fn a_published_file_is_changed_in_place() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    // several chunks; only the middle is rewritten
    let path = mounted.path("chunked.bin");
    let mut expected = fs::read(&path).unwrap();
    assert_eq!(expected.len(), 1_536_000);
    let inode = fs::metadata(&path).unwrap().ino();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"changed", 700_000).unwrap();
    expected[700_000..700_007].copy_from_slice(b"changed");
    assert!(fs::read(&path).unwrap() == expected);
    let mut read = Vec::new();
    (&file).read_to_end(&mut read).unwrap();
    assert!(read == expected);
    drop(file);
    assert_eq!(
        fs::metadata(&path).unwrap().ino(),
        inode,
        "copying up keeps the inode"
    );
    // truncation keeps what is before it
    let file = OpenOptions::new()
        .write(true)
        .open(mounted.path("numbers.txt"))
        .unwrap();
    let head = fs::read(mounted.path("numbers.txt")).unwrap()[..5000].to_vec();
    file.set_len(5000).unwrap();
    assert!(fs::read(mounted.path("numbers.txt")).unwrap() == head);
    drop(file);
    // and all of it survives the next mount
    let mounted = mounted.again();
    assert!(fs::read(mounted.path("chunked.bin")).unwrap() == expected);
    assert!(fs::read(mounted.path("numbers.txt")).unwrap() == head);
}

#[test]
fn large_files_go_through_whole() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let mut content = vec![0_u8; 9 << 20];
    for (n, bytes) in content.chunks_exact_mut(8).enumerate() {
        bytes.copy_from_slice(&(n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let path = mounted.path("large");
    fs::write(&path, &content).unwrap();
    assert!(fs::read(&path).unwrap() == content);
    let copy = mounted.path("copy");
    assert_eq!(fs::copy(&path, &copy).unwrap(), content.len() as u64);
    assert!(fs::read(&copy).unwrap() == content);
    let published = mounted.path("published copy");
    fs::copy(mounted.path("chunked.bin"), &published).unwrap();
    assert!(fs::read(&published).unwrap() == fs::read(mounted.path("chunked.bin")).unwrap());
}

#[test]
fn names_are_made_moved_and_removed() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = |name: &str| mounted.path(name);
    fs::create_dir(path("dir")).unwrap();
    fs::write(path("dir/a"), "a").unwrap();
    fs::hard_link(path("dir/a"), path("dir/b")).unwrap();
    assert_eq!(fs::metadata(path("dir/a")).unwrap().nlink(), 2);
    assert_eq!(
        fs::metadata(path("dir/a")).unwrap().ino(),
        fs::metadata(path("dir/b")).unwrap().ino()
    );
    fs::write(path("dir/b"), "through the other name").unwrap();
    assert_eq!(fs::read(path("dir/a")).unwrap(), b"through the other name");
    fs::remove_file(path("dir/a")).unwrap();
    assert_eq!(fs::metadata(path("dir/b")).unwrap().nlink(), 1);
    assert_eq!(errno(fs::remove_dir(path("dir"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::create_dir(path("dir"))), libc::EEXIST);
    std::os::unix::fs::symlink("dir/b", path("link")).unwrap();
    assert_eq!(fs::read(path("link")).unwrap(), b"through the other name");
    // a published directory moves with all that is in it
    fs::rename(path("software"), path("dir/moved")).unwrap();
    assert_eq!(fs::read(path("dir/moved/app/app.txt")).unwrap(), b"app\n");
    assert!(!path("software").exists());
    assert_eq!(
        errno(fs::rename(path("dir"), path("dir/moved/app/inside"))),
        libc::EINVAL
    );
    fs::remove_dir_all(path("dir")).unwrap();
    assert_eq!(errno(fs::metadata(path("dir"))), libc::ENOENT);
    assert_eq!(errno(fs::read(path("link"))), libc::ENOENT);
    let long = "n".repeat(255);
    fs::write(path(&long), "").unwrap();
    assert_eq!(
        errno(File::create(path(&format!("{long}n")))),
        libc::ENAMETOOLONG
    );
}

#[test]
fn renames_know_their_flags() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let (a, b) = (mounted.path("hello.txt"), mounted.path("nonl.txt"));
    let (in_a, in_b) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
    let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(&a).unwrap(), fs::read(&b).unwrap()),
        (in_b.clone(), in_a)
    );
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(&b).unwrap(), in_b);
    assert!(!a.exists());
    fs::write(&a, "again").unwrap();
    assert_eq!(rename(RenameFlags::WHITEOUT), Err(Errno::INVAL));
}

#[test]
fn open_files_outlive_their_names() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("going");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(b", and more").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here, and more");
    // a published one, replaced while it is read
    let old = File::open(mounted.path("hello.txt")).unwrap();
    fs::write(mounted.path("other"), "new").unwrap();
    fs::rename(mounted.path("other"), mounted.path("hello.txt")).unwrap();
    assert_eq!(fs::read(mounted.path("hello.txt")).unwrap(), b"new");
    let mut text = String::new();
    (&old).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello cvmfs, second revision\n");
}

#[test]
fn ranges_are_reserved_punched_and_copied() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("ranges");
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 256 << 10, 512 << 10).unwrap();
    let content = fs::read(&path).unwrap();
    assert!(content[256 << 10..768 << 10].iter().all(|b| *b == 0));
    assert!(content[768 << 10..].iter().all(|b| *b == 7));
    let seek = |from| rustix::fs::seek(&file, from);
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(0)), Ok(256 << 10));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(256 << 10)), Ok(768 << 10));
    assert_eq!(seek(rustix::fs::SeekFrom::Data(2 << 20)), Err(Errno::NXIO));
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    let inserted = rustix::fs::fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4096);
    assert_eq!(inserted, Err(Errno::OPNOTSUPP));

    let to = File::create(mounted.path("copied")).unwrap();
    let published = File::open(mounted.path("chunked.bin")).unwrap();
    let mut done = 0;
    while done < 1_536_000 {
        done += rustix::fs::copy_file_range(&published, None, &to, None, 1_536_000 - done).unwrap();
    }
    drop(to);
    let copied = fs::read(mounted.path("copied")).unwrap();
    assert!(copied == fs::read(mounted.path("chunked.bin")).unwrap());
}

/// Names the file to the process that maps it.
const MAPPED: &str = "PREPUB_TEST_MAPPED";

#[test]
fn stores_through_a_mapping_arrive() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("mapped");
    fs::write(&path, vec![b'.'; 3 * 4096]).unwrap();
    // in a process of its own: while munmap writes back, this one, which also serves the mount, can
    // neither get memory nor start a thread
    let mapper = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "operations::maps_and_stores"])
        .env(MAPPED, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&mapper.stdout);
    assert!(
        mapper.status.success() && said.contains("1 passed"),
        "{said}"
    );
    // through the daemon, and from its files after a restart
    assert_eq!(&fs::read(&path).unwrap()[8199..8206], b".STORE.");
    assert!(
        mounted
            .stage
            .wait_sealed(std::time::Duration::from_secs(30), &())
    );
    let mounted = mounted.again();
    let content = fs::read(mounted.path("mapped")).unwrap();
    assert_eq!(&content[4099..4106], b".store.");
    assert_eq!(&content[8199..8206], b".STORE.");
}

#[test]
#[ignore = "the other process of stores_through_a_mapping_arrive"]
fn maps_and_stores() {
    let Some(path) = std::env::var_os(MAPPED) else {
        return;
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (length, access) = (3 * 4096, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: a fresh mapping of an open file, at an address that the kernel chooses
    let mapping = unsafe {
        use std::os::fd::AsRawFd;
        libc::mmap(
            std::ptr::null_mut(),
            length,
            access,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(mapping, libc::MAP_FAILED);
    // the file is closed before the store: the mapping alone keeps it open for writing
    drop(file);
    // SAFETY: 4100..4105 lies within the three pages mapped above, and nobody else uses them
    unsafe {
        std::ptr::copy_nonoverlapping(b"store".as_ptr(), mapping.cast::<u8>().add(4100), 5);
        assert_eq!(libc::msync(mapping, length, libc::MS_SYNC), 0);
    }
    assert_eq!(&fs::read(&path).unwrap()[4099..4106], b".store.");
    // SAFETY: as above; afterwards the mapping is gone and not used again
    unsafe {
        std::ptr::copy_nonoverlapping(b"STORE".as_ptr(), mapping.cast::<u8>().add(8200), 5);
        assert_eq!(libc::munmap(mapping, length), 0);
    }
}

#[test]
fn locks_are_kept() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("locked");
    let (one, two) = (File::create(&path).unwrap(), File::open(&path).unwrap());
    one.lock().unwrap();
    assert!(two.try_lock().is_err());
    one.unlock().unwrap();
    two.try_lock_shared().unwrap();
}

#[test]
fn what_is_not_offered_fails_at_once() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    use rustix::fs::{Mode, OFlags};
    let temporary = rustix::fs::open(&mounted.repo, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR);
    assert_eq!(temporary.unwrap_err(), Errno::OPNOTSUPP);
    let elsewhere = mounted.mountpoint.join("..").join("elsewhere");
    assert_eq!(
        errno(fs::rename(mounted.path("hello.txt"), &elsewhere)),
        libc::EXDEV
    );
    assert_eq!(
        errno(fs::hard_link(mounted.path("hello.txt"), &elsewhere)),
        libc::EXDEV
    );
    let out = mounted.path("hello.txt");
    assert_eq!(
        errno(fs::rename(&out, mounted.mountpoint.join("hello.txt"))),
        libc::EXDEV
    );
}

#[test]
fn whole_trees_are_copied_with_their_attributes() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let source = tempfile::tempdir().unwrap();
    for n in 0..20 {
        let dir = source.path().join(format!("d{}/e{n}", n % 4));
        fs::create_dir_all(&dir).unwrap();
        for m in 0..10 {
            let file = dir.join(format!("f{m}"));
            fs::write(&file, format!("{n} {m} ").repeat(n * m * 40)).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o600 | (m as u32) << 3);
            rustix::fs::chmod(&file, mode).unwrap();
        }
        std::os::unix::fs::symlink(format!("f{n}"), dir.join("link")).unwrap();
        fs::hard_link(dir.join("f1"), dir.join("other")).unwrap();
    }
    let target = mounted.path("tree");
    let arguments = ["-a".as_ref(), source.path().as_os_str(), target.as_os_str()];
    run("cp", &arguments);
    let options = ["-r", "--no-dereference"].map(std::ffi::OsStr::new);
    run(
        "diff",
        &[
            &options[..],
            &[source.path().as_os_str(), target.as_os_str()],
        ]
        .concat(),
    );
    let list = |dir: &std::path::Path| {
        let format = "%P %y %m %s %T@ %n %l %U:%G\n";
        let files = ["(", "!", "-type", "d", ")", "-printf", format].map(std::ffi::OsStr::new);
        let mut lines: Vec<String> = run("find", &[&[dir.as_os_str()][..], &files].concat())
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(list(source.path()), list(&target));
    let mounted = mounted.again();
    assert_eq!(list(source.path()), list(&mounted.path("tree")));
}
