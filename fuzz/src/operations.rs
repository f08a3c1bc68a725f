//! Any bytes as a sequence of the kernel's requests to a stage, and of what is done to it beside
//! them: seals, commits, aborts, other publishers' revisions, restarts.
//!
//! Nothing may panic or hang, whatever numbers come in, those that no kernel would send included;
//! and after the last request a restart shows the same tree. The module is part of fsimpl's tests
//! too, which replay the corpus; both have the bench of fsimpl/tests/support at `crate::support`.

use std::ops::ControlFlow;
use std::time::Duration;

use fsimpl::{
    Caller, Fallocate, FileType, Handle, Ino, NodeType, OpenFiles, OpenFlags, RenameMode, Seek,
    SetAttr, SetTime, Time, XattrMode,
};

use crate::support::{Bench, NOBODY, Published, ROOT, dir, file, link};

/// Requests of one input; what is longer finds nothing new.
const REQUESTS_MAX: usize = 200;
/// Inodes and handles that the script remembers.
const REMEMBERED: usize = 64;
/// Bytes of a write, and most of a file: sealing costs what is in it.
const WRITE_MAX: u64 = 8192;
const FILE_MAX: u64 = 1 << 20;
/// Raw bytes that may be staged.
const QUOTA: u64 = 8 << 20;

/// What is left of the input.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Any number, and often one at which something ends.
    fn number(&mut self) -> u64 {
        match self.byte() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => u64::from(self.byte()) << 56,
            4 => u64::from(self.byte()) << 12,
            5 => u64::from(u32::from_le_bytes([0; 4].map(|_: u8| self.byte()))),
            _ => u64::from(self.byte()),
        }
    }

    /// Where in a file: seldom beyond what a test can hold.
    fn offset(&mut self) -> u64 {
        match self.byte() {
            0 => self.number(),
            byte => u64::from(byte) * u64::from(self.byte()) * 16 % FILE_MAX,
        }
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let length = self.below(max).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    fn name(&mut self) -> Vec<u8> {
        match self.byte() % 16 {
            0 => self.bytes(16),
            1 => vec![b'x'; 255],
            2 => vec![b'x'; 256],
            3 => b"..".to_vec(),
            4 => b".cvmfs".to_vec(),
            5 => b".cvmfscatalog".to_vec(),
            6 => vec![0xff, 0xfe],
            n => vec![b'a' + n % 6],
        }
    }

    fn time(&mut self) -> SetTime {
        match self.byte() % 4 {
            0 => SetTime::Now,
            _ => SetTime::At(Time {
                secs: self.number().cast_signed(),
                nanos: (self.number() % 1_000_000_000) as u32,
            }),
        }
    }
}

/// A stage, and the numbers that it gave out.
struct Script<'b> {
    bench: Bench,
    input: Input<'b>,
    inodes: Vec<Ino>,
    files: Vec<Handle>,
    dirs: Vec<Handle>,
}

/// A published tree, so that there is something below what is staged.
fn bench() -> Bench {
    let published = Published::new(vec![
        ("/a", (dir(0o755), Vec::new())),
        ("/a/b", (dir(0o755), Vec::new())),
        ("/a/b/c", file(b"published")),
        ("/a/d", file(b"published, too")),
        ("/b", file(b"at the top")),
        ("/c", (link("a/d"), Vec::new())),
    ]);
    Bench::new(published).with_quota(QUOTA)
}

/// Does what the bytes say, and compares.
pub fn operations(bytes: &[u8]) {
    let bench = bench();
    let mut script = Script {
        inodes: vec![bench.root],
        bench,
        input: Input(bytes),
        files: Vec::new(),
        dirs: Vec::new(),
    };
    for _ in 0..REQUESTS_MAX {
        if script.input.0.is_empty() {
            break;
        }
        script.request();
    }
    for handle in std::mem::take(&mut script.files) {
        let _ = script.bench.fs.release(handle);
    }
    let before = shown(&script.bench);
    script.bench.reopen();
    assert_eq!(shown(&script.bench), before, "after a restart");
}

/// All that a user sees: paths, metadata, targets and bytes.
fn shown(bench: &Bench) -> Vec<String> {
    let mut lines = Vec::new();
    let mut ahead = vec![(bench.root, Vec::new())];
    while let Some((dir, path)) = ahead.pop() {
        for name in raw_names(bench, dir) {
            let attr = bench
                .fs
                .lookup(&ROOT, dir, &name)
                .expect("a listed name is there");
            let path = [path.as_slice(), b"/", &name].concat();
            let what = match attr.kind {
                FileType::Directory => {
                    ahead.push((attr.ino, path.clone()));
                    String::new()
                }
                FileType::Regular => content(bench, attr.ino),
                FileType::Symlink => {
                    let target = bench.fs.readlink(attr.ino).expect("a link's target");
                    target.escape_ascii().to_string()
                }
                _ => format!("{:x}", attr.rdev),
            };
            let xattrs: Vec<String> = bench
                .fs
                .listxattr(attr.ino)
                .expect("attributes")
                .iter()
                .map(|name| name.escape_ascii().to_string())
                .collect();
            lines.push(format!(
                "{} {:?} {:o} {}:{} {:?} {} {what} {xattrs:?}",
                path.escape_ascii(),
                attr.kind,
                attr.perm,
                attr.uid,
                attr.gid,
                attr.mtime,
                attr.nlink,
            ));
        }
    }
    lines.sort();
    lines
}

fn raw_names(bench: &Bench, dir: Ino) -> Vec<Vec<u8>> {
    let handle = bench.fs.opendir(dir).expect("a directory opens");
    let mut names = Vec::new();
    bench
        .fs
        .readdirplus(handle, 0, false, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(entry.name.to_vec());
            }
            ControlFlow::Continue(())
        })
        .expect("a directory is listed");
    bench.fs.releasedir(handle).expect("it was open");
    names
}

/// The length of a file, and a sum of its bytes.
fn content(bench: &Bench, ino: Ino) -> String {
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let handle = bench.fs.open(&ROOT, ino, flags).expect("root opens a file");
    let mut buffer = vec![0; 1 << 16];
    let (mut at, mut sum) = (0_u64, 0_u64);
    // what is beyond was never written: one can make a file long, and not full
    while at < 4 * FILE_MAX {
        let n = bench
            .fs
            .read(handle, at, &mut buffer)
            .expect("a file is read");
        if n == 0 {
            break;
        }
        at += n as u64;
        for byte in &buffer[..n] {
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
        }
    }
    bench.fs.release(handle).expect("it was open");
    format!("{at} bytes, {sum:x}")
}

fn pick<T: Copy>(input: &mut Input<'_>, known: &[T], any: impl FnOnce(u64) -> T) -> T {
    match input.byte() {
        byte if byte > 8 && !known.is_empty() => known[usize::from(byte) % known.len()],
        _ => any(input.number()),
    }
}

fn remember<T: PartialEq>(known: &mut Vec<T>, new: T) {
    if known.len() < REMEMBERED && !known.contains(&new) {
        known.push(new);
    }
}

impl Script<'_> {
    fn ino(&mut self) -> Ino {
        pick(&mut self.input, &self.inodes, Ino)
    }

    fn file(&mut self) -> Handle {
        pick(&mut self.input, &self.files, Handle)
    }

    fn caller(&mut self) -> Caller {
        if self.input.flag() { ROOT } else { NOBODY }
    }

    fn flags(&mut self) -> OpenFlags {
        let byte = self.input.byte();
        OpenFlags {
            read: byte & 1 != 0,
            write: byte & 2 != 0,
            truncate: byte & 4 != 0,
            append: byte & 8 != 0,
            exclusive: byte & 16 != 0,
        }
    }

    fn request(&mut self) {
        match self.input.byte() % 40 {
            0..=13 => self.names(),
            14..=26 => self.files(),
            27..=32 => self.attributes(),
            33 | 34 => self.listing(),
            _ => self.beside(),
        }
    }

    /// What makes, moves and removes names.
    fn names(&mut self) {
        let caller = self.caller();
        let parent = self.ino();
        let name = self.input.name();
        let perm = u16::from(self.input.byte()) << 4 & 0o7777;
        let fs = &self.bench.fs;
        let made = match self.input.byte() % 12 {
            0 | 1 => fs.lookup(&caller, parent, &name),
            2 | 3 => fs.mkdir(&caller, parent, &name, perm),
            4 => {
                let target = self.input.bytes(64);
                fs.symlink(&caller, parent, &name, &target)
            }
            5 => {
                let rdev = self.input.number();
                let what = match rdev % 5 {
                    0 => NodeType::Regular,
                    1 => NodeType::Fifo,
                    2 => NodeType::Socket,
                    3 => NodeType::CharDevice(rdev),
                    _ => NodeType::BlockDevice(rdev),
                };
                fs.mknod(&caller, parent, &name, perm, what)
            }
            6 => {
                let ino = pick(&mut self.input, &self.inodes, Ino);
                fs.link(&caller, ino, parent, &name)
            }
            7 => {
                let _ = fs.unlink(&caller, parent, &name);
                return;
            }
            8 => {
                let _ = fs.rmdir(&caller, parent, &name);
                return;
            }
            9 | 10 => {
                let mode = match self.input.byte() % 4 {
                    0 => RenameMode::NoReplace,
                    1 => RenameMode::Exchange,
                    _ => RenameMode::Replace,
                };
                let to = pick(&mut self.input, &self.inodes, Ino);
                let new_name = self.input.name();
                let _ = fs.rename(&caller, (parent, &name), (to, &new_name), mode);
                return;
            }
            _ => {
                let count = self.input.number();
                fs.forget(parent, count);
                return;
            }
        };
        if let Ok(attr) = made {
            remember(&mut self.inodes, attr.ino);
        }
    }

    /// What opens files and changes bytes.
    fn files(&mut self) {
        let caller = self.caller();
        let flags = self.flags();
        match self.input.byte() % 12 {
            0 | 1 => {
                let (parent, name) = (self.ino(), self.input.name());
                if let Ok((attr, handle)) =
                    self.bench.fs.create(&caller, parent, &name, 0o644, flags)
                {
                    remember(&mut self.inodes, attr.ino);
                    remember(&mut self.files, handle);
                }
            }
            2 => {
                let ino = self.ino();
                if let Ok(handle) = self.bench.fs.open(&caller, ino, flags) {
                    remember(&mut self.files, handle);
                }
            }
            3..=5 => {
                let (handle, offset) = (self.file(), self.input.offset());
                let length = self.input.number() % WRITE_MAX;
                let data = vec![self.input.byte(); usize::try_from(length).unwrap_or(0)];
                let _ = self.bench.fs.write(&caller, handle, offset, &data);
            }
            6 => {
                let (handle, offset) = (self.file(), self.input.number());
                let _ = self.bench.fs.read(handle, offset, &mut [0; 4096]);
            }
            7 => {
                let handle = self.file();
                let _ = self.bench.fs.flush(handle);
                let _ = self.bench.fs.release(handle);
                self.files.retain(|known| *known != handle);
            }
            8 => {
                let (handle, data_only) = (self.file(), self.input.flag());
                let _ = self.bench.fs.fsync(handle, data_only);
            }
            9 => {
                let how = match self.input.byte() % 5 {
                    0 => Fallocate::Allocate,
                    1 => Fallocate::KeepSize,
                    2 => Fallocate::PunchHole,
                    n => Fallocate::ZeroRange { keep_size: n == 3 },
                };
                let (handle, offset) = (self.file(), self.input.offset());
                let length = self.input.offset();
                let _ = self
                    .bench
                    .fs
                    .fallocate(&caller, handle, offset, length, how);
            }
            10 => {
                let (handle, offset) = (self.file(), self.input.number());
                let what = if self.input.flag() {
                    Seek::Data
                } else {
                    Seek::Hole
                };
                let _ = self.bench.fs.lseek(handle, offset, what);
            }
            _ => {
                let from = (self.file(), self.input.offset());
                let to = (self.file(), self.input.offset());
                let length = self.input.offset();
                let _ = self.bench.fs.copy_file_range(&caller, from, to, length);
            }
        }
    }

    /// What asks for and changes metadata.
    fn attributes(&mut self) {
        let caller = self.caller();
        let ino = self.ino();
        let name = match self.input.byte() % 4 {
            0 => b"system.posix_acl_access".to_vec(),
            1 => b"system.posix_acl_default".to_vec(),
            2 => self.input.bytes(16),
            _ => b"user.a".to_vec(),
        };
        match self.input.byte() % 8 {
            0 | 1 => {
                let byte = self.input.byte();
                let number = |input: &mut Input<'_>| input.number() as u32;
                let set = SetAttr {
                    perm: (byte & 1 != 0).then(|| self.input.number() as u16 & 0o7777),
                    uid: (byte & 2 != 0).then(|| number(&mut self.input)),
                    gid: (byte & 4 != 0).then(|| number(&mut self.input)),
                    size: (byte & 8 != 0).then(|| self.input.offset()),
                    atime: (byte & 16 != 0).then(|| self.input.time()),
                    mtime: (byte & 32 != 0).then(|| self.input.time()),
                    handle: (byte & 64 != 0).then(|| self.file()),
                };
                let _ = self.bench.fs.setattr(&caller, ino, &set);
            }
            2 | 3 => {
                let mode = match self.input.byte() % 3 {
                    0 => XattrMode::Any,
                    1 => XattrMode::Create,
                    _ => XattrMode::Replace,
                };
                let value = self.input.bytes(64);
                let _ = self.bench.fs.setxattr(&caller, ino, &name, &value, mode);
            }
            4 => {
                let _ = self.bench.fs.getxattr(ino, &name);
                let _ = self.bench.fs.listxattr(ino);
            }
            5 => {
                let _ = self.bench.fs.removexattr(&caller, ino, &name);
            }
            6 => {
                let _ = self.bench.fs.getattr(ino, None);
                let _ = self.bench.fs.readlink(ino);
            }
            _ => {
                let mask = u32::from(self.input.byte());
                let _ = self.bench.fs.access(&caller, ino, mask);
                let _ = self.bench.fs.statfs(ino);
            }
        }
    }

    /// Directories that are read while they change.
    fn listing(&mut self) {
        match self.input.byte() % 4 {
            0 => {
                let ino = self.ino();
                if let Ok(handle) = self.bench.fs.opendir(ino) {
                    remember(&mut self.dirs, handle);
                }
            }
            1 => {
                let handle = pick(&mut self.input, &self.dirs, Handle);
                let _ = self.bench.fs.releasedir(handle);
                self.dirs.retain(|known| *known != handle);
            }
            _ => {
                let handle = pick(&mut self.input, &self.dirs, Handle);
                let (cursor, plus) = (self.input.number(), self.input.flag());
                let mut room = self.input.byte();
                let mut seen = Vec::new();
                let _ = self
                    .bench
                    .fs
                    .readdirplus(handle, cursor, plus, &mut |entry| {
                        if room == 0 {
                            return ControlFlow::Break(());
                        }
                        room -= 1;
                        seen.extend(entry.attr.map(|attr| attr.ino));
                        ControlFlow::Continue(())
                    });
                for ino in seen {
                    remember(&mut self.inodes, ino);
                }
            }
        }
    }

    /// What happens to a stage besides the kernel's requests.
    fn beside(&mut self) {
        let target = ["", "/a", "/a/b", "/b", "/d"][self.input.below(5)];
        let stage = || self.bench.stage();
        match self.input.byte() % 6 {
            0 => {
                stage().wait_sealed(Duration::from_secs(10), &());
            }
            1 | 2 => {
                let keep = self.input.flag();
                let targets = [target.parse().expect("a path")];
                let Ok(frozen) = stage().freeze(&targets, OpenFiles::Skip, &()) else {
                    return;
                };
                if keep {
                    stage().thaw(frozen.id).expect("a snapshot is given back");
                    return;
                }
                let base = stage().base_root();
                let root = self.bench.published.commit(&base, &frozen);
                stage()
                    .retire(frozen.id, &root)
                    .expect("what was published is retired");
            }
            3 => {
                let _ = stage().abort(&target.parse().expect("a path"));
            }
            4 => {
                let byte = self.input.byte();
                let base = stage().base_root();
                let theirs = self.bench.published.publish_with(&base, |tree, published| {
                    published.put(tree, "/theirs", file(&[byte]));
                });
                stage().refresh(&theirs).expect("a revision is followed");
            }
            _ => {
                // numbers of before mean nothing to whoever comes after
                for handle in std::mem::take(&mut self.files) {
                    let _ = self.bench.fs.release(handle);
                }
                self.dirs.clear();
                self.bench.reopen();
                self.inodes = vec![self.bench.root];
            }
        }
    }
}
