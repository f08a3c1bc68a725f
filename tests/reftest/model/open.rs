//! Open files.

use std::sync::Arc;

use rustix::io::Errno;

use super::{Handle, Id, Kind, Model, Outcome, SIZE_MAX, Stamp, Verdict, failed};
use crate::reftest::ops::{Answer, Fill, How, Op, Path, Space};

/// `None`: to be left out.
type Maybe = Option<Outcome>;

impl Model {
    pub(super) fn on_files(&mut self, op: &Op) -> Verdict {
        let result = match op {
            Op::Open {
                slot,
                path,
                how,
                perm,
            } => self.open(*slot, path, *how, *perm),
            Op::Close { slot } => self.handles[*slot].take().map(|_| Ok(Answer::Done)),
            Op::Write { slot, offset, fill } => self.write(*slot, *offset, *fill),
            Op::Read {
                slot,
                offset,
                length,
            } => self.read(*slot, *offset, *length),
            Op::Resize { slot, size } => self.handles[*slot].map(|handle| {
                if !handle.write {
                    return Err(Errno::INVAL);
                }
                self.resize(handle.id, *size);
                Ok(Answer::Done)
            }),
            Op::Space {
                slot,
                offset,
                length,
                how,
            } => self.space(*slot, *offset, *length, *how),
            Op::Copy {
                from,
                from_offset,
                to,
                to_offset,
                length,
            } => self.copy((*from, *from_offset), (*to, *to_offset), *length),
            Op::Sync { slot } => self.handles[*slot].map(|_| Ok(Answer::Done)),
            Op::Put { path, fill } => self.put(path, *fill),
            other => panic!("{other:?} is not about open files"),
        };
        match result {
            None => Verdict::LeaveOut,
            Some(result) => Verdict::Answer(result.unwrap_or_else(failed)),
        }
    }

    fn open(&mut self, slot: usize, path: &Path, how: How, perm: u16) -> Maybe {
        match self.open_inode(path, how, perm)? {
            Err(errno) => {
                self.handles[slot] = None;
                Some(Err(errno))
            }
            Ok(id) => {
                let How {
                    read,
                    write,
                    append,
                    ..
                } = how;
                self.handles[slot] = Some(Handle {
                    id,
                    read,
                    write,
                    append,
                });
                Some(Ok(Answer::Done))
            }
        }
    }

    /// Opens with O_NOFOLLOW. What is neither a file nor an error is left out: a directory opened
    /// for reading, a fifo.
    fn open_inode(&mut self, path: &Path, how: How, perm: u16) -> Option<Outcome<Id>> {
        let found = self
            .parent(path)
            .and_then(|(dir, name)| Ok((dir, name, self.child(dir, name)?)));
        let (dir, name, found) = match found {
            Ok(found) => found,
            Err(errno) => return Some(Err(errno)),
        };
        let Some(id) = found else {
            if !how.create {
                return Some(Err(Errno::NOENT));
            }
            let kind = Kind::Regular(Arc::default());
            return Some(Ok(self.add(dir, name, kind, perm)));
        };
        if how.create && how.exclusive {
            return Some(Err(Errno::EXIST));
        }
        match &self.inodes[&id].face.kind {
            Kind::Symlink(_) => return Some(Err(Errno::LOOP)),
            Kind::Directory if how.create || how.write => return Some(Err(Errno::ISDIR)),
            Kind::Regular(_) => {}
            _ => return None,
        }
        if how.truncate {
            self.resize(id, 0);
        }
        Some(Ok(id))
    }

    fn put(&mut self, path: &Path, fill: Fill) -> Maybe {
        let how = How {
            write: true,
            create: true,
            truncate: true,
            ..How::default()
        };
        let id = match self.open_inode(path, how, 0o644)? {
            Ok(id) => id,
            Err(errno) => return Some(Err(errno)),
        };
        if fill.length > 0 {
            self.store(id, 0, &fill.bytes());
        }
        Some(Ok(Answer::Done))
    }

    fn store(&mut self, id: Id, offset: u64, data: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let bytes = self.bytes_mut(id);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        self.touch(id);
    }

    fn write(&mut self, slot: usize, offset: u64, fill: Fill) -> Maybe {
        let handle = self.handles[slot]?;
        if !handle.write {
            return Some(Err(Errno::BADF));
        }
        let offset = match handle.append {
            true => self.bytes(handle.id).len() as u64,
            false => offset,
        };
        if offset + fill.length as u64 > SIZE_MAX {
            return None;
        }
        self.store(handle.id, offset, &fill.bytes());
        Some(Ok(Answer::Count(fill.length as u64)))
    }

    fn read(&self, slot: usize, offset: u64, length: usize) -> Maybe {
        let handle = self.handles[slot]?;
        if !handle.read {
            return Some(Err(Errno::BADF));
        }
        let bytes = self.bytes(handle.id);
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = (start + length).min(bytes.len());
        Some(Ok(Answer::Bytes(bytes[start..end].to_vec())))
    }

    fn space(&mut self, slot: usize, offset: u64, length: u64, how: Space) -> Maybe {
        let handle = self.handles[slot]?;
        if !handle.write {
            return Some(Err(Errno::BADF));
        }
        let start = usize::try_from(offset).unwrap();
        let end = start + usize::try_from(length).unwrap();
        let bytes = self.bytes_mut(handle.id);
        match how {
            Space::Allocate if bytes.len() < end => bytes.resize(end, 0),
            Space::Punch => {
                let end = end.min(bytes.len());
                bytes[start.min(end)..end].fill(0);
            }
            Space::Allocate | Space::KeepSize => {}
        }
        // filesystems differ in what this does to the time
        self.face(handle.id).stamp = Stamp::Any;
        Some(Ok(Answer::Done))
    }

    fn copy(&mut self, from: (usize, u64), to: (usize, u64), length: u64) -> Maybe {
        let (source, target) = (self.handles[from.0]?, self.handles[to.0]?);
        if !source.read || !target.write || target.append {
            return Some(Err(Errno::BADF));
        }
        let size = self.bytes(source.id).len() as u64;
        let count = length.min(size.saturating_sub(from.1));
        if source.id == target.id && to.1 + count > from.1 && to.1 < from.1 + count {
            return Some(Err(Errno::INVAL));
        }
        if to.1 + count > SIZE_MAX {
            return None;
        }
        if count > 0 {
            let start = usize::try_from(from.1).unwrap();
            let end = start + usize::try_from(count).unwrap();
            let data = self.bytes(source.id)[start..end].to_vec();
            self.store(target.id, to.1, &data);
        }
        Some(Ok(Answer::Count(count)))
    }
}
