//! Who a site is: certificates that were replaced, revoked or ran out, clocks that are wrong, two of one name.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commit::CommitError;
use commit::warm::pull::{PullError, Pulling};
use commit::warm::{NewSite, Quorum, SiteState, Way};
use formats::ObjectName;
use formats::warm::identity::{self, PeerIdentity};
use formats::warm::{Bits, Enrolment, Missing};

use crate::support::sites::{World, listed, name_of, new_site, policy, states};
use crate::support::stratum1::{Fault, Port};

const DAY: Duration = Duration::from_secs(86_400);

/// What is said of the one site of a commit that failed for it.
fn said(world: &World) -> String {
    let refused = world
        .repo
        .try_publish(&world.request(world.files(4), policy(Quorum::All)));
    let Err(CommitError::Quorum { sites, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(sites[0].state, SiteState::Failed);
    sites[0].error.clone().unwrap()
}

#[test]
fn a_certificate_of_tomorrow_is_a_clock_that_is_wrong() {
    let world = World::at(1, SystemTime::now() + 10 * DAY, None);
    let error = said(&world);
    assert!(error.contains("compare its clock with ours"), "{error}");
    assert!(error.contains("not yet valid"), "{error}");
    let status = &world.warmer.status(true)[0];
    assert_eq!(status.connected, Some(false));
    assert!(status.failures > 0);
}

#[test]
fn a_site_whose_clock_is_years_ahead_says_so() {
    let mut world = World::new(0);
    let port = Port::any();
    let new = new_site(0, Way::Push { url: port.url() });
    let enrolment = world.warmer.add(new).unwrap();
    let clock = SystemTime::now() + 1000 * DAY;
    world.sites.push(port.serve_at(&enrolment, clock));
    let error = said(&world);
    assert!(error.contains("compare its clock with ours"), "{error}");
    assert!(error.contains("expired"), "{error}");
}

#[test]
fn clocks_are_compared() {
    let world = World::new(2);
    world.sites[0].set(Fault::Skewed(7200));
    let status = world.warmer.status(true);
    let ahead = status[0].clock_ahead.unwrap();
    assert!((7140..=7260).contains(&ahead), "{ahead}");
    assert_eq!(status[1].clock_ahead, None, "it does not tell");
    // nothing else is wrong with it
    world.publish(world.files(3), policy(Quorum::All));
    assert_eq!(status[0].connected, Some(true));
}

/// What was made while our own clock was ahead is made anew when that is set right.
#[test]
fn our_own_certificate_of_tomorrow_is_replaced() {
    let world = World::new(0);
    let dir = world.repo.dir.path().join("sites");
    let registry = commit::warm::Registry::new(dir.clone());
    let us = crate::support::sites::options().us;
    let now = SystemTime::now();
    let new = new_site(0, Way::Pull);
    registry.add(new, &us, now).unwrap();
    std::fs::remove_file(dir.join("publisher.crt")).unwrap();
    let made = registry.credentials(&us, now + 10 * DAY).unwrap().unwrap();
    let right = registry.credentials(&us, now).unwrap().unwrap();
    assert_ne!(made.certificate, right.certificate);
    let again = registry.credentials(&us, now + DAY).unwrap().unwrap();
    assert_eq!(again.certificate, right.certificate);
}

fn peer(enrolment: &Enrolment) -> PeerIdentity {
    let certificate = identity::certificate(enrolment.certificate.as_bytes()).unwrap();
    identity::peer(&certificate).unwrap()
}

/// A push that a site which pulls lacks all of, up to where it asks for objects.
fn asks<'w>(world: &'w World, who: &PeerIdentity) -> (Pulling<'w>, String, Vec<ObjectName>) {
    let list = listed(world, &world.files(8));
    let places = vec![Arc::clone(&world.repo.staged)];
    let begun = world.warmer.begin_early("test.example.org", &list, places);
    let txn = begun.unwrap().unwrap().commit;
    let pulling = world.warmer.pulling(who).unwrap();
    let count = list.len() as u32;
    let mut absent = Bits::none_of(count);
    (0..count).for_each(|at| absent.set(at));
    let missing = Missing {
        session: "s".into(),
        room: None,
        absent,
    };
    pulling.missing("test.example.org", &txn, &missing).unwrap();
    (
        pulling,
        txn,
        list.iter().map(|listed| listed.name).collect(),
    )
}

#[test]
fn an_enrolment_that_is_made_again_ends_the_first_at_once() {
    let world = World::new(0);
    let old = peer(&world.warmer.add(new_site(0, Way::Pull)).unwrap());
    let (pulling, txn, names) = asks(&world, &old);
    let bundle = |of: &Pulling<'_>| of.bundle("test.example.org", &txn, names.iter().copied());
    let mut whole = Vec::new();
    bundle(&pulling).unwrap().read_to_end(&mut whole).unwrap();
    assert!(!whole.is_empty());
    let mut cut = bundle(&pulling).unwrap();
    let new = peer(&world.warmer.add(new_site(0, Way::Pull)).unwrap());
    assert!(matches!(
        world.warmer.pulling(&old),
        Err(PullError::NotASite(_))
    ));
    assert!(cut.read_to_end(&mut Vec::new()).is_err(), "cut on its way");
    world.warmer.pulling(&new).unwrap();
    let revoked = world.repo.dir.path().join("sites/revoked");
    let revoked = std::fs::read_to_string(revoked).unwrap();
    assert!(revoked.contains(old.serial.as_str()));
}

#[test]
fn two_receivers_of_one_enrolment_do_not_take_each_other_s_objects() {
    let world = World::new(0);
    let who = peer(&world.warmer.add(new_site(0, Way::Pull)).unwrap());
    let [one, two] = [(); 2].map(|()| world.warmer.pulling(&who).unwrap());
    one.arrives(Some("one")).unwrap();
    for _ in 0..2 {
        let refused = two.arrives(Some("two")).unwrap_err();
        assert!(matches!(refused, PullError::Duplicate(_)), "{refused}");
        // the one that was there first, and whoever only looks
        one.arrives(Some("one")).unwrap();
        two.arrives(None).unwrap();
    }
    let status = &world.warmer.status(false)[0];
    assert_eq!((status.connected, status.failures), (Some(true), 2));
    let error = status.last_error.as_ref().unwrap();
    assert!(error.contains("an enrolment of its own"), "{error}");
    // with another enrolment it begins anew
    let who = peer(&world.warmer.add(new_site(0, Way::Pull)).unwrap());
    world
        .warmer
        .pulling(&who)
        .unwrap()
        .arrives(Some("two"))
        .unwrap();
}

/// All that a site pulls keeps to one cap, however many bundles it asks for at once.
#[test]
fn a_cap_is_the_site_s_whoever_calls_whom() {
    let world = World::new(0);
    let capped = NewSite {
        // the first piece goes at once, what follows would take for ever
        bandwidth: Some(1),
        ..new_site(0, Way::Pull)
    };
    let who = peer(&world.warmer.add(capped).unwrap());
    let (pulling, txn, names) = asks(&world, &who);
    let mut first = pulling
        .bundle("test.example.org", &txn, names.iter().copied())
        .unwrap();
    let mut buffer = [0; 16];
    assert!(first.read(&mut buffer).unwrap() > 0);
    let mut second = pulling
        .bundle("test.example.org", &txn, names.iter().copied())
        .unwrap();
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = second.read(&mut [0; 16]);
        let _ = done.send(());
    });
    // sixteen bytes at one a second
    let early = waits.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "the second bundle has a cap of its own");
}

#[test]
fn what_came_to_nothing_is_told_to_whoever_asks() {
    let world = World::new(0);
    let who = peer(&world.warmer.add(new_site(0, Way::Pull)).unwrap());
    let (pulling, txn, _) = asks(&world, &who);
    assert!(pulling.work().given_up.is_empty());
    assert!(matches!(
        pulling.seen("test.example.org", &txn),
        Err(PullError::Unfit)
    ));
    world.warmer.end_early("test.example.org", None);
    let work = pulling.work();
    assert!(work.transactions.is_empty());
    assert_eq!(work.given_up[0].txn, txn);
    pulling.seen("test.example.org", &txn).unwrap();
    assert!(pulling.work().is_empty());
}

#[test]
fn who_was_revoked_is_sent_nothing_more() {
    let world = World::new(2);
    world.sites[0].set(Fault::Hangs);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.publish(world.files(4), policy(Quorum::All)));
        world.sites[0].until("something is on its way", |site| site.bundles() > 0);
        world.warmer.revoke(&name_of(0)).unwrap();
        let visible = waiting.join().unwrap();
        assert_eq!(
            states(&visible),
            [SiteState::Warm],
            "all of those that are left"
        );
    });
    world.sites[0].set(Fault::None);
    let connections = world.sites[0].connections();
    world.publish(world.files(4), policy(Quorum::All));
    assert_eq!(world.sites[0].connections(), connections);
    assert!(world.sites[0].published().is_empty());
    // a named quorum that cannot be met any more
    let named = Quorum::Named(BTreeSet::from([name_of(0)]));
    let refused = world
        .repo
        .try_publish(&world.request(world.files(4), policy(named)));
    assert!(matches!(refused, Err(CommitError::Quorum { .. })));
    // it stays so
    assert_eq!(World::warmer_of(&world.repo).status(false).len(), 1);
}

#[test]
fn a_certificate_that_was_replaced_is_nobodys() {
    let world = World::new(1);
    let url = format!("https://{}", world.sites[0].address);
    let new = new_site(0, Way::Push { url });
    // the receiver goes on with the old one
    world.warmer.add(new).unwrap();
    let error = said(&world);
    assert!(error.contains("not good any more"), "{error}");
    assert!(world.sites[0].kept().is_empty());
}

#[test]
fn a_site_does_not_stand_in_for_another() {
    let world = World::new(2);
    // one's address leads to the other
    let url = format!("https://{}", world.sites[1].address);
    let new = new_site(0, Way::Push { url });
    world.warmer.add(new).unwrap();
    let error = said(&world);
    assert!(error.contains("somebody else"), "{error}");
}

#[test]
fn an_expired_certificate_is_told_as_such() {
    let long_ago = SystemTime::now() - 800 * DAY;
    let world = World::at(1, long_ago, None);
    let error = said(&world);
    assert!(error.contains("site add site-0"), "{error}");
}
