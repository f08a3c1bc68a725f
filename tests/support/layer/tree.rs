//! A filesystem in memory, and what can be done to it. Copies share what they have in common.
//!
//! A file's bytes are pages; a page that is not there is a hole. Inodes exist whether they have a
//! name or not. Nothing here knows what is durable.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The size of what a disk writes at once.
pub const PAGE: u64 = 4096;

/// An inode.
pub type Number = u64;

pub const ROOT: Number = 1;

pub type Name = Vec<u8>;

/// What an inode is, and what only that has.
#[derive(Clone, Debug)]
pub enum Kind {
    Directory(BTreeMap<Name, Number>),
    File(Bytes),
    Symlink(Vec<u8>),
    /// A socket or the like, by its type bits.
    Special(u32),
}

#[derive(Clone, Debug, Default)]
pub struct Bytes {
    pub size: u64,
    pages: BTreeMap<u64, Arc<[u8]>>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: SystemTime,
}

impl Bytes {
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let here = at + done as u64;
            let within = usize::try_from(here % PAGE).unwrap();
            let some = (bytes.len() - done).min(usize::try_from(PAGE).unwrap() - within);
            let page = self
                .pages
                .entry(here / PAGE)
                .or_insert_with(|| Arc::from([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + some].copy_from_slice(&bytes[done..done + some]);
            done += some;
        }
        self.size = self.size.max(at + bytes.len() as u64);
    }

    pub fn zero(&mut self, at: u64, length: u64) {
        let size = self.size;
        let mut here = at;
        while here < at + length {
            let some = (PAGE - here % PAGE).min(at + length - here);
            if some == PAGE {
                self.pages.remove(&(here / PAGE));
            } else if self.pages.contains_key(&(here / PAGE)) {
                self.write(here, &vec![0; usize::try_from(some).unwrap()]);
            }
            here += some;
        }
        self.size = size;
    }

    pub fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.pages.split_off(&size.div_ceil(PAGE));
            let rest = size.div_ceil(PAGE) * PAGE - size;
            self.zero(size, rest);
        }
        self.size = size;
    }

    pub fn read(&self, at: u64, length: u64) -> Vec<u8> {
        let end = self.size.min(at.saturating_add(length));
        let mut out = vec![0; usize::try_from(end.saturating_sub(at)).unwrap()];
        let mut here = at;
        while here < end {
            let within = usize::try_from(here % PAGE).unwrap();
            let some = usize::try_from((PAGE - here % PAGE).min(end - here)).unwrap();
            if let Some(page) = self.pages.get(&(here / PAGE)) {
                let to = usize::try_from(here - at).unwrap();
                out[to..to + some].copy_from_slice(&page[within..within + some]);
            }
            here += some as u64;
        }
        out
    }

    /// Bytes that are not holes.
    pub fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }
}

impl Node {
    pub fn new(kind: Kind, perm: u32) -> Self {
        Self {
            kind,
            perm,
            uid: 0,
            gid: 0,
            mtime: SystemTime::now(),
        }
    }
}

/// A change of names.
#[derive(Clone, Debug)]
pub enum Names {
    /// A new name, of a new inode or of one that is there.
    Add(Number, Name, Number),
    /// A name goes: that of this inode.
    Remove(Number, Name, Number),
    /// An inode changes its name, over whatever has the new one.
    Move((Number, Name), (Number, Name), Number),
}

impl Names {
    /// The directories that it changes.
    pub fn touches(&self, dir: Number) -> bool {
        match self {
            Self::Add(at, ..) | Self::Remove(at, ..) => *at == dir,
            Self::Move(from, to, _) => from.0 == dir || to.0 == dir,
        }
    }
}

/// All inodes.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: HashMap<Number, Arc<Node>>,
}

impl Tree {
    /// An empty root.
    pub fn new() -> Self {
        let root = Node::new(Kind::Directory(BTreeMap::new()), 0o755);
        Self {
            nodes: HashMap::from([(ROOT, Arc::new(root))]),
        }
    }

    pub fn node(&self, number: Number) -> Option<&Node> {
        self.nodes.get(&number).map(|node| &**node)
    }

    pub fn node_mut(&mut self, number: Number) -> Option<&mut Node> {
        self.nodes.get_mut(&number).map(Arc::make_mut)
    }

    pub fn file(&self, number: Number) -> Option<&Bytes> {
        match &self.node(number)?.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn file_mut(&mut self, number: Number) -> Option<&mut Bytes> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn entries(&self, dir: Number) -> Option<&BTreeMap<Name, Number>> {
        match &self.node(dir)?.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn find(&self, dir: Number, name: &[u8]) -> Option<Number> {
        self.entries(dir)?.get(name).copied()
    }

    fn entries_mut(&mut self, dir: Number) -> Option<&mut BTreeMap<Name, Number>> {
        match &mut self.node_mut(dir)?.kind {
            Kind::Directory(entries) => Some(entries),
            _ => None,
        }
    }

    /// A new inode, without a name.
    pub fn insert(&mut self, number: Number, node: Node) {
        self.nodes.insert(number, Arc::new(node));
    }

    /// Changes names, as far as they are what the change takes them for.
    pub fn rename(&mut self, names: &Names) {
        match names {
            Names::Add(dir, name, number) => self.put(*dir, name, *number),
            Names::Remove(dir, name, number) => self.take(*dir, name, *number),
            Names::Move((from, old), (to, new), number) => {
                self.take(*from, old, *number);
                self.put(*to, new, *number);
            }
        }
    }

    fn put(&mut self, dir: Number, name: &Name, number: Number) {
        if let Some(entries) = self.entries_mut(dir) {
            entries.insert(name.clone(), number);
        }
    }

    fn take(&mut self, dir: Number, name: &Name, number: Number) {
        if let Some(entries) = self.entries_mut(dir)
            && entries.get(name) == Some(&number)
        {
            entries.remove(name);
        }
    }

    /// Drops inodes that cannot be reached.
    pub fn prune(&mut self) {
        let mut reached: HashMap<Number, Arc<Node>> = HashMap::new();
        let mut next = vec![ROOT];
        while let Some(number) = next.pop() {
            let Some(node) = self.nodes.get(&number) else {
                continue;
            };
            if reached.insert(number, Arc::clone(node)).is_none()
                && let Kind::Directory(entries) = &node.kind
            {
                next.extend(entries.values());
            }
        }
        self.nodes = reached;
    }

    /// The highest number.
    pub fn last(&self) -> Number {
        self.nodes.keys().copied().max().unwrap_or(ROOT)
    }

    /// Writes everything into a directory, for people to look at.
    pub fn write_out(&self, to: &Path) -> std::io::Result<()> {
        self.write_dir(ROOT, to)
    }

    fn write_dir(&self, dir: Number, to: &Path) -> std::io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        std::fs::create_dir_all(to)?;
        for (name, number) in self.entries(dir).into_iter().flatten() {
            let path = to.join(std::ffi::OsStr::from_bytes(name));
            match self.node(*number).map(|node| &node.kind) {
                Some(Kind::Directory(_)) => self.write_dir(*number, &path)?,
                Some(Kind::File(bytes)) => std::fs::write(&path, bytes.read(0, bytes.size))?,
                Some(Kind::Symlink(target)) => {
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &path)?;
                }
                Some(Kind::Special(_)) | None => {}
            }
        }
        Ok(())
    }
}
