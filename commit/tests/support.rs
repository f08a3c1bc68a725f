//! Repositories in temporary directories, and change sets made by hand or from a tree.

pub mod bucket;
pub mod changes;
pub mod checked;
pub mod gateway;
pub mod golden;
pub mod healthy;
pub mod node;
pub mod official;
pub mod overlay;
pub mod proxy;
pub mod repo;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../store/tests/support/s3.rs"]
pub mod s3;
#[allow(dead_code, reason = "another room's, who needs all of it")]
#[path = "../../store/tests/support/s3_proxy.rs"]
pub mod s3_proxy;
pub mod server;
pub mod site;
pub mod sites;
pub mod stratum1;
pub mod tree;
pub mod upkeep;

/// The double of a gateway, which the workspace's tests hold against the real one.
#[path = "../../tests/support"]
mod shared {
    #[allow(dead_code, reason = "what other tests need of it")]
    pub mod gateway;
}
