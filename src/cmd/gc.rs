//! `prepub gc`: what nobody needs goes.

use std::process::ExitCode;

use super::output::{bytes, count, table};
use super::{Context, print};
use crate::api::reply::Collected;
use crate::api::{self, Request};
use crate::cli::Gc;
use crate::report::Result;

pub fn run(context: &Context, args: &Gc) -> Result<ExitCode> {
    let request = Request::Gc(api::Gc {
        repo: args.repo.clone(),
        dry_run: args.dry_run,
    });
    let collected: Collected = context.ask(&request)?;
    print(args.json.json, &collected, describe)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(collected: &Collected) -> String {
    let rows = collected.freed.iter().map(|freed| {
        [
            freed.kind.clone(),
            freed.repo.clone().unwrap_or_else(|| "-".into()),
            count(freed.items),
            bytes(freed.bytes),
        ]
    });
    let mut out = match collected.freed.is_empty() {
        true => String::new(),
        false => table(["KIND", "REPOSITORY", "ITEMS", "BYTES"], rows),
    };
    let verb = match collected.dry_run {
        true => "would be removed",
        false => "removed",
    };
    out.push_str(&format!("{} {verb}\n", bytes(collected.bytes)));
    out
}
