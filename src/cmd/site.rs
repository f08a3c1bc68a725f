//! `prepub site`: Stratum 1s that have a revision's objects before it is visible.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, bytes};
use super::{Context, print};
use crate::api::reply::{BrokerFiles, Site, SiteAdded, Sites};
use crate::api::{self, Request};
use crate::asker::Asker;
use crate::cli::{SiteAdd, SiteBroker, SiteCommand};
use crate::report::{Failure, Result};
use crate::state::cannot_write;

pub fn run(context: &Context, command: SiteCommand) -> Result<ExitCode> {
    match command {
        SiteCommand::Add(args) => add(context, args)?,
        SiteCommand::Revoke(args) => {
            let request = Request::SiteRevoke(api::SiteRevoke { site: args.name });
            let gone: Site = context.ask(&request)?;
            print(args.json.json, &gone, |gone| {
                format!("{} is no site any more\n", gone.site)
            })?;
        }
        SiteCommand::Broker(args) => broker(context, args)?,
        SiteCommand::List(args) => {
            let sites: Sites = context.ask(&Request::SiteList)?;
            print(args.json.json, &sites, describe)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(context: &Context, args: SiteAdd) -> Result<()> {
    let default = || PathBuf::from(format!("{}.enrolment.toml", args.name));
    let output = args.output.clone().unwrap_or_else(default);
    // a file that cannot be written is better known before a certificate is replaced
    let mut file = open(&output, 0o600)?;
    let request = Request::SiteAdd(api::SiteAdd {
        site: args.name,
        url: args.url,
        repositories: args.repositories,
        bandwidth: args.bandwidth.map(|bytes| bytes.0),
    });
    let asked = Asker::create(&context.settings)?.ask(&request, &context.display);
    let added: SiteAdded = asked.inspect_err(|_| {
        let _ = std::fs::remove_file(&output);
    })?;
    let written = file.write_all(added.enrolment.as_bytes());
    written
        .and_then(|()| file.sync_all())
        .map_err(|e| cannot_write(&output, &e))?;
    let place = output.display().to_string();
    let reply = json!({ "site": added.site, "enrolment_file": place });
    print(args.json.json, &reply, |_| {
        format!(
            "{} is a site; its enrolment, with a secret key in it, is in {place}\n  next: bring it to the Stratum 1, into the receiver's directory of enrolments\n",
            added.site
        )
    })
}

fn broker(context: &Context, args: SiteBroker) -> Result<()> {
    let dir = &args.output;
    std::fs::create_dir(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => there_already(dir),
        _ => cannot_write(dir, &error),
    })?;
    let request = Request::SiteBroker(api::SiteBroker { hosts: args.hosts });
    let made: BrokerFiles = context.ask(&request).inspect_err(|_| {
        let _ = std::fs::remove_dir(dir);
    })?;
    for file in &made.files {
        // the reply is the daemon's, and a name is a name
        let name = Path::new(&file.name).file_name().unwrap_or_default();
        let path = dir.join(name);
        let mode = if file.secret { 0o600 } else { 0o644 };
        let written = open(&path, mode)?.write_all(file.text.as_bytes());
        written.map_err(|e| cannot_write(&path, &e))?;
    }
    let names = made.files.iter().map(|file| file.name.clone());
    let reply = json!({ "directory": dir, "files": names.collect::<Vec<_>>() });
    print(args.json.json, &reply, |_| {
        format!(
            "a broker's files, with its secret key, are in {}\n  next: bring them to the broker's /etc/mosquitto/prepub, and prepub.conf to its conf.d; docs/stratum1.md has the commands\n",
            dir.display()
        )
    })
}

fn there_already(path: &Path) -> Failure {
    Failure::usage(format!("{} is there already", path.display()))
        .hint("name another one with --output, or remove it")
}

/// A new file.
fn open(path: &Path, mode: u32) -> Result<std::fs::File> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(mode).open(path);
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => there_already(path),
        _ => cannot_write(path, &error),
    })
}

fn describe(sites: &Sites) -> String {
    if sites.sites.is_empty() {
        return "no sites; `prepub site add NAME` makes one\n".into();
    }
    let rows = sites.sites.iter().map(|site| {
        let repositories = match site.repositories.as_slice() {
            [] => "all".to_owned(),
            names => names.join(" "),
        };
        [
            site.site.clone(),
            site.url.clone().unwrap_or_else(|| "pulls".into()),
            repositories,
            site.bandwidth
                .map_or_else(|| "-".into(), |rate| format!("{}/s", bytes(rate))),
            format!("{:.0} days", site.certificate_days),
        ]
    });
    let heads = ["SITE", "RECEIVER", "REPOSITORIES", "AT MOST", "CERTIFICATE"];
    output::table(heads, rows)
}
