#![no_main]

#[path = "../src/journal.rs"]
#[allow(dead_code, reason = "what the corpus is made with")]
mod journal;
#[path = "../../fsimpl/tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what all of fsimpl's tests share")]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| journal::journal(bytes));
