//! From the staged tree to the items of a change set, at one instant.
//!
//! The walk only reads memory, with the tree locked; what was published at each path is looked up
//! afterwards (`bases.rs`). A directory's unlisted names come from where its origin says; so a
//! staged item may be left out if it equals what would come from there.

mod target;

use std::collections::BTreeSet;

use formats::{Children, Compression, Content, Entry, Hash, Kind, Name, Regular, RepoPath};

use super::FrozenMark;
use super::SealFailure;
use super::sealing::empty_pin;
use crate::tree::{Data, Dentry, Node, Origin, RevId, Serial, Tree, Under};
use crate::types::Ino;

/// A path of the snapshot.
pub(super) struct Item {
    pub(super) path: RepoPath,
    pub(super) what: What,
    /// The revision in which something may have been published at the path.
    pub(super) base: Option<RevId>,
    pub(super) same: Same,
    /// The revision that the base is of.
    pub(super) rev: RevId,
}

impl Item {
    /// The published place that a directory was moved away from, if that is not published as gone.
    pub(super) fn source(&self) -> Option<&RepoPath> {
        match &self.what {
            What::Put {
                children: Children::From(source),
                ..
            } if source.removed_over.is_some() => Some(&source.path),
            _ => None,
        }
    }
}

/// What stands at a path.
pub(super) enum What {
    Remove,
    Put {
        entry: Box<Entry>,
        /// The backing file that is not sealed yet; the entry's content is a placeholder.
        unsealed: Option<u64>,
        children: Children,
        explicit: bool,
    },
}

/// When an item says nothing new.
pub(super) enum Same {
    /// Never.
    No,
    /// When it equals the base.
    AsBase,
    /// When it equals this row, which would be there without it.
    As(RevId, RepoPath),
}

/// A file that must be sealed.
pub(super) struct Unsealed {
    pub(super) ino: Ino,
    pub(super) generation: u32,
    pub(super) number: u64,
    pub(super) size: u64,
}

/// Where the unlisted names of the directory come from whose names are visited.
struct Place {
    /// The published directory of the same path.
    same: bool,
    /// The published directory it refers to.
    origin: Option<(RevId, RepoPath)>,
    /// Something may be published at the paths below it, in this revision.
    base: Option<RevId>,
    rev: RevId,
}

/// See the module's head.
pub(super) struct Walk<'a> {
    tree: &'a Tree,
    size_of: &'a dyn Fn(Ino) -> Option<u64>,
    pub(super) items: Vec<Item>,
    pub(super) unsealed: Vec<Unsealed>,
    /// Files whose bytes are in doubt: a snapshot with one in it is not published.
    pub(super) doubtful: Vec<SealFailure>,
    pub(super) mark: FrozenMark,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        left_out: BTreeSet<Serial>,
        size_of: &'a dyn Fn(Ino) -> Option<u64>,
    ) -> Self {
        let mark = FrozenMark {
            id: tree.tick,
            stamp: tree.tick,
            serial: tree.last_serial,
            left_out,
            ..FrozenMark::default()
        };
        Self {
            tree,
            size_of,
            items: Vec::new(),
            unsealed: Vec::new(),
            doubtful: Vec::new(),
            mark,
        }
    }

    fn root(&mut self, place: &Place) {
        let Some(node) = self.tree.node(Ino::ROOT) else {
            return;
        };
        self.mark.whole.insert(node.rec.serial, RepoPath::root());
        let explicit = node.rec.dir().is_some_and(|dir| dir.explicit);
        if explicit && let Some(entry) = node.rec.entry(0) {
            self.items.push(Item {
                path: RepoPath::root(),
                what: What::Put {
                    entry: Box::new(entry),
                    unsealed: None,
                    children: Children::Same,
                    explicit,
                },
                base: place.base,
                same: Same::AsBase,
                rev: place.rev,
            });
        }
        self.names(node, &RepoPath::root(), place);
    }

    fn names(&mut self, node: &Node, path: &RepoPath, place: &Place) {
        let entries = node.entries.as_deref();
        for (name, dentry) in entries.into_iter().flatten() {
            self.name(place, name, dentry, path.join(name));
        }
    }

    fn name(&mut self, place: &Place, name: &Name, dentry: &Dentry, path: RepoPath) {
        let whose = self.tree.whose(dentry);
        let skipped = whose.is_some_and(|whose| self.mark.left_out.contains(&whose));
        // it stays as in the base, also where the directory was moved: what else shows there must go
        if skipped && (place.same || dentry.white || self.tree.is_own(dentry)) {
            return;
        }
        let published = dentry.under != Under::Nothing;
        // without a published directory of this path, nothing unlisted comes from the same path
        let (base, rev) = if place.same {
            let rev = self.tree.revisions.base_of(dentry.rev);
            (published.then_some(rev), rev)
        } else {
            (place.base, place.rev)
        };
        let same = match &place.origin {
            _ if place.same => Same::AsBase,
            Some((rev, dir)) if published => Same::As(*rev, dir.join(name)),
            _ => Same::No,
        };
        let node = dentry.node().and_then(|ino| self.tree.node(ino));
        let Some(node) = node.filter(|_| !skipped) else {
            if published && place.origin.is_some() {
                self.items.push(Item {
                    path,
                    what: What::Remove,
                    base,
                    same: Same::No,
                    rev,
                });
            }
            return;
        };
        match node.rec.dir() {
            Some(dir) => {
                let explicit = dir.explicit;
                let origin = dir.origin.clone();
                let here = Here {
                    dentry,
                    path,
                    base,
                    rev,
                };
                self.directory(place, here, node, &origin, explicit, same);
            }
            None => self.file(dentry, node, path, (base, rev), same),
        }
    }

    fn file(
        &mut self,
        dentry: &Dentry,
        node: &Node,
        path: RepoPath,
        (base, rev): (Option<RevId>, RevId),
        same: Same,
    ) {
        let link_group = if node.names.len() > 1 { dentry.ino } else { 0 };
        if let Some(reason) = node.rec.doubt() {
            let failure = SealFailure::new(path.clone(), &reason.into());
            self.doubtful.push(failure);
        }
        let (entry, unsealed) = match node.rec.entry(link_group) {
            Some(entry) => (entry, None),
            None => self.unsealed_file(dentry, node, link_group),
        };
        self.items.push(Item {
            path,
            what: What::Put {
                entry: Box::new(entry),
                unsealed,
                children: Children::None,
                explicit: true,
            },
            base,
            same,
            rev,
        });
    }

    fn unsealed_file(
        &mut self,
        dentry: &Dentry,
        node: &Node,
        link_group: u64,
    ) -> (Entry, Option<u64>) {
        let ino = Ino(dentry.ino);
        let file = node.rec.file();
        let size = (self.size_of)(ino).or(file.map(|f| f.size)).unwrap_or(0);
        let number = file
            .map(|file| &file.data)
            .and_then(Data::backing)
            .unwrap_or_else(|| empty_pin(ino));
        if !self
            .unsealed
            .iter()
            .rev()
            .take(1)
            .any(|u| u.number == number)
        {
            self.unsealed.push(Unsealed {
                ino,
                generation: node.run.generation,
                number,
                size,
            });
        }
        let rec = &node.rec;
        let entry = Entry {
            kind: Kind::Regular(Regular {
                size,
                content: Content::Whole(Hash::null()),
                compression: Compression::default(),
                external: false,
                direct_io: false,
                link_group,
            }),
            perm: rec.perm,
            uid: rec.uid,
            gid: rec.gid,
            mtime: rec.mtime,
            xattrs: rec.xattrs.as_deref().cloned().unwrap_or_default(),
        };
        (entry, Some(number))
    }

    fn directory(
        &mut self,
        place: &Place,
        here: Here<'_>,
        node: &Node,
        origin: &Origin,
        explicit: bool,
        same: Same,
    ) {
        let Here {
            dentry,
            path,
            base,
            rev,
        } = here;
        self.mark.whole.insert(node.rec.serial, path.clone());
        let stays = place.same && *origin == Origin::Inherit;
        let from = match origin {
            Origin::Empty => None,
            // below a bare directory, the place says nothing of where its names came from
            Origin::Inherit => self.tree.origin(Ino(dentry.ino)),
            Origin::At { rev, path } => Some((*rev, path.clone())),
        };
        let children = match &from {
            _ if stays => Children::Same,
            Some((rev, from)) => Children::From(Box::new(self.tree.source(*rev, from))),
            None => Children::None,
        };
        if let Some(entry) = node.rec.entry(0) {
            self.items.push(Item {
                path: path.clone(),
                what: What::Put {
                    entry: Box::new(entry),
                    unsealed: None,
                    children,
                    explicit: explicit || !stays,
                },
                base,
                // a directory that is not where it was says where its names come from
                same: if stays { same } else { Same::No },
                rev,
            });
        }
        let replaced_directory = match base {
            Some(rev) if dentry.under == Under::Directory || !place.same => Some(rev),
            _ => None,
        };
        let below = Place {
            same: stays,
            origin: from,
            base: if stays {
                base.or(place.base)
            } else {
                replaced_directory
            },
            rev,
        };
        self.names(node, &path, &below);
    }
}

/// A directory's name on the way.
struct Here<'n> {
    dentry: &'n Dentry,
    path: RepoPath,
    base: Option<RevId>,
    rev: RevId,
}
