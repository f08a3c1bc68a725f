//! Random changes against a model: whatever was staged is what is published, and every revision is
//! healthy. The same suite runs over all publishers (`support::site`).

mod world;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::support::bucket::InBucket;
use crate::support::gateway::{self, WAYS};
use crate::support::overlay::Node;
use crate::support::repo::Repo;
use crate::support::server::{self, Server};
use crate::support::site::{CHUNKED, Directory, Served, Site, Through};
use world::{Do, World, any_step};

/// Revisions of each course of the suite.
const REVISIONS: usize = 10;

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
        let mut world = World::at(Directory(Repo::with(&CHUNKED)));
        for step in &steps {
            world.step(step);
        }
        world.commit();
    }
    #[test]
    fn with_markers_that_come_and_go_by_themselves(steps in prop::collection::vec(any_step(), 1..60)) {
        let repo = Repo::with(&[
            ("CVMFS_AUTOCATALOGS", "true"),
            ("CVMFS_AUTOCATALOGS_MAX_WEIGHT", "8"),
            ("CVMFS_AUTOCATALOGS_MIN_WEIGHT", "3"),
        ]);
        let mut world = World::generating(Directory(repo));
        let rules = world.file(b"/a/*\n/*/b\n! */e\n");
        world.stage.put(&"/.cvmfsdirtab".parse().unwrap(), Node::new(rules));
        for step in &steps {
            world.step(step);
        }
        world.commit();
    }
}

/// Ten revisions, each judged by all who can. A case of it takes many seconds, too long to look for
/// smaller ones.
fn ten_revisions<S: Site>(cases: u32, site: impl Fn() -> S) {
    let changes = prop::collection::vec(any_step(), 3..15);
    let revisions = prop::collection::vec(changes, REVISIONS);
    let config = ProptestConfig {
        cases: config().cases.div_ceil(cases),
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let run = |revisions: Vec<Vec<Do>>| {
        let mut world = World::at(site());
        for steps in &revisions {
            // one revision: a commit in between is the end of it
            let steps = steps.iter().filter(|step| !matches!(step, Do::Commit));
            steps.for_each(|step| world.step(step));
            world.commit();
            world.site.judge();
        }
        Ok(())
    };
    TestRunner::new(config).run(&revisions, run).unwrap();
}

#[test]
fn ten_revisions_in_a_directory() {
    ten_revisions(16, Directory::today);
}

#[test]
fn ten_revisions_through_a_double() {
    for way in WAYS {
        ten_revisions(24, || Through::start(gateway::Make::Double, way));
    }
}

#[test]
fn ten_revisions_through_a_real_gateway() {
    if !gateway::is_installed() {
        return;
    }
    for way in WAYS {
        ten_revisions(48, || Through::start(gateway::Make::Real, way));
    }
}

#[test]
fn ten_revisions_in_a_bucket() {
    ten_revisions(24, || InBucket::with(&CHUNKED));
}

#[test]
fn ten_revisions_by_a_double_of_cvmfs_server() {
    for way in server::WAYS {
        ten_revisions(24, || Served::by(Server::new(&CHUNKED), way));
    }
}

#[test]
fn ten_revisions_by_the_real_cvmfs_server() {
    for way in server::WAYS {
        if Server::real(&CHUNKED).is_none() {
            return;
        }
        ten_revisions(48, || {
            let server = Server::real(&CHUNKED).expect("it was there a moment ago");
            Served::by(server, way)
        });
    }
}
