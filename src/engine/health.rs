//! What is wrong with a stage, or would be when it is committed: a disk that fills up, limits that
//! are exceeded.

use std::time::{Duration, Instant, SystemTime};

use formats::{Hash, LimitExceeded, LimitKind, RepoPath};
use fsimpl::SpaceReport;

use super::Engine;
use super::look::changes;
use super::repo::Repo;
use crate::api::reply::{RepoStatus, Trouble};
use crate::report::{Failure, Kind, Result};

/// A look at the catalogs of a large stage takes longer than this. While changes go on, the next one
/// is then put off for some times as long.
const LONG_LOOK: Duration = Duration::from_secs(1);
const REST_OF_LOOKING: u32 = 10;

/// What a look at the catalogs depends on.
#[derive(Clone, PartialEq, Eq)]
struct Looks {
    base: Hash,
    tick: u64,
    /// A dirtab that is not sealed yet has no rules.
    unsealed_files: u64,
}

/// What a look at the catalogs found, and of what.
pub(super) struct Looked {
    at: Instant,
    took: Duration,
    of: Looks,
    exceeded: Vec<LimitExceeded>,
}

impl Engine {
    /// Adds what is wrong to a status: what stops writers or a commit is an error, the rest a warning.
    pub(super) fn describe_health(&self, repo: &Repo, status: &mut RepoStatus) {
        match repo.stage.space().report() {
            Ok(report) => describe_disk(&report, status),
            Err(error) => status.errors.push(trouble(error.into())),
        }
        if let Err(error) = repo.stage.settle_journal() {
            let failure = Failure::from(error).while_doing("changes cannot be recorded");
            status.errors.push(trouble(failure.hint_if_none(
                "writers get an error until the state directory can be written again; nothing staged is lost",
            )));
        }
        let enforced = match repo.published.home.params() {
            Ok(params) => params.limits.enforce,
            Err(error) => return status.errors.push(trouble(error.into())),
        };
        let exceeded = match self.exceeded(repo, status.unsealed_files) {
            Ok(exceeded) => exceeded,
            Err(failure) => {
                let what = "cannot see whether catalogs get too large";
                return status.warnings.push(trouble(failure.while_doing(what)));
            }
        };
        let troubles = exceeded.iter().map(|limit| limit_trouble(limit, enforced));
        match enforced {
            true => status.errors.extend(troubles),
            false => status.warnings.extend(troubles),
        }
    }

    fn exceeded(&self, repo: &Repo, unsealed_files: u64) -> Result<Vec<LimitExceeded>> {
        let mut exceeded = repo.stage.oversized_files();
        if repo.stage.entries_may_exceed()? {
            let of = Looks {
                base: repo.stage.base_root(),
                tick: repo.stage.tick(),
                unsealed_files,
            };
            exceeded.extend(self.exceeded_by_catalogs(repo, of)?);
        }
        Ok(exceeded)
    }

    /// What a commit would find, without one: the changes are applied to copies of the catalogs.
    fn exceeded_by_catalogs(&self, repo: &Repo, of: Looks) -> Result<Vec<LimitExceeded>> {
        let mut looked = repo.looked.lock();
        if let Some(looked) = &*looked {
            let rests =
                looked.took > LONG_LOOK && looked.at.elapsed() < looked.took * REST_OF_LOOKING;
            if looked.of == of || looked.of.base == of.base && rests {
                return Ok(looked.exceeded.clone());
            }
        }
        let begun = Instant::now();
        let change_set = changes(repo, &[RepoPath::root()])?;
        let work = self.scratch()?;
        let preview = commit::preview(
            &change_set,
            repo.stage.objects().as_ref(),
            repo.published.publisher(),
            SystemTime::now(),
            &work.0,
        )?;
        let mut exceeded = preview.limits;
        exceeded.retain(|limit| limit.limit != LimitKind::FileBytes);
        *looked = Some(Looked {
            at: Instant::now(),
            took: begun.elapsed(),
            of,
            exceeded: exceeded.clone(),
        });
        Ok(exceeded)
    }
}

fn describe_disk(report: &SpaceReport, status: &mut RepoStatus) {
    let place = report.dir.display();
    let left = mebibytes(report.available);
    let wanted = mebibytes(report.refused_below);
    if report.is_full() {
        let failure = Failure::new(
            Kind::NoSpace,
            format!("{left} are left in {place}; with less than {wanted} writers get ENOSPC"),
        );
        status.errors.push(trouble(failure.hint(
            "free some space on that filesystem, or commit or abort what is staged; reading and removing go on, and nothing staged is lost",
        )));
    } else if report.reserve_missing > 0 {
        let failure = Failure::new(
            Kind::NoSpace,
            format!(
                "the reserve in {place} is missing: its filesystem has no {} for it, or cannot preallocate",
                mebibytes(report.reserve_missing)
            ),
        );
        let hint = "with it, files can be removed even when others fill the disk to the last byte";
        status.warnings.push(trouble(failure.hint(hint)));
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn trouble(failure: Failure) -> Trouble {
    Trouble {
        path: None,
        failure,
    }
}

fn limit_trouble(limit: &LimitExceeded, enforced: bool) -> Trouble {
    let failure = Failure::failed(limit.to_string());
    let hint = match (enforced, limit.limit) {
        (true, LimitKind::FileBytes) => {
            "a commit will be refused: split the file, or raise CVMFS_FILE_MBYTE_LIMIT in server.conf"
        }
        (true, _) => {
            "a commit will be refused: split large directories with .cvmfscatalog or .cvmfsdirtab, or raise the limits in server.conf"
        }
        (false, _) => "clients are slow with it; a commit publishes it all the same",
    };
    Trouble {
        path: Some((&limit.path).into()),
        failure: failure.hint(hint),
    }
}
