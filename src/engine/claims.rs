//! Who has to do with which paths of a repository: commits, and whatever else must not meet one.
//!
//! Claims that overlap have their turn in the order in which they were asked for; all others go on
//! side by side. A claim on the root is one on everything.

use std::time::{Duration, Instant};

use formats::RepoPath;
use parking_lot::{Condvar, Mutex};

/// See the module's head.
#[derive(Default)]
pub struct Claims {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Claims in the order in which they were asked for: one is granted when none before it overlaps.
#[derive(Default)]
struct Queue {
    last: u64,
    claims: Vec<Claim>,
}

struct Claim {
    ticket: u64,
    paths: Vec<RepoPath>,
}

impl Claim {
    fn overlaps(&self, other: &Self) -> bool {
        let mut all = self.paths.iter();
        all.any(|a| {
            let mut others = other.paths.iter();
            others.any(|b| a.is_within(b) || b.is_within(a))
        })
    }
}

impl Queue {
    fn add(&mut self, paths: &[RepoPath]) -> u64 {
        self.last += 1;
        self.claims.push(Claim {
            ticket: self.last,
            paths: paths.to_vec(),
        });
        self.last
    }

    fn is_granted(&self, ticket: u64) -> bool {
        let Some(own) = self.claims.iter().find(|claim| claim.ticket == ticket) else {
            return false;
        };
        let mut before = self.claims.iter().take_while(|claim| claim.ticket < ticket);
        !before.any(|claim| claim.overlaps(own))
    }
}

/// A claim that was granted, until dropped.
pub struct Claimed<'c> {
    claims: &'c Claims,
    ticket: u64,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        self.claims.give_up(self.ticket);
    }
}

impl Claimed<'_> {
    /// True if somebody waits for it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        let queue = self.claims.queue.lock();
        let own = queue
            .claims
            .iter()
            .find(|claim| claim.ticket == self.ticket);
        let mut after = queue
            .claims
            .iter()
            .skip_while(|claim| claim.ticket <= self.ticket);
        own.is_some_and(|own| after.any(|claim| claim.overlaps(own)))
    }
}

impl Claims {
    /// Claims paths, and waits for so long.
    pub fn take(&self, paths: &[RepoPath], within: Duration) -> Option<Claimed<'_>> {
        // too far off to be counted: for good
        let deadline = Instant::now().checked_add(within);
        let mut queue = self.queue.lock();
        let ticket = queue.add(paths);
        while !queue.is_granted(ticket) {
            let timed_out = match deadline {
                Some(deadline) => self.changed.wait_until(&mut queue, deadline).timed_out(),
                None => {
                    self.changed.wait(&mut queue);
                    false
                }
            };
            if timed_out && !queue.is_granted(ticket) {
                drop(queue);
                self.give_up(ticket);
                return None;
            }
        }
        Some(Claimed {
            claims: self,
            ticket,
        })
    }

    /// Claims everything, and waits for so long.
    pub fn take_all(&self, within: Duration) -> Option<Claimed<'_>> {
        self.take(&[RepoPath::root()], within)
    }

    /// Claims everything, and waits however long that takes.
    pub fn take_all_at_last(&self) -> Claimed<'_> {
        loop {
            if let Some(claimed) = self.take_all(Duration::MAX) {
                return claimed;
            }
        }
    }

    /// Claims everything, if nobody has claimed anything.
    pub fn take_all_if_free(&self) -> Option<Claimed<'_>> {
        self.take_all(Duration::ZERO)
    }

    fn give_up(&self, ticket: u64) {
        self.queue
            .lock()
            .claims
            .retain(|claim| claim.ticket != ticket);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn paths(paths: &[&str]) -> Vec<RepoPath> {
        let parse = |path: &&str| match *path {
            "/" => RepoPath::root(),
            path => path.parse().unwrap(),
        };
        paths.iter().map(parse).collect()
    }

    #[test]
    fn only_what_overlaps_waits() {
        let claims = Claims::default();
        let a = claims.take(&paths(&["/a", "/x/y"]), NOW).unwrap();
        let b = claims.take(&paths(&["/b", "/ab", "/x/z"]), NOW).unwrap();
        for taken in ["/a", "/a/in", "/b", "/x", "/x/y/z", "/"] {
            assert!(claims.take(&paths(&[taken]), NOW).is_none(), "{taken}");
        }
        assert!(!a.is_wanted(), "who has given up wants it no more");
        drop(a);
        let again = claims.take(&paths(&["/a/in"]), NOW).unwrap();
        drop((again, b));
        assert!(claims.take_all_if_free().is_some());
    }

    #[test]
    fn whoever_asked_first_is_first() {
        let claims = Claims::default();
        let first = claims.take(&paths(&["/a"]), NOW).unwrap();
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (number, path) in ["/", "/a/b", "/c"].into_iter().enumerate() {
                let (claims, order) = (&claims, &order);
                scope.spawn(move || {
                    let claimed = claims.take(&paths(&[path]), Duration::MAX);
                    order.lock().push(number);
                    drop(claimed);
                });
                while claims.queue.lock().claims.len() < number + 2 {
                    std::thread::yield_now();
                }
            }
            assert!(first.is_wanted());
            // what comes later does not overtake what it overlaps, granted or not
            assert!(claims.take(&paths(&["/c"]), NOW).is_none());
            assert!(order.lock().is_empty());
            drop(first);
        });
        let order = order.into_inner();
        assert_eq!(order[0], 0, "{order:?}");
        assert_eq!(order.len(), 3);
    }
}
