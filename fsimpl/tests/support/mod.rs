//! What the tests stand on.

pub mod bench;
pub mod published;

pub use bench::{Bench, NOBODY, ROOT, Rehashed, names, path};
pub use published::{Published, dir, file, link};
