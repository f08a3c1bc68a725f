//! What a commit promises, seen from outside.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test that skips says so"
)]

mod support;

mod bucket;
mod catalogs;
mod conflicts;
mod faults;
mod gateway;
mod golden;
mod model;
mod official;
mod preview;
mod publish;
mod resign;
mod rmfs;
mod rollback;
mod scale;
mod server;
mod side_by_side;
mod tags;
mod virtual_dir;
mod warm;
mod warm_identity;
