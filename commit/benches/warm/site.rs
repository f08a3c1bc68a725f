//! A site: the receiver's program over an empty replica, behind a path, and a publisher that knows it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io::Write};

use commit::warm::{
    Claim, NewSite, OBJECTS_PER_PUSH, Options, Policy, Quorum, Registry, Us, Verdict, Warmer, Way,
};
use formats::warm::Listed;
use store::{DirStore, Durability};

use super::CONNECTIONS;
use super::tree::{Place, Tree, settle};
use shaper::{Shape, Shaper};

#[allow(dead_code, reason = "tests break what passes, too")]
#[path = "../../../tests/support/shaper.rs"]
mod shaper;

pub const REPO: &str = "bench.example.org";
/// Longer than any round takes.
const LONG: Duration = Duration::from_secs(3600);

/// See the module's head.
pub struct Site {
    receiver: Child,
    pub warmer: Arc<Warmer>,
    /// Where publishers call.
    pub at: SocketAddr,
    _shaper: Option<Shaper>,
}

/// What a push took.
pub struct Figures {
    pub seconds: f64,
    pub publisher_cpu: f64,
    pub receiver_cpu: f64,
    pub receiver_mb: u64,
}

impl Site {
    /// Over a path of that round trip and so many megabits a second, or on loopback.
    pub fn new(place: &Place, tree: &Tree, path: Option<(Duration, u64)>) -> Self {
        let dir = place.another();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let listen = free.expect("an address");
        let shaper = path.map(|(round_trip, megabits)| {
            Shaper::start("127.0.0.1:0", listen, Shape::of(round_trip, megabits))
        });
        let at = shaper.as_ref().map_or(listen, |shaper| shaper.address);
        let name = |name: &str| dir.join(name).display().to_string();
        DirStore::create(name("srv"), Durability::Batch).expect("a replica");
        for made in ["spool", "enrolments"] {
            fs::create_dir(name(made)).expect("a directory");
        }
        let warmer = publisher(&dir, tree);
        let enrolment = warmer.add(NewSite {
            name: "site".parse().expect("a name"),
            way: Way::Push {
                url: format!("https://{at}"),
            },
            repositories: Vec::new(),
            bandwidth: None,
        });
        let mut options = fs::OpenOptions::new();
        options.create(true).write(true).mode(0o600);
        options
            .open(name("enrolments/publisher.toml"))
            .and_then(|mut file| file.write_all(enrolment.expect("a site").text().as_bytes()))
            .expect("an enrolment");
        let text = format!(
            "state_dir = {:?}\nenrolments = {:?}\nlisten = \"{listen}\"\nlocal = \"127.0.0.1:0\"\n\
             log_level = \"warn\"\n[keep]\nheadroom = \"1MiB\"\n[repository.{REPO:?}]\nstorage = {:?}\nspool = {:?}\n",
            name("state"),
            name("enrolments"),
            name("srv"),
            name("spool"),
        );
        fs::write(name("receiver.toml"), text).expect("a configuration");
        let program = std::env::current_exe().expect("this program");
        let program = program.with_file_name("../prepub-receiver");
        let receiver = Command::new(&program)
            .args(["--config", &name("receiver.toml"), "serve"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; build it first", program.display()));
        let begun = Instant::now();
        while TcpStream::connect(listen).is_err() {
            assert!(begun.elapsed() < LONG, "the receiver never listens");
            std::thread::sleep(Duration::from_millis(10));
        }
        settle(&dir);
        Self {
            receiver,
            warmer,
            at,
            _shaper: shaper,
        }
    }

    /// Brings objects there, over connections that are made for it unless there are some; until the
    /// site says that it has everything.
    pub fn push(&self, tree: &Tree, objects: &[Listed]) -> Figures {
        let policy = Policy {
            quorum: Quorum::All,
            deadline: LONG,
            reach_within: LONG,
            commit_anyway: false,
        };
        let own = cpu("self");
        let begun = Instant::now();
        let places: Vec<Arc<dyn store::ObjectStore>> = vec![Arc::new(tree.storage.clone())];
        let list = objects.iter().copied().map(Ok);
        let claim = Claim::default();
        let push = self.warmer.begin(REPO, list, places, &claim);
        let push = push.expect("a push").expect("a site");
        let verdict = self
            .warmer
            .wait(&push, &policy, &AtomicBool::new(false), &|_| {});
        let seconds = begun.elapsed().as_secs_f64();
        assert_eq!(verdict, Verdict::Met);
        let pid = self.receiver.id().to_string();
        Figures {
            seconds,
            publisher_cpu: cpu("self") - own,
            receiver_cpu: cpu(&pid),
            receiver_mb: peak_mb(&pid),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.receiver.kill();
        let _ = self.receiver.wait();
    }
}

fn publisher(dir: &Path, tree: &Tree) -> Arc<Warmer> {
    let options = Options {
        us: Us {
            name: "stratum0".parse().expect("a name"),
            url: None,
            broker: None,
        },
        connections: CONNECTIONS,
        keep: LONG,
        objects_per_push: OBJECTS_PER_PUSH,
    };
    let storage: Arc<dyn store::ObjectStore> = Arc::new(tree.storage.clone());
    let published = Arc::new(move |_: &str| Some(Arc::clone(&storage)));
    let registry = Registry::new(dir.join("sites"));
    Warmer::open(registry, options, published, Arc::new(SystemTime::now)).expect("a warmer")
}

/// Seconds of processor that a process has used.
fn cpu(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after) = stat.rsplit_once(')').expect("a name");
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// The most resident memory that a process ever had.
fn peak_mb(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("a size") / 1024
}
