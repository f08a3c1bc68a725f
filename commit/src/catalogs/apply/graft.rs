//! Directories that come from another place or another revision: copied row by row.
//!
//! A move costs the rows below it, never an object. Nested catalogs stay nested catalogs; they are
//! written anew, because every row in them is keyed by its path.

use std::collections::HashMap;
use std::sync::Arc;

use formats::catalog::{Role, Row};
use formats::entry::Entry;
use formats::hash::Hash;
use formats::path::{Name, RepoPath};
use store::{RepoError, Revision};

use super::{Applier, Origin};
use crate::catalogs::CatalogsError;
use crate::catalogs::session::make_row;

/// The highest ids of hard-link groups given out, by catalog.
type Groups = HashMap<RepoPath, u32>;

fn read(at: &RepoPath) -> impl FnOnce(RepoError) -> CatalogsError + '_ {
    move |source| CatalogsError::Read {
        prefix: at.clone(),
        source,
    }
}

impl Applier<'_, '_> {
    /// Makes the directories down to `dir` again, as they were in the revision `root`.
    pub(super) fn remake(&mut self, dir: &RepoPath, root: &Hash) -> Result<(), CatalogsError> {
        let revision = self.revision(root)?;
        let mut path = RepoPath::root();
        for name in dir.components() {
            path = path.join(&name);
            let stands = self.session.lookup(&path)?;
            if stands.as_ref().is_some_and(|row| row.entry.is_dir()) {
                continue;
            }
            let was = revision
                .lookup(&path)
                .map_err(read(&path))?
                .filter(|row| row.entry.is_dir())
                .ok_or_else(|| CatalogsError::ParentMissing(path.clone()))?;
            self.clear(&path, stands.as_ref())?;
            self.make_directory(&path, was.entry)?;
            self.frames.push((path.clone(), Origin::Remade));
        }
        Ok(())
    }

    fn revision(&self, root: &Hash) -> Result<Arc<Revision>, CatalogsError> {
        let repo = self.session.repo();
        repo.revision(root).map_err(read(&RepoPath::root()))
    }

    /// Copies the rows of the directory `source` of the revision `root` to `path`.
    pub(super) fn graft(
        &mut self,
        source: &RepoPath,
        root: &Hash,
        path: &RepoPath,
        entry: Entry,
    ) -> Result<(), CatalogsError> {
        // what the newest revision refers to is there; what only an older one does may be gone
        let is_old = self.session.at(&RepoPath::root()).base != Some(*root);
        let unreadable = |source_error| {
            let (path, source_path) = (path.clone(), source.clone());
            match is_old {
                true => CatalogsError::SourceUnreadable {
                    path,
                    source_path,
                    source: source_error,
                },
                false => CatalogsError::Read {
                    prefix: source_path,
                    source: source_error,
                },
            }
        };
        let revision = self.session.repo().revision(root).map_err(unreadable)?;
        let moved = revision
            .lookup(source)
            .map_err(unreadable)?
            .filter(|row| row.entry.is_dir())
            .ok_or_else(|| CatalogsError::SourceMissing {
                path: path.clone(),
                source_path: source.clone(),
            })?;
        self.graft_directory(path, entry, moved.role)?;
        let mut groups = Groups::new();
        let mut pending = vec![(source.clone(), path.clone())];
        while let Some((from, to)) = pending.pop() {
            let rows = revision.list(&from).map_err(unreadable)?;
            let home = self.session.content_home(&to)?;
            let mut here: HashMap<u32, u32> = HashMap::new();
            for mut row in rows {
                let name = Name::new(&row.name).map_err(|source| CatalogsError::BadRow {
                    dir: from.clone(),
                    source,
                })?;
                let target = to.join(&name);
                if row.entry.is_dir() {
                    self.graft_directory(&target, row.entry, row.role)?;
                    if self.rules.dirtab.is_some() {
                        self.touched.directories.insert(target.clone());
                    }
                    pending.push((from.join(&name), target));
                    continue;
                }
                if row.link_group != 0 {
                    row.link_group = match here.get(&row.link_group) {
                        Some(group) => *group,
                        None => {
                            let group = self.new_group(&home, &mut groups)?;
                            here.insert(row.link_group, group);
                            group
                        }
                    };
                }
                self.graft_other(&target, row, is_old)?;
            }
        }
        self.report.directories += 1;
        self.note_effective(path);
        self.frames
            .push((path.clone(), Origin::From(source.clone(), *root)));
        Ok(())
    }

    fn graft_directory(
        &mut self,
        path: &RepoPath,
        entry: Entry,
        role: Role,
    ) -> Result<(), CatalogsError> {
        if role != Role::Mountpoint {
            return self.session.insert(path, entry);
        }
        self.session.insert(path, entry.clone())?;
        self.session
            .make_nested(path, &make_row(path, entry, 2, 0, false))
    }

    fn graft_other(
        &mut self,
        path: &RepoPath,
        row: Row,
        is_old: bool,
    ) -> Result<(), CatalogsError> {
        if is_old && let Some(file) = row.entry.regular().filter(|file| !file.external) {
            let objects = file.content.objects().map(|name| (name, path.clone()));
            self.touched.referred.extend(objects);
        }
        self.session
            .insert_row(path, row.entry, row.linkcount, row.link_group, row.hidden)
    }

    fn new_group(&mut self, home: &RepoPath, last: &mut Groups) -> Result<u32, CatalogsError> {
        let before = match last.get(home) {
            Some(last) => *last,
            None => self.session.max_link_group(home)?,
        };
        last.insert(home.clone(), before + 1);
        Ok(before + 1)
    }
}
