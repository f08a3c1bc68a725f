//! A publisher and doubles of its sites.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commit::warm::{
    Claim, NewSite, OBJECTS_PER_PUSH, Options, Policy, Quorum, Registry, SiteState, Us, Warmer,
    Warming, Way,
};
use commit::{Outcome, Publisher, Request, Visible};
use formats::ObjectName;
use formats::changeset::{ChangeSet, Op};
use formats::warm::Listed;
use formats::warm::identity::NodeName;

use super::repo::Repo;
use super::stratum1::{Port, Stratum1};

/// A publisher and its sites.
pub struct World {
    pub repo: Repo,
    pub warmer: Arc<Warmer>,
    pub sites: Vec<Stratum1>,
}

pub fn name_of(at: usize) -> NodeName {
    format!("site-{at}").parse().unwrap()
}

pub fn new_site(at: usize, way: Way) -> NewSite {
    NewSite {
        name: name_of(at),
        way,
        repositories: Vec::new(),
        bandwidth: None,
    }
}

pub fn options() -> Options {
    Options {
        us: Us {
            broker: None,
            name: "stratum0".parse().unwrap(),
            url: Some("https://127.0.0.1:1".into()),
        },
        connections: 3,
        keep: Duration::from_secs(86_400),
        objects_per_push: OBJECTS_PER_PUSH,
    }
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

pub fn policy(quorum: Quorum) -> Policy {
    Policy {
        quorum,
        deadline: LONG,
        reach_within: LONG,
        commit_anyway: false,
    }
}

impl World {
    pub fn new(sites: usize) -> Self {
        Self::at(sites, SystemTime::now(), None)
    }

    /// Where a push has so many objects at most.
    pub fn in_parts(sites: usize, objects_per_push: usize) -> Self {
        let mut world = Self::new(sites);
        let options = Options {
            objects_per_push,
            ..options()
        };
        world.warmer = Self::warmer_with(&world.repo, options);
        world
    }

    pub fn at(sites: usize, issued: SystemTime, bandwidth: Option<u64>) -> Self {
        let repo = Repo::new();
        let registry = Registry::new(repo.dir.path().join("sites"));
        let mut doubles = Vec::new();
        for at in 0..sites {
            let port = Port::any();
            let new = NewSite {
                bandwidth,
                ..new_site(at, Way::Push { url: port.url() })
            };
            let enrolment = registry.add(new, &options().us, issued).unwrap();
            doubles.push(port.serve(&enrolment));
        }
        let warmer = Self::warmer_of(&repo);
        Self {
            repo,
            warmer,
            sites: doubles,
        }
    }

    /// As another process would have it.
    pub fn warmer_of(repo: &Repo) -> Arc<Warmer> {
        Self::warmer_with(repo, options())
    }

    fn warmer_with(repo: &Repo, options: Options) -> Arc<Warmer> {
        let registry = Registry::new(repo.dir.path().join("sites"));
        let storage = Arc::clone(repo.publisher.storage());
        let published = Arc::new(move |_: &str| Some(Arc::clone(&storage)));
        Warmer::open(registry, options, published, Arc::new(SystemTime::now)).unwrap()
    }

    pub fn revision(&self) -> u64 {
        let head = self.repo.publisher.head(self.repo.now()).unwrap().0;
        head.manifest().revision
    }

    pub fn files(&self, count: usize) -> ChangeSet {
        let head = self.revision();
        let files =
            (0..count).map(|at| (format!("/f{head}-{at}"), format!("{head} {at}").repeat(at)));
        let changes = files.fold(self.repo.changes(), |changes, (path, text)| {
            changes.file(&path, text.as_bytes())
        });
        changes.done()
    }

    pub fn request(&self, change_set: ChangeSet, policy: Policy) -> Request {
        Request {
            warm: Some(Warming {
                warmer: Arc::clone(&self.warmer),
                policy,
                claim: Claim::default(),
            }),
            ..self.repo.request(change_set)
        }
    }

    pub fn publish(&self, change_set: ChangeSet, policy: Policy) -> Visible {
        match self
            .repo
            .try_publish(&self.request(change_set, policy))
            .unwrap()
        {
            Outcome::Visible(visible) => *visible,
            Outcome::Nothing => panic!("nothing was published"),
        }
    }
}

pub fn states(visible: &Visible) -> Vec<SiteState> {
    visible.stratum1.iter().map(|site| site.state).collect()
}

/// The objects of changes as they are announced.
pub fn listed(world: &World, set: &ChangeSet) -> Vec<Listed> {
    let names = objects(set).into_iter().map(|name| name.parse().unwrap());
    let size = |name: &ObjectName| world.repo.staged.stored_size(name).unwrap().unwrap();
    names
        .map(|name| Listed {
            bytes: size(&name),
            name,
        })
        .collect()
}

/// Names of all objects that the changes need.
pub fn objects(set: &ChangeSet) -> BTreeSet<String> {
    let entries = set.changes.iter().filter_map(|change| match &change.op {
        Op::Put { entry, .. } => entry.regular().cloned(),
        Op::Remove => None,
    });
    let names = entries.flat_map(|file| file.content.objects().collect::<Vec<_>>());
    names.map(|name| name.to_string()).collect()
}
