//! What goes wrong at the gateway, its receiver or its storage: whatever it is, nothing is published
//! by half or twice, no lease is left, and the next commit needs no help, but where somebody has to
//! see to it that it is not wrong any more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use commit::gateway::Key;
use commit::{CommitError, Gateway, GatewayError, Outcome, PublisherError, Request, resign};
use store::StoreError;

use super::Once;
use crate::support::changes::{noise, path};
use crate::support::gateway::{At, Behind, Fault, MAX_LEASE, Make, WAYS, Way, behind_each};
use crate::support::proxy::{Asked, Cut, Proxy};

behind_each! {
    a_wrong_key,
    an_expired_whitelist,
    a_receiver_that_crashes,
    a_lease_whose_answer_is_lost,
    a_commit_that_is_cut_off_and_its_lease_s_end,
    a_commit_that_stands_still,
    a_gateway_that_restarts_while_it_commits,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Behind {
    fn adds(&self, at: &str) -> Request {
        let changes = self.repo.changes().file(at, at.as_bytes());
        self.repo.request(changes.done())
    }

    /// The gateway's or the Stratum 0's reason for publishing nothing.
    #[track_caller]
    fn refuses(&self, publisher: &Gateway, request: &Request) -> PublisherError {
        let before = *self.repo.head().root_hash();
        let outcome = self.try_publish(publisher, request);
        let Err(CommitError::Publisher(error)) = outcome else {
            panic!("{outcome:?}\n{}", self.log());
        };
        assert_eq!(*self.repo.head().root_hash(), before);
        self.assert_no_lease();
        error
    }

    #[track_caller]
    fn assert_made_once(&self, before: u64, request: &Request) {
        let head = self.repo.head();
        let revision = head.root_catalog().with(|c| Ok(c.revision()));
        assert_eq!(revision.unwrap(), before + 1, "{}", self.log());
        for change in &request.change_set.changes {
            assert!(head.lookup(&change.path).unwrap().is_some());
        }
        self.assert_no_lease();
        self.judge();
    }

    fn revision(&self) -> u64 {
        let head = self.repo.head();
        head.root_catalog().with(|c| Ok(c.revision())).unwrap()
    }

    /// Publishes, whatever goes wrong, in one revision.
    #[track_caller]
    fn publishes(&self, publisher: &Gateway, request: &Request) {
        let before = self.revision();
        let outcome = self.try_publish(publisher, request);
        let done = matches!(outcome, Ok(Outcome::Visible(_)));
        assert!(done, "{outcome:?}\n{}", self.log());
        self.assert_made_once(before, request);
    }
}

fn a_wrong_key(make: Make) {
    let site = Behind::start(make, &[]);
    let request = site.adds("/f");
    let file = site.repo.dir.path().join("wrong.gw");
    for text in ["key1 another", "key2 secret1"] {
        std::fs::write(&file, format!("plain_text {text}\n")).unwrap();
        for way in WAYS {
            let own = tempfile::tempdir_in(site.repo.dir.path()).unwrap();
            let key = Key::read(&file).unwrap();
            let publisher = site.publisher_with(own.path(), &site.url, way, key);
            let error = site.refuses(&publisher, &request);
            let PublisherError::Gateway { source, .. } = error else {
                panic!("{text}, {way:?}: {error:?}");
            };
            let is_named = matches!(*source, GatewayError::InvalidKey { .. });
            assert!(is_named, "{text}, {way:?}: {source:?}");
        }
    }
    site.publishes(&site.publisher(Way::Payloads), &request);
}

fn an_expired_whitelist(make: Make) {
    let site = Behind::start(make, &[]);
    let (publisher, request) = (site.publisher(Way::Payloads), site.adds("/f"));
    let now = site.repo.now();
    resign::resign(&site.repo.publisher, 30, now - 40 * DAY).unwrap();
    let outcome = site.try_publish(&publisher, &request);
    let Err(CommitError::Publisher(error)) = outcome else {
        panic!("{outcome:?}");
    };
    let is_said = match &error {
        PublisherError::Head { source, .. } => source.to_string().contains("expired"),
        other => matches!(other, PublisherError::WhitelistExpired { .. }),
    };
    assert!(is_said, "{error:?}");
    site.assert_no_lease();
    resign::resign(&site.repo.publisher, 30, now).unwrap();
    site.publishes(&publisher, &request);
}

fn a_receiver_that_crashes(make: Make) {
    for (way, at) in [(Way::Payloads, At::Payload), (Way::Storage, At::Commit)] {
        let site = Behind::start(make, &[]);
        site.fails(at, Fault::Crash);
        site.publishes(&site.publisher(way), &site.adds("/f"));
    }
}

/// Nobody else has its token, so it lasts until its time is up.
fn a_lease_whose_answer_is_lost(make: Make) {
    let lease = match make {
        Make::Double => MAX_LEASE,
        Make::Real => Duration::from_secs(12),
    };
    let site = Behind::start_with(make, &[], lease);
    let proxy = Proxy::cutting(&site.url, Cut::After, &[Asked::Lease]);
    let (publisher, request) = (site.publisher_at(&proxy.url, Way::Storage), site.adds("/f"));
    let outcome = site.try_publish(&publisher, &request);
    let Err(CommitError::Publisher(PublisherError::Gateway { source, .. })) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(matches!(**source, GatewayError::NoReply { .. }), "{source}");
    let outcome = site.try_publish(&publisher, &request);
    let Err(CommitError::Publisher(PublisherError::Busy { what, .. })) = &outcome else {
        panic!("{outcome:?}");
    };
    assert!(what.contains("s at most"), "{what}");
    site.pass(lease + Duration::from_secs(1));
    site.publishes(&publisher, &request);
}

/// As a gateway does it that goes down.
fn a_commit_that_is_cut_off_and_its_lease_s_end(make: Make) {
    for cut in [Cut::Before, Cut::After] {
        let site = Behind::start(make, &[]);
        let proxy = Proxy::cutting(&site.url, cut, &[Asked::Commit, Asked::Drop]);
        let publisher = site.publisher_at(&proxy.url, Way::Storage);
        site.publishes(&publisher, &site.adds("/f"));
        assert_eq!(proxy.cut(), [Asked::Commit, Asked::Drop]);
    }
}

fn a_commit_that_stands_still(make: Make) {
    let site = Behind::start(make, &[]);
    let before = site.revision();
    let [slow, other] = ["/slow", "/other"].map(|at| {
        let changes = site.repo.changes().file(at, b"").done();
        site.repo.request(super::aimed(changes, at))
    });
    let publish = |request: &Request| {
        let outcome = site.try_publish(&site.publisher(Way::Storage), request);
        assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
    };
    site.fails(At::Commit, Fault::Stall);
    std::thread::scope(|scope| {
        scope.spawn(|| publish(&slow));
        site.await_stall();
        // is answered when the other one is done
        scope.spawn(|| publish(&other));
        assert_eq!(site.revision(), before);
        site.release();
    });
    assert_eq!(site.revision(), before + 2);
    for at in ["/slow", "/other"] {
        assert!(site.repo.head().lookup(&path(at)).unwrap().is_some());
    }
    site.assert_no_lease();
    site.judge();
}

fn a_gateway_that_restarts_while_it_commits(make: Make) {
    let site = Behind::start(make, &[]);
    let request = site.adds("/f");
    site.fails(At::Commit, Fault::Stall);
    std::thread::scope(|scope| {
        scope.spawn(|| site.publishes(&site.publisher(Way::Storage), &request));
        site.await_stall();
        site.restart();
        site.release();
    });
}

/// What only the double can be made to do (`support::gateway` says why).
mod double_alone {
    use super::*;

    fn site() -> Behind {
        Behind::start(Make::Double, &[])
    }

    #[test]
    fn a_receiver_that_crashes_again() {
        for (way, at) in [
            (Way::Payloads, At::Payload),
            (Way::Payloads, At::Commit),
            (Way::Storage, At::Commit),
        ] {
            let site = site();
            let (publisher, request) = (site.publisher(way), site.adds("/f"));
            for _ in 0..2 {
                site.fails(at, Fault::Crash);
            }
            let error = site.refuses(&publisher, &request);
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains("crashed"), "{source}");
            site.publishes(&publisher, &request);
        }
    }

    #[test]
    fn a_receiver_that_crashes_when_it_is_done() {
        for way in WAYS {
            let site = site();
            site.fails(At::Commit, Fault::CrashAfter);
            site.publishes(&site.publisher(way), &site.adds("/f"));
        }
    }

    #[test]
    fn a_lease_that_expires_under_the_commit() {
        for way in WAYS {
            let site = site();
            let (publisher, request) = (site.publisher(way), site.adds("/f"));
            let before = site.revision();
            let passes = Once(AtomicU32::new(0), || site.pass(MAX_LEASE + DAY));
            let outcome = site.try_publish_watched(&publisher, &request, &passes);
            assert!(matches!(outcome, Ok(Outcome::Visible(_))), "{outcome:?}");
            assert!(passes.0.load(Ordering::Relaxed) > 1, "once more");
            site.assert_made_once(before, &request);
        }
    }

    #[test]
    fn a_whitelist_that_is_over_for_the_receiver_alone() {
        let site = site();
        site.pass(40 * DAY);
        let (publisher, request) = (site.publisher(Way::Payloads), site.adds("/f"));
        let error = site.refuses(&publisher, &request);
        assert!(matches!(error, PublisherError::NotDone { .. }), "{error:?}");
        resign::resign(&site.repo.publisher, 60, site.repo.now()).unwrap();
        site.publishes(&publisher, &request);
    }

    #[test]
    fn a_storage_that_is_full_when_it_commits() {
        for way in WAYS {
            let site = site();
            site.fails(At::Commit, Fault::Full);
            site.publishes(&site.publisher(way), &site.adds("/f"));
        }
    }

    /// What the receiver has begun to write has its name, and is taken for stored from then on:
    /// somebody has to remove it, and is told so.
    #[test]
    fn a_storage_that_is_full_when_objects_come() {
        let site = site();
        let publisher = site.publisher(Way::Payloads);
        let changes = site.repo.changes().file("/1", &noise(1, 9000));
        let changes = changes.file("/2", &noise(3, 9000));
        let request = site
            .repo
            .request(changes.file("/3", &noise(5, 9000)).done());
        site.fails(At::Payload, Fault::Full);
        let storage = site.repo.publisher.home().storage_dir().unwrap();
        let mut cut = 0;
        // each time, until none is left
        loop {
            let error = match site.try_publish(&publisher, &request) {
                Ok(_) => break,
                Err(CommitError::Objects(error)) => cut_off(&error),
                Err(CommitError::Publisher(error)) => cut_off(&error),
                Err(other) => panic!("{other:?}"),
            };
            cut += 1;
            site.assert_no_lease();
            // what does not need it is not in its way
            let other = site.try_publish(&publisher, &site.adds(&format!("/else{cut}")));
            assert!(matches!(other, Ok(Outcome::Visible(_))), "{other:?}");
            std::fs::remove_file(storage.join(error)).unwrap();
        }
        assert_eq!(cut, 2, "of the three one was whole");
        site.assert_no_lease();
        site.judge();
    }

    /// Where the object lies that an error calls cut off.
    fn cut_off(error: &(dyn std::error::Error + 'static)) -> String {
        let chain = std::iter::successors(Some(error), |error| error.source());
        let found = chain.filter_map(|error| match error.downcast_ref() {
            Some(StoreError::CutOff { name, .. }) => Some(name.storage_path()),
            _ => None,
        });
        let found: Vec<String> = found.collect();
        found.first().unwrap_or_else(|| panic!("{error:?}")).clone()
    }
}
