//! How far it is: bars on a terminal, a plain line now and then elsewhere, nothing if that is wanted.
//! Recovery, sealing and publishing are made slow where they are looked at.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

/// Slow enough for a bar to appear, which it does after 150 ms.
const SLOW: &str = "engine::open=sleep(1000);seal::store=sleep(200);store::keep=sleep(150)";

/// One file is sealed at a time, so that it takes as long everywhere.
fn one_worker(sandbox: &Sandbox) -> String {
    let config = sandbox.dir.path().join("config.toml");
    fs::write(&config, "[stage]\nworkers = 1\n").unwrap();
    config.display().to_string()
}

fn write_files(sandbox: &Sandbox, count: usize) {
    for n in 0..count {
        let content = format!("content {n}");
        write(&sandbox.root().join(n.to_string()), content.as_bytes());
    }
}

/// A background daemon that is slow, started by a command made by `start`.
fn slow_mount(start: impl FnOnce(&Sandbox, &mut Command) -> Output) -> Option<(Sandbox, String)> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let mut command = sandbox.command(["mount".as_ref(), sandbox.mountpoint().as_os_str()]);
    command
        .env("FAILPOINTS", SLOW)
        .env("PREPUB_CONFIG", one_worker(&sandbox));
    let output = start(&sandbox, &mut command);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}");
    Some((sandbox, said))
}

/// Runs it on a terminal of its own; stdout is what the terminal was sent.
fn on_a_terminal(command: &Command) -> Output {
    let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap());
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted)
        .collect();
    let mut script = Command::new("script");
    script
        .args(["-q", "-e", "-c", &words.join(" "), "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null());
    script.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    script.output().expect("script(1) runs")
}

#[test]
fn bars_on_a_terminal() {
    let Some((sandbox, mounting)) = slow_mount(|_, command| on_a_terminal(command)) else {
        return;
    };
    assert!(
        mounting.contains("recovering") && mounting.contains("0/1"),
        "{mounting:?}"
    );
    assert!(mounting.contains("mounted on"), "{mounting:?}");

    write_files(&sandbox, 8);
    let output = on_a_terminal(&sandbox.command(["commit", REPO]));
    let committing = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{committing:?}");
    for step in ["sealing", "storing"] {
        assert!(committing.contains(step), "{step}: {committing:?}");
    }
    assert!(
        committing.contains("/8") && committing.contains('\u{1b}'),
        "{committing:?}"
    );
    assert!(
        committing.contains("revision 2 is published"),
        "{committing:?}"
    );

    write_files(&sandbox, 2);
    write(&sandbox.root().join("more"), b"more");
    let quiet = on_a_terminal(&sandbox.command(["--quiet", "commit", REPO]));
    let quiet = String::from_utf8_lossy(&quiet.stdout).into_owned();
    assert!(
        !quiet.contains("sealing") && !quiet.contains('\u{1b}'),
        "{quiet:?}"
    );
    sandbox.ok(["unmount"]);
}

#[test]
fn plain_lines_elsewhere() {
    let Some((sandbox, mounting)) = slow_mount(|_, command| command.output().unwrap()) else {
        return;
    };
    // what is over soon is not worth a line
    assert!(!mounting.contains("recovering"), "{mounting:?}");

    // more than the five seconds after which there is a line
    write_files(&sandbox, 35);
    let output = sandbox.run(["status", REPO, "--wait"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(['\r', '\u{1b}']), "{said:?}");
    let line = said.lines().find(|l| l.starts_with("sealing: "));
    let line = line.unwrap_or_else(|| panic!("{said:?}"));
    assert!(
        line.ends_with(" files") && line.contains(" of "),
        "{said:?}"
    );
    assert!(!String::from_utf8_lossy(&output.stdout).contains("sealing: "));
    sandbox.ok(["unmount"]);
}
