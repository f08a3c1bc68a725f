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
