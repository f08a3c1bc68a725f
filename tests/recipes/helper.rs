//! What packaging/prepub-build promises beyond a build that succeeds: what it refuses, what it drops and what it
//! keeps. Nothing has to be compiled for that.

use std::fs;

use serde_json::Value;

use super::{nothing_is_staged, published};
use crate::support::shell::{Shell, Who, have};
use crate::support::{REPO, skip_unless, workspace_root};

/// A mounted repository, whatever can be built.
fn mounted() -> Option<Shell> {
    let shell = Shell::of(Who::User)?;
    shell.ok(&format!("prepub mkfs {REPO}\nprepub mount \"$MOUNT\""));
    Some(shell)
}

#[test]
fn what_the_helper_refuses_it_refuses_before_the_build() {
    let Some(shell) = mounted() else {
        return;
    };
    let build = |options: &str| format!("prepub-build {options} -- sh -c 'touch was-built'");
    for (code, options) in [
        (2, String::new()),
        (2, REPO.to_owned()),
        (2, format!("{REPO} /")),
        (2, format!("{REPO} a/../..")),
        (2, "unknown.example.org a".to_owned()),
        (2, format!("{REPO} a --frobnicate")),
        (2, format!("{REPO} a --tag 'a b'")),
        (2, format!("{REPO} a --at relative")),
        (2, format!("{REPO} a --at")),
    ] {
        shell.fails(code, &build(&options));
    }
    shell.fails(2, &format!("prepub-build {REPO} a"));
    // what somebody else has staged there is not dropped with ours
    shell.ok(&format!(
        "mkdir \"$MOUNT/{REPO}/a\" && touch \"$MOUNT/{REPO}/a/theirs\""
    ));
    let said = shell.fails(4, &build(&format!("{REPO} a")));
    assert!(said.contains(&format!("`prepub abort {REPO}/a`")), "{said}");
    shell.ok(&format!(
        "[ -e \"$MOUNT/{REPO}/a/theirs\" ]; prepub abort {REPO}/a"
    ));
    nothing_is_staged(&shell);
    shell.ok("prepub unmount");
    let said = shell.fails(7, &build(&format!("{REPO} a")));
    assert!(said.contains("prepub mount"), "{said}");
    assert!(!shell.home().join("was-built").exists());
}

#[test]
fn a_build_that_installs_nothing_or_is_interrupted_leaves_nothing() {
    let Some(shell) = mounted() else {
        return;
    };
    let said = shell.fails(1, &format!("prepub-build {REPO} new/1 -- true"));
    assert!(said.contains("installed nothing"), "{said}");
    // all of it ends: what COMMAND started in the background as well
    let said = shell.fails(
        143,
        &format!(
            "prepub-build {REPO} new/1 -- sh -c '
                 sh -c \"while :; do touch \\\"$PREPUB_PREFIX/file\\\"; sleep 0.02; done\" & echo $! >child; wait' &
             until [ -s child ] && [ -e \"$MOUNT/{REPO}/new/1/file\" ]; do sleep 0.02; done
             kill $!; wait $!"
        ),
    );
    assert!(said.contains("interrupted"), "{said}");
    let child = fs::read_to_string(shell.home().join("child")).unwrap();
    assert!(!std::path::Path::new("/proc").join(child.trim()).exists());
    nothing_is_staged(&shell);
    assert_eq!(shell.ok(&format!("ls -A \"$MOUNT/{REPO}\"")), "");
}

#[test]
fn what_cannot_be_published_stays_or_goes_as_was_asked() {
    let Some(shell) = mounted() else {
        return;
    };
    let build = |path: &str, more: &str| {
        format!(
            "prepub-build {REPO} {path} --tag v1 {more} -- sh -c 'echo {path} >\"$PREPUB_PREFIX/file\"'"
        )
    };
    shell.ok(&build("a", ""));
    // the tag exists
    let said = shell.fails(1, &build("b", "--abort"));
    assert!(
        said.contains("exists already") && said.contains("is dropped"),
        "{said}"
    );
    nothing_is_staged(&shell);
    let said = shell.fails(1, &build("b", ""));
    assert!(said.contains("stays staged"), "{said}");
    shell.ok(&format!("prepub commit {REPO}/b --tag v2"));
    assert_eq!(shell.ok(&format!("cat \"$MOUNT/{REPO}/b/file\"")), "b\n");
    nothing_is_staged(&shell);
}

/// What an upload was: an archive on standard input. And an update in place is what differs.
#[test]
fn an_archive_is_published_and_then_updated_in_place() {
    let Some(shell) = mounted() else {
        return;
    };
    let build = format!("prepub-build {REPO} lcg/nightly --json -- ");
    shell.ok("mkdir -p out/lib && seq 1000 >out/lib/one && seq 2000 >out/lib/two && tar -czf out.tar.gz -C out .");
    published(&shell.ok(&format!(
        "{build} sh -c 'tar -xzf - -C \"$PREPUB_PREFIX\"' <out.tar.gz"
    )));
    shell.ok("rm out/lib/one && seq 3000 >out/lib/three");
    let copied = "sh -c 'rsync -a --delete out/ \"$PREPUB_PREFIX/\"'";
    let updated = published(&shell.ok(&format!("{build} {copied}")));
    assert_eq!(
        [&updated["files"], &updated["removed"]],
        [1, 1],
        "{updated}"
    );
    // the same again is no revision
    let same: Value = serde_json::from_str(&shell.ok(&format!("{build} {copied}"))).unwrap();
    assert_eq!(same["published"], false, "{same}");
    shell.ok(&format!("diff -r out \"$MOUNT/{REPO}/lcg/nightly\""));
}

/// Who a runner of CI is: neither root nor the daemon's owner, with rights below a path.
const RUNNER: u32 = 65_534;

#[test]
fn a_user_with_rights_builds_on_a_mount_of_root() {
    let Some(shell) = Shell::of(Who::Root) else {
        return;
    };
    shell.sandbox.configure(&format!(
        "[control]\ngroup = \"{RUNNER}\"\n[[repository.{REPO:?}.allow]]\npath = \"/ours\"\n\
         users = [\"{RUNNER}\"]\nmay = [\"write\", \"commit\", \"abort\", \"tag\"]\n"
    ));
    let runner = format!("setpriv --reuid={RUNNER} --regid={RUNNER} --clear-groups");
    shell.ok("chmod 755 .");
    let may_run = shell
        .run(&format!("{runner} prepub --version"))
        .status
        .success();
    if skip_unless(may_run, "a program under test that everybody may run") {
        return;
    }
    shell.ok(&format!(
        "export PREPUB_CONFIG=$PWD/every.toml
         prepub mkfs {REPO}
         prepub mount \"$MOUNT\"
         install -d -o {RUNNER} \"$MOUNT/{REPO}/ours\" \"$MOUNT/{REPO}/theirs\"
         prepub commit {REPO}"
    ));
    let build = |path: &str, options: &str, what: &str| {
        format!("{runner} prepub-build {REPO} {path} {options} -- sh -ec '{what}'")
    };
    let made = published(&shell.ok(&build(
        "ours/tool/1.0",
        "--tag tool-1.0 --json",
        "id -u >\"$PREPUB_PREFIX/who\"",
    )));
    assert_eq!(made["tag"], "tool-1.0");
    let owner = shell.ok(&format!(
        "cd \"$MOUNT/{REPO}/ours/tool/1.0\" && cat who && stat -c %u who"
    ));
    assert_eq!(owner, format!("{RUNNER}\n{RUNNER}\n"));
    shell.fails(
        9,
        &build("ours/tool/2.0", "", "touch \"$PREPUB_PREFIX/file\"; exit 9"),
    );
    // the directory is its own, the right is not
    let said = shell.fails(1, &build("theirs/tool/1.0", "", "true"));
    assert!(said.contains("Permission denied"), "{said}");
    nothing_is_staged(&shell);
}

#[test]
fn the_helper_is_clean_shell() {
    let helper = workspace_root().join("packaging/prepub-build");
    if skip_unless(have(&["shellcheck"]), "shellcheck") {
        return;
    }
    let output = std::process::Command::new("shellcheck")
        .arg(helper)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
