//! `kill -9` at each durable step: no wrong object is ever there, nothing is forgotten, and announcing
//! again goes on where it was.

use std::fs;

use axum::http::Method;
use formats::warm::Missing;
use receiver::ledger::Ledger;
use store::ObjectStore;

use crate::support::publisher::{Caller, Stalled};
use crate::support::world::World;
use crate::support::{REPO, bundle, objects};

/// The points that a bundle passes, and those around it.
const TAKING: &[&str] = &[
    "ledger::named",
    "ledger::opened",
    "vault::written",
    "vault::synced",
    "ledger::noted",
    "vault::named",
    "store::keep",
];
const PUBLISHING: &[&str] = &["ledger::published"];
const EXPIRING: &[&str] = &["expiry::given_up", "expiry::removed", "expiry::forgotten"];

fn has_faults() -> bool {
    let has = cfg!(feature = "failpoints");
    if !has {
        eprintln!("skipped: the feature failpoints is off");
    }
    has
}

/// Whatever was kept is in the ledger.
fn is_accounted_for(world: &World) {
    let ledger = Ledger::open(&world.path("state")).unwrap();
    let mut noted = std::collections::BTreeSet::new();
    for txn in ledger.of(REPO) {
        for record in txn.brought().unwrap() {
            noted.extend(receiver::names::listed(&record.unwrap()).map(|l| l.name));
        }
    }
    world
        .storage
        .for_each(&mut |name, _| {
            assert!(noted.contains(&name), "nobody answers for {name}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn killed_while_objects_come_in() {
    if !has_faults() {
        return;
    }
    let all = objects(0..40);
    for point in TAKING {
        for earlier in [0, 3] {
            let fault = match earlier {
                0 => format!("{point}=return(kill)"),
                n => format!("{point}={n}*off->return(kill)"),
            };
            eprintln!("killed at {fault}");
            let world = World::new();
            let mut program = world.program(&fault);
            let mut caller = world.call(program.at);
            let path = format!("/v1/{REPO}/transactions/t");
            let list = crate::support::list(&all);
            let answer = caller.ask(Method::POST, &path, None, list);
            let session = answer.map(|a| Missing::parse(&a.body).unwrap().session);
            let answer = session.and_then(|s| caller.send_raw("t", &s, bundle(&all)));
            // a point that is passed once a bundle is not passed a fourth time
            if earlier > 0 && answer.is_some() {
                continue;
            }
            assert!(answer.is_none() && program.died(), "{fault}");
            world.sound();
            is_accounted_for(&world);
            let mut program = world.program("");
            let mut caller = world.call(program.at);
            caller.push("t", &all);
            assert_eq!((world.sound(), world.half_made()), (40, 0), "{fault}");
            caller.published("t");
            assert!(program.terminate());
        }
    }
}

/// On that word a revision becomes visible.
#[test]
fn it_has_everything_once_names_are_durable() {
    if !has_faults() {
        return;
    }
    let all = objects(0..20);
    let world = World::new();
    let mut program = world.program("vault::sync=1*return->off");
    let mut caller = world.call(program.at);
    // a site that lacks something need not be certain of the rest
    caller.push("t", &all[..10]);
    assert_eq!(caller.announce("u", &all).absent.count(), 10);
    let refused = caller.ask_again("t");
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (500, "io")
    );
    let missing = Missing::parse(&caller.ask_again("t").body).unwrap();
    assert_eq!(missing.absent.count(), 0);
    assert!(program.terminate());

    let mut program = world.program("vault::sync=return(kill)");
    let mut caller = world.call(program.at);
    let path = format!("/v1/{REPO}/transactions/t");
    let list = crate::support::list(&all[..10]);
    assert!(caller.ask(Method::POST, &path, None, list).is_none() && program.died());
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    assert_eq!(caller.announce("t", &all[..10]).absent.count(), 0);
    receiver.end();
}

#[test]
fn killed_while_it_is_told_of_a_publication() {
    if !has_faults() {
        return;
    }
    let all = objects(0..5);
    for point in PUBLISHING {
        let world = World::new();
        let mut program = world.program(&format!("{point}=return(kill)"));
        let mut caller = world.call(program.at);
        caller.push("t", &all);
        let path = format!("/v1/{REPO}/transactions/t/published");
        let body = format!("{{\"root_hash\":\"{}\"}}", "ab".repeat(20)).into_bytes();
        assert!(caller.ask(Method::POST, &path, None, body).is_none());
        assert!(program.died());
        let receiver = world.start();
        receiver.pass(100 * 86_400);
        receiver.site.sweep();
        assert_eq!(world.there(&all), 5, "they are the replica's");
        world.call(receiver.at()).published("t");
        receiver.end();
    }
}

#[test]
fn killed_while_objects_expire() {
    if !has_faults() {
        return;
    }
    let (lost, kept) = (objects(0..20), objects(20..30));
    for point in EXPIRING {
        let mut world = World::new();
        world.more = "[keep]\nheadroom = \"1MiB\"\nlook = \"100ms\"\n".into();
        let mut program = world.program(&format!("{point}=return(kill)"));
        let mut caller = world.call(program.at);
        caller.push("kept", &kept);
        caller.published("kept");
        caller.push("lost", &[&lost[..], &kept[..]].concat());
        let path = format!("/v1/{REPO}/transactions/lost");
        let _ = caller.ask(Method::DELETE, &path, None, Vec::new());
        assert!(program.died(), "{point}");
        assert_eq!(world.there(&kept), 10, "{point}");
        let receiver = world.start();
        receiver.site.sweep();
        receiver.site.sweep();
        assert_eq!((world.there(&lost), world.there(&kept)), (0, 10), "{point}");
        assert!(receiver.site.ledger.of(REPO).is_empty(), "{point}");
        receiver.end();
    }
}

/// At no point in particular: in the middle of a bundle that comes slowly.
#[test]
fn killed_in_the_middle_of_a_bundle() {
    let world = World::new();
    let all = objects(0..3000);
    let mut program = world.program("");
    let mut caller = world.call(program.at);
    let missing = caller.announce("t", &all);
    let bytes = bundle(&all);
    let own = world.publisher.own();
    // more than one batch of it
    let some = &bytes[..900_000];
    let _stalled = Stalled::begin(&own, program.at, "t", &missing.session, some);
    let named = || {
        let prefixes = fs::read_dir(world.path("srv/data")).unwrap();
        let prefixes = prefixes
            .map(|e| e.unwrap().path())
            .filter(|p| !p.ends_with("txn"));
        prefixes
            .map(|p| fs::read_dir(p).unwrap().count())
            .sum::<usize>()
    };
    while named() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    program.kill();
    let there = world.sound();
    assert!(there > 0 && there < 3000, "{there}");
    is_accounted_for(&world);
    let mut program = world.program("");
    let mut caller = Caller::connect(&own, program.at).unwrap();
    let again = caller.announce("t", &all);
    assert_eq!(again.session, missing.session, "what was begun goes on");
    assert_eq!(again.absent.count() as usize, 3000 - there);
    caller.push("t", &all);
    assert_eq!((world.sound(), world.half_made()), (3000, 0));
    assert!(program.terminate());
}
