//! `prepub log-level`: what the daemon logs.

use std::process::ExitCode;

use super::{Context, print};
use crate::api::{self, Request, reply};
use crate::cli::LogLevel;
use crate::report::Result;

pub fn run(context: &Context, args: &LogLevel) -> Result<ExitCode> {
    let request = Request::LogLevel(api::LogLevel {
        filter: args.filter.clone(),
    });
    let level: reply::LogLevel = context.ask_the_daemon(&request)?;
    print(args.json.json, &level, |level| {
        match level.filter == level.configured {
            true => format!("{}\n", level.filter),
            false => format!(
                "{} (until the next reload or restart; the configuration says {})\n",
                level.filter, level.configured
            ),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
