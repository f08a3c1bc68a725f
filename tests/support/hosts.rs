//! Hosts of their own on one machine: network namespaces, each with an address that this one reaches.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// A host; it is gone when this is dropped, with what runs on it.
pub struct Host {
    namespace: String,
    /// Its own.
    pub address: Ipv4Addr,
    /// This machine's, on the line between them.
    pub ours: Ipv4Addr,
}

/// Why this machine can have no hosts of its own; none if it can.
pub fn lacking() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces take root");
    }
    let name = format!("prepub-try-{}", std::process::id());
    if !ip(&["netns", "add", &name]) {
        return Some("this kernel, or this container, makes no network namespaces");
    }
    ip(&["netns", "del", &name]);
    None
}

impl Host {
    /// The `number`th of this process, from 0 to 62.
    pub fn new(number: u8) -> Self {
        let process = std::process::id();
        let namespace = format!("prepub-{process}-{number}");
        // two tests that run at the same time have other networks, but for one in 16384
        let net = [100, 64 + (process >> 8 & 63) as u8, process as u8];
        let at = |last| Ipv4Addr::new(net[0], net[1], net[2], number * 4 + last);
        let (ours, address) = (at(1), at(2));
        let (end, far) = (
            format!("pp{process}h{number}"),
            format!("pp{process}f{number}"),
        );
        for arguments in [
            format!("netns add {namespace}"),
            format!("link add {end} type veth peer name {far} netns {namespace}"),
            format!("addr add {ours}/30 dev {end}"),
            format!("link set {end} up"),
            format!("-n {namespace} addr add {address}/30 dev {far}"),
            format!("-n {namespace} link set {far} up"),
            format!("-n {namespace} link set lo up"),
        ] {
            let done = ip(&arguments.split(' ').collect::<Vec<_>>());
            assert!(done, "ip {arguments}");
        }
        Self {
            namespace,
            address,
            ours,
        }
    }

    /// A command that will run there.
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
