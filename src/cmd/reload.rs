//! `prepub reload`: the daemon reads its configuration again.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::{Context, print};
use crate::api::Request;
use crate::api::reply::Reloaded;
use crate::cli::Reload;
use crate::report::Result;

pub fn run(context: &Context, args: &Reload) -> Result<ExitCode> {
    let reloaded: Reloaded = context.ask_the_daemon(&Request::Reload)?;
    print(args.json.json, &reloaded, describe)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(reloaded: &Reloaded) -> String {
    let mut out = match &reloaded.file {
        Some(file) => format!("{file} was read again\n"),
        None => "there is no configuration file; the defaults hold\n".into(),
    };
    for (what, names) in [
        ("changed", &reloaded.changed),
        ("served from now on", &reloaded.opened),
        ("restart needed for", &reloaded.restart),
    ] {
        if !names.is_empty() {
            let _ = writeln!(out, "{what}: {}", names.join(", "));
        }
    }
    out
}
