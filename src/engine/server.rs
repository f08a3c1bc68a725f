//! What the publisher "cvmfs-server" needs, out of the repository's own configuration.

use std::path::PathBuf;
use std::sync::Arc;

use commit::{CvmfsServerOptions, RepoHome};
use formats::server_conf::Upstream;
use rustix::fs::{Access, access};
use store::{HttpOptions, HttpStore, ObjectStore};

use crate::report::{Failure, Result};
use crate::state::State;

/// Looked for on `PATH`.
pub const PROGRAM: &str = "cvmfs_server";

/// Finds storage and Stratum 0 of a repository that `cvmfs_server` made.
///
/// # Errors
/// [`crate::report::Kind::Usage`] for a repository that it did not make; a storage or URL that cannot be
/// used.
pub fn options(state: &State, home: &RepoHome) -> Result<CvmfsServerOptions> {
    if !home.is_foreign {
        return Err(Failure::usage(format!(
            "cvmfs_server does not know {}: prepub made it",
            home.name
        ))
        .hint(format!(
            "take `publisher` out of [repository.\"{}\"]: prepub publishes it itself",
            home.name
        )));
    }
    let storage = writable_storage(home)?;
    let published: Arc<dyn ObjectStore> = match &storage {
        Some(storage) => Arc::clone(storage),
        None => {
            let conf = home.conf()?;
            let url = conf.stratum0_url().map_err(|error| {
                Failure::usage(format!(
                    "the storage of {} cannot be written from here, and its URL is not known",
                    home.name
                ))
                .because(&error)
            })?;
            Arc::new(HttpStore::new(url, HttpOptions::default())?)
        }
    };
    Ok(CvmfsServerOptions {
        published,
        storage,
        program: PathBuf::from(PROGRAM),
        // ours even where the repository's places are those of cvmfs_server
        spool_dir: state.dir().join("spool").join(&home.name),
    })
}

/// The storage, if it is a directory in which we may put objects.
fn writable_storage(home: &RepoHome) -> Result<Option<Arc<dyn ObjectStore>>> {
    let conf = home.conf()?;
    let Ok(Upstream::Local { storage, .. }) = conf.upstream() else {
        return Ok(None);
    };
    let places = [storage.join("data"), storage.join("data/txn")];
    let writable = |place: &PathBuf| access(place, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    match places.iter().all(writable) {
        true => Ok(Some(home.storage()?)),
        false => Ok(None),
    }
}
