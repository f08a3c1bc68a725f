//! The publisher "cvmfs-server", with the real `cvmfs_server` where it is installed: what we stage it
//! publishes, in transactions of ours, and nobody else's is touched.
//!
//! The rules of it, and each step that it can be cut short at, are tested in the crate `commit` with a
//! double.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::beside::server::Server;
use crate::beside::until;
use crate::support::trees::{Times, assert_same};
use crate::support::write;

/// Names of one file: on our mount they stay that, published they are two files.
const LINKED: [&str; 2] = ["linked-a", "linked-b"];
/// Which user the repository belongs to; the daemon runs as root.
const OWNERS: [&str; 2] = ["root", "daemon"];

fn world(owner: &str) -> Option<Server> {
    let mut world = Server::publishing(owner, "cvmfs-server")?;
    world.set("CVMFS_INCLUDE_XATTRS", "true");
    world.mount();
    Some(world)
}

/// Commits, and finds what was staged on their mount, in a repository that is whole.
#[track_caller]
fn commit(world: &Server, args: &[&str]) -> serde_json::Value {
    let revision = world.revision();
    let mut command = vec!["commit", world.name()];
    command.extend(args);
    let done = world.prepub_json(&command);
    assert_eq!(done["revision"], revision + 1, "{done}");
    sound(world, revision + 1);
    done
}

#[track_caller]
fn sound(world: &Server, revision: u64) {
    assert_eq!(world.revision(), revision);
    assert!(!world.is_signed());
    let said = world.ok(&["check", "-i", world.name()]);
    assert!(said.contains("no problems found"), "{said}");
    world.prepub_json(&["check", world.name(), "--data"]);
    assert_same(&world.ours(), &world.theirs(), Times::Seconds, &LINKED);
    let [left, right] = LINKED.map(|name| fs::read(world.theirs().join(name)).ok());
    assert_eq!(left, right);
}

fn set_time(path: &Path, secs: i64) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Bytes that do not compress, so many that a file of them is cut.
fn many_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..(3 << 20)).flat_map(|_| next()).collect()
}

/// Files of all kinds, with metadata of all kinds.
fn all_kinds(root: &Path) {
    write(&root.join("d/file"), b"bytes");
    write(&root.join("d/empty"), b"");
    write(&root.join("d/big"), &many_bytes(7));
    write(&root.join("d/sub/.cvmfscatalog"), b"");
    write(&root.join("d/sub/leaf"), b"leaf");
    write(&root.join("secret/file"), b"secret");
    let odd = std::ffi::OsStr::from_bytes(b"\xff odd\n*$(x)'\"\\name");
    write(&root.join("d").join(odd), b"odd");
    write(&root.join(format!("d/{}", "n".repeat(255))), b"long");
    symlink("/nowhere/\u{e4} b", root.join("d/dangling")).unwrap();
    symlink("sub", root.join("d/link to a directory")).unwrap();
    write(&root.join(LINKED[0]), b"linked");
    fs::hard_link(root.join(LINKED[0]), root.join(LINKED[1])).unwrap();
    for (name, kind, number) in [
        ("fifo", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("device", FileType::CharacterDevice, 259),
        ("block", FileType::BlockDevice, 1793),
    ] {
        let mode = Mode::from_raw_mode(0o640);
        mknodat(CWD, root.join("d").join(name), kind, mode, number).unwrap();
    }
    write(&root.join("d/attributes"), b"with");
    xattr::set(root.join("d/attributes"), "user.a", b"one").unwrap();
    xattr::set(root.join("d/sub"), "user.b", b"two").unwrap();
    chmod(&root.join("d/file"), 0o4755);
    chmod(&root.join("secret/file"), 0o000);
    chown(root.join("d/big"), Some(1234), Some(4321)).unwrap();
    lchown(root.join("d/dangling"), Some(1), Some(2)).unwrap();
    chown(root.join("secret"), Some(77), Some(88)).unwrap();
    chmod(&root.join("secret"), 0o700);
    set_time(&root.join("d/file"), -5);
    set_time(&root.join("d/dangling"), 5_000_000_000);
    set_time(&root.join("d/sub"), 1_000_000_000);
    set_time(&root.join("secret"), 1_000_000_001);
}

/// Everything that can happen to them.
fn change_all(root: &Path) {
    // metadata alone
    chmod(&root.join("d/big"), 0o600);
    set_time(&root.join("d/empty"), 3);
    xattr::set(root.join("d/attributes"), "user.a", b"other").unwrap();
    xattr::remove(root.join("d/sub"), "user.b").unwrap();
    chmod(&root.join("d/sub"), 0o2770);
    lchown(root.join("d/dangling"), Some(3), Some(4)).unwrap();
    chmod(&root.join("d/fifo"), 0o600);
    // content
    write(&root.join("secret/file"), b"other bytes");
    // types
    fs::remove_file(root.join("d/socket")).unwrap();
    write(&root.join("d/socket/now/a/directory"), b"");
    fs::remove_file(root.join("d/link to a directory")).unwrap();
    fs::create_dir(root.join("d/link to a directory")).unwrap();
    // places
    fs::rename(root.join("d/sub"), root.join("moved")).unwrap();
    fs::rename(root.join("d/block"), root.join("moved/block")).unwrap();
}

fn transactions(owner: &str) {
    let Some(world) = world(owner) else {
        return;
    };
    let (root, name) = (world.ours(), world.name().to_owned());
    all_kinds(&root);
    let message = "it's \"new\" $(touch /tmp/x) `id` -n 5 -Z none * \\ \u{fc}";
    let done = commit(&world, &["--tag", "one", "-m", message]);
    assert_eq!(done["tag"], "one", "{done}");
    let tag = world.ok(&["tag", "-i", "one", &name]);
    assert!(tag.contains(message), "{tag}");
    // files are grafts: those of which nothing was staged with attributes keep their objects
    let objects = world.data_objects().len();
    change_all(&root);
    commit(&world, &[]);
    let grown = world.data_objects().len() - objects;
    assert!(grown <= 2, "{grown} new objects for one new content");
    // a catalog goes, and comes back elsewhere
    fs::remove_file(root.join("moved/.cvmfscatalog")).unwrap();
    write(&root.join("d/.cvmfscatalog"), b"");
    commit(&world, &[]);
    // whole trees go
    fs::remove_dir_all(root.join("d")).unwrap();
    write(&root.join("d"), b"a file now");
    fs::remove_dir_all(root.join("secret")).unwrap();
    commit(&world, &[]);
    let nothing = world.prepub_json(&["commit", &name]);
    assert_eq!(nothing["published"], false, "{nothing}");
    assert!(!world.is_signed());
    world.belongs_to(owner);
}

#[test]
fn all_that_is_staged_is_published() {
    transactions(OWNERS[0]);
}

#[test]
fn all_that_is_staged_is_published_in_a_repository_of_another_user() {
    transactions(OWNERS[1]);
}

#[test]
fn a_transaction_of_somebody_else_stays() {
    let Some(world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    world.ok(&["transaction", &name]);
    write(&world.theirs().join("theirs"), b"theirs");
    write(&world.ours().join("ours"), b"ours");
    let said = world.prepub_fails(4, &["commit", &name]);
    assert!(said.contains("root opened it"), "{said}");
    let doctor = world.prepub(&["doctor", &name]).output().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("has a transaction open"), "{doctor}");
    assert!(doctor.contains("files are stored before"), "{doctor}");
    world.ok(&["publish", &name]);
    commit(&world, &[]);
    world.judge(&["new_repository", "theirs", "ours"], 3);
}

#[test]
fn each_goes_on_from_what_the_other_published() {
    let Some(mut world) = world("daemon") else {
        return;
    };
    let name = world.name().to_owned();
    let mut names = vec!["new_repository".to_owned()];
    for round in 0..3 {
        let theirs = format!("theirs-{round}");
        world.ok(&["transaction", &name]);
        write(&world.theirs().join(&theirs), theirs.as_bytes());
        world.ok(&["publish", "-a", &theirs, &name]);
        let ours = format!("ours-{round}");
        write(&world.ours().join(&ours), ours.as_bytes());
        commit(&world, &["--tag", &ours]);
        names.extend([theirs, ours]);
        let revision = world.revision();
        world.judge(&names, revision);
        world.ok(&["tag", "-a", &format!("tagged-{round}"), &name]);
        world.ok(&["gc", "-r", "0", "-f", &name]);
    }
    world.ok(&["rollback", "-t", "ours-1", "-f", &name]);
    names.truncate(5);
    write(&world.ours().join("on top"), b"");
    commit(&world, &[]);
    names.push("on top".to_owned());
    let revision = world.revision();
    world.judge(&names, revision);
    world.stratum1_follows();
    world.belongs_to("daemon");
}

/// What we changed and they changed, too: refused under the transaction, which is over then.
#[test]
fn a_conflict_ends_the_transaction() {
    let Some(mut world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    write(&world.ours().join("both"), b"0");
    commit(&world, &[]);
    world.unmount();
    world.mount();
    write(&world.ours().join("both"), b"ours");
    world.ok(&["transaction", &name]);
    write(&world.theirs().join("both"), b"theirs");
    world.ok(&["publish", &name]);
    let said = world.prepub_fails(3, &["commit", &name]);
    assert!(said.contains("/both"), "{said}");
    assert!(!world.is_signed());
    commit(&world, &["--on-conflict", "ours"]);
    assert_eq!(fs::read(world.theirs().join("both")).unwrap(), b"ours");
}

/// A file that somebody has open for writing in our transaction keeps it from being published.
#[test]
fn a_publication_that_fails_leaves_the_stage_and_no_transaction() {
    let Some(mut world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    world.unmount();
    world.mount_with("server::applied=sleep(5000)");
    write(&world.ours().join("ours"), b"ours");
    let mut commit = world.prepub(&["commit", &name]);
    commit.stdout(Stdio::null()).stderr(Stdio::piped());
    let commit = commit.spawn().unwrap();
    let applied = world.theirs().join("ours");
    until("a change in the transaction", || applied.exists());
    let open = File::options().append(true).open(&applied).unwrap();
    let done = commit.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("Open writable file descriptors"), "{said}");
    drop(open);
    assert!(!world.is_signed(), "{said}");
    sound_before(&world, 1);
    world.unmount();
    world.mount();
    commit_again(&world);
}

/// Whoever else publishes in that moment keeps it from being published and aborted; the next commit does
/// both.
#[test]
fn a_transaction_that_cannot_be_aborted_now_is_aborted_later() {
    let Some(world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    write(&world.ours().join("ours"), b"ours");
    let lock = world.spool().join("is_publishing.lock");
    let held = File::create(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let said = world.prepub_fails(1, &["commit", &name]);
    assert!(said.contains("Another publish process"), "{said}");
    assert!(world.is_signed(), "{said}");
    drop(held);
    fs::remove_file(&lock).unwrap();
    sound_before(&world, 1);
    commit_again(&world);
}

#[track_caller]
fn commit_again(world: &Server) {
    commit(world, &[]);
}

/// The revision is the old one, and something is staged.
#[track_caller]
fn sound_before(world: &Server, revision: u64) {
    assert_eq!(world.revision(), revision);
    let status = world.prepub_json(&["status", world.name()]);
    assert_eq!(status["repositories"][0]["staged"]["added"], 1, "{status}");
}

fn committing(world: &Server) -> Child {
    let mut commit = world.prepub(&["commit", world.name()]);
    commit.stdout(Stdio::null()).stderr(Stdio::null());
    commit.spawn().unwrap()
}

/// `kill -9` at each step: the old revision or the new one, and nothing in anybody's way.
#[test]
fn a_killed_daemon_leaves_no_transaction() {
    let Some(mut world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    world.unmount();
    for (step, is_new) in [
        ("server::noted", false),
        ("server::opened", false),
        ("server::noted_open", false),
        ("server::applying", false),
        ("server::applied", false),
        ("server::before_publish", false),
        ("server::published", true),
    ] {
        let before = world.revision();
        world.mount_with(&format!("{step}=return(kill)"));
        let file = step.replace(':', "-");
        write(&world.ours().join(&file), step.as_bytes());
        let mut commit = committing(&world);
        assert!(!commit.wait().unwrap().success(), "{step}");
        assert!(world.has_died(), "{step}");
        let visible = before + u64::from(is_new);
        assert_eq!(world.revision(), visible, "{step}");
        world.mount();
        assert!(!world.is_signed(), "{step}");
        // nobody is in their way
        world.ok(&["transaction", &name]);
        world.ok(&["abort", "-f", &name]);
        let done = world.prepub_json(&["commit", &name]);
        assert_eq!(done["published"], !is_new, "{step}: {done}");
        sound(&world, before + 1);
        world.unmount();
    }
}

/// `kill -9` while `cvmfs_server publish` is at work, which goes on without us.
#[test]
fn a_publication_that_outlives_the_daemon_is_waited_for() {
    let Some(mut world) = world("root") else {
        return;
    };
    let name = world.name().to_owned();
    for number in 0..400 {
        write(&world.ours().join(format!("d/{number}")), b"");
    }
    let mut commit = committing(&world);
    // the last of them is in the transaction; opening that takes the same lock for a moment
    let (lock, last) = (
        world.spool().join("is_publishing.lock"),
        world.theirs().join("d/99"),
    );
    until("a publication", || last.exists() && lock.exists());
    world.kill();
    commit.wait().unwrap();
    world.mount();
    assert!(!world.is_signed());
    assert_eq!(world.revision(), 2, "it was published without us");
    let nothing = world.prepub_json(&["commit", &name]);
    assert_eq!(nothing["published"], false, "{nothing}");
    sound(&world, 2);
}

/// SIGTERM while a transaction of ours is open.
#[test]
fn a_daemon_that_is_told_to_end_leaves_no_transaction() {
    let Some(mut world) = world("root") else {
        return;
    };
    for number in 0..400 {
        write(&world.ours().join(format!("d/{number}")), b"");
    }
    let mut commit = committing(&world);
    world.until_signed();
    std::thread::sleep(Duration::from_millis(300));
    world.terminate();
    commit.wait().unwrap();
    assert!(!world.is_signed());
    world.mount();
    let revision = world.revision();
    let done = world.prepub_json(&["commit", world.name()]);
    assert_eq!(done["published"], revision == 1, "{done}");
    sound(&world, 2);
}

/// What the double of it says is what it says.
#[test]
fn the_recorded_refusals_are_its_own() {
    let Some(world) = Server::new("root") else {
        return;
    };
    let name = world.name();
    world.ok(&["tag", "-a", "TAG", name]);
    let recorded = include_str!("../commit/tests/data/cvmfs_server.refusals");
    let mut found = Vec::new();
    let mut says = |verb: &str, when: &str, args: &[&str]| {
        let (code, said) = world.refusal(args);
        let said = said.trim().replace(name, "NAME");
        found.push(format!("{verb}\t{when}\t{code}\t{said}"));
    };
    says("abort", "closed", &["abort", "-f", name]);
    says("publish", "closed", &["publish", "-f", name]);
    world.ok(&["transaction", name]);
    says("transaction", "open", &["transaction", name]);
    says(
        "publish",
        "tag exists",
        &["publish", "-f", "-a", "TAG", name],
    );
    let lock = world.spool().join("is_publishing.lock");
    let held = File::create(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    says("publish", "publishing", &["publish", "-f", name]);
    says("abort", "publishing", &["abort", "-f", name]);
    drop(held);
    fs::remove_file(&lock).unwrap();
    world.ok(&["abort", "-f", name]);
    let mut expected: Vec<&str> = recorded.lines().filter(|l| !l.starts_with('#')).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}
