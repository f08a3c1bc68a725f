//! Unstaged paths follow what others publish.

use std::sync::{Arc, Weak};

use crate::clock;
use crate::config::Refresh;
use crate::engine::Engine;
use crate::report::{Context, Result};

/// Looks every `refresh_interval` for as long as the engine is there.
pub fn start(engine: &Arc<Engine>) -> Result<()> {
    let engine = Arc::downgrade(engine);
    std::thread::Builder::new()
        .name("follow".into())
        .spawn(move || follow(&engine))
        .context("cannot start a thread")?;
    Ok(())
}

/// Lets unstaged paths follow what others publish.
fn follow(engine: &Weak<Engine>) {
    loop {
        let Some(interval) = engine
            .upgrade()
            .map(|engine| engine.settings().file.stage.refresh_interval.0)
        else {
            return;
        };
        std::thread::sleep(interval);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        for repo in engine.open_repos() {
            let pinned = engine.settings().repository(repo.name()).refresh == Refresh::Pinned;
            // whoever publishes moves the base itself
            let Some(_all) = repo.claims.take_all_if_free() else {
                continue;
            };
            // read in any case: monitoring goes by what was last seen of it
            let head = repo.published.head(clock::wall());
            if pinned || !repo.stage.frozen().is_empty() {
                continue;
            }
            let followed = head.and_then(|(head, _)| repo.follow(&head.manifest().root_catalog));
            if let Err(failure) = followed {
                tracing::warn!(
                    "{}: cannot follow what is published: {failure}",
                    repo.name()
                );
            }
        }
    }
}
