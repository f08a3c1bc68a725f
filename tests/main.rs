//! Everything that crosses rooms, in one binary; `cargo nextest run -p prepub` runs it.
//!
//! Tests that need `/dev/fuse`, root or the official CVMFS tools say so plainly when they skip.

// a test says on stderr why it skips, and what a daemon logged
#![allow(clippy::print_stderr)]

mod beside;
mod bucket;
mod cli;
mod clock;
mod containers;
mod crash;
mod damage;
mod docs;
mod double;
mod doubt;
mod faults;
mod five_sites;
mod gateway;
mod golden;
mod installs;
mod manager;
mod metrics;
mod official;
mod operations;
mod outcomes;
mod packages;
mod parts;
mod posix;
mod powerloss;
mod progress;
mod publish;
mod recipes;
mod reftest;
mod resources;
mod side_by_side;
mod space;
mod support;
mod sweep;
mod tidy;
mod transaction;
mod unmounting;
mod users;
mod warm;
mod warming;
mod workloads;
mod xattrs;
