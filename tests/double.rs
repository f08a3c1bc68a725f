//! The gateway's double (`tests/support/gateway`) is held against recordings of the real one, and
//! where `cvmfs_gateway` and `cvmfs_receiver` are installed, against them.

mod at_random;
pub mod client;
mod draft;
mod faulting;
mod leases;
mod merging;
mod payloads;
mod real;
mod wire;

use std::path::PathBuf;

use commit::RepoHome;

use crate::support::gateway::auth::Key;
use crate::support::gateway::{Gateway, MAX_LEASE};
use crate::support::{REPO, Sandbox};
use client::Client;
use draft::{Draft, Made, Snapshot};

/// A repository with a gateway before it, and a client with a key for everything.
struct Stage {
    gateway: Gateway,
    client: Client,
    sandbox: Sandbox,
    repo: &'static str,
}

impl Stage {
    fn new() -> Self {
        Self::called(REPO, vec![key("key", "/")])
    }

    fn called(repo: &'static str, keys: Vec<Key>) -> Self {
        let sandbox = Sandbox::new();
        sandbox.ok(["mkfs", repo]);
        let home = RepoHome::embedded(&sandbox.state(), repo).unwrap();
        let first = keys[0].clone();
        let gateway = Gateway::start(home, keys, MAX_LEASE);
        let client = Client::new(gateway.address(), repo, &first.id, &first.secret);
        Self {
            gateway,
            client,
            sandbox,
            repo,
        }
    }

    fn storage(&self) -> PathBuf {
        self.sandbox.state().join("srv/cvmfs").join(self.repo)
    }

    /// What is published, to be changed.
    fn draft(&self) -> Draft {
        Draft::of_head(&self.storage())
    }

    fn published(&self) -> Snapshot {
        Snapshot::of_head(&self.storage())
    }

    /// Publishes under a lease; what the gateway says to the commit.
    #[track_caller]
    fn publish(&self, path: &str, made: &Made) -> serde_json::Value {
        let token = self.client.lease(path);
        self.client.upload(&token, &made.objects);
        self.client.commit(&token, made, "")
    }

    /// The same, expected to succeed; the repository is healthy afterwards.
    #[track_caller]
    fn publishes(&self, path: &str, made: &Made) {
        let said = self.publish(path, made);
        assert_eq!(said["status"], "ok", "{said}");
        let revision = self.draft().revision;
        assert_eq!(said["final_revision"], revision);
        self.sandbox.check();
    }

    /// The same, expected to fail; nothing is published.
    #[track_caller]
    fn refuses(&self, path: &str, made: &Made) -> String {
        let before = self.draft().revision;
        let token = self.client.lease(path);
        self.client.upload(&token, &made.objects);
        let said = self.client.commit(&token, made, "");
        assert_eq!(said["status"], "error", "{said}");
        assert_eq!(self.draft().revision, before);
        self.client.drop_lease(&token);
        said["reason"].as_str().unwrap().to_owned()
    }
}

fn key(id: &str, path: &str) -> Key {
    Key {
        id: id.into(),
        secret: format!("{id}'s secret"),
        path: path.into(),
    }
}

/// What a gateway says when a receiver is gone.
fn crashed(call: &str) -> String {
    format!("worker '{call}' call failed: possible that the receiver crashed: EOF")
}
