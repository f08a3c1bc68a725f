//! The commit hook: freeze, publish, retire; and what is done about a commit that was interrupted.
//!
//! ```text
//! stage.freeze -> commit::publish -> stage.retire -> txn::clear
//!                        | failed, nothing visible
//!                        +-> stage.thaw: staged as before
//! ```
//!
//! After a crash [`resume`] finds the commit done (and retires it) or not done (and thaws it).
//!
//! Commits of paths that have nothing to do with one another go on side by side; only snapshots are
//! made one at a time. Each has its own record below the repository's.

mod ending;
mod settle;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use commit::publisher::Publisher;
use commit::{Outcome, Request, Visible};
use formats::RepoPath;
use fsimpl::{FreezeError, Frozen};

use crate::api::reply::{self, Committed};
use crate::api::{self, Progress, Step, Unit, Watch};
use crate::clock;
use crate::config::{OnConflict, OpenFiles};
use crate::engine::Engine;
use crate::engine::claims::Claimed;
use crate::engine::commits::UnderWay;
use crate::engine::repo::Repo;
use crate::engine::turn::Turn;
use crate::engine::{Sealing, dropped, groups, limit, open_file, texts, whitelist_holds};
use crate::report::{Failure, Kind, Result};

pub use ending::{abort, before_unmount};
pub use settle::resume;

/// Longest wait for open files and other commits: a year is for good, and the clock can count it.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Publishes what is staged, and counts it.
///
/// # Errors
/// Why nothing was published; everything is staged as before.
pub fn commit(engine: &Engine, args: &api::Commit, watch: &dyn Watch) -> Result<Committed> {
    let repo = engine.repo(&args.repo)?;
    engine.metrics().begun(repo.name());
    let result = commit_staged(engine, &repo, args, watch);
    engine.metrics().ended(repo.name(), &result);
    result
}

fn commit_staged(
    engine: &Engine,
    repo: &Repo,
    args: &api::Commit,
    watch: &dyn Watch,
) -> Result<Committed> {
    if let Some(tag) = &args.tag {
        formats::history::check_tag_name(tag)
            .map_err(|e| Failure::usage(format!("--tag {tag:?}")).because(&e))?;
    }
    let _inside = engine.gate().enter()?;
    let settings = engine.settings();
    let defaults = &settings.file.commit;
    let wait = args
        .wait_seconds
        .map_or(defaults.wait.0, Duration::from_secs)
        .min(WAIT_MAX);
    let began = Instant::now();
    let base = whitelist_holds(&repo.published, defaults.whitelist_min.0)?;
    let targets: Vec<RepoPath> = match args.paths.as_slice() {
        [] => vec![RepoPath::root()],
        paths => paths.iter().map(|p| p.0.clone()).collect(),
    };
    let open_files = args.open_files.unwrap_or(defaults.open_files);
    if open_files == OpenFiles::Wait {
        say_who_is_waited_for(repo, &targets, watch);
    }
    if args.accept_unsynced {
        let accepted = repo.stage.accept_doubtful(&targets)?;
        if accepted > 0 {
            tracing::warn!(
                repo = args.repo,
                accepted,
                "files in doubt are taken as they are"
            );
        }
    }
    let (_claimed, under_way, frozen) = snapshot(repo, &targets, open_files, began + wait, watch)?;
    let freeze = began.elapsed().as_secs_f64();
    let skipped = frozen.skipped.iter().map(open_file).collect();
    let on_conflict = match args.on_conflict.unwrap_or(defaults.on_conflict) {
        OnConflict::Fail => commit::OnConflict::Fail,
        OnConflict::Ours => commit::OnConflict::Ours,
    };
    // nobody is kept waiting for other publishers who did not ask for it
    let turn = wait.saturating_sub(began.elapsed());
    let patience = args.wait_seconds.map_or(Duration::ZERO, |_| turn);
    let warm = engine.warming(repo)?;
    let policy = warm.as_ref().map(|warm| warm.policy.clone());
    let how = How {
        on_conflict,
        turn,
        patience,
        called_off: engine.called_off(),
        warm,
    };
    let mut committed = match publish(
        repo,
        frozen,
        args,
        how,
        &Publishing(watch, &under_way, repo),
    )? {
        Some(visible) => {
            repo.published.made(visible.revision, visible.root_hash);
            if let Some(policy) = policy {
                repo.metrics.waited(repo.name(), &policy, &visible.stratum1);
            }
            of_visible(&visible)
        }
        None => Committed {
            revision: base.revision,
            root_hash: base.root.to_string(),
            ..Committed::default()
        },
    };
    committed.repo.clone_from(&args.repo);
    committed.paths = texts(&targets);
    committed.path = committed.paths.first().cloned().unwrap_or_default();
    committed.skipped = skipped;
    committed.seconds.freeze = freeze;
    committed.seconds.total = began.elapsed().as_secs_f64();
    tracing::info!(
        repo = args.repo,
        revision = committed.revision,
        published = committed.published,
        seconds = committed.seconds.total,
        "committed"
    );
    Ok(committed)
}

/// Waits for whatever overlaps and for writers, and takes the snapshot; the paths stay claimed. While
/// it waits for writers alone, others have their turn.
fn snapshot<'r>(
    repo: &'r Repo,
    targets: &[RepoPath],
    open_files: OpenFiles,
    deadline: Instant,
    watch: &dyn Watch,
) -> Result<(Claimed<'r>, UnderWay<'r>, Frozen)> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut in_the_way: Option<FreezeError> = None;
    loop {
        let claimed = repo.claims.take(targets, left());
        let turn = claimed.as_ref().and_then(|_| repo.turn.take(left()));
        let (Some(claimed), Some(turn)) = (claimed, turn) else {
            let busy = || {
                let what = format!("another commit of {} is under way", repo.name());
                Failure::new(Kind::Busy, what).hint("try again, or --wait longer")
            };
            // it gave way, and the files may be open still: that is what it waited for
            return Err(in_the_way.map_or_else(busy, Failure::from));
        };
        let under_way = repo.commits.begin(targets);
        // a commit that could not be resumed earlier must be settled before the next one
        resume(repo)?;
        under_way.at(Step::Seal);
        let policy = match open_files {
            OpenFiles::Wait => fsimpl::OpenFiles::Wait(left()),
            OpenFiles::Skip => fsimpl::OpenFiles::Skip,
            OpenFiles::Fail => fsimpl::OpenFiles::Fail,
        };
        let waiting = Waiting {
            sealing: Sealing::new(watch),
            turn: &repo.turn,
            claimed: &claimed,
        };
        match repo.stage.freeze(targets, policy, &waiting) {
            Err(open @ FreezeError::OpenFiles(_))
                if open_files == OpenFiles::Wait && !left().is_zero() =>
            {
                in_the_way = Some(open);
                drop((under_way, claimed));
                Turn::pass_on(turn);
            }
            // what one of them has was moved out of the other
            Err(FreezeError::Frozen(other)) if !left().is_zero() => {
                drop((under_way, turn, claimed));
                repo.commits.wait_for_end_of(other, left());
            }
            made => {
                let frozen = made?;
                under_way.has(frozen.id);
                return Ok((claimed, under_way, frozen));
            }
        }
    }
}

/// A freeze that gives way to whoever waits for the turn, or for its paths.
struct Waiting<'a> {
    sealing: Sealing<'a>,
    turn: &'a Turn,
    claimed: &'a Claimed<'a>,
}

impl fsimpl::Progress for Waiting<'_> {
    fn unsealed(&self, files: u64, bytes: u64) {
        self.sealing.unsealed(files, bytes);
    }

    fn rehashed(&self, done: u64, total: u64) {
        self.sealing.rehashed(done, total);
    }

    fn gives_way(&self) -> bool {
        self.turn.is_wanted() || self.claimed.is_wanted()
    }
}

fn say_who_is_waited_for(repo: &Repo, targets: &[RepoPath], watch: &dyn Watch) {
    let open = repo.stage.summary().open_files;
    let mut within = open
        .iter()
        .filter(|file| targets.iter().any(|target| file.path.is_within(target)));
    if let Some(first) = within.next() {
        let more = match within.count() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        watch.note(&format!(
            "waiting for files that are open for writing: {}{more}",
            first.path
        ));
    }
}

/// How a commit is published.
struct How {
    on_conflict: commit::OnConflict,
    /// For others of ours.
    turn: Duration,
    /// For other publishers.
    patience: Duration,
    called_off: Arc<AtomicBool>,
    /// The Stratum 1s.
    warm: Option<commit::warm::Warming>,
}

/// From the snapshot to the retired stage. None: there was nothing to publish.
fn publish(
    repo: &Repo,
    frozen: Frozen,
    args: &api::Commit,
    how: How,
    progress: &Publishing<'_>,
) -> Result<Option<Box<Visible>>> {
    let snapshot = frozen.id;
    let request = Request {
        change_set: frozen.change_set,
        snapshot,
        objects: frozen.objects,
        tag: args.tag.clone(),
        message: args.message.clone(),
        allow_empty: args.allow_empty,
        on_conflict: how.on_conflict,
        queue: Arc::clone(&repo.queue),
        turn: how.turn,
        patience: how.patience,
        warm: how.warm,
        called_off: how.called_off,
        boot_id: clock::boot_id(),
        clock: Arc::new(clock::wall),
    };
    let publisher = repo.published.for_a_commit();
    let publisher: &dyn Publisher = publisher.as_ref();
    progress.1.at(Step::Store);
    match commit::publish(&request, publisher, &repo.txn_dir(snapshot), progress) {
        Ok(Outcome::Visible(visible)) => {
            settle::in_turn(repo, progress.1, visible.revision);
            settle::retire(repo, snapshot, &visible)?;
            Ok(Some(visible))
        }
        Ok(Outcome::Nothing) => {
            let (head, _) = publisher.head(clock::wall())?;
            settle::in_turn(repo, progress.1, head.manifest().revision);
            settle::retire_into(repo, snapshot, &head.manifest().root_catalog)?;
            Ok(None)
        }
        Err(error) => {
            let is_published = error.is_published();
            match settle::after_failure(repo, (snapshot, progress.1), error) {
                Ok(visible) => Ok(Some(visible)),
                // it says itself what is
                Err(failure) if is_published => Err(failure),
                Err(failure) => {
                    let failure = say_what_is_left(repo, failure);
                    Err(failure.while_doing(format!("nothing of {} was published", repo.name())))
                }
            }
        }
    }
}

/// A commit that found no room: how much there is, and what it is for.
fn say_what_is_left(repo: &Repo, failure: Failure) -> Failure {
    if failure.kind != Kind::NoSpace {
        return failure;
    }
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let state = repo.stage.space().report();
    let state = state.map_or_else(|_| "?".into(), |report| mebibytes(report.available));
    let storage = repo.published.publisher().storage().available_bytes();
    let storage = storage.ok().flatten().map_or_else(|| "?".into(), mebibytes);
    failure.hint(format!(
        "make room, then commit again; what is staged is kept. {state} are left in the state directory, which takes copies of the catalogs that change; {storage} in the storage, which takes new objects (none where both are one filesystem)"
    ))
}

/// A commit's progress, as the API says it.
struct Publishing<'a>(&'a dyn Watch, &'a UnderWay<'a>, &'a Repo);

impl commit::Progress for Publishing<'_> {
    fn step(&self, step: commit::Step, done: u64, total: u64) {
        let (step, unit) = match step {
            commit::Step::Store => (Step::Store, Unit::Objects),
            commit::Step::Catalogs => (Step::Catalogs, Unit::Catalogs),
            commit::Step::Submit => (Step::Submit, Unit::Steps),
        };
        self.1.at(step);
        self.0.progress(Progress {
            step,
            done,
            total,
            unit,
            site: None,
        });
    }

    fn busy(&self) {
        self.2.metrics.busy(self.2.name());
    }

    fn site(&self, site: &commit::warm::SiteOutcome) {
        self.1.at(Step::Warm);
        self.0.progress(Progress {
            step: Step::Warm,
            done: site.objects,
            total: site.objects + site.missing_objects,
            unit: Unit::Objects,
            site: Some(site.site.clone()),
        });
    }
}

fn of_visible(visible: &Visible) -> Committed {
    Committed {
        published: true,
        revision: visible.revision,
        root_hash: visible.root_hash.to_string(),
        previous_root_hash: Some(visible.previous_root_hash.to_string()),
        tag: visible.tag.clone(),
        files: visible.files,
        directories: visible.directories,
        removed: visible.removed,
        bytes_raw: visible.bytes_raw,
        objects_new: visible.objects_new,
        objects_reused: visible.objects_reused,
        bytes_stored: visible.bytes_stored,
        catalogs: visible.catalogs,
        dropped_xattrs: visible.dropped_xattrs.iter().map(dropped).collect(),
        dropped_xattrs_more: visible.dropped_xattrs_more,
        broken_links: groups(&visible.broken_links),
        special_skipped: texts(&visible.special_skipped),
        warnings: visible.warnings.iter().map(limit).collect(),
        stratum1: visible.stratum1.clone(),
        seconds: reply::Seconds {
            store: visible.seconds.store,
            warm: visible.seconds.warm,
            lease_held: visible.seconds.lease_held,
            catalogs: visible.seconds.catalogs,
            ..reply::Seconds::default()
        },
        ..Committed::default()
    }
}
