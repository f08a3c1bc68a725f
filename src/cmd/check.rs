//! `prepub check`: is the published repository whole?

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{bytes, count, plural};
use super::{Context, print};
use crate::api::reply::Checked;
use crate::api::{self, Request};
use crate::cli::Check;
use crate::report::Result;

pub fn run(context: &Context, args: Check) -> Result<ExitCode> {
    let request = Request::Check(api::Check {
        repo: args.repo,
        data: args.data,
    });
    let checked: Checked = context.ask(&request)?;
    print(args.json.json, &checked, describe)?;
    Ok(match checked.healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn describe(checked: &Checked) -> String {
    let mut out = String::new();
    for problem in &checked.problems {
        let _ = writeln!(out, "{problem}");
    }
    let more = checked.problem_count - checked.problems.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "and {} more", count(more));
    }
    let hashed = match checked.bytes_hashed {
        0 => String::new(),
        n => format!(", {} hashed", bytes(n)),
    };
    let verdict = match checked.problem_count {
        0 => "healthy".into(),
        n => plural(n, "problem", "problems"),
    };
    let _ = writeln!(
        out,
        "{} revision {}: {verdict} ({}, {}, {}{hashed})",
        checked.repo,
        checked.revision,
        plural(checked.catalogs, "catalog", "catalogs"),
        plural(checked.rows, "entry", "entries"),
        plural(checked.objects, "object", "objects"),
    );
    out
}
