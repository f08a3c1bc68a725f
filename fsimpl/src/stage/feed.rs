//! Feeding the sealer: which files are due, which are under way, and clearing up behind them.
//!
//! A closed file waits here for its settle time and not in the sealer, so that one that is rewritten
//! or removed meanwhile costs nothing and a long queue little memory. One thread for each stage hands
//! on what is due; it also removes backing files and objects that nobody needs. Nothing here
//! compresses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Stage, Swept};
use crate::seal::{CancelToken, Sealer};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Instant, Mutex, thread};
use crate::tree::InoMap;
use crate::types::{BACKPRESSURE_STEP, Ino};

/// Files of one stage in the sealer at a time: enough to keep every core busy with small ones.
const MAX_UNDER_WAY: usize = 512;
/// Files waiting beyond which writers are slowed down.
const SLOW_DOWN_AT: usize = 50_000;
/// How long a file that could not be sealed rests before it is tried again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);
/// A file that is due within this is about to be sealed: longer than files rest, shorter than those
/// that failed.
const SOON: Duration = Duration::from_secs(1);
/// Backing files removed in one go; each go syncs the journal first.
const REMOVALS_AT_ONCE: usize = 4096;
/// How long a backing file that nobody needs may stay, so that one sync does for many.
const REMOVE_AFTER: Duration = Duration::from_secs(2);

/// A file to be sealed, as of one generation of its bytes.
type Due = (Ino, u32);

struct UnderWay {
    job: u64,
    generation: u32,
    cancel: CancelToken,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<(Instant, u64), Due>,
    /// Where an inode waits.
    places: InoMap<(Instant, u64)>,
    urgent: VecDeque<Due>,
    under_way: InoMap<UnderWay>,
    /// Jobs of snapshots' own copies.
    copies: usize,
    next: u64,
    removals: VecDeque<u64>,
    /// When they are to be removed at the latest.
    removals_due: Option<Instant>,
    sweep: bool,
    /// A sweep that removes nothing.
    look: bool,
    stopped: bool,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Something was sealed, failed, or was called off.
    progress: Mutex<u64>,
    progressed: Condvar,
    sweeps: Mutex<Sweeps>,
    swept: Condvar,
}

/// The sweeps that were done, and what came of the last one of each sort: it removed, it looked.
#[derive(Default)]
struct Sweeps {
    done: [u64; 2],
    last: [Option<Swept>; 2],
}

/// See the module's head.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    sealer: Arc<Sealer>,
    jobs: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
    started: AtomicBool,
}

/// Jobs of all stages share the sealer's numbers.
static NEXT_JOB: AtomicU64 = AtomicU64::new(1);

enum Next {
    Seal(Due, bool),
    Remove(Vec<u64>),
    Sweep { dry: bool },
    Stop,
}

impl Feed {
    pub(crate) fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                wake: Condvar::new(),
                progress: Mutex::new(0),
                progressed: Condvar::new(),
                sweeps: Mutex::default(),
                swept: Condvar::new(),
            }),
            sealer,
            jobs: AtomicU64::new(0),
            thread: Mutex::new(None),
            started: AtomicBool::new(false),
        }
    }

    /// Starts the thread.
    pub(crate) fn start(&self, stage: &Arc<Stage>) -> std::io::Result<()> {
        let (weak, shared) = (Arc::downgrade(stage), Arc::clone(&self.shared));
        let thread = thread::Builder::new()
            .name(format!("feed {}", stage.repository_name()))
            .spawn(move || run(&weak, &shared))?;
        *self.thread.lock() = Some(thread);
        self.started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Stops handing out and waits for the thread; what is under way is called off.
    pub(crate) fn stop(&self) {
        let under_way = {
            let mut state = self.shared.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.under_way)
        };
        for job in under_way.values() {
            job.cancel.cancel();
        }
        self.shared.wake.notify_all();
        self.shared.told();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // a panic there was reported where it happened
            let _ = thread.join();
        }
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    pub(crate) fn next_job(&self) -> u64 {
        self.jobs.fetch_add(1, Ordering::Relaxed);
        NEXT_JOB.fetch_add(1, Ordering::Relaxed)
    }

    /// A file is to be sealed at `due`; takes the place of what waited for this inode.
    pub(crate) fn queue(&self, ino: Ino, generation: u32, due: Instant) {
        let mut state = self.shared.state.lock();
        state.unqueue(ino);
        state.next += 1;
        let place = (due, state.next);
        state.waiting.insert(place, (ino, generation));
        state.places.insert(ino, place);
        let first = state
            .waiting
            .first_key_value()
            .is_some_and(|(k, _)| *k == place);
        drop(state);
        if first {
            self.shared.wake.notify_one();
        }
    }

    /// Somebody waits for these files: they go before all others.
    pub(crate) fn urge(&self, files: &[Due]) {
        let mut jobs = Vec::new();
        {
            let mut state = self.shared.state.lock();
            for (ino, generation) in files {
                match state.under_way.get(ino) {
                    Some(job) if job.generation == *generation => jobs.push(job.job),
                    _ => {
                        state.unqueue(*ino);
                        state.urgent.push_back((*ino, *generation));
                    }
                }
            }
        }
        for job in jobs {
            self.sealer.urge(job);
        }
        self.shared.wake.notify_one();
    }

    /// The bytes of this inode are not what they were, or nobody wants them.
    pub(crate) fn cancel(&self, ino: Ino) {
        let job = {
            let mut state = self.shared.state.lock();
            state.unqueue(ino);
            state.under_way.remove(&ino)
        };
        if let Some(job) = job {
            job.cancel.cancel();
            self.shared.wake.notify_one();
        }
    }

    /// True if these bytes are being sealed already; hurried up, if they are urgent.
    pub(super) fn is_sealing(&self, ino: Ino, generation: u32, urgent: bool) -> bool {
        let state = self.shared.state.lock();
        let job = state.under_way.get(&ino);
        let job = job.filter(|job| job.generation == generation);
        let Some(job) = job.map(|under_way| under_way.job) else {
            return false;
        };
        drop(state);
        if urgent {
            self.sealer.urge(job);
        }
        true
    }

    /// A job was handed to the sealer.
    pub(super) fn under_way(&self, ino: Ino, generation: u32, job: u64, cancel: CancelToken) {
        let job = UnderWay {
            job,
            generation,
            cancel,
        };
        self.shared.state.lock().under_way.insert(ino, job);
    }

    /// A job has ended.
    pub(super) fn ended(&self, ino: Ino, job: u64) {
        let mut state = self.shared.state.lock();
        if state.under_way.get(&ino).is_some_and(|u| u.job == job) {
            state.under_way.remove(&ino);
        }
        drop(state);
        self.shared.wake.notify_one();
        self.shared.told();
    }

    /// A job for a snapshot's own copy begins (1) or has ended (-1).
    pub(super) fn count_copies(&self, more: isize) {
        let mut state = self.shared.state.lock();
        state.copies = state.copies.saturating_add_signed(more);
        drop(state);
        self.shared.wake.notify_one();
        self.shared.told();
    }

    /// A backing file is to be removed.
    pub(crate) fn remove_later(&self, number: u64) {
        if number == 0 {
            return;
        }
        let mut state = self.shared.state.lock();
        state.removals.push_back(number);
        let first = state.removals_due.is_none();
        state
            .removals_due
            .get_or_insert_with(|| Instant::now() + REMOVE_AFTER);
        if first || state.removals.len() == REMOVALS_AT_ONCE {
            self.shared.wake.notify_one();
        }
    }

    /// Space is short: what nobody needs is removed now.
    pub(crate) fn remove_now(&self) {
        let mut state = self.shared.state.lock();
        if !state.removals.is_empty() {
            state.removals_due = Some(Instant::now());
            self.shared.wake.notify_one();
        }
    }

    /// Objects that nobody refers to are to be removed, once nothing is under way.
    pub(super) fn sweep_later(&self) {
        self.shared.state.lock().sweep = true;
        self.shared.wake.notify_one();
    }

    /// Sweeps, or only looks what would go, once nothing is under way; what came of it.
    pub(super) fn sweep(&self, dry: bool, deadline: Instant) -> Option<Swept> {
        let sort = usize::from(dry);
        let mut sweeps = self.shared.sweeps.lock();
        let before = sweeps.done[sort];
        {
            let mut state = self.shared.state.lock();
            match dry {
                true => state.look = true,
                false => state.sweep = true,
            }
        }
        self.shared.wake.notify_one();
        while sweeps.done[sort] == before {
            let waited = self.shared.swept.wait_until(&mut sweeps, deadline);
            if waited.timed_out() && sweeps.done[sort] == before {
                return None;
            }
        }
        sweeps.last[sort]
    }

    /// How long to hold up a writer that closes a file.
    pub(super) fn backpressure(&self) -> Option<Duration> {
        (self.shared.state.lock().waiting.len() > SLOW_DOWN_AT).then_some(BACKPRESSURE_STEP)
    }

    /// What counts up whenever a job ends.
    pub(super) fn progress(&self) -> u64 {
        *self.shared.progress.lock()
    }

    /// Waits until a job ends after `seen`, or until `deadline`; false if it has passed.
    pub(super) fn wait_progress(&self, seen: u64, deadline: Instant) -> bool {
        let mut progress = self.shared.progress.lock();
        while *progress == seen {
            let waited = self.shared.progressed.wait_until(&mut progress, deadline);
            if waited.timed_out() {
                return *progress != seen;
            }
        }
        true
    }

    /// True if files are waiting, or in the sealer.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.shared.state.lock();
        !(state.waiting.is_empty() && state.urgent.is_empty() && state.under_way.is_empty())
    }

    /// True if files are being sealed or removed, or will be in a moment.
    pub(super) fn is_working(&self) -> bool {
        let state = self.shared.state.lock();
        let soon = Instant::now() + SOON;
        let due = state.waiting.first_key_value();
        !(state.urgent.is_empty() && state.under_way.is_empty() && state.removals.is_empty())
            || state.sweep
            || state.look
            || due.is_some_and(|((due, _), _)| *due <= soon)
    }

    /// True from the moment the stage is being closed.
    pub(super) fn is_stopped(&self) -> bool {
        self.shared.state.lock().stopped
    }

    /// True if files are in the sealer, or about to be.
    pub(super) fn is_under_way(&self) -> bool {
        let state = self.shared.state.lock();
        !(state.urgent.is_empty() && state.under_way.is_empty())
    }
}

impl Shared {
    fn told(&self) {
        *self.progress.lock() += 1;
        self.progressed.notify_all();
    }

    fn swept(&self, dry: bool, swept: Option<Swept>) {
        let mut sweeps = self.sweeps.lock();
        let sort = usize::from(dry);
        sweeps.done[sort] += 1;
        sweeps.last[sort] = swept;
        self.swept.notify_all();
    }

    fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            match state.next(Instant::now()) {
                Ok(next) => return next,
                Err(Some(due)) => {
                    self.wake.wait_until(&mut state, due);
                }
                Err(None) => self.wake.wait(&mut state),
            }
        }
    }
}

impl State {
    /// What there is to do now; else until when to wait, if time alone can change that. Reads no
    /// clock: what is due for the one question must be due for the other, or a file that becomes due
    /// in between waits for ever.
    fn next(&mut self, now: Instant) -> Result<Next, Option<Instant>> {
        if self.stopped {
            return Ok(Next::Stop);
        }
        let mut until = None;
        if self.sweep || self.look {
            // new jobs wait until the sweep is done: they may want what it removes
            if self.under_way.is_empty() && self.copies == 0 {
                let dry = !std::mem::take(&mut self.sweep);
                if dry {
                    self.look = false;
                }
                return Ok(Next::Sweep { dry });
            }
        } else if self.under_way.len() < MAX_UNDER_WAY {
            if let Some(due) = self.urgent.pop_front() {
                return Ok(Next::Seal(due, true));
            }
            if let Some(first) = self.waiting.first_entry() {
                if first.key().0 <= now {
                    let due = first.remove();
                    self.places.remove(&due.0);
                    return Ok(Next::Seal(due, false));
                }
                until = Some(first.key().0);
            }
        }
        if let Some(due) = self.removals_due {
            let many = self.removals.len().min(REMOVALS_AT_ONCE);
            if due <= now || many == REMOVALS_AT_ONCE {
                let numbers = self.removals.drain(..many).collect();
                if self.removals.is_empty() {
                    self.removals_due = None;
                }
                return Ok(Next::Remove(numbers));
            }
            until = until.into_iter().chain([due]).min();
        }
        Err(until)
    }

    fn unqueue(&mut self, ino: Ino) {
        if let Some(place) = self.places.remove(&ino) {
            self.waiting.remove(&place);
        }
    }
}

fn run(stage: &Weak<Stage>, shared: &Shared) {
    loop {
        let next = shared.next();
        let Some(stage) = stage.upgrade() else {
            return;
        };
        match next {
            Next::Stop => return,
            Next::Seal((ino, generation), urgent) => stage.submit(ino, generation, urgent),
            Next::Remove(numbers) => stage.remove_backings(&numbers),
            Next::Sweep { dry } => {
                let swept = stage.sweep_objects(dry);
                shared.swept(dry, swept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(dues: &[Instant]) -> State {
        let mut state = State::default();
        for (n, due) in (1..).zip(dues) {
            state.waiting.insert((*due, n), (Ino(n), 0));
            state.places.insert(Ino(n), (*due, n));
        }
        state
    }

    /// Whatever the clock says, a file that waits is handed out, or there is an end to the wait.
    #[test]
    fn what_waits_is_never_forgotten() {
        let start = Instant::now();
        let due = start + Duration::from_secs(1);
        for at in [start, due - Duration::from_nanos(1)] {
            assert!(matches!(waiting(&[due]).next(at), Err(Some(until)) if until == due));
        }
        for at in [due, due + Duration::from_secs(9)] {
            let next = waiting(&[due]).next(at);
            assert!(matches!(next, Ok(Next::Seal((Ino(1), 0), false))));
        }
        assert!(matches!(State::default().next(start), Err(None)));
    }

    /// Removals wait for one another, but not for ever.
    #[test]
    fn what_nobody_needs_goes_in_its_time() {
        let now = Instant::now();
        let mut state = State {
            removals: VecDeque::from([7]),
            removals_due: Some(now + REMOVE_AFTER),
            ..State::default()
        };
        assert!(matches!(state.next(now), Err(Some(until)) if until == now + REMOVE_AFTER));
        let next = state.next(now + REMOVE_AFTER);
        assert!(matches!(next, Ok(Next::Remove(numbers)) if numbers == [7]));
        assert!(matches!(state.next(now), Err(None)));
        state.removals = (0..=REMOVALS_AT_ONCE as u64).collect();
        state.removals_due = Some(now + REMOVE_AFTER);
        let next = state.next(now);
        assert!(matches!(next, Ok(Next::Remove(numbers)) if numbers.len() == REMOVALS_AT_ONCE));
        assert!(matches!(state.next(now), Err(Some(_))));
    }

    /// A full sealer and a sweep hold files back until a job ends, which wakes the thread.
    #[test]
    fn what_is_held_back_needs_no_clock() {
        let now = Instant::now();
        let mut full = waiting(&[now]);
        for n in 0..MAX_UNDER_WAY as u64 {
            let job = UnderWay {
                job: n,
                generation: 0,
                cancel: CancelToken::new(),
            };
            full.under_way.insert(Ino(1000 + n), job);
        }
        assert!(matches!(full.next(now), Err(None)));
        full.under_way.remove(&Ino(1000));
        full.sweep = true;
        assert!(matches!(full.next(now), Err(None)));
        full.under_way.clear();
        assert!(matches!(full.next(now), Ok(Next::Sweep { dry: false })));
        assert!(matches!(full.next(now), Ok(Next::Seal((Ino(1), 0), false))));
    }
}
