//! What a commit promises, seen from outside.

#![allow(clippy::print_stderr, reason = "a test that skips says so")]

mod support;

mod golden;
mod publish;
