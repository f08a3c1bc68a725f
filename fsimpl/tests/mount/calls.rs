//! System calls that few programs make, and those that are refused.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::fixture::{Mounted, errno};

fn patterned(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

#[test]
fn bytes_go_between_files_within_the_kernel() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let content = patterned(700_000);
    fs::write(mounted.path("from"), &content).unwrap();
    let from = File::open(mounted.path("from")).unwrap();
    let to = File::create(mounted.path("sent")).unwrap();
    let mut offset = 0;
    while offset < content.len() as u64 {
        rustix::fs::sendfile(&to, &from, Some(&mut offset), content.len()).unwrap();
    }
    assert!(fs::read(mounted.path("sent")).unwrap() == content);

    // through a pipe, from a published file
    let published = File::open(mounted.path("chunked.bin")).unwrap();
    let length = published.metadata().unwrap().len();
    let to = File::create(mounted.path("spliced")).unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let mut done = 0;
    while done < length {
        let taken = splice(&published, &write, 1 << 16);
        let mut left = taken;
        while left > 0 {
            left -= splice(&read, &to, left);
        }
        done += taken as u64;
    }
    let expected = fs::read(mounted.path("chunked.bin")).unwrap();
    assert!(fs::read(mounted.path("spliced")).unwrap() == expected);
}

fn splice(from: &impl AsFd, to: &impl AsFd, length: usize) -> usize {
    let null = std::ptr::null_mut();
    let (from, to) = (from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd());
    // SAFETY: two open descriptors, and no offsets
    let moved = unsafe { libc::splice(from, null, to, null, length, 0) };
    usize::try_from(moved).unwrap_or_else(|_| panic!("{}", std::io::Error::last_os_error()))
}

#[test]
fn direct_and_synchronous_files() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("direct");
    let content = patterned(1 << 20);
    let open = |flags| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        options.custom_flags(flags).open(&path).unwrap()
    };
    let direct = open(libc::O_DIRECT);
    direct.write_all_at(&content, 0).unwrap();
    // around the page cache both ways, in step with it
    let cached = open(libc::O_SYNC);
    cached.write_all_at(b"cached", 4096).unwrap();
    let mut buffer = vec![0; 1 << 20];
    direct.read_exact_at(&mut buffer, 0).unwrap();
    assert!(&buffer[4096..4102] == b"cached" && buffer[4102..] == content[4102..]);
    direct.write_all_at(b"direct", 4096).unwrap();
    cached.read_exact_at(&mut buffer[..6], 4096).unwrap();
    assert_eq!(&buffer[..6], b"direct");
    open(libc::O_DSYNC | libc::O_APPEND)
        .write_all(b"end")
        .unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), (1 << 20) + 3);
}

#[test]
fn ranges_are_zeroed_and_kept() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    // a published file, whose bytes come from objects until now
    let path = mounted.path("chunked.bin");
    let mut expected = fs::read(&path).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let length = expected.len() as u64;
    let zero = FallocateFlags::ZERO_RANGE;
    rustix::fs::fallocate(&file, zero, 1000, 5000).unwrap();
    expected[1000..6000].fill(0);
    let keep = FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, keep, length, 1 << 20).unwrap();
    rustix::fs::fallocate(&file, zero | keep, length - 10, 100).unwrap();
    let at = expected.len() - 10;
    expected[at..].fill(0);
    assert!(fs::read(&path).unwrap() == expected);
    rustix::fs::fallocate(&file, zero, length, 500).unwrap();
    expected.resize(expected.len() + 500, 0);
    assert!(fs::read(&path).unwrap() == expected);
    for refused in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        let done = rustix::fs::fallocate(&file, refused, 0, 4096);
        assert_eq!(done, Err(Errno::OPNOTSUPP));
    }
    let done = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, u64::MAX >> 1);
    assert!(matches!(done, Err(Errno::FBIG | Errno::NOSPC)), "{done:?}");
}

/// What `utimensat` says of each time; none leaves it.
fn set_times(path: &Path, access: Option<i64>, modification: Option<i64>) {
    let time = |seconds: Option<i64>| Timespec {
        tv_sec: seconds.unwrap_or_default(),
        tv_nsec: seconds.map_or(UTIME_OMIT, |_| 5),
    };
    let times = Timestamps {
        last_access: time(access),
        last_modification: time(modification),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn access_times_are_those_that_were_set() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let times = |name: &str| {
        let meta = mounted.path(name).symlink_metadata().unwrap();
        (meta.atime(), meta.atime_nsec(), meta.mtime())
    };
    fs::write(mounted.path("made"), "text").unwrap();
    for name in ["made", "hello.txt", "many", "special/fifo"] {
        let mtime = times(name).2;
        set_times(&mounted.path(name), Some(1000), None);
        assert_eq!(times(name), (1000, 5, mtime));
        set_times(&mounted.path(name), None, Some(77));
        assert_eq!(times(name), (1000, 5, 77));
    }
    // reading does not change it, writing neither
    fs::read(mounted.path("made")).unwrap();
    fs::write(mounted.path("made"), "more").unwrap();
    assert_eq!(times("made").0, 1000);
    let now = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    rustix::fs::utimensat(CWD, mounted.path("made"), &now, AtFlags::empty()).unwrap();
    assert!(times("made").0 > 1_700_000_000);
    let mounted = mounted.again();
    let meta = fs::metadata(mounted.path("hello.txt")).unwrap();
    assert_eq!((meta.atime(), meta.mtime()), (1000, 77));
}

#[test]
fn inode_numbers_survive_a_restart() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    fs::create_dir(mounted.path("new")).unwrap();
    fs::write(mounted.path("new/file"), "x").unwrap();
    fs::rename(mounted.path("deep"), mounted.path("new/deep")).unwrap();
    fs::hard_link(mounted.path("new/file"), mounted.path("link")).unwrap();
    fs::write(mounted.path("hello.txt"), "changed").unwrap();
    let names = [
        "new",
        "new/file",
        "link",
        "new/deep",
        "new/deep/file",
        "hello.txt",
        "many",
        "many/f002",
    ];
    let numbers = |mounted: &Mounted| {
        names.map(|name| {
            let number = mounted.path(name).symlink_metadata().unwrap().ino();
            assert!(
                number > 1 << 52,
                "{name}: the repository is in its upper bits"
            );
            number
        })
    };
    let before = numbers(&mounted);
    assert_eq!(before[1], before[2]);
    let mounted = mounted.again();
    assert_eq!(numbers(&mounted), before);
}

#[test]
fn free_space_is_that_of_the_state() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let state = mounted.mountpoint.parent().unwrap();
    let (here, there) = (
        rustix::fs::statvfs(&mounted.repo).unwrap(),
        rustix::fs::statvfs(state).unwrap(),
    );
    assert_eq!(
        here.f_blocks * here.f_frsize,
        there.f_blocks * there.f_frsize
    );
    assert_eq!(here.f_files, there.f_files);
    assert!(here.f_bavail > 0 && here.f_bavail <= here.f_bfree && here.f_bfree <= here.f_blocks);
    assert_eq!(here.f_namemax, 255);
}

#[repr(C)]
struct FileHandle {
    header: libc::file_handle,
    room: [u8; libc::MAX_HANDLE_SZ as usize],
}

fn handle_of(path: &Path) -> std::io::Result<FileHandle> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: plain numbers, for which zero is a value
    let mut handle: FileHandle = unsafe { std::mem::zeroed() };
    handle.header.handle_bytes = libc::MAX_HANDLE_SZ as u32;
    let mut mount = 0;
    let at = std::ptr::from_mut(&mut handle).cast();
    // SAFETY: a string, and a handle with the room that its header says
    match unsafe { libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), at, &mut mount, 0) } {
        0 => Ok(handle),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn open_handle(mount: &File, handle: &mut FileHandle) -> std::io::Result<File> {
    use std::os::fd::FromRawFd;
    let at = std::ptr::from_mut(handle).cast();
    // SAFETY: an open descriptor, and a handle that the kernel made
    match unsafe { libc::open_by_handle_at(mount.as_raw_fd(), at, libc::O_RDONLY) } {
        -1 => Err(std::io::Error::last_os_error()),
        // SAFETY: a descriptor that was just opened and that nobody else has
        number => Ok(unsafe { File::from_raw_fd(number) }),
    }
}

#[test]
fn file_handles_last_while_the_kernel_knows_the_file() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root opens files by their handles");
        return;
    }
    let open = File::open(mounted.path("hello.txt")).unwrap();
    let mut handle = handle_of(&mounted.path("hello.txt")).unwrap();
    let mount = File::open(&mounted.repo).unwrap();
    let mut text = String::new();
    let mut again = open_handle(&mount, &mut handle).unwrap();
    again.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello cvmfs, second revision\n");
    drop((open, again, mount));
    // a server of NFS would hand them out to others for good: that is refused
    let mounted = mounted.again();
    let mount = File::open(&mounted.repo).unwrap();
    assert_eq!(errno(open_handle(&mount, &mut handle)), libc::ESTALE);
}

#[test]
fn what_fuse_has_no_request_for_is_refused() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let file = File::open(mounted.path("hello.txt")).unwrap();
    assert_eq!(rustix::fs::ioctl_getflags(&file), Err(Errno::NOTTY));
    // FS_IOC_FIEMAP = _IOWR('f', 11, struct fiemap of 32 bytes)
    let mut map = [0_u64; 4];
    // SAFETY: the 32 bytes that this request reads and writes, and no room for extents
    let asked = unsafe { libc::ioctl(file.as_raw_fd(), 0xC020_660B, map.as_mut_ptr()) };
    assert_eq!(asked, -1);
    let error = std::io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
}
