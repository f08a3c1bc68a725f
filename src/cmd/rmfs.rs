//! `prepub rmfs`: deletes a repository.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use super::output::{bytes, plural, remarks};
use super::{Context, print};
use crate::api::reply::Removed;
use crate::api::{Repo, Request};
use crate::cli::Rmfs;
use crate::report::{Context as _, Failure, Result};

pub fn run(context: &Context, args: Rmfs) -> Result<ExitCode> {
    if !args.force {
        confirm(&args.repo)?;
    }
    let removed: Removed = context.ask(&Request::Rmfs(Repo { repo: args.repo }))?;
    print(args.json.json, &removed, |removed| {
        let objects = plural(removed.objects, "object", "objects");
        let mut out = format!(
            "{} is removed: {objects}, {}\n",
            removed.repo,
            bytes(removed.bytes)
        );
        remarks(&mut out, "left where it is", &removed.left);
        out
    })?;
    Ok(ExitCode::SUCCESS)
}

fn confirm(repo: &str) -> Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!(
            "{repo} would be deleted with all its revisions and keys"
        ))
        .hint("add --force to do it without being asked"));
    }
    let mut out = std::io::stderr();
    write!(
        out,
        "{repo} is deleted with all its revisions and keys. Type its name to go on: "
    )
    .and_then(|()| out.flush())
    .context("cannot ask")?;
    let mut answer = String::new();
    stdin
        .read_line(&mut answer)
        .context("cannot read the answer")?;
    match answer.trim() == repo {
        true => Ok(()),
        false => Err(Failure::failed("nothing was deleted")),
    }
}
