//! A repository in memory, of one catalog for each revision, and a commit that applies a change set
//! the way its documentation says and checks nothing.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use formats::catalog::{CatalogWriter, Counters, Counts, Role, Row, Stamp};
use formats::compress::{compress, decompress};
use formats::{
    Algorithm, ChangeSet, Children, Compression, Content, Entry, Hash, Kind, Mtime, ObjectKind,
    ObjectName, Op, PathHash, Regular, RepoPath, Xattrs,
};
use fsimpl::Frozen;
use parking_lot::Mutex;
use store::{MemoryStore, ObjectStore, Repository};

/// A revision's entries by path.
pub type Tree = BTreeMap<RepoPath, Entry>;

/// See the module's head.
pub struct Published {
    pub store: Arc<dyn ObjectStore>,
    pub repository: Arc<Repository>,
    revisions: Mutex<HashMap<Hash, (u64, Tree)>>,
    dir: tempfile::TempDir,
}

pub fn dir(perm: u16) -> Entry {
    entry(Kind::Directory { size: 4096 }, perm)
}

pub fn link(target: &str) -> Entry {
    entry(Kind::Symlink(target.into()), 0o777)
}

/// A file whose content is stored by [`Published::publish_with`].
pub fn file(bytes: &[u8]) -> (Entry, Vec<u8>) {
    let stored = compress(Compression::Zlib, bytes);
    let regular = Regular {
        size: bytes.len() as u64,
        content: Content::Whole(Hash::of(Algorithm::Sha1, &stored)),
        compression: Compression::Zlib,
        external: false,
        direct_io: false,
        link_group: 0,
    };
    (entry(Kind::Regular(regular), 0o644), stored)
}

fn entry(kind: Kind, perm: u16) -> Entry {
    Entry {
        kind,
        perm,
        uid: 0,
        gid: 0,
        mtime: Mtime {
            secs: 1_000_000_000,
            nanos: Some(5),
        },
        xattrs: Xattrs::new(),
    }
}

impl Published {
    /// A repository whose first revision has these entries; the root is added.
    pub fn new(entries: Vec<(&str, (Entry, Vec<u8>))>) -> (Arc<Self>, Hash) {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let repository = Repository::new(
            "test.example.org",
            Arc::clone(&store),
            Vec::new(),
            dir.path().join("catalogs"),
            store::Limits::default(),
        );
        let this = Self {
            repository: Arc::new(repository.unwrap()),
            store,
            revisions: Mutex::default(),
            dir,
        };
        let mut tree = Tree::new();
        tree.insert(RepoPath::root(), self::dir(0o755));
        for (path, (entry, stored)) in entries {
            this.keep(&entry, &stored);
            tree.insert(path.parse().unwrap(), entry);
        }
        let root = this.publish(tree, None);
        (Arc::new(this), root)
    }

    fn keep(&self, entry: &Entry, stored: &[u8]) {
        if let Some(regular) = entry.regular() {
            for name in regular.content.objects() {
                store::put(&*self.store, &name, stored).unwrap();
            }
        }
    }

    /// The entries of a revision.
    pub fn tree(&self, root: &Hash) -> Tree {
        self.revisions.lock()[root].1.clone()
    }

    /// Another publisher's revision: `change` made on top of `base`.
    pub fn publish_with(&self, base: &Hash, change: impl FnOnce(&mut Tree, &Self)) -> Hash {
        let mut tree = self.tree(base);
        change(&mut tree, self);
        self.publish(tree, Some(*base))
    }

    /// Puts a file into a tree and its content into the store.
    pub fn put(&self, tree: &mut Tree, path: &str, (entry, stored): (Entry, Vec<u8>)) {
        self.keep(&entry, &stored);
        tree.insert(path.parse().unwrap(), entry);
    }

    /// Publishes a tree.
    pub fn publish(&self, tree: Tree, previous: Option<Hash>) -> Hash {
        let revision = previous.map_or(1, |p| self.revisions.lock()[&p].0 + 1);
        let scratch = tempfile::tempdir_in(self.dir.path()).unwrap();
        let file = scratch.path().join("catalog");
        let mut writer = CatalogWriter::create(&file, &RepoPath::root()).unwrap();
        let mut counters = Counters::default();
        for (path, entry) in &tree {
            let row = row(&tree, path, entry);
            counters.self_ += Counts::of(&row);
            writer.put(&row).unwrap();
        }
        writer.set_counters(&counters).unwrap();
        let stamp = Stamp {
            revision,
            previous,
            last_modified: 1_000_000_000,
            ttl: Some(240),
        };
        writer.finish(stamp).unwrap();
        let stored = compress(Compression::Zlib, &std::fs::read(&file).unwrap());
        let root = Hash::of(Algorithm::Sha1, &stored);
        let name = ObjectName::new(root, ObjectKind::Catalog);
        store::put(&*self.store, &name, &stored).unwrap();
        self.revisions.lock().insert(root, (revision, tree));
        root
    }

    /// Publishes a snapshot on top of `head`; the new root.
    pub fn commit(&self, head: &Hash, frozen: &Frozen) -> Hash {
        for change in &frozen.change_set.changes {
            let Op::Put { entry, .. } = &change.op else {
                continue;
            };
            for name in entry.regular().iter().flat_map(|r| r.content.objects()) {
                if !self.store.has(&name).unwrap() {
                    store::transfer(&*frozen.objects, &*self.store, &name, true).unwrap();
                }
            }
        }
        let tree = self.applied(head, &frozen.change_set);
        self.publish(tree, Some(*head))
    }

    /// What a change set makes of a revision.
    pub fn applied(&self, head: &Hash, set: &ChangeSet) -> Tree {
        let mut tree = self.tree(head);
        let mut last: Option<&RepoPath> = None;
        for change in &set.changes {
            assert!(
                last < Some(&change.path),
                "sorted, each path once: {:?}",
                change.path
            );
            last = Some(&change.path);
            let path = &change.path;
            match &change.op {
                Op::Remove => drop_below(&mut tree, path),
                Op::Put {
                    entry, children, ..
                } => {
                    match children {
                        Children::Same => {
                            assert!(tree.get(path).is_some_and(Entry::is_dir), "{path:?}");
                        }
                        Children::None => drop_below(&mut tree, path),
                        Children::From(from) => {
                            drop_below(&mut tree, path);
                            let source = self.tree(&from.root);
                            let from = &from.path;
                            assert!(source.get(from).is_some_and(Entry::is_dir), "{from:?}");
                            for (old, entry) in &source {
                                if let Some(rest) = old.below(from) {
                                    tree.insert(path.concat(&rest), entry.clone());
                                }
                            }
                        }
                    }
                    let parent = path.parent();
                    let stands = |p: RepoPath| tree.get(&p).is_some_and(Entry::is_dir);
                    assert!(parent.is_none_or(stands), "no directory above {path:?}");
                    tree.insert(path.clone(), ungrouped(entry));
                }
            }
        }
        tree
    }

    /// A published file's bytes.
    pub fn read(&self, root: &Hash, path: &str) -> Vec<u8> {
        let tree = self.tree(root);
        let regular = tree[&path.parse::<RepoPath>().unwrap()]
            .regular()
            .unwrap()
            .clone();
        let mut bytes = Vec::new();
        for name in regular.content.objects() {
            let stored = self.store.open(&name).unwrap();
            decompress(regular.compression, stored)
                .read_to_end(&mut bytes)
                .unwrap();
        }
        assert_eq!(bytes.len() as u64, regular.size);
        bytes
    }
}

/// Groups of hard links are broken up.
fn ungrouped(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if let Kind::Regular(regular) = &mut entry.kind {
        regular.link_group = 0;
    }
    entry
}

fn drop_below(tree: &mut Tree, path: &RepoPath) {
    let range = tree.range(path.clone()..).map(|(p, _)| p.clone());
    let below: Vec<RepoPath> = range.take_while(|p| p.is_within(path)).collect();
    for path in below {
        tree.remove(&path);
    }
}

fn row(tree: &Tree, path: &RepoPath, entry: &Entry) -> Row {
    let parent = path.parent();
    let subdirs = || {
        let below = tree
            .iter()
            .filter(|(p, _)| p.parent().as_ref() == Some(path));
        below.filter(|(_, e)| e.is_dir()).count()
    };
    let group = entry.regular().map_or(0, |r| r.link_group);
    let linkcount = if entry.is_dir() && tree.len() < 2000 {
        2 + subdirs()
    } else if entry.is_dir() {
        2
    } else if group == 0 {
        1
    } else {
        let same = |(p, e): &(&RepoPath, &Entry)| {
            p.parent() == parent && e.regular().is_some_and(|r| r.link_group == group)
        };
        tree.iter().filter(same).count()
    };
    Row {
        path: path.path_hash(),
        parent: parent.map_or(PathHash::NONE, |p| p.path_hash()),
        name: path.name().map_or_else(Vec::new, |n| n.as_bytes().to_vec()),
        entry: entry.clone(),
        linkcount: u32::try_from(linkcount).unwrap(),
        link_group: u32::try_from(group).unwrap(),
        role: Role::Plain,
        hidden: false,
    }
}
