//! What can go wrong when `cvmfs_server` publishes for us.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use formats::path::RepoPath;
use store::{RepoError, StoreError};

use super::compare::Difference;

/// Why `cvmfs_server` did not publish, or not what was staged.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It cannot be run.
    #[error("cannot run {}; is it installed, and on prepub's PATH?", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused, or failed.
    #[error("`cvmfs_server {verb}` {status}: {said}")]
    Refused {
        /// What it was asked to do.
        verb: &'static str,
        /// Its exit code in words.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// It did not come to an end.
    #[error("`cvmfs_server {verb}` has not ended within {} s and was stopped: {said}", limit.as_secs())]
    TimedOut {
        /// What it was asked to do.
        verb: &'static str,
        /// How long it had.
        limit: Duration,
        /// The end of what it said.
        said: String,
    },
    /// We are somebody else.
    #[error(
        "the repository belongs to user {owner}, and prepub runs as user {me}; run it as that user or as root"
    )]
    NotOwner {
        /// `CVMFS_USER`.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// A storage that this publisher is not for.
    #[error("its changes go through a gateway; write publisher = \"gateway\" for it")]
    ThroughGateway,
    /// Data that is not in the storage.
    #[error(
        "it publishes files as external data (CVMFS_EXTERNAL_DATA), which prepub has no part in; use `cvmfs_server` itself"
    )]
    ExternalData,
    /// Where changes are made.
    #[error(
        "{} is not writable although a transaction is open; `cvmfs_server mount {repo}` mounts it, `prepub doctor {repo}` looks further",
        union.display()
    )]
    NotWritable {
        /// The mount.
        union: PathBuf,
        /// The repository.
        repo: String,
    },
    /// Somebody aborted our transaction.
    #[error("somebody ended the transaction of this commit; nothing was published, commit again")]
    Taken,
    /// A change could not be made in the transaction.
    #[error("cannot {what} {path} in {}", union.display())]
    Apply {
        /// What.
        what: &'static str,
        /// Where.
        path: RepoPath,
        /// The mount.
        union: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount itself.
    #[error("cannot use {}", union.display())]
    Union {
        /// The mount.
        union: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes of a file.
    #[error("cannot read the bytes of {path}")]
    Content {
        /// Of which.
        path: RepoPath,
        /// Why.
        source: StoreError,
    },
    /// Bytes of a file, too few or too many.
    #[error("{path} should have {wanted} bytes, and its objects hold {found}")]
    Length {
        /// Of which.
        path: RepoPath,
        /// What its objects hold.
        found: u64,
        /// What its entry says.
        wanted: u64,
    },
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] store::Injected),
    /// Catalogs of either side.
    #[error("cannot compare revisions")]
    Revisions(#[source] RepoError),
    /// What was published is not what was staged.
    #[error(
        "revision {revision} is published, and in it {} not as staged; look at them, then commit again: what is staged is kept",
        paths(.named.len() as u64 + .more)
    )]
    Differs {
        /// What was published.
        revision: u64,
        /// Where it differs, up to a limit.
        named: Vec<Difference>,
        /// How many more there are.
        more: u64,
    },
}

fn paths(number: u64) -> String {
    match number {
        1 => "1 path is".to_owned(),
        n => format!("{n} paths are"),
    }
}
