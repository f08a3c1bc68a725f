//! Staged changes that are given up, and what becomes of them when the mount goes.

use super::{commit, resume};
use crate::api::reply::{Aborted, Unmounted};
use crate::api::{self, PathText, Staged, Watch};
use crate::config::OnUnmount;
use crate::engine::Engine;
use crate::report::{Failure, Kind, Result};

/// Drops what is staged below a path.
///
/// # Errors
/// When a commit is under way, or one that was interrupted cannot be settled; or the stage refuses.
pub fn abort(engine: &Engine, args: &api::At) -> Result<Aborted> {
    let repo = engine.repo(&args.repo)?;
    let wait = engine.settings().file.commit.wait.0;
    let Some(_all) = repo.claims.take_all(wait) else {
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
    repo.metrics.aborted(repo.name());
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
