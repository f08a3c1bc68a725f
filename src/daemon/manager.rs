//! What the service manager hears of us (`sd_notify(3)`): how far starting is, that everything can
//! be used, that we are alive, that we end. Without one, which is where `NOTIFY_SOCKET` is unset,
//! all of this does nothing.
//!
//! To be alive is more than to have a process: a ping goes out only after every open tree has let
//! its reader in, so that one that is stuck for good ends with a restart. Nothing here decides
//! anything.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::api::reply::Reloaded;
use crate::api::{Progress, Watch};
use crate::engine::Engine;
use crate::progress;
use crate::report::{Context, Failure, Result};
use crate::state::DaemonInfo;

/// How much longer starting may take from each sign of life on; what systemd grants by itself is 90 s.
const START_USEC: u32 = 60_000_000;

fn say(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}

/// Tells the service manager what it tells another.
pub struct Starting<'a>(pub &'a dyn Watch);

impl Watch for Starting<'_> {
    fn progress(&self, progress: Progress) {
        say(&[
            NotifyState::Status(&progress::line(&progress)),
            NotifyState::ExtendTimeoutUsec(START_USEC),
        ]);
        self.0.progress(progress);
    }

    fn note(&self, text: &str) {
        self.0.note(text);
    }
}

/// Everything can be used.
pub fn ready(info: &DaemonInfo) {
    let status = format!("mounted on {}", info.mountpoint.display());
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The configuration is being read again.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("there is no clock for the service manager: {error}"),
    }
}

/// It was, or was refused.
pub fn reloaded(engine: &Engine, result: &Result<Reloaded>) {
    let mounted = match engine.live() {
        Some(live) => format!("mounted on {}", live.info.mountpoint.display()),
        None => "starting".into(),
    };
    let status = match result {
        Ok(reloaded) if reloaded.restart.is_empty() => mounted,
        Ok(reloaded) => format!(
            "{mounted}; restart needed for: {}",
            reloaded.restart.join(", ")
        ),
        Err(failure) => format!(
            "{mounted}; the configuration was refused: {}",
            failure.message
        ),
    };
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The end has begun.
pub fn stopping() {
    say(&[
        NotifyState::Stopping,
        NotifyState::Status("settling staged changes and unmounting"),
    ]);
}

/// What it failed with.
pub fn failed(failure: &Failure) {
    let text = failure.to_string();
    say(&[NotifyState::Status(text.lines().next().unwrap_or_default())]);
}

/// Pings twice in each interval that the service manager grants, for as long as the engine is there.
///
/// # Errors
/// When there can be no thread for it.
pub fn keep_alive(engine: &Arc<Engine>) -> Result<()> {
    let Some(granted) = sd_notify::watchdog_enabled().filter(|granted| !granted.is_zero()) else {
        return Ok(());
    };
    let engine = Arc::downgrade(engine);
    std::thread::Builder::new()
        .name("alive".into())
        .spawn(move || ping(&engine, granted / 2))
        .context("cannot start a thread")?;
    Ok(())
}

fn ping(engine: &Weak<Engine>, interval: Duration) {
    while let Some(engine) = engine.upgrade() {
        for repo in engine.open_repos() {
            // waits for the tree's lock, and is not heard of again if nobody lets go of it
            let _ = repo.stage.base_root();
        }
        drop(engine);
        say(&[NotifyState::Watchdog]);
        std::thread::sleep(interval);
    }
}
