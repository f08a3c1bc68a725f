//! Stratum 1s are warm before the flip, as far as the policy asks for it; and no site, whatever it does,
//! harms a publish.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use commit::warm::{Policy, Quorum, Registry, SiteOutcome, SiteState, Warmer, Way};
use commit::{CommitError, Outcome, Progress, Step};

use crate::support::checked::assert_checks;
use crate::support::sites::{World, listed, name_of, new_site, objects, options, policy, states};
use crate::support::stratum1::{Fault, Port};

/// Hears of sites.
#[derive(Default)]
struct Heard(Mutex<Vec<SiteOutcome>>);

impl Progress for Heard {
    fn step(&self, _: Step, _: u64, _: u64) {}

    fn site(&self, site: &SiteOutcome) {
        self.0.lock().unwrap().push(site.clone());
    }
}

#[test]
fn all_are_warm_before_the_flip_and_hear_of_it_after() {
    let world = World::new(3);
    let set = world.files(40);
    let wanted = objects(&set);
    let request = world.request(set, policy(Quorum::All));
    let heard = Heard::default();
    let outcome = commit::publish(
        &request,
        &world.repo.publisher,
        &world.repo.txn_dir(),
        &heard,
    );
    let Outcome::Visible(visible) = outcome.unwrap() else {
        panic!("nothing was published");
    };
    commit::txn::clear(&world.repo.txn_dir()).unwrap();
    assert_eq!(states(&visible), [SiteState::Warm; 3]);
    assert_eq!(visible.stratum1[0].objects, wanted.len() as u64);
    for site in &world.sites {
        assert_eq!(site.kept(), wanted);
        site.until("told of the revision", |site| site.published().len() == 1);
        let told = &site.published()[0];
        assert!(told.contains(&visible.root_hash.to_string()), "{told}");
        assert!(site.connections() <= 4, "{}", site.connections());
    }
    let heard = heard.0.into_inner().unwrap();
    for at in 0..3 {
        let last = heard
            .iter()
            .rfind(|site| site.site == name_of(at).to_string());
        assert_eq!(last.unwrap().missing_objects, 0);
    }
    // what all of them have is not sent again, and nothing is left of it
    let bundles = world.sites[0].bundles();
    world.publish(
        world
            .repo
            .changes()
            .file("/again", &b"0 39".repeat(39))
            .done(),
        policy(Quorum::All),
    );
    world.sites[0].until("told of the second", |site| site.published().len() == 2);
    assert!(world.sites[0].bundles() <= bundles + 1);
    assert_checks(&world.repo);
}

#[test]
fn a_commit_without_objects_tells_the_sites_all_the_same() {
    let world = World::new(1);
    world.publish(
        world.repo.changes().dir("/empty").done(),
        policy(Quorum::All),
    );
    world.sites[0].until("told", |site| site.published().len() == 1);
    assert_eq!(world.sites[0].bundles(), 0);
}

#[test]
fn without_a_quorum_nothing_is_published_and_nothing_is_lost() {
    let world = World::new(3);
    world.sites[1].set(Fault::Away);
    let before = world.revision();
    let set = world.files(10);
    let strict = Policy {
        reach_within: Duration::ZERO,
        ..policy(Quorum::All)
    };
    let error = world
        .repo
        .try_publish(&world.request(set.clone(), strict))
        .unwrap_err();
    let CommitError::Quorum { sites, is_late, .. } = &error else {
        panic!("{error}");
    };
    assert!(!is_late);
    assert_eq!(sites[1].state, SiteState::Failed);
    assert!(
        sites[1].error.as_ref().unwrap().contains("reached"),
        "{sites:?}"
    );
    assert_eq!(world.revision(), before);
    assert!(!world.repo.txn_dir().join("state.json").exists());
    for at in [0, 2] {
        world.sites[at].until("told that it is off", |site| site.given_up() == 1);
    }
    // the same changes, when the site is back
    world.sites[1].set(Fault::None);
    let visible = world.publish(set.clone(), policy(Quorum::All));
    assert_eq!(states(&visible), [SiteState::Warm; 3]);
    assert_eq!(world.sites[1].kept(), objects(&set));
    assert_checks(&world.repo);
}

#[test]
fn the_deadline_is_the_end() {
    let world = World::new(2);
    world.sites[1].set(Fault::Hangs);
    let late = Policy {
        deadline: Duration::from_millis(300),
        ..policy(Quorum::All)
    };
    let set = world.files(3);
    let error = world
        .repo
        .try_publish(&world.request(set.clone(), late.clone()))
        .unwrap_err();
    assert!(
        matches!(error, CommitError::Quorum { is_late: true, .. }),
        "{error}"
    );
    let anyway = Policy {
        commit_anyway: true,
        ..late
    };
    let visible = world.publish(set, anyway);
    assert_eq!(states(&visible), [SiteState::Warm, SiteState::Behind]);
    world.sites[1].set(Fault::None);
}

#[test]
fn one_that_hangs_holds_up_nobody() {
    let world = World::new(3);
    world.sites[0].set(Fault::Hangs);
    for _ in 0..3 {
        let visible = world.publish(world.files(20), policy(Quorum::Number(2)));
        assert_eq!(states(&visible)[1..], [SiteState::Warm; 2]);
        assert_eq!(visible.stratum1[0].state, SiteState::Behind);
    }
    world.sites[0].set(Fault::None);
}

#[test]
fn one_of_five_gone_for_good() {
    let mut world = World::new(5);
    drop(world.sites.remove(4));
    let most = Policy {
        commit_anyway: true,
        reach_within: Duration::ZERO,
        ..policy(Quorum::All)
    };
    for _ in 0..2 {
        let visible = world.publish(world.files(5), most.clone());
        assert_eq!(states(&visible)[..4], [SiteState::Warm; 4]);
        assert_eq!(visible.stratum1[4].state, SiteState::Failed);
    }
    let status = world.warmer.status(true);
    assert_eq!(status[4].connected, Some(false));
    assert_eq!(status[4].behind_revisions, 2);
    assert!(status[4].behind_objects > 0 && status[4].last_error.is_some());
    assert_eq!(status[0].connected, Some(true));
    // until it is taken out: then all are all of the others
    world.warmer.revoke(&name_of(4)).unwrap();
    let visible = world.publish(world.files(5), policy(Quorum::All));
    assert_eq!(states(&visible), [SiteState::Warm; 4]);
}

#[test]
fn faults_that_pass_are_sat_out() {
    let faults = [
        Fault::Cuts(2),
        Fault::Spoils(2),
        Fault::Busy(2),
        Fault::Forgets(2),
    ];
    for fault in faults {
        let world = World::new(1);
        world.sites[0].set(fault);
        let set = world.files(30);
        let visible = world.publish(set.clone(), policy(Quorum::All));
        assert_eq!(states(&visible), [SiteState::Warm], "{fault:?}");
        assert_eq!(world.sites[0].kept(), objects(&set), "{fault:?}");
    }
}

#[test]
fn faults_that_stay_are_told_by_name() {
    let faults = [
        (Fault::Full(3), "no room"),
        (Fault::Lies, "does not have them"),
        (Fault::Spoils(u32::MAX), "damaged"),
    ];
    for (fault, says) in faults {
        let world = World::new(2);
        world.sites[0].set(fault);
        let set = world.files(8);
        let refused = world
            .repo
            .try_publish(&world.request(set.clone(), policy(Quorum::All)));
        assert!(
            matches!(refused, Err(CommitError::Quorum { is_late: false, .. })),
            "{fault:?}"
        );
        let visible = world.publish(set, policy(Quorum::Named(BTreeSet::from([name_of(1)]))));
        // the quorum may be met before the other one has failed
        let status = world.warmer.status(false);
        let error = status[0].last_error.as_ref().unwrap();
        assert!(error.contains(says), "{fault:?}: {error}");
        assert_eq!(visible.stratum1[1].state, SiteState::Warm);
    }
}

/// What asking again cannot find out; docs/stratum1.md says so.
#[test]
fn one_that_lies_in_every_answer_is_believed() {
    let world = World::new(1);
    world.sites[0].set(Fault::LiesWell);
    let visible = world.publish(world.files(3), policy(Quorum::All));
    assert_eq!(states(&visible), [SiteState::Warm]);
    assert!(world.sites[0].kept().is_empty());
}

#[test]
fn what_was_cut_is_resumed_and_not_begun_again() {
    let world = World::new(1);
    let set = world.files(400);
    let bytes: u64 = {
        let storage = &world.repo.staged;
        let sizes = objects(&set).into_iter().map(|name| name.parse().unwrap());
        sizes
            .map(|name| storage.stored_size(&name).unwrap().unwrap())
            .sum()
    };
    world.sites[0].set(Fault::Cuts(1));
    world.publish(set.clone(), policy(Quorum::All));
    assert_eq!(world.sites[0].kept(), objects(&set));
    assert!(
        world.sites[0].bytes() <= bytes,
        "nothing that was taken was sent again"
    );
    assert!(world.sites[0].bundles() >= 2);
}

#[test]
fn a_late_site_converges_without_anybody() {
    let world = World::new(2);
    world.sites[1].set(Fault::Away);
    let anyway = Policy {
        commit_anyway: true,
        reach_within: Duration::ZERO,
        ..policy(Quorum::All)
    };
    let mut wanted = BTreeSet::new();
    for _ in 0..3 {
        let set = world.files(6);
        wanted.extend(objects(&set));
        world.publish(set, anyway.clone());
    }
    assert_eq!(world.warmer.status(false)[1].behind_revisions, 3);
    world.sites[1].set(Fault::None);
    // another process, which finds what there is to do
    let again = World::warmer_of(&world.repo);
    again.catch_up();
    world.sites[1].until("told of all", |site| site.published().len() >= 3);
    assert_eq!(world.sites[1].kept(), wanted);
    world.sites[1].until("caught up", |_| {
        again.status(false)[1].behind_revisions == 0
    });
    let left = world.repo.dir.path().join("sites/pushes/test.example.org");
    world.sites[1].until("nothing is left", |_| {
        std::fs::read_dir(&left).unwrap().count() == 0
    });
}

#[test]
fn what_is_too_old_is_not_kept() {
    let world = World::new(1);
    world.sites[0].set(Fault::Away);
    let anyway = Policy {
        commit_anyway: true,
        reach_within: Duration::ZERO,
        ..policy(Quorum::All)
    };
    world.publish(world.files(6), anyway);
    let registry = Registry::new(world.repo.dir.path().join("sites"));
    let later = || SystemTime::now() + Duration::from_secs(2 * 86_400);
    let nowhere = Arc::new(|_: &str| None);
    let again = Warmer::open(registry, options(), nowhere, Arc::new(later)).unwrap();
    assert_eq!(again.status(false)[0].behind_revisions, 1);
    again.catch_up();
    assert_eq!(again.status(false)[0].behind_revisions, 0);
}

#[test]
fn a_slow_line_slows_its_own_site_alone() {
    // 200 bytes a second: the objects would take minutes
    let mut world = World::at(1, SystemTime::now(), Some(200));
    let port = Port::any();
    let new = new_site(1, Way::Push { url: port.url() });
    let enrolment = world.warmer.add(new).unwrap();
    world.sites.push(port.serve(&enrolment));
    let changes = (0..60_u32).fold(world.repo.changes(), |changes, at| {
        let text: Vec<u8> = (0..2000_u32)
            .map(|n| (n.wrapping_mul(at + 77) >> 3) as u8)
            .collect();
        changes.file(&format!("/large{at}"), &text)
    });
    let visible = world.publish(changes.done(), policy(Quorum::Number(1)));
    assert_eq!(states(&visible), [SiteState::Behind, SiteState::Warm]);
    assert!(world.sites[0].bytes() < world.sites[1].bytes());
}

#[test]
fn objects_go_out_early_and_are_there_at_commit() {
    let world = World::new(1);
    let set = world.files(50);
    let places = vec![Arc::clone(&world.repo.staged)];
    world
        .warmer
        .begin_early("test.example.org", &listed(&world, &set), places)
        .unwrap();
    world.sites[0].until("there early", |site| site.kept() == objects(&set));
    let bundles = world.sites[0].bundles();
    let visible = world.publish(set, policy(Quorum::All));
    assert_eq!(states(&visible), [SiteState::Warm]);
    assert_eq!(
        world.sites[0].bundles(),
        bundles,
        "nothing was left to send"
    );
    // what it came with is forgotten by whoever keeps it for nobody, away or not, now or after a restart
    assert_eq!(world.sites[0].given_up(), 0);
    world.sites[0].set(Fault::Away);
    world.warmer.end_early("test.example.org", None);
    world.sites[0].set(Fault::None);
    let again = World::warmer_of(&world.repo);
    again.catch_up();
    world.sites[0].until("told that it is off", |site| site.given_up() == 1);
    let left = world.repo.dir.path().join("sites/pushes/test.example.org");
    world.sites[0].until("nothing is left of it", |_| {
        std::fs::read_dir(&left).unwrap().count() == 0
    });
}

#[test]
fn what_went_out_early_is_ended_by_whoever_comes_after_a_crash() {
    let world = World::new(1);
    let early = |world: &World, count| {
        let list = listed(world, &world.files(count));
        let places = vec![Arc::clone(&world.repo.staged)];
        let begun = world.warmer.begin_early("test.example.org", &list, places);
        begun.unwrap().unwrap().commit
    };
    early(&world, 10);
    early(&world, 20);
    let all = objects(&world.files(20));
    world.sites[0].until("there early", |site| site.kept() == all);
    let world = World {
        warmer: World::warmer_of(&world.repo),
        ..world
    };
    world.warmer.settle("test.example.org");
    world.warmer.catch_up();
    let newest = early(&world, 30);
    world.warmer.end_early("test.example.org", Some(&newest));
    world.sites[0].until("told of two", |site| site.given_up() == 2);
    let all = objects(&world.files(30));
    world.sites[0].until("there early", |site| site.kept() == all);
    assert_eq!(world.sites[0].given_up(), 2, "the newest is what is staged");
}

#[test]
fn a_commit_of_many_objects_goes_out_in_parts() {
    let world = World::in_parts(3, 7);
    world.sites[2].set(Fault::Away);
    let anyway = Policy {
        commit_anyway: true,
        reach_within: Duration::ZERO,
        ..policy(Quorum::All)
    };
    let set = world.files(50);
    let wanted = objects(&set);
    let (count, parts) = (wanted.len() as u64, wanted.len().div_ceil(7));
    assert!(parts > 5);
    let visible = world.publish(set, anyway);
    assert_eq!(
        states(&visible),
        [SiteState::Warm, SiteState::Warm, SiteState::Failed]
    );
    assert_eq!(visible.stratum1[0].objects, count);
    assert_eq!(visible.stratum1[0].missing_objects, 0);
    for site in &world.sites[..2] {
        assert_eq!(site.kept(), wanted);
        site.until("told of each part", |site| site.published().len() == parts);
    }
    let status = &world.warmer.status(false)[2];
    assert_eq!((status.behind_revisions, status.behind_objects), (1, count));
    let status = &world.warmer.status(false)[0];
    assert_eq!((status.behind_revisions, status.objects_sent), (0, count));
    assert!(status.bytes_sent > 0 && status.failures == 0);
    world.sites[2].set(Fault::None);
    let again = World::warmer_of(&world.repo);
    again.catch_up();
    world.sites[2].until("told of all", |site| site.published().len() == parts);
    assert_eq!(world.sites[2].kept(), wanted);
}

#[test]
fn one_part_that_fails_is_the_whole_commit_s_failure() {
    let world = World::in_parts(2, 7);
    world.sites[1].set(Fault::Full(40));
    let set = world.files(50);
    let parts = objects(&set).len().div_ceil(7);
    let refused = world
        .repo
        .try_publish(&world.request(set, policy(Quorum::All)));
    let Err(CommitError::Quorum { sites, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(sites[1].state, SiteState::Failed);
    world.sites[0].until("told that all is off", |site| site.given_up() == parts);
}

#[test]
fn a_commit_that_changes_nothing_is_given_up() {
    let world = World::new(1);
    let set = world.files(2);
    world.publish(set.clone(), policy(Quorum::All));
    let again = world
        .repo
        .try_publish(&world.request(set, policy(Quorum::All)));
    assert_eq!(again.unwrap(), Outcome::Nothing);
    world.sites[0].until("told that it is off", |site| site.given_up() == 1);
}
