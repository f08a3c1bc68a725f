//! Repositories in temporary directories, and change sets made by hand.

pub mod changes;
pub mod repo;
