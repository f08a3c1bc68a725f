//! `prepub abort`: drops staged changes.

use std::process::ExitCode;

use super::output::plural;
use super::{Context, print};
use crate::api::reply::Aborted;
use crate::api::{At, PathText, Request};
use crate::cli::Abort;
use crate::report::Result;

pub fn run(context: &Context, args: &Abort) -> Result<ExitCode> {
    let target = context.surroundings()?.resolve(&args.target)?;
    let request = Request::Abort(At {
        repo: target.repo,
        path: PathText(target.path),
    });
    let aborted: Aborted = context.ask(&request)?;
    print(args.json.json, &aborted, |done| match done.dropped {
        0 => format!("{}: nothing was staged at {}\n", done.repo, done.path),
        n => {
            let paths = plural(n, "staged path", "staged paths");
            format!("{}: {paths} dropped at {}\n", done.repo, done.path)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
