//! What becomes of a commit in the end: its snapshot is retired, or thawed.

use commit::{CommitError, Resumed, Visible, txn};
use formats::Hash;
use store::failpoint;

use crate::clock;
use crate::engine::commits::UnderWay;
use crate::engine::repo::Repo;
use crate::report::{Failure, Result};

/// A commit that failed at its very last step may be visible all the same: the world is asked.
pub(super) fn after_failure(
    repo: &Repo,
    (snapshot, under_way): (u64, &UnderWay<'_>),
    error: CommitError,
) -> Result<Box<Visible>> {
    let publisher = repo.published.publisher();
    let txn_dir = repo.txn_dir(snapshot);
    match commit::resume(&txn_dir, publisher, clock::wall(), &clock::boot_id()) {
        Ok(Resumed::Done { visible, .. }) => {
            tracing::warn!("{}: the commit reported {error}, and is visible", repo.name());
            in_turn(repo, under_way, visible.revision);
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

/// A commit is visible: returns when those that became visible before it are retired.
pub(super) fn in_turn(repo: &Repo, under_way: &UnderWay<'_>, revision: u64) {
    under_way.landed(revision);
    let base = repo.published.number_of(&repo.stage.base_root());
    // nothing lies between
    if base.is_none_or(|base| base.saturating_add(1) < revision) {
        under_way.wait_for_earlier(revision);
    }
}

/// The snapshot is published: what is still equal to it is not staged any more.
pub(super) fn retire(repo: &Repo, snapshot: u64, visible: &Visible) -> Result<()> {
    tell_sites(repo, visible);
    failpoint::pass("hook::visible")?;
    retire_into(repo, snapshot, &visible.root_hash).map_err(|failure| {
        failure.while_doing(format!(
            "revision {} of {} is published, but its changes are still staged",
            visible.revision,
            repo.name()
        ))
    })?;
    repo.stage.wait_told();
    failpoint::pass("hook::retired")?;
    txn::clear(&repo.txn_dir(snapshot))?;
    Ok(())
}

/// A commit is visible: its Stratum 1s are told, if they were not. What cannot be written down now is
/// found again while the commit's record is there.
fn tell_sites(repo: &Repo, visible: &Visible) {
    let (Some(warmer), Some(push)) = (&repo.warmer, &visible.push) else {
        return;
    };
    let revision = (visible.root_hash.to_string(), visible.revision);
    if let Err(error) = warmer.visible(push, revision, clock::wall()) {
        tracing::warn!("{}: the Stratum 1s are not told yet: {error}", repo.name());
    }
}

/// Retires a snapshot that is in the revision with this root catalog, or in a later one that the
/// stage knows already.
pub(super) fn retire_into(repo: &Repo, snapshot: u64, root: &Hash) -> Result<()> {
    let base = repo.stage.base_root();
    // an interrupted commit may be settled after one that was built upon it: a stage never goes back
    let numbers = (
        repo.published.number_of(&base),
        repo.published.number_of(root),
    );
    let is_later = matches!(numbers, (Some(base), Some(own)) if base > own);
    let root = if is_later { &base } else { root };
    Ok(repo.stage.retire(snapshot, root)?)
}

/// Settles commits that were interrupted: done, or not done. Those that are under way are left alone.
///
/// # Errors
/// When that cannot be found out, or the stage does not take it.
pub fn resume(repo: &Repo) -> Result<()> {
    let publisher = repo.published.publisher();
    commit::give_back(publisher);
    let mut done = Vec::new();
    for txn in repo.txns()? {
        match commit::resume(&txn, publisher, clock::wall(), &clock::boot_id())? {
            Resumed::None => {}
            Resumed::Done { snapshot, visible } => done.push((visible, snapshot, txn)),
            Resumed::NotDone { .. } => {
                repo.metrics.recovered(repo.name(), false);
                tracing::info!(
                    "{}: an interrupted commit was not done; its changes are staged",
                    repo.name()
                );
            }
        }
    }
    done.sort_by_key(|(visible, ..)| visible.revision);
    for (visible, snapshot, txn) in done {
        tracing::info!(
            "{}: an interrupted commit is visible as revision {}",
            repo.name(),
            visible.revision
        );
        if repo.stage.frozen().contains(&snapshot) {
            retire(repo, snapshot, &visible)?;
        } else {
            tell_sites(repo, &visible);
            txn::clear(&txn)?;
        }
        repo.metrics.recovered(repo.name(), true);
    }
    if let Some(warmer) = &repo.warmer {
        warmer.settle(repo.name());
    }
    for id in repo.stage.frozen() {
        if !repo.commits.have(id) {
            repo.stage.thaw(id)?;
        }
    }
    Ok(())
}
