//! What a commit promises, seen from outside.

#![allow(clippy::print_stderr, reason = "a test that skips says so")]

mod support;

mod golden;
mod model;
mod official;
mod publish;
mod resign;
mod rmfs;
mod rollback;
mod tags;
