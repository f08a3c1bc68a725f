//! Access control lists over the fuzzing corpus and over damaged copies of it.

#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/acl.rs"]
mod target;

/// Damaged inputs.
const MUTATIONS: usize = 5000;

#[test]
fn acl() {
    replay::replay("acl", MUTATIONS, target::acl);
}
