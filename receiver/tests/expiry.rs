//! What becomes of objects whose revision was, or was not, published.

use formats::{Content, Kind};
use receiver::ledger::State;
use rustix::fs::FlockOperation;

use crate::support::made;
use crate::support::world::{Running, World};
use crate::support::{Object, REPO, objects};

const WEEK: u64 = 7 * 86_400;

fn look(receiver: &Running) {
    receiver.site.sweep();
}

/// A catalog of a revision that somebody published, as a snapshot stores it.
pub fn catalog_of(world: &World, needs: &[Object]) {
    let mut rows = vec![made::dir("")];
    for (n, (listed, _)) in needs.iter().enumerate() {
        let content = Content::Whole(listed.name.hash);
        let file = made::regular(1, content);
        rows.push(made::row(&format!("/f{n}"), Kind::Regular(file)));
    }
    made::catalog(&world.storage, "", &rows, |_| {});
}

/// Data objects alone: what is cut into chunks takes other rows.
pub fn plain(range: std::ops::Range<u64>) -> Vec<Object> {
    let data = |(listed, _): &Object| listed.name.kind == formats::ObjectKind::Data;
    objects(range).into_iter().filter(data).collect()
}

#[test]
fn what_is_never_published_goes_and_nothing_else() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let (old, new) = (objects(0..50), objects(50..100));
    caller.push("published", &old);
    caller.published("published");
    caller.push("lost", &[&old[25..], &new[..]].concat());
    receiver.pass(WEEK - 100);
    look(&receiver);
    assert_eq!(world.there(&new), 50, "not yet");
    receiver.pass(200);
    look(&receiver);
    assert_eq!((world.there(&new), world.there(&old)), (0, 50));
    assert_eq!(receiver.site.metrics.expired.get(), 1);
    assert_eq!(receiver.site.ledger.of(REPO).len(), 0);
    // and the names are as good as new
    caller.push("lost", &new);
    assert_eq!(world.there(&new), 50);
    receiver.end();
}

#[test]
fn what_is_given_up_goes_at_the_next_look() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..10);
    caller.push("t", &all);
    caller.give_up("t");
    caller.give_up("never-was");
    look(&receiver);
    assert_eq!(world.there(&all), 0);
    receiver.end();
}

/// The publisher, or its site, heard late that a revision is visible.
#[test]
fn what_is_published_is_never_given_up() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..10);
    caller.push("t", &all);
    caller.give_up("t");
    caller.published("t");
    caller.give_up("t");
    receiver.pass(10 * WEEK);
    look(&receiver);
    assert_eq!(world.there(&all), 10);
    receiver.end();
}

/// Somebody else published a revision that needs an object which came with ours, and the snapshot
/// found it here.
#[test]
fn what_another_revision_needs_stays() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = plain(0..40);
    caller.push("lost", &all);
    catalog_of(&world, &all[10..20]);
    caller.give_up("lost");
    look(&receiver);
    assert_eq!(world.there(&all[10..20]), 10);
    assert_eq!(world.there(&all), 10);
    assert_eq!(receiver.site.metrics.objects_spared.get(), 10);
    receiver.end();
}

/// It announced the same objects, and was told that they are there.
#[test]
fn what_another_transaction_announced_is_that_ones_to_remove() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..30);
    caller.push("first", &all);
    assert_eq!(caller.announce("second", &all[10..]).absent.count(), 0);
    assert_eq!(caller.announce("third", &all[20..]).absent.count(), 0);
    caller.published("third");
    caller.give_up("first");
    look(&receiver);
    assert_eq!(world.there(&all), 20);
    caller.give_up("second");
    look(&receiver);
    assert_eq!(world.there(&all[20..]), 10, "the third's");
    assert_eq!(world.there(&all[..20]), 0);
    look(&receiver);
    assert_eq!(receiver.site.ledger.of(REPO).len(), 0);
    receiver.end();
}

#[test]
fn a_snapshot_that_runs_is_waited_for() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..10);
    caller.push("t", &all);
    caller.give_up("t");
    let lock = world.path("spool/is_updating.lock");
    let held = std::fs::File::create(&lock).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    look(&receiver);
    assert_eq!(world.there(&all), 10);
    // as cvmfs_server releases it
    std::fs::remove_file(&lock).unwrap();
    drop(held);
    look(&receiver);
    assert_eq!(world.there(&all), 0);
    receiver.end();
}

/// Nothing says where the lock is, or a catalog cannot be read: nothing goes.
#[test]
fn when_in_doubt_everything_stays() {
    let mut world = World::new();
    let all = objects(0..10);
    {
        let receiver = world.start();
        let mut caller = world.call(receiver.at());
        caller.push("t", &all);
        caller.give_up("t");
        let hash = formats::Hash::of(formats::Algorithm::Sha1, b"damaged");
        let damaged = formats::ObjectName::new(hash, formats::ObjectKind::Catalog);
        store::put(&world.storage, &damaged, b"something else").unwrap();
        look(&receiver);
        assert_eq!(world.there(&all), 10);
        assert!(receiver.site.metrics.doubts.get() > 0);
        assert_eq!(receiver.site.ledger.count(State::GivenUp), 1);
        store::ObjectStore::delete(&world.storage, &damaged).unwrap();
        receiver.end();
    }
    let section = std::mem::take(&mut world.section);
    let storage = section.lines().next().unwrap();
    world.section = format!("{storage}\n");
    let receiver = world.start();
    look(&receiver);
    assert_eq!(world.there(&all), 10);
    receiver.end();
    world.section = section;
    let receiver = world.start();
    look(&receiver);
    assert_eq!(world.there(&all), 0);
    receiver.end();
}

/// A transaction that is announced again is as new, whatever is left of its objects.
#[test]
fn announced_again_it_lives_on() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = objects(0..10);
    caller.push("t", &all);
    caller.give_up("t");
    let missing = caller.announce("t", &all);
    assert_eq!(missing.absent.count(), 0);
    look(&receiver);
    assert_eq!(world.there(&all), 10);
    receiver.end();
}

/// What went out while staging went on, and was committed in a transaction of its own: the first is given up,
/// and its objects are the replica's. Where a replica has no catalogs to read, nothing is in doubt.
#[test]
fn what_was_published_by_another_transaction_is_not_looked_up() {
    let world = World::new();
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    let all = plain(0..40);
    caller.push("early", &all);
    caller.push("commit", &all[..20]);
    caller.published("commit");
    caller.give_up("early");
    look(&receiver);
    assert_eq!(world.there(&all), 20);
    assert_eq!(world.there(&all[..20]), 20);
    assert_eq!(receiver.site.metrics.objects_spared.get(), 20);
    assert_eq!(
        receiver.site.ledger.of(REPO).len(),
        0,
        "nothing older is left to wait for"
    );
    receiver.end();
}
