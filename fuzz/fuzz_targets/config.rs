#![no_main]

/// The program's own modules, which no library has.
#[path = "../../src"]
#[allow(
    dead_code,
    unused_imports,
    unexpected_cfgs,
    reason = "the program has all of it"
)]
mod program {
    pub mod api;
    pub mod clock;
    pub mod config;
    pub mod report;
    pub mod serve {
        pub mod names;
    }
    pub mod state;
    pub mod users;
}
#[path = "../src/program.rs"]
#[allow(dead_code, reason = "it has two targets")]
mod target;

use program::{api, clock, config, report, serve, state, users};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::config(bytes));
