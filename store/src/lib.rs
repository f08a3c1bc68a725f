//! Where objects and root files lie, and how a published revision is read from there.
//!
//! One blocking trait ([`ObjectStore`]) and its implementations: a directory ([`dir`]), a web
//! server, read only ([`http`]), memory ([`memory`]), and a decorator that makes any of them fail
//! on demand ([`faulty`]). Nothing here knows about staging or committing, prints, reads the
//! environment or looks at the clock.

#![forbid(unsafe_code)]

pub mod dir;
pub mod error;
pub mod memory;
pub mod object_store;

pub use dir::{DirStore, Durability};
pub use error::{Result, StoreError};
pub use memory::MemoryStore;
pub use object_store::{ObjectStore, Pending, Stored, get, put, transfer, verify};
