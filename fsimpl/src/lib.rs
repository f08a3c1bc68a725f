//! A writable tree over a published revision.
//!
//! Staged changes lie over the published tree as an overlay: names, whiteouts and directories that
//! refer to published ones. Every change is recorded before it is answered; raw bytes lie in plain
//! files until they are sealed into objects. This crate never publishes: a commit takes the
//! [`Frozen`] snapshot from here and says afterwards what became of it.
//!
//! In reading order: the words ([`types`], [`error`]), the operations ([`fs`]), one repository
//! ([`stage`]), and below it the tree, the journal, open files and the published tree; sealing
//! ([`seal`]); room on the disk ([`space`]); the mount.

mod acl;
mod aside;
mod backing;
#[cfg(test)]
mod corpus;
mod device;
pub mod error;
pub mod fs;
mod fuse;
mod handle;
mod journal;
mod lower;
mod ops;
mod pool;
pub mod probe;
pub mod seal;
pub mod session;
pub mod space;
pub mod stage;
mod sync;
mod tree;
pub mod types;
mod writers;

pub use error::{FsError, Result};
pub use fs::Fs;
pub use space::{Space, SpaceReport};
pub use stage::{
    AbortError, FLUSH_AFTER, FreezeError, Frozen, OpenFile, OpenFiles, Progress, SealFailure,
    Stage, StageConfig, StageError, StageParams, StagePolicy, StageSummary, Swept,
};
pub use types::*;
pub use writers::Writers;
