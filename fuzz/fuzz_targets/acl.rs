#![no_main]

#[path = "../../fsimpl/src/acl.rs"]
#[allow(dead_code, reason = "the stage uses all of it")]
mod acl;
#[path = "../src/acl.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::acl(bytes));
