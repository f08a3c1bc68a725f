//! Suites that others wrote judge the mount: the short form of `scripts/posix`.

use std::process::Command;

use crate::support::{can_mount, skip_unless, workspace_root};

fn passes(suite: &str) {
    let tool = workspace_root().join("target/tools/bin").join(suite);
    let missing = "target/tools/bin (scripts/posix --short --install)";
    if skip_unless(can_mount(), "/dev/fuse") || skip_unless(tool.exists(), missing) {
        return;
    }
    let output = Command::new(workspace_root().join("scripts/posix"))
        .args(["--short", "--binary", env!("CARGO_BIN_EXE_prepub"), suite])
        .output()
        .unwrap();
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{errors}");
}

/// As root and as somebody else, in a new directory and in a published one that was moved, written to
/// and mounted read-only.
#[test]
fn pjdfstest_passes() {
    passes("pjdfstest");
}

/// New files and published ones, with commits meanwhile.
#[test]
fn fsx_passes() {
    passes("fsx");
}
