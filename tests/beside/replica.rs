//! A receiver at a Stratum 1 of the real `cvmfs_server`: what it takes is what a snapshot would have
//! fetched, and it goes on while snapshots and collections run there.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::server::{Server, mirrored};
use super::{until, write};
use crate::support::receiver;

/// Small files of a commit, each an object of its own.
const FILES: u32 = 20_000;
/// The same where there are several commits.
const FEW: u32 = 200;

/// A Stratum 1 and the receiver in front of its storage.
struct Replica {
    name: String,
    /// What `cvmfs_server snapshot` said, whenever the receiver ran it.
    said: PathBuf,
    receiver: Child,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.receiver.kill();
        let _ = self.receiver.wait();
    }
}

/// A publisher of which no revision is visible before the Stratum 1 is warm; none where one of both
/// cannot be had.
fn ready() -> Option<(Server, Replica)> {
    let program = receiver()?;
    let mut world = Server::new("root")?;
    let replica = world.add_replica()?;
    world.ok(&["snapshot", &replica]);
    world.configure("[warm]\nname = \"stratum0\"\ncommit_anyway = false\n");
    world.mount();
    let replica = Replica::start(&world, replica, &program);
    Some((world, replica))
}

impl Replica {
    fn start(world: &Server, name: String, program: &Path) -> Self {
        let dir = world.dir().join("receiver");
        let said = dir.join("said");
        fs::create_dir_all(dir.join("enrolments")).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = free.local_addr().unwrap();
        drop(free);
        let url = format!("https://{address}");
        let file = dir.join("enrolments/publisher.toml");
        let file = file.to_str().unwrap();
        world.prepub_json(&["site", "add", "site", "--url", &url, "--output", file]);
        let snapshot = format!("cvmfs_server snapshot {name} >>{} 2>&1", said.display());
        let text = format!(
            "state_dir = {:?}\nenrolments = {:?}\nlisten = \"{address}\"\nlocal = \"127.0.0.1:0\"\n\
             [keep]\nheadroom = \"1MiB\"\n\
             [snapshot]\ncommand = [\"sh\", \"-c\", {snapshot:?}]\ndelay = \"100ms\"\nretry_after = \"1s\"\n\
             [repository.{:?}]\nstorage = {:?}\nspool = \"/var/spool/cvmfs/{name}\"\n",
            dir.join("state"),
            dir.join("enrolments"),
            world.name(),
            mirrored(&name),
        );
        let config = dir.join("receiver.toml");
        fs::write(&config, text).unwrap();
        let mut receiver = Command::new(program)
            .arg("--config")
            .arg(&config)
            .arg("serve")
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let log = || fs::read_to_string(dir.join("log")).unwrap();
        until("the receiver", || match receiver.try_wait().unwrap() {
            Some(ended) => panic!("the receiver ended with {ended}: {}", log()),
            None => TcpStream::connect(address).is_ok(),
        });
        Self {
            name,
            said,
            receiver,
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn follows(&self, world: &Server) -> bool {
        let manifest = |dir: &Path| fs::read(dir.join(".cvmfspublished")).unwrap_or_default();
        manifest(&mirrored(&self.name)) == manifest(&mirrored(world.name()))
    }
}

/// Stages a directory of files that no other has.
fn stage(world: &Server, name: &str, files: u32) {
    for at in 0..files {
        let text = format!("{name} {at}\n").repeat(1 + at as usize % 50);
        write(&world.ours().join(format!("{name}/{at}")), text.as_bytes());
    }
}

#[test]
fn a_snapshot_after_warming_fetches_catalogs_alone() {
    let Some((world, replica)) = ready() else {
        return;
    };
    stage(&world, "warm", FILES);
    let done = world.prepub_json(&["commit", world.name()]);
    assert_eq!(done["stratum1"][0]["state"], "warm", "{done}");
    // the receiver runs it, as soon as it is told
    until("the catalogs at the Stratum 1", || replica.follows(&world));
    until("the snapshot's last word", || {
        replica.said().contains("new chunks")
    });
    let said = replica.said();
    // and the one file that `cvmfs_server mkfs` has made
    let of = format!("Fetched 0 new chunks out of {} ", FILES + 1);
    assert!(said.contains(&of), "{said}");
    world.judge_replica(&replica.name);
}

#[test]
fn warming_goes_on_beside_snapshots_and_collections() {
    let Some((world, replica)) = ready() else {
        return;
    };
    let over = AtomicBool::new(false);
    let (snapshots, collections) = std::thread::scope(|scope| {
        let again = |args: &'static [&'static str]| {
            let (world, over, name) = (&world, &over, replica.name.as_str());
            move || {
                let mut done = 0;
                while !over.load(Ordering::SeqCst) {
                    let args = [args, &[name]].concat();
                    // one refuses while the other runs, or the receiver's own snapshot does
                    done += u32::from(world.try_run(&args));
                }
                done
            }
        };
        let snapshots = scope.spawn(again(&["snapshot"]));
        let collections = scope.spawn(again(&["gc", "-r", "0", "-f"]));
        for round in 0..6 {
            stage(&world, &format!("round-{round}"), FEW);
            // comes and goes: what a collection takes is published again later
            stage(&world, &format!("again-{}", round % 2), FEW);
            if round > 0 {
                let gone = world.ours().join(format!("again-{}", (round - 1) % 2));
                fs::remove_dir_all(gone).unwrap();
            }
            let done = world.prepub_json(&["commit", world.name()]);
            assert_eq!(done["stratum1"][0]["state"], "warm", "{done}");
        }
        over.store(true, Ordering::SeqCst);
        (snapshots.join().unwrap(), collections.join().unwrap())
    });
    eprintln!("{snapshots} snapshots and {collections} collections beside six commits");
    assert!(snapshots > 0 && collections > 0);
    until("the receiver's own snapshot", || {
        world.try_run(&["snapshot", &replica.name]) && replica.follows(&world)
    });
    world.judge_replica(&replica.name);
    world.ok(&["gc", "-r", "0", "-f", &replica.name]);
    world.judge_replica(&replica.name);
}
