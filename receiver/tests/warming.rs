//! What a publisher may send, and what becomes of it.

use std::os::unix::fs::MetadataExt;

use axum::http::{Method, StatusCode};
use formats::warm::Missing;
use formats::{ObjectKind, ObjectName};
use receiver::vault::Why;
use store::ObjectStore;

use crate::support::publisher::{self, Stalled};
use crate::support::world::{World, page};
use crate::support::{Object, REPO, bundle, list, object, objects};

#[test]
fn what_is_absent_comes_and_stays() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..3000);
    caller.push("first", &all[..1000]);
    let missing = caller.announce("second", &all);
    let absent: Vec<u32> = missing.absent.ones().collect();
    assert_eq!(absent, (1000..3000).collect::<Vec<_>>());
    let outcome = caller.send("second", &missing.session, &all[900..]);
    assert_eq!((outcome.kept, outcome.present), (2000, 100));
    assert!(outcome.refused.is_empty());
    assert_eq!(world.there(&all), 3000);
    assert_eq!((world.sound(), world.half_made()), (3000, 0));
    for (listed, _) in &all[..10] {
        let path = world.path("srv").join(listed.name.storage_path());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o644);
    }
    let (status, text) = page(receiver.local, "/metrics");
    assert!(status.contains("200"), "{status}");
    assert!(
        text.contains("prepub_receiver_objects_total 3000\n"),
        "{text}"
    );
    let (status, text) = page(receiver.local, "/health");
    assert!(status.contains("200"), "{text}");
    receiver.end();
}

#[test]
fn it_is_asked_again_without_the_list() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..1000);
    let code = |answer: publisher::Answer| (answer.status, answer.code());
    let none = (StatusCode::NOT_FOUND, "no_transaction".to_owned());
    assert_eq!(code(caller.ask_again("t")), none);
    let first = caller.announce("t", &all);
    caller.send("t", &first.session, &all[..600]);
    // said twice, it is one name
    caller.announce("t", &[&all[..], &all[..10]].concat());
    let mut sorted = all.clone();
    sorted.sort_by_key(|(listed, _)| listed.key());
    let answer = caller.ask_again("t");
    let missing = Missing::parse(&answer.body).unwrap();
    assert_eq!(missing.session, first.session);
    assert_eq!(missing.absent.len(), 1000);
    let absent = missing.absent.ones().map(|at| sorted[at as usize].clone());
    let absent: Vec<_> = absent.collect();
    let lacking = |object: &Object| all[600..].contains(object);
    assert!(absent.len() == 400 && absent.iter().all(lacking));
    caller.send("t", &missing.session, &absent);
    let missing = Missing::parse(&caller.ask_again("t").body).unwrap();
    assert_eq!((missing.absent.len(), missing.absent.count()), (1000, 0));
    caller.published("t");
    assert_eq!(code(caller.ask_again("t")), none);
    receiver.end();
}

#[test]
fn who_has_what_of_a_hundred_thousand_names_in_one_exchange() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let some: Vec<_> = (0..100_000).map(|n| object(n, 16)).collect();
    let (here, _) = some.split_at(500);
    caller.push("few", here);
    let missing = caller.announce("many", &some);
    assert_eq!(missing.absent.len(), 100_000);
    assert_eq!(missing.absent.count(), 99_500);
    assert!(missing.absent.ones().all(|at| at >= 500));
    assert!(missing.room.is_some());
    receiver.end();
}

/// What root writes is the replica's owner's: else its garbage collection cannot remove it.
#[test]
fn objects_are_the_storages_owners() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    const OWNER: u32 = 1;
    let world = World::new();
    for dir in ["srv", "srv/data", "spool"] {
        std::os::unix::fs::chown(world.path(dir), Some(OWNER), Some(OWNER)).unwrap();
    }
    let receiver = world.start();
    let all = objects(0..10);
    world.call(receiver.at()).push("t", &all);
    for (listed, _) in &all {
        let path = world.path("srv").join(listed.name.storage_path());
        assert_eq!(path.metadata().unwrap().uid(), OWNER);
    }
    receiver.end();
}

#[test]
fn what_is_corrupt_never_gets_its_name() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let good = objects(0..20);
    let missing = caller.announce("t", &good);
    let mut sent = good.clone();
    sent[7].1[50] ^= 1;
    let big = object(100, 1 << 20);
    let outcome = caller.send("t", &missing.session, &sent);
    assert_eq!(outcome.kept, 19);
    assert_eq!(outcome.refused.len(), 1);
    assert_eq!(outcome.refused[0].name, good[7].0.name.to_string());
    assert_eq!(outcome.refused[0].code, Why::Corrupt);
    assert!(!world.storage.has(&good[7].0.name).unwrap());
    // one that is too large for memory
    let missing = caller.announce("u", std::slice::from_ref(&big));
    let mut damaged = big.clone();
    damaged.1[1_000_000] ^= 1;
    let outcome = caller.send("u", &missing.session, &[damaged]);
    assert_eq!(outcome.refused[0].code, Why::Corrupt);
    let outcome = caller.send("u", &missing.session, &[big]);
    assert_eq!(outcome.kept, 1);
    assert_eq!((world.sound(), world.half_made()), (20, 0));
    receiver.end();
}

#[test]
fn what_was_not_announced_is_not_taken() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..4);
    let missing = caller.announce("t", &all[..2]);
    let outcome = caller.send("t", &missing.session, &all);
    assert_eq!(outcome.kept, 2);
    let codes: Vec<Why> = outcome.refused.iter().map(|r| r.code).collect();
    assert_eq!(codes, [Why::NotAnnounced; 2]);
    // nor under another size
    let mut longer = object(9, 500);
    let missing = caller.announce("u", std::slice::from_ref(&longer));
    longer.1.push(0);
    longer.0.bytes += 1;
    let outcome = caller.send("u", &missing.session, &[longer]);
    assert_eq!(outcome.refused[0].code, Why::NotAnnounced);
    assert_eq!(world.sound(), 2);
    receiver.end();
}

/// A replica that is given a catalog takes everything below it for present.
#[test]
fn catalogs_are_refused_before_anything_else() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..3);
    // tag 2 is the kind of no file's object
    let mut bytes = list(&all);
    bytes[8 + 29] = 2;
    let answer = caller.post(&format!("/v1/{REPO}/transactions/t"), bytes);
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.code(), "malformed");
    let missing = caller.announce("u", &all);
    let mut bytes = bundle(&all);
    bytes[4] = 2;
    let answer = caller.send_raw("u", &missing.session, bytes).unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    // and what is asked for as a catalog is none
    let catalog = ObjectName::new(all[0].0.name.hash, ObjectKind::Catalog);
    assert!(!world.storage.has(&catalog).unwrap());
    assert_eq!(world.sound(), 0);
    receiver.end();
}

#[test]
fn of_a_bundle_that_is_cut_the_whole_objects_stay() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..50);
    let missing = caller.announce("t", &all);
    let bytes = bundle(&all);
    let cut = bytes.len() / 2;
    let answer = caller
        .send_raw("t", &missing.session, bytes[..cut].to_vec())
        .unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(answer.code(), "bundle");
    let there = world.there(&all);
    assert!(there > 0 && there < 50, "{there}");
    let missing = caller.announce("t", &all);
    assert_eq!(missing.absent.count() as usize, 50 - there);
    caller.push("t", &all);
    assert_eq!((world.sound(), world.half_made()), (50, 0));
    receiver.end();
}

#[test]
fn a_full_site_says_how_much_it_takes() {
    let mut world = World::new();
    world.more = "[keep]\nheadroom = \"100000TiB\"\n".into();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..5);
    let missing = caller.announce("t", &all);
    assert_eq!(missing.room, Some(0));
    assert_eq!(missing.absent.count(), 5);
    let answer = caller
        .send_raw("t", &missing.session, bundle(&all))
        .unwrap();
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(
        (answer.code().as_str(), &answer.json()["room"]),
        ("no_room", &0.into())
    );
    assert_eq!(world.sound(), 0);
    let (status, text) = page(receiver.local, "/health");
    assert!(status.contains("503") && text.contains("no room"), "{text}");
    receiver.end();
}

/// Room for some: what fits is taken, the rest is refused by name, and nothing is left half made.
#[test]
fn what_does_not_fit_is_refused_by_name() {
    let mut world = World::new();
    let free = world.storage.available_bytes().unwrap().unwrap();
    // others write on the same disk: some megabytes of room, and an object that needs far more
    world.more = format!("[keep]\nheadroom = \"{}B\"\n", free - free / 4);
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let small = object(1, 100);
    let mut vast = object(2, 100);
    vast.0.bytes = free;
    let missing = caller.announce("t", &[small.clone(), vast.clone()]);
    assert!(missing.room.unwrap() < free);
    let mut bytes = bundle(std::slice::from_ref(&small));
    // without its end, and the head of one that is as long as the disk
    bytes.truncate(bytes.len() - 5);
    bytes.push(0);
    bytes.extend_from_slice(vast.0.name.hash.digest());
    bytes.extend_from_slice(&free.to_le_bytes());
    bytes.extend_from_slice(&[0; 1000]);
    let answer = caller.send_raw("t", &missing.session, bytes).unwrap();
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(receiver.site.metrics.objects_refused.get("no_room"), 1);
    assert_eq!((world.sound(), world.half_made()), (1, 0));
    receiver.end();
}

#[test]
fn a_session_is_shown_with_each_bundle() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..3);
    let first = caller.announce("t", &all);
    let other = caller.announce("other", &all);
    assert_ne!(first.session, other.session);
    assert_eq!(caller.announce("t", &all).session, first.session);
    for session in [other.session.as_str(), "", "x"] {
        let answer = caller.send_raw("t", session, bundle(&all)).unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::FORBIDDEN, "session")
        );
    }
    let answer = caller
        .send_raw("never", &first.session, bundle(&all))
        .unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::NOT_FOUND, "no_transaction")
    );
    assert_eq!(world.sound(), 0);
    // a name that would be a path is none
    let path = format!("/v1/{REPO}/transactions/..%2f..%2fetc");
    let answer = caller.post(&path, list(&all));
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_REQUEST, "malformed")
    );
    receiver.end();
}

/// More bundles than are taken at one time: those that wait too long are told to come again.
#[test]
fn too_much_at_once_is_told_to_come_again() {
    let mut world = World::new();
    world.more = "[limits]\nbundles = 1\n".into();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..3);
    let missing = caller.announce("t", &all);
    // one that never comes to its end
    let (own, session) = (world.publisher.own(), missing.session.clone());
    let stalled = Stalled::begin(&own, receiver.at(), "t", &session, &bundle(&all)[..40]);
    while receiver.site.metrics.bundles.get() == 0 {
        std::thread::yield_now();
    }
    let answer = caller.send_raw("t", &session, bundle(&all)).unwrap();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "busy")
    );
    assert!(answer.retry_after);
    drop(stalled);
    caller.push("t", &all);
    receiver.end();
}

#[test]
fn it_says_who_it_is() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let answer = caller
        .ask(Method::GET, "/v1/self", None, Vec::new())
        .unwrap();
    let said = answer.json();
    assert_eq!(said["site"], crate::support::publisher::SITE);
    assert_eq!(said["repositories"][0]["name"], REPO);
    assert!(said["repositories"][0]["room"].is_u64());
    receiver.end();
}
