//! `prepub` and the real receiver, over TLS on loopback: a revision's objects are in the replica's storage
//! before it is visible, whether they are sent or fetched.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use receiver::Clock;
use receiver::config::Config;
use receiver::daemon::Daemon;
use store::{DirStore, Durability, ObjectStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::mosquitto::{Mosquitto, free_port};
use crate::support::{REPO, Sandbox, can_mount, skip_unless, write};

/// How a test waits for what must come: it fails only if that never does.
const NEVER: Duration = Duration::from_secs(60);

/// A Stratum 1 whose receiver runs in this process.
struct Site {
    dir: TempDir,
    storage: DirStore,
    running: Option<(Runtime, Daemon)>,
}

/// An address that nobody has at the moment.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("enrolments")).unwrap();
        fs::create_dir(dir.path().join("spool")).unwrap();
        let storage = DirStore::create(dir.path().join("srv"), Durability::Batch).unwrap();
        Self {
            dir,
            storage,
            running: None,
        }
    }

    /// Where its enrolment goes.
    fn enrolment(&self) -> String {
        self.enrolment_of("publisher")
    }

    /// Where one of several publishers' goes.
    fn enrolment_of(&self, publisher: &str) -> String {
        let path = self.dir.path().join("enrolments").join(publisher);
        path.with_extension("toml").to_str().unwrap().to_owned()
    }

    fn start(&mut self, listen: &str) {
        let mode = fs::metadata(self.enrolment()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let at = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let text = format!(
            "state_dir = {:?}\nenrolments = {:?}\nlocal = \"127.0.0.1:0\"\nlisten = {listen:?}\n[keep]\nheadroom = \"1MiB\"\n\
             [repository.{REPO:?}]\nstorage = {:?}\nspool = {:?}\n",
            at("state"),
            at("enrolments"),
            at("srv"),
            at("spool"),
        );
        let config = Config::parse(&text, Path::new("receiver.toml")).unwrap();
        let since = Instant::now();
        let clock = Clock {
            wall: Arc::new(|| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.unwrap().as_secs()
            }),
            steady: Arc::new(move || since.elapsed().as_secs()),
        };
        let runtime = Runtime::new().unwrap();
        let daemon = runtime.block_on(Daemon::start(config, clock)).unwrap();
        self.running = Some((runtime, daemon));
    }

    fn stop(&mut self) {
        if let Some((runtime, daemon)) = self.running.take() {
            drop(runtime.block_on(daemon.end()));
        }
    }

    /// How many objects are there; each is what it is called.
    fn objects(&self) -> usize {
        let mut count = 0;
        self.storage
            .for_each(&mut |name, _| {
                count += 1;
                store::verify(&self.storage, &name).map(drop)
            })
            .unwrap();
        count
    }

    fn heard(&self) -> u64 {
        let (_, daemon) = self.running.as_ref().unwrap();
        daemon.site.metrics.published.get()
    }

    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < NEVER, "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop();
    }
}

fn files(sandbox: &Sandbox, dir: &str, count: usize) {
    for at in 0..count {
        let path = sandbox.root().join(dir).join(at.to_string());
        write(&path, format!("{dir} {at}").repeat(at + 1).as_bytes());
    }
}

#[test]
fn a_receiver_has_the_objects_before_the_revision_is_visible() {
    let mut sandbox = Sandbox::new();
    sandbox.configure("[warm]\nname = \"stratum0\"\ncommit_anyway = false\n");
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let (mut site, at) = (Site::new(), free().to_string());
    let (url, file) = (format!("https://{at}"), site.enrolment());
    sandbox.ok(["site", "add", "cern", "--url", &url, "--output", &file]);
    site.start(&at);
    files(&sandbox, "one", 300);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "warm");
    assert_eq!(committed["stratum1"][0]["objects"], 300);
    assert_eq!(site.objects(), 300);
    site.until("told of the revision", |site| site.heard() == 1);
    // it starts anew, and what is published then arrives as well
    site.stop();
    site.start(&at);
    files(&sandbox, "two", 50);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["objects"], 50);
    assert_eq!(site.objects(), 350);
    // once it is no site any more it gets nothing
    sandbox.ok(["site", "revoke", "cern"]);
    files(&sandbox, "three", 5);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"].as_array().unwrap().len(), 0);
    assert_eq!(site.objects(), 350);
    sandbox.check();
}

#[test]
fn a_receiver_that_lets_nobody_in_fetches_the_same() {
    let mut sandbox = Sandbox::new();
    let door = free();
    sandbox.configure(&format!(
        "[warm]\nname = \"stratum0\"\ncommit_anyway = false\nlisten = \"{door}\"\nurl = \"https://{door}\"\n"
    ));
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    let mut site = Site::new();
    let file = site.enrolment();
    sandbox.ok(["site", "add", "behind-nat", "--pull", "--output", &file]);
    site.start("");
    files(&sandbox, "one", 300);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "warm");
    assert_eq!(committed["stratum1"][0]["objects"], 300);
    assert_eq!(site.objects(), 300);
    site.until("told of the revision", |site| site.heard() == 1);
    let status = sandbox.json(["status", "--sites"]);
    assert_eq!(status["sites"][0]["connected"], true);
    assert_eq!(status["sites"][0]["behind_revisions"], 0);
    // away while something is published, it catches up
    site.stop();
    sandbox.unmount();
    sandbox.configure(&format!(
        "[warm]\nname = \"stratum0\"\ndeadline = \"100ms\"\nlisten = \"{door}\"\nurl = \"https://{door}\"\n"
    ));
    sandbox.mount();
    files(&sandbox, "two", 20);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "behind");
    site.start("");
    site.until("caught up", |site| {
        site.objects() == 320 && site.heard() == 1
    });
}

#[test]
fn over_a_broker_or_without_it_the_same_is_published() {
    let mut sandbox = Sandbox::new();
    let port = free_port();
    sandbox.configure(&format!(
        "[warm]\nname = \"stratum0\"\ncommit_anyway = false\nbroker = \"mqtts://127.0.0.1:{port}\"\n"
    ));
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    sandbox.ok(["mkfs", REPO]);
    let (mut site, at) = (Site::new(), free().to_string());
    let (url, file) = (format!("https://{at}"), site.enrolment());
    // the publisher's own name would let a site announce
    let own = ["site", "add", "stratum0", "--url", &url, "--output", &file];
    assert!(sandbox.fails(2, own).contains("own name"));
    sandbox.ok(["site", "add", "cern", "--url", &url, "--output", &file]);
    let dir = site.dir.path().join("broker");
    let set_up = [
        "site",
        "broker",
        "127.0.0.1",
        "--output",
        dir.to_str().unwrap(),
    ];
    sandbox.ok(set_up);
    assert!(sandbox.fails(2, set_up).contains("is there already"));
    let mode = fs::metadata(dir.join("broker.key")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let mut broker = Mosquitto::set_up_at(port, &dir);
    site.start(&at);
    sandbox.mount();
    let trouble = |sandbox: &Sandbox| {
        let status = sandbox.json(["status", "--sites"]);
        status["broker"]["trouble"].clone()
    };
    let heard = |site: &Site| {
        let (_, daemon) = site.running.as_ref().unwrap();
        daemon.site.metrics.messages.get()
    };
    site.until("both are connected", |_| {
        trouble(&sandbox).is_null()
            && fs::read_to_string(dir.join("log"))
                .unwrap()
                .contains("cern-receiver")
    });
    files(&sandbox, "one", 100);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "warm", "{committed}");
    assert_eq!(site.objects(), 100);
    site.until("announced and published over the broker", |site| {
        heard(site) >= 2
    });
    site.until("told over HTTPS as well", |site| site.heard() >= 2);
    // without the broker all goes on
    broker.down();
    site.until("the publisher sees that", |_| !trouble(&sandbox).is_null());
    let before = heard(&site);
    files(&sandbox, "two", 20);
    let committed = sandbox.json(["commit", REPO]);
    assert_eq!(committed["stratum1"][0]["state"], "warm", "{committed}");
    assert_eq!(site.objects(), 120);
    assert_eq!(heard(&site), before);
    broker.up();
    site.until("it is back", |_| trouble(&sandbox).is_null());
}

/// One host has one address, and a certificate of each publisher: each gets to see its own.
#[test]
fn one_receiver_is_the_site_of_two_publishers() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let (mut site, at) = (Site::new(), free().to_string());
    let port = at.rsplit(':').next().unwrap();
    let publishers = ["one", "two"].map(|name| {
        let mut sandbox = Sandbox::new();
        sandbox.configure(&format!("[warm]\nname = {name:?}\ncommit_anyway = false\n"));
        sandbox.ok(["mkfs", REPO]);
        sandbox.mount();
        let (url, file) = (format!("https://localhost:{port}"), site.enrolment_of(name));
        sandbox.ok(["site", "add", "cern", "--url", &url, "--output", &file]);
        sandbox
    });
    fs::copy(site.enrolment_of("one"), site.enrolment()).unwrap();
    fs::remove_file(site.enrolment_of("one")).unwrap();
    site.start(&at);
    for (at, sandbox) in publishers.iter().enumerate() {
        files(sandbox, &format!("of-{at}"), 30);
        let committed = sandbox.json(["commit", REPO]);
        assert_eq!(committed["stratum1"][0]["state"], "warm", "{committed}");
        assert_eq!(committed["stratum1"][0]["objects"], 30);
        site.until("told of the revision", |site| site.heard() == at as u64 + 1);
    }
    assert_eq!(site.objects(), 60);
}
