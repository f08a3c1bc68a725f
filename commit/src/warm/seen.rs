//! What is known of one site: whether it answers, how fast it takes, how much it took, what went wrong.
//!
//! Counters are of this process and only grow; a site that is given a new certificate begins anew.

use std::time::{Duration, Instant};

use super::control::Trouble;

/// A rate is taken over so long: what somebody who looks calls now.
const WINDOW: Duration = Duration::from_secs(10);

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// It answered when it was last asked; none: not asked yet.
    pub(super) connected: Option<bool>,
    pub(super) last_error: Option<String>,
    /// Bytes a second, of what was sent last.
    pub(super) rate: Option<u64>,
    pub(super) objects_sent: u64,
    pub(super) bytes_sent: u64,
    pub(super) failures: u64,
    /// By how many seconds its clock is ahead of ours, as it said last.
    pub(super) clock_ahead: Option<i64>,
    /// How many pushes are being sent.
    running: usize,
    sending: Option<Window>,
}

/// What the rate is taken from.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    /// Bytes that were taken since then.
    bytes: u64,
    /// When that were the last of them.
    last: Instant,
}

impl Window {
    fn from(since: Instant) -> Self {
        Self {
            since,
            bytes: 0,
            last: since,
        }
    }
}

impl Seen {
    /// It was asked or told something, and this came of it.
    pub(super) fn saw(&mut self, trouble: Option<&Trouble>) {
        let is_away = matches!(trouble, Some(Trouble::Unreachable(_) | Trouble::Clock(_)));
        self.connected = Some(!is_away);
        if let Some(trouble) = trouble.filter(|trouble| **trouble != Trouble::Over) {
            self.failed(trouble.to_string());
        }
    }

    /// Something went wrong with it.
    pub(super) fn failed(&mut self, what: String) {
        self.failures += 1;
        self.last_error = Some(what);
    }

    /// A push is being sent from now on.
    pub(super) fn begins(&mut self) {
        self.running += 1;
        let now = Instant::now();
        self.sending.get_or_insert_with(|| Window::from(now));
    }

    /// One is not any more.
    pub(super) fn ends(&mut self) {
        self.running = self.running.saturating_sub(1);
        if self.running == 0 {
            self.sending = None;
        }
    }

    /// It has taken this much more.
    pub(super) fn took(&mut self, objects: u64, bytes: u64) {
        self.objects_sent += objects;
        self.bytes_sent += bytes;
        let Some(window) = &mut self.sending else {
            return;
        };
        if window.since.elapsed() > WINDOW {
            *window = Window::from(window.last);
        }
        window.last = Instant::now();
        window.bytes += bytes;
        let seconds = (window.last - window.since).as_secs_f64().max(0.001);
        self.rate = Some((window.bytes as f64 / seconds) as u64);
    }
}
