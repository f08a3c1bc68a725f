//! Commits of one process that go on side by side, and take turns where the lease is one.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use commit::{CommitError, NoProgress, Outcome, Progress, PublisherError, Request, Step};

use crate::support::repo::Repo;

/// Stops a commit under its lease, until it is told to go on.
struct Gate {
    here: Sender<()>,
    go: Mutex<Receiver<()>>,
}

impl Progress for Gate {
    fn step(&self, step: Step, done: u64, _: u64) {
        if step == Step::Submit && done == 0 {
            self.here.send(()).unwrap();
            self.go.lock().unwrap().recv().unwrap();
        }
    }
}

fn revision(outcome: Result<Outcome, CommitError>) -> u64 {
    match outcome {
        Ok(Outcome::Visible(visible)) => visible.revision,
        other => panic!("{other:?}"),
    }
}

fn is_busy(outcome: &Result<Outcome, CommitError>) -> bool {
    matches!(
        outcome,
        Err(CommitError::Publisher(PublisherError::Busy { .. }))
    )
}

#[test]
fn the_lease_of_ones_own_is_waited_for() {
    let repo = Repo::new();
    let queue = Arc::default();
    let request = |path: &str, turn: u64| Request {
        queue: Arc::clone(&queue),
        turn: Duration::from_secs(turn),
        ..repo.request(repo.changes().file(path, b"content").done())
    };
    let dir = |name: &str| repo.dir.path().join(name);
    let publish = |request: &Request, name: &str, progress: &dyn Progress| {
        commit::publish(request, &repo.publisher, &dir(name), progress)
    };
    let (first, second, hasty) = (request("/a", 60), request("/b", 60), request("/c", 0));
    let (here, at_work) = channel();
    let (go, gate) = channel();
    let gate = Gate {
        here,
        go: Mutex::new(gate),
    };
    std::thread::scope(|scope| {
        let publish = &publish;
        let (first, second) = (&first, &second);
        let one = scope.spawn(move || publish(first, "one", &gate));
        at_work.recv().unwrap();
        let two = scope.spawn(move || publish(second, "two", &NoProgress));
        // it has no time for others
        let refused = publish(&hasty, "three", &NoProgress);
        assert!(is_busy(&refused), "{refused:?}");
        go.send(()).unwrap();
        let one = revision(one.join().unwrap());
        let two = revision(two.join().unwrap());
        assert_eq!(two, one + 1);
    });
    for path in ["/a", "/b"] {
        let path = path.parse().unwrap();
        assert!(repo.head().lookup(&path).unwrap().is_some(), "{path}");
    }
    // another publisher's is not waited for by who did not ask for that
    let unrelated = request("/d", 60);
    let _lease = {
        use commit::Publisher;
        let lease = repo.publisher.lease(&unrelated.change_set, repo.now());
        lease.unwrap()
    };
    let refused = publish(&unrelated, "four", &NoProgress);
    assert!(is_busy(&refused), "{refused:?}");
}
