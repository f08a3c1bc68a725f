//! Random operations, judged by a model: the staging tree behaves as an ordinary filesystem, through
//! the library and through a mount, over commits, aborts, restarts and kills (promises 1, 3, 4, 5).
//!
//! A run draws operations ([`ops`]) from a seed ([`draw`]), asks the model ([`model`]) what each has to
//! answer and what is visible and published then, and compares with a subject ([`judge`]). The model
//! itself is judged by a plain directory ([`plain`]). A failing list is made short and printed.
//!
//! ```text
//! PREPUB_SEED=n          this seed alone
//! PREPUB_REFTEST_SEEDS   how many seeds
//! PREPUB_REFTEST_OPS     operations of each
//! ```

mod draw;
mod judge;
mod library;
mod model;
mod mounted;
mod ops;
mod plain;
pub mod published;

use std::time::Duration;

use crate::support::{can_mount, is_root, skip_unless};
use draw::Abilities;
use judge::Terms;
use library::Library;
use model::Rules;
use mounted::Mounted;
use plain::Plain;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// The seeds of this run.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    if let Some(seed) = setting("PREPUB_SEED") {
        return seed..seed + 1;
    }
    1..1 + setting("PREPUB_REFTEST_SEEDS").unwrap_or(usual)
}

fn operations(usual: usize) -> usize {
    setting("PREPUB_REFTEST_OPS").map_or(usual, |n| usize::try_from(n).unwrap())
}

/// What the process itself is.
fn rules() -> Rules {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .map_or(0o022, |text| u16::from_str_radix(text.trim(), 8).unwrap());
    Rules {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        umask,
    }
}

/// The model is right: a plain directory behaves as it says.
#[test]
fn plain_directory() {
    let can = Abilities {
        stage: false,
        kill: false,
        root: is_root(),
        devices: false,
        any_target: true,
    };
    let terms = Terms {
        can,
        rules: rules(),
        stride: 8,
        dir_sizes: false,
        shrink: Duration::from_secs(20),
    };
    for seed in seeds(40) {
        let dir = tempfile::tempdir().unwrap();
        let count = std::cell::Cell::new(0);
        let fresh = |_| {
            count.set(count.get() + 1);
            let root = dir.path().join(count.get().to_string());
            std::fs::create_dir(&root).unwrap();
            Plain::new(root)
        };
        judge::explore(seed, operations(400), &terms, &fresh);
    }
}

/// The staging tree through the library's operations.
#[test]
fn library() {
    let can = Abilities {
        stage: true,
        kill: false,
        root: true,
        devices: true,
        any_target: true,
    };
    let terms = Terms {
        can,
        rules: Rules {
            // root keeps set-ID bits when it writes
            uid: 0,
            gid: 100,
            umask: 0o027,
        },
        stride: 8,
        dir_sizes: true,
        shrink: Duration::from_secs(60),
    };
    for seed in seeds(40) {
        judge::explore(seed, operations(400), &terms, &|seed| {
            Library::new(seed, terms.rules)
        });
    }
}

/// The staging tree through a mount and the program.
#[test]
fn mounted() {
    if skip_unless(can_mount(), "/dev/fuse") {
        return;
    }
    let can = Abilities {
        stage: true,
        kill: true,
        root: is_root(),
        devices: false,
        any_target: false,
    };
    let terms = Terms {
        can,
        rules: rules(),
        stride: 10,
        dir_sizes: true,
        shrink: Duration::from_secs(120),
    };
    for seed in seeds(4) {
        judge::explore(seed, operations(300), &terms, &Mounted::new);
    }
}
