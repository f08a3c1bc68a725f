//! Namespaces and rights as containers have them: the mount works, or `doctor` tells beforehand what is
//! missing and `mount` fails with the same.

use std::process::{Command, Output};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless};

/// Makes a repository, writes, commits and reads, with all that it takes to get there.
const WHOLE_WAY: &str = r#"
$P mkfs test.example.org >/dev/null
$P mount "$M" >/dev/null
echo written >"$M/test.example.org/file"
$P commit test.example.org >/dev/null
cat "$M/test.example.org/file"
$P unmount "$M" >/dev/null
"#;

/// Runs a line of shell below `wrapper`, with the program as $P and the mount point as $M.
fn within(sandbox: &Sandbox, wrapper: &[&str], script: &str) -> Output {
    let program = format!(
        "{} --state-dir {}",
        env!("CARGO_BIN_EXE_prepub"),
        sandbox.state().display()
    );
    Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["sh", "-ec", script])
        .env("P", program)
        .env("M", sandbox.mountpoint())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// True, with a line on stderr, where this machine does not let us be in such a place at all.
fn not_here(wrapper: &[&str]) -> bool {
    let tried = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .output();
    let works = tried.is_ok_and(|output| output.status.success());
    skip_unless(works, &wrapper.join(" "))
}

#[test]
fn a_user_namespace_of_its_own_is_enough() {
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount"];
    if skip_unless(can_mount(), "/dev/fuse") || not_here(&wrapper) {
        return;
    }
    let sandbox = Sandbox::new();
    let output = within(&sandbox, &wrapper, WHOLE_WAY);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "written\n");
    // outside of it the commit is there, and the mount never was
    sandbox.check();
    assert!(!sandbox.root().exists());
}

#[test]
fn what_a_container_lacks_is_told_beforehand() {
    // root as in a container that was started without more
    let no_rights = [
        "setpriv",
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-sys_admin",
    ];
    let no_device = ["unshare", "--mount"];
    if skip_unless(is_root(), "root, to take its rights away") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let hide = "mount --bind /dev/null /dev/fuse; ";
    for (wrapper, before, missing) in [
        (&no_rights[..], "", "CAP_SYS_ADMIN"),
        (&no_device[..], hide, "/dev/fuse"),
    ] {
        if not_here(wrapper) {
            continue;
        }
        let doctor = within(&sandbox, wrapper, &format!("{before}$P doctor"));
        let text = said(&doctor);
        assert_eq!(doctor.status.code(), Some(1), "{text}");
        let failure = text.lines().skip_while(|line| !line.starts_with("FAILURE"));
        let failure: Vec<&str> = failure.take(2).collect();
        assert!(failure.join(" ").contains(missing), "{text}");
        let mount = within(&sandbox, wrapper, &format!("{before}$P mount \"$M\""));
        let text = said(&mount);
        assert_eq!(mount.status.code(), Some(1), "{text}");
        assert!(text.contains("prepub doctor"), "{text}");
        assert!(!sandbox.root().exists());
    }
}
