//! Repositories in temporary directories, and change sets made by hand or from a tree.

pub mod changes;
pub mod checked;
pub mod gateway;
pub mod golden;
pub mod healthy;
pub mod official;
pub mod overlay;
pub mod proxy;
pub mod repo;
pub mod server;
pub mod tree;
pub mod upkeep;
