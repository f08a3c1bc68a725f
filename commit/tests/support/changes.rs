//! Change sets, and the sealing of what they hold.

use std::sync::Arc;

use formats::catalog::Row;
use formats::changeset::{Change, ChangeSet, Children, Op, Source};
use formats::entry::{Entry, Kind, Mtime, Regular, Xattrs};
use formats::hash::Hash;
use formats::object::{Chunk, Content, ObjectKind, ObjectName};
use formats::path::RepoPath;
use formats::server_conf::Params;
use store::{ObjectStore, Revision};

/// The path that a text names.
pub fn path(text: &str) -> RepoPath {
    text.parse().unwrap()
}

/// Bytes without a pattern.
pub fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// Seals bytes as the stage would: chunks, compressed objects, all in `store`.
pub fn seal(store: &dyn ObjectStore, params: &Params, bytes: &[u8]) -> Regular {
    let object = |kind, piece: &[u8]| {
        let stored = formats::compress::compress(params.compression, piece);
        let hash = Hash::of(params.algorithm, &stored);
        store::put(store, &ObjectName::new(hash, kind), &stored).unwrap();
        hash
    };
    let cuts = cuts(params, bytes);
    let content = if cuts.len() < 2 {
        Content::Whole(object(ObjectKind::Data, bytes))
    } else {
        let chunks = cuts
            .iter()
            .map(|(from, to)| Chunk {
                offset: *from as u64,
                size: (to - from) as u64,
                hash: object(ObjectKind::Chunk, &bytes[*from..*to]),
            })
            .collect();
        Content::Chunks {
            bulk: params.bulk_chunks.then(|| object(ObjectKind::Data, bytes)),
            chunks,
        }
    };
    Regular {
        size: bytes.len() as u64,
        content,
        compression: params.compression,
        external: false,
        direct_io: false,
        link_group: 0,
    }
}

fn cuts(params: &Params, bytes: &[u8]) -> Vec<(usize, usize)> {
    let whole = vec![(0, bytes.len())];
    let Some(sizes) = params.chunking else {
        return whole;
    };
    if bytes.len() as u64 <= sizes.min() {
        return whole;
    }
    let mut cutter = formats::Xor32::new(sizes);
    let (mut found, mut from, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match cutter.scan(&bytes[at..]) {
            Some(n) => {
                at += n;
                found.push((from, at));
                from = at;
            }
            None => break,
        }
    }
    if from < bytes.len() {
        found.push((from, bytes.len()));
    }
    found
}

/// An entry of a kind, with ordinary metadata.
pub fn entry(kind: Kind) -> Entry {
    let perm = if matches!(kind, Kind::Directory { .. }) {
        0o755
    } else {
        0o644
    };
    Entry {
        kind,
        perm,
        uid: 0,
        gid: 0,
        mtime: Mtime {
            secs: 1_700_000_000,
            nanos: Some(0),
        },
        xattrs: Xattrs::new(),
    }
}

/// A directory.
pub fn dir() -> Entry {
    entry(Kind::Directory { size: 4096 })
}

/// Builds a change set upon a revision.
pub struct Changes {
    set: ChangeSet,
    base: Arc<Revision>,
    staged: Arc<dyn ObjectStore>,
    params: Params,
}

impl Changes {
    pub fn new(
        repo: &str,
        base: Arc<Revision>,
        staged: Arc<dyn ObjectStore>,
        params: Params,
    ) -> Self {
        let set = ChangeSet {
            repo: repo.to_owned(),
            targets: vec![RepoPath::root()],
            changes: Vec::new(),
        };
        Self {
            set,
            base,
            staged,
            params,
        }
    }

    fn add(mut self, at: &RepoPath, op: Op) -> Self {
        let base = self.base.lookup(at).unwrap().map(|row: Row| row.entry);
        self.set.changes.push(Change {
            path: at.clone(),
            op,
            base: base.map(Box::new),
            base_root: *self.base.root_hash(),
        });
        self
    }

    pub fn put(self, at: &str, entry: Entry, children: Children) -> Self {
        let op = Op::Put {
            entry,
            children,
            explicit: true,
        };
        self.add(&path(at), op)
    }

    pub fn put_entry(self, at: &RepoPath, entry: Entry, children: Children) -> Self {
        let op = Op::Put {
            entry,
            children,
            explicit: true,
        };
        self.add(at, op)
    }

    /// A new directory, or one that replaces what was there.
    pub fn dir(self, at: &str) -> Self {
        self.put(at, dir(), Children::None)
    }

    /// A published directory with other metadata.
    pub fn chmod_dir(self, at: &str, perm: u16) -> Self {
        let mut entry = self.base.lookup(&path(at)).unwrap().unwrap().entry;
        entry.perm = perm;
        self.put(at, entry, Children::Same)
    }

    /// A published directory whose time followed from a change in it.
    pub fn implicit(self, at: &str, secs: i64) -> Self {
        let mut entry = self.base.lookup(&path(at)).unwrap().unwrap().entry;
        entry.mtime.secs = secs;
        let op = Op::Put {
            entry,
            children: Children::Same,
            explicit: false,
        };
        self.add(&path(at), op)
    }

    /// A directory that was published at `from`.
    pub fn moved(self, from: &str, to: &str) -> Self {
        let entry = self.base.lookup(&path(from)).unwrap().unwrap().entry;
        self.put_moved(to, entry, from).remove(from)
    }

    /// A directory that was published at `from`, with other metadata; the old place stays for now.
    pub fn put_moved(self, to: &str, entry: Entry, from: &str) -> Self {
        let root = *self.base.root_hash();
        let source = Source {
            root,
            path: path(from),
            removed_over: Some(root),
        };
        self.put(to, entry, Children::From(Box::new(source)))
    }

    /// A directory of an older revision, whose old place is no affair of ours any more.
    pub fn put_old(self, to: &str, from: &str, revision: &Revision) -> Self {
        let source = Source {
            root: *revision.root_hash(),
            path: path(from),
            removed_over: None,
        };
        let entry = revision.lookup(&path(from)).unwrap().unwrap().entry;
        self.put(to, entry, Children::From(Box::new(source)))
    }

    /// A file with content.
    pub fn file(self, at: &str, bytes: &[u8]) -> Self {
        let regular = seal(self.staged.as_ref(), &self.params, bytes);
        self.put(at, entry(Kind::Regular(regular)), Children::None)
    }

    /// A file with content, one of several names.
    pub fn linked(self, at: &str, bytes: &[u8], inode: u64) -> Self {
        let mut regular = seal(self.staged.as_ref(), &self.params, bytes);
        regular.link_group = inode;
        self.put(at, entry(Kind::Regular(regular)), Children::None)
    }

    pub fn symlink(self, at: &str, target: &str) -> Self {
        let mut link = entry(Kind::Symlink(target.as_bytes().to_vec()));
        link.perm = 0o777;
        self.put(at, link, Children::None)
    }

    pub fn remove(self, at: &str) -> Self {
        self.add(&path(at), Op::Remove)
    }

    pub fn remove_path(self, at: &RepoPath) -> Self {
        self.add(at, Op::Remove)
    }

    /// The finished change set, in the order of a walk.
    pub fn done(mut self) -> ChangeSet {
        self.set.changes.sort_by(|a, b| a.path.cmp(&b.path));
        self.set
    }
}
