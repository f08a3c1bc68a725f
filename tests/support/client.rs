//! The independent client (`tests/client`), built on first use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::workspace_root;

/// The built client. `scripts/test` builds it beforehand; a lone `cargo test` does it here.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let dir = workspace_root().join("tests/client");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked"])
            .current_dir(&dir)
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .expect("cargo runs");
        assert!(status.success(), "tests/client does not build");
        dir.join("target/debug/independent-client")
    })
}

/// Compares the published revision at `url` with `directory`; panics with the differences.
#[track_caller]
pub fn assert_same(url: &str, directory: &Path, more: &[&str]) {
    let output = Command::new(binary())
        .arg(url)
        .arg(directory)
        .args(more)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
