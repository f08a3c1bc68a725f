//! `prepub rollback`: publishes an earlier revision again.

use std::process::ExitCode;

use super::{Context, print};
use crate::api::reply::Standing;
use crate::api::{self, Request};
use crate::cli::Rollback;
use crate::report::Result;

pub fn run(context: &Context, args: Rollback) -> Result<ExitCode> {
    let tag = args.tag.clone();
    let request = Request::Rollback(api::Rollback {
        repo: args.repo,
        tag: args.tag,
    });
    let standing: Standing = context.ask(&request)?;
    print(args.json.json, &standing, |s| {
        let lost = match s.removed_tags.as_slice() {
            [] => String::new(),
            tags => format!("; removed tags: {}", tags.join(", ")),
        };
        format!(
            "{}: the tree of {tag} stands as revision {}{lost}\n",
            s.repo, s.revision
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
