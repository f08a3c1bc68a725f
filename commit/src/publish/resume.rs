//! What became of a commit that a crash interrupted.
//!
//! The record decides where it can; where only the last step was left, the published revision does.

use std::path::Path;
use std::time::SystemTime;

use super::{CommitError, Visible};
use crate::objects;
use crate::publisher::{Publisher, PublisherError};
use crate::txn::{self, State};

/// What became of a commit that was interrupted.
#[derive(Clone, Debug, PartialEq)]
pub enum Resumed {
    /// There was none.
    None,
    /// It was done: retire the snapshot, then [`crate::txn::clear`].
    Done {
        /// The stage's id of the snapshot.
        snapshot: u64,
        /// The revision.
        visible: Box<Visible>,
    },
    /// It was not: thaw the snapshot. The record is cleared.
    NotDone {
        /// The stage's id of the snapshot.
        snapshot: u64,
    },
}

/// Gives back what a process that died held against others, with a commit or without one.
pub fn give_back(publisher: &dyn Publisher) {
    if let Err(error) = publisher.give_back() {
        // that stands in others' way, not in ours
        tracing::warn!(repo = publisher.name(), %error, "cannot give back what an earlier process held");
    }
}

/// Finds out what became of an interrupted commit. `boot_id` names this start of the machine: objects
/// that were stored before an earlier one are hashed again.
///
/// # Errors
/// When the record or, where it is not enough, the published head cannot be read; when the storage
/// cannot be.
pub fn resume(
    txn_dir: &Path,
    publisher: &dyn Publisher,
    now: SystemTime,
    boot_id: &str,
) -> Result<Resumed, CommitError> {
    give_back(publisher);
    let Some(found) = txn::find(txn_dir)? else {
        txn::clear(txn_dir)?;
        return Ok(Resumed::None);
    };
    let snapshot = found.snapshot;
    let visible = match found.state {
        State::Visible { report } => Some(report),
        State::Submitted {
            revision,
            mut report,
        } => publisher.landed(&revision, now)?.map(|visible| {
            report.stands_as(&visible);
            report
        }),
        State::Frozen | State::Stored | State::Warmed | State::Leased => None,
    };
    match visible {
        Some(visible) => Ok(Resumed::Done { snapshot, visible }),
        None => {
            let names = txn::noted_objects(txn_dir)?;
            let survived = found.boot == boot_id;
            objects::settle(&names, publisher.storage().as_ref(), survived).map_err(|source| {
                PublisherError::Storage {
                    repo: publisher.name().to_owned(),
                    what: "look through",
                    source,
                }
            })?;
            txn::clear(txn_dir)?;
            Ok(Resumed::NotDone { snapshot })
        }
    }
}
