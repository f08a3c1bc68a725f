//! The filesystem through a real mount, over a repository that the official tools made.
//!
//! What one operation does is tested without a mount; here it is the kernel's part: that requests
//! arrive as they were meant, and that nothing stale comes out of its caches. Where FUSE cannot be
//! used, each test says so and is passed over.
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod acl;
mod caches;
mod calls;
mod fixture;
mod many;
mod metadata;
mod operations;
mod published;
mod sessions;
mod shared;
