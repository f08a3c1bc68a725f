//! A test that hangs is killed by the runner and can say nothing then: before that, whoever it waits
//! for is named.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Sooner than the runner loses patience (.config/nextest.toml), later than any test is done.
const PATIENCE: Duration = Duration::from_secs(500);

/// Watches until dropped.
pub struct Watch(#[allow(dead_code, reason = "that it is dropped is heard")] Sender<()>);

impl Watch {
    /// Over the test that uses this sandbox.
    pub fn over(dir: &Path) -> Self {
        let (alive, heard) = channel();
        let log = dir.join("daemon.log");
        std::thread::spawn(move || {
            if heard.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // the harness keeps what is printed by macros to itself until the test has ended
                let _ = std::io::stderr().write_all(report(&log).as_bytes());
            }
        });
        Self(alive)
    }
}

/// What each thread of this test's processes waits for, and the end of the daemon's log.
fn report(log: &Path) -> String {
    let mut text = format!("--- stuck for {PATIENCE:?}: process, thread, where it waits\n");
    for process in ours() {
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let _ = writeln!(text, "{} {command}", process.display());
        for thread in list(&process.join("task")) {
            let read = |what: &str| fs::read_to_string(thread.join(what)).unwrap_or_default();
            let (name, place) = (read("comm"), read("wchan"));
            let (call, stack) = (read("syscall"), read("stack").replace('\n', " "));
            let _ = writeln!(text, "  {} {place} {} {stack}", name.trim(), call.trim());
        }
    }
    let log = fs::read_to_string(log).unwrap_or_default();
    let from = log.lines().count().saturating_sub(40);
    for line in log.lines().skip(from) {
        let _ = writeln!(text, "log: {line}");
    }
    text
}

/// The processes of this test's group, which the runner makes for each test, and official clients.
fn ours() -> Vec<PathBuf> {
    let group = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (comm) state ppid pgrp
        Some(stat.rsplit_once(") ")?.1.split(' ').nth(2)?.to_owned())
    };
    let own = group("self");
    let mut found = list(Path::new("/proc"));
    found.retain(|path| {
        let pid = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = pid.parse::<u32>().is_ok() && group(&pid) == own;
        // what made itself a daemon left the group
        is_ours || fs::read(path.join("comm")).is_ok_and(|comm| comm.starts_with(b"cvmfs"))
    });
    found
}

fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn it_names_who_is_waited_for() {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("daemon.log");
    fs::write(&log, "the last words\n").unwrap();
    // one that has answered is past its start, in which it has no name yet
    let mut child = Command::new("cat")
        .arg("-u")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"?").unwrap();
    let mut answer = [0];
    let answered = child.stdout.as_mut().unwrap().read_exact(&mut answer);
    answered.unwrap();
    let text = report(&log);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(text.contains("cat -u"), "{text}");
    assert!(text.contains("log: the last words"), "{text}");
}
