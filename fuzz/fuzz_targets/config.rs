#![no_main]

/// The program's own modules, which no library has.
#[path = "../../src"]
#[allow(dead_code, unused_imports, reason = "the program uses all of it")]
mod program {
    pub mod api;
    pub mod config;
    pub mod report;
    pub mod serve {
        pub mod names;
    }
    pub mod state;
}
#[path = "../src/program.rs"]
#[allow(dead_code, reason = "it has two targets")]
mod target;

use program::{api, config, report, serve, state};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::config(bytes));
