//! A model of a stage, steps that change it at random, and the comparison of what it holds with what
//! is published.

use std::collections::BTreeMap;

use commit::publisher::RefusedWhy;
use commit::{CommitError, OnConflict, Outcome, Publisher, PublisherError, Request};
use formats::changeset::{Change, ChangeSet, Children, Op};
use formats::entry::{Entry, Kind};
use formats::path::{Name, RepoPath};
use proptest::prelude::*;

use crate::support::changes::{dir, entry, noise, seal};
use crate::support::healthy::assert_healthy;
use crate::support::overlay::{Node, Overlay, plain};
use crate::support::site::Site;

/// Few, so that they meet again and again; the last of them are odd ones.
const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c.d",
    b"e",
    b".hidden",
    b"with space",
    b"two\nlines",
    b"\xff\xfe\x80",
    "\u{fc}\u{1f600}".as_bytes(),
    b"%_a\\'\"",
    b"-rf",
    &[b'x'; 255],
];
/// Of these, the ordinary ones.
const ORDINARY: usize = 5;

/// Bytes of a file that is cut into chunks.
const LARGE: std::ops::Range<usize> = 150_000..300_000;

/// A change of the stage. Places are drawn: the first number of each is one of those there are.
#[derive(Clone, Debug)]
pub enum Do {
    File(usize, usize, u8),
    Large(usize, usize, u32, usize),
    /// Other content of the same length.
    Rewrite(usize, u32),
    Directory(usize, usize),
    Link(usize, usize),
    Remove(usize),
    Rename(usize, usize, usize),
    Chmod(usize, u16),
    Chown(usize, u32),
    Mark(usize),
    Unmark(usize),
    Commit,
}

pub fn any_step() -> impl Strategy<Value = Do> {
    let at = || 0..64_usize;
    let name = || prop_oneof![4 => 0..ORDINARY, 1 => ORDINARY..NAMES.len()];
    prop_oneof![
        4 => (at(), name(), any::<u8>()).prop_map(|(d, n, c)| Do::File(d, n, c)),
        1 => (at(), name(), any::<u32>(), LARGE).prop_map(|(d, n, s, l)| Do::Large(d, n, s, l)),
        2 => (at(), any::<u32>()).prop_map(|(p, s)| Do::Rewrite(p, s)),
        5 => (at(), name()).prop_map(|(d, n)| Do::Directory(d, n)),
        1 => (at(), name()).prop_map(|(d, n)| Do::Link(d, n)),
        2 => at().prop_map(Do::Remove),
        5 => (at(), at(), name()).prop_map(|(p, d, n)| Do::Rename(p, d, n)),
        1 => (at(), 0..0o1000_u16).prop_map(|(p, m)| Do::Chmod(p, m)),
        1 => (at(), 0..3_u32).prop_map(|(p, u)| Do::Chown(p, u)),
        4 => at().prop_map(Do::Mark),
        2 => at().prop_map(Do::Unmark),
        3 => Just(Do::Commit),
    ]
}

/// A site, and what is staged for it.
pub struct World<S> {
    pub site: S,
    pub stage: Overlay,
    /// Whether markers may come and go by themselves.
    generates: bool,
    /// Seconds since the first file: each is written at a time of its own.
    clock: i64,
}

impl<S: Site> World<S> {
    pub fn at(site: S) -> Self {
        let repo = site.repo();
        let stage = Overlay::new(repo.publisher.name(), repo.head());
        Self {
            site,
            stage,
            generates: false,
            clock: 0,
        }
    }

    /// The same, where markers may come and go by themselves.
    pub fn generating(site: S) -> Self {
        Self {
            generates: true,
            ..Self::at(site)
        }
    }

    /// What has to be published alike: all but generated markers.
    fn comparable(
        &self,
        entries: impl Iterator<Item = (RepoPath, Entry)>,
    ) -> BTreeMap<RepoPath, Entry> {
        let is_marker = |path: &RepoPath| {
            let name = path.name().unwrap();
            [&b".cvmfscatalog"[..], b".cvmfsautocatalog"].contains(&name.as_bytes())
        };
        entries
            .filter(|(path, _)| !(self.generates && is_marker(path)))
            .map(|(path, entry)| (path, self.site.shown(plain(&entry))))
            .collect()
    }

    fn pick(&self, at: usize) -> Option<RepoPath> {
        let paths: Vec<RepoPath> = self.stage.view().into_keys().collect();
        paths.get(at % paths.len().max(1)).cloned()
    }

    fn pick_dir(&self, at: usize) -> RepoPath {
        let view = self.stage.view();
        let dirs: Vec<&RepoPath> = view
            .iter()
            .filter(|(_, entry)| entry.is_dir())
            .map(|(path, _)| path)
            .collect();
        match at % (dirs.len() + 1) {
            0 => RepoPath::root(),
            at => dirs[at - 1].clone(),
        }
    }

    fn place(&mut self, path: &RepoPath, node: Node) {
        if self.stage.view().contains_key(path) {
            self.stage.take(path);
        }
        self.stage.put(path, node);
    }

    /// A file that is written now.
    pub fn file(&mut self, bytes: &[u8]) -> Entry {
        let repo = self.site.repo();
        let content = seal(repo.staged.as_ref(), &repo.params(), bytes);
        let mut file = entry(Kind::Regular(content));
        self.clock += 1;
        file.mtime.secs += self.clock;
        file
    }

    /// Changes the stage; a commit publishes it.
    pub fn step(&mut self, step: &Do) {
        let name = |n: usize| Name::new(NAMES[n]).unwrap();
        match *step {
            Do::File(d, n, content) => {
                let path = self.pick_dir(d).join(&name(n));
                let file = self.file(&vec![content; usize::from(content)]);
                self.place(&path, Node::new(file));
            }
            Do::Large(d, n, seed, length) => {
                let path = self.pick_dir(d).join(&name(n));
                let file = self.file(&noise(seed, length));
                self.place(&path, Node::new(file));
            }
            Do::Rewrite(p, seed) => self.rewrite(p, seed),
            Do::Directory(d, n) => {
                let path = self.pick_dir(d).join(&name(n));
                self.place(&path, Node::new(dir()));
            }
            Do::Link(d, n) => {
                let path = self.pick_dir(d).join(&name(n));
                let mut link = entry(Kind::Symlink(b"somewhere/else".to_vec()));
                link.perm = 0o777;
                self.place(&path, Node::new(link));
            }
            Do::Remove(p) => {
                if let Some(path) = self.pick(p) {
                    self.stage.take(&path);
                }
            }
            Do::Rename(p, d, n) => self.rename(p, d, &name(n)),
            Do::Chmod(p, perm) => {
                let Some(path) = self.pick(p) else { return };
                // Linux has no chmod(2) of a link
                if !matches!(self.stage.view()[&path].kind, Kind::Symlink(_)) {
                    self.stage.edit(&path, |entry| entry.perm = perm);
                }
            }
            Do::Chown(p, uid) => self.chown(p, uid),
            Do::Mark(_) | Do::Unmark(_) => self.mark(step),
            Do::Commit => self.commit(),
        }
    }

    fn rewrite(&mut self, p: usize, seed: u32) {
        let Some(path) = self.pick(p) else { return };
        if path.as_bytes() == b"/.cvmfsdirtab" {
            // a rule that makes no sense is refused
            return;
        }
        let length = self.stage.view()[&path].regular().map(|file| file.size);
        if let Some(length) = length {
            let file = self.file(&noise(seed, usize::try_from(length).unwrap()));
            self.stage.edit(&path, |entry| *entry = file);
        }
    }

    fn rename(&mut self, p: usize, d: usize, name: &Name) {
        let (Some(from), to) = (self.pick(p), self.pick_dir(d)) else {
            return;
        };
        let to = to.join(name);
        let is_marker = from.name() == Some(marker());
        if to.is_within(&from) || from.is_within(&to) || is_marker {
            return;
        }
        let node = self.stage.take(&from);
        self.place(&to, node);
    }

    /// Of another owner, at another time: who sets one alone may find the other changed, too
    /// (docs/publishing.md, "What a receiver cannot do").
    fn chown(&mut self, p: usize, uid: u32) {
        let Some(path) = self.pick(p) else { return };
        self.clock += 1;
        let later = self.clock;
        self.stage.edit(&path, |entry| {
            entry.uid = uid;
            entry.mtime.secs += later;
        });
    }

    fn mark(&mut self, step: &Do) {
        match *step {
            Do::Mark(d) => {
                let path = self.pick_dir(d);
                if !path.is_root() {
                    let file = self.file(b"");
                    self.place(&path.join(&marker()), Node::new(file));
                }
            }
            Do::Unmark(d) => {
                let path = self.pick_dir(d).join(&marker());
                if self.stage.view().contains_key(&path) {
                    self.stage.take(&path);
                }
            }
            _ => {}
        }
    }

    /// Publishes what is staged, and compares.
    pub fn commit(&mut self) {
        let changes: ChangeSet = self.stage.freeze();
        let wanted = self.stage.view();
        let request = self.site.repo().request(changes);
        match self.publish(&request) {
            Outcome::Visible(visible) => assert_eq!(visible.warnings, []),
            Outcome::Nothing => {}
        }
        let head = self.site.repo().head();
        let repository = self.site.repo().publisher.repository();
        let all = assert_healthy(repository, head.root_hash());
        let rows = all.rows.iter().filter(|(path, _)| !path.is_root());
        let published = self.comparable(rows.map(|(path, row)| (path.clone(), row.entry.clone())));
        let wanted = self.comparable(wanted.into_iter());
        assert_eq!(wanted, published);
        self.commit_again();
        self.stage = Overlay::new(self.site.repo().publisher.name(), head);
    }

    /// What was just published is no change.
    fn commit_again(&self) {
        let mut again = self.site.repo().request(self.stage.freeze());
        if self.generates || again.change_set.changes.iter().any(is_move) {
            return;
        }
        let head = self.site.repo().head();
        for change in &mut again.change_set.changes {
            change.base_root = *head.root_hash();
            let row = head.lookup(&change.path).unwrap();
            change.base = row.map(|row| Box::new(row.entry));
        }
        assert_eq!(self.publish(&again), Outcome::Nothing);
    }

    /// Publishes; where that takes two steps, as the message says, in two.
    fn publish(&self, request: &Request) -> Outcome {
        self.site.repo().advance(std::time::Duration::from_secs(1));
        let outcome = self.site.publish(request);
        let Err(CommitError::Publisher(PublisherError::Refused { named, .. })) = &outcome else {
            return outcome.unwrap();
        };
        let mut changes = self.site.repo().changes();
        for refused in named {
            assert_eq!(refused.why, RefusedWhy::DirectoryReplaced);
            changes = changes.remove_path(&refused.path);
        }
        let first = self.site.repo().request(changes.done());
        self.site.publish(&first).unwrap();
        let again = Request {
            on_conflict: OnConflict::Ours,
            ..request.clone()
        };
        self.site.publish(&again).unwrap()
    }
}

fn marker() -> Name {
    Name::new(b".cvmfscatalog").unwrap()
}

fn is_move(change: &Change) -> bool {
    matches!(
        &change.op,
        Op::Put {
            children: Children::From(_),
            ..
        }
    )
}
