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
    /// A commit's revision is visible: each site is told as soon as it has everything. Durable when this
    /// returns; said again, it changes nothing.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn visible(
        &self,
        commit: &str,
        (root_hash, revision): (String, u64),
        since: SystemTime,
    ) -> Result<(), WarmError> {
        let unix = crate::stratum0::seconds(since).cast_signed();
        let told = Told {
            root_hash,
            revision,
            published_at: rfc3339(unix),
        };
        self.decide(&self.board.of_commit(commit), &Fate::Visible(told))
    }

    /// A commit's revision never becomes visible: each site may forget what it was sent.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn give_up(&self, commit: &str) -> Result<(), WarmError> {
        self.decide(&self.board.of_commit(commit), &Fate::GivenUp)
    }

    /// Gives up what no commit of this process answers for, of a repository whose interrupted commits
    /// are all settled.
    pub fn settle(&self, repo: &str) {
        let is_orphan = |push: &Push| {
            let state = push.state();
            !push.is_early && !state.is_live() && state.fate == Fate::Open
        };
        self.give_up_all(repo, is_orphan);
    }

    /// What was sent early before `but` went another way: it was published, or dropped, or is part of
    /// that. Each site may forget it, for what a commit needs stands in its own transaction.
    pub fn end_early(&self, repo: &str, but: Option<&str>) {
        self.give_up_all(repo, |push| {
            let is_other = but.is_none_or(|but| push.commit() != but);
            push.is_early && is_other && push.state().fate == Fate::Open
        });
    }

    fn give_up_all(&self, repo: &str, which: impl Fn(&Push) -> bool) {
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        let found: Vec<_> = pushes
            .into_iter()
            .filter(|push| push.repo == repo && which(push))
            .collect();
        if let Err(error) = self.decide(&found, &Fate::GivenUp) {
            tracing::warn!(repo, %error, "objects that nobody answers for");
        }
    }

    fn decide(&self, pushes: &[Arc<Push>], fate: &Fate) -> Result<(), WarmError> {
        let mut open: Vec<&Arc<Push>> = Vec::new();
        for push in pushes {
            let mut state = push.state();
            if state.fate == Fate::Open {
                state.fate = fate.clone();
                open.push(push);
            }
        }
        if let (Fate::Visible(told), Some(first), Some(link)) =
            (fate, open.first(), self.board.link())
        {
            let txns = open.iter().map(|push| push.txn.clone()).collect();
            link.published(&first.repo, txns, told);
        }
        let mut recorded = Ok(());
        for push in &open {
            if let Err(source) = push.record() {
                recorded = Err(self.unrecorded(source));
            }
        }
        if !open.is_empty() {
            failpoint::pass("warm::decided")?;
        }
        for push in open {
            if *fate == Fate::GivenUp {
                push.call_off();
            }
            self.go_on(push);
        }
        recorded
    }

    /// Has every site that is not through with a push served.
    fn go_on(&self, push: &Arc<Push>) {
        let names: Vec<_> = push.state().sites.keys().cloned().collect();
        for name in &names {
            match self.site_of(name) {
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
        pushes.retain(|push| !push.state().is_live());
        pushes.sort_by_key(|push| std::cmp::Reverse(push.begun));
        let mut listed = 0;
        for (at, push) in pushes.iter().enumerate() {
            listed += u64::from(push.objects);
            let age = now.duration_since(push.begun).unwrap_or_default();
            // those that are early have an end of their own, soon
            let is_room = push.is_early || (at < PUSHES_MAX && listed <= LISTED_MAX);
            if is_room && age < self.options.keep {
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
