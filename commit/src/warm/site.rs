//! One site: what is on its way there, by threads of its own.
//!
//! Pushes wait in a queue, the smallest first, for a few threads that come when there is something to
//! do and go when there is not. What fails for a passing reason is tried again after a pause that
//! doubles; whatever is new is tried at once. No site waits for another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use store::failpoint;

use super::board::Board;
use super::broker::OverBroker;
use super::client::Client;
use super::control::{Control, Trouble};
use super::lanes::{Lanes, Pace};
use super::push::{Fate, Push};
use super::registry::{SiteEntry, Way};
use super::seen::Seen;
use super::transfer::{Hear, Stop, Transfer};

/// Pushes that one site is served at a time; more wait, the smallest first.
const TASKS_MAX: usize = 4;

/// The pause after a failure, which doubles up to the other one. While a commit waits it is no longer
/// than the third.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(300);
const PAUSE_LIVE_MAX: Duration = Duration::from_secs(2);

/// See the module's head.
pub(super) struct Site {
    pub(super) entry: SiteEntry,
    /// None for one that pulls.
    client: Option<Client>,
    lanes: Lanes,
    /// All that goes there keeps to it, whoever calls whom.
    pub(super) pace: Arc<Pace>,
    connections: usize,
    gone: Arc<AtomicBool>,
    board: Arc<Board>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: Vec<Waiting>,
    running: usize,
    failures: u32,
    /// When the site is tried again, whatever waits.
    not_before: Option<Instant>,
    seen: Seen,
}

struct Waiting {
    push: Arc<Push>,
    not_before: Option<Instant>,
}

/// What is to be done about a push.
enum Next {
    Send,
    Publish(super::push::Told),
    GiveUp,
    Nothing,
}

impl Site {
    pub(super) fn new(
        entry: SiteEntry,
        client: Option<Client>,
        connections: usize,
        board: Arc<Board>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            lanes: Lanes::new(connections),
            pace: Arc::new(Pace::new(entry.bandwidth)),
            entry,
            connections,
            gone: Arc::default(),
            board,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is a single one, so what a panic leaves is whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    /// It could not be reached when it was last tried.
    pub(super) fn is_down(&self) -> bool {
        self.entry.way != Way::Pull && self.state().seen.connected == Some(false)
    }

    /// It is no site any more: what is on its way is cut.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.state().queue.clear();
        self.changed.notify_all();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Asks it for itself.
    pub(super) fn probe(&self) {
        let Some(client) = &self.client else {
            return;
        };
        let answer = client.about();
        self.saw(answer.as_ref().err());
        if let Ok(Some(theirs)) = answer {
            let ours = crate::stratum0::seconds(self.board.now());
            let ahead = theirs.cast_signed().wrapping_sub(ours.cast_signed());
            self.note(|seen| seen.clock_ahead = Some(ahead));
        }
    }

    pub(super) fn saw(&self, trouble: Option<&Trouble>) {
        self.state().seen.saw(trouble);
    }

    /// Something that concerns what is known of it alone.
    pub(super) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.state().seen);
    }

    /// There is something to do about a push. A site that pulls finds it by itself.
    pub(super) fn enqueue(self: &Arc<Self>, push: &Arc<Push>) {
        if self.client.is_none() || self.is_gone() {
            return;
        }
        let mut state = self.state();
        state.not_before = None;
        state.queue.retain(|one| !Arc::ptr_eq(&one.push, push));
        state.queue.push(Waiting {
            push: Arc::clone(push),
            not_before: None,
        });
        let wanted = state.running < TASKS_MAX.min(state.queue.len() + state.running);
        if wanted {
            state.running += 1;
            let site = Arc::clone(self);
            let name = format!("warm {}", self.entry.name);
            let started = std::thread::Builder::new()
                .name(name)
                .spawn(move || site.work());
            if let Err(error) = started {
                state.running -= 1;
                tracing::error!(site = %self.entry.name, %error, "cannot start a thread");
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn work(&self) {
        while let Some(push) = self.next() {
            let outcome = self.serve(&push);
            self.saw_outcome(&push, outcome);
            self.board.tell();
        }
    }

    /// The next push, or none: this thread is not needed any more.
    fn next(&self) -> Option<Arc<Push>> {
        let mut state = self.state();
        loop {
            if state.queue.is_empty() || self.is_gone() {
                state.running -= 1;
                return None;
            }
            let now = Instant::now();
            let whole = state.not_before;
            let ready = |at: Option<Instant>| at.max(whole).filter(|at| *at > now);
            let queue = state.queue.iter().enumerate();
            let (first, at) = queue
                .map(|(at, one)| (ready(one.not_before), one.push.bytes, one.push.begun, at))
                .min()
                .map(|(ready, .., at)| (ready, at))
                .unwrap_or_default();
            if let Some(first) = first {
                let waited = self.changed.wait_timeout(state, first - now);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let push = state.queue.swap_remove(at).push;
            let mut own = push.state();
            // whoever serves it at this moment looks at its fate when that is done
            let taken = own.sites.get_mut(&self.entry.name).is_some_and(|progress| {
                let is_free = !progress.is_busy;
                progress.is_busy = true;
                is_free
            });
            drop(own);
            if taken {
                return Some(push);
            }
        }
    }

    /// Does what is to be done about a push until there is nothing more, or it fails.
    fn serve(&self, push: &Arc<Push>) -> Result<(), Trouble> {
        let Some(client) = &self.client else {
            return Ok(());
        };
        loop {
            match self.what_next(push) {
                Next::Send => {
                    self.send(push, client)?;
                    self.board.has_all(push, &self.entry.name);
                }
                Next::Publish(told) => {
                    match client.published(push, &told) {
                        // it has restarted, and lost what it knew of the transaction
                        Err(Trouble::Stale) => {
                            self.send(push, client)?;
                            client.published(push, &told)?;
                        }
                        answer => answer?,
                    }
                    let _ = failpoint::pass("warm::told");
                    self.board.knows_end(push, &self.entry.name);
                }
                Next::GiveUp => {
                    client.give_up(push)?;
                    self.board.knows_end(push, &self.entry.name);
                }
                Next::Nothing => return Ok(()),
            }
        }
    }

    fn what_next(&self, push: &Push) -> Next {
        let mut state = push.state();
        let fate = state.fate.clone();
        let Some(progress) = state.sites.get_mut(&self.entry.name) else {
            return Next::Nothing;
        };
        match fate {
            Fate::GivenUp => Next::GiveUp,
            _ if !progress.has_all() => Next::Send,
            Fate::Visible(told) => Next::Publish(told),
            Fate::Open => {
                progress.is_busy = false;
                Next::Nothing
            }
        }
    }

    fn send(&self, push: &Arc<Push>, client: &Client) -> Result<(), Trouble> {
        if self.board.now() >= self.entry.not_after {
            return Err(Trouble::Expired(self.entry.name.clone()));
        }
        let hear = Hearing { site: self, push };
        let stop = Stop {
            push: push.over_flag(),
            site: Arc::clone(&self.gone),
        };
        let link = self.board.link();
        let over_broker = link.as_deref().map(|link| OverBroker {
            link,
            client,
            site: &self.entry.name,
        });
        let control: &dyn Control = match &over_broker {
            Some(over_broker) => over_broker,
            None => client,
        };
        let transfer = Transfer {
            push,
            control,
            client,
            lanes: &self.lanes,
            pace: &self.pace,
            connections: self.connections,
            hear: &hear,
            stop: &stop,
        };
        self.note(Seen::begins);
        let sent = transfer.run();
        self.note(Seen::ends);
        sent
    }

    fn saw_outcome(&self, push: &Arc<Push>, outcome: Result<(), Trouble>) {
        self.saw(outcome.as_ref().err());
        let trouble = match outcome {
            Ok(()) => {
                self.state().failures = 0;
                return;
            }
            Err(trouble) => trouble,
        };
        tracing::debug!(site = %self.entry.name, txn = push.txn, %trouble, "warming");
        let (is_live, is_kept) = {
            let mut state = push.state();
            let is_live = state.is_live();
            // what comes early is a kindness, which is not tried twice
            let is_kept = !push.is_early || state.fate != Fate::Open;
            let Some(progress) = state.sites.get_mut(&self.entry.name) else {
                return;
            };
            progress.is_busy = false;
            match trouble {
                Trouble::Unreachable(_) => {
                    progress.unreachable_since.get_or_insert_with(Instant::now);
                }
                _ => progress.unreachable_since = None,
            }
            progress.trouble = Some(trouble.clone());
            (is_live, is_kept)
        };
        if self.is_gone() {
            return;
        }
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        let doubled = PAUSE_MIN.saturating_mul(1 << state.failures.min(16));
        let pause = match &trouble {
            // it is told how it ended
            Trouble::Over => Duration::ZERO,
            Trouble::Stale => PAUSE_MIN,
            Trouble::Busy { after: Some(after) } => (*after).min(PAUSE_MAX),
            _ if is_live && trouble.may_pass() => doubled.min(PAUSE_LIVE_MAX),
            _ if trouble.may_pass() => doubled.min(PAUSE_MAX),
            // nothing that a moment changes
            _ => PAUSE_MAX,
        };
        let again = Some(Instant::now() + pause);
        if matches!(trouble, Trouble::Unreachable(_) | Trouble::Busy { .. }) {
            state.not_before = again;
        }
        if is_kept && !state.queue.iter().any(|one| Arc::ptr_eq(&one.push, push)) {
            state.queue.push(Waiting {
                push: Arc::clone(push),
                not_before: again,
            });
        }
    }
}

struct Hearing<'a> {
    site: &'a Site,
    push: &'a Push,
}

impl Hearing<'_> {
    fn change(&self, change: impl FnOnce(&mut super::push::Progress)) {
        let mut state = self.push.state();
        if let Some(progress) = state.sites.get_mut(&self.site.entry.name) {
            progress.unreachable_since = None;
            change(progress);
        }
        drop(state);
        self.site.board.tell();
    }
}

impl Hear for Hearing<'_> {
    fn lacks(&self, objects: u64, bytes: u64) {
        self.site.saw(None);
        self.change(|progress| progress.missing = Some((objects, bytes)));
    }

    fn took(&self, objects: u64, bytes: u64) {
        self.site.note(|seen| seen.took(objects, bytes));
        self.change(|progress| {
            progress.objects += objects;
            progress.bytes += bytes;
            if let Some((left, left_bytes)) = &mut progress.missing {
                *left = left.saturating_sub(objects);
                *left_bytes = left_bytes.saturating_sub(bytes);
            }
        });
    }
}
