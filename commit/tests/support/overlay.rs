//! A tiny stage: changes laid over a revision, as the filesystem keeps them, with moves as references.

use std::collections::BTreeMap;
use std::sync::Arc;

use formats::changeset::{Change, ChangeSet, Children, Op, Source};
use formats::entry::{Entry, Kind};
use formats::path::{Name, RepoPath};
use store::Revision;

/// A staged entry.
#[derive(Clone, Debug)]
pub struct Node {
    pub entry: Entry,
    /// The published directory whose entries show through.
    lower: Option<RepoPath>,
    explicit: bool,
    kids: BTreeMap<Name, Option<Node>>,
}

impl Node {
    pub fn new(entry: Entry) -> Self {
        Self {
            entry,
            lower: None,
            explicit: true,
            kids: BTreeMap::new(),
        }
    }

    fn lowered(entry: Entry, lower: RepoPath) -> Self {
        let lower = entry.is_dir().then_some(lower);
        Self {
            entry,
            lower,
            explicit: false,
            kids: BTreeMap::new(),
        }
    }
}

/// A revision with changes over it.
#[derive(Debug)]
pub struct Overlay {
    repo: String,
    base: Arc<Revision>,
    root: Node,
}

impl Overlay {
    pub fn new(repo: &str, base: Arc<Revision>) -> Self {
        let root = base.lookup(&RepoPath::root()).unwrap().unwrap().entry;
        Self {
            repo: repo.to_owned(),
            root: Node::lowered(root, RepoPath::root()),
            base,
        }
    }

    /// The staged node of a directory, copied up on the way.
    fn dir(&mut self, path: &RepoPath) -> &mut Node {
        let base = &self.base;
        let mut at = &mut self.root;
        for name in path.components() {
            let below = at.lower.as_ref().map(|lower| lower.join(&name));
            at = at
                .kids
                .entry(name)
                .or_insert_with(|| {
                    let lower = below.unwrap();
                    let entry = base.lookup(&lower).unwrap().unwrap().entry;
                    Some(Node::lowered(entry, lower))
                })
                .as_mut()
                .unwrap();
        }
        at
    }

    /// Takes a path away; what it was.
    pub fn take(&mut self, path: &RepoPath) -> Node {
        let base = self.base.clone();
        let name = path.name().unwrap();
        let parent = self.dir(&path.parent().unwrap());
        let published = parent.lower.as_ref().map(|lower| lower.join(&name));
        let published = published.and_then(|lower| {
            let entry = base.lookup(&lower).unwrap()?.entry;
            Some((entry, lower))
        });
        let staged = parent.kids.remove(&name);
        if published.is_some() {
            parent.kids.insert(name, None);
        }
        match staged {
            Some(node) => node.unwrap(),
            None => {
                let (entry, lower) = published.unwrap();
                Node {
                    explicit: true,
                    ..Node::lowered(entry, lower)
                }
            }
        }
    }

    /// Puts a node where nothing stands.
    pub fn put(&mut self, path: &RepoPath, mut node: Node) {
        node.explicit = true;
        let name = path.name().unwrap();
        let parent = self.dir(&path.parent().unwrap());
        parent.kids.insert(name, Some(node));
    }

    /// Changes metadata.
    pub fn edit(&mut self, path: &RepoPath, change: impl FnOnce(&mut Entry)) {
        let mut node = self.take(path);
        change(&mut node.entry);
        self.put(path, node);
    }

    /// Everything that stands, but the root.
    pub fn view(&self) -> BTreeMap<RepoPath, Entry> {
        let mut found = BTreeMap::new();
        self.view_of(&self.root, &RepoPath::root(), &mut found);
        found
    }

    fn view_of(&self, node: &Node, path: &RepoPath, found: &mut BTreeMap<RepoPath, Entry>) {
        if let Some(lower) = &node.lower {
            self.view_lower(lower, path, &node.kids, found);
        }
        for (name, kid) in &node.kids {
            if let Some(kid) = kid {
                let path = path.join(name);
                found.insert(path.clone(), kid.entry.clone());
                self.view_of(kid, &path, found);
            }
        }
    }

    fn view_lower(
        &self,
        lower: &RepoPath,
        path: &RepoPath,
        hidden: &BTreeMap<Name, Option<Node>>,
        found: &mut BTreeMap<RepoPath, Entry>,
    ) {
        for row in self.base.list(lower).unwrap() {
            let name = Name::new(&row.name).unwrap();
            if hidden.contains_key(&name) {
                continue;
            }
            let (lower, path) = (lower.join(&name), path.join(&name));
            if row.entry.is_dir() {
                self.view_lower(&lower, &path, &BTreeMap::new(), found);
            }
            found.insert(path, row.entry);
        }
    }

    /// The change set that the stage would freeze.
    pub fn freeze(&self) -> ChangeSet {
        let mut changes = Vec::new();
        self.freeze_in(&self.root, &RepoPath::root(), &mut changes);
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        ChangeSet {
            repo: self.repo.clone(),
            targets: vec![RepoPath::root()],
            changes,
        }
    }

    fn freeze_in(&self, node: &Node, path: &RepoPath, changes: &mut Vec<Change>) {
        for (name, kid) in &node.kids {
            let path = path.join(name);
            let op = match kid {
                None => Op::Remove,
                Some(kid) => Op::Put {
                    entry: kid.entry.clone(),
                    children: match &kid.lower {
                        None => Children::None,
                        Some(lower) if *lower == path => Children::Same,
                        Some(lower) => Children::From(Box::new(Source {
                            root: *self.base.root_hash(),
                            path: lower.clone(),
                            removed_over: None,
                        })),
                    },
                    explicit: kid.explicit,
                },
            };
            let base = self.base.lookup(&path).unwrap();
            changes.push(Change {
                path: path.clone(),
                op,
                base: base.map(|row| Box::new(row.entry)),
                base_root: *self.base.root_hash(),
            });
            if let Some(kid) = kid {
                self.freeze_in(kid, &path, changes);
            }
        }
    }
}

/// An entry without what a repository numbers itself.
pub fn plain(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    entry.mtime.nanos = None;
    match &mut entry.kind {
        Kind::Regular(file) => file.link_group = 0,
        Kind::Directory { size } => *size = 0,
        _ => {}
    }
    entry
}
