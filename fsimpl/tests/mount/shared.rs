//! One file or directory, several processes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fixture::{Mounted, errno};

fn shell(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir);
    command
}

#[test]
fn appenders_of_several_processes_lose_nothing() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    // a published file, so that the first of them copies it
    let path = mounted.path("hello.txt");
    let before = fs::read(&path).unwrap();
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i + 1)); echo $0 $i; done >> hello.txt";
    let writers = ["one", "two", "three"].map(|name| {
        let mut command = shell(&mounted.repo, script);
        command.arg(name).spawn().unwrap()
    });
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    let text = fs::read(&path).unwrap();
    let (head, lines) = text.split_at(before.len());
    assert_eq!(head, before);
    let lines = std::str::from_utf8(lines).unwrap();
    for name in ["one", "two", "three"] {
        let own = lines.lines().filter_map(|line| line.strip_prefix(name));
        let numbers: Vec<usize> = own.map(|n| n.trim().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=400).collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(lines.lines().count(), 1200);
}

#[test]
fn truncating_writers_leave_one_of_their_texts() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("contended");
    const LENGTH: usize = 300_000;
    std::thread::scope(|scope| {
        for letter in [b'a', b'b'] {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..100 {
                    fs::write(path, vec![letter; LENGTH]).unwrap();
                }
            });
        }
    });
    let whole =
        |content: &[u8]| content.len() == LENGTH && content.iter().all(|byte| *byte == content[0]);
    let content = fs::read(&path).unwrap();
    assert!(whole(&content));
    // the daemon has what the kernel's pages had
    let mounted = mounted.again();
    assert!(fs::read(mounted.path("contended")).unwrap() == content);
}

#[test]
fn a_running_program_cannot_be_overwritten() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("program");
    fs::copy("/bin/cat", &path).unwrap();
    let program = fs::read(&path).unwrap();
    let mut running = Command::new(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let open = |flags: i32| {
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&path)
    };
    let write = OpenOptions::new().write(true).open(&path);
    assert_eq!(errno(write), libc::ETXTBSY);
    let write = OpenOptions::new().write(true).truncate(true).open(&path);
    assert_eq!(errno(write), libc::ETXTBSY);
    assert_eq!(errno(open(libc::O_TRUNC)), libc::ETXTBSY);
    // refused, and nothing done either
    assert!(fs::read(&path).unwrap() == program);
    let mut input = running.stdin.take().unwrap();
    input.write_all(b"alive").unwrap();
    drop(input);
    let mut said = String::new();
    let mut output = running.stdout.take().unwrap();
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "alive");
    assert!(running.wait().unwrap().success());
    // Linux truncates for readers too
    drop(open(libc::O_TRUNC).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    let mounted = mounted.again();
    assert_eq!(fs::read(mounted.path("program")).unwrap(), b"");
}

/// A shared mapping of a file, whole.
struct Mapping {
    at: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(path: &Path, length: usize) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of an open file, at an address that the kernel chooses
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        Self {
            at: at.cast(),
            length,
        }
    }

    fn get(&self, offset: usize) -> u8 {
        assert!(offset < self.length);
        // SAFETY: within the mapping, which the file does not become shorter than
        unsafe { self.at.add(offset).read_volatile() }
    }

    fn set(&self, offset: usize, byte: u8) {
        assert!(offset < self.length);
        // SAFETY: as above
        unsafe { self.at.add(offset).write_volatile(byte) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours and nobody has a reference into it
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}

#[test]
fn mappings_and_other_processes_see_one_file() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("mapped");
    fs::write(&path, vec![b'.'; 2 * 4096]).unwrap();
    let (one, two) = (Mapping::new(&path, 2 * 4096), Mapping::new(&path, 2 * 4096));
    one.set(5000, b'1');
    assert_eq!(two.get(5000), b'1');
    // what another process writes is seen here, and what is stored here is seen there, before any
    // msync
    let write = shell(
        &mounted.repo,
        "printf x | dd of=mapped bs=1 seek=100 conv=notrunc status=none",
    )
    .status();
    assert!(write.unwrap().success());
    assert_eq!((one.get(100), two.get(100)), (b'x', b'x'));
    let seen = shell(
        &mounted.repo,
        "dd if=mapped bs=1 skip=5000 count=1 status=none",
    )
    .output();
    assert_eq!(seen.unwrap().stdout, b"1");
    drop((one, two));
    let mounted = mounted.again();
    let content = fs::read(mounted.path("mapped")).unwrap();
    assert_eq!((content[100], content[5000]), (b'x', b'1'));
}

fn ofd_lock(file: &File, kind: libc::c_int) -> std::io::Result<()> {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 10,
        l_len: 10,
        l_pid: 0,
    };
    // SAFETY: an open descriptor and a whole struct flock that outlives the call
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn ranges_are_locked_for_open_files_and_processes() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    let path = mounted.path("locked");
    fs::write(&path, [0; 100]).unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&path);
    let (one, two) = (open().unwrap(), open().unwrap());
    ofd_lock(&one, libc::F_WRLCK).unwrap();
    assert_eq!(errno(ofd_lock(&two, libc::F_WRLCK)), libc::EAGAIN);
    // a lock is the open file's, and goes with it
    drop(one);
    ofd_lock(&two, libc::F_WRLCK).unwrap();
    let held = "flock --nonblock --exclusive locked true";
    assert!(shell(&mounted.repo, held).status().unwrap().success());
    two.lock().unwrap();
    assert!(!shell(&mounted.repo, held).status().unwrap().success());
}

/// Of two directories that are moved into one another, one goes in at most: no cycle, nothing lost.
#[test]
fn racing_renames_make_no_cycle() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    for name in ["left", "right"] {
        fs::create_dir(mounted.path(name)).unwrap();
        fs::write(mounted.path(name).join("file"), name).unwrap();
    }
    fs::rename(mounted.path("deep"), mounted.path("left/deep")).unwrap();
    std::thread::scope(|scope| {
        for (from, to) in [("left", "right"), ("right", "left")] {
            let (from, inside) = (mounted.path(from), mounted.path(to).join("moved"));
            scope.spawn(move || {
                for _ in 0..300 {
                    if fs::rename(&from, &inside).is_ok() {
                        fs::rename(&inside, &from).unwrap();
                    }
                }
            });
        }
    });
    for name in ["left", "right"] {
        let file = mounted.path(name).join("file");
        assert_eq!(fs::read(file).unwrap(), name.as_bytes());
    }
    assert!(mounted.path("left/deep/file").exists());
    // one subdirectory on the left, none on the right
    let links = |name| fs::metadata(mounted.path(name)).unwrap().nlink();
    assert_eq!((links("left"), links("right")), (3, 2));
    let inside = fs::rename(mounted.path("left"), mounted.path("left/deep/left"));
    assert_eq!(errno(inside), libc::EINVAL);
}

/// All that works on a descriptor still works when the last name is gone.
#[test]
fn an_unlinked_file_is_still_a_file() {
    let Some(mounted) = Mounted::new() else {
        return;
    };
    // one that was just made, and a published one
    fs::write(mounted.path("made"), "made").unwrap();
    for name in ["made", "hello.txt"] {
        let path = mounted.path(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let ino = file.metadata().unwrap().ino();
        fs::remove_file(&path).unwrap();
        let stat = || file.metadata().unwrap();
        assert_eq!((stat().nlink(), stat().ino()), (0, ino));
        file.set_len(3).unwrap();
        file.write_all_at(b"END", 3).unwrap();
        assert_eq!(stat().len(), 6);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o604);
        file.set_permissions(mode).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!((stat().mode() & 0o7777, stat().mtime()), (0o604, 0));
        file.sync_all().unwrap();
        assert!(!path.exists());
        // a new file of that name is another one
        fs::write(&path, "another").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().ino(), ino);
        assert_eq!(stat().len(), 6);
    }
}
