//! Random changes against a model: whatever was staged is what is published, and every revision is
//! healthy.

use std::collections::BTreeMap;

use commit::publisher::RefusedWhy;
use commit::{
    CommitError, CvmfsServer, Gateway, OnConflict, Outcome, Publisher, PublisherError, Request,
};
use formats::changeset::ChangeSet;
use formats::entry::{Entry, Kind};
use formats::path::{Name, RepoPath};
use proptest::prelude::*;

use crate::support::bucket::InBucket;
use crate::support::changes::{dir, entry, seal};
use crate::support::checked::assert_checks;
use crate::support::gateway::{self, Real, Way};
use crate::support::healthy::assert_healthy;
use crate::support::official::assert_official_check;
use crate::support::overlay::{Node, Overlay, plain};
use crate::support::repo::Repo;
use crate::support::server::{self, Server, mine};

const NAMES: [&str; 5] = ["a", "b", "c.d", "e", ".hidden"];

#[derive(Clone, Debug)]
enum Do {
    File(usize, usize, u8),
    Directory(usize, usize),
    Link(usize, usize),
    Remove(usize),
    Rename(usize, usize, usize),
    Chmod(usize, u16),
    Mark(usize),
    Unmark(usize),
    Commit,
}

fn any_step() -> impl Strategy<Value = Do> {
    let at = || 0..64_usize;
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (at(), name(), any::<u8>()).prop_map(|(d, n, c)| Do::File(d, n, c)),
        5 => (at(), name()).prop_map(|(d, n)| Do::Directory(d, n)),
        1 => (at(), name()).prop_map(|(d, n)| Do::Link(d, n)),
        2 => at().prop_map(Do::Remove),
        5 => (at(), at(), name()).prop_map(|(p, d, n)| Do::Rename(p, d, n)),
        1 => (at(), 0..0o1000_u16).prop_map(|(p, m)| Do::Chmod(p, m)),
        4 => at().prop_map(Do::Mark),
        2 => at().prop_map(Do::Unmark),
        3 => Just(Do::Commit),
    ]
}

/// Who publishes what is staged.
enum Site {
    Own(Repo),
    InBucket(Box<InBucket>),
    Behind(Box<Real>, Box<Gateway>),
    Served(Box<Server>, Box<CvmfsServer>),
}

impl Site {
    fn repo(&self) -> &Repo {
        match self {
            Self::Own(repo) => repo,
            Self::InBucket(site) => &site.repo,
            Self::Behind(real, _) => &real.repo,
            Self::Served(server, _) => &server.repo,
        }
    }

    fn publish(&self, request: &Request) -> Outcome {
        match self {
            Self::Own(repo) => repo.try_publish(request).unwrap(),
            Self::InBucket(site) => site.repo.try_publish(request).unwrap(),
            Self::Behind(real, publisher) => {
                let mut outcome = real.try_publish(publisher, request);
                if let Err(CommitError::Publisher(PublisherError::Refused { named, .. })) = &outcome
                {
                    // as the message says: their removal goes first
                    let mut changes = real.repo.changes();
                    for refused in named {
                        assert_eq!(refused.why, RefusedWhy::DirectoryReplaced);
                        changes = changes.remove_path(&refused.path);
                    }
                    real.publish(publisher, changes.done());
                    let again = Request {
                        on_conflict: OnConflict::Ours,
                        ..request.clone()
                    };
                    outcome = real.try_publish(publisher, &again);
                }
                real.assert_no_lease();
                if matches!(outcome, Ok(Outcome::Visible(_))) {
                    assert_official_check(&real.repo);
                }
                outcome.unwrap_or_else(|error| panic!("{error:?}\n{}", real.log()))
            }
            Self::Served(server, publisher) => {
                let request = Request {
                    change_set: mine(request.change_set.clone()),
                    ..request.clone()
                };
                let outcome = server.try_publish(publisher, &request).unwrap();
                if matches!(outcome, Outcome::Visible(_)) {
                    assert_official_check(&server.repo);
                }
                outcome
            }
        }
    }
}

struct World {
    site: Site,
    stage: Overlay,
    /// Whether markers may come and go by themselves.
    generates: bool,
}

impl World {
    fn new(settings: &[(&str, &str)]) -> Self {
        Self::at(Site::Own(Repo::with(settings)), !settings.is_empty())
    }

    fn at(site: Site, generates: bool) -> Self {
        let repo = site.repo();
        let stage = Overlay::new(repo.publisher.name(), repo.head());
        Self {
            site,
            stage,
            generates,
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
            .map(|(path, entry)| (path, self.unowned(plain(&entry))))
            .collect()
    }

    /// Whoever makes files is their owner, unless it is root.
    fn unowned(&self, entry: Entry) -> Entry {
        match self.site {
            Site::Served(..) => Entry {
                uid: 0,
                gid: 0,
                ..entry
            },
            _ => entry,
        }
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

    fn file(&self, content: u8) -> Entry {
        let params = self.site.repo().params();
        let bytes = vec![content; usize::from(content)];
        entry(Kind::Regular(seal(
            self.site.repo().staged.as_ref(),
            &params,
            &bytes,
        )))
    }

    fn step(&mut self, step: &Do) {
        let name = |n: usize| Name::new(NAMES[n].as_bytes()).unwrap();
        let marker = Name::new(b".cvmfscatalog").unwrap();
        match *step {
            Do::File(d, n, content) => {
                let path = self.pick_dir(d).join(&name(n));
                let file = self.file(content);
                self.place(&path, Node::new(file));
            }
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
            Do::Rename(p, d, n) => {
                let (Some(from), to) = (self.pick(p), self.pick_dir(d)) else {
                    return;
                };
                let to = to.join(&name(n));
                let is_marker = from.name() == Some(marker.clone());
                if to.is_within(&from) || from.is_within(&to) || is_marker {
                    return;
                }
                let node = self.stage.take(&from);
                self.place(&to, node);
            }
            Do::Chmod(p, perm) => {
                let Some(path) = self.pick(p) else {
                    return;
                };
                // Linux has no chmod(2) of a link
                if !matches!(self.stage.view()[&path].kind, Kind::Symlink(_)) {
                    self.stage.edit(&path, |entry| entry.perm = perm);
                }
            }
            Do::Mark(d) => {
                let path = self.pick_dir(d);
                if !path.is_root() {
                    let file = self.file(0);
                    self.place(&path.join(&marker), Node::new(file));
                }
            }
            Do::Unmark(d) => {
                let path = self.pick_dir(d).join(&marker);
                if self.stage.view().contains_key(&path) {
                    self.stage.take(&path);
                }
            }
            Do::Commit => self.commit(),
        }
    }

    fn commit(&mut self) {
        let changes: ChangeSet = self.stage.freeze();
        let wanted = self.stage.view();
        let request = self.site.repo().request(changes);
        match self.site.publish(&request) {
            Outcome::Visible(visible) => assert_eq!(visible.warnings, []),
            Outcome::Nothing => {}
        }
        let head = self.site.repo().head();
        let all = assert_healthy(self.site.repo().publisher.repository(), head.root_hash());
        let rows = all.rows.iter().filter(|(path, _)| !path.is_root());
        let published = self.comparable(rows.map(|(path, row)| (path.clone(), row.entry.clone())));
        let wanted = self.comparable(wanted.into_iter());
        assert_eq!(wanted, published);
        // what was just published is no change
        let again = self.site.repo().request(self.stage.freeze());
        if !self.generates && again.change_set.changes.iter().all(|c| !is_move(c)) {
            let mut again = again;
            for change in &mut again.change_set.changes {
                change.base_root = *head.root_hash();
                change.base = head
                    .lookup(&change.path)
                    .unwrap()
                    .map(|r| Box::new(r.entry));
            }
            assert_eq!(self.site.publish(&again), Outcome::Nothing);
        }
        self.stage = Overlay::new(self.site.repo().publisher.name(), head);
    }
}

fn is_move(change: &formats::changeset::Change) -> bool {
    matches!(
        &change.op,
        formats::changeset::Op::Put {
            children: formats::changeset::Children::From(_),
            ..
        }
    )
}

/// More cases with `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.and_then(|n| n.parse().ok()).unwrap_or(48),
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_staged_is_what_is_published(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new(&[]);
        for step in &steps {
            world.step(step);
        }
        world.commit();
    }
    #[test]
    fn with_markers_that_come_and_go_by_themselves(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut world = World::new(&[
            ("CVMFS_AUTOCATALOGS", "true"),
            ("CVMFS_AUTOCATALOGS_MAX_WEIGHT", "8"),
            ("CVMFS_AUTOCATALOGS_MIN_WEIGHT", "3"),
        ]);
        let bytes = b"/a/*\n/*/b\n! */e\n";
        let rules = seal(world.site.repo().staged.as_ref(), &world.site.repo().params(), bytes);
        let path = "/.cvmfsdirtab".parse().unwrap();
        world.stage.put(&path, Node::new(entry(Kind::Regular(rules))));
        for step in &steps {
            world.step(step);
        }
        world.commit();
    }
}

proptest! {
    #![proptest_config(few())]

    #[test]
    fn in_a_bucket(steps in prop::collection::vec(any_step(), 20..50)) {
        let mut world = World::at(Site::InBucket(Box::new(InBucket::new())), false);
        for step in &steps {
            world.step(step);
        }
        world.commit();
        assert_checks(world.site.repo());
    }
}

/// A revision through a real gateway takes a second or so, too long to look for smaller cases.
fn few() -> ProptestConfig {
    ProptestConfig {
        cases: config().cases.div_ceil(16),
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    }
}

fn through_a_gateway(way: Way, steps: &[Do]) {
    let real = Real::start(&[]);
    let publisher = real.publisher(way);
    let mut world = World::at(Site::Behind(Box::new(real), Box::new(publisher)), false);
    for step in steps {
        world.step(step);
    }
    world.commit();
}

#[test]
fn through_a_real_gateway() {
    if !gateway::is_installed() {
        return;
    }
    let steps = prop::collection::vec(any_step(), 20..50);
    for way in [Way::Payloads, Way::Storage] {
        let run = |steps: Vec<Do>| {
            through_a_gateway(way, &steps);
            Ok(())
        };
        let mut runner = proptest::test_runner::TestRunner::new(few());
        runner.run(&steps, run).unwrap();
    }
}

fn by_cvmfs_server(server: Server, way: server::Way, steps: &[Do]) {
    let publisher = server.publisher(way);
    let mut world = World::at(Site::Served(Box::new(server), Box::new(publisher)), false);
    for step in steps {
        world.step(step);
    }
    world.commit();
}

/// With the double, and the real one where it is installed.
#[test]
fn by_cvmfs_server_of_either_kind() {
    let steps = prop::collection::vec(any_step(), 20..50);
    for way in server::WAYS {
        let run = |steps: Vec<Do>| {
            by_cvmfs_server(Server::new(&[]), way, &steps);
            // a revision of the real one takes two seconds: one way has to do
            let real = (way == server::Way::Grafts).then(|| Server::real(&[]));
            if let Some(real) = real.flatten() {
                by_cvmfs_server(real, way, &steps);
            }
            Ok(())
        };
        let mut runner = proptest::test_runner::TestRunner::new(few());
        runner.run(&steps, run).unwrap();
    }
}
