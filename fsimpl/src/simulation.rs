//! The crate under a scheduler: one seed, one schedule.
//!
//! The same sources, but `sync` is the simulation's, which runs threads by turns. The journal's
//! engine and files are real; nobody waits for their threads with anything held. Built as a test of
//! its own, so that the program has no trace of it. How to repeat a failure: CONTRIBUTING.md.

// what only the mount or the program uses is not used here
#![allow(dead_code, unused_imports)]

// the support of the other tests names the crate
extern crate self as fsimpl;

mod acl;
mod aside;
mod backing;
mod error;
mod fs;
mod handle;
mod journal;
mod lower;
mod ops;
mod pool;
mod seal;
mod space;
mod stage;
mod tree;
mod types;
mod writers;

#[path = "../tests/support/mod.rs"]
mod support;

mod simulation {
    pub(crate) mod lot;
    pub(crate) mod schedule;
    pub(crate) mod sync;

    mod area;
    mod parts;
    pub(crate) mod runs;
    mod snapshots;
    mod storm;
}

pub use error::{FsError, Result};
pub use fs::Fs;
pub(crate) use simulation::sync;
pub use space::{Space, SpaceReport};
pub use stage::{
    AbortError, FreezeError, Frozen, OpenFile, OpenFiles, Progress, SealFailure, Stage,
    StageConfig, StageError, StageParams, StagePolicy, StageSummary, Swept,
};
pub use types::*;
pub use writers::Writers;

fn main() {
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, simulation::runs::tests()).exit();
}
