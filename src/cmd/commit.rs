//! `prepub commit`: publishes staged changes as one revision.

use std::fmt::Write as _;
use std::process::ExitCode;

use commit::warm::{SiteOutcome, SiteState};

use super::output::{self, bytes, count, losses, plural, remarks};
use super::{Context, diff, print};
use crate::api::reply::Committed;
use crate::api::{self, PathText, Request, Watch, reply};
use crate::cli::Commit;
use crate::report::{Failure, Result};

pub fn run(context: &Context, args: Commit) -> Result<ExitCode> {
    if let Some(tag) = &args.tag {
        formats::history::check_tag_name(tag)
            .map_err(|e| Failure::usage(format!("--tag {tag:?}")).because(&e))?;
    }
    let (repo, paths, notes) = context.surroundings()?.resolve_all(&args.target)?;
    for note in notes {
        context.display.note(&note);
    }
    let tag = args.tag.clone();
    let request = Request::Commit(api::Commit {
        repo,
        paths: paths.into_iter().map(PathText).collect(),
        tag: args.tag,
        message: args.message,
        dry_run: args.dry_run,
        allow_empty: args.allow_empty,
        wait_seconds: args.wait,
        open_files: args.open_files,
        on_conflict: args.on_conflict,
        accept_unsynced: args.accept_unsynced,
    });
    if args.dry_run {
        let would: reply::Diff = context.ask(&request)?;
        diff::show(&would, args.json.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let committed: Committed = context.ask(&request)?;
    print(args.json.json, &committed, |done| {
        describe(done, tag.as_deref())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn describe(done: &Committed, tag: Option<&str>) -> String {
    let mut out = String::new();
    if !done.published {
        let _ = writeln!(
            out,
            "{}: nothing to publish; revision {} stands",
            done.repo, done.revision
        );
        if let Some(tag) = tag {
            let _ = writeln!(
                out,
                "  {tag} is not set; `prepub tag add {} {tag}` names revision {}",
                done.repo, done.revision
            );
        }
        remarks(
            &mut out,
            "left out, open for writing",
            done.skipped.iter().map(output::open_file),
        );
        return out;
    }
    let tag = match &done.tag {
        Some(tag) => format!(", tagged {tag}"),
        None => String::new(),
    };
    let _ = writeln!(
        out,
        "{}: revision {} is published{tag}",
        done.repo, done.revision
    );
    let _ = writeln!(
        out,
        "  {}, {}, {} removed; {}",
        plural(done.files, "file", "files"),
        plural(done.directories, "directory", "directories"),
        count(done.removed),
        bytes(done.bytes_raw),
    );
    let _ = writeln!(
        out,
        "  {} ({}), {} reused; {}",
        plural(done.objects_new, "new object", "new objects"),
        bytes(done.bytes_stored),
        count(done.objects_reused),
        plural(done.catalogs, "catalog", "catalogs"),
    );
    let seconds = &done.seconds;
    let _ = writeln!(
        out,
        "  {:.2} s: snapshot {:.2}, storing {:.2}, warming {:.2}, catalogs {:.2}; others kept out for {:.2}",
        seconds.total,
        seconds.freeze,
        seconds.store,
        seconds.warm,
        seconds.catalogs,
        seconds.lease_held,
    );
    for site in &done.stratum1 {
        let _ = writeln!(out, "  {}", stratum1(site));
    }
    remarks(
        &mut out,
        "left out, open for writing",
        done.skipped.iter().map(output::open_file),
    );
    losses(
        &mut out,
        (&done.dropped_xattrs, done.dropped_xattrs_more),
        &done.broken_links,
        &done.special_skipped,
        &done.warnings,
    );
    out
}

fn stratum1(site: &SiteOutcome) -> String {
    let state = match site.state {
        SiteState::Warm => format!("{} is warm", site.site),
        SiteState::Behind => format!("{} is behind, and gets the rest later", site.site),
        SiteState::Failed => format!("{} is not warm", site.site),
    };
    match &site.error {
        Some(error) => format!("{state}: it {error}"),
        None => format!(
            "{state}: {}, {}, {:.2} s",
            plural(site.objects, "object", "objects"),
            bytes(site.bytes),
            site.seconds
        ),
    }
}
