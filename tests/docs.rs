//! The documentation is true: what it shows can be typed and does what it says, what it names exists, and what
//! exists is in it.
//!
//! Fences that are marked `sh` in the pages of `runs` are run, in order; other fences are not.

mod commands;
mod errors;
mod keys;
mod links;
mod page;
mod runs;
mod sources;
