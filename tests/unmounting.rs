//! What becomes of staged changes when a mount ends, and who ends it: the command, a signal, or
//! somebody's `umount`.

use std::fs;
use std::process::Command;

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless, write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Command,
    Signal,
    Umount,
}

const ENDS: [End; 3] = [End::Command, End::Signal, End::Umount];

impl End {
    /// Ends the daemon's mount, and waits until it is gone.
    fn come(self, sandbox: &mut Sandbox) {
        match self {
            Self::Command => drop(sandbox.ok(["unmount"])),
            Self::Signal => {
                let pid = Pid::from_raw(i32::try_from(sandbox.daemon_pid()).unwrap()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
            }
            Self::Umount => {
                rustix::mount::unmount(sandbox.mountpoint(), UnmountFlags::empty()).unwrap();
            }
        }
        let status = sandbox.wait_for_exit();
        assert!(status.success(), "{self:?}: {status}\n{}", sandbox.log());
        assert!(
            fs::read_dir(sandbox.mountpoint()).unwrap().next().is_none(),
            "{self:?}"
        );
    }
}

/// A repository with something staged, mounted with a configuration.
fn mounted_with(config: &str) -> Option<Sandbox> {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return None;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    mount_with(&mut sandbox, config);
    write(&sandbox.root().join("file"), b"staged");
    Some(sandbox)
}

fn mount_with(sandbox: &mut Sandbox, config: &str) {
    let file = sandbox.dir.path().join("config.toml");
    fs::write(&file, config).unwrap();
    sandbox.mount_with(&[("PREPUB_CONFIG", file.to_str().unwrap())]);
}

/// The published revision, and how many paths are staged.
fn stands(sandbox: &Sandbox) -> (u64, u64) {
    let status = sandbox.json(["status", REPO]);
    let repository = &status["repositories"][0];
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    (
        number(&repository["published_revision"]),
        number(&repository["staged"]["added"]),
    )
}

#[test]
fn staged_changes_are_kept_by_default() {
    let Some(mut sandbox) = mounted_with("") else {
        return;
    };
    for end in ENDS {
        end.come(&mut sandbox);
        assert_eq!(stands(&sandbox), (1, 1), "{end:?}");
        mount_with(&mut sandbox, "");
        assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"staged");
    }
}

#[test]
fn or_committed_where_that_is_configured() {
    const COMMIT: &str = "[stage]\non_unmount = \"commit\"\n";
    let Some(mut sandbox) = mounted_with(COMMIT) else {
        return;
    };
    for (revision, end) in (2..).zip(ENDS) {
        end.come(&mut sandbox);
        assert_eq!(stands(&sandbox), (revision, 0), "{end:?}");
        mount_with(&mut sandbox, COMMIT);
        assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"staged");
        write(&sandbox.root().join(format!("{end:?}")), b"more");
    }
    sandbox.check();
}

#[test]
fn a_commit_that_fails_then_keeps_them() {
    // more than any whitelist that mkfs makes: as good as expired
    let config = "[stage]\non_unmount = \"commit\"\n[commit]\nwhitelist_min = \"40d\"\n";
    let Some(mut sandbox) = mounted_with(config) else {
        return;
    };
    for end in ENDS {
        end.come(&mut sandbox);
        assert!(sandbox.log().contains("stays staged"), "{end:?}");
        assert_eq!(stands(&sandbox), (1, 1), "{end:?}");
        mount_with(&mut sandbox, config);
    }
    // asked for explicitly, the failure is told and the mount stays
    let message = sandbox.fails(1, ["unmount", "--commit"]);
    assert!(message.contains("prepub resign"), "{message}");
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"staged");
    sandbox.ok(["unmount", "--discard"]);
    sandbox.wait_for_exit();
    assert_eq!(stands(&sandbox), (1, 0));
}

/// A mount namespace that was made meanwhile keeps the mount alive, though nobody else can reach it.
#[test]
fn who_keeps_it_alive_is_named() {
    let Some(mut sandbox) = mounted_with("") else {
        return;
    };
    // it lets go of what belongs to other tests
    let let_go = "while read -r _ at kind _; do \
         case $kind in fuse.prepub) [ \"$at\" = \"$0\" ] || umount -l \"$at\" ;; esac; \
         done </proc/self/mounts; exec sleep 1000";
    let mut other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", let_go])
        .arg(sandbox.mountpoint())
        .spawn()
        .unwrap();
    let pid = other.id();
    // until it is there, the name is another
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "sleep\n" {
        std::thread::yield_now();
    }
    for _ in 0..2 {
        let refused = sandbox.fails(5, ["unmount"]);
        let named = format!("process {pid} (sleep)");
        assert!(refused.contains(&named), "{refused}");
        assert!(fs::read_dir(sandbox.mountpoint()).unwrap().next().is_none());
    }
    other.kill().unwrap();
    other.wait().unwrap();
    let status = sandbox.wait_for_exit();
    assert!(status.success(), "{status}\n{}", sandbox.log());
    sandbox.mount();
    assert_eq!(fs::read(sandbox.root().join("file")).unwrap(), b"staged");
}
