//! What is so at this moment, as figures.

use commit::warm::SiteStatus;
use store::figures::{Figures, process};

use super::looks::{Looks, Sites, Summary};
use crate::clock::since_1970;
use crate::engine::Engine;
use crate::engine::published::KnownHead;
use crate::engine::repo::Repo;

/// All of them.
pub fn figures(engine: &Engine, looks: &Looks, is_healthy: bool) -> Figures {
    let mut figures = Figures::default();
    let repos = engine.open_repos();
    for (name, help, value) in [
        (
            "prepub_healthy",
            "1 if staging and publishing go on, as /health says it",
            is_healthy.into(),
        ),
        (
            "prepub_repositories",
            "repositories that are mounted",
            repos.len() as u64,
        ),
        (
            "prepub_repositories_left_out",
            "repositories that could not be mounted",
            engine.left_out().len() as u64,
        ),
    ] {
        figures.gauge(name, help, [], [([], value)]);
    }
    published(&mut figures, &repos);
    staged(&mut figures, &repos, looks);
    sealing(&mut figures, engine);
    disk(&mut figures, looks);
    if let Some(Sites { sites, broker }) = looks.sites.seen().last {
        stratum1s(&mut figures, &sites);
        self::broker(&mut figures, broker);
    }
    process(&mut figures);
    figures
}

/// A figure's name and help, and how it is told of something.
type Told<T, V = u64> = (&'static str, &'static str, fn(&T) -> V);

type Repos = [std::sync::Arc<Repo>];

/// What was last read of the published heads, and the commits that are under way.
fn published(figures: &mut Figures, repos: &Repos) {
    let known = repos
        .iter()
        .map(|repo| (repo.name(), repo.published.known()));
    let known: Vec<(String, KnownHead)> = known
        .filter_map(|(name, known)| Some((name.to_owned(), known.head?)))
        .collect();
    let what: [Told<KnownHead>; 4] = [
        (
            "prepub_published_revision",
            "number of the published revision",
            |head| head.revision,
        ),
        (
            "prepub_published_timestamp_seconds",
            "when that was published",
            |head| head.published,
        ),
        (
            "prepub_published_read_timestamp_seconds",
            "when that was last read",
            |head| since_1970(head.read),
        ),
        (
            "prepub_whitelist_expiry_timestamp_seconds",
            "when clients stop trusting the repository, unless it is signed anew",
            |head| since_1970(head.whitelist_ends),
        ),
    ];
    for (name, help, value) in what {
        let values = known
            .iter()
            .map(|(repo, head)| ([repo.clone()], value(head)));
        figures.gauge(name, help, ["repo"], values);
    }
    let running = |repo: &Repo| repo.commits.seen().len() as u64;
    let by_repo = repos.iter().map(|r| ([r.name().to_owned()], running(r)));
    figures.gauge(
        "prepub_commits_running",
        "commits under way",
        ["repo"],
        by_repo,
    );
    let all = repos.iter().map(|repo| running(repo)).sum();
    figures.gauge(
        "cvmfs_prepub_jobs_active",
        "cvmfs-prepub's name for what prepub_commits_running says",
        [],
        [([], all)],
    );
}

/// What the stages hold.
fn staged(figures: &mut Figures, repos: &Repos, looks: &Looks) {
    let seen = repos.iter().map(|repo| {
        let name = repo.name().to_owned();
        let seen = looks.stage(&name).look.seen();
        (name, seen)
    });
    let seen: Vec<_> = seen.collect();
    figures.gauge(
        "prepub_stage_answers",
        "1 if the stage answers; 0: its other figures are old",
        ["repo"],
        seen.iter()
            .map(|(repo, seen)| ([repo.clone()], seen.answers().into())),
    );
    let stages = seen.into_iter();
    let stages: Vec<_> = stages
        .filter_map(|(repo, seen)| Some((repo, seen.last?)))
        .collect();
    figures.gauge(
        "prepub_base_revision",
        "number of the revision that staged changes lie over, where it is known",
        ["repo"],
        stages
            .iter()
            .filter_map(|(repo, stage)| Some(([repo.clone()], stage.base_revision?))),
    );
    let paths = stages.iter().flat_map(|(repo, stage)| {
        let paths = stage.summary.paths.iter();
        paths.map(|(change, n)| ([repo.clone(), (*change).to_owned()], *n))
    });
    figures.gauge(
        "prepub_staged_paths",
        "paths that are staged, by what becomes of them",
        ["repo", "change"],
        paths,
    );
    let what: [Told<Summary>; 5] = [
        ("prepub_staged_bytes", "bytes of staged files", |s| s.bytes),
        (
            "prepub_unsealed_files",
            "closed files that are not sealed yet",
            |s| s.unsealed_files,
        ),
        (
            "prepub_unsealed_bytes",
            "bytes of closed files that are not sealed yet",
            |s| s.unsealed_bytes,
        ),
        ("prepub_open_files", "files open for writing", |s| {
            s.open_files
        }),
        (
            "prepub_unsealable_files",
            "files that could not be sealed, or that lost bytes in a power loss",
            |s| s.errors,
        ),
    ];
    for (name, help, value) in what {
        let values = stages.iter();
        let values = values.map(|(repo, stage)| ([repo.clone()], value(&stage.summary)));
        figures.gauge(name, help, ["repo"], values);
    }
}

/// What the sealing threads did, for all repositories.
fn sealing(figures: &mut Figures, engine: &Engine) {
    let Some(sealer) = engine.sealer_in_use() else {
        return;
    };
    let seal = sealer.metrics();
    for (name, help, value) in [
        ("prepub_sealed_files", "files sealed", seal.sealed_files),
        (
            "prepub_sealed_bytes",
            "bytes of files sealed, as they are read",
            seal.raw_bytes,
        ),
        (
            "prepub_known_files",
            "files whose content was sealed before",
            seal.known_files,
        ),
        (
            "prepub_sealed_objects",
            "objects made by sealing",
            seal.objects_new,
        ),
        (
            "prepub_sealed_object_bytes",
            "bytes of objects made by sealing, compressed",
            seal.stored_bytes,
        ),
        (
            "prepub_seal_failures",
            "times that a file could not be sealed",
            seal.failed_files,
        ),
        (
            "cvmfs_prepub_pipeline_files_processed",
            "cvmfs-prepub's name for what prepub_sealed_files_total says",
            seal.sealed_files,
        ),
        (
            "cvmfs_prepub_pipeline_bytes_compressed",
            "cvmfs-prepub's name for what prepub_sealed_object_bytes_total says",
            seal.stored_bytes,
        ),
    ] {
        figures.total(name, help, [], [([], value)]);
    }
    for (name, help, value) in [
        (
            "prepub_seal_queue_files",
            "files being sealed or waiting for it",
            seal.pending_files,
        ),
        (
            "prepub_seal_queue_bytes",
            "bytes of files being sealed or waiting for it",
            seal.pending_bytes,
        ),
    ] {
        figures.gauge(name, help, [], [([], value)]);
    }
}

/// The filesystem that the stages lie on.
fn disk(figures: &mut Figures, looks: &Looks) {
    let Some(Ok(report)) = looks.space.seen().last else {
        return;
    };
    for (name, help, value) in [
        (
            "prepub_state_available_bytes",
            "bytes left on the filesystem of the state",
            report.available,
        ),
        (
            "prepub_state_refused_below_bytes",
            "with fewer bytes left, writers get ENOSPC",
            report.refused_below,
        ),
        (
            "prepub_state_reserve_missing_bytes",
            "bytes that are missing of the reserve for removing on a full disk",
            report.reserve_missing,
        ),
    ] {
        figures.gauge(name, help, [], [([], value)]);
    }
}

/// How the Stratum 1s stand.
fn stratum1s(figures: &mut Figures, sites: &[SiteStatus]) {
    let what: [Told<SiteStatus, Option<u64>>; 6] = [
        (
            "prepub_site_connected",
            "1 if the site answered when it was last spoken to",
            |site| site.connected.map(u64::from),
        ),
        (
            "prepub_site_behind_revisions",
            "visible revisions whose objects the site does not have all",
            |site| Some(site.behind_revisions),
        ),
        (
            "prepub_site_behind_objects",
            "objects of visible revisions that the site lacks",
            |site| Some(site.behind_objects),
        ),
        (
            "prepub_site_behind_bytes",
            "bytes of objects of visible revisions that the site lacks",
            |site| Some(site.behind_bytes),
        ),
        (
            "prepub_site_rate_bytes_per_second",
            "how fast the site took what was sent last",
            |site| site.rate,
        ),
        (
            "prepub_site_certificate_expiry_timestamp_seconds",
            "when the site's certificate ends",
            |site| Some(since_1970(site.entry.not_after)),
        ),
    ];
    for (name, help, value) in what {
        let values = sites.iter();
        let values = values.filter_map(|site| Some(([site.entry.name.to_string()], value(site)?)));
        figures.gauge(name, help, ["site"], values);
    }
    let counted: [Told<SiteStatus>; 3] = [
        (
            "prepub_site_sent_objects",
            "objects that the site took under its present certificate",
            |site| site.objects_sent,
        ),
        (
            "prepub_site_sent_bytes",
            "bytes of objects that the site took, as stored",
            |site| site.bytes_sent,
        ),
        (
            "prepub_site_failures",
            "times that something went wrong with the site",
            |site| site.failures,
        ),
    ];
    for (name, help, value) in counted {
        let values = sites.iter();
        let values = values.map(|site| ([site.entry.name.to_string()], value(site)));
        figures.total(name, help, ["site"], values);
    }
}

/// The broker, where there is one.
fn broker(figures: &mut Figures, broker: Option<(Option<String>, u64)>) {
    let Some((trouble, refused)) = broker else {
        return;
    };
    figures.gauge(
        "prepub_broker_connected",
        "1 if the broker is connected",
        [],
        [([], trouble.is_none().into())],
    );
    figures.total(
        "prepub_broker_messages_refused",
        "messages over the broker that made no sense, or that nobody waited for",
        [],
        [([], refused)],
    );
}
