//! What is wrong with a stage, or would be when it is committed: a disk that fills up.

use fsimpl::SpaceReport;

use super::repo::Repo;
use crate::api::reply::{RepoStatus, Trouble};
use crate::report::{Failure, Kind};

/// Adds what is wrong to a status: what stops writers is an error, the rest a warning.
pub(super) fn describe_health(repo: &Repo, status: &mut RepoStatus) {
    match repo.stage.space().report() {
        Ok(report) => describe_disk(&report, status),
        Err(error) => status.errors.push(trouble(error.into())),
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
