//! What is published, and how a commit changes it.
//!
//! A published path remembers which inode it was: a directory that stands at a published path but
//! is another one was replaced. A directory is one published path at a time: the place where it was
//! published last.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entries, Id, Model, Published, ROOT, Stamp, Verdict};
use crate::reftest::ops::{Answer, Path, Writers, refusal};

/// What the directories had that were published, and are no more, while they stand elsewhere.
pub(super) type Saved = BTreeMap<Id, BTreeMap<Vec<u8>, Published>>;

/// What a commit is to publish.
struct Plan {
    targets: Vec<Path>,
    /// Directories above them that are not published.
    bare: BTreeSet<Path>,
    /// Files that are left out because they are being written.
    writing: BTreeSet<Id>,
}

impl Model {
    pub(super) fn commit(&mut self, targets: &[Path], writers: Writers, clean: bool) -> Verdict {
        self.clean = clean;
        let plan = match self.plan(targets, writers) {
            Ok(plan) => plan,
            Err(why) => return Verdict::Answer(Answer::Failed(why)),
        };
        let instead = self.instead(&plan);
        let before = std::mem::take(&mut self.published);
        let is_target = |path: &Path| plan.targets.iter().any(|target| path.is_within(target));
        let stays = before.iter().filter(|(path, _)| !is_target(path));
        self.published = stays.map(|(path, p)| (path.clone(), p.clone())).collect();
        for path in &plan.bare {
            let id = self.lookup(path).unwrap();
            self.publish(path, id, false);
            self.published.get_mut(path).unwrap().face.stamp = Stamp::Any;
        }
        let mut news = Vec::new();
        for target in &plan.targets {
            if let Ok(id) = self.lookup(target) {
                self.walk(id, target, &mut |path, id| news.push((path.clone(), id)));
            }
        }
        for (path, id) in news {
            if !plan.writing.contains(&id) {
                self.publish(&path, id, before.contains_key(&path));
            }
        }
        self.published.extend(instead);
        self.settle_places(&before);
        self.clean = plan.targets == [Path::root()] && plan.writing.is_empty();
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

    /// What is to be published, or why not.
    fn plan(&self, targets: &[Path], writers: Writers) -> Result<Plan, i32> {
        let mut targets = targets.to_vec();
        targets.sort();
        targets.dedup();
        let mut writing = BTreeSet::new();
        for target in &targets {
            if let Ok(id) = self.lookup(target) {
                self.walk(id, target, &mut |_, id| {
                    let mut open = self.handles.iter().flatten();
                    writing.extend(open.find(|h| h.id == id && h.write).map(|_| id));
                });
            }
        }
        if writers == Writers::Fail && !writing.is_empty() {
            return Err(refusal::OPEN_FILES);
        }
        let mut bare = BTreeSet::new();
        for target in &targets {
            bare.extend(self.ancestors(target)?);
            if self.lookup(target).is_err() && !self.published.contains_key(target) {
                return Err(refusal::NOT_FOUND);
            }
        }
        Ok(Plan {
            targets,
            bare,
            writing,
        })
    }

    /// The directories above that have to be published bare.
    fn ancestors(&self, target: &Path) -> Result<Vec<Path>, i32> {
        let mut bare = Vec::new();
        let mut at = Path::root();
        let names: Vec<&[u8]> = target.names().collect();
        for name in names.iter().take(names.len().saturating_sub(1)) {
            at = at.join(name);
            let id = self.lookup(&at).map_err(|_| refusal::NOT_FOUND)?;
            if !self.is_dir(id) {
                return Err(refusal::NOT_FOUND);
            }
            match self.published.get(&at) {
                Some(published) if published.id == id => {}
                Some(_) => return Err(refusal::REPLACED_ANCESTOR),
                None => bare.push(at.clone()),
            }
        }
        Ok(bare)
    }

    /// What is published of the files that are left out: what was there, if their directory stands
    /// where it was; what came along of the very file, if it moved.
    fn instead(&self, plan: &Plan) -> BTreeMap<Path, Published> {
        let mut instead = BTreeMap::new();
        let is_target = |path: &Path| plan.targets.iter().any(|target| path.is_within(target));
        self.walk(ROOT, &Path::root(), &mut |path, id| {
            let Some((dir, name)) = path.split().filter(|_| is_target(path)) else {
                return;
            };
            if !plan.writing.contains(&id) {
                return;
            }
            if self.stands(&dir) {
                let there = self.published.iter().filter(|(at, _)| at.is_within(path));
                instead.extend(there.map(|(at, published)| (at.clone(), published.clone())));
                return;
            }
            let came = self.had(self.lookup(&dir).unwrap(), name);
            let came = came.filter(|published| published.id == id);
            instead.extend(came.map(|published| (path.clone(), published)));
        });
        // one that has another name now keeps the one that is published
        self.walk(ROOT, &Path::root(), &mut |dir, id| {
            if !self.is_dir(id) {
                return;
            }
            for (name, published) in self.all_had(id) {
                let path = dir.join(&name);
                let gone = !self.inodes[&id].entries.contains_key(&name);
                if gone && is_target(&path) && plan.writing.contains(&published.id) {
                    instead.insert(path, published);
                }
            }
        });
        instead
    }

    /// True if a directory and all above it are published where they are.
    fn stands(&self, dir: &Path) -> bool {
        let here = self.lookup(dir).ok();
        let published = self.published.get(dir).map(|p| p.id);
        published == here && dir.split().is_none_or(|(above, _)| self.stands(&above))
    }

    fn had(&self, dir: Id, name: &[u8]) -> Option<Published> {
        self.all_had(dir).remove(name)
    }

    /// What a directory had when it was last published.
    fn all_had(&self, dir: Id) -> BTreeMap<Vec<u8>, Published> {
        let place = self.published.iter().find(|(_, p)| p.id == dir);
        match place {
            Some((place, _)) => below(&self.published, place),
            None => self.saved.get(&dir).cloned().unwrap_or_default(),
        }
    }

    /// A directory is where it was published last, and remembers what it had where it is published
    /// nowhere.
    pub(super) fn settle_places(&mut self, before: &BTreeMap<Path, Published>) {
        let mut stand = BTreeMap::new();
        self.walk(ROOT, &Path::root(), &mut |path, id| {
            stand.insert(id, path.clone());
        });
        let here = |id: &Id| self.published.get(stand.get(id)?).map(|p| p.id == *id);
        let old: Vec<Path> = self
            .published
            .iter()
            .filter(|(path, p)| {
                p.face.is_dir() && stand.get(&p.id) != Some(path) && here(&p.id) == Some(true)
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in old {
            self.published.get_mut(&path).unwrap().id = self.next;
            self.next += 1;
        }
        for (path, published) in before.iter().filter(|(_, p)| p.face.is_dir()) {
            if stand.contains_key(&published.id) {
                let had = below(before, path);
                self.saved.entry(published.id).or_insert(had);
            }
        }
        let published: BTreeSet<Id> = self.published.values().map(|p| p.id).collect();
        let kept = |id: &Id, _: &mut _| stand.contains_key(id) && !published.contains(id);
        self.saved.retain(kept);
    }

    pub(super) fn abort(&mut self, target: &Path, clean: bool) -> Verdict {
        self.clean = clean;
        if !self.may_abort(target) {
            return Verdict::LeaveOut;
        }
        let published = self.published.clone();
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
            self.bring_back(&path, &before);
        }
        if let Some((dir, _)) = target.split() {
            let dir = self.lookup(&dir).unwrap();
            self.face(dir).stamp = Stamp::Any;
        }
        self.settle_places(&published);
        self.clean = *target == Path::root();
        Verdict::Answer(Answer::Done)
    }

    /// False where it is not clear what comes back: files open there, hard links, directories above
    /// that are not the published ones.
    fn may_abort(&self, target: &Path) -> bool {
        let staged = self.lookup(target).ok();
        if staged.is_none() && !self.published.contains_key(target) {
            return false;
        }
        let open = |id: Id| self.handles.iter().flatten().any(|h| h.id == id);
        let mut unclear = false;
        if let Some(id) = staged {
            self.walk(id, target, &mut |_, id| {
                unclear |= !self.is_dir(id) && (self.inodes[&id].links > 1 || open(id));
            });
        }
        let mut published = self.published.iter();
        unclear |= published.any(|(path, p)| path.is_within(target) && open(p.id));
        !unclear && target.split().is_none_or(|(dir, _)| self.stands(&dir))
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

    /// Lets a published path be seen again; as the inode it was, if it still stood there, in a
    /// directory that did.
    fn bring_back(&mut self, path: &Path, before: &BTreeMap<Path, Id>) {
        let published = self.published[path].clone();
        let above = path.split().map(|(dir, _)| dir);
        let stays = above.as_ref().and_then(|dir| before.get(dir));
        let stays = stays.is_none_or(|id| self.lookup(above.as_ref().unwrap()) == Ok(*id));
        let id = match before.get(path) {
            Some(id) if *id == published.id && stays => *id,
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

/// What is directly in a published directory.
fn below(published: &BTreeMap<Path, Published>, dir: &Path) -> BTreeMap<Vec<u8>, Published> {
    let inner = published.iter().filter_map(|(path, published)| {
        let (above, name) = path.split()?;
        (above == *dir).then(|| (name.to_vec(), published.clone()))
    });
    inner.collect()
}
