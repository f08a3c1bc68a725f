//! What is published, and how a commit and an abort change it.
//!
//! A published path remembers which inode it was: a directory that stands at a published path but
//! is another one was replaced.

use std::collections::BTreeMap;

use super::{Entries, Id, Model, Published, ROOT, Stamp, Verdict};
use crate::reftest::ops::{Answer, Path, Writers, refusal};

/// Why a commit is refused or left out.
enum No {
    Refused(i32),
    LeaveOut,
}

impl Model {
    pub(super) fn commit(&mut self, target: &Path, writers: Writers, clean: bool) -> Verdict {
        self.clean = clean;
        let (bare, kept) = match self.may_commit(target, writers) {
            Ok(plan) => plan,
            Err(No::LeaveOut) => return Verdict::LeaveOut,
            Err(No::Refused(why)) => return Verdict::Answer(Answer::Failed(why)),
        };
        for path in bare {
            let id = self.lookup(&path).unwrap();
            self.publish(&path, id, false);
            self.published.get_mut(&path).unwrap().face.stamp = Stamp::Any;
        }
        let staged = self.lookup(target).ok();
        let mut news = Vec::new();
        if let Some(id) = staged {
            self.walk(id, target, &mut |path, id| news.push((path.clone(), id)));
        }
        let before = std::mem::take(&mut self.published);
        let (gone, stay): (BTreeMap<_, _>, BTreeMap<_, _>) = before
            .into_iter()
            .partition(|(path, _)| path.is_within(target) && !kept.contains(path));
        self.published = stay;
        for (path, id) in news {
            if !kept.contains(&path) {
                self.publish(&path, id, gone.contains_key(&path));
            }
        }
        self.clean = *target == Path::root() && kept.is_empty();
        Verdict::Answer(Answer::Done)
    }

    fn publish(&mut self, path: &Path, id: Id, again: bool) {
        let face = self.face(id);
        let implicit = face.is_dir() && (again || *path == Path::root());
        face.stamp = match face.stamp {
            Stamp::At(secs, nanos) => Stamp::Published(secs, nanos),
            // an mtime that followed from the children alone is not always published
            Stamp::Recent if implicit => Stamp::Any,
            other => other,
        };
        let face = face.clone();
        self.published.insert(path.clone(), Published { id, face });
    }

    /// The unpublished directories above, and the files left out because they are being written.
    fn may_commit(&self, target: &Path, writers: Writers) -> Result<(Vec<Path>, Vec<Path>), No> {
        if self.lookup(target).is_err() && !self.published.contains_key(target) {
            return Err(match self.ancestors(target) {
                // two reasons to refuse
                Err(No::Refused(_)) => No::LeaveOut,
                _ => No::Refused(refusal::NOT_FOUND),
            });
        }
        if self.has_parted(target) {
            return Err(No::LeaveOut);
        }
        let bare = self.ancestors(target);
        let mut writing = Vec::new();
        if let Ok(id) = self.lookup(target) {
            self.walk(id, target, &mut |path, id| {
                let open = self.handles.iter().flatten();
                if open.into_iter().any(|h| h.id == id && h.write) {
                    writing.push((path.clone(), id));
                }
            });
        }
        match (bare, writers) {
            (Ok(bare), _) if writing.is_empty() => Ok((bare, Vec::new())),
            (Ok(_), Writers::Fail) => Err(No::Refused(refusal::OPEN_FILES)),
            (Ok(bare), Writers::Skip) if writing.iter().all(|(p, id)| self.plain(p, *id)) => {
                Ok((bare, writing.into_iter().map(|(path, _)| path).collect()))
            }
            (Err(no), _) if writing.is_empty() => Err(no),
            // two reasons to refuse, or a file that is open and has moved as well
            _ => Err(No::LeaveOut),
        }
    }

    /// True if a published directory was moved from below a path to where it is not published yet.
    /// Its old place must not be published first: the new one then refers to what is gone, and is
    /// taken for a conflict (a known gap).
    fn has_parted(&self, target: &Path) -> bool {
        let mut outside = Vec::new();
        self.walk(ROOT, &Path::root(), &mut |path, id| {
            if self.is_dir(id) && !path.is_within(target) {
                let published = self.published.get(path);
                outside.extend(published.is_none_or(|p| p.id != id).then_some(id));
            }
        });
        let inside = self.published.iter().filter(|(at, _)| at.is_within(target));
        let mut ids = inside.map(|(_, published)| published.id);
        ids.any(|id| outside.contains(&id))
    }

    /// The directories above that have to be published bare.
    fn ancestors(&self, target: &Path) -> Result<Vec<Path>, No> {
        let mut bare = Vec::new();
        let mut at = Path::root();
        let names: Vec<&[u8]> = target.names().collect();
        for name in names.iter().take(names.len().saturating_sub(1)) {
            at = at.join(name);
            let id = self.lookup(&at).map_err(|_| No::LeaveOut)?;
            if !self.is_dir(id) {
                return Err(No::LeaveOut);
            }
            match self.published.get(&at) {
                Some(published) if published.id == id => {}
                Some(_) => return Err(No::Refused(refusal::REPLACED_ANCESTOR)),
                None if self.published.values().any(|p| p.id == id) => return Err(No::LeaveOut),
                None => bare.push(at.clone()),
            }
        }
        Ok(bare)
    }

    /// True for a file that has one name, and is new or published at this very place, and in no
    /// directory that was moved: there it may hide a published name, which then shows (a known gap).
    fn plain(&self, path: &Path, id: Id) -> bool {
        if self.inodes[&id].links != 1 {
            return false;
        }
        let same = |path: &Path| {
            let staged = self.lookup(path).ok();
            self.published.get(path).map(|p| p.id) == staged
        };
        let elsewhere = |id: Id, place: &Path| {
            let mut published = self.published.iter();
            published.any(|(at, p)| p.id == id && at != place)
        };
        let mut above = path.clone();
        while let Some(id) = self.lookup(&above).ok().filter(|id| *id != ROOT) {
            if elsewhere(id, &above) {
                return false;
            }
            above = above.split().unwrap().0;
        }
        !self.published.contains_key(path) || same(path) && same(&path.split().unwrap().0)
    }

    pub(super) fn abort(&mut self, target: &Path, clean: bool) -> Verdict {
        self.clean = clean;
        if !self.may_abort(target) {
            return Verdict::LeaveOut;
        }
        let mut before = BTreeMap::new();
        if let Ok(id) = self.lookup(target) {
            self.walk(id, target, &mut |path, id| {
                before.insert(path.clone(), id);
            });
        }
        let back: Vec<Path> = self
            .published
            .keys()
            .filter(|path| path.is_within(target))
            .cloned()
            .collect();
        self.clear(target);
        for path in back {
            self.bring_back(&path, before.get(&path).copied());
        }
        if let Some((dir, _)) = target.split() {
            let dir = self.lookup(&dir).unwrap();
            self.face(dir).stamp = Stamp::Any;
        }
        self.clean = *target == Path::root();
        Verdict::Answer(Answer::Done)
    }

    /// False where it is not clear what comes back: files open, hard links, directories above that
    /// are not the published ones.
    fn may_abort(&self, target: &Path) -> bool {
        let staged = self.lookup(target).ok();
        if self.handles.iter().any(Option::is_some)
            || staged.is_none() && !self.published.contains_key(target)
        {
            return false;
        }
        let mut linked = false;
        if let Some(id) = staged {
            self.walk(id, target, &mut |_, id| {
                linked |= !self.is_dir(id) && self.inodes[&id].links > 1;
            });
        }
        let above = target.split().is_none_or(|(dir, _)| {
            let staged = self.lookup(&dir).ok();
            staged.is_some() && self.published.get(&dir).map(|p| p.id) == staged
        });
        above && !linked
    }

    /// Takes everything at and below a path away; the root stays.
    fn clear(&mut self, target: &Path) {
        if *target == Path::root() {
            *self.entries(ROOT) = Entries::new();
            return;
        }
        let (dir, name) = self.parent(target).unwrap();
        self.entries(dir).remove(name);
    }

    /// Lets a published path be seen again; as the inode it was, if it still stood there.
    fn bring_back(&mut self, path: &Path, before: Option<Id>) {
        let published = self.published[path].clone();
        let id = match before {
            Some(id) if id == published.id => id,
            _ => self.fresh(published.face.clone()),
        };
        *self.face(id) = published.face;
        *self.entries(id) = Entries::new();
        if *path != Path::root() {
            *self.links(id) = 1;
            let (dir, name) = self.parent(path).unwrap();
            self.entries(dir).insert(name.to_vec(), id);
        }
        self.published.get_mut(path).unwrap().id = id;
    }
}
