//! The signals that ask a process to end, or to read its configuration again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::report::{Context, Result};

/// What a shell says of a process that ended on an interrupt.
const INTERRUPTED: i32 = 130;

/// SIGTERM, SIGINT and SIGHUP, from when this is made on.
pub struct Signals([Signal; 3]);

impl Signals {
    /// Needs a runtime around it.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self([
            on(SignalKind::terminate())?,
            on(SignalKind::interrupt())?,
            on(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one of them, and says what it means to a daemon.
    pub async fn next(&mut self) -> Asked {
        let Self([term, int, hang_up]) = self;
        tokio::select! {
            _ = term.recv() => Asked::End,
            _ = int.recv() => Asked::End,
            _ = hang_up.recv() => Asked::Reload,
        }
    }
}

/// What a signal asks a daemon for. A command that loses its terminal ends on each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM, SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// Sets `flag` at the first of them, so that work under way ends in order; the second ends the process.
///
/// # Errors
/// When they cannot be waited for.
pub fn set_at_first(flag: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot wait for signals")?;
    let mut signals = runtime.block_on(async { Signals::new() })?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            runtime.block_on(signals.next());
            flag.store(true, Ordering::Relaxed);
            runtime.block_on(signals.next());
            std::process::exit(INTERRUPTED);
        })
        .context("cannot wait for signals")?;
    Ok(())
}
