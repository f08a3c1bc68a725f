//! What people run, as the judge: each workload of `tests/workloads/` runs in the mount and in a
//! plain directory, and the trees it leaves are equal; then it is committed, and equal again through
//! the independent client.
//!
//! A workload is a script that is given a directory of inputs and makes something of it where it
//! stands. Builds write their own path into what they make, so both runs see theirs at one place, in
//! mount namespaces of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::trees::{self, Times};
use crate::support::{REPO, Sandbox, client, is_root, skip_unless, workspace_root};

fn script(name: &str) -> PathBuf {
    workspace_root().join("tests/workloads").join(name)
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

/// Runs a workload in `dir`, which it sees at the same place as every other run of this sandbox.
#[track_caller]
fn run(sandbox: &Sandbox, workload: &str, dir: &Path) {
    fs::create_dir(dir).unwrap();
    let place = sandbox.dir.path().join("place");
    if !place.exists() {
        fs::create_dir(&place).unwrap();
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec"])
        .arg("mount --bind \"$1\" \"$2\"; cd \"$2\"; exec bash -euo pipefail \"$3\" \"$4\"")
        .arg("sh")
        .arg(dir)
        .arg(&place)
        .arg(script(workload))
        .arg(inputs(sandbox));
    succeed(command.env("TMPDIR", sandbox.dir.path()));
}

/// The inputs, made once for each sandbox.
fn inputs(sandbox: &Sandbox) -> PathBuf {
    let inputs = sandbox.dir.path().join("inputs");
    if !inputs.exists() {
        fs::create_dir(&inputs).unwrap();
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail"]).arg(script("inputs.sh"));
        succeed(command.current_dir(&inputs));
    }
    inputs
}

/// Runs one workload on both, compares, commits, compares.
fn compare(workload: &str, times: Times, leave_out: &[&str]) {
    let Some(sandbox) = Sandbox::mounted() else {
        return;
    };
    if skip_unless(is_root(), "root, for mount namespaces") {
        return;
    }
    let (plain, mounted) = (sandbox.dir.path().join("plain"), sandbox.root().join("w"));
    run(&sandbox, workload, &plain);
    run(&sandbox, workload, &mounted);
    trees::assert_same(&mounted, &plain, times, leave_out);
    sandbox.ok(["commit", REPO]);
    let times = match times {
        Times::Equal => Times::Seconds,
        other => other,
    };
    trees::assert_same(&mounted, &plain, times, leave_out);
    client::assert_same(&served(&sandbox), &mounted, &["--below", "/w"]);
    sandbox.check();
}

fn served(sandbox: &Sandbox) -> String {
    let status = sandbox.json(["status", REPO]);
    let url = status["repositories"][0]["url"].as_str();
    url.expect("the repository is served").to_owned()
}

#[test]
fn cp_a() {
    compare("cp.sh", Times::Equal, &[]);
}

#[test]
fn tar_x() {
    compare("tar.sh", Times::Equal, &[]);
}

#[test]
fn rsync_twice() {
    compare("rsync.sh", Times::Equal, &[]);
}

#[test]
fn git_clone_and_fsck() {
    // the index keeps inode numbers and times of its own run
    let own = ["clone/.git/index", "clone/.git/logs"];
    compare("git.sh", Times::Own, &own);
}

#[test]
fn configure_make_install() {
    compare("make.sh", Times::Own, &[]);
}

#[test]
fn cargo_build() {
    compare("cargo.sh", Times::Own, &[]);
}

#[test]
fn venv_and_pip_install() {
    compare("pip.sh", Times::Own, &[]);
}

#[test]
fn compileall() {
    compare("compileall.sh", Times::Own, &[]);
}

#[test]
fn editors() {
    compare("editors.sh", Times::Own, &[]);
}

#[test]
fn short_lived_files() {
    compare("temporary.sh", Times::Own, &[]);
}

/// A nightly `rsync -a --delete` of an unchanged tree, with a dirtab and hard links in it, transfers
/// nothing and makes no revision.
#[test]
fn nightly_rsync_makes_no_revision() {
    let Some(mut sandbox) = Sandbox::mounted() else {
        return;
    };
    let inputs = inputs(&sandbox);
    fs::write(inputs.join("tree/.cvmfsdirtab"), "/*\n").unwrap();
    let nightly = |sandbox: &Sandbox| {
        let mut rsync = Command::new("rsync");
        rsync
            .args(["-aHAX", "--delete", "--itemize-changes"])
            .arg(format!("{}/", inputs.join("tree").display()))
            .arg(format!("{}/", sandbox.root().display()));
        let sent = succeed(&mut rsync);
        (sent, sandbox.json(["commit", REPO]))
    };
    let (sent, first) = nightly(&sandbox);
    assert!(sent.lines().count() > 100, "{sent}");
    for night in 0..3 {
        if night == 2 {
            sandbox.unmount();
            sandbox.mount();
        }
        let (sent, outcome) = nightly(&sandbox);
        // the markers that the dirtab made are not in the source, and their removal is no change
        let sent: Vec<&str> = sent
            .lines()
            .filter(|line| !line.contains(".cvmfscatalog"))
            .collect();
        assert!(sent.is_empty(), "night {night}: {sent:?}");
        assert_eq!(outcome["revision"], first["revision"], "night {night}");
    }
    sandbox.check();
}
