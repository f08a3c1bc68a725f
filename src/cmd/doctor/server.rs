//! The publisher "cvmfs-server": whether it can be run, and where it works.

use std::path::PathBuf;

use commit::{CvmfsServer, Publisher};
use rustix::fs::{Access, access};

use super::{failed, fine, warn};
use crate::api::reply::Finding;
use crate::engine::server::PROGRAM;
use crate::report::Failure;

/// Looks at one repository's publisher.
pub fn look(findings: &mut Vec<Finding>, publisher: &CvmfsServer) {
    let name = publisher.name();
    match found() {
        Some(path) => fine(
            findings,
            name,
            format!("published by {}", path.display()),
        ),
        None => failed(
            findings,
            name,
            Failure::failed(format!("{PROGRAM} is not on PATH")).hint(
                "install CVMFS's server package (cvmfs-server), or start prepub with its directory on PATH",
            ),
        ),
    }
    if let Err(error) = publisher.require_owner() {
        failed(findings, name, error.into());
    }
    let union = publisher.union().display();
    match publisher.is_mounted() {
        true => fine(findings, name, format!("changes are made in {union}")),
        false => failed(
            findings,
            name,
            Failure::failed(format!("nothing is mounted on {union}"))
                .hint(format!("`cvmfs_server mount {name}` mounts it")),
        ),
    }
    match publisher.stores_ahead() {
        true => fine(
            findings,
            name,
            "its storage can be written: files are stored before the transaction",
        ),
        false => warn(
            findings,
            name,
            "its storage cannot be written from here: every byte is copied, and compressed anew, while the transaction is open",
            "where the storage is a directory, run prepub as root or as its owner",
        ),
    }
}

fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(PROGRAM))
        .find(|file| access(file, Access::EXEC_OK).is_ok())
}
