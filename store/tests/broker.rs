//! The connection to a broker, through a real one.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use formats::warm::identity::{Authority, Role};
use store::{Broker, BrokerError, BrokerOptions, BrokerTls, Saying};
use tempfile::TempDir;

use crate::support::mosquitto::{self, Mosquitto};

/// Long enough for any machine; nothing is measured.
const SOON: Duration = Duration::from_secs(60);
/// What does not come within this does not come.
const NEVER: Duration = Duration::from_secs(2);

struct Site {
    _dir: TempDir,
    authority: Authority,
    broker: Mosquitto,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let broker = Mosquitto::start(dir.path(), &authority, "publisher");
    Site {
        _dir: dir,
        authority,
        broker,
    }
}

fn saying(topic: &str, payload: &str, retain: bool) -> Saying {
    Saying {
        topic: topic.into(),
        payload: payload.into(),
        retain,
    }
}

impl Site {
    fn options(&self, role: Role, name: &str, subscriptions: &[&str]) -> BrokerOptions {
        let issued = mosquitto::client(&self.authority, role, name);
        BrokerOptions {
            url: self.broker.url(),
            client_id: name.into(),
            tls: BrokerTls {
                ca: self.authority.certificate_pem().unwrap(),
                certificate: issued.certificate,
                key: issued.key,
            },
            subscriptions: subscriptions.iter().map(|s| (*s).to_owned()).collect(),
            greeting: None,
            will: None,
            message_bytes_max: 1 << 20,
        }
    }
}

fn connected(options: BrokerOptions) -> (Broker, Receiver<(String, String)>) {
    let (said, heard) = channel();
    let broker = Broker::connect(options, move |_, topic, payload| {
        let payload = String::from_utf8_lossy(payload).into_owned();
        let _ = said.send((topic.to_owned(), payload));
    })
    .unwrap();
    until(
        || broker.is_connected(),
        || format!("not connected: {:?}", broker.trouble()),
    );
    (broker, heard)
}

fn until(is_so: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn hears(heard: &Receiver<(String, String)>, topic: &str, payload: &str) {
    let got = heard.recv_timeout(SOON).expect("a message");
    assert_eq!(got, (topic.to_owned(), payload.to_owned()));
}

#[test]
fn what_is_said_is_heard_and_presence_ends_with_its_client() {
    let site = site();
    let presence = "cvmfs/receivers/a/presence";
    let (publisher, heard) = connected(site.options(
        Role::Publisher,
        "publisher",
        &["cvmfs/receivers/+/presence"],
    ));
    let receiver = || {
        let mut options = site.options(Role::Site, "a", &["cvmfs/repos/+/announce"]);
        options.greeting = Some(saying(presence, "here", true));
        options.will = Some(saying(presence, "gone", true));
        options
    };
    let (a, a_hears) = connected(receiver());
    hears(&heard, presence, "here");
    let announce = "cvmfs/repos/x.example.org/announce";
    publisher.say(saying(announce, "17", false)).unwrap();
    hears(&a_hears, announce, "17");
    // it says itself that it goes
    drop(a);
    hears(&heard, presence, "gone");
}

#[test]
fn it_comes_back_when_the_broker_does() {
    let mut site = site();
    let announce = "cvmfs/repos/x.example.org/announce";
    let mut options = site.options(Role::Site, "a", &["cvmfs/repos/+/announce"]);
    options.greeting = Some(saying("cvmfs/receivers/a/presence", "here", true));
    let (a, a_hears) = connected(options);
    let (publisher, presence) = connected(site.options(
        Role::Publisher,
        "publisher",
        &["cvmfs/receivers/+/presence"],
    ));
    hears(&presence, "cvmfs/receivers/a/presence", "here");
    site.broker.down();
    until(
        || !a.is_connected() && !publisher.is_connected(),
        || "the loss is not seen".into(),
    );
    assert!(publisher.trouble().is_some());
    site.broker.up();
    until(
        || a.is_connected() && publisher.is_connected(),
        || format!("{:?} {:?}", a.trouble(), publisher.trouble()),
    );
    hears(&presence, "cvmfs/receivers/a/presence", "here");
    publisher.say(saying(announce, "18", false)).unwrap();
    hears(&a_hears, announce, "18");
}

#[test]
fn nobody_speaks_for_another() {
    let site = site();
    let (_publisher, heard) = connected(site.options(
        Role::Publisher,
        "publisher",
        &["cvmfs/receivers/+/presence"],
    ));
    let (a, _) = connected(site.options(Role::Site, "a", &[]));
    // the broker's access list, as docs/stratum1.md gives it
    a.say(saying("cvmfs/receivers/b/presence", "here", false))
        .unwrap();
    assert!(heard.recv_timeout(NEVER).is_err());
    a.say(saying("cvmfs/receivers/a/presence", "here", false))
        .unwrap();
    hears(&heard, "cvmfs/receivers/a/presence", "here");
}

#[test]
fn who_has_no_certificate_of_ours_or_trusts_another_stays_outside() {
    let site = site();
    let stranger = Authority::generate(SystemTime::now()).unwrap();
    let theirs = mosquitto::client(&stranger, Role::Site, "a");
    let mut options = site.options(Role::Site, "a", &[]);
    let tls = &mut options.tls;
    (tls.certificate, tls.key) = (theirs.certificate, theirs.key);
    let mut distrustful = site.options(Role::Site, "b", &[]);
    distrustful.tls.ca = stranger.certificate_pem().unwrap();
    for options in [options, distrustful] {
        let broker = Broker::connect(options, |_, _, _| {}).unwrap();
        until(|| broker.trouble().is_some(), || "no trouble".into());
        assert!(!broker.is_connected());
    }
}

#[test]
fn what_is_too_large_or_too_much_is_an_error() {
    let mut site = site();
    let (a, _) = connected(site.options(Role::Site, "a", &[]));
    let large = "x".repeat((1 << 20) + 1);
    let error = a.say(saying("cvmfs/receivers/a/presence", &large, false));
    assert!(matches!(error, Err(BrokerError::TooLarge { .. })));
    site.broker.down();
    until(|| !a.is_connected(), || "the loss is not seen".into());
    let refused = (0..10_000).find_map(|_| {
        let said = a.say(saying("cvmfs/receivers/a/presence", "here", false));
        said.err()
    });
    let error = refused.expect("what waits is bounded");
    assert!(error.to_string().contains("not reachable"), "{error}");
}

/// A broker lets a client of a name in at the cost of the one before: two of one name would throw each
/// other out for ever, as fast as they can.
#[test]
fn two_of_one_name_are_told_and_come_back_ever_more_rarely() {
    let site = site();
    let options = || site.options(Role::Site, "twin", &["cvmfs/repos/+/announce"]);
    let twins = [(); 2].map(|()| Broker::connect(options(), |_, _, _| {}).unwrap());
    let is_told = |twin: &Broker| {
        let trouble = twin.trouble();
        trouble.is_some_and(|trouble| trouble.contains("connected as twin"))
    };
    let begun = std::time::Instant::now();
    while !twins.iter().any(is_told) {
        assert!(begun.elapsed() < SOON, "never told");
        std::thread::sleep(Duration::from_millis(20));
    }
    // each has at most as many connections as the pauses, which double, leave room for
    let log = std::fs::read_to_string(site._dir.path().join("log")).unwrap();
    let connections = log.matches("as twin ").count();
    assert!(connections < 20, "{log}");
}

#[test]
fn the_manual_shows_what_is_written() {
    let manual = include_str!("../../docs/stratum1.md");
    for file in [mosquitto::CONFIGURATION, mosquitto::ACCESS] {
        assert!(manual.contains(file), "not in docs/stratum1.md: {file}");
    }
}
