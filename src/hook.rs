//! The commit hook: freeze, publish, retire; and what is done about a commit that was interrupted.
//!
//! ```text
//! stage.freeze -> commit::publish -> stage.retire -> txn::clear
//!                        | failed, nothing visible
//!                        +-> stage.thaw: staged as before
//! ```
//!
//! After a crash [`resume`] finds the commit done (and retires it) or not done (and thaws it).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use commit::{CommitError, Outcome, Request, Resumed, Visible, txn};
use formats::RepoPath;
use fsimpl::{FreezeError, Frozen};
use store::failpoint;

use crate::api::reply::{self, Aborted, Committed, Unmounted};
use crate::api::{self, PathText, Progress, Staged, Step, Unit, Watch};
use crate::clock;
use crate::config::{OnConflict, OnUnmount, OpenFiles};
use crate::engine::Engine;
use crate::engine::repo::{Repo, UnderWay};
use crate::engine::turn::{Taken, Turn};
use crate::engine::{Sealing, dropped, groups, limit, open_file, texts, whitelist_holds};
use crate::report::{Failure, Kind, Result};

/// Longest wait for open files and other commits: a year is for good, and the clock can count it.
const WAIT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Publishes what is staged.
///
/// # Errors
/// Why nothing was published; everything is staged as before.
pub fn commit(engine: &Engine, args: &api::Commit, watch: &dyn Watch) -> Result<Committed> {
    if let Some(tag) = &args.tag {
        formats::history::check_tag_name(tag)
            .map_err(|e| Failure::usage(format!("--tag {tag:?}")).because(&e))?;
    }
    let defaults = &engine.settings().file.commit;
    let wait = args
        .wait_seconds
        .map_or(defaults.wait.0, Duration::from_secs)
        .min(WAIT_MAX);
    let repo = engine.repo(&args.repo)?;
    let began = Instant::now();
    let base = whitelist_holds(&repo.published, defaults.whitelist_min.0)?;
    let targets: Vec<RepoPath> = match args.paths.as_slice() {
        [] => vec![RepoPath::root()],
        paths => paths.iter().map(|p| p.0.clone()).collect(),
    };
    let open_files = args.open_files.unwrap_or(defaults.open_files);
    if open_files == OpenFiles::Wait {
        say_who_is_waited_for(&repo, &targets, watch);
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
    let (_turn, under_way, frozen) = snapshot(&repo, &targets, open_files, began + wait, watch)?;
    let freeze = began.elapsed().as_secs_f64();
    let skipped = frozen.skipped.iter().map(open_file).collect();
    let on_conflict = match args.on_conflict.unwrap_or(defaults.on_conflict) {
        OnConflict::Fail => commit::OnConflict::Fail,
        OnConflict::Ours => commit::OnConflict::Ours,
    };
    // nobody is kept waiting for other publishers who did not ask for it
    let patience = args
        .wait_seconds
        .map_or(Duration::ZERO, |_| wait.saturating_sub(began.elapsed()));
    let mut committed = match publish(
        &repo,
        frozen,
        args,
        (on_conflict, patience, engine.called_off()),
        &Publishing(watch, &under_way),
    )? {
        Some(visible) => of_visible(&visible),
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

/// Waits for the turn and for writers, and takes the snapshot; the turn is kept. While it waits for
/// writers alone, others have theirs: commits of other paths go on side by side.
fn snapshot<'r>(
    repo: &'r Repo,
    targets: &[RepoPath],
    open_files: OpenFiles,
    deadline: Instant,
    watch: &dyn Watch,
) -> Result<(Taken<'r>, UnderWay<'r>, Frozen)> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut in_the_way = None;
    loop {
        let Some(turn) = repo.turn.take(left()) else {
            let busy = || {
                let what = format!("another commit of {} is under way", repo.name());
                Failure::new(Kind::Busy, what).hint("try again, or --wait longer")
            };
            // it gave way, and the files may be open still: that is what it waited for
            return Err(in_the_way.map_or_else(busy, Failure::from));
        };
        let under_way = repo.begin();
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
        };
        match repo.stage.freeze(targets, policy, &waiting) {
            Err(open @ FreezeError::OpenFiles(_))
                if open_files == OpenFiles::Wait && !left().is_zero() =>
            {
                in_the_way = Some(open);
                drop(under_way);
                Turn::pass_on(turn);
            }
            made => return Ok((turn, under_way, made?)),
        }
    }
}

/// A freeze that gives way to whoever waits for the turn.
struct Waiting<'a> {
    sealing: Sealing<'a>,
    turn: &'a Turn,
}

impl fsimpl::Progress for Waiting<'_> {
    fn unsealed(&self, files: u64, bytes: u64) {
        self.sealing.unsealed(files, bytes);
    }

    fn rehashed(&self, done: u64, total: u64) {
        self.sealing.rehashed(done, total);
    }

    fn gives_way(&self) -> bool {
        self.turn.is_wanted()
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

/// From the snapshot to the retired stage. None: there was nothing to publish.
fn publish(
    repo: &Repo,
    frozen: Frozen,
    args: &api::Commit,
    (on_conflict, patience, called_off): (commit::OnConflict, Duration, Arc<AtomicBool>),
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
        on_conflict,
        patience,
        called_off,
        boot_id: clock::boot_id(),
        clock: Arc::new(clock::wall),
    };
    let publisher = repo.published.publisher();
    progress.1.at(Step::Store);
    match commit::publish(&request, publisher, &repo.txn_dir, progress) {
        Ok(Outcome::Visible(visible)) => {
            retire(repo, snapshot, &visible)?;
            Ok(Some(visible))
        }
        Ok(Outcome::Nothing) => {
            let (head, _) = publisher.head(clock::wall())?;
            repo.stage.retire(snapshot, &head.manifest().root_catalog)?;
            Ok(None)
        }
        Err(error) => match after_failure(repo, snapshot, error) {
            Ok(visible) => Ok(Some(visible)),
            Err(failure) => {
                let failure = say_what_is_left(repo, failure);
                Err(failure.while_doing(format!("nothing of {} was published", repo.name())))
            }
        },
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

/// A commit that failed at its very last step may be visible all the same: the world is asked.
fn after_failure(repo: &Repo, snapshot: u64, error: CommitError) -> Result<Box<Visible>> {
    let publisher = repo.published.publisher();
    match commit::resume(&repo.txn_dir, publisher, clock::wall(), &clock::boot_id()) {
        Ok(Resumed::Done { visible, .. }) => {
            tracing::warn!("{}: the commit reported {error}, and is visible", repo.name());
            retire(repo, snapshot, &visible)?;
            Ok(visible)
        }
        Ok(Resumed::NotDone { .. } | Resumed::None) => {
            repo.stage.thaw(snapshot)?;
            Err(error.into())
        }
        Err(unknown) => Err(Failure::from(error).hint_if_none(format!(
            "whether it became visible cannot be found out now ({unknown}); the next commit or mount finds out"
        ))),
    }
}

/// The snapshot is published: what is still equal to it is not staged any more.
fn retire(repo: &Repo, snapshot: u64, visible: &Visible) -> Result<()> {
    failpoint::pass("hook::visible")?;
    repo.stage
        .retire(snapshot, &visible.root_hash)
        .map_err(|e| {
            Failure::from(e).while_doing(format!(
                "revision {} of {} is published, but its changes are still staged",
                visible.revision,
                repo.name()
            ))
        })?;
    repo.stage.wait_told();
    failpoint::pass("hook::retired")?;
    txn::clear(&repo.txn_dir)?;
    Ok(())
}

/// Settles a commit that was interrupted: done, or not done.
///
/// # Errors
/// When that cannot be found out, or the stage does not take it.
pub fn resume(repo: &Repo) -> Result<()> {
    let publisher = repo.published.publisher();
    let mut frozen = repo.stage.frozen();
    match commit::resume(&repo.txn_dir, publisher, clock::wall(), &clock::boot_id())? {
        Resumed::None => {}
        Resumed::Done { snapshot, visible } => {
            let name = repo.name();
            tracing::info!(
                "{name}: an interrupted commit is visible as revision {}",
                visible.revision
            );
            if frozen.contains(&snapshot) {
                retire(repo, snapshot, &visible)?;
            } else {
                txn::clear(&repo.txn_dir)?;
            }
            frozen.retain(|id| *id != snapshot);
        }
        Resumed::NotDone { .. } => {
            tracing::info!(
                "{}: an interrupted commit was not done; its changes are staged",
                repo.name()
            );
        }
    }
    for id in frozen {
        repo.stage.thaw(id)?;
    }
    Ok(())
}

/// Drops what is staged below a path.
///
/// # Errors
/// When a commit is under way, or one that was interrupted cannot be settled; or the stage refuses.
pub fn abort(engine: &Engine, args: &api::At) -> Result<Aborted> {
    let repo = engine.repo(&args.repo)?;
    let wait = engine.settings().file.commit.wait.0;
    let Some(_turn) = repo.turn.take(wait) else {
        return Err(Failure::new(
            Kind::Busy,
            format!("a commit of {} is under way", args.repo),
        ));
    };
    if !repo.stage.frozen().is_empty() {
        // whether that commit was done decides what is published and what is staged
        resume(&repo)?;
    }
    let dropped = repo.stage.abort(&args.path.0)?;
    repo.stage.wait_told();
    tracing::info!(repo = args.repo, path = %args.path, dropped, "aborted");
    Ok(Aborted {
        repo: args.repo.clone(),
        path: args.path.clone(),
        dropped: dropped as u64,
    })
}

/// What becomes of staged changes before the daemon ends.
///
/// # Errors
/// With [`Staged::Commit`] and [`Staged::Discard`]: the first repository that refuses. A configured
/// commit that fails keeps its changes staged, and the daemon ends all the same.
pub fn before_unmount(engine: &Engine, staged: Staged, watch: &dyn Watch) -> Result<Unmounted> {
    let mut unmounted = Unmounted {
        mountpoint: engine
            .live()
            .map(|l| l.info.mountpoint.display().to_string()),
        ..Unmounted::default()
    };
    for name in engine.names()? {
        let repo = match engine.repo(&name) {
            Ok(repo) => repo,
            Err(failure) => {
                watch.note(&format!("{name} is left as it is: {failure}"));
                continue;
            }
        };
        let summary = repo.stage.summary();
        let changed = summary.added + summary.modified + summary.removed + summary.renamed;
        if changed == 0 {
            continue;
        }
        let configured = engine.settings().repository(&name).on_unmount;
        match (staged, configured) {
            (Staged::Discard, _) => {
                let at = api::At {
                    repo: name,
                    path: PathText::default(),
                };
                unmounted.discarded += abort(engine, &at)?.dropped;
            }
            (Staged::Commit, _) => unmounted
                .committed
                .push(commit(engine, &all_of(name), watch)?),
            (Staged::Configured, OnUnmount::Commit) => {
                match commit(engine, &all_of(name.clone()), watch) {
                    Ok(committed) => unmounted.committed.push(committed),
                    Err(failure) => {
                        watch.note(&format!("{name} stays staged: {failure}"));
                        tracing::error!("{name} stays staged: {failure}");
                        unmounted.kept.push(name);
                    }
                }
            }
            (Staged::Configured, OnUnmount::Keep) => unmounted.kept.push(name),
        }
    }
    Ok(unmounted)
}

fn all_of(repo: String) -> api::Commit {
    api::Commit {
        repo,
        paths: Vec::new(),
        tag: None,
        message: String::new(),
        dry_run: false,
        allow_empty: false,
        wait_seconds: None,
        open_files: None,
        on_conflict: None,
        accept_unsynced: false,
    }
}

/// A commit's progress, as the API says it.
struct Publishing<'a>(&'a dyn Watch, &'a UnderWay<'a>);

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
        seconds: reply::Seconds {
            store: visible.seconds.store,
            lease_held: visible.seconds.lease_held,
            catalogs: visible.seconds.catalogs,
            ..reply::Seconds::default()
        },
        ..Committed::default()
    }
}
