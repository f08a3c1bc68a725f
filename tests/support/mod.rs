//! A sandbox for one test: state directory, mount point, daemon and the program.

pub mod behind;
pub mod client;
pub mod dice;
pub mod gateway;
pub mod golden;
pub mod hosts;
pub mod layer;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../store/tests/support/mosquitto.rs"]
pub mod mosquitto;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../store/tests/support/s3.rs"]
pub mod s3;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../store/tests/support/s3_proxy.rs"]
pub mod s3_proxy;
pub mod script;
pub mod shaper;
pub mod shell;
pub mod small;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../commit/tests/support/stratum1.rs"]
pub mod stratum1;
mod stuck;
pub mod tls;
pub mod trees;
pub mod web;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use formats::{Algorithm, PrivateKey, SignedWhitelist};

/// The repository that tests use unless they say otherwise.
pub const REPO: &str = "test.example.org";

pub fn workspace_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// True, with a line on stderr, when `what` is missing and the test cannot say anything.
pub fn skip_unless(have: bool, what: &str) -> bool {
    if !have {
        eprintln!("SKIPPED: needs {what}");
    }
    !have
}

/// The two programs.
pub const PREPUB: &str = "prepub";
pub const RECEIVER: &str = "prepub-receiver";

/// Where it was built; the second one may not have been.
pub fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_prepub")).with_file_name(name)
}

/// The receiver; none, with a line on stderr, where prepub alone was built.
pub fn receiver() -> Option<PathBuf> {
    let program = program(RECEIVER);
    let is_there = program.exists();
    (!skip_unless(
        is_there,
        "prepub-receiver beside prepub (build the workspace)",
    ))
    .then_some(program)
}

pub fn can_mount() -> bool {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .is_ok()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One state directory and one mount point; what it started dies with it.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    daemon: Option<Child>,
    /// Whoever runs the program, if that is not us: user and group.
    user: Option<[u32; 2]>,
    _watch: stuck::Watch,
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("prepub-test.")
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        Self {
            _watch: stuck::Watch::over(dir.path()),
            dir,
            daemon: None,
            user: None,
        }
    }

    /// A sandbox with an empty repository, mounted; none where nothing can be mounted.
    pub fn mounted() -> Option<Self> {
        if skip_unless(can_mount(), "/dev/fuse") {
            return None;
        }
        let mut sandbox = Self::new();
        sandbox.ok(["mkfs", REPO]);
        sandbox.mount();
        Some(sandbox)
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// The configuration of every command from now on.
    pub fn configure(&self, text: &str) {
        fs::write(self.dir.path().join("every.toml"), text).unwrap();
    }

    /// Another user runs the program from now on.
    pub fn run_by(&mut self, user: [u32; 2]) {
        self.user = Some(user);
        let [uid, gid] = user;
        for place in [self.dir.path().to_owned(), self.mountpoint()] {
            chown(&place, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// The repository's directory below the mount.
    pub fn root(&self) -> PathBuf {
        self.mountpoint().join(REPO)
    }

    /// Where the embedded repository's storage is.
    pub fn storage(&self) -> PathBuf {
        self.state().join("srv/cvmfs").join(REPO)
    }

    /// The repository's parameters.
    pub fn server_conf(&self) -> PathBuf {
        let dir = self.state().join("repositories").join(REPO);
        dir.join("server.conf")
    }

    pub fn command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let program = env!("CARGO_BIN_EXE_prepub");
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = by(user);
                command.arg(program);
                command
            }
        };
        let config = self.dir.path().join("every.toml");
        if config.exists() {
            command.env("PREPUB_CONFIG", config);
        }
        command
            .arg("--state-dir")
            .arg(self.state())
            .args(args)
            .env("PREPUB_LOG", "info")
            .stdin(Stdio::null());
        command
    }

    pub fn run<I, S>(&self, args: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command(args).output().expect("prepub runs")
    }

    /// Runs the program, expects exit code 0, returns what it printed.
    #[track_caller]
    pub fn ok<I, S>(&self, args: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the program with `--json`, expects exit code 0, returns the object it printed.
    #[track_caller]
    pub fn json<I, S>(&self, args: I) -> serde_json::Value
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command: Vec<std::ffi::OsString> =
            args.into_iter().map(|a| a.as_ref().to_owned()).collect();
        command.push("--json".into());
        serde_json::from_str(&self.ok(command)).expect("one JSON object")
    }

    /// Runs the program, expects this exit code, returns all that it said.
    #[track_caller]
    pub fn fails<I, S>(&self, code: i32, args: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let output = self.run(args);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        text
    }

    /// Replaces the whitelist with one that ended yesterday.
    pub fn expire_whitelist(&self) {
        let file = self.storage().join(".cvmfswhitelist");
        let signed = SignedWhitelist::parse(&fs::read(&file).unwrap()).unwrap();
        let day = Duration::from_secs(86_400);
        let ended = signed.whitelist.renewed(SystemTime::now() - 2 * day, day);
        let key = fs::read(self.state().join(format!("keys/{REPO}.masterkey"))).unwrap();
        let key = PrivateKey::from_pem(&key).unwrap();
        let signed = formats::trust::sign_whitelist(ended, Algorithm::Sha1, &key).unwrap();
        fs::write(&file, signed.to_bytes()).unwrap();
    }

    /// Starts the daemon in the foreground of a child and waits until the mount answers.
    pub fn mount(&mut self) {
        self.mount_with(&[]);
    }

    /// The same, with environment variables (failpoints) for the daemon.
    pub fn mount_with(&mut self, env: &[(&str, &str)]) {
        self.mount_for(REPO, env);
    }

    /// The same, waiting for a certain repository: another one may be left out.
    pub fn mount_for(&mut self, repo: &str, env: &[(&str, &str)]) {
        if let Err(status) = self.try_mount(repo, env) {
            panic!("the daemon ended with {status}:\n{}", self.log());
        }
    }

    /// The same, where the daemon may end before that.
    pub fn try_mount(&mut self, repo: &str, env: &[(&str, &str)]) -> Result<(), ExitStatus> {
        let root = self.mountpoint().join(repo);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("daemon.log"))
            .unwrap();
        let mut command = self.command(["mount".as_ref(), self.mountpoint().as_os_str()]);
        command
            .arg("--foreground")
            .stdout(Stdio::null())
            .stderr(log);
        command.envs(env.iter().copied());
        let mut child = command.spawn().expect("the daemon starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        // of a dead daemon's mount the kernel still knows the attributes, so ask whom it cannot know
        let socket = self.state().join("control.sock");
        while UnixStream::connect(&socket).is_err() || rustix::fs::statfs(&root).is_err() {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(status);
            }
            assert!(
                Instant::now() < deadline,
                "no mount after 60 s:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = Some(child);
        Ok(())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("daemon.log")).unwrap_or_default()
    }

    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon runs").id()
    }

    /// `kill -9`, and what the kernel leaves behind of the mount is left to the next `mount`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// True if the daemon is gone, or is within moments: what it served fails already. It is reaped.
    pub fn has_died(&mut self) -> bool {
        let Some(child) = &mut self.daemon else {
            return true;
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = None;
        true
    }

    /// True if the daemon is there still.
    pub fn is_alive(&mut self) -> bool {
        let child = self.daemon.as_mut();
        child.is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits for a daemon that was asked to go (or that a failpoint ended).
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        self.daemon.take().expect("a daemon runs").wait().unwrap()
    }

    pub fn unmount(&mut self) {
        self.ok(["unmount".as_ref(), self.mountpoint().as_os_str()]);
        let status = self.wait_for_exit();
        assert!(
            status.success(),
            "the daemon ended with {status}:\n{}",
            self.log()
        );
    }

    /// `check --data` finds nothing.
    #[track_caller]
    pub fn check(&self) {
        self.ok(["check", REPO, "--data"]);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- daemon's log\n{}---", self.log());
        }
        self.kill();
        let mountpoint = self.mountpoint();
        if rustix::mount::unmount(&mountpoint, rustix::mount::UnmountFlags::DETACH).is_err() {
            let _ = Command::new("fusermount3")
                .args(["-u", "-z", "-q"])
                .arg(&mountpoint)
                .status();
        }
    }
}

/// Runs a command as a user, who may mount.
pub fn by([uid, gid]: [u32; 2]) -> Command {
    let fuse = fs::metadata("/dev/fuse").map_or(gid, |device| device.gid());
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={uid}"))
        .arg(format!("--regid={gid}"))
        .arg(format!("--groups={fuse}"));
    command
}

/// Writes a file and its parents.
pub fn write(path: &Path, bytes: &[u8]) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).unwrap();
    }
    fs::write(path, bytes).unwrap();
}
