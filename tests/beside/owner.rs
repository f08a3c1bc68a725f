//! A repository that `cvmfs_server` made for somebody who is not root, and prepub run by that one: no
//! step of it needs more rights than `cvmfs_server` does.

use std::fs;

use super::server::{Server, id};
use crate::support::{by, write};

const OWNER: &str = "daemon";

/// A line of shell by the owner, on our mount.
#[track_caller]
fn shell(world: &Server, line: &str) {
    let mut command = by([id("-u", OWNER), id("-g", OWNER)]);
    command.args(["sh", "-ec", line]).current_dir(world.ours());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {said}");
}

/// Commits, and finds the repository whole and the owner's.
#[track_caller]
fn commit(world: &Server, names: &[&str]) {
    let revision = world.revision();
    let done = world.prepub_json(&["commit", world.name()]);
    assert_eq!(done["revision"], revision + 1, "{done}");
    world.judge(names, revision + 1);
    world.belongs_to(OWNER);
}

fn by_its_owner(publisher: &str) -> Option<Server> {
    let mut world = Server::run_by_its_owner(OWNER, publisher)?;
    world.mount();
    let name = world.name().to_owned();
    let doctor = world.prepub_json(&["doctor", &name]);
    assert_eq!(doctor["healthy"], true, "{doctor:#}");
    shell(
        &world,
        "mkdir dir; for n in $(seq 20); do echo $n >dir/$n; done; echo 1 >file",
    );
    commit(&world, &["dir", "file", "new_repository"]);
    // what the other publishes, as the owner's or as root's, is gone on from
    world.ok(&["transaction", &name]);
    write(&world.theirs().join("theirs"), b"theirs");
    world.ok(&["publish", &name]);
    shell(&world, "echo 2 >file; rm -r dir");
    commit(&world, &["file", "new_repository", "theirs"]);
    assert_eq!(fs::read(world.theirs().join("file")).unwrap(), b"2\n");
    Some(world)
}

#[test]
fn an_owner_who_is_not_root_publishes_beside() {
    by_its_owner("stratum0");
}

#[test]
fn an_owner_who_is_not_root_publishes_by_cvmfs_server() {
    let Some(world) = by_its_owner("cvmfs-server") else {
        return;
    };
    // nobody but root gives files away
    write(&world.ours().join("roots"), b"");
    let said = world.prepub_fails(1, &["commit", world.name()]);
    assert!(said.contains("only root can give it away"), "{said}");
    assert!(!world.is_signed());
}

/// Neither root nor the owner: said before anything happens.
#[test]
fn anybody_else_is_told_who_may() {
    for publisher in ["stratum0", "cvmfs-server"] {
        let Some(mut world) = Server::run_by_its_owner(OWNER, publisher) else {
            return;
        };
        world.is_run_by("games");
        let doctor = world.prepub_fails(1, &["doctor", world.name()]);
        assert!(
            doctor.contains("belongs to daemon, and we are another user")
                && doctor.contains("run prepub as root or as daemon"),
            "{doctor}"
        );
    }
}
