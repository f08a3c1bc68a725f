//! Repositories in temporary directories, and change sets made by hand or from a tree.

pub mod changes;
pub mod golden;
pub mod repo;
pub mod tree;
