//! prepub: a staging filesystem with a commit hook for CernVM-FS publishing.
//!
//! In reading order: what can be typed ([`cli`]) and what each command does ([`cmd`]); the verbs
//! themselves ([`engine`], [`hook`]), asked through ([`asker`]) either in this process or over the
//! control socket ([`control`], [`api`], [`access`]) of the [`daemon`], which mounts, and serves
//! ([`serve`]); what they stand on: [`config`], [`state`], [`repositories`], [`target`]; and what people see of it:
//! [`report`], [`progress`], [`telemetry`], [`redact`].
//!
//! This is the only place where staging and committing meet.

mod access;
mod api;
mod asker;
mod cli;
mod clock;
mod cmd;
mod config;
mod control;
#[cfg(test)]
mod corpus;
mod daemon;
mod engine;
mod hook;
mod metrics;
mod peer;
mod progress;
mod pull;
mod redact;
mod report;
mod repositories;
mod serve;
mod signals;
mod state;
mod target;
mod telemetry;
mod users;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    let cli = cli::Cli::parse();
    let json = cli.command.wants_json();
    match cmd::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            cmd::output::fail(&failure, json);
            failure.exit_code()
        }
    }
}
