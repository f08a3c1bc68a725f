//! The daemon's part in keeping Stratum 1s warm: what earlier processes left is brought to its end, and
//! where the configuration says so objects go out as soon as they are sealed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use formats::ObjectName;
use formats::warm::list::may_travel;
use formats::warm::{Listed, NAMES_MAX};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::config::warm::Push;
use crate::engine::Engine;
use crate::engine::repo::Repo;
use crate::pull;
use crate::report::{Context, Result};

/// Between two looks for objects that were sealed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// A look at a large stage takes its time: this part of it at most is spent looking.
const LOOK_SHARE: u32 = 10;

/// Goes on for as long as the engine is there.
pub fn start(engine: &Arc<Engine>, runtime: &Runtime) -> Result<()> {
    let Ok(warmer) = engine.warmer() else {
        // said when the repositories were opened
        return Ok(());
    };
    warmer.catch_up();
    if let Some(address) = engine.settings().file.warm.listen {
        match runtime.block_on(TcpListener::bind(address)) {
            Ok(listener) => drop(runtime.spawn(pull::serve(warmer, listener))),
            // better a mount without these sites than none
            Err(error) => tracing::error!("sites that pull are not served at {address}: {error}"),
        }
    }
    let weak = Arc::downgrade(engine);
    let thread = std::thread::Builder::new().name("eager".into());
    thread
        .spawn(move || eager(&weak))
        .context("cannot start a thread")?;
    Ok(())
}

/// Sends out what was sealed, where that is wanted.
fn eager(engine: &Weak<Engine>) {
    let mut sent: BTreeMap<String, HashSet<ObjectName>> = BTreeMap::new();
    let mut pause = LOOK_INTERVAL;
    loop {
        std::thread::sleep(pause);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let began = Instant::now();
        for repo in engine.open_repos() {
            if engine.settings().repository(repo.name()).warm.push != Push::Eager {
                continue;
            }
            let known = sent.entry(repo.name().to_owned()).or_default();
            if let Err(failure) = send_new(&repo, known) {
                tracing::debug!("{}: objects do not go out early: {failure}", repo.name());
            }
        }
        pause = LOOK_INTERVAL.max(began.elapsed() * LOOK_SHARE);
    }
}

/// Sends what is in the stage's objects and was not there before. What is not there any more, because it
/// was published or dropped, is forgotten.
fn send_new(repo: &Repo, known: &mut HashSet<ObjectName>) -> Result<()> {
    let Some(warmer) = &repo.warmer else {
        return Ok(());
    };
    let objects = repo.stage.objects();
    let (mut there, mut new) = (HashSet::new(), Vec::new());
    objects.for_each(&mut |name, bytes| {
        if may_travel(&name) {
            if !known.contains(&name) && new.len() < NAMES_MAX as usize {
                new.push(Listed { name, bytes });
                there.insert(name);
            } else if known.contains(&name) {
                there.insert(name);
            }
        }
        Ok(())
    })?;
    if !new.is_empty() {
        let begun = warmer.begin_early(repo.name(), &new, vec![Arc::clone(objects)]);
        if begun.context("the Stratum 1s")?.is_none() {
            // nobody is there to take them: they are new still
            return Ok(());
        }
    }
    *known = there;
    Ok(())
}
