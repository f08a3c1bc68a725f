//! What can be tried of packages and services without installing them: units as systemd judges them, the
//! daemon with no more rights than its unit leaves it, what programs ask of the system's libraries, and
//! scripts/install in an empty root. `scripts/package --check` tries the rest, on clean roots.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, workspace_root, write};

fn have(program: &str) -> bool {
    let look = Command::new("sh")
        .args(["-c", "command -v \"$0\""])
        .arg(program)
        .stdout(Stdio::null())
        .status();
    look.unwrap().success()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b));
    format!("{out}{err}")
}

fn unit(name: &str) -> PathBuf {
    workspace_root().join("packaging/systemd").join(name)
}

/// The values of a key of a unit, one line each.
fn values(unit: &Path, key: &str) -> Vec<String> {
    let text = fs::read_to_string(unit).unwrap();
    let of_key = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    text.lines().filter_map(of_key).collect()
}

#[test]
fn systemd_understands_the_units() {
    if skip_unless(have("systemd-analyze"), "systemd-analyze") {
        return;
    }
    for (manager, name) in [
        ("--system", "prepub.service"),
        ("--system", "prepub-receiver.service"),
        ("--user", "user/prepub.service"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join(unit(name).file_name().unwrap());
        // what is started must be there
        let text_of_it = fs::read_to_string(unit(name)).unwrap();
        let program = dir.path().join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let handover = workspace_root().join("packaging/handover");
        let here = text_of_it
            .replace("/usr/libexec/prepub/handover", handover.to_str().unwrap())
            .replace("/usr/bin/prepub-receiver", program.to_str().unwrap())
            .replace("/usr/bin/prepub", program.to_str().unwrap());
        fs::write(&copy, here).unwrap();
        let output = Command::new("systemd-analyze")
            .args([manager, "--man=no", "verify"])
            .arg(&copy)
            .env("XDG_RUNTIME_DIR", dir.path())
            .output()
            .unwrap();
        let said = text(&output);
        let about_it = said
            .lines()
            .filter(|l| l.contains(dir.path().to_str().unwrap()));
        assert_eq!(about_it.collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(output.status.success(), "{name}: {said}");
    }
}

#[test]
fn units_are_as_hardened_as_promised() {
    if skip_unless(have("systemd-analyze"), "systemd-analyze") {
        return;
    }
    for (name, threshold) in [("prepub.service", "45"), ("prepub-receiver.service", "20")] {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold", threshold])
            .arg(unit(name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
}

/// [systemd, `src/core/execute.c:exec_needs_mount_namespace`]
#[test]
fn no_option_hides_the_mount() {
    let text = fs::read_to_string(unit("prepub.service")).unwrap();
    let set: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key)
        .collect();
    for key in [
        "RootDirectory",
        "RootImage",
        "ReadWritePaths",
        "ReadOnlyPaths",
        "InaccessiblePaths",
        "ExecPaths",
        "NoExecPaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "MountImages",
        "ExtensionImages",
        "ExtensionDirectories",
        "MountFlags",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateIPC",
        "PrivateUsers",
        "ProtectSystem",
        "ProtectHome",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "ProtectProc",
        "ProcSubset",
        "DynamicUser",
        "LogNamespace",
    ] {
        assert!(!set.contains(key), "{key}= hides /prepub from its users");
    }
    assert!(set.contains("CapabilityBoundingSet"), "{set:?}");
}

/// A mount, a write, a commit and the end, with the capabilities that the unit leaves.
#[test]
fn the_daemon_can_work_with_what_its_unit_leaves_it() {
    let able = can_mount() && is_root() && have("setpriv");
    if skip_unless(able, "root, /dev/fuse and setpriv") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let words = values(&unit("prepub.service"), "CapabilityBoundingSet").join(" ");
    let kept = words
        .split_whitespace()
        .map(|word| word.strip_prefix("CAP_").unwrap().to_lowercase());
    let kept: String = kept.map(|name| format!(",+{name}")).collect();
    let daemon = sandbox.command(["mount"]);
    let status = Command::new("setpriv")
        .args(["--no-new-privs", "--inh-caps=-all"])
        .arg(format!("--bounding-set=-all{kept}"))
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .arg(sandbox.mountpoint())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{}", sandbox.log());
    let bounds = fs::read_to_string(format!("/proc/{}/status", daemon_pid(&sandbox))).unwrap();
    let bounds = bounds
        .lines()
        .find_map(|l| l.strip_prefix("CapBnd:"))
        .unwrap();
    let bounds = u64::from_str_radix(bounds.trim(), 16).unwrap().count_ones();
    assert_eq!(bounds as usize, words.split_whitespace().count());

    let root = sandbox.mountpoint().join(REPO);
    let file = root.join("file");
    write(&file, b"theirs");
    std::os::unix::fs::chown(&file, Some(4711), Some(4712)).unwrap();
    // its mode is a journal's affair
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    xattr::set(&file, "user.key", b"value").unwrap();
    sandbox.ok(["commit", REPO]);
    sandbox.ok(["unmount"]);
    sandbox.check();
}

fn daemon_pid(sandbox: &Sandbox) -> u64 {
    let info = fs::read(sandbox.state().join("daemon.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    info["pid"].as_u64().unwrap()
}

/// Versions of a library's symbols that a program needs, and that are above `most`.
fn newer(program: &Path, library: &str, most: &[u32]) -> Vec<String> {
    let output = Command::new("readelf")
        .args(["-W", "--dyn-syms"])
        .arg(program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let wanted = said.lines().filter(|line| line.contains(" UND "));
    let versions = wanted.filter_map(|line| line.rsplit_once(&format!("@{library}_")));
    let mut seen = 0;
    let mut out = Vec::new();
    for (symbol, version) in versions {
        seen += 1;
        let version = version.split_whitespace().next().unwrap();
        let numbers = version.split('.').map(|n| n.parse().unwrap());
        if numbers.collect::<Vec<u32>>().as_slice() > most {
            out.push(format!("{symbol} {version}"));
        }
    }
    assert!(seen > 0, "{} needs nothing of {library}", program.display());
    out
}

/// Enterprise Linux 9 has glibc 2.34 and symbols of OpenSSL up to 3.0.0; 10, and Debian 12 and 13, have more.
#[test]
fn no_program_needs_newer_libraries_than_the_oldest_system_has() {
    if skip_unless(have("readelf"), "readelf") {
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_prepub"));
    let programs = [
        program.to_owned(),
        program.with_file_name("prepub-receiver"),
    ];
    for program in programs.iter().filter(|program| program.exists()) {
        for (library, most) in [("GLIBC", &[2, 34][..]), ("OPENSSL", &[3, 0, 0])] {
            let newer = newer(program, library, most);
            assert!(newer.is_empty(), "{}: {newer:?}", program.display());
        }
    }
}

/// scripts/install in a root of its own.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn install(&self, args: &[&str]) -> (Option<i32>, Vec<String>) {
        let output = Command::new(workspace_root().join("scripts/install"))
            .args(args)
            .arg("--root")
            .arg(self.0.path())
            .arg("--binaries")
            .arg(Path::new(env!("CARGO_BIN_EXE_prepub")).parent().unwrap())
            .output()
            .unwrap();
        let lines = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        (output.status.code(), lines)
    }

    /// Files and directories, with what is in them.
    fn tree(&self) -> BTreeSet<(PathBuf, Vec<u8>)> {
        let entries = walkdir::WalkDir::new(self.0.path())
            .into_iter()
            .map(Result::unwrap);
        let content = |path: &Path| fs::read(path).unwrap_or_default();
        entries
            .map(|e| (e.path().to_owned(), content(e.path())))
            .collect()
    }
}

#[test]
fn install_does_what_it_says_and_once() {
    let able = is_root() && have("systemd-sysusers") && have("systemd-tmpfiles");
    if skip_unless(able, "root, systemd-sysusers and systemd-tmpfiles") {
        return;
    }
    let root = Root::new();
    let empty = root.tree();
    let (code, previewed) = root.install(&["--dry-run"]);
    assert_eq!(code, Some(0), "{previewed:?}");
    assert_eq!(root.tree(), empty, "a preview changes nothing");

    let (code, mut said) = root.install(&[]);
    assert_eq!(code, Some(0), "{said:?}");
    let next = said.pop().unwrap();
    assert!(next.starts_with("next: "), "{next}");
    assert_eq!(said, previewed);
    // every file it names is there, and every file that is there is named
    for (path, _) in root
        .tree()
        .difference(&empty)
        .filter(|(path, _)| path.is_file())
    {
        let shown = path.to_str().unwrap();
        let by_name = said
            .iter()
            .any(|line| line.ends_with(shown) || line.contains(&format!("{shown} ")));
        let is_account = path.parent().unwrap().ends_with("etc");
        assert!(by_name || is_account, "{shown} in {said:?}");
    }
    let program = root.at("usr/local/bin/prepub");
    let unit = fs::read_to_string(root.at("usr/local/lib/systemd/system/prepub.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/usr/local/bin/prepub mount"),
        "{unit}"
    );
    let check = Command::new(&program)
        .args(["config", "check"])
        .arg(root.at("etc/prepub/config.toml"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", text(&check));
    assert!(
        fs::read_to_string(root.at("etc/group"))
            .unwrap()
            .contains("prepub:")
    );

    links_lead_somewhere(&root.at("usr/local/share/doc/prepub"));

    let installed = root.tree();
    assert_eq!(root.install(&[]), (Some(0), vec!["nothing to do".into()]));
    assert_eq!(root.tree(), installed, "a second time changes nothing");
    // a configuration is its owner's; a program that differs is replaced
    fs::write(root.at("etc/prepub/config.toml"), "# mine\n").unwrap();
    fs::write(&program, "old").unwrap();
    let (code, said) = root.install(&[]);
    assert_eq!(
        (code, &*said[0]),
        (Some(0), &*format!("install {}", program.display()))
    );
    assert_eq!(
        fs::read_to_string(root.at("etc/prepub/config.toml")).unwrap(),
        "# mine\n"
    );
}

/// The pages lie otherwise than in the sources.
fn links_lead_somewhere(pages: &Path) {
    let mut seen = 0;
    for page in fs::read_dir(pages)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if page.extension().is_none_or(|of| of != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for (_, rest) in text
            .match_indices("](")
            .map(|(at, _)| text.split_at(at + 2))
        {
            let target = rest.split([')', '#']).next().unwrap();
            if !target.is_empty() && !target.contains("://") {
                assert!(
                    pages.join(target).exists(),
                    "{target} of {}",
                    page.display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} links");
}

#[test]
fn uninstall_does_what_it_says_and_keeps_what_it_is_told_to() {
    let able = is_root() && have("systemd-sysusers") && have("systemd-tmpfiles");
    if skip_unless(able, "root, systemd-sysusers and systemd-tmpfiles") {
        return;
    }
    let root = Root::new();
    assert_eq!(root.install(&[]).0, Some(0));
    let repositories = root.at("var/lib/prepub/repositories");
    fs::create_dir_all(repositories.join(REPO)).unwrap();

    let before = root.tree();
    assert_eq!(
        root.install(&["uninstall"]).0,
        Some(1),
        "repositories are not deleted in passing"
    );
    assert_eq!(root.tree(), before);
    let (code, previewed) =
        root.install(&["uninstall", "--keep-state", "--keep-config", "--dry-run"]);
    assert_eq!((code, root.tree()), (Some(0), before));
    let (code, said) = root.install(&["uninstall", "--keep-state", "--keep-config"]);
    assert_eq!((code, &said), (Some(0), &previewed));
    assert!(repositories.join(REPO).exists() && root.at("etc/prepub/config.toml").exists());
    assert!(!root.at("usr/local/bin/prepub").exists());

    let (code, said) = root.install(&["uninstall", "--yes"]);
    assert_eq!(code, Some(0), "{said:?}");
    for gone in ["etc/prepub", "var/lib/prepub", "prepub"] {
        assert!(!root.at(gone).exists(), "{gone}");
    }
    let files: Vec<_> = root
        .tree()
        .into_iter()
        .filter(|(path, _)| path.is_file())
        .collect();
    let accounts = |(path, _): &(PathBuf, Vec<u8>)| path.parent().unwrap().ends_with("etc");
    assert!(files.iter().all(accounts), "{files:?}");
    assert_eq!(
        root.install(&["uninstall", "--yes"]),
        (Some(0), vec!["nothing to do".into()])
    );
}

#[test]
fn install_refuses_what_it_does_not_know() {
    let root = Root::new();
    assert_eq!(root.install(&["--mode", "everything"]).0, Some(2));
    assert_eq!(root.install(&["--frobnicate"]).0, Some(2));
    assert_eq!(root.install(&["--mode"]).0, Some(2));
}
