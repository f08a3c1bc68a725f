//! What a receiver finds of its own, over the fuzzing corpus and over damaged copies of it.

#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/warm_ledger.rs"]
mod target;

/// Damaged inputs: each makes two ledgers, and syncs them.
const MUTATIONS: usize = 300;

#[test]
fn warm_ledger() {
    replay::replay("warm_ledger", MUTATIONS, target::warm_ledger);
}
