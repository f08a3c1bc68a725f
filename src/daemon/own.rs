//! What only a daemon does: it takes up a changed configuration, and logs more or less.
//!
//! A configuration that cannot be used changes nothing. One that can is taken up as far as a running
//! daemon may ([`crate::config::keys`]); what needs a restart stays as it was, and is named.

use std::sync::Arc;

use serde_json::Value;

use super::manager;
use crate::api::reply::{LogLevel, Reloaded};
use crate::api::{self, Request};
use crate::config::keys::{self, OpenRepositories};
use crate::config::{LogLevel as Level, Settings};
use crate::engine::Engine;
use crate::report::{Context, Result};
use crate::telemetry;

/// Answers what is the daemon's own; nothing else.
pub fn answer(engine: &Arc<Engine>, request: &Request) -> Option<Result<Value>> {
    match request {
        Request::Reload => Some(reload(engine).and_then(value)),
        Request::LogLevel(args) => Some(log_level(engine, args).and_then(value)),
        _ => None,
    }
}

fn value(reply: impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(reply).context("cannot write the answer as JSON")
}

/// Reads the configuration again, and tells the service manager so.
///
/// # Errors
/// One that cannot be used; the former one holds.
pub fn reload(engine: &Arc<Engine>) -> Result<Reloaded> {
    manager::reloading();
    let result = take_up(engine);
    match &result {
        Ok(reloaded) => {
            let Reloaded {
                changed,
                restart,
                opened,
                ..
            } = reloaded;
            tracing::info!(?changed, ?opened, "the configuration was read again");
            if !restart.is_empty() {
                tracing::warn!("restart needed for: {}", restart.join(", "));
            }
        }
        Err(failure) => {
            tracing::error!("the configuration is refused, and the former one holds: {failure}");
        }
    }
    manager::reloaded(engine, &result);
    result
}

fn take_up(engine: &Arc<Engine>) -> Result<Reloaded> {
    let _one_at_a_time = engine.reloading();
    let old = engine.settings();
    let new = old.again()?;
    telemetry::check(&new.file.log_level.0)?;
    let taken = keys::take_up(&old.file, &new.file, &open_repositories(engine))?;
    let settings = Settings {
        source: new.source,
        file: taken.file,
        ..Settings::clone(&old)
    };
    let file = settings
        .source
        .as_ref()
        .map(|path| path.display().to_string());
    let level = settings.file.log_level.0.clone();
    engine.put_in_force(settings);
    // also one that was set for a while: what the file says holds now
    telemetry::set(&level)?;
    Ok(Reloaded {
        file,
        changed: taken.changed,
        restart: taken.restart,
        opened: open_new(engine)?,
    })
}

fn open_repositories(engine: &Engine) -> OpenRepositories {
    let mut open = OpenRepositories::default();
    for repo in engine.open_repos() {
        let name = repo.name().to_owned();
        if repo.published.home.is_foreign {
            open.foreign.insert(name.clone());
        }
        open.all.insert(name);
    }
    open
}

/// Repositories that the configuration names from now on. One that cannot be opened is told of; the next
/// reload tries again.
fn open_new(engine: &Engine) -> Result<Vec<String>> {
    let open = open_repositories(engine).all;
    let mut opened = Vec::new();
    for name in engine.names()? {
        if open.contains(&name) {
            continue;
        }
        match engine.repo(&name) {
            Ok(_) => opened.push(name),
            Err(failure) => tracing::error!("{name} is not mounted: {failure}"),
        }
    }
    Ok(opened)
}

fn log_level(engine: &Engine, args: &api::LogLevel) -> Result<LogLevel> {
    if let Some(filter) = &args.filter {
        telemetry::set(filter)?;
        tracing::info!(
            filter,
            "what is logged was changed until the next reload or restart"
        );
    }
    let Level(configured) = engine.settings().file.log_level.clone();
    Ok(LogLevel {
        filter: telemetry::level().unwrap_or_else(|| configured.clone()),
        configured,
    })
}
