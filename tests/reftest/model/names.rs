//! Names: making, removing, moving. The order of the checks is Linux's.

use rustix::io::Errno;

use super::{Id, Kind, Model, Outcome, kind_of};
use crate::reftest::ops::{Answer, Moving, Op, Path};

impl Model {
    pub(super) fn on_names(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Mkdir { path, perm } => self.make(path, Kind::Directory, *perm),
            Op::Symlink { path, target } => self.make(path, Kind::Symlink(target.clone()), 0o777),
            Op::Mknod { path, perm, what } => self.make(path, kind_of(*what), *perm),
            Op::Rmdir { path } => self.rmdir(path),
            Op::Unlink { path } => self.unlink(path),
            Op::Link { from, to } => self.link(from, to),
            Op::Rename { from, to, how } => self.rename(from, to, *how),
            other => panic!("{other:?} is not about names"),
        }
    }

    fn make(&mut self, path: &Path, kind: Kind, perm: u16) -> Outcome {
        let (dir, name) = self.parent(path)?;
        if self.child(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.add(dir, name, kind, perm);
        Ok(Answer::Done)
    }

    /// Makes an inode and its first name.
    pub(super) fn add(&mut self, dir: Id, name: &[u8], kind: Kind, perm: u16) -> Id {
        let face = self.born(dir, kind, perm);
        let id = self.fresh(face);
        self.attach(dir, name, id);
        self.touch(dir);
        id
    }

    fn attach(&mut self, dir: Id, name: &[u8], id: Id) {
        self.entries(dir).insert(name.to_vec(), id);
        *self.links(id) += 1;
    }

    fn detach(&mut self, dir: Id, name: &[u8]) -> Id {
        let id = self.entries(dir).remove(name).unwrap();
        *self.links(id) -= 1;
        id
    }

    fn rmdir(&mut self, path: &Path) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = self.child(dir, name)?.ok_or(Errno::NOENT)?;
        if !self.is_dir(id) {
            return Err(Errno::NOTDIR);
        }
        if !self.inodes[&id].entries.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.detach(dir, name);
        self.touch(dir);
        Ok(Answer::Done)
    }

    fn unlink(&mut self, path: &Path) -> Outcome {
        let (dir, name) = self.parent(path)?;
        let id = self.child(dir, name)?.ok_or(Errno::NOENT)?;
        if self.is_dir(id) {
            return Err(Errno::ISDIR);
        }
        self.detach(dir, name);
        self.touch(dir);
        Ok(Answer::Done)
    }

    fn link(&mut self, from: &Path, to: &Path) -> Outcome {
        let id = self.lookup(from)?;
        let (dir, name) = self.parent(to)?;
        if self.child(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        if self.is_dir(id) {
            return Err(Errno::PERM);
        }
        self.attach(dir, name, id);
        self.touch(dir);
        Ok(Answer::Done)
    }

    fn rename(&mut self, from: &Path, to: &Path, how: Moving) -> Outcome {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let id = self.child(from_dir, from_name)?.ok_or(Errno::NOENT)?;
        let target = self.child(to_dir, to_name)?;
        match how {
            Moving::NoReplace if target.is_some() => return Err(Errno::EXIST),
            Moving::Exchange if target.is_none() => return Err(Errno::NOENT),
            _ => {}
        }
        if self.is_within(to_dir, id) {
            return Err(Errno::INVAL);
        }
        if target.is_some_and(|target| self.is_within(from_dir, target)) {
            return Err(match how {
                Moving::Exchange => Errno::INVAL,
                _ => Errno::NOTEMPTY,
            });
        }
        if target == Some(id) {
            // two names of one file: nothing is done
            return Ok(Answer::Done);
        }
        if let (Some(target), false) = (target, how == Moving::Exchange) {
            match (self.is_dir(id), self.is_dir(target)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.inodes[&target].entries.is_empty() => {
                    return Err(Errno::NOTEMPTY);
                }
                _ => {}
            }
        }
        self.detach(from_dir, from_name);
        if let Some(target) = target {
            self.detach(to_dir, to_name);
            if how == Moving::Exchange {
                self.attach(from_dir, from_name, target);
            }
        }
        self.attach(to_dir, to_name, id);
        self.touch(from_dir);
        self.touch(to_dir);
        Ok(Answer::Done)
    }

    /// True if `dir` is `above` or lies below it.
    fn is_within(&self, dir: Id, above: Id) -> bool {
        let below = self.inodes[&above].entries.values();
        dir == above || below.into_iter().any(|child| self.is_within(dir, *child))
    }
}
