//! A commit that is cut short while its sites are served, or before they hear how it ended: whoever
//! comes next tells each of them what is true.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use commit::warm::{Policy, Quorum, Registry, Way};
use commit::{NoProgress, Resumed};
use fail::FailScenario;

use crate::support::checked::assert_checks;
use crate::support::repo::{BOOT, Repo};
use crate::support::sites::{World, name_of, new_site, objects, options, policy};
use crate::support::stratum1::Fault;

/// Each step, and whether the revision is visible after it.
const STEPS: [(&str, bool); 6] = [
    ("commit::stored", false),
    ("warm::begun", false),
    ("commit::warmed", false),
    ("stratum0::before_manifest", false),
    ("warm::before_published", true),
    ("warm::decided", true),
];

fn stopped(world: &World, step: &str, action: &str, policy: Policy) {
    let request = world.request(world.files(9), policy);
    let scenario = FailScenario::setup();
    fail::cfg(step, action).unwrap();
    let publisher = &world.repo.publisher;
    let _ = catch_unwind(AssertUnwindSafe(|| {
        commit::publish(&request, publisher, &world.repo.txn_dir(), &NoProgress)
    }));
    scenario.teardown();
}

/// What a process that starts anew does; true if the commit was done.
fn resume(world: &mut World) -> bool {
    world.warmer = World::warmer_of(&world.repo);
    let publisher = world.repo.reopened();
    let resumed = commit::resume(&world.repo.txn_dir(), &publisher, world.repo.now(), BOOT);
    let is_done = match resumed.unwrap() {
        Resumed::Done { visible, .. } => {
            let revision = (visible.root_hash.to_string(), visible.revision);
            let push = visible.push.as_ref().unwrap();
            world
                .warmer
                .visible(push, revision, SystemTime::now())
                .unwrap();
            true
        }
        Resumed::NotDone { .. } | Resumed::None => false,
    };
    commit::txn::clear(&world.repo.txn_dir()).unwrap();
    world.warmer.settle("test.example.org");
    world.warmer.catch_up();
    is_done
}

#[test]
fn each_site_hears_how_it_ended() {
    let _alone = crate::alone();
    for (step, visible) in STEPS {
        for action in ["panic", "return"] {
            let mut world = World::new(2);
            stopped(&world, step, action, policy(Quorum::All));
            let is_done = resume(&mut world);
            assert_eq!(is_done, visible, "{step}, {action}");
            for site in &world.sites {
                if visible {
                    site.until(step, |site| !site.published().is_empty());
                    assert_eq!(site.given_up(), 0, "{step}");
                } else if !matches!(step, "commit::stored") {
                    site.until(step, |site| site.given_up() == 1);
                    assert!(site.published().is_empty(), "{step}");
                }
            }
            let left = world.repo.dir.path().join("sites/pushes/test.example.org");
            let count = || std::fs::read_dir(&left).map_or(0, Iterator::count);
            world.sites[0].until("nothing is left of it", |_| count() == 0);
            assert_checks(&world.repo);
            let set = world.files(9);
            world.publish(set.clone(), policy(Quorum::All));
            assert!(world.sites[0].kept().is_superset(&objects(&set)), "{step}");
        }
    }
}

/// Who settles what was interrupted leaves a commit alone that is still finding out how it ended.
#[test]
fn another_commit_does_not_speak_for_one_that_finds_out() {
    let _alone = crate::alone();
    let world = World::new(1);
    let request = world.request(world.files(9), policy(Quorum::All));
    let scenario = FailScenario::setup();
    fail::cfg("warm::before_published", "return").unwrap();
    let failed = commit::publish(
        &request,
        &world.repo.publisher,
        &world.repo.txn_dir(),
        &NoProgress,
    );
    scenario.teardown();
    assert!(failed.is_err());
    world.warmer.settle("test.example.org");
    let publisher = world.repo.reopened();
    let resumed = commit::resume(&world.repo.txn_dir(), &publisher, world.repo.now(), BOOT);
    let Resumed::Done { visible, .. } = resumed.unwrap() else {
        panic!("it is visible");
    };
    let revision = (visible.root_hash.to_string(), visible.revision);
    let push = visible.push.as_ref().unwrap();
    world
        .warmer
        .visible(push, revision, SystemTime::now())
        .unwrap();
    world.sites[0].until("told of it", |site| site.published().len() == 1);
    assert_eq!(world.sites[0].given_up(), 0);
    drop(request);
    commit::txn::clear(&world.repo.txn_dir()).unwrap();
    // and one that never finds out is spoken for
    let request = world.request(world.files(9), policy(Quorum::All));
    let scenario = FailScenario::setup();
    fail::cfg("warm::before_published", "return").unwrap();
    let _ = commit::publish(&request, &publisher, &world.repo.txn_dir(), &NoProgress);
    scenario.teardown();
    drop(request);
    world.warmer.settle("test.example.org");
    world.sites[0].until("told that it is off", |site| site.given_up() == 1);
}

/// Killed while objects are on their way: what arrived is not sent again.
#[test]
fn a_push_that_was_cut_by_a_crash_goes_on() {
    let _alone = crate::alone();
    let mut world = World::new(2);
    world.sites[1].set(Fault::Hangs);
    stopped(&world, "commit::warmed", "panic", policy(Quorum::Number(1)));
    assert!(!resume(&mut world));
    let bytes = world.sites[0].bytes();
    world.sites[1].set(Fault::None);
    let visible = world.publish(world.files(9), policy(Quorum::All));
    assert_eq!(visible.stratum1.len(), 2);
    assert_eq!(world.sites[0].bytes(), bytes);
    assert_eq!(world.sites[0].kept(), world.sites[1].kept());
}

/// A register that is changed is the old one or the new one, and what was revoked stays so.
#[test]
fn a_site_is_one_or_not() {
    let _alone = crate::alone();
    for step in ["sites::revoked", "sites::written"] {
        let world = World::new(1);
        let name = name_of(0);
        let scenario = FailScenario::setup();
        fail::cfg(step, "return").unwrap();
        assert!(world.warmer.revoke(&name).is_err());
        scenario.teardown();
        let again = World::warmer_of(&world.repo);
        let is_gone = again.list().unwrap().is_empty();
        assert_eq!(is_gone, step == "sites::written", "{step}");
        if !is_gone {
            again.revoke(&name).unwrap();
        }
        assert!(World::warmer_of(&world.repo).list().unwrap().is_empty());
    }
}

/// A first site that was cut short is made by the next call, and its certificate fits the authority.
#[test]
fn a_first_site_that_was_cut_short_is_made_again() {
    let _alone = crate::alone();
    for step in ["sites::authority", "sites::own"] {
        let repo = Repo::new();
        let registry = Registry::new(repo.dir.path().join("sites"));
        let url = "https://127.0.0.1:1".into();
        let new = new_site(0, Way::Push { url });
        let (us, now) = (options().us, SystemTime::now());
        let scenario = FailScenario::setup();
        fail::cfg(step, "return").unwrap();
        assert!(registry.add(new.clone(), &us, now).is_err(), "{step}");
        scenario.teardown();
        assert!(registry.sites().unwrap().is_empty(), "{step}");
        let enrolment = registry.add(new, &us, now).unwrap();
        enrolment.credentials().expect("what fits");
        assert!(registry.credentials(&us, now).unwrap().is_some(), "{step}");
        assert_eq!(registry.sites().unwrap().len(), 1, "{step}");
    }
}

/// Whoever is cut short after telling a site tells it once more, rather than never.
#[test]
fn a_site_is_told_again_where_it_may_not_have_been() {
    let _alone = crate::alone();
    let mut world = World::new(1);
    let scenario = FailScenario::setup();
    let killed = Arc::new(AtomicBool::new(false));
    let kill = Arc::clone(&killed);
    let stop = move || {
        kill.store(true, Ordering::SeqCst);
        panic!("killed");
    };
    fail::cfg_callback("warm::told", stop).unwrap();
    world.publish(world.files(3), policy(Quorum::All));
    world.sites[0].until("told", |site| site.published().len() == 1);
    // the answer, too, has come by then
    world.sites[0].until("killed", |_| killed.load(Ordering::SeqCst));
    scenario.teardown();
    world.warmer = World::warmer_of(&world.repo);
    world.warmer.catch_up();
    world.sites[0].until("told again", |site| site.published().len() == 2);
}
