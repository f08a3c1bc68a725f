#![no_main]

// what txn.rs finds at the root of its own crate
use commit::{publish, publisher};

#[path = "../src/commit_record.rs"]
mod target;
#[path = "../../commit/src/txn.rs"]
#[allow(dead_code, reason = "a commit uses all of it")]
mod txn;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::commit_record(bytes));
