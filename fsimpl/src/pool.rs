//! A fixed set of worker threads behind one bounded queue.
//!
//! ```text
//! submit ──not_before──> delayed ──ripe──> normal ─┐
//!    └──────────────────────────────urge──> urgent ─┼─> workers (one scratch each)
//! a running task ───────────split off────> pieces ─┘
//! ```
//!
//! Order of service: pieces of urgent tasks, urgent tasks, pieces of others, others. So what was
//! begun is finished before more is begun, and what nobody waits for never delays what somebody
//! waits for. Submitting never blocks: whoever may
//! wait asks [`Pool::admit`] first, which waits for a bounded time. What is admitted counts as
//! pending until its [`Pending`] guard is dropped, so memory is bounded by [`PoolLimits`] as far as
//! callers heed `admit`.
//!
//! This module knows nothing of files or sealing, and never runs a task with its lock held.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Instant, Mutex, thread};

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Threads.
    pub workers: usize,
    /// Tasks pending before [`Pool::admit`] makes callers wait.
    pub pending_max: u64,
    /// Weight pending (bytes, for a sealer) before [`Pool::admit`] makes callers wait.
    pub pending_weight_max: u64,
    /// Niceness of the workers over that of the process, 0 to 19.
    pub nice: u8,
}

/// A task's turn on a worker.
pub(crate) enum Turn<'a, S> {
    /// Work, with this worker's scratch.
    Work(&'a mut S, &'a Handle<S>),
    /// The pool shuts down: tell whoever waits, do nothing else.
    Stop,
}

/// What a worker runs, once.
pub(crate) type Run<S> = Box<dyn FnOnce(Turn<'_, S>) + Send>;

/// A task in the queue, for [`Handle::urge`] and [`Handle::expedite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

struct State<S> {
    next: u64,
    urgent_pieces: VecDeque<Run<S>>,
    urgent: BTreeMap<Ticket, Run<S>>,
    pieces: VecDeque<Run<S>>,
    normal: BTreeMap<Ticket, Run<S>>,
    delayed: BTreeMap<(Instant, Ticket), Run<S>>,
    ripe_at: HashMap<Ticket, Instant>,
    pending: u64,
    pending_weight: u64,
    paused: bool,
    stopping: bool,
}

impl<S> State<S> {
    fn is_full(&self, limits: &PoolLimits) -> bool {
        self.pending >= limits.pending_max || self.pending_weight >= limits.pending_weight_max
    }

    /// Moves what is ripe to the normal lane.
    fn ripen(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                return;
            }
            let ((_, ticket), run) = first.remove_entry();
            self.ripe_at.remove(&ticket);
            self.normal.insert(ticket, run);
        }
    }

    fn take(&mut self, now: Instant) -> Option<Run<S>> {
        if self.stopping {
            self.normal.extend(
                std::mem::take(&mut self.delayed)
                    .into_iter()
                    .map(|((_, t), r)| (t, r)),
            );
            self.ripe_at.clear();
        } else {
            self.ripen(now);
        }
        let begins = !self.paused || self.stopping;
        let first = |lane: &mut BTreeMap<Ticket, Run<S>>| {
            if begins {
                Some(lane.pop_first()?.1)
            } else {
                None
            }
        };
        self.urgent_pieces
            .pop_front()
            .or_else(|| first(&mut self.urgent))
            .or_else(|| self.pieces.pop_front())
            .or_else(|| first(&mut self.normal))
    }

    /// Takes a task out of the delayed or the normal lane.
    fn pull(&mut self, ticket: Ticket) -> Option<Run<S>> {
        match self.ripe_at.remove(&ticket) {
            Some(at) => self.delayed.remove(&(at, ticket)),
            None => self.normal.remove(&ticket),
        }
    }
}

struct Shared<S> {
    state: Mutex<State<S>>,
    /// Something to do, or a change of what is to be done.
    work: Condvar,
    /// Something is no longer pending.
    less: Condvar,
    stopping: AtomicBool,
    busy_ns: Vec<AtomicU64>,
    limits: PoolLimits,
}

/// Counts a task as pending until dropped.
pub(crate) struct Pending<S> {
    handle: Handle<S>,
    weight: u64,
}

impl<S> Drop for Pending<S> {
    fn drop(&mut self) {
        let shared = &self.handle.0;
        let mut state = shared.state.lock();
        let was_full = state.is_full(&shared.limits);
        state.pending -= 1;
        state.pending_weight -= self.weight;
        // waking somebody costs more than many a task, so only where a wait may be over
        let may_matter = state.pending == 0 || (was_full && !state.is_full(&shared.limits));
        drop(state);
        if may_matter {
            shared.less.notify_all();
        }
    }
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub pending: u64,
    pub pending_weight: u64,
    pub delayed: u64,
}

/// A pool as its tasks and their submitters see it.
pub(crate) struct Handle<S>(Arc<Shared<S>>);

impl<S> Clone for Handle<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Handle<S> {
    /// Counts a task to come.
    pub fn pend(&self, weight: u64) -> Pending<S> {
        let mut state = self.0.state.lock();
        state.pending += 1;
        state.pending_weight += weight;
        Pending {
            handle: self.clone(),
            weight,
        }
    }

    /// Makes a ticket for a task to come.
    pub fn ticket(&self) -> Ticket {
        let mut state = self.0.state.lock();
        state.next += 1;
        Ticket(state.next)
    }

    /// Queues a task, or hands it back if the pool shuts down.
    pub fn submit(&self, ticket: Ticket, not_before: Instant, run: Run<S>) -> Option<Run<S>> {
        let mut state = self.0.state.lock();
        if state.stopping {
            return Some(run);
        }
        if not_before <= Instant::now() {
            state.normal.insert(ticket, run);
        } else {
            state.ripe_at.insert(ticket, not_before);
            state.delayed.insert((not_before, ticket), run);
        }
        drop(state);
        self.0.work.notify_one();
        None
    }

    /// Queues part of a task that has begun. Only a running task may do so: its worker is still
    /// there to take it, whatever happens.
    pub fn submit_piece(&self, urgent: bool, run: Run<S>) {
        let mut state = self.0.state.lock();
        let lane = if urgent {
            &mut state.urgent_pieces
        } else {
            &mut state.pieces
        };
        lane.push_back(run);
        drop(state);
        self.0.work.notify_one();
    }

    /// Moves a task that has not begun to the urgent lane, whatever its delay.
    pub fn urge(&self, ticket: Ticket) {
        let mut state = self.0.state.lock();
        if let Some(run) = state.pull(ticket) {
            state.urgent.insert(ticket, run);
            drop(state);
            self.0.work.notify_one();
        }
    }

    /// Ends a task's delay.
    pub fn expedite(&self, ticket: Ticket) {
        let mut state = self.0.state.lock();
        if let Some(run) = state.pull(ticket) {
            state.normal.insert(ticket, run);
            drop(state);
            self.0.work.notify_one();
        }
    }

    /// True once the pool shuts down: long tasks look now and then, and give up.
    pub fn stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// Workers.
    pub fn workers(&self) -> usize {
        self.0.limits.workers
    }

    fn serve(&self, worker: usize, mut scratch: S) {
        let shared = &self.0;
        loop {
            let run = {
                let mut state = shared.state.lock();
                loop {
                    if let Some(run) = state.take(Instant::now()) {
                        break run;
                    }
                    if state.stopping {
                        return;
                    }
                    match state.delayed.first_key_value() {
                        Some((&(at, _), _)) if !state.paused => {
                            shared.work.wait_until(&mut state, at);
                        }
                        _ => shared.work.wait(&mut state),
                    }
                }
            };
            let begun = Instant::now();
            if self.stopping() {
                run(Turn::Stop);
            } else {
                run(Turn::Work(&mut scratch, self));
            }
            let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            shared.busy_ns[worker].fetch_add(spent, Ordering::Relaxed);
        }
    }
}

/// The workers. Dropping it is [`Pool::shutdown`].
pub(crate) struct Pool<S: Send + 'static> {
    handle: Handle<S>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl<S: Send + 'static> Pool<S> {
    /// Starts the workers, each with a scratch of its own.
    pub fn new(limits: PoolLimits, name: &str, scratch: fn() -> S) -> io::Result<Self> {
        let limits = PoolLimits {
            workers: limits.workers.max(1),
            ..limits
        };
        let handle = Handle(Arc::new(Shared {
            state: Mutex::new(State {
                next: 0,
                urgent_pieces: VecDeque::new(),
                urgent: BTreeMap::new(),
                pieces: VecDeque::new(),
                normal: BTreeMap::new(),
                delayed: BTreeMap::new(),
                ripe_at: HashMap::new(),
                pending: 0,
                pending_weight: 0,
                paused: false,
                stopping: false,
            }),
            work: Condvar::new(),
            less: Condvar::new(),
            stopping: AtomicBool::new(false),
            busy_ns: (0..limits.workers).map(|_| AtomicU64::new(0)).collect(),
            limits,
        }));
        let pool = Self {
            handle,
            threads: Mutex::new(Vec::new()),
        };
        for worker in 0..limits.workers {
            let handle = pool.handle.clone();
            let thread = thread::Builder::new()
                .name(format!("{name}-{worker}"))
                .spawn(move || {
                    be_nice(limits.nice);
                    handle.serve(worker, scratch());
                })?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// The pool as tasks see it.
    pub fn handle(&self) -> &Handle<S> {
        &self.handle
    }

    /// Waits until the queue has room, at most `max_wait`. False if it is still full.
    pub fn admit(&self, max_wait: Duration) -> bool {
        let limits = self.handle.0.limits;
        let fits = |s: &State<S>| s.stopping || !s.is_full(&limits);
        self.wait(max_wait, fits)
    }

    /// Waits until nothing is pending, at most `max_wait`. False if something still is.
    pub fn wait_idle(&self, max_wait: Duration) -> bool {
        self.wait(max_wait, |s| s.pending == 0)
    }

    fn wait(&self, max_wait: Duration, met: impl Fn(&State<S>) -> bool) -> bool {
        // a wait that no clock can express is a wait for ever
        let until = Instant::now().checked_add(max_wait);
        let mut state = self.handle.0.state.lock();
        while !met(&state) {
            match until {
                Some(until) if self.handle.0.less.wait_until(&mut state, until).timed_out() => {
                    return met(&state);
                }
                Some(_) => {}
                None => self.handle.0.less.wait(&mut state),
            }
        }
        true
    }

    /// Stops beginning tasks, or goes on. What has begun goes on either way.
    pub fn pause(&self, paused: bool) {
        self.handle.0.state.lock().paused = paused;
        self.handle.0.work.notify_all();
    }

    /// How full it is.
    pub fn depth(&self) -> Depth {
        let state = self.handle.0.state.lock();
        Depth {
            pending: state.pending,
            pending_weight: state.pending_weight,
            delayed: state.delayed.len() as u64,
        }
    }

    /// Time that each worker has spent on tasks.
    pub fn busy(&self) -> Vec<Duration> {
        let nanos = |n: &AtomicU64| Duration::from_nanos(n.load(Ordering::Relaxed));
        self.handle.0.busy_ns.iter().map(nanos).collect()
    }

    /// Gives every queued task its [`Turn::Stop`], waits for running ones, ends the workers.
    /// What is submitted afterwards is handed back.
    pub fn shutdown(&self) {
        self.handle.0.stopping.store(true, Ordering::Relaxed);
        self.handle.0.state.lock().stopping = true;
        self.handle.0.work.notify_all();
        self.handle.0.less.notify_all();
        for thread in self.threads.lock().drain(..) {
            // a task's callback may hold the last reference and so run this on a worker
            if thread.thread().id() != thread::current().id() {
                // a worker that panicked has said so itself
                drop(thread.join());
            }
        }
    }
}

impl<S: Send + 'static> Drop for Pool<S> {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Lowers this thread's priority, so that the threads that answer the kernel come first.
fn be_nice(nice: u8) {
    if nice == 0 {
        return;
    }
    let tid = rustix::thread::gettid();
    // on Linux the call acts on the one thread whose id it is given
    let now = rustix::process::getpriority_process(Some(tid)).unwrap_or(0);
    if let Err(error) = rustix::process::setpriority_process(Some(tid), now + i32::from(nice)) {
        tracing::debug!(%error, "a seal worker keeps its priority");
    }
}

#[cfg(test)]
mod tests;
