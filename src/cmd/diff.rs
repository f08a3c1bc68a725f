//! `prepub diff`: what a commit would publish, path by path. `commit --dry-run` prints the same.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{self, bytes, count, losses, plural, remarks};
use super::{Context, print};
use crate::api::reply::{Change, What};
use crate::api::{self, PathText, Request, reply};
use crate::asker::Asker;
use crate::cli::Diff;
use crate::report::{Context as _, Result};

pub fn run(context: &Context, args: &Diff) -> Result<ExitCode> {
    let targets = match &args.target {
        Some(target) => {
            let target = context.surroundings()?.resolve(target)?;
            vec![(target.repo, vec![PathText(target.path)])]
        }
        None => {
            let names = context.surroundings()?.repositories;
            names.into_iter().map(|name| (name, Vec::new())).collect()
        }
    };
    let asker = Asker::open(&context.settings)?;
    let mut diffs = Vec::new();
    for (repo, paths) in targets {
        let request = Request::Diff(api::Diff { repo, paths });
        diffs.push(asker.ask::<reply::Diff>(&request, &context.display)?);
    }
    context.display.finish();
    if args.json.json {
        match (&args.target, diffs.as_slice()) {
            (Some(_), [diff]) => output::json(diff)?,
            _ => output::json(&serde_json::json!({ "repositories": diffs }))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let text: String = diffs.iter().map(|diff| describe(diff, args.stat)).collect();
    output::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a commit would do.
pub fn show(diff: &reply::Diff, json: bool) -> Result<()> {
    print(json, diff, |diff| describe(diff, false)).context("cannot print")
}

fn describe(diff: &reply::Diff, only_figures: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{} against revision {}", diff.repo, diff.revision);
    if diff.changes.is_empty() && diff.conflicts.is_empty() && diff.refused.is_empty() {
        out.push_str("  nothing to publish\n");
        return out;
    }
    if !only_figures {
        out.push_str(&output::table(
            ["", "", "", ""],
            diff.changes.iter().map(row),
        ));
    }
    let sum = &diff.summary;
    let parts = [
        (sum.added, "added"),
        (sum.modified, "modified"),
        (sum.metadata_only, "metadata only"),
        (sum.removed, "removed"),
        (sum.renamed, "renamed"),
        (sum.generated, "generated"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{} {what}", count(*n)))
        .collect();
    let _ = writeln!(
        out,
        "  {}; {} in new and modified content; {}",
        parts.join(", "),
        bytes(sum.bytes),
        plural(diff.catalogs.len() as u64, "catalog", "catalogs")
    );
    remarks(&mut out, "generated markers that go, of", &diff.ungenerated);
    losses(
        &mut out,
        (&diff.dropped_xattrs, diff.dropped_xattrs_more),
        &diff.broken_links,
        &diff.special_skipped,
        &diff.limits,
    );
    remarks(
        &mut out,
        "conflicts with the newest revision",
        &diff.conflicts,
    );
    remarks(&mut out, "refused by the publisher", &diff.refused);
    out
}

fn row(change: &Change) -> [String; 4] {
    let letter = match change.what {
        What::Added => "A",
        What::Removed => "D",
        What::Modified => "M",
        What::MetadataOnly => "m",
        What::Renamed => "R",
        What::Generated => "G",
    };
    let slash = if change.directory { "/" } else { "" };
    let path = match &change.from {
        Some(from) => format!("{from}{slash} -> {}{slash}", change.path),
        None => format!("{}{slash}", change.path),
    };
    let size = match (change.directory, change.what) {
        (true, _) | (_, What::Removed) => String::new(),
        (_, What::Modified) if change.size_before != change.size => {
            format!("{} -> {}", bytes(change.size_before), bytes(change.size))
        }
        _ => bytes(change.size),
    };
    let catalog = match &change.catalog {
        Some(catalog) if !catalog.0.is_root() => format!("in {catalog}"),
        _ => String::new(),
    };
    [letter.into(), path, size, catalog]
}
