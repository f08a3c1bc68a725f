#![no_main]

// what the target finds at the root of its own crate
use receiver::{age, ledger, names};

#[path = "../src/warm_ledger.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::warm_ledger(bytes));
