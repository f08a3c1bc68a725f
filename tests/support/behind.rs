//! A repository with a double of its gateway, and a machine that publishes into it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commit::RepoHome;

use super::gateway::auth::Key;
use super::gateway::{Gateway, MAX_LEASE};
use super::golden::manifest_field;
use super::web::serve;
use super::{REPO, Sandbox, can_mount, skip_unless};

/// See the module.
pub struct Behind {
    pub gateway: Gateway,
    /// The gateway's own machine.
    pub stratum0: Sandbox,
    /// The one that publishes. Nothing is mounted yet.
    pub sandbox: Sandbox,
}

impl Behind {
    /// Objects go through the gateway. None where nothing can be mounted.
    pub fn new() -> Option<Self> {
        Self::made(MAX_LEASE, |_| String::new())
    }

    /// The gateway's leases last so long.
    pub fn with_leases(lease: Duration) -> Option<Self> {
        Self::made(lease, |_| String::new())
    }

    /// The gateway's storage is written by whoever publishes.
    pub fn with_storage() -> Option<Self> {
        Self::made(MAX_LEASE, |storage| format!("storage = {storage:?}\n"))
    }

    fn made(lease: Duration, storage: impl Fn(&Path) -> String) -> Option<Self> {
        if skip_unless(can_mount(), "/dev/fuse") {
            return None;
        }
        let (stratum0, sandbox) = (Sandbox::new(), Sandbox::new());
        stratum0.ok(["mkfs", REPO]);
        let home = RepoHome::embedded(&stratum0.state(), REPO).unwrap();
        let key = Key {
            id: "key".into(),
            secret: "secret".into(),
            path: "/".into(),
        };
        let gateway = Gateway::start(home, vec![key], lease);
        let own = |place: &str| -> PathBuf {
            let file = sandbox.state().join(place);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            file
        };
        let conf = own(&format!("repositories/{REPO}/server.conf"));
        fs::copy(stratum0.server_conf(), conf).unwrap();
        let public = format!("keys/{REPO}.pub");
        fs::copy(stratum0.state().join(&public), own(&public)).unwrap();
        fs::write(own(&format!("keys/{REPO}.gw")), "plain_text key secret\n").unwrap();
        let (api, front) = (gateway.address(), serve(stratum0.storage()));
        let storage = storage(&stratum0.storage());
        sandbox.configure(&format!(
            "[stage]\nsettle = \"0s\"\n[repository.\"{REPO}\"]\npublisher = \"gateway\"\n\
             [repository.\"{REPO}\".gateway]\nurl = \"http://{api}/api/v1\"\n\
             stratum0 = \"http://{front}\"\n{storage}"
        ));
        Some(Self {
            gateway,
            stratum0,
            sandbox,
        })
    }

    /// The number of the published revision.
    pub fn revision(&self) -> u64 {
        let manifest = fs::read(self.stratum0.storage().join(".cvmfspublished")).unwrap();
        manifest_field(&manifest, b'S').unwrap().parse().unwrap()
    }
}
