//! What an interrupted commit left, over the fuzzing corpus and over damaged copies of it.

#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/commit_record.rs"]
mod target;

/// Damaged inputs: records are written and synced.
const MUTATIONS: usize = 500;

#[test]
fn commit_record() {
    replay::replay("commit_record", MUTATIONS, target::commit_record);
}
