//! Sequences of requests that the fuzzer found worth keeping, and random ones (fuzz/src/operations.rs).

use std::fs;
use std::path::Path;

use crate::script::operations;

/// Random sequences in this run.
const RANDOM: u64 = 150;

#[test]
fn sequences_of_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/operations");
    let mut count = 0;
    for input in fs::read_dir(corpus).unwrap() {
        operations(&fs::read(input.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus");
}

#[test]
fn random_sequences() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..RANDOM {
        let mut bytes = Vec::new();
        for _ in 0..150 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        operations(&bytes);
    }
}
