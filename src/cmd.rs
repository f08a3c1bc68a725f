//! The commands, one a file: each takes its arguments, asks, and prints what it was told.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::Request;
use crate::asker::Asker;
use crate::cli::{Cli, Command, Global};
use crate::config::{Overrides, Settings};
use crate::control::client::Client;
use crate::progress::Display;
use crate::report::{Context as _, Failure, Kind, Result};
use crate::repositories;
use crate::state::State;
use crate::target::Surroundings;
use crate::telemetry::{self, Sink};

mod abort;
mod check;
mod commit;
mod config;
mod diff;
mod doctor;
mod drain;
mod gc;
mod log_level;
mod mkfs;
mod mount;
pub mod output;
mod reload;
mod resign;
mod rmfs;
mod rollback;
mod site;
mod status;
mod support;
mod tag;
mod unmount;
mod util;

/// What every command has at hand.
pub struct Context {
    /// Global flags.
    pub global: Global,
    /// The configuration in force.
    pub settings: Settings,
    /// Progress and remarks.
    pub display: Display,
}

/// Runs a command.
///
/// # Errors
/// Whatever it fails with.
pub fn run(cli: Cli) -> Result<ExitCode> {
    // what is published is for everybody; what is not is given narrower modes where it is made
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // neither needs a configuration that can be read
    match &cli.command {
        Command::Util(args) => return util::run(args),
        Command::Config(args) => return config::run(args, &cli.global),
        _ => {}
    }
    let settings = Settings::load(&overrides(&cli.global))?;
    let context = Context {
        display: Display::new(cli.global.quiet),
        global: cli.global,
        settings,
    };
    if !matches!(cli.command, Command::Mount(_)) {
        let level = context.global.log_level.as_deref().unwrap_or("warn");
        telemetry::start(level, &Sink::Stderr)?;
    }
    let result = match cli.command {
        Command::Mkfs(args) => mkfs::run(&context, args),
        Command::Mount(args) => mount::run(&context, args),
        Command::Unmount(args) => unmount::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Diff(args) => diff::run(&context, &args),
        Command::Commit(args) => commit::run(&context, args),
        Command::Abort(args) => abort::run(&context, &args),
        Command::Tag(args) => tag::run(&context, args.command),
        Command::Rollback(args) => rollback::run(&context, args),
        Command::Check(args) => check::run(&context, args),
        Command::Resign(args) => resign::run(&context, args),
        Command::Rmfs(args) => rmfs::run(&context, args),
        Command::Site(args) => site::run(&context, args.command),
        Command::Drain(args) => drain::run(&context, &args),
        Command::Reload(args) => reload::run(&context, &args),
        Command::LogLevel(args) => log_level::run(&context, &args),
        Command::Gc(args) => gc::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Support(args) => support::run(&context, &args),
        Command::Config(_) | Command::Util(_) => Ok(ExitCode::SUCCESS),
    };
    context.display.finish();
    result
}

/// What of the command line stands over the configuration file.
pub fn overrides(global: &Global) -> Overrides {
    Overrides {
        config: global.config.clone(),
        state_dir: global.state_dir.clone(),
        log_level: global.log_level.clone(),
    }
}

impl Context {
    /// Asks whoever is there for an existing state.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let asker = Asker::open(&self.settings)?;
        let result = asker.ask(request, &self.display);
        self.display.finish();
        result
    }

    /// Asks the daemon, for what nobody else can do.
    ///
    /// # Errors
    /// None there: [`Kind::Unreachable`]; why it was not done.
    pub fn ask_the_daemon<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        let state = State::open(&self.settings.state_dir)?;
        let Some(client) = Client::connect(&state.socket())? else {
            return Err(Failure::new(
                Kind::Unreachable,
                format!("no daemon runs on the state in {}", state.dir().display()),
            )
            .hint("`prepub mount` or `systemctl start prepub` starts one; it reads the configuration then"));
        };
        let value = client.ask(request, &self.display)?;
        self.display.finish();
        serde_json::from_value(value).context("the daemon answered in another language")
    }

    /// What targets are resolved against.
    ///
    /// # Errors
    /// No state.
    pub fn surroundings(&self) -> Result<Surroundings> {
        let state = State::open(&self.settings.state_dir)?;
        let last = state.daemon_info().map(|info| info.mountpoint);
        Ok(Surroundings {
            repositories: repositories::names(&state, &self.settings)?,
            mountpoint: Some(last.unwrap_or_else(|| self.settings.mountpoint.clone())),
            cwd: working_directory()?,
        })
    }
}

fn working_directory() -> Result<PathBuf> {
    // below a dead mount there is none, and targets by name need none
    match std::env::current_dir() {
        Ok(dir) => Ok(dir),
        Err(_) => std::path::absolute("/").context("no working directory"),
    }
}

/// Prints the answer: as JSON, or as text.
///
/// # Errors
/// When stdout cannot be written.
pub fn print<T: Serialize>(json: bool, reply: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
    match json {
        true => output::json(reply),
        false => output::text(&text(reply)),
    }
}
