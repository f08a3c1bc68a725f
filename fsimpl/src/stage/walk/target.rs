//! The way down to a target: which directories above it go in, and how.
//!
//! A directory that is published stays as it is there. One that is not goes in bare. One that replaces
//! what is published there is refused.

use formats::{Children, Entry, Name, RepoPath, Source};

use super::{Item, Place, Same, Walk, What};
use crate::error::FsError;
use crate::stage::FreezeError;
use crate::stage::mark::Bare;
use crate::tree::{Child, Dentry, Node, Origin, RevId, Tree, Under};
use crate::types::Ino;

impl Walk<'_> {
    /// Visits a target, and the directories above it that are not published.
    pub(in crate::stage) fn target(&mut self, target: &RepoPath) -> Result<(), FreezeError> {
        let head = self.tree.revisions.head;
        let mut place = Place {
            same: true,
            origin: Some((head, RepoPath::root())),
            base: Some(head),
            rev: head,
        };
        let Some(last) = target.name() else {
            self.root(&place);
            return Ok(());
        };
        let mut at = Ino::ROOT;
        let mut path = RepoPath::root();
        for name in target.parent().unwrap_or_default().components() {
            path = path.join(&name);
            let Some(dentry) = self.tree.dentry(at, &name) else {
                // unstaged from here on: nothing changed below, unless a directory above was moved
                return self.unstaged(at, &place, target, &path);
            };
            let missing = || FreezeError::NotFound(target.clone());
            let ino = dentry.node().ok_or_else(missing)?;
            let node = self.tree.require(ino)?;
            if node.rec.dir().is_none() {
                return Err(missing());
            }
            place = self.above(&place, (at, &name), &dentry, node, &path)?;
            at = ino;
        }
        let path = path.join(&last);
        match self.tree.dentry(at, &last) {
            // what only the older place of a directory had
            Some(dentry) if dentry.white && !place.same => {
                Err(FreezeError::NotFound(target.clone()))
            }
            Some(dentry) => {
                let key = (self.tree.serial(at), last.clone());
                self.mark.names.insert(key, path.clone());
                self.name(&place, &last, &dentry, path);
                Ok(())
            }
            None => self.unstaged(at, &place, target, &path),
        }
    }

    /// A directory above a target: published as it is, or bare if it is not there yet.
    fn above(
        &mut self,
        place: &Place,
        (parent, name): (Ino, &Name),
        dentry: &Dentry,
        node: &Node,
        path: &RepoPath,
    ) -> Result<Place, FreezeError> {
        let origin = node.rec.dir().map(|dir| &dir.origin);
        if place.same && origin == Some(&Origin::Inherit) {
            return Ok(Place {
                same: true,
                origin: place.origin.as_ref().map(|(r, p)| (*r, p.join(name))),
                base: place.base,
                rev: place.rev,
            });
        }
        if place.same && dentry.under != Under::Nothing {
            return Err(FreezeError::ReplacedAncestor(path.clone()));
        }
        let moved = origin != Some(&Origin::Empty);
        let rev = self.tree.revisions.base_of(dentry.rev);
        let bare = Bare {
            path: path.clone(),
            moved,
        };
        self.mark.bare.insert(node.rec.serial, bare);
        let key = (self.tree.serial(parent), name.clone());
        self.mark.names.insert(key, path.clone());
        if !self.items.iter().any(|item| item.path == *path)
            && let Some(entry) = node.rec.entry(0)
        {
            self.items.push(Item {
                path: path.clone(),
                what: What::Put {
                    entry: Box::new(entry),
                    unsealed: None,
                    children: Children::None,
                    explicit: true,
                },
                base: None,
                same: Same::No,
                rev,
            });
        }
        Ok(Place {
            same: false,
            origin: None,
            base: None,
            rev,
        })
    }

    /// A target that is not staged: nothing to say, unless it is seen here by reference only.
    fn unstaged(
        &mut self,
        at: Ino,
        place: &Place,
        target: &RepoPath,
        here: &RepoPath,
    ) -> Result<(), FreezeError> {
        let missing = || FreezeError::NotFound(target.clone());
        let tail = target.below(here).unwrap_or_default();
        let name = here.name().ok_or_else(missing)?;
        if let Child::Absent = self.tree.child(at, &name)? {
            return Err(missing());
        }
        let (rev, dir) = self.tree.origin(at).ok_or_else(missing)?;
        let find = |path: &RepoPath| -> Result<_, FreezeError> {
            let row = self.tree.revisions.find(rev, path).map_err(FsError::from)?;
            row.ok_or_else(missing)
        };
        let (mut path, mut from) = (here.clone(), dir.join(&name));
        let mut rows = vec![(path.clone(), find(&from)?)];
        for name in tail.components() {
            (path, from) = (path.join(&name), from.join(&name));
            rows.push((path.clone(), find(&from)?));
        }
        if place.same {
            return Ok(());
        }
        self.mark.unstaged.insert(target.clone());
        // what is on the way goes in bare, too
        let last = rows.len() - 1;
        for (position, (path, row)) in rows.into_iter().enumerate() {
            let children = if position == last && row.entry.is_dir() {
                Children::From(Box::new(self.tree.source(rev, &from)))
            } else {
                Children::None
            };
            self.put_row(&path, &row.entry, children, place.rev);
        }
        Ok(())
    }

    fn put_row(&mut self, path: &RepoPath, entry: &Entry, children: Children, rev: RevId) {
        self.items.push(Item {
            path: path.clone(),
            what: What::Put {
                entry: Box::new(entry.clone()),
                unsealed: None,
                children,
                explicit: true,
            },
            base: None,
            same: Same::No,
            rev,
        });
    }
}

impl Tree {
    /// A published directory that a moved one refers to.
    pub(super) fn source(&self, rev: RevId, path: &RepoPath) -> Source {
        Source {
            root: self.revisions.root_of(rev),
            path: path.clone(),
            removed_over: self
                .removed_over(path)
                .map(|rev| self.revisions.root_of(rev)),
        }
    }
}
