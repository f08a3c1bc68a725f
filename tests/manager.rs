//! Under a service manager: what it hears of a daemon in the foreground, and where messages go.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{REPO, Sandbox, can_mount, is_root, skip_unless};

/// A message that does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manager's end of `sd_notify(3)`.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(sandbox: &Sandbox) -> Self {
        let socket = UnixDatagram::bind(Self::path(sandbox)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    fn path(sandbox: &Sandbox) -> String {
        sandbox.dir.path().join("notify").display().to_string()
    }

    /// Listens until a line begins so; how many did by then.
    fn hear(&mut self, line: &str) -> usize {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or_else(|e| {
            panic!("{line} was never said, but {:?}: {e}", self.heard);
        });
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        self.heard.extend(message.lines().map(str::to_owned));
        match self.count(line) {
            0 => self.hear(line),
            count => count,
        }
    }

    fn count(&self, line: &str) -> usize {
        self.heard.iter().filter(|l| l.starts_with(line)).count()
    }

    fn place(&self, line: &str) -> usize {
        let place = self.heard.iter().position(|l| l.starts_with(line));
        place.unwrap_or_else(|| panic!("no {line} in {:?}", self.heard))
    }
}

fn terminate(sandbox: &Sandbox) {
    let pid = Pid::from_raw(i32::try_from(sandbox.daemon_pid()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

#[test]
fn it_hears_of_the_start_of_life_and_of_the_end() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let mut manager = Manager::new(&sandbox);
    let socket = Manager::path(&sandbox);
    sandbox.mount_with(&[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "100000")]);
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    let before = manager.count("WATCHDOG=1");
    while manager.count("WATCHDOG=1") < before + 3 {
        manager.hear("WATCHDOG=1");
    }
    let recovering = manager.place("STATUS=recovering: 0 of 1 repositories");
    assert!(recovering < manager.place("READY=1"));
    assert!(manager.place("EXTEND_TIMEOUT_USEC=") < manager.place("READY=1"));
    manager.place(&format!(
        "STATUS=mounted on {}",
        sandbox.mountpoint().display()
    ));
    assert_eq!(
        (manager.count("READY=1"), manager.count("STOPPING=1")),
        (1, 0)
    );

    fs::write(sandbox.root().join("file"), "staged").unwrap();
    terminate(&sandbox);
    manager.hear("STOPPING=1");
    assert!(sandbox.wait_for_exit().success());
    // and nothing was lost
    sandbox.mount();
    let kept = fs::read_to_string(sandbox.root().join("file")).unwrap();
    assert_eq!(kept, "staged");
}

/// `RELOADING=1` with the time, then `READY=1`, whether it was asked or sent a signal; also where the
/// configuration is refused.
#[test]
fn it_hears_of_a_reload() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.configure("");
    sandbox.ok(["mkfs", REPO]);
    let mut manager = Manager::new(&sandbox);
    let socket = Manager::path(&sandbox);
    sandbox.mount_with(&[("NOTIFY_SOCKET", &socket)]);
    manager.hear("READY=1");
    for (config, status) in [
        ("", "STATUS=mounted on "),
        (
            "[serve]\nenabled = false\n",
            "restart needed for: serve.enabled",
        ),
        (
            "[serve]\nenabeld = false\n",
            "the configuration was refused: ",
        ),
    ] {
        sandbox.configure(config);
        let (before, heard) = (manager.count("READY=1"), manager.heard.len());
        match config {
            "" => drop(sandbox.ok(["reload"])),
            _ => {
                let pid = Pid::from_raw(i32::try_from(sandbox.daemon_pid()).unwrap()).unwrap();
                kill_process(pid, Signal::HUP).unwrap();
            }
        }
        while manager.count("READY=1") == before {
            manager.hear("READY=1");
        }
        let said = &manager.heard[heard..];
        let place = |line: &str| said.iter().position(|l| l.starts_with(line)).unwrap();
        assert!(place("RELOADING=1") < place("READY=1"), "{said:?}");
        assert_eq!(place("MONOTONIC_USEC="), place("RELOADING=1") + 1);
        assert!(said.iter().any(|l| l.contains(status)), "{said:?}");
    }
    assert_eq!(manager.count("STOPPING=1"), 0);
}

#[test]
fn a_watchdog_of_another_process_is_left_alone() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let mut sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let mut manager = Manager::new(&sandbox);
    let socket = Manager::path(&sandbox);
    sandbox.mount_with(&[
        ("NOTIFY_SOCKET", &socket),
        ("WATCHDOG_USEC", "1000"),
        ("WATCHDOG_PID", "1"),
    ]);
    terminate(&sandbox);
    manager.hear("STOPPING=1");
    assert_eq!(manager.count("WATCHDOG=1"), 0, "{:?}", manager.heard);
}

#[test]
fn it_hears_why_there_is_no_mount() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let mut manager = Manager::new(&sandbox);
    let missing = sandbox.dir.path().join("missing");
    let output = sandbox
        .command([
            "mount".as_ref(),
            "--foreground".as_ref(),
            missing.as_os_str(),
        ])
        .env("NOTIFY_SOCKET", Manager::path(&sandbox))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    manager.hear(&format!(
        "STATUS=the mount point {} does not exist",
        missing.display()
    ));
    assert_eq!(manager.count("READY=1"), 0);
}

/// A daemon in a mount namespace of its own, where the journal's socket is ours; what it says on
/// stderr, to which `stream` is said to be connected.
fn under_the_journal(sandbox: &Sandbox, stream: impl FnOnce(&fs::Metadata) -> String) -> String {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let meta = fs::File::from(theirs.try_clone().unwrap())
        .metadata()
        .unwrap();
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal \
                  && mount --bind \"$0\" /run/systemd/journal && exec \"$@\"";
    let daemon = sandbox.command(["mount", "--foreground"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(sandbox.dir.path().join("journal"))
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .arg(sandbox.mountpoint())
        .env("PREPUB_LOG", "info")
        .env("JOURNAL_STREAM", stream(&meta))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(theirs);
    let mut child = command.spawn().unwrap();
    drop(command);
    let socket = sandbox.state().join("control.sock");
    while UnixStream::connect(&socket).is_err() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(10));
    }
    // the mount is the daemon's alone; its socket is everybody's
    sandbox.ok(["unmount"]);
    assert!(child.wait().unwrap().success());
    let mut said = String::new();
    let mut ours = ours;
    ours.read_to_string(&mut said).unwrap();
    said
}

/// A record of the journal's native protocol: `NAME=VALUE` lines, or a name, the value's length and
/// the value, so that it may have lines itself.
fn fields(mut record: &[u8]) -> BTreeMap<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut fields = BTreeMap::new();
    while let Some(end) = record.iter().position(|b| *b == b'\n') {
        let (line, rest) = (&record[..end], &record[end + 1..]);
        if let Some(equals) = line.iter().position(|b| *b == b'=') {
            fields.insert(text(&line[..equals]), text(&line[equals + 1..]));
            record = rest;
            continue;
        }
        let (length, rest) = rest.split_first_chunk::<8>().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        fields.insert(text(line), text(&rest[..length]));
        record = &rest[length + 1..];
    }
    fields
}

#[test]
fn messages_go_to_the_journal_where_stderr_does() {
    if skip_unless(can_mount() && is_root(), "root and /dev/fuse") {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.ok(["mkfs", REPO]);
    let dir = sandbox.dir.path().join("journal");
    fs::create_dir(&dir).unwrap();
    let journal = UnixDatagram::bind(dir.join("socket")).unwrap();
    journal.set_nonblocking(true).unwrap();
    let records = || {
        let mut records = Vec::new();
        let mut buffer = vec![0; 65536];
        while let Ok(length) = journal.recv(&mut buffer) {
            records.push(fields(&buffer[..length]));
        }
        records
    };

    let said = under_the_journal(&sandbox, |m| format!("{}:{}", m.dev(), m.ino()));
    assert_eq!(said, "", "nothing is said twice");
    let heard = records();
    let mounted = heard.iter().find(|r| {
        r.get("MESSAGE")
            .is_some_and(|m| m.starts_with("mounted on"))
    });
    let mounted = mounted.unwrap_or_else(|| panic!("{heard:?}"));
    assert_eq!(
        (
            mounted["SYSLOG_IDENTIFIER"].as_str(),
            mounted["PRIORITY"].as_str()
        ),
        ("prepub", "5")
    );

    // stderr was redirected since
    let said = under_the_journal(&sandbox, |m| format!("{}:{}", m.dev(), m.ino() + 1));
    assert!(said.contains("mounted on"), "{said}");
    // to see whether it is there, an empty record is sent
    assert!(records().iter().all(BTreeMap::is_empty));
}
