//! A directory tree as a change set: what the stage would freeze after a copy into the mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use formats::changeset::{ChangeSet, Children};
use formats::entry::{Entry, Kind, Mtime, Xattrs};
use formats::path::{Name, RepoPath};
use formats::server_conf::Params;
use store::{ObjectStore, Revision};

use super::changes::{Changes, seal};

/// What turns `base` into the tree in `dir`: new, changed and removed entries, directories whose
/// times changed. The root directory itself is left out.
pub fn changes_to(
    dir: &Path,
    repo: &str,
    base: Arc<Revision>,
    staged: Arc<dyn ObjectStore>,
    params: &Params,
) -> ChangeSet {
    let mut changes = Changes::new(repo, base.clone(), staged.clone(), params.clone());
    let mut pending = vec![RepoPath::root()];
    while let Some(at) = pending.pop() {
        let here = dir.join(OsStr::from_bytes(
            at.as_bytes().strip_prefix(b"/").unwrap_or(b""),
        ));
        let mut names: Vec<Name> = fs::read_dir(&here)
            .unwrap()
            .map(|entry| Name::new(entry.unwrap().file_name().as_bytes()).unwrap())
            .collect();
        names.sort();
        let published = if base
            .lookup(&at)
            .unwrap()
            .is_some_and(|row| row.entry.is_dir())
        {
            base.list(&at).unwrap()
        } else {
            Vec::new()
        };
        for row in &published {
            let name = Name::new(&row.name).unwrap();
            if names.binary_search(&name).is_err() {
                changes = changes.remove_path(&at.join(&name));
            }
        }
        for name in names {
            let path = at.join(&name);
            let entry = read_entry(&here.join(name.as_os_str()), staged.as_ref(), params);
            let old = published.iter().find(|row| row.name == name.as_bytes());
            let is_dir = entry.is_dir();
            let children = match old {
                Some(old) if is_dir && old.entry.is_dir() => Children::Same,
                _ => Children::None,
            };
            if is_dir {
                pending.push(path.clone());
            }
            if old.is_none_or(|old| !alike(&old.entry, &entry)) {
                changes = changes.put_entry(&path, entry, children);
            }
        }
    }
    changes.done()
}

/// Equal but for what a repository may not keep.
fn alike(old: &Entry, new: &Entry) -> bool {
    let plain = |entry: &Entry| {
        let mut entry = entry.clone();
        entry.mtime.nanos = None;
        if let Kind::Directory { size } = &mut entry.kind {
            *size = 0;
        }
        entry
    };
    plain(old) == plain(new)
}

/// One entry, its content sealed into `staged`.
fn read_entry(file: &Path, staged: &dyn ObjectStore, params: &Params) -> Entry {
    let meta = fs::symlink_metadata(file).unwrap();
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        Kind::Directory { size: 4096 }
    } else if kind.is_symlink() {
        Kind::Symlink(fs::read_link(file).unwrap().into_os_string().into_vec())
    } else if kind.is_file() {
        Kind::Regular(seal(staged, params, &fs::read(file).unwrap()))
    } else if kind.is_fifo() {
        Kind::Fifo
    } else if kind.is_socket() {
        Kind::Socket
    } else if kind.is_char_device() {
        Kind::CharDevice(meta.rdev())
    } else {
        Kind::BlockDevice(meta.rdev())
    };
    let mut xattrs = Xattrs::new();
    for name in xattr::list(file).unwrap() {
        if let Some(value) = xattr::get(file, &name).unwrap() {
            xattrs.insert(name.into_vec(), value);
        }
    }
    Entry {
        kind,
        perm: (meta.mode() & 0o7777) as u16,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: Mtime {
            secs: meta.mtime(),
            nanos: Some(u32::try_from(meta.mtime_nsec()).unwrap()),
        },
        xattrs,
    }
}
