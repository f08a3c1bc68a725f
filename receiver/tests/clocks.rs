//! Clocks that are wrong, and are set: nothing goes early for it, and what is wrong says that it is a clock.

use std::time::{Duration, Instant, SystemTime};

use axum::http::Method;
use formats::warm::{Enrolment, Role};
use receiver::doctor::{Verdict, examine};
use receiver::ledger::State;
use store::peer::{PeerError, connect};

use crate::expiry::{catalog_of, plain};
use crate::support::publisher::{Caller, PUBLISHER, SITE};
use crate::support::world::{Running, World};
use crate::support::{REPO, objects};

const DAY: u64 = 86_400;
const WEEK: u64 = 7 * DAY;
const YEARS: u64 = 3_000 * DAY;

fn state(receiver: &Running) -> Option<State> {
    receiver
        .site
        .ledger
        .of(REPO)
        .first()
        .map(|txn| txn.about().state)
}

#[test]
fn a_clock_that_jumps_forward_expires_nothing_early() {
    let world = World::new();
    let receiver = world.start();
    let all = objects(0..20);
    world.call(receiver.at()).push("t", &all);
    receiver.site.sweep();
    receiver.set_ahead(YEARS);
    receiver.site.sweep();
    receiver.pass(WEEK - 100);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 20, "a week is a week");
    receiver.pass(200);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 0);
    receiver.end();
}

/// A machine that starts with a clock that nobody has set yet, or after a month in a box.
#[test]
fn time_in_which_no_receiver_ran_does_not_count() {
    let world = World::new();
    let receiver = world.start();
    let all = objects(0..20);
    world.call(receiver.at()).push("t", &all);
    receiver.pass(2 * DAY);
    receiver.site.sweep();
    receiver.end();
    let receiver = world.start_ahead(YEARS);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 20);
    receiver.pass(4 * DAY);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 20);
    receiver.pass(2 * DAY);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 0, "two days before, and six after");
    receiver.end();
}

/// What came while the clock was ahead is of the future once that is set right: it expires in its time,
/// and a catalog counts although it came, by its file's time, before the objects that it needs.
#[test]
fn what_is_of_the_future_expires_in_its_time() {
    let world = World::new();
    let receiver = world.start_ahead(YEARS);
    let all = plain(0..40);
    world.call(receiver.at()).push("t", &all);
    receiver.site.sweep();
    receiver.set_ahead(0);
    receiver.site.sweep();
    assert_eq!(state(&receiver), Some(State::Open));
    let about = receiver.site.ledger.of(REPO)[0].about();
    assert_eq!(about.opened, 0, "nobody knows when");
    assert!(about.touched <= receiver.site.clock.now());
    catalog_of(&world, &all[..10]);
    receiver.pass(WEEK - 100);
    receiver.site.sweep();
    assert_eq!(world.there(&all), all.len());
    receiver.pass(200);
    receiver.site.sweep();
    assert_eq!(world.there(&all), 10, "those that the catalog needs");
    assert_eq!(state(&receiver), None);
    receiver.end();
}

fn of_tomorrow(world: &World) -> Enrolment {
    let made = SystemTime::now() + Duration::from_secs(10 * DAY);
    let issued = world.publisher.issue(Role::Site, SITE, made);
    let text = |pem: Vec<u8>| String::from_utf8(pem).unwrap();
    Enrolment {
        certificate: text(issued.certificate),
        key: text(issued.key),
        ..world.publisher.enrolment(None, &[])
    }
}

#[test]
fn a_certificate_of_tomorrow_says_that_it_is_a_clock() {
    let mut world = World::new();
    world.enrol("publisher", &of_tomorrow(&world));
    let receiver = world.start();
    // we do not take theirs
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (host, port) = (receiver.at().ip().to_string(), receiver.at().port());
    let own = world.publisher.own();
    let wait = Duration::from_secs(20);
    let refused = runtime
        .block_on(connect(&own, &host, port, wait))
        .unwrap_err();
    let PeerError::Term { what, .. } = &refused else {
        panic!("{refused}");
    };
    assert!(what.contains("not valid yet"), "{refused}");
    assert!(refused.to_string().contains("clock"), "{refused}");
    // they do not take ours
    world.enrol("publisher", &world.publisher.enrolment(None, &[]));
    let ahead = SystemTime::now() + Duration::from_secs(10 * DAY);
    let expired = SystemTime::now() - Duration::from_secs(YEARS);
    for made in [ahead, expired] {
        let ours = world
            .publisher
            .credentials(Role::Publisher, PUBLISHER, made);
        let caller = Caller::connect(&ours, receiver.at());
        let answer = caller.and_then(|mut it| it.ask(Method::GET, "/v1/self", None, Vec::new()));
        assert!(answer.is_none(), "{answer:?}");
    }
    let begun = Instant::now();
    while receiver.site.metrics.strangers.get() < 3 {
        assert!(begun.elapsed() < wait, "they are counted");
        std::thread::sleep(Duration::from_millis(10));
    }
    receiver.end();
    world.enrol("publisher", &of_tomorrow(&world));
    // and the self-test says what it is
    world.more = "listen = \"\"\n".into();
    let report = runtime.block_on(examine(&world.config(), SystemTime::now()));
    let said = report
        .checks
        .iter()
        .find(|check| check.found.contains("not valid yet"));
    let said = said.expect("the clock");
    assert_eq!(said.verdict, Verdict::Failed);
    assert!(said.hint.as_ref().unwrap().contains("NTP"));
    let late = SystemTime::now() + Duration::from_secs(YEARS);
    let report = runtime.block_on(examine(&world.config(), late));
    assert!(
        report
            .checks
            .iter()
            .any(|check| check.found.contains("by this machine's clock"))
    );
}
