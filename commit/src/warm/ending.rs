//! How a push ends: its commit became visible or did not, and each site hears so, now or when it can.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use formats::warm::message::rfc3339;
use store::failpoint;

use super::push::{Fate, Push, Told};
use super::registry::Way;
use super::warmer::{HEARING, WarmError, Warmer};

/// Pushes that are kept for sites that are behind, of all repositories together: a busy week's. The
/// oldest go first.
const PUSHES_MAX: usize = 1000;

/// Objects that all of these may name: 290 MB of lists.
const LISTED_MAX: u64 = 10_000_000;

impl Warmer {
    /// A push's revision is visible: each site is told as soon as it has everything. Durable when this
    /// returns; said again, it changes nothing.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn visible(
        &self,
        txn: &str,
        (root_hash, revision): (String, u64),
        since: SystemTime,
    ) -> Result<(), WarmError> {
        let unix = crate::stratum0::seconds(since).cast_signed();
        let told = Told {
            root_hash,
            revision,
            published_at: rfc3339(unix),
        };
        self.decide(txn, Fate::Visible(told))
    }

    /// A push's revision never becomes visible: each site may forget it.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn give_up(&self, txn: &str) -> Result<(), WarmError> {
        self.decide(txn, Fate::GivenUp)
    }

    /// Gives up what no commit of this process answers for, of a repository whose interrupted commits
    /// are all settled.
    pub fn settle(&self, repo: &str) {
        let is_orphan = |push: &&Arc<Push>| {
            let state = push.state();
            push.repo == repo && !state.is_live && state.fate == Fate::Open && !push.is_eager
        };
        let orphans: Vec<_> = self
            .board
            .pushes()
            .values()
            .filter(is_orphan)
            .cloned()
            .collect();
        for push in orphans {
            if let Err(error) = self.give_up(&push.txn) {
                tracing::warn!(txn = push.txn, %error, "a push that nobody answers for");
            }
        }
    }

    /// A commit that began a push is over without saying how: that is found out later.
    pub fn leave(&self, push: &Push) {
        push.state().is_live = false;
    }

    fn decide(&self, txn: &str, fate: Fate) -> Result<(), WarmError> {
        let push = self.board.pushes().get(txn).cloned();
        let Some(push) = push else {
            return Ok(());
        };
        {
            let mut state = push.state();
            state.is_live = false;
            if state.fate != Fate::Open {
                return Ok(());
            }
            state.fate = fate.clone();
        }
        if let (Fate::Visible(told), Some(link)) = (&fate, self.board.link()) {
            link.published(&push, told);
        }
        let recorded = push.record().map_err(|source| WarmError::Record {
            path: self.pushes_dir(),
            source,
        });
        failpoint::pass("warm::decided")?;
        if fate == Fate::GivenUp {
            push.call_off();
        }
        self.go_on(&push);
        recorded
    }

    /// Has every site that is not through with a push served.
    fn go_on(&self, push: &Arc<Push>) {
        let (names, fate) = {
            let state = push.state();
            (
                state.sites.keys().cloned().collect::<Vec<_>>(),
                state.fate.clone(),
            )
        };
        for name in &names {
            match self.site_of(name) {
                // it forgets by itself what was never published
                Some(site) if site.entry.way == Way::Pull && fate == Fate::GivenUp => {
                    self.board.knows_end(push, name);
                }
                Some(site) => site.enqueue(push),
                None => self.board.knows_end(push, name),
            }
        }
        if names.is_empty() {
            self.board.pushes().remove(&push.txn);
            if let Err(error) = push.remove() {
                tracing::warn!(txn = push.txn, %error, "cannot remove what all sites have");
            }
        }
        self.board.tell();
    }

    /// Goes on with what earlier processes left, but for what no commit has answered for yet.
    pub fn catch_up(&self) {
        self.stay();
        self.expire();
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        for push in pushes {
            let is_open = push.state().fate == Fate::Open;
            if !is_open {
                self.go_on(&push);
            }
        }
    }

    /// Forgets pushes that are too old, or too many.
    pub(super) fn expire(&self) {
        let now = self.board.now();
        let mut pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        pushes.retain(|push| !push.state().is_live);
        pushes.sort_by_key(|push| std::cmp::Reverse(push.begun));
        let mut listed = 0;
        for (at, push) in pushes.iter().enumerate() {
            listed += u64::from(push.objects);
            let age = now.duration_since(push.begun).unwrap_or_default();
            if at < PUSHES_MAX && listed <= LISTED_MAX && age < self.options.keep {
                continue;
            }
            push.call_off();
            self.board.pushes().remove(&push.txn);
            tracing::info!(
                repo = push.repo,
                txn = push.txn,
                "sites fetch what they lack of it themselves"
            );
            if let Err(error) = push.remove() {
                tracing::warn!(txn = push.txn, %error, "cannot remove an old push");
            }
        }
    }

    /// Returns when every site that has everything of a visible revision was told, or after so long:
    /// for a process that is about to end.
    pub fn linger(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut seen = 0;
        loop {
            let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
            let is_due = |push: &Arc<Push>| {
                let state = push.state();
                let decided = state.fate != Fate::Open;
                let mut sites = state.sites.iter();
                decided
                    && sites.any(|(name, progress)| {
                        let pushed = self.site_of(name).is_some_and(|s| s.entry.way != Way::Pull);
                        pushed && progress.trouble.is_none() && progress.has_all()
                    })
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !pushes.iter().any(is_due) {
                return;
            }
            seen = self.board.wait(seen, left.min(HEARING));
        }
    }
}
