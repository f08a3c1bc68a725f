//! The daemon's part in keeping Stratum 1s warm: what earlier processes left is brought to its end, and
//! where the configuration says so objects go out as soon as they are sealed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use commit::warm::Warmer;
use formats::warm::list::may_travel;
use formats::warm::{Listed, NAMES_MAX};
use formats::{Hash, ObjectName};
use store::ObjectStore;
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

/// Transactions of what goes out early that a repository may have open at its sites: each look makes one.
const OPEN_MAX: u32 = 64;

/// What of a repository's stage went out.
#[derive(Default)]
struct Early {
    /// Objects that went out, and are staged still.
    sent: HashSet<ObjectName>,
    /// The revision that they were staged over; none: this process has not looked yet.
    base: Option<Hash>,
    /// Transactions that are open for them.
    open: u32,
}

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
    let mut early: BTreeMap<String, Early> = BTreeMap::new();
    let mut pause = LOOK_INTERVAL;
    loop {
        std::thread::sleep(pause);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let began = Instant::now();
        for repo in engine.open_repos() {
            let Some(warmer) = &repo.warmer else {
                continue;
            };
            if engine.settings().repository(repo.name()).warm.push != Push::Eager {
                // what a process with another configuration left
                warmer.end_early(repo.name(), None);
                continue;
            }
            let known = early.entry(repo.name().to_owned()).or_default();
            if let Err(failure) = send_new(&repo, warmer, known) {
                tracing::debug!("{}: objects do not go out early: {failure}", repo.name());
            }
        }
        pause = LOOK_INTERVAL.max(began.elapsed() * LOOK_SHARE);
    }
}

/// Sends what is in the stage's objects and was not there before.
///
/// When a commit landed, or much of what went out is not staged any more, everything that is goes into a
/// new transaction and the older ones are given up: what the commit needs stands in its own, and the
/// sites remove the rest.
fn send_new(repo: &Repo, warmer: &Warmer, early: &mut Early) -> Result<()> {
    let objects = repo.stage.objects();
    let (mut there, mut new) = look(objects, &early.sent)?;
    let base = repo.stage.base_root();
    let gone = early.sent.len() - there.len();
    let is_anew =
        early.base != Some(base) || early.open >= OPEN_MAX || (gone > 0 && gone >= there.len());
    if is_anew {
        (there, new) = look(objects, &HashSet::new())?;
    }
    let begun = match new.is_empty() {
        true => None,
        false => warmer
            .begin_early(repo.name(), &new, vec![Arc::clone(objects)])
            .context("the Stratum 1s")?,
    };
    if is_anew {
        warmer.end_early(
            repo.name(),
            begun.as_ref().map(|begun| begun.commit.as_str()),
        );
        early.open = 0;
    }
    if begun.is_some() {
        early.open += 1;
        // where nobody was there to take them they are new still
        there.extend(new.iter().map(|listed| listed.name));
    }
    early.base = Some(base);
    early.sent = there;
    Ok(())
}

/// Which of those that were sent are staged still, and what else is; of that no more than sites take at
/// once, and the rest at the next look.
fn look(
    objects: &Arc<dyn ObjectStore>,
    sent: &HashSet<ObjectName>,
) -> Result<(HashSet<ObjectName>, Vec<Listed>)> {
    let (mut there, mut new) = (HashSet::new(), Vec::new());
    objects.for_each(&mut |name, bytes| {
        if sent.contains(&name) {
            there.insert(name);
        } else if may_travel(&name) && new.len() < NAMES_MAX as usize {
            new.push(Listed { name, bytes });
        }
        Ok(())
    })?;
    Ok((there, new))
}
