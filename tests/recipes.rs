//! Software that is built in place: configured with a prefix on the mount, installed straight into it, and
//! published by packaging/prepub-build, as root and as an ordinary user; what is left of a build that fails;
//! and the jobs for GitLab CI that ship, line by line.

mod helper;
mod job;

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::support::shell::{Shell, Who, have};
use crate::support::{REPO, client, skip_unless, workspace_root};

const TOOLS: [&str; 6] = [
    "cmake",
    "make",
    "cc",
    "pkg-config",
    "autoreconf",
    "automake",
];

/// A mounted repository, and what builds the project of tests/data/greeting.
fn world(who: Who) -> Option<Shell> {
    if skip_unless(
        have(&TOOLS),
        "cmake, make, cc, pkg-config, autoconf, automake",
    ) {
        return None;
    }
    let shell = Shell::of(who)?;
    shell.ok(&format!("prepub mkfs {REPO}\nprepub mount \"$MOUNT\""));
    Some(shell)
}

/// The project's source, in a version.
fn unpacked(version: &str) -> String {
    let source = workspace_root().join("tests/data/greeting");
    let source = source.display();
    format!("cp -r {source} greeting-{version}\necho {version} >greeting-{version}/VERSION\n")
}

/// Out of its source tree, with CMake.
fn by_cmake(version: &str) -> String {
    format!(
        "{}cmake -S greeting-{version} -B build-{version} -DCMAKE_INSTALL_PREFIX=\"$MOUNT/{REPO}/greeting/{version}\" >&2
         cmake --build build-{version} >&2
         prepub-build {REPO} greeting/{version} --tag greeting-{version} --json -- sh -ec 'cmake --install build-{version} >&2'",
        unpacked(version)
    )
}

/// In its source tree, which lies on the mount, with the autotools; what is no part of the software goes.
fn by_autotools(version: &str) -> String {
    format!(
        "{}prepub-build {REPO} greeting/{version} --tag greeting-{version} --json -- sh -ec '
             mv greeting-{version} \"$PREPUB_PREFIX/src\"
             cd \"$PREPUB_PREFIX/src\"
             {{ autoreconf --install && ./configure --prefix=\"$PREPUB_PREFIX\" && make install; }} >&2
             cd ..
             rm -r src'",
        unpacked(version)
    )
}

fn published(text: &str) -> Value {
    let committed: Value = serde_json::from_str(text).expect("one JSON object");
    assert_eq!(committed["published"], true, "{committed}");
    committed
}

/// It runs from where it is, and says of itself that it is there.
fn works(shell: &Shell, version: &str) {
    let at = format!("\"$MOUNT/{REPO}/greeting/{version}\"");
    let said = shell.ok(&format!("{at}/bin/greet"));
    assert!(
        said.starts_with(&format!("greeting {version}\ngood morning\n")),
        "{said}"
    );
    let asked = shell.ok(&format!(
        "PKG_CONFIG_PATH={at}/lib/pkgconfig:{at}/lib64/pkgconfig pkg-config --variable=prefix greeting\necho {at}"
    ));
    let mut lines = asked.lines();
    assert_eq!(lines.next(), lines.next());
}

#[track_caller]
fn nothing_is_staged(shell: &Shell) {
    let status = shell.sandbox.json(["status"]);
    let staged = &status["repositories"][0]["staged"];
    for what in ["added", "modified", "removed", "renamed"] {
        assert_eq!(staged[what], 0, "{staged}");
    }
}

/// What is published is what the mount shows, as a client sees it that shares no code with us.
fn read_back(shell: &Shell) {
    let status = shell.sandbox.json(["status"]);
    let url = status["repositories"][0]["url"]
        .as_str()
        .unwrap()
        .to_owned();
    shell.ok(&format!("cp -a \"$MOUNT/{REPO}/greeting\" copy"));
    // the directory above has the time of the next build by now
    for version in fs::read_dir(shell.home().join("copy")).unwrap() {
        let copy = version.unwrap().path();
        let below = format!("/greeting/{}", copy.file_name().unwrap().display());
        client::assert_same(&url, &copy, &["--below", &below]);
    }
    shell.sandbox.check();
}

fn a_project_in_three_versions(who: Who) {
    let Some(shell) = world(who) else {
        return;
    };
    let first = published(&shell.ok(&by_cmake("1.0")));
    assert_eq!(first["tag"], "greeting-1.0");
    assert_eq!(first["objects_reused"], 0, "{first}");
    works(&shell, "1.0");
    // header and words are the same bytes
    let second = published(&shell.ok(&by_cmake("2.0")));
    assert!(second["objects_reused"].as_u64().unwrap() >= 2, "{second}");
    works(&shell, "2.0");
    let third = published(&shell.ok(&by_autotools("3.0")));
    assert!(third["objects_reused"].as_u64().unwrap() >= 2, "{third}");
    works(&shell, "3.0");
    works(&shell, "1.0");
    nothing_is_staged(&shell);
    let entries = shell.ok(&format!("ls -A \"$MOUNT/{REPO}/greeting/3.0\""));
    assert_eq!(entries, "bin\ninclude\nlib\nshare\n", "no sources");
    read_back(&shell);
}

#[test]
fn a_project_in_three_versions_as_root() {
    a_project_in_three_versions(Who::Root);
}

#[test]
fn a_project_in_three_versions_as_an_ordinary_user() {
    a_project_in_three_versions(Who::User);
}

fn a_build_that_fails_leaves_nothing(who: Who) {
    let Some(shell) = world(who) else {
        return;
    };
    published(&shell.ok(&by_cmake("1.0")));
    let before = shell.sandbox.json(["status"])["repositories"][0].clone();
    // it installs, and then something goes wrong; the directories above are new, too
    let broken = by_cmake("2.0")
        .replace("greeting/2.0", "broken/by/2.0")
        .replace(">&2'", ">&2; exit 3'");
    let said = shell.fails(3, &broken);
    assert!(said.contains("the build failed with exit code 3"), "{said}");
    // it does not compile
    let source = unpacked("2.1");
    let said = shell.fails(
        2,
        &format!(
            "{source}echo '#error broken' >>greeting-2.1/greet.c
             prepub-build {REPO} greeting/2.1 -- sh -ec '
                 cp -r greeting-2.1 \"$PREPUB_PREFIX/src\"; cd \"$PREPUB_PREFIX/src\"
                 autoreconf -i && ./configure --prefix=\"$PREPUB_PREFIX\" && make install'"
        ),
    );
    assert!(said.contains("#error broken"), "{said}");
    nothing_is_staged(&shell);
    let names = shell.ok(&format!("cd \"$MOUNT/{REPO}\" && echo *; ls greeting"));
    assert_eq!(names, "greeting\n1.0\n");
    let after = shell.sandbox.json(["status"])["repositories"][0].clone();
    assert_eq!(after["published_revision"], before["published_revision"]);
    works(&shell, "1.0");
}

#[test]
fn a_build_that_fails_leaves_nothing_as_root() {
    a_build_that_fails_leaves_nothing(Who::Root);
}

#[test]
fn a_build_that_fails_leaves_nothing_as_an_ordinary_user() {
    a_build_that_fails_leaves_nothing(Who::User);
}

/// Each waits, in the middle of its installation, until the other is there, too.
fn two_builds_at_the_same_time(who: Who) {
    let Some(shell) = world(who) else {
        return;
    };
    let meeting = |mine: &str, other: &str| {
        let meet = format!("touch at-{mine}; while [ ! -e at-{other} ]; do sleep 0.02; done");
        by_cmake(mine).replace("sh -ec '", &format!("sh -ec '{meet}; "))
    };
    let children = [("1.0", "2.0"), ("2.0", "1.0")].map(|(mine, other)| {
        let mut command = shell.command(&meeting(mine, other));
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    let mut revisions = children.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let committed = published(&String::from_utf8(output.stdout).unwrap());
        committed["revision"].as_u64().unwrap()
    });
    revisions.sort_unstable();
    assert_eq!(revisions, [2, 3], "each is a revision of its own");
    works(&shell, "1.0");
    works(&shell, "2.0");
    nothing_is_staged(&shell);
    read_back(&shell);
}

#[test]
fn two_builds_at_the_same_time_as_root() {
    two_builds_at_the_same_time(Who::Root);
}

#[test]
fn two_builds_at_the_same_time_as_an_ordinary_user() {
    two_builds_at_the_same_time(Who::User);
}

/// True, with a line on stderr, where `--at` cannot work.
fn no_namespaces(shell: &Shell) -> bool {
    let tried = shell.run("unshare --user --map-root-user --mount true");
    skip_unless(tried.status.success(), "user namespaces for everybody")
}

fn clients_prefix(who: Who) {
    let Some(shell) = world(who) else {
        return;
    };
    if no_namespaces(&shell) {
        return;
    }
    // what is /cvmfs elsewhere
    let seen = "cvmfs";
    shell.ok(&format!(
        "mkdir {seen}\n{}cmake -S greeting-1.0 -B build -DCMAKE_INSTALL_PREFIX=\"$PWD/{seen}/{REPO}/greeting/1.0\"
         cmake --build build
         prepub-build {REPO} greeting/1.0 --at \"$PWD/{seen}\" -- sh -ec '
             cmake --install build; [ \"$PREPUB_PREFIX\" = \"$PWD/{seen}/{REPO}/greeting/1.0\" ]; id -u >who'",
        unpacked("1.0")
    ));
    assert_eq!(
        shell.ok("cat who"),
        shell.ok("id -u"),
        "who it is to itself is who it was"
    );
    assert_eq!(
        shell.ok(&format!("ls -A {seen}")),
        "",
        "nobody else sees it there"
    );
    let written = shell.ok(&format!(
        "grep ^prefix= \"$MOUNT/{REPO}/greeting/1.0/\"lib*/pkgconfig/greeting.pc"
    ));
    let theirs = shell.home().join(seen).join(REPO).join("greeting/1.0");
    assert_eq!(written, format!("prefix={}\n", theirs.display()));
    nothing_is_staged(&shell);
}

#[test]
fn a_prefix_that_clients_see_as_root() {
    clients_prefix(Who::Root);
}

#[test]
fn a_prefix_that_clients_see_as_an_ordinary_user() {
    clients_prefix(Who::User);
}

#[test]
fn the_jobs_for_gitlab_do_what_they_say() {
    let Some(shell) = world(Who::User) else {
        return;
    };
    if no_namespaces(&shell) || skip_unless(have(&["rsync"]), "rsync") {
        return;
    }
    let file = fs::read_to_string(workspace_root().join("packaging/gitlab-ci.yml")).unwrap();
    shell.ok(&format!("{}mkdir cvmfs", unpacked("1.0")));
    let home = shell.home();
    let home = home.display();
    let job = job::Job::read(&file, "publish");
    let tagged = [
        ("CI_PROJECT_NAME", "greeting"),
        ("CI_COMMIT_TAG", "1.0"),
        ("REPO", REPO),
        ("SEEN_AT", &format!("{home}/cvmfs")),
    ];
    shell.ok(&format!(
        "cd greeting-1.0\n{}",
        job.script(&tagged, &["PREPUB_STATE_DIR"])
    ));
    let tags = shell.sandbox.json(["tag", "list", REPO]).to_string();
    assert!(tags.contains("greeting-1.0"), "{tags}");

    // what stands for bits
    shell.ok("mkdir output && printf '#!/bin/sh\\necho \"$@\" >output/built\\n' >bin/bits && chmod +x bin/bits");
    let job = job::Job::read(&file, "publish-bits");
    let from_the_web = [
        ("ARCHITECTURE", "x86_64"),
        ("PLATFORM", "el9"),
        ("MOUNT", &format!("{home}/mnt")),
        ("PUBLISH_PATH", &format!("/cvmfs/{REPO}/lcg/nightly")),
        ("OUTPUT", &format!("{home}/output")),
    ];
    shell.ok(&job.script(&from_the_web, &["PREPUB_STATE_DIR"]));
    let built = shell.ok(&format!("cat \"$MOUNT/{REPO}/lcg/nightly/built\""));
    assert_eq!(built, "build --architecture x86_64 --platform el9\n");
    nothing_is_staged(&shell);
}
