//! stratum0 beside `cvmfs_server`: one repository, two programs, and whatever each does the other
//! goes on from.
//!
//! With the official tools, root and an Apache these tests use `cvmfs_server` itself. The same rules
//! are tested on a repository that is laid out as it lays them out, below a directory of the test's
//! own, where the tools are missing too ([`laid_out`]).

mod laid_out;
mod owner;
mod replica;
pub mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{skip_unless, write};
use server::Server;

/// One of each of what either program does, and all of it again by the other: every revision is on
/// top of the one before, healthy, and holds what both have published.
fn interleaving(owner: &str) {
    let Some(mut world) = Server::new(owner) else {
        return;
    };
    world.mount();
    let mut names = vec!["new_repository".to_owned()];
    let ours = |world: &Server, names: &mut Vec<String>, name: &str, tag: &str| {
        write(&world.ours().join(name), name.as_bytes());
        let done = world.prepub_json(&["commit", world.name(), "--tag", tag]);
        names.push(name.to_owned());
        world.judge(names, done["revision"].as_u64().unwrap());
    };
    let theirs = |world: &Server, names: &mut Vec<String>, name: &str| {
        let before = world.revision();
        world.ok(&["transaction", world.name()]);
        write(&world.theirs().join(name), name.as_bytes());
        world.ok(&["publish", world.name()]);
        names.push(name.to_owned());
        world.judge(names, before + 1);
    };
    theirs(&world, &mut names, "theirs-1");
    ours(&world, &mut names, "ours-1", "one");
    theirs(&world, &mut names, "theirs-2");
    ours(&world, &mut names, "ours-2", "two");
    // their tags upon our revision, and ours upon theirs
    let at = world.revision();
    world.ok(&["tag", "-a", "tagged", world.name()]);
    world.judge(&names, at);
    world.prepub_json(&["tag", "add", world.name(), "tagged-too"]);
    world.judge(&names, at);
    let tags = world.ok(&["tag", "-l", "-x", world.name()]);
    for tag in ["one", "two", "tagged", "tagged-too"] {
        assert!(
            tags.lines().any(|line| line.split(' ').next() == Some(tag)),
            "{tag}: {tags}"
        );
    }
    world.ok(&["tag", "-r", "tagged-too", "-f", world.name()]);
    world.judge(&names, at);
    // a collection takes what nothing names, and nothing that anybody needs
    world.ok(&["gc", "-r", "0", "-f", world.name()]);
    world.judge(&names, at);
    ours(&world, &mut names, "ours-3", "three");
    // back by them, on by us; back by us, on by them
    world.ok(&["rollback", "-t", "two", "-f", world.name()]);
    names.truncate(5);
    world.judge(&names, at + 2);
    ours(&world, &mut names, "ours-4", "four");
    world.prepub_json(&["rollback", world.name(), "--tag", "two"]);
    names.truncate(5);
    world.judge(&names, at + 4);
    theirs(&world, &mut names, "theirs-3");
    world.ok(&["transaction", world.name()]);
    write(&world.theirs().join("unwanted"), b"");
    world.ok(&["abort", "-f", world.name()]);
    world.judge(&names, at + 5);
    ours(&world, &mut names, "ours-5", "five");
    world.prepub_json(&["check", world.name(), "--data"]);
    world.stratum1_follows();
    world.belongs_to(owner);
}

#[test]
fn interleaving_loses_nothing() {
    interleaving("root");
}

#[test]
fn interleaving_loses_nothing_of_another_owner() {
    interleaving("daemon");
}

#[test]
fn a_stage_survives_their_open_transaction() {
    let Some(mut world) = Server::new("root") else {
        return;
    };
    world.mount();
    world.ok(&["transaction", world.name()]);
    write(&world.theirs().join("theirs"), b"theirs");
    write(&world.ours().join("ours"), b"ours");
    let name = world.name().to_owned();
    for refused in [
        vec!["commit", &name],
        vec!["tag", "add", &name, "t"],
        vec!["rollback", &name],
        vec!["resign", &name, "--new-keys"],
    ] {
        let said = world.prepub_fails(4, &refused);
        assert!(said.contains("root opened it"), "{refused:?}: {said}");
    }
    assert_eq!(world.revision(), 1);
    world.ok(&["publish", &name]);
    let status = world.prepub_json(&["status", &name]);
    assert_eq!(status["repositories"][0]["staged"]["added"], 1, "{status}");
    world.prepub_json(&["commit", &name]);
    world.judge(&["new_repository", "theirs", "ours"], 3);
}

#[test]
fn cvmfs_server_refuses_while_we_publish() {
    let Some(mut world) = Server::new("root") else {
        return;
    };
    world.mount_with("stratum0::before_manifest=sleep(6000)");
    write(&world.ours().join("ours"), b"ours");
    let name = world.name().to_owned();
    let mut commit = world.prepub(&["commit", &name]);
    let commit = commit.stdout(Stdio::null()).spawn().unwrap();
    world.until_signed();
    for refused in [
        vec!["transaction", &name],
        vec!["tag", "-a", "t", &name],
        vec!["gc", "-r", "0", "-f", &name],
        vec!["rollback", "-f", &name],
        vec!["publish", &name],
    ] {
        world.fails(&refused);
        assert!(world.is_signed(), "{refused:?}: our sign is gone");
    }
    let done = commit.wait_with_output().unwrap();
    assert!(done.status.success());
    world.judge(&["new_repository", "ours"], 2);
    world.ok(&["transaction", &name]);
    assert_eq!(fs::read(world.theirs().join("ours")).unwrap(), b"ours");
    write(&world.theirs().join("theirs"), b"theirs");
    world.ok(&["publish", &name]);
    world.judge(&["new_repository", "ours", "theirs"], 3);
}

/// Their collection takes objects that our commit found in the storage, and so did not store, before
/// our commit has come to its lease.
#[test]
fn a_collection_before_the_lease_takes_nothing_from_a_commit() {
    let Some(mut world) = Server::new("root") else {
        return;
    };
    world.set("CVMFS_AUTO_TAG", "false");
    world.mount();
    let bytes = b"published, removed, and published again";
    write(&world.ours().join("first"), bytes);
    world.prepub_json(&["commit", world.name()]);
    let objects = world.data_objects();
    fs::remove_file(world.ours().join("first")).unwrap();
    world.prepub_json(&["commit", world.name()]);
    write(&world.ours().join("other"), b"");
    world.prepub_json(&["commit", world.name()]);
    world.unmount();

    world.mount_with("commit::stored=sleep(10000)");
    write(&world.ours().join("second"), bytes);
    world.prepub_json(&["status", world.name(), "--wait"]);
    let mut commit = world.prepub(&["commit", world.name(), "--json"]);
    let commit = commit.stdout(Stdio::piped()).spawn().unwrap();
    world.until_stored();
    world.ok(&["gc", "-r", "0", "-f", world.name()]);
    let collected = objects.iter().filter(|object| !object.exists()).count();
    assert_eq!(collected, 1, "{objects:?}");
    let done = commit.wait_with_output().unwrap();
    assert!(done.status.success());
    world.judge(&["new_repository", "other", "second"], 5);
    assert_eq!(fs::read(world.theirs().join("second")).unwrap(), bytes);
    assert!(objects.iter().all(|object| object.exists()));
}

#[test]
fn what_a_killed_daemon_held_is_given_back() {
    let Some(mut world) = Server::new("root") else {
        return;
    };
    for (step, revision) in [("before", 2), ("after", 3)] {
        world.mount_with(&format!("stratum0::{step}_manifest=sleep(60000)"));
        write(&world.ours().join(step), b"");
        let mut commit = world.prepub(&["commit", world.name()]);
        let commit = commit
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        world.until_signed();
        std::thread::sleep(Duration::from_millis(500));
        world.kill();
        drop(commit.wait_with_output());
        assert!(world.is_signed(), "{step}");
        world.fails(&["transaction", world.name()]);
        world.mount();
        assert!(
            !world.is_signed(),
            "{step}: it is not in anybody's way any more"
        );
        // theirs, upon whatever became of ours
        world.ok(&["transaction", world.name()]);
        world.ok(&["abort", "-f", world.name()]);
        let done = world.prepub_json(&["commit", world.name()]);
        assert_eq!(done["revision"], revision, "{step}: {done}");
        world.unmount();
    }
    world.mount();
    world.judge(&["new_repository", "before", "after"], 3);
}

#[test]
fn a_mount_of_theirs_that_is_in_use_is_left_to_its_users() {
    let Some(mut world) = Server::new("root") else {
        return;
    };
    world.mount();
    let mut user = Command::new("sleep")
        .arg("600")
        .current_dir(world.theirs())
        .spawn()
        .unwrap();
    write(&world.ours().join("ours"), b"ours");
    world.prepub_json(&["commit", world.name()]);
    assert_eq!(world.revision(), 2);
    assert!(
        !world.theirs().join("ours").exists(),
        "they look at what they looked at"
    );
    // a transaction upon the older revision would undo ours
    world.fails(&["transaction", world.name()]);
    user.kill().unwrap();
    user.wait().unwrap();
    world.ok(&["transaction", world.name()]);
    write(&world.theirs().join("theirs"), b"theirs");
    world.ok(&["publish", world.name()]);
    world.judge(&["new_repository", "ours", "theirs"], 3);
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names in a directory, sorted.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
