//! The names of cvmfs-prepub (`pkg/observe/metrics.go`, and two of its documentation), where they mean
//! the same as something here, so that dashboards and alerts that sites have go on. A job there is a
//! commit here. Names whose meaning is gone with its design are not served: docs/metrics.md lists them.

use store::figures::{Counter, Counters, Figures, Histograms};

use crate::api::reply::{Committed, Seconds};
use crate::report::{Kind, Result};

/// What the figure is called here.
fn see(name: &str) -> String {
    format!("cvmfs-prepub's name for what {name} says")
}

/// See the module's head.
pub struct Predecessor {
    submitted: Counter,
    completed: Counter,
    published: Counter,
    failed: Counter,
    by_class: Counters<1>,
    recovered: Counter,
    reconciled: Counters<1>,
    aborted: Counter,
    dedup_hits: Counter,
    quorum: Counters<1>,
    phases: Histograms<1>,
    duration: Histograms<0>,
    distribution: Histograms<1>,
}

impl Predecessor {
    pub fn new(figures: &mut Figures) -> Self {
        let names = Self {
            submitted: figures.counter(
                "cvmfs_prepub_jobs_submitted",
                &see("prepub_commits_begun_total"),
            ),
            completed: figures.counter("cvmfs_prepub_jobs_completed", &see("prepub_commits_total")),
            published: figures.counter("cvmfs_prepub_jobs_published", &see("prepub_commits_total")),
            failed: figures.counter("cvmfs_prepub_jobs_failed", &see("prepub_commits_total")),
            by_class: figures.counters(
                "cvmfs_prepub_job_failures_by_class",
                &see("prepub_commits_total"),
                ["class"],
            ),
            recovered: figures.counter(
                "cvmfs_prepub_jobs_recovered",
                &see("prepub_commits_recovered_total"),
            ),
            reconciled: figures.counters(
                "cvmfs_prepub_dist_reconcile",
                &see("prepub_commits_recovered_total"),
                ["action"],
            ),
            aborted: figures.counter(
                "cvmfs_prepub_pipeline_abort_count",
                &see("prepub_aborts_total"),
            ),
            dedup_hits: figures.counter(
                "cvmfs_prepub_pipeline_dedup_hits",
                &see("prepub_committed_objects_total"),
            ),
            quorum: figures.counters(
                "cvmfs_prepub_dist_warm_quorum",
                &see("prepub_warm_quorum_total"),
                ["result"],
            ),
            phases: figures.seconds(
                "cvmfs_prepub_job_phase_seconds",
                &see("prepub_commit_step_seconds"),
                ["phase"],
            ),
            duration: figures.seconds(
                "cvmfs_prepub_pipeline_duration_seconds",
                &see("prepub_commit_step_seconds"),
                [],
            ),
            distribution: figures.seconds(
                "cvmfs_prepub_distribution_duration_seconds",
                &see("prepub_site_warm_seconds"),
                ["stratum1"],
            ),
        };
        figures.also(
            "cvmfs_prepub_jobs",
            &see("prepub_commits_begun_total"),
            &names.submitted,
        );
        figures.also(
            "cvmfs_prepub_pipeline_abort",
            &see("prepub_aborts_total"),
            &names.aborted,
        );
        for class in ["transient", "permanent", "internal"] {
            names.by_class.add([class], 0);
        }
        for action in ["commit", "abort"] {
            names.reconciled.add([action], 0);
        }
        for result in ["reached", "timeout"] {
            names.quorum.add([result], 0);
        }
        for phase in ["catalog_merge", "total_s0"] {
            names.phases.show([phase]);
        }
        names.duration.show([]);
        names
    }

    pub fn begun(&self) {
        self.submitted.one();
    }

    pub fn ended(&self, result: &Result<Committed>) {
        match result {
            Ok(committed) => {
                self.completed.one();
                if committed.published {
                    self.published.one();
                    self.dedup_hits.add(committed.objects_reused);
                    let Seconds {
                        catalogs, total, ..
                    } = committed.seconds;
                    self.phases.took(["catalog_merge"], catalogs);
                    self.phases.took(["total_s0"], total);
                    self.duration.took([], total);
                }
            }
            Err(failure) => {
                self.failed.one();
                self.by_class.add([class(failure.kind)], 1);
            }
        }
    }

    pub fn recovered(&self, published: bool) {
        self.recovered.one();
        let action = if published { "commit" } else { "abort" };
        self.reconciled.add([action], 1);
    }

    pub fn aborted(&self) {
        self.aborted.one();
    }

    pub fn quorum(&self, met: bool) {
        let result = if met { "reached" } else { "timeout" };
        self.quorum.add([result], 1);
    }

    pub fn warmed(&self, site: &str, seconds: f64) {
        self.distribution.took([site], seconds);
    }

    pub fn forget_site(&self, site: &str) {
        self.distribution.forget([site]);
    }
}

/// `transient`: the same may go well later; `permanent`: not before somebody does something;
/// `internal`: the rest.
fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Busy | Kind::OpenFiles | Kind::Quorum | Kind::Unreachable => "transient",
        Kind::NotFound
        | Kind::Denied
        | Kind::NoSpace
        | Kind::Damaged
        | Kind::Expired
        | Kind::Usage
        | Kind::Conflict => "permanent",
        Kind::Failed => "internal",
    }
}
