//! Memory does not grow with what comes: a million names and, where a run asks for it, gigabytes.
//!
//! The short form passes on 64 MB; `scripts/soak receiver [MEGABYTES]` (`PREPUB_RECEIVER_MEGABYTES`)
//! sends more, and prints the peak.

use formats::warm::{Listed, Missing};
use formats::{Algorithm, Hash, ObjectKind, ObjectName};
use store::ObjectStore;

use crate::support::world::World;
use crate::support::{bundle, object};

/// The most resident memory the receiver may ever have.
const PEAK_MB_MAX: u64 = 150;
const NAMES: u64 = 1_000_000;

fn peak_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[test]
fn a_million_names_and_many_bytes_in_little_memory() {
    let megabytes: u64 = std::env::var("PREPUB_RECEIVER_MEGABYTES")
        .ok()
        .map_or(64, |text| text.parse().unwrap());
    let world = World::new();
    let program = world.program("");
    let mut caller = world.call(program.at);
    // names that nobody will send
    let mut names: Vec<_> = (0..NAMES)
        .map(|n| {
            let hash = Hash::of(Algorithm::Sha1, &n.to_le_bytes());
            let name = ObjectName::new(hash, ObjectKind::Data);
            (Listed { name, bytes: 4096 }, Vec::new())
        })
        .collect();
    let missing = caller.announce("names", &names);
    assert_eq!(u64::from(missing.absent.count()), NAMES);
    // as many at one time as are answered
    std::thread::scope(|scope| {
        for mut caller in [world.call(program.at), world.call(program.at)] {
            scope.spawn(move || {
                let missing = Missing::parse(&caller.ask_again("names").body).unwrap();
                assert_eq!(u64::from(missing.absent.count()), NAMES);
            });
        }
    });
    names.truncate(0);
    names.shrink_to_fit();
    // many small ones, a few large ones, one after another so that this test needs little itself
    let mut sent = 0;
    let mut round = 0;
    while sent < megabytes << 20 {
        round += 1;
        let txn = format!("t{round}");
        let objects: Vec<_> = match round % 4 {
            0 => vec![object(round, 24 << 20)],
            _ => (0..2000)
                .map(|n| object(round * 10_000 + n, 4096))
                .collect(),
        };
        let missing = caller.announce(&txn, &objects);
        let answer = caller
            .send_raw(&txn, &missing.session, bundle(&objects))
            .unwrap();
        assert!(answer.status.is_success(), "{answer:?}");
        sent += objects.iter().map(|(listed, _)| listed.bytes).sum::<u64>();
        // gone at once, so that the disk holds out
        for (listed, _) in &objects {
            assert!(world.storage.delete(&listed.name).unwrap());
        }
    }
    let peak = peak_mb(program.pid());
    println!("receiver: peak of resident memory {peak} MB for {NAMES} names and {megabytes} MB");
    assert!(peak < PEAK_MB_MAX, "{peak} MB");
}
