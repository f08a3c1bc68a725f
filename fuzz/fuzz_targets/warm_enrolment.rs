#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| prepub_fuzz::warm_enrolment(bytes));
