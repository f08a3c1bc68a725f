//! The staged tree, driven through the library: no mount, a repository in memory, and a commit that
//! only applies the change set.

mod support;
mod times;

mod crash;
mod files;
mod names;
mod numbers;
mod params;
mod parts;
mod performance;
mod power;
mod refresh;
mod snapshot;
