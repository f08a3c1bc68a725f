//! The receiver through its public face: one binary, so that it links once.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it skips, and what a program of its says"
)]

mod support;

mod broker;
mod bucket;
mod clocks;
mod crash;
mod doctor;
mod expiry;
mod manager;
mod pulling;
mod snapshots;
mod trust;
mod volume;
mod warming;
