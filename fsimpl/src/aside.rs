//! Threads for requests that may take their time.
//!
//! The few threads that take requests from the kernel must never wait: a request that may have to
//! fetch, copy or sync, or that is held up on purpose, is answered from here. Threads are started
//! as needed, at most [`THREADS_MAX`], and go when idle. Nothing here knows what the work is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread};

/// Requests answered at once: what a few builds keep going, at 2 MiB of address space each.
const THREADS_MAX: usize = 32;

/// How long a thread waits for more work before it goes.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// What is done, and what of it is left for later.
pub(crate) type Work = Box<dyn FnOnce() -> Option<Later> + Send>;

/// Work that has time.
pub(crate) struct Later {
    pub delay: Duration,
    pub work: Work,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Work>,
    later: BTreeMap<(Instant, u64), Work>,
    next: u64,
    threads: usize,
    idle: usize,
    stopping: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn put_off(&mut self, Later { delay, work }: Later) {
        let key = (Instant::now() + delay, self.next);
        self.next += 1;
        self.later.insert(key, work);
    }
}

/// See the module. Dropping it drops what has not begun.
#[derive(Default)]
pub(crate) struct Aside(Arc<Shared>);

impl Aside {
    /// Does `work` as soon as a thread is free.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.run_steps(Box::new(move || {
            work();
            None
        }));
    }

    /// Does `work` as soon as a thread is free, and in its time what it leaves for later. No thread
    /// waits meanwhile.
    pub fn run_steps(&self, work: Work) {
        let mut state = self.0.state.lock();
        state.ready.push_back(work);
        self.staff(state);
    }

    /// Does what was left for later.
    pub fn run_later(&self, later: Later) {
        let mut state = self.0.state.lock();
        state.put_off(later);
        self.staff(state);
    }

    /// Does `work` after `delay`.
    pub fn run_after(&self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        self.run_later(Later {
            delay,
            work: Box::new(move || {
                work();
                None
            }),
        });
    }

    /// Wakes a thread, or starts one if none is idle.
    fn staff(&self, mut state: MutexGuard<'_, State>) {
        let enough = state.idle > state.ready.len().saturating_sub(1);
        if enough || state.threads >= THREADS_MAX {
            drop(state);
            self.0.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        let started = thread::Builder::new()
            .name("fuse-aside".to_owned())
            .spawn(move || serve(&shared));
        if let Err(error) = started {
            tracing::warn!(%error, "cannot start a thread for slow requests");
            let mut state = self.0.state.lock();
            state.threads -= 1;
            // with no thread at all nobody would ever be answered
            let stranded = if state.threads == 0 {
                let later = |state: &mut State| Some(state.later.pop_first()?.1);
                state.ready.pop_front().or_else(|| later(&mut state))
            } else {
                None
            };
            drop(state);
            let mut next = stranded;
            while let Some(work) = next {
                next = work().map(|later| {
                    thread::sleep(later.delay);
                    later.work
                });
            }
        }
    }
}

fn serve(shared: &Shared) {
    let mut state = shared.state.lock();
    loop {
        let now = Instant::now();
        while let Some(first) = state.later.first_entry()
            && first.key().0 <= now
        {
            let work = first.remove();
            state.ready.push_back(work);
        }
        if state.stopping {
            break;
        }
        if let Some(work) = state.ready.pop_front() {
            drop(state);
            let left = work();
            state = shared.state.lock();
            if let Some(later) = left {
                state.put_off(later);
            }
            continue;
        }
        let due = state.later.first_key_value().map(|((at, _), _)| *at);
        state.idle += 1;
        let waited = shared
            .changed
            .wait_until(&mut state, due.unwrap_or(now + IDLE_TIME));
        state.idle -= 1;
        if waited.timed_out() && due.is_none() && state.ready.is_empty() && state.later.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}

impl Drop for Aside {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.stopping = true;
        let dropped = (
            std::mem::take(&mut state.ready),
            std::mem::take(&mut state.later),
        );
        drop(state);
        self.0.changed.notify_all();
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn slow_work_holds_up_nobody() {
        let aside = Aside::default();
        let (to, from) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        aside.run(move || gate.recv().unwrap());
        for n in 0..5 {
            let to = to.clone();
            aside.run(move || to.send(n).unwrap());
        }
        let mut seen: Vec<i32> = (0..5).map(|_| from.recv_timeout(LONG).unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        go.send(()).unwrap();
    }

    #[test]
    fn delays_are_kept_and_need_no_thread_each() {
        let aside = Aside::default();
        let (to, from) = mpsc::channel();
        let begun = Instant::now();
        for n in 0..500_u64 {
            let to = to.clone();
            aside.run_after(Duration::from_millis(50), move || {
                to.send((n, begun.elapsed())).unwrap();
            });
        }
        for _ in 0..500 {
            let (_, after) = from.recv_timeout(LONG).unwrap();
            assert!(after >= Duration::from_millis(50));
        }
        assert!(aside.0.state.lock().threads <= THREADS_MAX);
    }

    #[test]
    fn work_goes_on_in_steps() {
        fn step(left: u32, to: mpsc::Sender<u32>) -> Work {
            Box::new(move || {
                to.send(left).unwrap();
                (left > 0).then(|| Later {
                    delay: Duration::from_millis(1),
                    work: step(left - 1, to),
                })
            })
        }
        let aside = Aside::default();
        let (to, from) = mpsc::channel();
        aside.run_steps(step(3, to));
        let seen: Vec<u32> = std::iter::from_fn(|| from.recv_timeout(LONG).ok()).collect();
        assert_eq!(seen, [3, 2, 1, 0]);
    }

    #[test]
    fn what_has_not_begun_is_dropped_with_it() {
        let aside = Aside::default();
        let (to, from) = mpsc::channel::<()>();
        aside.run_after(LONG, move || to.send(()).unwrap());
        drop(aside);
        assert!(matches!(
            from.recv_timeout(LONG),
            Err(mpsc::RecvTimeoutError::Disconnected)
        ));
    }
}
