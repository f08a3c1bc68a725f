//! Disks and storages that are slow, hang, or do less than they are asked.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::world::{Guard, World, stage, storage, wait_for};
use crate::support::layer::Tree;
use crate::support::layer::faults::{Call, Fault, Harm, Times};
use crate::support::script::{Excuse, Run, prepare};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

/// A mounted repository on a layer.
fn mounted() -> Option<World> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    let mut world = World::of(Sandbox::new(), Tree::new());
    prepare(&world.sandbox);
    world.mount();
    Some(world)
}

fn begin(world: &World, args: &[&str]) -> Child {
    let mut command = world.sandbox.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_storage_that_hangs_holds_up_commits_alone() {
    let Some(world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let root = world.sandbox.root();
    write(&root.join("published"), b"published");
    world.sandbox.ok(["commit", REPO]);
    assert_eq!(fs::read(root.join("published")).unwrap(), b"published");
    write(&root.join("d/staged"), b"staged");
    world.sandbox.ok(["status", "--wait"]);

    let faults = world.faults();
    // the revision can be read still, and no object gets in
    let below = storage().join("data");
    faults.add(Fault::lasting(&Call::GROWING, &below, Harm::Hangs));
    let mut commit = begin(&world, &["commit", REPO]);
    wait_for("the commit to hang", || faults.hanging() > 0);
    // the mount knows nothing of it
    write(&root.join("d/later"), b"later");
    fs::rename(root.join("d/later"), root.join("d/later still")).unwrap();
    assert_eq!(fs::read(root.join("d/staged")).unwrap(), b"staged");
    assert_eq!(fs::read(root.join("d/later still")).unwrap(), b"later");
    let status = world.sandbox.json(["status", REPO]);
    let under_way = &status["repositories"][0]["commits"][0];
    assert_eq!(under_way["step"], "store", "{status}");
    let text = world.sandbox.ok(["status", REPO]);
    assert!(text.contains("commit    of /: storing, for"), "{text}");
    // who comes next is not held up
    let busy = world.sandbox.fails(4, ["commit", REPO, "--wait", "0"]);
    assert!(busy.contains("another commit"), "{busy}");

    // nothing of it answers
    faults.add(Fault::lasting(&Call::ALL, storage(), Harm::Hangs));
    let status = world.sandbox.json(["status", REPO]);
    let errors = status["repositories"][0]["errors"].to_string();
    assert!(
        errors.contains("the storage of") && errors.contains("has not answered"),
        "{errors}"
    );
    assert_eq!(status["repositories"][0]["staged"]["added"], 3, "{status}");
    assert_eq!(fs::read(root.join("d/later still")).unwrap(), b"later");
    write(&root.join("d/last"), b"last");

    faults.clear();
    assert!(commit.wait().unwrap().success());
    let status = world.sandbox.json(["status", REPO]);
    assert_eq!(status["repositories"][0]["errors"], serde_json::json!([]));
    assert_eq!(status["repositories"][0]["commits"], serde_json::json!([]));
    assert_eq!(status["repositories"][0]["staged"]["added"], 2, "{status}");
    world.sandbox.ok(["commit", REPO]);
    world.sandbox.check();
    drop(guard);
    world.end();
}

/// A commit whose storage hangs holds up those alone that have to do with its paths.
#[test]
fn commits_of_other_paths_go_on_beside_one_that_hangs() {
    let Some(world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let (sandbox, root) = (&world.sandbox, world.sandbox.root());
    write(&root.join("a/old"), b"moved away later");
    write(&root.join("b/in"), b"b");
    sandbox.ok(["commit", REPO]);
    write(&root.join("a/new"), b"a");
    fs::rename(root.join("a/old"), root.join("a/renamed")).unwrap();
    fs::create_dir(root.join("c")).unwrap();
    fs::rename(root.join("b"), root.join("c/b")).unwrap();
    write(&root.join("d/new"), b"d");
    sandbox.ok(["status", "--wait"]);

    let faults = world.faults();
    let one = Fault::lasting(
        &[Call::Rename, Call::Link],
        storage().join("data"),
        Harm::Hangs,
    );
    faults.add(Fault {
        times: Times::Once,
        ..one
    });
    let at = |path: &str| format!("{REPO}{path}");
    let mut hangs = begin(&world, &["commit", &at("/a"), &at("/b"), "--wait", "60"]);
    wait_for("the commit to hang", || faults.hanging() > 0);
    // beside it: another path, what was staged since in that, the removal of it
    let beside = sandbox.json(["commit", &at("/d")]);
    assert_eq!(beside["files"], 1, "{beside}");
    fs::write(root.join("d/new"), b"d once more").unwrap();
    sandbox.ok(["commit", &at("/d")]);
    // what overlaps waits, and what was moved out of it
    for path in ["", "/a/new", "/c"] {
        let busy = sandbox.fails(4, ["commit", &at(path), "--wait", "0"]);
        assert!(!busy.is_empty(), "{path}: {busy}");
    }
    let status = sandbox.json(["status", REPO]);
    let commits = &status["repositories"][0]["commits"];
    assert_eq!(commits.as_array().unwrap().len(), 1, "{status}");
    assert_eq!(commits[0]["paths"], serde_json::json!(["/a", "/b"]));
    write(&root.join("a/new"), b"a once more");
    assert!(hangs.try_wait().unwrap().is_none(), "it hangs still");

    faults.clear();
    assert!(hangs.wait().unwrap().success());
    let status = sandbox.json(["status", REPO, "--wait"]);
    // the new place of what was moved, the directory it is in, and what was written since
    assert_eq!(
        status["repositories"][0]["staged"]["modified"], 1,
        "{status}"
    );
    sandbox.ok(["commit", REPO]);
    assert_eq!(fs::read(root.join("c/b/in")).unwrap(), b"b");
    assert_eq!(fs::read(root.join("a/new")).unwrap(), b"a once more");
    sandbox.check();
    drop(guard);
    world.end();
}

/// Whoever asked for a commit may go; it is done or not when the storage answers.
#[test]
fn a_commit_that_hangs_can_be_left_alone() {
    let Some(world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let root = world.sandbox.root();
    write(&root.join("staged"), b"staged");
    world.sandbox.ok(["status", "--wait"]);
    let faults = world.faults();
    faults.add(Fault::lasting(&[Call::Rename], storage(), Harm::Hangs));
    let mut commit = begin(&world, &["commit", REPO]);
    wait_for("the commit to hang", || faults.hanging() > 0);
    commit.kill().unwrap();
    commit.wait().unwrap();
    world.sandbox.json(["status", REPO]);
    faults.clear();
    assert_eq!(fs::read(root.join("staged")).unwrap(), b"staged");
    world.sandbox.ok(["commit", REPO]);
    world.sandbox.check();
    drop(guard);
    world.end();
}

/// The stage's own disk: those who write wait, `status` says for what.
#[test]
fn a_state_directory_that_hangs_is_told() {
    let Some(world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let root = world.sandbox.root();
    write(&root.join("file"), b"before");
    world.sandbox.ok(["status", "--wait"]);
    let faults = world.faults();
    let journal = stage().join("journal");
    faults.add(Fault::lasting(&[Call::Write], journal, Harm::Hangs));
    let made = root.join("made");
    let writer = std::thread::spawn(move || fs::create_dir(made));
    wait_for("the writer to hang", || faults.hanging() > 0);
    let status = world.sandbox.json(["status", REPO]);
    let errors = status["repositories"][0]["errors"].to_string();
    assert!(
        errors.contains("the stage in") && errors.contains("has not answered"),
        "{errors}"
    );
    faults.clear();
    writer.join().unwrap().unwrap();
    assert!(root.join("made").is_dir());
    let status = world.sandbox.json(["status", REPO]);
    assert_eq!(status["repositories"][0]["errors"], serde_json::json!([]));
    drop(guard);
    world.end();
}

#[test]
fn on_a_slow_disk_all_goes_on() {
    let Some(mut world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let faults = world.faults();
    let slow = |calls: &[Call], millis| {
        let harm = Harm::Slow(Duration::from_millis(millis));
        faults.add(Fault::lasting(calls, "", harm));
    };
    slow(&[Call::Sync], 120);
    slow(&[Call::Write, Call::Create, Call::Rename], 8);
    let root = world.sandbox.root();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let dir = root.join(format!("{writer}"));
            std::thread::spawn(move || {
                for file in 0..12_u8 {
                    write(&dir.join(file.to_string()), &vec![file; 20_000]);
                }
            })
        })
        .collect();
    while writers.iter().any(|writer| !writer.is_finished()) {
        world.sandbox.json(["status", REPO]);
    }
    writers.into_iter().for_each(|w| w.join().unwrap());
    world.sandbox.ok(["commit", REPO]);
    faults.clear();
    world.sandbox.check();
    for writer in 0..4 {
        for file in 0..12_u8 {
            let path = root.join(format!("{writer}/{file}"));
            assert!(fs::read(path).unwrap() == vec![file; 20_000]);
        }
    }
    assert!(world.sandbox.is_alive());
    drop(guard);
    world.end();
}

/// No step of the script notices.
#[test]
fn short_reads_and_writes_are_gone_on_with() {
    let Some(mut world) = mounted() else {
        return;
    };
    let guard = Guard::over(&world);
    let faults = world.faults();
    // where the kernel itself copies whole files (catalogs, in txn), a short read is their end to it
    for below in ["stage", "srv", "spool"] {
        faults.add(Fault::lasting(
            &[Call::Read, Call::Write],
            below,
            Harm::Short,
        ));
    }
    let mut run = Run::new(&mut world.sandbox, Excuse::Errnos(Vec::new()));
    let failed = run.script().is_err();
    assert!(!failed, "{}", run.said);
    run.judge("short");
    assert!(faults.met() > 100, "{}", faults.met());
    // the journal's engine takes a short read for a torn table when it is opened, and refuses it
    faults.clear();
    run.finish("short");
    drop(guard);
    world.end();
}
