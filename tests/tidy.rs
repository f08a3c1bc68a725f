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
        // the second is a filesystem for tests, which is no part of the program
        ("fuser::", &["fsimpl/src/fuse", "tests/support/layer"][..]),
        ("flate2::", &["formats/src/compress"]),
        ("aws_sdk_s3::", &["store/src/s3"]),
    ] {
        for room in [
            "src",
            "tests",
            "formats/src",
            "store/src",
            "fsimpl/src",
            "fsimpl/tests",
            "commit/src",
            "receiver/src",
        ] {
            for file in sources(&root.join(room)) {
                let relative = file
                    .strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                if only.iter().any(|only| relative.starts_with(only)) || relative == "tests/tidy.rs"
                {
                    continue;
                }
                let text = std::fs::read_to_string(&file).unwrap();
                let mut code = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                assert!(
                    code.all(|line| !line.contains(word)),
                    "{relative} names {word}; only {only:?} may"
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

/// Where the tests of a room of docs/semantics.md stand.
fn room_of_tests(room: &str) -> PathBuf {
    let below = match room.split_once('/') {
        Some(("mount", file)) => format!("fsimpl/tests/mount/{file}.rs"),
        Some((room @ ("resources" | "beside"), file)) => format!("tests/{room}/{file}.rs"),
        Some((crate_, file)) => format!("{crate_}/tests/{file}.rs"),
        None => format!("tests/{room}.rs"),
    };
    workspace_root().join(below)
}

#[test]
fn the_semantics_name_tests_that_exist() {
    let text = std::fs::read_to_string(workspace_root().join("docs/semantics.md")).unwrap();
    let mut named = 0;
    for held in text.split("*(").skip(1) {
        let held = held.split(")*").next().unwrap();
        for part in held.split(';') {
            let Some((room, tests)) = part.split_once(':') else {
                continue;
            };
            let room = room.split_whitespace().last().unwrap();
            let file = room_of_tests(room);
            let source = std::fs::read_to_string(&file)
                .unwrap_or_else(|e| panic!("{room}: {}: {e}", file.display()));
            // a name is one word; the rest is prose
            for test in tests.split(',').map(str::trim).filter(|t| !t.contains(' ')) {
                assert!(
                    source.contains(&format!("fn {test}(")),
                    "{room} has no test {test}"
                );
                named += 1;
            }
        }
    }
    assert!(
        named > 50,
        "only {named} tests are found in docs/semantics.md"
    );
}

/// A promise without a test is a wish. Tables belong to the paragraph before them.
#[test]
fn every_paragraph_of_the_semantics_heads_a_test() {
    let text = std::fs::read_to_string(workspace_root().join("docs/semantics.md")).unwrap();
    let promises = text.split("\n## ").skip(1);
    // what is known not to hold has no test that it does
    for section in promises.filter(|section| !section.starts_with("Known gaps")) {
        for paragraph in section.split("\n\n").skip(1) {
            let is_text = !paragraph.starts_with(['#', '|']) && !paragraph.trim().is_empty();
            assert!(!is_text || paragraph.contains("*("), "no test: {paragraph}");
        }
    }
}

/// The fuzzers build some of the program's modules as their own; one that these come to use must be
/// in their lists, or no campaign can be started.
/// Errors of publishers, which a site's operator looks up.
const PUBLISHERS_ERRORS: [&str; 7] = [
    "commit/src/publish.rs",
    "commit/src/publisher.rs",
    "commit/src/objects.rs",
    "commit/src/gateway/error.rs",
    "commit/src/gateway/key.rs",
    "commit/src/cvmfs_server/error.rs",
    "store/src/s3/error.rs",
];
/// What no operator meets: a fault of ours; a sentence whose words stand in its fields.
const NOT_MET: [&str; 2] = ["the changes are for", "attempt(s"];

/// What a sentence says that names nothing: its longest run of words, without what to do, which follows
/// a semicolon.
fn words_of(sentence: &str) -> &str {
    let says = sentence.split(';').next().unwrap_or_default();
    let runs = says.split('{').map(|run| match run.split_once('}') {
        Some((_, after)) => after,
        None => run,
    });
    let runs = runs.map(|run| run.trim_matches(|c: char| " ,:()`".contains(c)));
    runs.max_by_key(|run| run.len()).unwrap_or_default()
}

/// Looked up by its beginning.
#[test]
fn every_error_of_a_publisher_is_explained() {
    let root = workspace_root();
    let doc = std::fs::read_to_string(root.join("docs/publishing.md")).unwrap();
    let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut explained = 0;
    for file in PUBLISHERS_ERRORS {
        let source = std::fs::read_to_string(root.join(file)).unwrap();
        for attribute in source.split("#[error(").skip(1) {
            let Some(sentence) = attribute.trim_start().strip_prefix('"') else {
                continue;
            };
            let mut quotes = sentence.match_indices('"');
            let end = quotes.find(|(at, _)| !sentence[..*at].ends_with('\\'));
            let words = words_of(&sentence[..end.unwrap().0]);
            let begins: String = words.chars().take(24).collect();
            let is_met = !NOT_MET.contains(&words);
            assert!(!is_met || doc.contains(&begins), "{file}: {words:?}");
            explained += usize::from(is_met);
        }
    }
    assert!(explained > 50, "{explained}");
}

#[test]
fn the_fuzzers_have_the_modules_that_theirs_use() {
    let root = workspace_root();
    for target in ["config", "control"] {
        let list = root.join(format!("fuzz/fuzz_targets/{target}.rs"));
        let list = std::fs::read_to_string(list).unwrap();
        let known: BTreeSet<&str> = list
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub mod "))
            .map(|name| name.trim_end_matches([';', '{', ' ']))
            .collect();
        assert!(known.contains("report"), "{known:?}");
        for module in &known {
            for used in modules_used_by(&root.join("src"), module) {
                assert!(known.contains(&*used), "{target}: {module} uses {used}");
            }
        }
    }
}

/// The program's modules that one names, but for its tests.
fn modules_used_by(src: &Path, module: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let below = walkdir::WalkDir::new(src.join(module)).into_iter();
    let files = below.filter_map(Result::ok).map(|e| e.into_path());
    for file in files.chain([src.join(format!("{module}.rs"))]) {
        let is_tests = file.file_stem().is_some_and(|stem| stem == "tests");
        if file.extension().is_none_or(|x| x != "rs") || !file.exists() || is_tests {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for rest in text.split("crate::").skip(1) {
            let group = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next());
            let names: Vec<&str> = match group {
                Some(group) => group.split(',').collect(),
                None => vec![rest],
            };
            let ident = |name: &str| -> String {
                let name = name.trim().chars();
                name.take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect()
            };
            used.extend(names.into_iter().map(ident).filter(|name| !name.is_empty()));
        }
    }
    used
}
