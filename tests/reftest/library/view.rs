//! Everything visible, as a walk through [`fsimpl::Fs`] finds it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use fsimpl::{Attr, Caller, FileType, Fs, Handle, Ino, OpenFlags};

use crate::reftest::judge::Observed;
use crate::reftest::model::Kind;
use crate::reftest::ops::Path;

/// What is read at a time; not a divisor of any other size.
const READ_BYTES: usize = 70_000;

/// An entry of a listing.
struct Listed {
    name: Vec<u8>,
    ino: Ino,
    kind: FileType,
    attr: Option<Attr>,
}

/// Walks from `root`; directories are read by `page` entries.
pub fn tree(fs: &Fs, caller: &Caller, root: Ino, page: usize) -> BTreeMap<Path, Observed> {
    let mut found = BTreeMap::new();
    let attr = fs.getattr(root, None).unwrap();
    walk(fs, caller, &Path::root(), attr, page, &mut found);
    found
}

fn walk(
    fs: &Fs,
    caller: &Caller,
    path: &Path,
    attr: Attr,
    page: usize,
    found: &mut BTreeMap<Path, Observed>,
) {
    let mut taken = Vec::new();
    if attr.kind == FileType::Directory {
        for entry in list(fs, attr.ino, page) {
            let below = path.join(&entry.name);
            // the page size also decides whether attributes come with the listing
            let attr = match entry.attr {
                Some(attr) => attr,
                None => fs.lookup(caller, attr.ino, &entry.name).unwrap(),
            };
            taken.push(attr.ino);
            assert_eq!(
                (attr.ino, attr.kind),
                (entry.ino, entry.kind),
                "{below:?} as listed"
            );
            walk(fs, caller, &below, attr, page, found);
        }
    }
    let seen = observe(fs, caller, attr);
    let now = fs.getattr(attr.ino, None).unwrap();
    assert_eq!(
        attr, now,
        "{path:?}: attributes as listed, and as asked for"
    );
    let twice = found.insert(path.clone(), seen);
    assert!(twice.is_none(), "{path:?} is listed twice");
    for ino in taken {
        fs.forget(ino, 1);
    }
}

fn list(fs: &Fs, dir: Ino, page: usize) -> Vec<Listed> {
    let handle = fs.opendir(dir).unwrap();
    let mut entries: Vec<Listed> = Vec::new();
    let mut cursor = 0;
    loop {
        let before = entries.len();
        let mut room = page;
        fs.readdirplus(handle, cursor, page.is_multiple_of(2), &mut |entry| {
            if room == 0 {
                return ControlFlow::Break(());
            }
            room -= 1;
            assert!(
                entry.cursor > 0 && entry.cursor < 1 << 63,
                "a cursor out of range"
            );
            cursor = entry.cursor;
            entries.push(Listed {
                name: entry.name.to_vec(),
                ino: entry.ino,
                kind: entry.kind,
                attr: entry.attr,
            });
            ControlFlow::Continue(())
        })
        .unwrap();
        if entries.len() == before {
            break;
        }
    }
    fs.releasedir(handle).unwrap();
    assert!(
        entries.len() >= 2,
        "a directory without itself and its parent"
    );
    let rest = entries.split_off(2);
    assert_eq!(
        (entries[0].name.as_slice(), entries[0].ino),
        (&b"."[..], dir)
    );
    assert_eq!(entries[1].name, b"..");
    rest
}

fn observe(fs: &Fs, caller: &Caller, attr: Attr) -> Observed {
    let kind = match attr.kind {
        FileType::Directory => Kind::Directory,
        FileType::Regular => Kind::Regular(Arc::new(content(fs, caller, attr.ino))),
        FileType::Symlink => Kind::Symlink(fs.readlink(attr.ino).unwrap()),
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharDevice => Kind::CharDevice(attr.rdev),
        FileType::BlockDevice => Kind::BlockDevice(attr.rdev),
    };
    let names = fs.listxattr(attr.ino).unwrap();
    let xattrs = names.into_iter().map(|name| {
        let value = fs.getxattr(attr.ino, &name).unwrap();
        (name, value)
    });
    Observed {
        kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: attr.size,
        mtime: (attr.mtime.secs, attr.mtime.nanos),
        xattrs: xattrs.collect(),
        ino: attr.ino.0,
    }
}

fn content(fs: &Fs, caller: &Caller, ino: Ino) -> Vec<u8> {
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let handle = fs.open(caller, ino, flags).unwrap();
    let bytes = read_all(fs, handle);
    fs.flush(handle).unwrap();
    fs.release(handle).unwrap();
    bytes
}

/// An open file's bytes.
pub fn read_all(fs: &Fs, handle: Handle) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let n = fs.read(handle, bytes.len() as u64, &mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        if n < READ_BYTES {
            return bytes;
        }
    }
}
