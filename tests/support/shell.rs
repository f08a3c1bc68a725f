//! Shell scripts that use the program as people do: by name, in a home of their own, as root or as an
//! ordinary user. What they started in the background ends with them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Sandbox, by, can_mount, is_root, skip_unless, workspace_root};

/// Who runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    /// Somebody who is not: whoever runs the tests, or `nobody`.
    User,
}

/// A machine's user with a shell, `prepub`, `prepub-receiver` and `prepub-build` on the `PATH`. State is in
/// the sandbox; nothing is made yet, nothing mounted.
pub struct Shell {
    pub sandbox: Sandbox,
    user: Option<[u32; 2]>,
}

/// True if the programs are all there.
pub fn have(programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let look = Command::new("sh")
            .args(["-c", "command -v \"$0\""])
            .arg(program)
            .stdout(Stdio::null())
            .status();
        look.unwrap().success()
    })
}

fn id(flag: &str, user: &str) -> u32 {
    let output = Command::new("id").args([flag, user]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().expect("a number")
}

impl Shell {
    /// None, and a line that says why, where that user cannot mount.
    pub fn of(who: Who) -> Option<Self> {
        if skip_unless(can_mount(), "/dev/fuse")
            || skip_unless(who == Who::User || is_root(), "root")
        {
            return None;
        }
        let user =
            (who == Who::User && is_root()).then(|| [id("-u", "nobody"), id("-g", "nobody")]);
        let program = env!("CARGO_BIN_EXE_prepub");
        if let Some(user) = user {
            let may = |test: &[&str]| by(user).args(test).status().unwrap().success();
            if skip_unless(may(&["test", "-w", "/dev/fuse"]), "/dev/fuse for its group")
                || skip_unless(
                    may(&["test", "-x", program]),
                    "a program under test that everybody may run",
                )
            {
                return None;
            }
        }
        let mut sandbox = Sandbox::new();
        let bin = sandbox.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let helper = workspace_root().join("packaging/prepub-build");
        for file in [
            Path::new(program),
            &Path::new(program).with_file_name("prepub-receiver"),
            &helper,
        ] {
            symlink(file, bin.join(file.file_name().unwrap())).unwrap();
        }
        if let Some([uid, gid]) = user {
            sandbox.run_by([uid, gid]);
            chown(&bin, Some(uid), Some(gid)).unwrap();
        }
        Some(Self { sandbox, user })
    }

    /// Where scripts run, which is their home, too.
    pub fn home(&self) -> PathBuf {
        self.sandbox.dir.path().to_owned()
    }

    /// A script, not yet started; it ends at the first command that fails.
    pub fn command(&self, script: &str) -> Command {
        let mut command = match self.user {
            None => Command::new("env"),
            Some(user) => by(user),
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["bash", "-euo", "pipefail", "-c", script])
            .current_dir(self.home())
            .env("PATH", format!("{}/bin:{path}", self.home().display()))
            .env("HOME", self.home())
            .env("TMPDIR", self.home())
            .env("PREPUB_STATE_DIR", self.sandbox.state())
            .env("MOUNT", self.sandbox.mountpoint())
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str) -> Output {
        let mut command = self.command(script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let group = Pid::from_raw(child.id().cast_signed()).unwrap();
        // whoever holds stdout in the background would keep it open for ever
        let output = child.wait_with_output().unwrap();
        let _ = kill_process_group(group, Signal::TERM);
        output
    }

    /// Runs a script, expects that it succeeds, returns what it printed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let output = self.run(script);
        let [out, err] =
            [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
        assert!(
            output.status.success(),
            "{script}\n{}\n{out}{err}",
            output.status
        );
        out
    }

    /// Runs a script, expects this exit code, returns all that it said.
    #[track_caller]
    pub fn fails(&self, code: i32, script: &str) -> String {
        let output = self.run(script);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "{script}\n{text}");
        text
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // what is mounted has no other owner
        let _ = self.sandbox.run(["unmount", "--discard"]);
    }
}
