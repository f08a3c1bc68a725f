//! The command line without a mount: what it prints, what it refuses, and with which exit code.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless};

pub mod help;

#[test]
fn man_pages_and_completions() {
    let sandbox = Sandbox::new();
    let dir = sandbox.dir.path().join("man");
    sandbox.ok(["util".as_ref(), "man".as_ref(), dir.as_os_str()]);
    for page in ["prepub.1", "prepub-commit.1", "prepub-mount.1"] {
        let text = fs::read_to_string(dir.join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = sandbox.ok(["util", "completions", shell]);
        assert!(
            script.contains("prepub") && script.contains("rollback"),
            "{shell}"
        );
    }
}

#[test]
fn a_repository_from_birth_to_death() {
    let sandbox = Sandbox::new();
    let made = sandbox.json(["mkfs", REPO]);
    assert_eq!(made["repo"], REPO);
    assert!(sandbox.storage().join(".cvmfspublished").exists());
    assert!(
        fs::read_to_string(made["public_key"].as_str().unwrap())
            .unwrap()
            .contains("PUBLIC KEY")
    );

    let again = sandbox.fails(1, ["mkfs", REPO]);
    assert!(again.contains(REPO) && again.contains("exists"), "{again}");

    let status = sandbox.json(["status"]);
    let repository = &status["repositories"][0];
    assert!(
        status["daemon"].is_null() && repository["url"].is_null(),
        "{status}"
    );
    assert_eq!(
        repository["base_revision"],
        repository["published_revision"]
    );
    assert!(repository["whitelist_days"].as_f64().unwrap() > 29.0);
    assert_eq!(repository["staged"]["added"], 0);

    sandbox.check();
    let resigned = sandbox.json(["resign", REPO, "--days", "60"]);
    assert!(
        resigned["whitelist_days"].as_f64().unwrap() > 59.0,
        "{resigned}"
    );
    sandbox.check();

    let refused = sandbox.fails(2, ["rmfs", REPO]);
    assert!(refused.contains("--force"), "{refused}");
    assert!(sandbox.storage().exists());
    sandbox.ok(["rmfs", REPO, "--force"]);
    assert!(!sandbox.storage().join(".cvmfspublished").exists());
    assert_eq!(
        sandbox.json(["status"])["repositories"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    sandbox.ok(["mkfs", REPO]);
}

#[test]
fn names_that_cannot_be() {
    let sandbox = Sandbox::new();
    for name in [
        "nodots",
        "a/b.c",
        "",
        ".a.b",
        "a b.c",
        &format!("{}.org", "x".repeat(80)),
    ] {
        sandbox.fails(2, ["mkfs", name]);
    }
    assert!(
        !sandbox.state().exists(),
        "a refused name leaves nothing behind"
    );
}

#[test]
fn storage_elsewhere_and_other_algorithms() {
    let sandbox = Sandbox::new();
    let storage = sandbox.dir.path().join("elsewhere");
    sandbox.ok([
        "mkfs".as_ref(),
        REPO.as_ref(),
        "--storage".as_ref(),
        storage.as_os_str(),
        "--hash".as_ref(),
        "shake128".as_ref(),
        "--compression".as_ref(),
        "none".as_ref(),
    ]);
    assert!(storage.join(".cvmfspublished").exists());
    sandbox.check();
    let occupied = sandbox.fails(
        1,
        [
            "mkfs".as_ref(),
            "b.example.org".as_ref(),
            "--storage".as_ref(),
            storage.as_os_str(),
        ],
    );
    assert!(occupied.contains("not empty"), "{occupied}");
}

#[test]
fn no_state_and_foreign_directories() {
    let sandbox = Sandbox::new();
    for args in [&["status"][..], &["diff"], &["commit", REPO], &["unmount"]] {
        let text = sandbox.fails(1, args);
        assert!(
            text.contains("there is no state") && text.contains("mkfs"),
            "{text}"
        );
    }
    fs::create_dir(sandbox.state()).unwrap();
    fs::write(sandbox.state().join("thesis.tex"), "").unwrap();
    let text = sandbox.fails(2, ["mkfs", REPO]);
    assert!(text.contains("not empty"), "{text}");
}

#[test]
fn a_newer_state_is_refused_and_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let format = sandbox.state().join("format");
    assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    fs::write(&format, "2\n").unwrap();
    for args in [
        &["status"][..],
        &["mkfs", "b.example.org"],
        &["mount"],
        &["check", REPO],
    ] {
        let text = sandbox.fails(1, args);
        assert!(
            text.contains("format 2") && text.contains("newer prepub"),
            "{text}"
        );
    }
    fs::write(&format, "1\n").unwrap();
    sandbox.check();
}

#[test]
fn unknown_repositories_and_outside_targets() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    for args in [
        &["commit", "unknown.example.org"][..],
        &["status", "unknown.example.org"],
        &["check", "unknown.example.org"],
        &["tag", "list", "unknown.example.org"],
        &["rollback", "unknown.example.org"],
        &["abort", "/etc"],
        &["diff", "/etc"],
    ] {
        let text = sandbox.fails(2, args);
        assert!(text.contains(REPO), "it says what there is: {text}");
    }
    let missing = sandbox.fails(1, ["commit", &format!("{REPO}/no/such/path")]);
    assert!(missing.contains("no/such/path"), "{missing}");
    // no clock can count so far
    let nothing = sandbox.json(["commit", REPO, "--wait", "18446744073709551615"]);
    assert_eq!(nothing["published"], false);
    let bad = sandbox.fails(2, ["commit", REPO, "--tag", "a b"]);
    assert!(bad.contains("a b"), "{bad}");
}

#[test]
fn failures_are_json_too() {
    let sandbox = Sandbox::new();
    let output = sandbox.run(["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["error"]["exit_code"], 1);
    assert_eq!(object["error"]["kind"], "not_found");
    assert!(object["error"]["hint"].is_string());
}

#[test]
fn tags_without_a_daemon() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    sandbox.ok(["tag", "add", REPO, "v1", "-m", "the first"]);
    let tags = sandbox.json(["tag", "list", REPO]);
    let names: Vec<&str> = tags["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"v1"), "{names:?}");
    let taken = sandbox.fails(1, ["tag", "add", REPO, "v1"]);
    assert!(taken.contains("v1"), "{taken}");
    sandbox.fails(2, ["tag", "add", REPO, "with space"]);
    sandbox.fails(1, ["tag", "remove", REPO, "v2"]);
    sandbox.ok(["tag", "remove", REPO, "v1"]);
    sandbox.check();
}

#[test]
fn configuration_with_a_wrong_key() {
    let sandbox = Sandbox::new();
    let file = sandbox.dir.path().join("config.toml");
    fs::write(&file, "[stage]\n\nsettel = \"1s\"\n").unwrap();
    let config = [
        "--config".as_ref(),
        file.as_os_str(),
        "config".as_ref(),
        "check".as_ref(),
    ];
    let text = sandbox.fails(2, config);
    assert!(
        text.contains("line 3") && text.contains("did you mean `settle`?"),
        "{text}"
    );
    fs::write(&file, "[stage]\nquota = 5\n").unwrap();
    let text = sandbox.fails(2, config);
    assert!(
        text.contains("line 2") && text.contains("no unit"),
        "{text}"
    );
    fs::write(&file, "[stage]\nquota = \"5GiB\"\n").unwrap();
    assert!(sandbox.ok(config).contains("is fine"));
    let show = [
        "--config".as_ref(),
        file.as_os_str(),
        "config".as_ref(),
        "show".as_ref(),
    ];
    let shown = sandbox.ok(show);
    assert!(
        shown.contains("quota = \"5GiB\"") && shown.contains("listen"),
        "{shown}"
    );
    // what is shown can be used
    fs::write(&file, shown).unwrap();
    sandbox.ok(config);
}

#[test]
fn an_expired_whitelist_stops_commits_and_not_aborts() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let file = sandbox.dir.path().join("config.toml");
    // more than any whitelist that mkfs makes: as good as expired
    fs::write(&file, "[commit]\nwhitelist_min = \"40d\"\n").unwrap();
    let config = ["--config".as_ref(), file.as_os_str()];
    let refused = sandbox.fails(
        1,
        config
            .into_iter()
            .chain(["commit", REPO].map(AsRef::as_ref)),
    );
    assert!(refused.contains("prepub resign"), "{refused}");
    sandbox.ok(config.into_iter().chain(["abort", REPO].map(AsRef::as_ref)));
}

#[test]
fn a_damaged_manifest_is_named() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let manifest = sandbox.storage().join(".cvmfspublished");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    let text = sandbox.fails(1, ["commit", REPO]);
    assert!(text.contains(".cvmfspublished"), "{text}");
    let status = sandbox.json(["status"]);
    let errors = status["repositories"][0]["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{status}");
    assert_eq!(sandbox.run(["check", REPO]).status.code(), Some(1));
    assert_eq!(sandbox.run(["doctor"]).status.code(), Some(1));
    fs::write(&manifest, &whole).unwrap();
    sandbox.check();
}

#[test]
fn two_commands_at_once_take_turns() {
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let children: Vec<_> = (0..4)
        .map(|_| {
            sandbox
                .command(["status"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn mount_points_that_cannot_be() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let missing = sandbox.dir.path().join("missing");
    let text = sandbox.fails(2, ["mount".as_ref(), missing.as_os_str()]);
    assert!(text.contains("does not exist"), "{text}");
    let full = sandbox.dir.path().join("full");
    fs::create_dir_all(full.join("x")).unwrap();
    let text = sandbox.fails(2, ["mount".as_ref(), full.as_os_str()]);
    assert!(text.contains("not empty"), "{text}");
    let file = sandbox.dir.path().join("file");
    fs::write(&file, "").unwrap();
    sandbox.fails(2, ["mount".as_ref(), file.as_os_str()]);
}

#[test]
fn mount_in_the_background_and_unmount() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let text = sandbox.ok(["mount".as_ref(), sandbox.mountpoint().as_os_str()]);
    assert!(text.contains("mounted on"), "{text}");
    assert!(sandbox.root().is_dir());
    let status = sandbox.json(["status"]);
    assert!(status["daemon"]["pid"].is_number(), "{status}");
    // made while mounted, it is there at once
    sandbox.ok(["mkfs", "later.example.org"]);
    fs::write(sandbox.mountpoint().join("later.example.org/file"), "x").unwrap();
    let busy = fs::File::create(sandbox.root().join("open")).unwrap();
    let refused = sandbox.fails(5, ["unmount"]);
    let which = sandbox.root().join("open").display().to_string();
    let which = format!("{which} (process {}", std::process::id());
    assert!(refused.contains(&which), "{refused}");
    sandbox.fails(5, ["commit", REPO, "--open-files", "fail"]);
    let skipped = sandbox.json(["commit", REPO, "--open-files", "skip"]);
    assert_eq!(skipped["skipped"][0]["path"], "/open");
    drop(busy);
    let other = sandbox.dir.path().join("other");
    fs::create_dir(&other).unwrap();
    sandbox.fails(2, ["unmount".as_ref(), other.as_os_str()]);
    let unmounted = sandbox.json(["unmount"]);
    assert_eq!(
        unmounted["kept"].as_array().unwrap().len(),
        2,
        "{unmounted}"
    );
    // the lock is free the moment unmount returns
    assert_eq!(
        sandbox.json(["status"])["repositories"][1]["staged"]["added"],
        1
    );
    let nothing = sandbox.ok(["unmount"]);
    assert!(nothing.contains("nothing was mounted"), "{nothing}");
}

#[test]
fn one_broken_repository_leaves_the_others_mounted() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    sandbox.ok(["mkfs", "broken.example.org"]);
    let manifest = sandbox
        .state()
        .join("srv/cvmfs/broken.example.org/.cvmfspublished");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, b"not a manifest").unwrap();
    sandbox.mount();
    fs::write(sandbox.root().join("file"), "x").unwrap();
    sandbox.ok(["commit", REPO]);
    let refused = sandbox.fails(1, ["commit", "broken.example.org"]);
    assert!(refused.contains(".cvmfspublished"), "{refused}");
    let status = sandbox.json(["status"]);
    assert_eq!(status["repositories"][0]["repo"], "broken.example.org");
    assert!(
        !status["repositories"][0]["errors"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert!(
        status["repositories"][1]["errors"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    // mended, it is there without a new mount
    fs::write(&manifest, &whole).unwrap();
    sandbox.ok(["status"]);
    assert!(sandbox.mountpoint().join("broken.example.org").is_dir());
    sandbox.unmount();
}

/// Another user reaches the socket through its group; looking is free, changing is not.
#[test]
fn others_may_look_and_not_touch() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    if skip_unless(can_mount() && is_root(), "/dev/fuse and root") {
        return;
    }
    let mut sandbox = Sandbox::new();
    fs::set_permissions(sandbox.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // a place that every user can run it from
    let program = sandbox.dir.path().join("prepub");
    fs::copy(env!("CARGO_BIN_EXE_prepub"), &program).unwrap();
    let config = sandbox.dir.path().join("config.toml");
    fs::write(
        &config,
        format!(
            "[control]\ngroup = \"{NOBODY}\"\n[[repository.\"{REPO}\".allow]]\npath = \"/sw\"\nusers = [\"{NOBODY}\"]\nmay = [\"commit\"]\n"
        ),
    )
    .unwrap();
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount_with(&[("PREPUB_CONFIG", config.to_str().unwrap())]);
    fs::create_dir(sandbox.root().join("sw")).unwrap();
    fs::write(sandbox.root().join("sw/file"), "x").unwrap();
    fs::write(sandbox.root().join("other"), "x").unwrap();
    let nobody = |args: &[&str]| {
        let output = Command::new(&program)
            .arg("--state-dir")
            .arg(sandbox.state())
            .args(args)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    for args in [
        &["status"][..],
        &["diff", REPO],
        &["tag", "list", REPO],
        &["check", REPO],
    ] {
        assert_eq!(nobody(args), (Some(0), String::new()), "{args:?}");
    }
    for args in [
        &["commit", REPO][..],
        &["commit", &format!("{REPO}/other")],
        &["commit", &format!("{REPO}/sw"), "--tag", "mine"],
        &["abort", &format!("{REPO}/sw")],
        &["rollback", REPO],
        &["mkfs", "mine.example.org"],
        &["unmount", "--discard"],
    ] {
        let (code, text) = nobody(args);
        assert_eq!(code, Some(1), "{args:?}: {text}");
        assert!(text.contains("65534"), "{args:?}: {text}");
    }
    assert_eq!(nobody(&["commit", &format!("{REPO}/sw")]).0, Some(0));
    assert!(sandbox.ok(["diff", REPO]).contains("/other"));
    sandbox.unmount();
}

#[test]
fn a_daemon_that_hangs_is_exit_code_7() {
    use rustix::process::{Pid, Signal, kill_process};
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let pid = Pid::from_raw(sandbox.daemon_pid().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let text = sandbox.fails(7, ["status"]);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(text.contains("does not answer"), "{text}");
    sandbox.ok(["status"]);
    kill_process(pid, Signal::TERM).unwrap();
    assert!(sandbox.wait_for_exit().success(), "{}", sandbox.log());
    assert!(
        fs::read_dir(sandbox.mountpoint()).unwrap().next().is_none(),
        "SIGTERM unmounts"
    );
}
