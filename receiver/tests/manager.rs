//! Under a service manager: what it hears of the program (`sd_notify(3)`), and what packages take from it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::world::World;

/// A message that does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Listens until such a line was heard, each into `heard`.
fn hear(socket: &UnixDatagram, heard: &mut Vec<String>, line: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|e| panic!("{line} was never said, but {heard:?}: {e}"));
        let message = std::str::from_utf8(&buffer[..length]).unwrap();
        heard.extend(message.lines().map(str::to_owned));
        if message.lines().any(|l| l.starts_with(line)) {
            return;
        }
    }
}

#[test]
fn it_hears_of_the_start_of_life_and_of_the_end() {
    let world = World::new();
    let config = world.path("receiver.toml");
    fs::write(&config, world.text()).unwrap();
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_prepub-receiver"))
        .args(["--config", config.to_str().unwrap(), "serve"])
        .env("NOTIFY_SOCKET", world.path("notify"))
        .env("WATCHDOG_USEC", "100000")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut heard = Vec::new();
    hear(&socket, &mut heard, "READY=1");
    assert!(
        heard.iter().any(|l| l.starts_with("STATUS=taking objects")),
        "{heard:?}"
    );
    for _ in 0..3 {
        hear(&socket, &mut heard, "WATCHDOG=1");
    }
    assert!(!heard.contains(&"STOPPING=1".to_owned()), "{heard:?}");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    hear(&socket, &mut heard, "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

/// What it says on stderr of a signal that asks it to read its configuration again.
#[test]
fn it_reads_its_configuration_again() {
    let world = World::new();
    let config = world.path("receiver.toml");
    fs::write(&config, world.text()).unwrap();
    let socket = UnixDatagram::bind(world.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let log = world.path("log");
    let program = env!("CARGO_BIN_EXE_prepub-receiver");
    let mut child = Command::new(program)
        .args(["--config", config.to_str().unwrap(), "serve"])
        .env("NOTIFY_SOCKET", world.path("notify"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut heard = Vec::new();
    hear(&socket, &mut heard, "READY=1");
    let reload = || {
        let mut command = Command::new(program);
        command.args(["--config", config.to_str().unwrap(), "reload"]);
        command.arg(child.id().to_string()).output().unwrap()
    };
    let text = world.text().replace("[keep]\n", "[keep]\nlook = \"1h\"\n");
    let changed = format!("log_level = \"debug\"\n{text}");
    fs::write(&config, changed).unwrap();
    heard.clear();
    assert!(reload().status.success());
    hear(&socket, &mut heard, "READY=1");
    assert!(heard.contains(&"RELOADING=1".to_owned()), "{heard:?}");
    let needed = "restart needed for: keep.look";
    assert!(
        heard
            .iter()
            .any(|l| l.starts_with("STATUS=") && l.ends_with(needed)),
        "{heard:?}"
    );
    // a wrong file is refused where it is asked for, and by whoever gets a signal all the same
    fs::write(&config, "[keep]\nlok = \"1h\"\n").unwrap();
    let refused = reload();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("line 2"), "{said}");
    heard.clear();
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    hear(&socket, &mut heard, "STATUS=");
    let said = heard.iter().find(|l| l.starts_with("STATUS=")).unwrap();
    assert!(said.contains("the configuration was refused"), "{said}");
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("the former one holds"), "{log}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn manual_pages_and_completions() {
    let world = World::new();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_prepub-receiver"))
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let dir = world.path("man");
    run(&["util", "man", dir.to_str().unwrap()]);
    let page = fs::read_to_string(dir.join("prepub-receiver-serve.1")).unwrap();
    assert!(page.contains("Run until SIGTERM"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["util", "completions", shell]);
        assert!(script.contains("doctor"), "{shell}: {script}");
    }
}
