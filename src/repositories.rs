//! Which repositories there are for prepub, and where each has its things.
//!
//! ```text
//! made by `prepub mkfs`     STATE/repositories/NAME/server.conf
//! made by `cvmfs_server`    /etc/cvmfs/repositories.d/NAME/server.conf, if [repository."NAME"] stands
//!                           in prepub's configuration
//! ```
//!
//! A release manager's machine may hold many repositories; prepub touches those it was told to.
//! Nothing here opens one.

use std::path::Path;

use commit::RepoHome;

use crate::config::Settings;
use crate::report::{Failure, Kind, Result};
use crate::state::State;

/// Names of the repositories that prepub serves, sorted.
///
/// # Errors
/// When the state cannot be read.
pub fn names(state: &State, settings: &Settings) -> Result<Vec<String>> {
    let mut names = state.repositories()?;
    for home in configured(settings)? {
        if !names.contains(&home.name) {
            names.push(home.name);
        }
    }
    names.sort();
    Ok(names)
}

/// Repositories of `cvmfs_server` that the configuration names.
///
/// # Errors
/// A name that cannot be one.
pub fn configured(settings: &Settings) -> Result<Vec<RepoHome>> {
    let mut homes = Vec::new();
    for name in settings.file.repository.keys() {
        let home = official(settings, name)?;
        if home.exists() {
            homes.push(home);
        }
    }
    Ok(homes)
}

/// Where a repository has its things.
///
/// # Errors
/// [`Kind::Usage`] if prepub does not serve it.
pub fn home(state: &State, settings: &Settings, name: &str) -> Result<RepoHome> {
    let own = RepoHome::embedded(state.dir(), name)?;
    if own.exists() {
        return Ok(own);
    }
    let official = official(settings, name)?;
    let is_named = settings.file.repository.contains_key(name);
    if is_named && official.exists() {
        return Ok(official);
    }
    let failure = Failure::new(Kind::Usage, format!("there is no repository {name} here"));
    if official.exists() {
        return Err(failure.hint(format!(
            "cvmfs_server made one of that name ({}); for prepub to publish it, write [repository.\"{name}\"] into {}",
            official.conf_file.display(),
            settings.config_file().display()
        )));
    }
    if is_named {
        return Err(failure.hint(format!(
            "it is named in {}, but {} is missing; `prepub mkfs {name}` makes one that cvmfs_server does not know",
            settings.config_file().display(),
            official.conf_file.display()
        )));
    }
    Err(failure.hint(match names(state, settings)?.as_slice() {
        [] => format!("`prepub mkfs {name}` makes one"),
        known => format!("registered: {}", known.join(", ")),
    }))
}

/// Where a repository that `cvmfs_server` made would have its things.
///
/// # Errors
/// A name that cannot be one.
pub fn official(settings: &Settings, name: &str) -> Result<RepoHome> {
    let root = settings.file.cvmfs_root.as_deref();
    Ok(RepoHome::official(root.unwrap_or(Path::new("/")), name)?)
}
