//! The commits of a repository that are under way: for `status`, so that one that was interrupted is
//! told apart, and so that they are retired in the order in which they became visible.
//!
//! A stage goes from one revision to a later one, never back. A commit that has to do with no other
//! may become visible before it and hear of that after it; it then waits until the other is retired.

use std::time::{Duration, Instant};

use formats::RepoPath;
use parking_lot::{Condvar, Mutex};

use crate::api::Step;

/// See the module's head.
#[derive(Default)]
pub struct Commits {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Default)]
struct List {
    last: u64,
    commits: Vec<One>,
}

struct One {
    number: u64,
    paths: Vec<RepoPath>,
    step: Step,
    since: Instant,
    snapshot: Option<u64>,
    /// The revision in which it became visible.
    landed: Option<u64>,
}

/// What is known of a commit that is under way.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its targets.
    pub paths: Vec<RepoPath>,
    /// What it is doing.
    pub step: Step,
    /// For how long it has been under way.
    pub lasts: Duration,
}

/// A commit, for as long as it is under way.
pub struct UnderWay<'c> {
    commits: &'c Commits,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut list = self.commits.list.lock();
        list.commits.retain(|one| one.number != self.number);
        self.commits.changed.notify_all();
    }
}

impl UnderWay<'_> {
    fn change(&self, change: impl FnOnce(&mut One)) {
        let mut list = self.commits.list.lock();
        let mut all = list.commits.iter_mut();
        if let Some(own) = all.find(|one| one.number == self.number) {
            change(own);
        }
        self.commits.changed.notify_all();
    }

    /// It has come to this step.
    pub fn at(&self, step: Step) {
        self.change(|own| own.step = step);
    }

    /// It has this snapshot.
    pub fn has(&self, snapshot: u64) {
        self.change(|own| own.snapshot = Some(snapshot));
    }

    /// It is visible in this revision.
    pub fn landed(&self, revision: u64) {
        self.change(|own| own.landed = Some(revision));
    }

    /// Returns when those that became visible before this revision, which is its own, are retired.
    pub fn wait_for_earlier(&self, revision: u64) {
        let mut list = self.commits.list.lock();
        let earlier = |one: &One| match one.landed {
            Some(other) => other < revision,
            None => one.step == Step::Submit,
        };
        while list
            .commits
            .iter()
            .any(|one| one.number != self.number && earlier(one))
        {
            self.commits.changed.wait(&mut list);
        }
    }
}

impl Commits {
    /// Says that a commit of these paths is under way.
    #[must_use]
    pub fn begin(&self, paths: &[RepoPath]) -> UnderWay<'_> {
        let mut list = self.list.lock();
        list.last += 1;
        let number = list.last;
        list.commits.push(One {
            number,
            paths: paths.to_vec(),
            step: Step::Recover,
            since: Instant::now(),
            snapshot: None,
            landed: None,
        });
        UnderWay {
            commits: self,
            number,
        }
    }

    /// True if a commit that is under way has this snapshot.
    #[must_use]
    pub fn have(&self, snapshot: u64) -> bool {
        let list = self.list.lock();
        let mut all = list.commits.iter();
        all.any(|one| one.snapshot == Some(snapshot))
    }

    /// Waits until a snapshot is retired or thawed, for so long.
    pub fn wait_for_end_of(&self, snapshot: u64, within: Duration) {
        let deadline = Instant::now() + within;
        let mut list = self.list.lock();
        while list.commits.iter().any(|o| o.snapshot == Some(snapshot)) {
            if self.changed.wait_until(&mut list, deadline).timed_out() {
                return;
            }
        }
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        let list = self.list.lock();
        let seen = list.commits.iter().map(|one| Seen {
            paths: one.paths.clone(),
            step: one.step,
            lasts: one.since.elapsed(),
        });
        seen.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn retired_in_the_order_of_revisions() {
        let commits = Commits::default();
        let [early, late, storing] = [(); 3].map(|()| commits.begin(&[RepoPath::root()]));
        early.at(Step::Submit);
        late.at(Step::Submit);
        storing.at(Step::Store);
        let retired = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                late.landed(12);
                late.wait_for_earlier(12);
                assert_eq!(retired.load(Ordering::SeqCst), 1);
                drop(late);
            });
            while !commits
                .list
                .lock()
                .commits
                .iter()
                .any(|o| o.landed == Some(12))
            {
                std::thread::yield_now();
            }
            // it need not wait for the later one, nor for one that has not come so far
            early.landed(11);
            early.wait_for_earlier(11);
            retired.store(1, Ordering::SeqCst);
            drop(early);
        });
        assert_eq!(commits.seen().len(), 1);
        storing.has(7);
        assert!(commits.have(7));
        commits.wait_for_end_of(7, Duration::ZERO);
        drop(storing);
        assert!(!commits.have(7));
        commits.wait_for_end_of(7, Duration::MAX / 4);
    }
}
