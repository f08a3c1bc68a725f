//! What clients read of a repository, and whether it is what we publish.
//!
//! Asked once, without credentials, as any client asks; no cache is told to step aside. Nothing here
//! changes anything.

use std::time::Duration;

use store::{HttpOptions, HttpStore, ObjectStore};

use crate::report::{Failure, Result};

const MANIFEST: &str = ".cvmfspublished";
/// A client's own patience is not much longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Compares the manifest at `url` with the storage's.
///
/// # Errors
/// Clients cannot read it, or read another; the failure says which, and what to do.
pub fn look(url: &str, storage: &dyn ObjectStore) -> Result<()> {
    let options = HttpOptions {
        connect_timeout: PATIENCE,
        read_timeout: PATIENCE,
        attempts: 1,
        ..HttpOptions::default()
    };
    let unreadable = |error: store::StoreError| {
        Failure::failed(format!("clients cannot read {url}"))
            .because(&error)
            .hint("let everybody read there (a policy of the bucket, CVMFS_S3_X_AMZ_ACL, the web server's rules), or set CVMFS_STRATUM0 in server.conf to where it is served")
    };
    let front = HttpStore::new(url, options).map_err(unreadable)?;
    let theirs = front.read_root(MANIFEST).map_err(unreadable)?;
    if theirs == storage.read_root(MANIFEST)? {
        return Ok(());
    }
    Err(
        Failure::failed(format!("clients read another revision at {url}")).hint(
            "a cache shows the newest revision a minute later (max-age=61); if it stays, the URL (CVMFS_STRATUM0 in server.conf) leads elsewhere",
        ),
    )
}
