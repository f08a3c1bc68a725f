//! Removes what a transaction brought whose revision never became visible.
//!
//! That is less simple than it sounds. An object that came for nothing may be needed all the same: a
//! revision that somebody else published since may refer to it, and the snapshot that brought that
//! revision found the object here and fetched nothing. So, for each transaction that is due:
//!
//! 1. snapshots and garbage collections are held off, so that none is relying on anything meanwhile;
//! 2. what the catalogs that arrived since it was opened refer to, stays ([`references`]);
//! 3. what another transaction announced, stays, and is that one's to remove if it comes to nothing;
//!    what a published one did is the replica's, whatever the catalogs say.
//!
//! Whatever cannot be told makes everything stay until the next look. It goes on where it was stopped:
//! a transaction is forgotten when nothing of it is left to decide.

pub mod references;

use std::sync::Arc;

use store::StoreError;
use store::failpoint::{self, Injected};

use crate::ledger::{LedgerError, State, Transaction};
use crate::names::{Record, Sorted, listed};
use crate::site::{Repo, Site};
use references::{Needed, ReferencesError};

/// Objects of one transaction that are decided about together: 29 MB, and each catalog is read once.
const SLICE: usize = 1_000_000;
/// Objects that are removed before whoever announces or names objects may go on.
const GROUP: usize = 2_000;

/// Why nothing, or not everything, was removed.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// A snapshot or a garbage collection is running.
    #[error("cvmfs_server is at work on the replica")]
    HeldOff,
    /// Nothing says where the lock is.
    #[error(
        "nothing says where cvmfs_server has its lock for this replica, so nothing is removed; set `spool` in [repository.\"{0}\"]"
    )]
    NoSpool(String),
    /// The lock.
    #[error("the lock of cvmfs_server")]
    Lock(#[source] std::io::Error),
    /// What is needed cannot be told.
    #[error("it cannot be told what the replica's revisions need")]
    References(#[from] ReferencesError),
    /// The ledger.
    #[error("the ledger")]
    Ledger(#[from] LedgerError),
    /// Its files.
    #[error("the ledger's files")]
    Io(#[from] std::io::Error),
    /// The storage.
    #[error("the replica's storage")]
    Store(#[from] StoreError),
    /// A test.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// What time it is, before anything is found too old.
pub fn look(site: &Site) {
    let now = site.clock.now();
    let mut oldest: Option<u64> = None;
    let txns = site.repos().keys().flat_map(|repo| site.ledger.of(repo));
    for txn in txns {
        if let Err(error) = txn.restamp(now) {
            tracing::warn!(txn = txn.key().txn, "{}", store::chain(&error));
        }
        let since = txn.touched();
        oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
    }
    if let Err(error) = site.ages.look(oldest) {
        tracing::warn!(
            "after a restart things look younger: {}",
            store::chain(&error)
        );
    }
}

/// One replica's turn. What goes wrong is logged and counted, and tried again at the next look.
pub fn sweep(site: &Site, repo: &Repo) {
    let name = &repo.replica.name;
    for txn in site.ledger.of(name) {
        if !is_due(site, &txn) {
            continue;
        }
        let txn_name = &txn.key().txn;
        match expire(site, repo, &txn) {
            Ok(true) => {
                site.metrics.expired.one();
                tracing::info!(repo = name, txn = txn_name, "expired");
            }
            // it was announced again meanwhile
            Ok(false) => {}
            Err(ExpiryError::HeldOff) => {
                tracing::debug!(repo = name, "expiry waits: {}", ExpiryError::HeldOff);
                return;
            }
            Err(error) => {
                site.metrics.doubts.one();
                tracing::warn!(
                    repo = name,
                    txn = txn_name,
                    "nothing more is removed: {}",
                    store::chain(&error)
                );
            }
        }
    }
    if let Err(error) = forget_published(site, name) {
        tracing::warn!(
            repo = name,
            "a published transaction is not forgotten: {error}"
        );
    }
}

fn is_due(site: &Site, txn: &Transaction) -> bool {
    let about = txn.about();
    match about.state {
        State::GivenUp => true,
        State::Published => false,
        State::Open => {
            let age = site.ages.age(txn.touched());
            age > site.config.keep.unpublished.0.as_secs()
        }
    }
}

/// True if nothing is left of it.
fn expire(site: &Site, repo: &Repo, txn: &Arc<Transaction>) -> Result<bool, ExpiryError> {
    let name = &repo.replica.name;
    if repo.replica.spool.is_none() {
        return Err(ExpiryError::NoSpool(name.clone()));
    }
    let held = repo.replica.hold_off().map_err(ExpiryError::Lock)?;
    let _held = held.ok_or(ExpiryError::HeldOff)?;
    {
        let _alone = repo.vault.gate.write();
        if !is_due(site, txn) {
            return Ok(false);
        }
        txn.give_up(site.clock.now())?;
    }
    failpoint::pass("expiry::given_up")?;
    let opened = txn.about().opened;
    let mut brought = txn.brought()?;
    loop {
        let mut slice: Vec<Record> = Vec::new();
        for record in brought.by_ref().take(SLICE) {
            slice.push(record?);
        }
        if slice.is_empty() {
            break;
        }
        slice.sort_unstable();
        slice.dedup();
        let all = slice.len();
        keep_unpublished(site, repo, &mut slice)?;
        let (mut removed, mut spared) = (0, (all - slice.len()) as u64);
        let mut needed = Needed::new(slice);
        // catalogs are read for those alone that may go
        if !needed.records().is_empty() {
            references::mark(repo, opened, &site.work_dir(), &mut needed)?;
        }
        for group in needed.records().chunks(GROUP) {
            let _alone = repo.vault.gate.write();
            if txn.about().state != State::GivenUp {
                return Ok(false);
            }
            let (gone, stay) = remove(site, repo, txn, group, &needed)?;
            removed += gone;
            spared += stay;
            failpoint::pass("expiry::removed")?;
        }
        site.metrics.objects_expired.add(removed);
        site.metrics.objects_spared.add(spared);
    }
    let _alone = repo.vault.gate.write();
    if txn.about().state != State::GivenUp {
        return Ok(false);
    }
    site.ledger.forget(txn)?;
    failpoint::pass("expiry::forgotten")?;
    Ok(true)
}

/// What a published transaction announced is the replica's: most of what went out before its commit.
fn keep_unpublished(
    site: &Site,
    repo: &Repo,
    records: &mut Vec<Record>,
) -> Result<(), ExpiryError> {
    for other in site.ledger.of(&repo.replica.name) {
        if other.about().state != State::Published {
            continue;
        }
        let Some(mut names) = other.names()? else {
            continue;
        };
        let mut left = Vec::with_capacity(records.len());
        for record in records.drain(..) {
            let found = match listed(&record) {
                Some(object) => names.find(&object.name)?,
                None => None,
            };
            if found.is_none() {
                left.push(record);
            }
        }
        *records = left;
    }
    Ok(())
}

/// Removes those of a group that nobody needs; says how many went and how many stay.
fn remove(
    site: &Site,
    repo: &Repo,
    txn: &Transaction,
    group: &[Record],
    needed: &Needed,
) -> Result<(u64, u64), ExpiryError> {
    let mut others: Vec<(Arc<Transaction>, Option<Sorted>, Vec<Record>)> = Vec::new();
    for other in site.ledger.of(&repo.replica.name) {
        if other.key() != txn.key() && other.about().state != State::GivenUp {
            let names = other.names()?;
            others.push((other, names, Vec::new()));
        }
    }
    let mut go = Vec::new();
    'objects: for record in group {
        let Some(object) = listed(record) else {
            continue;
        };
        if needed.is_marked(record) {
            continue;
        }
        for (other, names, inherited) in &mut others {
            let Some(names) = names else {
                continue;
            };
            if names.find(&object.name)?.is_some() {
                if other.about().state == State::Open {
                    inherited.push(*record);
                }
                continue 'objects;
            }
        }
        go.push(object.name);
    }
    // noted before the one that brought it is forgotten, so that somebody always answers for it
    for (other, _, inherited) in &others {
        other.note(inherited)?;
    }
    let mut gone = 0;
    for name in &go {
        gone += u64::from(repo.vault.store().delete(name)?);
    }
    Ok((gone, (group.len() - go.len()) as u64))
}

/// A published transaction's names protect what an older one brought; they may go when there is none.
fn forget_published(site: &Site, repo: &str) -> Result<(), LedgerError> {
    let all = site.ledger.of(repo);
    let unpublished = all.iter().filter(|t| t.about().state != State::Published);
    let oldest = unpublished.map(|t| t.about().opened).min();
    for txn in &all {
        let about = txn.about();
        let ended = about.ended.unwrap_or(about.touched);
        let is_over = about.state == State::Published && oldest.is_none_or(|oldest| oldest > ended);
        if is_over {
            let Some(repo) = site.repos().get(repo) else {
                continue;
            };
            let _alone = repo.vault.gate.write();
            if txn.about() == about {
                site.ledger.forget(txn)?;
            }
        }
    }
    Ok(())
}
