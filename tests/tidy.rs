//! The floors hold, and the tree keeps its own rules (docs/architecture.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::workspace_root;

/// What each room may use, from the bottom up.
fn floors() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let below = ["prepub-formats", "prepub-store"];
    BTreeMap::from([
        ("prepub-formats", BTreeSet::new()),
        ("prepub-store", BTreeSet::from(["prepub-formats"])),
        ("prepub-fsimpl", BTreeSet::from(below)),
        ("prepub-commit", BTreeSet::from(below)),
        ("prepub-receiver", BTreeSet::from(below)),
        (
            "prepub",
            BTreeSet::from([
                "prepub-formats",
                "prepub-store",
                "prepub-fsimpl",
                "prepub-commit",
                "prepub-receiver",
            ]),
        ),
    ])
}

#[test]
fn no_sideways_or_upward_edge() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(workspace_root())
        .output()
        .expect("cargo metadata runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let floors = floors();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let allowed = floors
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no place in the floors"));
        seen.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            // a dev-dependency is a test's own affair as long as it points down
            assert!(
                !floors.contains_key(other) || allowed.contains(other),
                "{name} must not use {other}"
            );
        }
    }
    assert_eq!(seen.len(), floors.len(), "a room is missing: {seen:?}");
}

fn sources(below: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(below)
        .into_iter()
        .map(Result::unwrap)
        .filter(|e| e.path().extension().is_some_and(|x| x == "rs"))
        .map(walkdir::DirEntry::into_path)
        .collect()
}

#[test]
fn one_file_speaks_each_protocol() {
    let root = workspace_root();
    for (word, only) in [
        ("fuser::", "fsimpl/src/fuse"),
        ("flate2::", "formats/src/compress"),
    ] {
        for room in [
            "src",
            "formats/src",
            "store/src",
            "fsimpl/src",
            "commit/src",
            "receiver/src",
        ] {
            for file in sources(&root.join(room)) {
                let relative = file
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                let text = std::fs::read_to_string(&file).unwrap();
                let code = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                assert!(
                    relative.starts_with(only) || code.clone().all(|line| !line.contains(word)),
                    "{relative} names {word}; only {only} may"
                );
            }
        }
    }
}

#[test]
fn no_forgotten_test_file() {
    let root = workspace_root();
    let main = std::fs::read_to_string(root.join("tests/main.rs")).unwrap();
    for entry in std::fs::read_dir(root.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|x| x == "rs") {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(
                stem == "main" || main.contains(&format!("mod {stem};")),
                "tests/{stem}.rs is not part of tests/main.rs"
            );
        }
    }
}
