//! Bringing small objects to a site: against what the path carries, against a plain copy on the same disk,
//! and against a request for each object.
//!
//! The publisher's end is ours, in this process; the site is the program `prepub-receiver`, which must be
//! built beside this one (`cargo build --release -p prepub-receiver`), with its replica on a disk. All
//! figures come from one run, the best of some rounds each: `cargo bench -p prepub-commit --bench warm`,
//! with `-- --quick` for a fourth of the objects.
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

mod single;
mod site;
mod tree;

use std::time::Duration;

use site::{Figures, Site};
use tree::{Copied, Kind, Place, Tree};

/// Connections to a site, as the configuration has it where it says nothing.
const CONNECTIONS: usize = 4;
/// The path's round trip.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// What it carries.
const MEGABITS: u64 = 100;
const ROUNDS: usize = 5;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let count = if quick { 5_000 } else { 20_000 };
    println!(
        "{count} objects to one site, over {CONNECTIONS} connections; best of {ROUNDS} rounds"
    );
    let place = Place::new();
    for kind in [Kind::Text, Kind::Noise] {
        let tree = Tree::new(&place, count, kind);
        println!(
            "\n{kind}: {:.1} MB as stored, {:.0} bytes an object",
            tree.bytes as f64 / 1e6,
            tree.bytes as f64 / count as f64
        );
        let push = far(&place, &tree);
        near(&place, &tree);
        if matches!(kind, Kind::Text) {
            requests(&place, &tree, if quick { 400 } else { 2_000 }, push);
        }
    }
}

fn line(what: &str, seconds: f64, against: &str) {
    println!("  {what:<42} {seconds:>8.2} s   {against}");
}

fn path() -> Option<(Duration, u64)> {
    Some((ROUND_TRIP, MEGABITS))
}

/// The round that took the shortest.
fn best<T>(rounds: impl Iterator<Item = T>, seconds: impl Fn(&T) -> f64) -> T {
    let best = rounds.min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
    best.expect("rounds")
}

/// Pushes over the path; the seconds of one.
fn far(place: &Place, tree: &Tree) -> f64 {
    let least = tree.bytes as f64 * 8.0 / (MEGABITS * 1_000_000) as f64;
    let push = |first: usize| {
        let rounds = (0..ROUNDS).map(|_| {
            let site = Site::new(place, tree, path());
            if first > 0 {
                site.push(tree, &tree.objects[..first]);
            }
            site.push(tree, &tree.objects[first..])
        });
        best(rounds, |it| it.seconds)
    };
    let (cold, again) = (push(0), push(1));
    line("bytes over bandwidth, 100 Mbit/s", least, "");
    let against = format!("{:.2} of that; {}", cold.seconds / least, own(&cold));
    line("push, 50 ms and 100 Mbit/s", cold.seconds, &against);
    let against = format!("{:.2} of that", again.seconds / least);
    line("the same after another push", again.seconds, &against);
    cold.seconds
}

/// Pushes on loopback, and plain copies, by turns.
fn near(place: &Place, tree: &Tree) {
    let both = |_| {
        (
            Site::new(place, tree, None).push(tree, &tree.objects),
            tree.copy(place),
        )
    };
    let (pushes, copies): (Vec<Figures>, Vec<Copied>) = (0..ROUNDS).map(both).unzip();
    let push = best(pushes.into_iter(), |it| it.seconds);
    let written = best(copies.iter(), |it| it.written).written;
    let synced = best(copies.iter(), |it| it.synced).synced;
    line("plain copy (cp -a)", written, "into the page cache");
    line("plain copy, then synced", synced, "");
    let against = format!(
        "{:.2} of the synced copy, {:.2} of the other; {}",
        push.seconds / synced,
        push.seconds / written,
        own(&push)
    );
    line("push, loopback", push.seconds, &against);
}

fn own(figures: &Figures) -> String {
    let Figures {
        publisher_cpu,
        receiver_cpu,
        receiver_mb,
        ..
    } = figures;
    format!("CPU {publisher_cpu:.1} + {receiver_cpu:.1} s, receiver's peak {receiver_mb} MB")
}

/// A request for each of `some` objects, which is enough to tell how long all would take.
fn requests(place: &Place, tree: &Tree, some: usize, push: f64) {
    let site = Site::new(place, tree, path());
    let (many, few) = tree.objects[..some + some / CONNECTIONS].split_at(some);
    for (objects, connections) in [(many, CONNECTIONS), (few, 1)] {
        let seconds = single::send(&site, tree, objects, connections);
        let all = seconds * tree.objects.len() as f64 / objects.len() as f64;
        let what = match connections {
            1 => "a request an object, 1 connection".to_owned(),
            _ => format!("a request an object, {connections} connections"),
        };
        let against = format!(
            "told from {} objects in {seconds:.1} s; {:.0} times a push",
            objects.len(),
            all / push
        );
        line(&what, all, &against);
    }
}
