//! `prepub status`: what is mounted, staged, published, unsealed, wrong.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{bytes, open_file, plural, remarks};
use super::{Context, print};
use crate::api::reply::{RepoStatus, SiteStatus, Trouble};
use crate::api::{Request, Status as StatusRequest, reply};
use crate::cli::Status;
use crate::progress::title;
use crate::report::Result;

/// From here on the whitelist's days are said to be few.
const DAYS_FEW: f64 = 7.0;
/// The same of a site's certificate, which somebody has to carry there.
const CERTIFICATE_DAYS_FEW: f64 = 60.0;
/// Seconds that a site's clock may be off before that is said; a day would do harm.
const CLOCKS_APART: u64 = 60;

pub fn run(context: &Context, args: &Status) -> Result<ExitCode> {
    let repo = match &args.target {
        Some(target) => Some(context.surroundings()?.resolve(target)?.repo),
        None => None,
    };
    let request = Request::Status(StatusRequest {
        repo,
        wait: args.wait,
        sites: args.sites,
    });
    let status: reply::Status = context.ask(&request)?;
    print(args.json.json, &status, describe)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(status: &reply::Status) -> String {
    let mut out = String::new();
    match &status.daemon {
        Some(daemon) => {
            let _ = writeln!(
                out,
                "mounted on {} by process {}",
                daemon.mountpoint.display(),
                daemon.pid
            );
        }
        None => out.push_str("not mounted\n"),
    }
    if status.drained {
        let running = match status.running {
            0 => String::new(),
            n => format!(", {} under way", plural(n, "commit is", "commits are")),
        };
        let _ = writeln!(
            out,
            "drained: no new commits{running}; `prepub drain --resume` lets them in again"
        );
    }
    if let Some(place) = &status.stale_mount {
        let _ = writeln!(
            out,
            "a daemon that died has left its mount on {place}; `prepub mount` recovers it"
        );
    }
    if status.repositories.is_empty() {
        out.push_str("no repositories; `prepub mkfs NAME` makes one\n");
    }
    for repo in &status.repositories {
        out.push('\n');
        describe_repo(&mut out, repo);
    }
    if let Some(sites) = &status.sites {
        out.push('\n');
        describe_sites(&mut out, sites);
    }
    if let Some(broker) = &status.broker {
        let trouble = broker.trouble.as_deref().unwrap_or("connected");
        let _ = writeln!(out, "broker {}  {trouble}", broker.url);
    }
    out
}

fn describe_sites(out: &mut String, sites: &[SiteStatus]) {
    if sites.is_empty() {
        out.push_str("no Stratum 1s; `prepub site add NAME` makes one\n");
    }
    for site in sites {
        let place = site.url.as_deref().unwrap_or("pulls");
        let connected = match site.connected {
            Some(true) => "connected",
            Some(false) => "not connected",
            None => "not asked yet",
        };
        let _ = writeln!(out, "{}  {place}, {connected}", site.site);
        if site.behind_revisions > 0 {
            let _ = writeln!(
                out,
                "  behind    {}: {}, {}",
                plural(site.behind_revisions, "revision", "revisions"),
                plural(site.behind_objects, "object", "objects"),
                bytes(site.behind_bytes)
            );
        }
        if let Some(rate) = site.rate {
            let _ = writeln!(out, "  rate      {}/s", bytes(rate));
        }
        if site.objects_sent > 0 {
            let _ = writeln!(
                out,
                "  taken     {}, {} in all",
                plural(site.objects_sent, "object", "objects"),
                bytes(site.bytes_sent)
            );
        }
        if let Some(ahead) = site
            .clock_ahead
            .filter(|ahead| ahead.unsigned_abs() > CLOCKS_APART)
        {
            let which = if ahead > 0 { "ahead of" } else { "behind" };
            let _ = writeln!(
                out,
                "  clock     {} s {which} ours; set both by NTP",
                ahead.unsigned_abs()
            );
        }
        if site.certificate_days < CERTIFICATE_DAYS_FEW {
            let _ = writeln!(
                out,
                "  trusted   for {:.0} more days; `prepub site add {}` issues another certificate",
                site.certificate_days, site.site
            );
        }
        if let Some(error) = &site.last_error {
            let _ = writeln!(out, "  last      it {error}");
        }
    }
}

fn describe_repo(out: &mut String, repo: &RepoStatus) {
    let _ = write!(out, "{}", repo.repo);
    match (repo.published_revision, repo.base_revision) {
        (Some(published), base) if base.is_none() || base == Some(published) => {
            let _ = writeln!(out, "  revision {published}");
        }
        (Some(published), Some(base)) => {
            let behind = match published.saturating_sub(base) {
                0 => String::new(),
                n => format!(", {n} behind"),
            };
            let _ = writeln!(
                out,
                "  revision {published}; staged over revision {base}{behind}"
            );
        }
        _ => out.push('\n'),
    }
    if let Some(url) = &repo.url {
        let _ = writeln!(out, "  served    {url}");
    }
    if let Some(days) = repo.whitelist_days {
        let few = match days < DAYS_FEW {
            true => format!("; `prepub resign {}` renews it", repo.repo),
            false => String::new(),
        };
        let _ = writeln!(out, "  trusted   for {days:.1} more days{few}");
    }
    let staged = &repo.staged;
    if staged.is_empty() {
        out.push_str("  staged    nothing\n");
    } else {
        let _ = writeln!(
            out,
            "  staged    {} added, {} modified, {} removed, {} renamed; {}",
            staged.added,
            staged.modified,
            staged.removed,
            staged.renamed,
            bytes(staged.bytes)
        );
    }
    if repo.unsealed_files > 0 {
        let files = plural(repo.unsealed_files, "file", "files");
        let _ = writeln!(out, "  unsealed  {files}, {}", bytes(repo.unsealed_bytes));
    }
    for commit in &repo.commits {
        let paths: Vec<String> = commit.paths.iter().map(ToString::to_string).collect();
        let _ = writeln!(
            out,
            "  commit    of {}: {}, for {:.0} s",
            paths.join(", "),
            title(commit.step),
            commit.seconds
        );
    }
    remarks(
        out,
        "  open for writing",
        repo.open_files.iter().map(indent_open),
    );
    remarks(out, "  errors", repo.errors.iter().map(trouble));
    remarks(out, "  warnings", repo.warnings.iter().map(trouble));
}

fn indent_open(file: &reply::OpenFile) -> String {
    format!("  {}", open_file(file))
}

fn trouble(trouble: &Trouble) -> String {
    let text = trouble.failure.to_string().replace('\n', "\n    ");
    match trouble.path.as_ref().map(ToString::to_string) {
        // some name it in their sentence
        Some(path) if !trouble.failure.message.contains(&path) => format!("  {path}: {text}"),
        _ => format!("  {text}"),
    }
}
