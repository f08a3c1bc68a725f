//! A receiver over a replica's storage: in this process, or as the program.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use formats::warm::enrolment::Enrolment;
use formats::{ObjectKind, ObjectName};
use receiver::Clock;
use receiver::config::Config;
use receiver::daemon::Daemon;
use receiver::site::Site;
use store::{DirStore, Durability, ObjectStore};
use tokio::runtime::Runtime;

use super::publisher::{Caller, Publisher};
use super::{Object, REPO};

/// Files and a publisher; no receiver runs yet.
pub struct World {
    pub dir: tempfile::TempDir,
    pub publisher: Publisher,
    pub storage: DirStore,
    /// What is more in the configuration.
    pub more: String,
    /// What the replica's section says.
    pub section: String,
}

/// One that runs in this process, with a clock that can be set forward.
pub struct Running {
    pub runtime: Runtime,
    daemon: Option<Daemon>,
    pub site: Arc<Site>,
    pub at: Option<SocketAddr>,
    pub local: SocketAddr,
    passed: Arc<AtomicU64>,
    ahead: Arc<AtomicU64>,
}

/// One that runs as the program.
pub struct Program {
    child: Child,
    pub at: SocketAddr,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = dir.path().join("srv");
        let spool = dir.path().join("spool");
        fs::create_dir(&spool).unwrap();
        fs::create_dir(dir.path().join("enrolments")).unwrap();
        let section = format!(
            "storage = {:?}\nspool = {:?}\n",
            storage.to_str().unwrap(),
            spool.to_str().unwrap()
        );
        let world = Self {
            storage: DirStore::create(storage, Durability::Batch).unwrap(),
            publisher: Publisher::new(),
            more: String::new(),
            section,
            dir,
        };
        world.enrol("publisher", &world.publisher.enrolment(None, &[]));
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn enrol(&self, file: &str, enrolment: &Enrolment) -> PathBuf {
        let path = self.path("enrolments").join(format!("{file}.toml"));
        fs::write(&path, enrolment.text()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The configuration's text.
    pub fn text(&self) -> String {
        let at = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let listen = match self.more.contains("listen =") {
            true => "",
            false => "listen = \"127.0.0.1:0\"\n",
        };
        let keep = match self.more.contains("[keep]") {
            true => "",
            // whatever the disk that the tests run on has
            false => "[keep]\nheadroom = \"1MiB\"\n",
        };
        format!(
            "state_dir = {:?}\nenrolments = {:?}\nlocal = \"127.0.0.1:0\"\n{listen}{}\n{keep}[repository.{REPO:?}]\n{}",
            at("state"),
            at("enrolments"),
            self.more,
            self.section,
        )
    }

    pub fn config(&self) -> Config {
        Config::parse(&self.text(), Path::new("receiver.toml")).unwrap()
    }

    pub fn start(&self) -> Running {
        self.start_ahead(0)
    }

    /// On a machine whose clock is so many seconds ahead.
    pub fn start_ahead(&self, seconds: u64) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let [passed, ahead] = [0, seconds].map(|at| Arc::new(AtomicU64::new(at)));
        let clock = {
            let (passed, ahead) = (Arc::clone(&passed), Arc::clone(&ahead));
            let (steady, begun) = (Arc::clone(&passed), Instant::now());
            Clock {
                wall: Arc::new(move || {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                    let more = passed.load(Ordering::SeqCst) + ahead.load(Ordering::SeqCst);
                    now.as_secs() + more
                }),
                steady: Arc::new(move || begun.elapsed().as_secs() + steady.load(Ordering::SeqCst)),
            }
        };
        let daemon = runtime.block_on(Daemon::start(self.config(), clock));
        let daemon = daemon.unwrap_or_else(|e| panic!("{e:?}"));
        Running {
            site: Arc::clone(&daemon.site),
            at: daemon.listen,
            local: daemon.local,
            daemon: Some(daemon),
            runtime,
            passed,
            ahead,
        }
    }

    /// Starts the program with faults that a test wants.
    pub fn program(&self, faults: &str) -> Program {
        let config = self.path("receiver.toml");
        fs::write(&config, self.text()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_prepub-receiver"))
            .args(["--config", config.to_str().unwrap(), "serve"])
            .env("FAILPOINTS", faults)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let addresses = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("it ended: {said:?}"))
                .unwrap();
            if line.contains("taking objects on ") {
                break line;
            }
            said.push(line);
        };
        // what else it says belongs to the test's output
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| eprintln!("{l}")));
        let after = |word: &str| -> SocketAddr {
            let rest = addresses.split(word).nth(1).unwrap();
            rest.split([';', ' '])
                .next()
                .unwrap()
                .trim()
                .parse()
                .unwrap()
        };
        Program {
            at: after("taking objects on "),
            child,
        }
    }

    pub fn call(&self, at: SocketAddr) -> Caller {
        Caller::connect(&self.publisher.own(), at).expect("let in")
    }

    /// How many of these are there, each checked against its name.
    pub fn there(&self, objects: &[Object]) -> usize {
        let there = |name: &ObjectName| match store::verify(&self.storage, name) {
            Ok(_) => true,
            Err(e) if e.is_not_found() => false,
            Err(e) => panic!("{e}"),
        };
        objects
            .iter()
            .filter(|(listed, _)| there(&listed.name))
            .count()
    }

    /// Everything in the storage is what it is called, and an object of a file; nothing half made lies
    /// about. Says how many objects there are.
    pub fn sound(&self) -> usize {
        let mut count = 0;
        self.storage
            .for_each(&mut |name, _| {
                store::verify(&self.storage, &name).unwrap();
                assert!(
                    matches!(name.kind, ObjectKind::Data | ObjectKind::Chunk),
                    "{name}"
                );
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }

    pub fn half_made(&self) -> usize {
        fs::read_dir(self.path("srv/data/txn")).unwrap().count()
    }
}

impl Running {
    pub fn at(&self) -> SocketAddr {
        self.at.unwrap()
    }

    /// So much time passes.
    pub fn pass(&self, seconds: u64) {
        self.passed.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The machine's clock is wrong from now on, by so many seconds: it is ahead.
    pub fn set_ahead(&self, seconds: u64) {
        self.ahead.store(seconds, Ordering::SeqCst);
    }

    pub fn end(mut self) {
        if let Some(daemon) = self.daemon.take() {
            drop(self.runtime.block_on(daemon.end()));
        }
        self.runtime
            .shutdown_timeout(std::time::Duration::from_secs(20));
    }
}

impl Program {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; true if it was killed.
    pub fn died(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().unwrap().signal() == Some(9)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As a service manager ends it; true if that went well.
    pub fn terminate(&mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A page over plain HTTP: its first line, and all of it.
pub fn page(at: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.lines().next().unwrap_or_default().to_owned(), text)
}
