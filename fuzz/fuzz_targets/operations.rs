#![no_main]

#[path = "../src/operations.rs"]
mod operations;
#[path = "../../fsimpl/tests/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "what all of fsimpl's tests share")]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| operations::operations(bytes));
