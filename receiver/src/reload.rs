//! SIGHUP: configuration and enrolments are read again.
//!
//! Enrolments and `log_level` hold at once. Everything else is what listeners, replicas and the ledger were
//! opened with: it stays as it is, and is named. A file that cannot be used changes nothing.

use std::path::Path;
use std::sync::Arc;

use receiver::config::Config;
use receiver::site::Site;
use receiver::trust::Trust;
use rustix::process::{Pid, Signal, kill_process};
use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use crate::{Failure, SetLevel, say};

/// The one key that holds at once.
const LOG_LEVEL: &str = "log_level";

/// What is wrong with enrolments, of a configuration that can be used.
///
/// # Errors
/// A log level that is none.
pub fn check(config: &Config) -> Result<Vec<String>, Failure> {
    EnvFilter::builder().parse(&config.log_level)?;
    let problems = Trust::read(&config.enrolments).problems;
    let told = problems
        .iter()
        .map(|(file, problem)| format!("enrolment {}: {problem}", file.display()));
    Ok(told.collect())
}

/// Has a receiver read its configuration again.
///
/// # Errors
/// No such process, or not ours to tell.
pub fn ask(pid: i32) -> Result<(), Failure> {
    let pid = Pid::from_raw(pid).ok_or("there is no such process")?;
    Ok(kill_process(pid, Signal::HUP)?)
}

/// Reads everything again; `status` is what the service manager shows.
pub async fn reload(site: &Arc<Site>, file: &Path, level: &SetLevel, status: &str) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!("there is no clock for the service manager: {error}"),
    }
    let status = match take_up(site, file, level) {
        Ok(restart) if restart.is_empty() => {
            tracing::info!("the configuration was read again");
            status.to_owned()
        }
        Ok(restart) => {
            let restart = restart.join(", ");
            tracing::warn!("the configuration was read again; restart needed for: {restart}");
            format!("{status}; restart needed for: {restart}")
        }
        Err(error) => {
            let error = store::chain(&*error);
            tracing::error!("the configuration is refused, and the former one holds: {error}");
            format!("{status}; the configuration was refused: {error}")
        }
    };
    let here = Arc::clone(site);
    // files that hang must not take along whoever pings
    let looked = tokio::task::spawn_blocking(move || here.refresh_trust()).await;
    if let Err(error) = looked {
        tracing::error!("the enrolments could not be read: {error}");
    }
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Keys that need a restart.
fn take_up(site: &Site, file: &Path, level: &SetLevel) -> Result<Vec<String>, Failure> {
    let new = Config::read(file)?;
    level(EnvFilter::builder().parse(&new.log_level)?)?;
    let mut changed = site.config.changes(&new);
    changed.retain(|key| key != LOG_LEVEL);
    Ok(changed)
}
