//! `prepub resign`: renews the whitelist.

use std::process::ExitCode;

use super::{Context, print};
use crate::api::reply::Standing;
use crate::api::{self, Request};
use crate::cli::Resign;
use crate::report::Result;

pub fn run(context: &Context, args: Resign) -> Result<ExitCode> {
    let request = Request::Resign(api::Resign {
        repo: args.repo,
        days: args.days,
        new_keys: args.new_keys,
    });
    let standing: Standing = context.ask(&request)?;
    print(args.json.json, &standing, |s| {
        format!(
            "{}: clients trust it for {:.1} more days\n",
            s.repo, s.whitelist_days
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
