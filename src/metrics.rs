//! What is counted while the daemon works, for `/metrics`: commits, how they ended, where their time
//! went. `page` adds what is so at the moment somebody asks. docs/metrics.md lists all of it.
//!
//! Labels are repositories that are open, sites that are registered, and words of ours; whoever asks for a
//! repository that is none leaves no trace here.

use std::collections::BTreeMap;

use commit::warm::{Policy, SiteOutcome, SiteState};
use formats::warm::NodeName;
use parking_lot::Mutex;
use store::figures::{Counters, Figures, Histograms};

use crate::api::reply::{Committed, Seconds};
use crate::clock;
use crate::report::{Kind, Result};

mod predecessor;

use predecessor::Predecessor;

/// A commit that made a revision, and one that found nothing to publish; the others have their failure's
/// word.
const PUBLISHED: &str = "published";
const NOTHING: &str = "nothing";

/// Steps of a commit.
const STEPS: [&str; 6] = ["freeze", "store", "warm", "lease_held", "catalogs", "total"];
/// Counters and histograms of one daemon.
pub struct Metrics {
    begun: Counters<1>,
    ended: Counters<2>,
    steps: Histograms<2>,
    files: Counters<1>,
    bytes: Counters<1>,
    objects: Counters<2>,
    stored: Counters<1>,
    busy: Counters<1>,
    aborts: Counters<1>,
    recovered: Counters<2>,
    quorum: Counters<2>,
    site_seconds: Histograms<1>,
    /// When each repository's last revision was made here, in seconds since 1970.
    succeeded: Mutex<BTreeMap<String, u64>>,
    predecessor: Predecessor,
    figures: Figures,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut figures = Figures::default();
        figures.version("prepub_build", env!("CARGO_PKG_VERSION"));
        let of = &mut figures;
        Self {
            begun: of.counters(
                "prepub_commits_begun",
                "commits that were asked for",
                ["repo"],
            ),
            ended: of.counters(
                "prepub_commits",
                "commits that ended, by how",
                ["repo", "outcome"],
            ),
            steps: of.seconds(
                "prepub_commit_step_seconds",
                "where the time of commits that published went",
                ["repo", "step"],
            ),
            files: of.counters("prepub_committed_files", "files published", ["repo"]),
            bytes: of.counters(
                "prepub_committed_bytes",
                "bytes of files published, as they are read",
                ["repo"],
            ),
            objects: of.counters(
                "prepub_committed_objects",
                "objects that commits needed: new in the storage, or there already",
                ["repo", "state"],
            ),
            stored: of.counters(
                "prepub_stored_bytes",
                "bytes of new objects put into the storage, catalogs included",
                ["repo"],
            ),
            busy: of.counters(
                "prepub_lease_busy",
                "times that another publisher had what a commit wanted",
                ["repo"],
            ),
            aborts: of.counters(
                "prepub_aborts",
                "times that staged changes were dropped",
                ["repo"],
            ),
            recovered: of.counters(
                "prepub_commits_recovered",
                "interrupted commits brought to their end",
                ["repo", "result"],
            ),
            quorum: of.counters(
                "prepub_warm_quorum",
                "commits that waited for Stratum 1s, by whether the quorum was met",
                ["repo", "result"],
            ),
            site_seconds: of.seconds(
                "prepub_site_warm_seconds",
                "how long until a site had a commit's objects, where the commit waited for it",
                ["site"],
            ),
            succeeded: Mutex::default(),
            predecessor: Predecessor::new(of),
            figures,
        }
    }
}

impl Metrics {
    /// A repository is open: all its figures are there, from 0 on.
    pub fn show(&self, repo: &str) {
        for counters in self.by_repo() {
            counters.add([repo], 0);
        }
        for (counters, words) in self.by_repo_and_word() {
            words.iter().for_each(|word| counters.add([repo, word], 0));
        }
        STEPS.iter().for_each(|step| self.steps.show([repo, step]));
    }

    /// A repository is no more.
    pub fn forget(&self, repo: &str) {
        for counters in self.by_repo() {
            counters.forget([repo]);
        }
        for (counters, words) in self.by_repo_and_word() {
            words.iter().for_each(|word| counters.forget([repo, word]));
        }
        STEPS
            .iter()
            .for_each(|step| self.steps.forget([repo, step]));
        self.succeeded.lock().remove(repo);
    }

    /// A site is no more.
    pub fn forget_site(&self, site: &str) {
        self.site_seconds.forget([site]);
        self.predecessor.forget_site(site);
    }

    fn by_repo(&self) -> [&Counters<1>; 6] {
        let Self {
            begun,
            files,
            bytes,
            stored,
            busy,
            aborts,
            ..
        } = self;
        [begun, files, bytes, stored, busy, aborts]
    }

    fn by_repo_and_word(&self) -> [(&Counters<2>, Vec<&'static str>); 4] {
        let failures = Kind::ALL.map(Kind::word);
        let outcomes = [PUBLISHED, NOTHING].into_iter().chain(failures);
        [
            (&self.ended, outcomes.collect()),
            (&self.objects, vec!["new", "reused"]),
            (&self.recovered, vec![PUBLISHED, "given_up"]),
            (&self.quorum, vec!["met", "missed"]),
        ]
    }

    /// A commit of an open repository was asked for.
    pub fn begun(&self, repo: &str) {
        self.begun.add([repo], 1);
        self.predecessor.begun();
    }

    /// It ended.
    pub fn ended(&self, repo: &str, result: &Result<Committed>) {
        self.predecessor.ended(result);
        match result {
            Ok(committed) => {
                let outcome = if committed.published {
                    PUBLISHED
                } else {
                    NOTHING
                };
                self.ended.add([repo, outcome], 1);
                if committed.published {
                    self.published(repo, committed);
                }
            }
            Err(failure) => {
                self.ended.add([repo, failure.kind.word()], 1);
                if failure.kind == Kind::Quorum {
                    self.quorum(repo, false);
                }
            }
        }
    }

    fn published(&self, repo: &str, committed: &Committed) {
        self.files.add([repo], committed.files);
        self.bytes.add([repo], committed.bytes_raw);
        self.objects.add([repo, "new"], committed.objects_new);
        self.objects.add([repo, "reused"], committed.objects_reused);
        self.stored.add([repo], committed.bytes_stored);
        for (step, seconds) in STEPS.iter().zip(in_order(&committed.seconds)) {
            self.steps.took([repo, step], seconds);
        }
        let warm = committed.stratum1.iter();
        for site in warm.filter(|site| site.state == SiteState::Warm) {
            self.site_seconds.took([&site.site], site.seconds);
            self.predecessor.warmed(&site.site, site.seconds);
        }
        let now = clock::since_1970(clock::wall());
        self.succeeded.lock().insert(repo.to_owned(), now);
    }

    /// A commit that published waited for Stratum 1s; it may have gone on without as many as it asked for.
    pub fn waited(&self, repo: &str, policy: &Policy, sites: &[SiteOutcome]) {
        if sites.is_empty() {
            return;
        }
        let warm = sites.iter().filter(|site| site.state == SiteState::Warm);
        let names: Vec<NodeName> = warm.filter_map(|site| site.site.parse().ok()).collect();
        let met = policy.quorum.is_met(&names.iter().collect(), sites.len());
        self.quorum(repo, met);
    }

    /// As many Stratum 1s were warm as were asked for, or not.
    fn quorum(&self, repo: &str, met: bool) {
        let result = if met { "met" } else { "missed" };
        self.quorum.add([repo, result], 1);
        self.predecessor.quorum(met);
    }

    /// Another publisher has what a commit wants.
    pub fn busy(&self, repo: &str) {
        self.busy.add([repo], 1);
    }

    /// Staged changes were dropped.
    pub fn aborted(&self, repo: &str) {
        self.aborts.add([repo], 1);
        self.predecessor.aborted();
    }

    /// An interrupted commit was found done, or not.
    pub fn recovered(&self, repo: &str, published: bool) {
        let result = if published { PUBLISHED } else { "given_up" };
        self.recovered.add([repo, result], 1);
        self.predecessor.recovered(published);
    }

    /// All of it, in Prometheus' text form, with the figures of a moment.
    pub fn text(&self, mut moment: Figures) -> String {
        let succeeded = self.succeeded.lock();
        let succeeded = succeeded.iter().map(|(repo, at)| ([repo.clone()], *at));
        moment.gauge(
            "prepub_commit_last_success_timestamp_seconds",
            "when this daemon last made a revision",
            ["repo"],
            succeeded,
        );
        self.figures.text() + &moment.text()
    }
}

/// A commit's times, as [`STEPS`] has them.
fn in_order(seconds: &Seconds) -> [f64; STEPS.len()] {
    let Seconds {
        freeze,
        store,
        warm,
        lease_held,
        catalogs,
        total,
    } = *seconds;
    [freeze, store, warm, lease_held, catalogs, total]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Failure;

    #[test]
    fn commits_are_counted_by_how_they_ended() {
        let metrics = Metrics::default();
        metrics.show("a.example.org");
        let published = Committed {
            published: true,
            files: 3,
            objects_new: 2,
            seconds: Seconds {
                total: 2.0,
                ..Seconds::default()
            },
            ..Committed::default()
        };
        for result in [
            Ok(published),
            Ok(Committed::default()),
            Err(Failure::new(Kind::Quorum, "too few")),
        ] {
            metrics.begun("a.example.org");
            metrics.ended("a.example.org", &result);
        }
        let text = metrics.text(Figures::default());
        let own = "repo=\"a.example.org\"";
        for line in [
            format!("prepub_commits_begun_total{{{own}}} 3"),
            format!("prepub_commits_total{{{own},outcome=\"published\"}} 1"),
            format!("prepub_commits_total{{{own},outcome=\"nothing\"}} 1"),
            format!("prepub_commits_total{{{own},outcome=\"quorum\"}} 1"),
            format!("prepub_commits_total{{{own},outcome=\"open_files\"}} 0"),
            format!("prepub_warm_quorum_total{{{own},result=\"missed\"}} 1"),
            format!("prepub_committed_files_total{{{own}}} 3"),
            format!("prepub_committed_objects_total{{{own},state=\"new\"}} 2"),
            format!("prepub_commit_step_seconds_sum{{{own},step=\"total\"}} 2.0"),
            "cvmfs_prepub_jobs_submitted_total 3".into(),
            "cvmfs_prepub_jobs_completed_total 2".into(),
            "cvmfs_prepub_jobs_published_total 1".into(),
            "cvmfs_prepub_jobs_failed_total 1".into(),
            "cvmfs_prepub_job_failures_by_class_total{class=\"transient\"} 1".into(),
            "cvmfs_prepub_job_failures_by_class_total{class=\"permanent\"} 0".into(),
            "cvmfs_prepub_dist_warm_quorum_total{result=\"timeout\"} 1".into(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        metrics.forget("a.example.org");
        assert!(!metrics.text(Figures::default()).contains(own));
    }
}
