//! A repository with a double of its gateway, and a machine that publishes into it.

use std::fs;
use std::path::PathBuf;

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
    /// None where nothing can be mounted.
    pub fn new() -> Option<Self> {
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
        let gateway = Gateway::start(home, vec![key], MAX_LEASE);
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
        sandbox.configure(&format!(
            "[stage]\nsettle = \"0s\"\n[repository.\"{REPO}\"]\npublisher = \"gateway\"\n\
             [repository.\"{REPO}\".gateway]\nurl = \"http://{api}/api/v1\"\n\
             stratum0 = \"http://{front}\"\n"
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
