//! A sandbox whose state lies on a layer with faults, and a guard against waiting for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::support::layer::faults::Faults;
use crate::support::layer::{Layer, Tree};
use crate::support::{REPO, Sandbox};

/// What takes longer hangs: each of the steps is a matter of seconds, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(150);

pub struct World {
    /// Goes first: a daemon whose calls hang cannot even be killed.
    _clearing: Clearing,
    pub sandbox: Sandbox,
    layer: Option<Layer>,
}

/// Clears the faults when it is dropped, a test that fails included.
struct Clearing(Arc<Faults>);

impl Drop for Clearing {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl World {
    /// A state that holds what another one did.
    pub fn of(sandbox: Sandbox, tree: Tree) -> Self {
        if !sandbox.state().exists() {
            std::fs::create_dir(sandbox.state()).unwrap();
        }
        let layer = Layer::mount(tree, &sandbox.state(), Arc::new(AtomicU64::new(0)));
        Self {
            _clearing: Clearing(layer.faults()),
            sandbox,
            layer: Some(layer),
        }
    }

    pub fn layer(&self) -> &Layer {
        self.layer.as_ref().unwrap()
    }

    pub fn faults(&self) -> Arc<Faults> {
        self.layer().faults()
    }

    /// Starts the daemon with the sandbox's own configuration.
    pub fn mount(&mut self) {
        let config = self.sandbox.dir.path().join("config.toml");
        self.sandbox
            .mount_with(&[("PREPUB_CONFIG", config.to_str().unwrap())]);
    }

    /// The daemon ends, if it runs, and the layer goes.
    pub fn end(mut self) -> Sandbox {
        self.sandbox.kill();
        self.layer = None;
        self.sandbox
    }
}

/// The stage's directory, from the layer's root.
pub fn stage() -> PathBuf {
    PathBuf::from("stage").join(REPO)
}

/// The storage's.
pub fn storage() -> PathBuf {
    PathBuf::from("srv/cvmfs").join(REPO)
}

/// Ends the daemon if it is not dropped in time: whoever waits for it then fails.
pub struct Guard {
    _done: Sender<()>,
}

impl Guard {
    pub fn over(world: &World) -> Self {
        let (done, wait) = channel::<()>();
        let pid = i32::try_from(world.sandbox.daemon_pid()).unwrap();
        let faults = world.faults();
        std::thread::spawn(move || {
            if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(PATIENCE) {
                eprintln!("nothing went on for {PATIENCE:?}; the daemon is ended");
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                faults.clear();
            }
        });
        Self { _done: done }
    }
}

/// Waits for what others do in their own time.
#[track_caller]
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(
            std::time::Instant::now() < deadline,
            "{what}: not within a minute"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
