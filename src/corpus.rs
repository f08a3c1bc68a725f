//! What people and programs hand in, over the fuzzing corpus and over damaged copies of it.

#[path = "../fuzz/src/replay.rs"]
mod replay;
#[path = "../fuzz/src/program.rs"]
mod targets;

use replay::replay;

/// Damaged inputs per target.
const MUTATIONS: usize = 5000;

#[test]
fn config() {
    replay("config", MUTATIONS, targets::config);
}

#[test]
fn control() {
    replay("control", MUTATIONS, targets::control);
}
