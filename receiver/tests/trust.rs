//! Who is let in, and how far.

use std::fs;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use formats::warm::Role;
use formats::warm::enrolment::Credentials;

use crate::support::publisher::{Caller, PUBLISHER, Publisher, SITE};
use crate::support::world::{Running, World};
use crate::support::{REPO, list, objects};

const YEARS: Duration = Duration::from_secs(5 * 365 * 86_400);

fn announced(caller: &mut Caller, repo: &str) -> (StatusCode, String) {
    let path = format!("/v1/{repo}/transactions/t");
    let answer = caller.post(&path, list(&objects(0..2)));
    let code = match answer.status.is_success() {
        true => String::new(),
        false => answer.code(),
    };
    (answer.status, code)
}

/// TLS 1.3 tells a client that it was refused only when it reads.
fn is_let_in(whom: &Credentials, receiver: &Running) -> bool {
    let Some(mut caller) = Caller::connect(whom, receiver.at()) else {
        return false;
    };
    let path = format!("/v1/{REPO}/transactions/t");
    caller
        .ask(axum::http::Method::POST, &path, None, list(&objects(0..2)))
        .is_some()
}

#[test]
fn a_foreign_or_expired_certificate_does_not_get_in() {
    let world = World::new();
    let receiver = world.start();
    assert!(is_let_in(&world.publisher.own(), &receiver));
    let mut foreign = Publisher::new().own();
    // it would not get as far as showing it if it did not trust the site
    foreign.ca = world.publisher.authority.certificate().clone();
    assert!(!is_let_in(&foreign, &receiver));
    let long_ago = SystemTime::now() - YEARS;
    let expired = world
        .publisher
        .credentials(Role::Publisher, PUBLISHER, long_ago);
    assert!(!is_let_in(&expired, &receiver));
    // a client hears that it was refused before the site has counted it
    until(|| receiver.site.metrics.strangers.get() >= 2);
    receiver.end();
}

/// The authority issued them all, and each acts as itself alone.
#[test]
fn only_the_publisher_acts_as_the_publisher() {
    let world = World::new();
    let receiver = world.start();
    let now = SystemTime::now();
    for (role, name) in [
        (Role::Site, SITE),
        (Role::Site, PUBLISHER),
        (Role::Publisher, "another.example.org"),
    ] {
        let whom = world.publisher.credentials(role, name, now);
        let mut caller = Caller::connect(&whom, receiver.at()).unwrap();
        let refused = announced(&mut caller, REPO);
        assert_eq!(
            refused,
            (StatusCode::FORBIDDEN, "stranger".into()),
            "{role} {name}"
        );
    }
    assert_eq!(receiver.site.metrics.refusals.get("stranger"), 3);
    receiver.end();
}

#[test]
fn a_repository_must_be_named_by_both() {
    let mut world = World::new();
    fs::create_dir(world.path("other")).unwrap();
    let other = world.path("other");
    store::DirStore::create(&other, store::Durability::Batch).unwrap();
    world.section.push_str(&format!(
        "[repository.\"other.example.org\"]\nstorage = {:?}\n",
        other.to_str().unwrap()
    ));
    world.enrol(
        "publisher",
        &world
            .publisher
            .enrolment(None, &[REPO, "third.example.org"]),
    );
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    assert_eq!(announced(&mut caller, REPO).0, StatusCode::OK);
    let refused = (StatusCode::FORBIDDEN, "repository".to_owned());
    // configured here, and not enrolled; enrolled, and not configured; neither
    for repo in ["other.example.org", "third.example.org", "no.example.org"] {
        assert_eq!(announced(&mut caller, repo), refused, "{repo}");
    }
    receiver.end();
}

/// What an operator drops into the directory, or takes out of it, counts at once.
#[test]
fn enrolments_come_and_go() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    assert_eq!(announced(&mut caller, REPO).0, StatusCode::OK);
    let second = Publisher::new();
    world.enrol("second", &second.enrolment(None, &[]));
    until(|| is_let_in(&second.own(), &receiver));
    // two publishers, and two transactions of one name
    let mut theirs = Caller::connect(&second.own(), receiver.at()).unwrap();
    theirs.push("t", &objects(10..20));
    assert_eq!(receiver.site.ledger.of(REPO).len(), 2);
    // one that stands open helps nobody
    fs::remove_file(world.path("enrolments/publisher.toml")).unwrap();
    until(|| announced(&mut caller, REPO) == (StatusCode::FORBIDDEN, "stranger".into()));
    assert_eq!(announced(&mut theirs, REPO).0, StatusCode::OK);
    receiver.end();
}

#[test]
fn a_file_that_others_may_read_does_not_count() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let path = world.enrol("publisher", &world.publisher.enrolment(None, &[]));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(world.path("enrolments/broken.toml"), "site = 1").unwrap();
    let trust = receiver::trust::Trust::read(&world.path("enrolments"));
    assert!(trust.enrolled.is_empty());
    let told: Vec<&str> = trust.problems.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().any(|why| why.contains("chmod 600")), "{told:?}");
}

fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(50));
    }
}
