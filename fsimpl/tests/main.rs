//! The staged tree, driven through the library: no mount, a repository in memory, and a commit that
//! only applies the change set.

#[path = "../../fuzz/src/journal.rs"]
mod records;
#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[path = "../../fuzz/src/operations.rs"]
mod script;
mod support;
mod times;

mod crash;
mod files;
mod journal;
mod names;
mod numbers;
mod open_files;
mod operations;
mod params;
mod parts;
mod performance;
mod power;
mod readers;
mod refresh;
mod side_by_side;
mod snapshot;
mod space;
