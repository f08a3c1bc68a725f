//! `prepub drain`: no new commits; those that run end.

use std::process::ExitCode;

use super::output::plural;
use super::{Context, print};
use crate::api::reply::Drained;
use crate::api::{self, Request};
use crate::cli::Drain;
use crate::report::Result;

pub fn run(context: &Context, args: &Drain) -> Result<ExitCode> {
    let request = Request::Drain(api::Drain {
        resume: args.resume,
        wait: args.wait,
    });
    let drained: Drained = context.ask(&request)?;
    print(args.json.json, &drained, |done| match *done {
        Drained { drained: false, .. } => "commits are let in\n".into(),
        Drained { running: 0, .. } => "no new commits are let in, and none runs\n".into(),
        Drained { running, .. } => format!(
            "no new commits are let in; {} to their end (`prepub drain --wait` waits for that)\n",
            plural(running, "one comes", "come")
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
