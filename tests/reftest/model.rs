//! The one definition of right: a tree in memory, with POSIX's rules as ext4 keeps them, and what of
//! it is published.
//!
//! Where no rule decides, the model says that an operation is to be left out
//! ([`Verdict::LeaveOut`]) or that a time may be any ([`Stamp::Any`]). It knows nothing of any
//! subject.

mod names;
mod open;
mod publish;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::io::Errno;

use super::ops::{Answer, Making, Op, Path, SLOTS, Setting};

pub type Id = u64;
pub type Entries = BTreeMap<Vec<u8>, Id>;
pub const ROOT: Id = 0;
/// Longest name.
const NAME_MAX: usize = 255;
/// Files do not grow beyond this: the comparisons read all of them.
const SIZE_MAX: u64 = 400_000;

/// What the model expects.
#[derive(Debug)]
pub enum Verdict {
    Answer(Answer),
    /// No subject is to be asked.
    LeaveOut,
}

pub type Outcome<T = Answer> = Result<T, Errno>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    Regular(Arc<Vec<u8>>),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u64),
    BlockDevice(u64),
}

/// What a modification time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// It was set to this.
    At(i64, u32),
    /// The same, and published since: the nanoseconds may be gone.
    Published(i64, u32),
    /// It followed from something that this run did.
    Recent,
    Any,
}

/// What an inode is, but for its names.
#[derive(Clone, Debug)]
pub struct Face {
    pub kind: Kind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub stamp: Stamp,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Face {
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

pub struct Inode {
    pub face: Face,
    pub entries: Entries,
    /// Names of what is no directory.
    pub links: u32,
}

#[derive(Clone, Copy)]
struct Handle {
    id: Id,
    read: bool,
    write: bool,
    append: bool,
}

/// A published path.
#[derive(Clone)]
pub struct Published {
    /// The inode that it was when it was published.
    id: Id,
    pub face: Face,
}

/// What a comparison has to find.
pub struct Expected<'a> {
    pub id: Id,
    pub face: &'a Face,
    pub nlink: u32,
}

/// Who asks, as far as the model must know.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub uid: u32,
    pub gid: u32,
    pub umask: u16,
}

/// See the module's head.
pub struct Model {
    rules: Rules,
    inodes: BTreeMap<Id, Inode>,
    next: Id,
    handles: [Option<Handle>; SLOTS],
    published: BTreeMap<Path, Published>,
    saved: publish::Saved,
    /// Nothing happened since everything was published.
    pub clean: bool,
}

impl Model {
    /// A tree whose root, published and staged, is `root`.
    pub fn new(rules: Rules, root: Face) -> Self {
        let mut model = Self {
            rules,
            inodes: BTreeMap::new(),
            next: ROOT,
            handles: [None; SLOTS],
            published: BTreeMap::new(),
            saved: publish::Saved::new(),
            clean: true,
        };
        let id = model.fresh(root.clone());
        let published = Published { id, face: root };
        model.published.insert(Path::root(), published);
        model
    }

    /// Does it, and says what it has to answer.
    pub fn apply(&mut self, op: &Op) -> Verdict {
        let clean = self.clean;
        self.clean = false;
        let result = match op {
            Op::Commit { paths, writers } => return self.commit(paths, *writers, clean),
            Op::Abort { path } => return self.abort(path, clean),
            Op::Restart | Op::Kill => {
                self.handles = [None; SLOTS];
                self.clean = clean;
                return Verdict::Answer(Answer::Done);
            }
            Op::Seal => {
                self.clean = clean;
                return Verdict::Answer(Answer::Done);
            }
            Op::Open { .. }
            | Op::Close { .. }
            | Op::Write { .. }
            | Op::Read { .. }
            | Op::Resize { .. }
            | Op::Space { .. }
            | Op::Copy { .. }
            | Op::Sync { .. }
            | Op::Put { .. } => return self.on_files(op),
            Op::Mkdir { .. }
            | Op::Rmdir { .. }
            | Op::Unlink { .. }
            | Op::Rename { .. }
            | Op::Link { .. }
            | Op::Symlink { .. }
            | Op::Mknod { .. } => self.on_names(op),
            Op::Truncate { path, size } => self.truncate(path, *size),
            Op::Chmod { path, perm } => self.chmod(path, *perm),
            Op::Chown { path, uid, gid } => self.chown(path, *uid, *gid),
            Op::Utimens { path, secs, nanos } => self.attribute(path, |face| {
                face.stamp = Stamp::At(*secs, *nanos);
            }),
            Op::Setxattr {
                path,
                name,
                value,
                how,
            } => self.setxattr(path, name.as_bytes(), value, *how),
            Op::Removexattr { path, name } => self.removexattr(path, name.as_bytes()),
        };
        Verdict::Answer(result.unwrap_or_else(failed))
    }

    /// Everything visible, the root first.
    pub fn tree(&self) -> BTreeMap<Path, Expected<'_>> {
        let mut found = BTreeMap::new();
        self.walk(ROOT, &Path::root(), &mut |path, id| {
            let expected = Expected {
                id,
                face: &self.inodes[&id].face,
                nlink: self.nlink(id),
            };
            found.insert(path.clone(), expected);
        });
        found
    }

    /// Everything published, hard links broken up.
    pub fn published(&self) -> &BTreeMap<Path, Published> {
        &self.published
    }

    /// Subdirectories of a published directory.
    pub fn published_subdirs(&self, path: &Path) -> u32 {
        let below = self.published.iter().filter(|(at, inner)| {
            inner.face.is_dir() && at.split().is_some_and(|(dir, _)| dir == *path)
        });
        u32::try_from(below.count()).unwrap()
    }

    /// An open file: whether it may be read, its bytes, its links.
    pub fn handle(&self, slot: usize) -> Option<(bool, &[u8], u32)> {
        let handle = self.handles[slot]?;
        let bytes = self.bytes(handle.id);
        Some((handle.read, bytes, self.nlink(handle.id)))
    }

    /// All paths but the root.
    pub fn paths(&self) -> Vec<Path> {
        self.tree()
            .into_keys()
            .filter(|p| *p != Path::root())
            .collect()
    }

    /// All directories.
    pub fn directories(&self) -> Vec<Path> {
        let tree = self.tree();
        let dirs = tree.into_iter().filter(|(_, e)| e.face.is_dir());
        dirs.map(|(path, _)| path).collect()
    }

    fn walk(&self, id: Id, path: &Path, see: &mut dyn FnMut(&Path, Id)) {
        see(path, id);
        for (name, child) in &self.inodes[&id].entries {
            self.walk(*child, &path.join(name), see);
        }
    }

    fn nlink(&self, id: Id) -> u32 {
        let inode = &self.inodes[&id];
        if !inode.face.is_dir() {
            return inode.links;
        }
        let subdirs = inode.entries.values().filter(|id| self.is_dir(**id));
        2 + u32::try_from(subdirs.count()).unwrap()
    }

    fn is_dir(&self, id: Id) -> bool {
        self.inodes[&id].face.is_dir()
    }

    fn fresh(&mut self, face: Face) -> Id {
        let id = self.next;
        self.next += 1;
        let inode = Inode {
            face,
            entries: Entries::new(),
            links: 0,
        };
        self.inodes.insert(id, inode);
        id
    }

    fn face(&mut self, id: Id) -> &mut Face {
        &mut self.inodes.get_mut(&id).unwrap().face
    }

    fn entries(&mut self, id: Id) -> &mut Entries {
        &mut self.inodes.get_mut(&id).unwrap().entries
    }

    fn links(&mut self, id: Id) -> &mut u32 {
        &mut self.inodes.get_mut(&id).unwrap().links
    }

    fn bytes(&self, id: Id) -> &[u8] {
        match &self.inodes[&id].face.kind {
            Kind::Regular(bytes) => bytes,
            other => panic!("{other:?} has no bytes"),
        }
    }

    fn bytes_mut(&mut self, id: Id) -> &mut Vec<u8> {
        match &mut self.face(id).kind {
            Kind::Regular(bytes) => Arc::make_mut(bytes),
            other => panic!("{other:?} has no bytes"),
        }
    }

    /// A name in a directory.
    fn child(&self, dir: Id, name: &[u8]) -> Outcome<Option<Id>> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(self.inodes[&dir].entries.get(name).copied())
    }

    /// The directory of a path's last name. Symbolic links on the way all lead nowhere.
    fn parent<'p>(&self, path: &'p Path) -> Outcome<(Id, &'p [u8])> {
        let Some((dir, _)) = path.split() else {
            return Err(Errno::BUSY);
        };
        let mut at = ROOT;
        for name in dir.names() {
            let next = self.child(at, name)?.ok_or(Errno::NOENT)?;
            match self.inodes[&next].face.kind {
                Kind::Directory => at = next,
                Kind::Symlink(_) => return Err(Errno::NOENT),
                _ => return Err(Errno::NOTDIR),
            }
        }
        Ok((at, path.split().unwrap().1))
    }

    /// What a path is, a symbolic link itself included.
    fn lookup(&self, path: &Path) -> Outcome<Id> {
        if *path == Path::root() {
            return Ok(ROOT);
        }
        let (dir, name) = self.parent(path)?;
        self.child(dir, name)?.ok_or(Errno::NOENT)
    }

    /// What a path leads to: nowhere, where it is a symbolic link.
    fn follow(&self, path: &Path) -> Outcome<Id> {
        let id = self.lookup(path)?;
        match self.inodes[&id].face.kind {
            Kind::Symlink(_) => Err(Errno::NOENT),
            _ => Ok(id),
        }
    }

    /// A new inode's face in a directory.
    fn born(&self, dir: Id, kind: Kind, perm: u16) -> Face {
        let above = &self.inodes[&dir].face;
        let inherits = above.perm & 0o2000 != 0;
        let perm = match kind {
            Kind::Symlink(_) => 0o777,
            Kind::Directory if inherits => perm & !self.rules.umask | 0o2000,
            _ => perm & !self.rules.umask,
        };
        Face {
            kind,
            perm,
            uid: self.rules.uid,
            gid: if inherits { above.gid } else { self.rules.gid },
            stamp: Stamp::Recent,
            xattrs: BTreeMap::new(),
        }
    }

    fn touch(&mut self, id: Id) {
        self.face(id).stamp = Stamp::Recent;
    }

    fn attribute(&mut self, path: &Path, change: impl FnOnce(&mut Face)) -> Outcome {
        let id = self.lookup(path)?;
        change(self.face(id));
        Ok(Answer::Done)
    }

    fn chmod(&mut self, path: &Path, perm: u16) -> Outcome {
        let id = self.follow(path)?;
        self.face(id).perm = perm;
        Ok(Answer::Done)
    }

    fn chown(&mut self, path: &Path, uid: u32, gid: u32) -> Outcome {
        self.attribute(path, |face| {
            (face.uid, face.gid) = (uid, gid);
            if !face.is_dir() {
                face.perm &= !0o4000;
                if face.perm & 0o010 != 0 {
                    face.perm &= !0o2000;
                }
            }
        })
    }

    fn truncate(&mut self, path: &Path, size: u64) -> Outcome {
        let id = self.follow(path)?;
        match self.inodes[&id].face.kind {
            Kind::Regular(_) => {}
            Kind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        self.resize(id, size);
        Ok(Answer::Done)
    }

    fn resize(&mut self, id: Id, size: u64) {
        let size = usize::try_from(size).unwrap();
        let same = self.bytes(id).len() == size;
        self.bytes_mut(id).resize(size, 0);
        // truncate() and ftruncate() to the same size differ in what they do to the time
        self.face(id).stamp = if same { Stamp::Any } else { Stamp::Recent };
    }

    /// The inode, if it may have extended attributes of users.
    fn with_xattrs(&mut self, path: &Path) -> Outcome<&mut BTreeMap<Vec<u8>, Vec<u8>>> {
        let id = self.lookup(path)?;
        let face = self.face(id);
        match face.kind {
            Kind::Regular(_) | Kind::Directory => Ok(&mut face.xattrs),
            _ => Err(Errno::PERM),
        }
    }

    fn setxattr(&mut self, path: &Path, name: &[u8], value: &[u8], how: Setting) -> Outcome {
        let xattrs = self.with_xattrs(path)?;
        let has = xattrs.contains_key(name);
        match how {
            Setting::Create if has => return Err(Errno::EXIST),
            Setting::Replace if !has => return Err(Errno::NODATA),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        Ok(Answer::Done)
    }

    fn removexattr(&mut self, path: &Path, name: &[u8]) -> Outcome {
        let xattrs = self.with_xattrs(path)?;
        xattrs.remove(name).ok_or(Errno::NODATA)?;
        Ok(Answer::Done)
    }
}

fn failed(errno: Errno) -> Answer {
    Answer::Failed(errno.raw_os_error())
}

fn kind_of(what: Making) -> Kind {
    match what {
        Making::Regular => Kind::Regular(Arc::default()),
        Making::Fifo => Kind::Fifo,
        Making::Socket => Kind::Socket,
        Making::CharDevice(rdev) => Kind::CharDevice(rdev),
        Making::BlockDevice(rdev) => Kind::BlockDevice(rdev),
    }
}
