//! Several users on one mount: who may write where, and who may do what with what was written.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Output};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, write};

const ALICE: u32 = 61_001;
const BOB: u32 = 61_002;
const CAROL: u32 = 61_003;
/// Carol is in it by a supplementary group.
const BUILDERS: u32 = 61_100;

const CONFIG: &str = r#"
[[repository."test.example.org".allow]]
path = "/alice"
users = ["61001"]
may = ["write", "commit"]

[[repository."test.example.org".allow]]
path = "/shared"
users = ["61002"]
groups = ["61100"]
may = ["write", "abort"]
"#;

/// A mount that everybody may enter, with directories whose modes forbid nobody anything.
fn shared() -> Option<Sandbox> {
    if skip_unless(can_mount(), "/dev/fuse") || skip_unless(is_root(), "root, to be several users")
    {
        return None;
    }
    let mut sandbox = Sandbox::new();
    // the temporary directory is nobody else's
    fs::set_permissions(sandbox.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.ok(["mkfs", REPO]);
    let config = sandbox.dir.path().join("config.toml");
    fs::write(&config, CONFIG).unwrap();
    sandbox.mount_with(&[("PREPUB_CONFIG", config.to_str().unwrap())]);
    let root = sandbox.root();
    for dir in ["alice", "shared", "other"] {
        write(&root.join(dir).join("old"), b"old");
        for path in [dir.to_owned(), format!("{dir}/old")] {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o777)).unwrap();
        }
    }
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    let socket = sandbox.state().join("control.sock");
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    Some(sandbox)
}

fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg("--regid=61000");
    match uid {
        CAROL => command.arg(format!("--groups={BUILDERS}")),
        _ => command.arg("--clear-groups"),
    };
    command
}

/// Runs a line of shell in the repository's root.
fn shell(sandbox: &Sandbox, uid: u32, line: &str) -> Output {
    let mut command = as_user(uid);
    command
        .args(["sh", "-ec", line])
        .current_dir(sandbox.root());
    command.output().unwrap()
}

#[track_caller]
fn may(sandbox: &Sandbox, uid: u32, line: &str) {
    let output = shell(sandbox, uid, line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "uid {uid}: {line}: {said}");
}

#[track_caller]
fn may_not(sandbox: &Sandbox, uid: u32, line: &str) {
    let output = shell(sandbox, uid, line);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "uid {uid} may: {line}");
    assert!(
        said.contains("Permission denied"),
        "uid {uid}: {line}: {said}"
    );
}

/// Every way to change something below `dir`.
fn changes(dir: &str) -> Vec<String> {
    [
        "echo x >>DIR/old",
        ": >DIR/new",
        "mkdir DIR/d",
        "ln -s x DIR/s",
        "mkfifo DIR/p",
        "ln DIR/old DIR/h",
        "mv DIR/old DIR/moved && mv DIR/moved DIR/old",
        "truncate -s 1 DIR/old",
        "rm DIR/old && echo new >DIR/old && chmod 777 DIR/old",
    ]
    .iter()
    .map(|line| line.replace("DIR", dir))
    .collect()
}

#[test]
fn who_may_write_below_which_path() {
    let Some(sandbox) = shared() else {
        return;
    };
    for (uid, dir, granted) in [
        (ALICE, "alice", true),
        (ALICE, "shared", false),
        (ALICE, "other", false),
        (BOB, "alice", false),
        (BOB, "shared", true),
        (CAROL, "shared", true),
        (CAROL, "other", false),
        (0, "other", true),
    ] {
        for line in changes(dir) {
            match granted {
                true => may(&sandbox, uid, &line),
                false => may_not(&sandbox, uid, &line),
            }
        }
        // what was made goes again, and reading is free
        may(&sandbox, 0, &format!("cd {dir} && rm -rf new d s p h"));
        may(&sandbox, uid, &format!("cat {dir}/old"));
    }
    // neither out of nor into what one may write
    may_not(&sandbox, ALICE, "mv alice/old shared/stolen");
    may_not(&sandbox, ALICE, "mv shared/old alice/stolen");
    may_not(&sandbox, ALICE, "mkdir elsewhere");
    may_not(&sandbox, ALICE, "mv alice bob");
    // a file that has a name elsewhere too is changed there as well
    may(
        &sandbox,
        0,
        "ln other/old alice/linked && chmod 777 other/old",
    );
    may_not(&sandbox, ALICE, "echo x >>alice/linked");
    // attributes: the owner's affair, where he may write
    for (dir, owner) in [("alice", ALICE), ("other", ALICE)] {
        chown(sandbox.root().join(dir).join("old"), Some(owner), None).unwrap();
    }
    may(&sandbox, 0, "rm alice/linked");
    may(
        &sandbox,
        ALICE,
        "chmod 700 alice/old && setfattr -n user.a -v b alice/old && touch alice/old",
    );
    for line in [
        "chmod 700 other/old",
        "setfattr -n user.a -v b other/old",
        "touch -d @1 other/old",
    ] {
        may_not(&sandbox, ALICE, line);
    }
}

#[test]
fn who_may_commit_and_abort_below_which_path() {
    let Some(sandbox) = shared() else {
        return;
    };
    let program = |uid: u32, args: &[&str]| {
        let mut command = as_user(uid);
        command
            .arg(env!("CARGO_BIN_EXE_prepub"))
            .arg("--state-dir")
            .arg(sandbox.state())
            .args(args);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let at = |path: &str| format!("{REPO}{path}");
    for (uid, args, granted) in [
        (BOB, vec!["commit", "/alice"], false),
        (BOB, vec!["commit", "/shared"], false),
        (ALICE, vec!["commit", "/shared"], false),
        (ALICE, vec!["commit", ""], false),
        (ALICE, vec!["abort", "/alice"], false),
        (ALICE, vec!["abort", "/shared"], false),
        (BOB, vec!["status", ""], true),
        (ALICE, vec!["diff", ""], true),
        (BOB, vec!["commit", "", "--dry-run"], true),
        (ALICE, vec!["commit", "/alice"], true),
        (CAROL, vec!["abort", "/shared"], true),
    ] {
        let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        args[1] = at(&args[1]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (done, said) = program(uid, &args);
        assert_eq!(done, granted, "uid {uid}: {args:?}: {said}");
        if !granted {
            assert!(said.contains("may not"), "uid {uid}: {args:?}: {said}");
        }
    }
    assert!(sandbox.root().join("alice/old").exists());
    assert!(!sandbox.root().join("shared/old").exists(), "aborted");
}
