//! The staged tree, driven through the library: no mount, a repository in memory, and a commit that
//! only applies the change set.

mod support;

mod crash;
mod files;
mod names;
mod performance;
mod refresh;
mod snapshot;
mod space;
