//! One publisher and five Stratum 1s, each a host of its own behind a path of its own.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use formats::ObjectName;
use store::{DirStore, Durability, ObjectStore};
use tempfile::TempDir;

use crate::support::golden::manifest_field;
use crate::support::hosts::{self, Host};
use crate::support::shaper::{Shape, Shaper};
use crate::support::{REPO, Sandbox, can_mount, receiver, skip_unless, web, write};

/// Small files, each an object of its own.
const FILES: usize = 20_000;
/// How a test waits for what must come: it fails only if that never does.
const NEVER: Duration = Duration::from_secs(120);

/// A Stratum 1 with its receiver.
struct Site {
    name: String,
    dir: TempDir,
    storage: DirStore,
    shaper: Shaper,
    receiver: Option<Child>,
    host: Host,
}

/// A publisher with a mounted repository, and its receivers' program; none where hosts cannot be had.
fn ready(more: &str) -> Option<(Sandbox, PathBuf)> {
    if skip_unless(can_mount(), "/dev/fuse") {
        return None;
    }
    if let Some(lacking) = hosts::lacking() {
        skip_unless(false, lacking);
        return None;
    }
    let program = receiver()?;
    let mut sandbox = Sandbox::new();
    let strict = "[warm]\nname = \"stratum0\"\ncommit_anyway = false\n";
    sandbox.configure(&format!("{strict}{more}"));
    sandbox.ok(["mkfs", REPO]);
    sandbox.mount();
    Some((sandbox, program))
}

impl Site {
    fn new(sandbox: &Sandbox, number: u8, shape: Shape, program: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(number);
        let target = SocketAddr::from((host.address, 8443));
        let mut site = Self {
            name: format!("site{number}"),
            storage: DirStore::create(dir.path().join("srv"), Durability::Batch).unwrap(),
            shaper: Shaper::start(&format!("{}:0", host.ours), target, shape),
            receiver: None,
            dir,
            host,
        };
        fs::create_dir(site.path("enrolments")).unwrap();
        fs::create_dir(site.path("spool")).unwrap();
        let url = format!("https://{}", site.shaper.address);
        let file = site.path("enrolments/publisher.toml");
        let file = file.to_str().unwrap();
        sandbox.ok(["site", "add", &site.name, "--url", &url, "--output", file]);
        let text = format!(
            "state_dir = {:?}\nenrolments = {:?}\nlisten = \"0.0.0.0:8443\"\n[keep]\nheadroom = \"1MiB\"\n\
             [repository.{REPO:?}]\nstorage = {:?}\nspool = {:?}\n",
            site.path("state"),
            site.path("enrolments"),
            site.path("srv"),
            site.path("spool"),
        );
        let config = site.path("receiver.toml");
        fs::write(&config, text).unwrap();
        let child = site
            .host
            .command(program)
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(fs::File::create(site.path("log")).unwrap())
            .spawn()
            .unwrap();
        site.receiver = Some(child);
        let begun = Instant::now();
        while TcpStream::connect(target).is_err() {
            assert!(begun.elapsed() < NEVER, "{} never listens", site.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn names(&self) -> BTreeSet<ObjectName> {
        names(&self.storage)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            let _ = receiver.kill();
            let _ = receiver.wait();
        }
    }
}

/// Every object of files there; each is what it is called.
fn names(store: &DirStore) -> BTreeSet<ObjectName> {
    let mut names = BTreeSet::new();
    let mut one = |name: ObjectName, _| {
        if formats::warm::list::may_travel(&name) {
            store::verify(store, &name)?;
            names.insert(name);
        }
        Ok(())
    };
    store.for_each(&mut one).unwrap();
    names
}

#[test]
fn a_path_that_spoils_and_breaks_is_gone_on_over() {
    let Some((sandbox, program)) = ready("reach_within = \"60s\"\n") else {
        return;
    };
    let shape = Shape::of(Duration::from_millis(10), 40);
    let site = Site::new(&sandbox, 10, shape, &program);
    for at in 0..300_u32 {
        let path = sandbox.root().join(at.to_string());
        let noise = |n: u32| (at * 7919 + n).wrapping_mul(2_654_435_761).to_le_bytes();
        write(&path, &(0..4096).flat_map(noise).collect::<Vec<u8>>());
    }
    let over = Arc::new(AtomicBool::new(false));
    let breaking = std::thread::scope(|scope| {
        let breaking = scope.spawn(|| {
            let mut times = 0;
            // each once some of it came through
            for bytes in (1..4).map(|n| n * 500_000) {
                while site.shaper.bytes_there() < bytes && !over.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                match times {
                    0 => site.shaper.corrupt_next(),
                    1 => site.shaper.cut(),
                    _ => {
                        site.shaper.set_silent(true);
                        std::thread::sleep(Duration::from_millis(500));
                        site.shaper.set_silent(false);
                    }
                }
                times += 1;
            }
            times
        });
        let committed = sandbox.json(["commit", REPO]);
        over.store(true, Ordering::SeqCst);
        assert_eq!(committed["stratum1"][0]["state"], "warm", "{committed}");
        breaking.join().unwrap()
    });
    assert_eq!(breaking, 3);
    let published = names(&DirStore::open(sandbox.storage(), Durability::Batch).unwrap());
    assert_eq!(site.names(), published);
}

/// Says which sites lacked an object of the new revision at the moment it became visible.
fn watch(
    sandbox: &Sandbox,
    sites: &[Site],
    over: Arc<AtomicBool>,
) -> std::thread::JoinHandle<Option<Vec<usize>>> {
    let manifest = sandbox.storage().join(".cvmfspublished");
    let before = fs::read(&manifest).unwrap();
    let places: Vec<PathBuf> = sites.iter().map(|site| site.path("srv/data")).collect();
    std::thread::spawn(move || {
        while !over.load(Ordering::SeqCst) {
            if fs::read(&manifest).unwrap() != before {
                return Some(places.iter().map(|place| files_below(place)).collect());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    })
}

fn files_below(dir: &Path) -> usize {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten();
    files.filter(|entry| entry.file_type().is_file()).count()
}

#[test]
fn all_are_warm_before_the_revision_is_visible() {
    let Some((sandbox, program)) = ready("") else {
        return;
    };
    let near = Shape::of(Duration::ZERO, 1000);
    let far = Shape::of(Duration::from_millis(50), 100);
    let narrow = Shape::of(Duration::from_millis(20), 50);
    let lossy = Shape {
        loses_one_in: 200,
        ..Shape::of(Duration::from_millis(10), 200)
    };
    let farthest = Shape::of(Duration::from_millis(200), 200);
    let sites: Vec<Site> = (0..)
        .zip([near, far, narrow, lossy, farthest])
        .map(|(number, shape)| Site::new(&sandbox, number, shape, &program))
        .collect();
    for at in 0..FILES {
        let path = sandbox.root().join(format!("{}/{at}", at % 100));
        write(
            &path,
            format!("object {at}\n").repeat(1 + at % 50).as_bytes(),
        );
    }
    let over = Arc::new(AtomicBool::new(false));
    let watcher = watch(&sandbox, &sites, over.clone());
    let committed = sandbox.json(["commit", REPO]);
    over.store(true, Ordering::SeqCst);
    let at_the_flip = watcher.join().unwrap().expect("a new manifest");
    assert!(
        at_the_flip.iter().all(|objects| *objects == FILES),
        "{at_the_flip:?}"
    );
    let said = committed["stratum1"].as_array().unwrap();
    assert_eq!(said.len(), sites.len());
    assert!(said.iter().all(|site| site["state"] == "warm"), "{said:?}");
    eprintln!("warm in {} s: {said:?}", committed["seconds"]["warm"]);
    let published = names(&DirStore::open(sandbox.storage(), Durability::Batch).unwrap());
    assert_eq!(published.len(), FILES);
    for site in &sites {
        assert_eq!(site.names(), published, "{}", site.name);
    }
    sandbox.check();
    snapshots(&sandbox, &sites);
}

/// The official tools replicate what was published, and find every object there.
fn snapshots(sandbox: &Sandbox, sites: &[Site]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).any(|dir| dir.join("cvmfs_swissknife").is_file());
    if skip_unless(
        installed,
        "cvmfs_swissknife on PATH, which is what takes a snapshot",
    ) {
        return;
    }
    let url = sandbox.json(["status", REPO])["repositories"][0]["url"].clone();
    let url = url.as_str().unwrap();
    let key = sandbox.state().join(format!("keys/{REPO}.pub"));
    for site in sites {
        let storage = site.path("srv");
        let (temporary, scratch) = (storage.join("data/txn"), site.path("scratch"));
        fs::create_dir_all(&scratch).unwrap();
        let served = format!("http://{}", web::serve(storage.clone()));
        let upstream = format!("local,{},{}", temporary.display(), storage.display());
        let said = run(Command::new("cvmfs_swissknife")
            .args([
                "pull", "-m", REPO, "-u", url, "-w", &served, "-r", &upstream, "-n", "4",
            ])
            .args(["-t", "10", "-a", "2", "-i", "-x"])
            .arg(&scratch)
            .arg("-k")
            .arg(&key)
            .arg("-R")
            .arg(scratch.join("reflog.chksum")));
        assert!(said.contains("fetched 0 new chunks out of 20000"), "{said}");
        run(Command::new("cvmfs_swissknife")
            .args(["check", "-c", "-l", "2", "-N", REPO, "-r"])
            .arg(&storage)
            .arg("-t")
            .arg(&scratch)
            .arg("-k")
            .arg(&key)
            .arg("-R")
            .arg(scratch.join("reflog.chksum")));
        run(Command::new("cvmfs_swissknife")
            .args(["scrub", "-r"])
            .arg(storage.join("data")));
        let root =
            |dir: &Path| manifest_field(&fs::read(dir.join(".cvmfspublished")).unwrap(), b'C');
        assert_eq!(root(&storage), root(&sandbox.storage()));
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
