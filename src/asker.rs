//! Where a command's question goes: to the daemon if one runs, else to an engine in this process,
//! which then holds the state's lock.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::api::{Request, Watch};
use crate::config::Settings;
use crate::control::client::Client;
use crate::engine::Engine;
use crate::report::{Context, Failure, Kind, Result};
use crate::signals;
use crate::state::State;

/// How long to wait for another command that holds the lock, or a daemon that starts.
const WAIT: Duration = Duration::from_secs(10);

/// Who answers.
pub enum Asker {
    /// The daemon.
    Daemon(Client),
    /// This process.
    Here(Box<Engine>),
}

impl Asker {
    /// Whoever is there for an existing state.
    ///
    /// # Errors
    /// No state; a state that is in use and does not answer; one that may not be used.
    pub fn open(settings: &Settings) -> Result<Self> {
        let state = State::open(&settings.state_dir)?;
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(client) = Client::connect(&state.socket())? {
                return Ok(Self::Daemon(client));
            }
            let holder = match state.try_lock()? {
                Ok(lock) => {
                    let engine = Engine::new(state, settings.clone(), lock);
                    return Ok(Self::Here(Box::new(engine)));
                }
                Err(holder) => holder,
            };
            if Instant::now() >= deadline {
                let daemon = state.daemon_info().is_some_and(|info| info.pid == holder);
                let busy = state.busy(holder);
                return Err(match daemon {
                    true => Failure {
                        kind: Kind::Unreachable,
                        ..busy
                    },
                    false => busy,
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same, with the state made if it is missing.
    ///
    /// # Errors
    /// As [`Asker::open`]; a state that cannot be made.
    pub fn create(settings: &Settings) -> Result<Self> {
        State::create(&settings.state_dir)?;
        Self::open(settings)
    }

    /// Asks.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request, watch: &dyn Watch) -> Result<T> {
        let value = match self {
            Self::Daemon(client) => client.ask(request, watch)?,
            Self::Here(engine) => {
                if matches!(request, Request::Commit(_)) {
                    // leases of others' services outlive a process that just ends
                    signals::set_at_first(engine.called_off())?;
                }
                engine.handle(request, watch)?
            }
        };
        serde_json::from_value(value).context("the daemon answered in another language")
    }
}
