//! The command that follows a publication.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::objects;
use crate::support::world::World;

/// A stand-in that notes each run, and fails as long as `fail` is there.
fn command(world: &World) -> String {
    let script = world.path("snapshot");
    let (runs, fail) = (world.path("runs"), world.path("fail"));
    let text = format!(
        "#!/bin/sh\necho \"$1\" >> {}\nif [ -e {} ]; then echo broken >&2; exit 1; fi\n",
        runs.display(),
        fail.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    format!(
        "[snapshot]\ncommand = [{:?}, \"{{repo}}\"]\ndelay = \"300ms\"\nretry_after = \"50ms\"\nretries = 1\n",
        script.to_str().unwrap()
    )
}

fn runs(world: &World) -> usize {
    fs::read_to_string(world.path("runs")).map_or(0, |text| text.lines().count())
}

fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_snapshot_does_for_a_burst() {
    let mut world = World::new();
    world.more = command(&world);
    let receiver = world.start();
    let mut caller = world.call(receiver.at());
    for n in 0..10 {
        let txn = format!("t{n}");
        caller.push(&txn, &objects(n..n + 1));
        caller.published(&txn);
    }
    let done = || receiver.site.metrics.snapshots.get("done");
    until(|| done() > 0);
    // ten that came within the delay, or, on a slow machine, a few more snapshots
    assert!(runs(&world) < 10);
    let text = fs::read_to_string(world.path("runs")).unwrap();
    assert!(
        text.lines().all(|line| line == crate::support::REPO),
        "{text}"
    );
    let before = done();
    caller.published("nobody-knows-it");
    until(|| done() > before);
    until(|| fs::read_dir(world.path("state/snapshot")).unwrap().count() == 0);
    receiver.end();
}

/// One that fails is tried again, and what is due is still due after a restart.
#[test]
fn what_is_due_is_not_forgotten() {
    let mut world = World::new();
    world.more = command(&world);
    fs::write(world.path("fail"), "").unwrap();
    let receiver = world.start();
    world.call(receiver.at()).published("t");
    until(|| receiver.site.metrics.snapshots.get("failed") == 2);
    assert_eq!(receiver.site.metrics.snapshots.get("done"), 0);
    receiver.end();
    fs::remove_file(world.path("fail")).unwrap();
    let receiver = world.start();
    until(|| receiver.site.metrics.snapshots.get("done") == 1);
    receiver.end();
}
