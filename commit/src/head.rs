//! What every publisher reads of the published head: that it is in order, and its tags.
//!
//! Nothing here writes to a storage.

use std::path::Path;
use std::time::{Duration, SystemTime};

use store::{Head, Repository};

use crate::home::HomeError;
use crate::publisher::PublisherError;
use crate::records::{self, RecordsError};

/// The published head, verified, and for how long its whitelist is valid.
///
/// # Errors
/// When it cannot be verified, or its whitelist has expired.
pub(crate) fn verified(
    repository: &Repository,
    now: SystemTime,
) -> Result<(Head, Duration), PublisherError> {
    let repo = || repository.name().to_owned();
    let head = repository.head(now).map_err(|source| {
        if source.is_expired() {
            return PublisherError::WhitelistExpired { repo: repo() };
        }
        PublisherError::Head {
            repo: repo(),
            source,
        }
    })?;
    match head.whitelist().remaining(now) {
        Some(left) => Ok((head, left)),
        None => Err(PublisherError::WhitelistExpired { repo: repo() }),
    }
}

/// The head for those who ask what was published: an expired whitelist does not make a revision less
/// visible.
///
/// # Errors
/// When it cannot be read, or, the whitelist's term apart, verified.
pub(crate) fn visible(repository: &Repository, now: SystemTime) -> Result<Head, PublisherError> {
    match verified(repository, now) {
        Ok((head, _)) => Ok(head),
        Err(PublisherError::WhitelistExpired { .. }) => {
            repository
                .unverified_head()
                .map_err(|source| PublisherError::Head {
                    repo: repository.name().to_owned(),
                    source,
                })
        }
        Err(error) => Err(error),
    }
}

/// Refuses a tag that is set already. Files in the making lie below `work_dir`.
///
/// # Errors
/// [`PublisherError::TagExists`].
pub(crate) fn require_free_tag(
    repository: &Repository,
    head: &Head,
    name: &str,
    work_dir: &Path,
) -> Result<(), PublisherError> {
    let unreadable = |source| PublisherError::records(repository.name(), source);
    let (store, work) = (repository.store().as_ref(), work(work_dir)?);
    let history = records::read_history(store, head.manifest().history, work.path());
    let Some(history) = history.map_err(unreadable)? else {
        return Ok(());
    };
    let taken = history
        .tag(name)
        .map_err(|source| unreadable(RecordsError::History(source)))?;
    match taken {
        Some(tag) => Err(PublisherError::TagExists {
            name: tag.name,
            revision: tag.revision,
        }),
        None => Ok(()),
    }
}

/// A directory below `dir` for files in the making, gone when it is dropped.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn work(dir: &Path) -> Result<tempfile::TempDir, PublisherError> {
    let make = || {
        std::fs::create_dir_all(dir)?;
        tempfile::tempdir_in(dir)
    };
    make().map_err(|source| {
        PublisherError::Home(HomeError::Write {
            path: dir.to_path_buf(),
            source,
        })
    })
}
