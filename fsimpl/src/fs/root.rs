//! The mount point's own directory: the repositories, and nothing else.

use super::route::Route;
use super::{Emit, Fs};
use crate::types::{Attr, DirEntryPlus, FileType, Ino};

impl Fs {
    pub(super) fn root_attr(&self) -> Attr {
        let count = self.repositories.read().len();
        Attr {
            ino: Ino::ROOT,
            kind: FileType::Directory,
            perm: 0o755,
            nlink: 2 + u32::try_from(count).unwrap_or(u32::MAX - 2),
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            size: 4096,
            blocks: 8,
            atime: self.started,
            mtime: self.started,
            ctime: self.started,
        }
    }

    pub(super) fn read_root(&self, cursor: u64, plus: bool, emit: &mut Emit<'_>) {
        let mut entries: Vec<(Vec<u8>, Ino, Option<Attr>)> = vec![
            (b".".to_vec(), Ino::ROOT, None),
            (b"..".to_vec(), Ino::ROOT, None),
        ];
        let routes: Vec<(String, Route)> = {
            let repositories = self.repositories.read();
            let all = repositories.iter();
            all.map(|(name, m)| (name.clone(), Route::new(m))).collect()
        };
        for (name, at) in routes {
            // a repository whose published tree cannot be read is still listed
            let attr = at.attr(at.stage.getattr(Ino::ROOT, None)).ok();
            entries.push((name.into_bytes(), at.ino(Ino::ROOT), attr.filter(|_| plus)));
        }
        for (position, (name, ino, attr)) in (1..).zip(&entries) {
            if position <= cursor {
                continue;
            }
            let entry = DirEntryPlus {
                name,
                ino: *ino,
                kind: FileType::Directory,
                cursor: position,
                attr: *attr,
            };
            if emit(&entry).is_break() {
                return;
            }
        }
    }
}
