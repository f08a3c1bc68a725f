//! `prepub doctor`: looks at everything a mount and a commit need, changes nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use commit::{Place, RepoHome};
use fsimpl::{probe, session};

use super::{Context, output, print};
use crate::api::Request;
use crate::api::reply::{Diagnosis, Finding, Weight};
use crate::cli::Doctor;
use crate::clock;
use crate::config::Settings;
use crate::control::client::Client;
use crate::engine::front;
use crate::engine::published::Published;
use crate::report::{Failure, Result};
use crate::repositories;
use crate::state::{DaemonInfo, State};

mod beside;
mod gateway;
mod server;

/// A mount that does not answer within this hangs.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Less free space than this is worth a warning.
const FREE_BYTES_FEW: u64 = 1 << 30;
const DAYS_FEW: f64 = 7.0;
/// No prepub ran before this: 2025-01-01.
const CLOCK_OLDEST: Duration = Duration::from_secs(1_735_689_600);
/// How far clocks of two machines may be apart without a word.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

pub fn run(context: &Context, args: &Doctor) -> Result<ExitCode> {
    let diagnosis = diagnose(context, args.repo.as_deref())?;
    print(args.json.json, &diagnosis, describe)?;
    Ok(match diagnosis.healthy {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Looks at everything, of one repository or of all.
///
/// # Errors
/// A state that cannot be read, and no repository named.
pub fn diagnose(context: &Context, repo: Option<&str>) -> Result<Diagnosis> {
    let mut findings = Vec::new();
    machine(&mut findings);
    match &context.settings.source {
        Some(path) => fine(&mut findings, "configuration", path.display().to_string()),
        None => fine(&mut findings, "configuration", "none; the defaults hold"),
    }
    match State::open(&context.settings.state_dir) {
        Ok(state) => {
            space(&mut findings, &state);
            daemon(&mut findings, context, &state);
            if state.dir().join("drained").exists() {
                warn(
                    &mut findings,
                    "commits",
                    "drained: none is let in",
                    "`prepub drain --resume` lets them in again",
                );
            }
            let names = match repo {
                Some(name) => vec![name.to_owned()],
                None => repositories::names(&state, &context.settings)?,
            };
            for name in names {
                repository(&mut findings, &state, &context.settings, &name);
            }
        }
        Err(failure) => {
            failed(&mut findings, "state", failure);
            // whether it is served is the configuration's affair
            if let Some(name) = repo
                && !context.settings.file.repository.contains_key(name)
            {
                let found = format!(
                    "{} does not name it",
                    context.settings.config_file().display()
                );
                warn(
                    &mut findings,
                    name,
                    found,
                    format!(
                        "with [repository.\"{name}\"] in it prepub serves what cvmfs_server made under that name"
                    ),
                );
            }
        }
    }
    beside::look(&mut findings, &context.settings, repo)?;
    Ok(Diagnosis {
        healthy: findings.iter().all(|f| f.weight != Weight::Failure),
        findings,
    })
}

fn fine(findings: &mut Vec<Finding>, subject: impl Into<String>, found: impl Into<String>) {
    findings.push(Finding {
        subject: subject.into(),
        weight: Weight::Ok,
        found: found.into(),
        hint: None,
    });
}

fn warn(
    findings: &mut Vec<Finding>,
    subject: &str,
    found: impl Into<String>,
    hint: impl Into<String>,
) {
    findings.push(Finding {
        subject: subject.into(),
        weight: Weight::Warning,
        found: found.into(),
        hint: Some(hint.into()),
    });
}

fn failed(findings: &mut Vec<Finding>, subject: &str, mut failure: Failure) {
    let hint = failure.hint.take();
    findings.push(Finding {
        subject: subject.into(),
        weight: Weight::Failure,
        found: failure.to_string(),
        hint,
    });
}

fn machine(findings: &mut Vec<Finding>) {
    for found in probe::probe() {
        findings.push(Finding {
            subject: found.subject.into(),
            weight: match found.weight {
                probe::Weight::Fine => Weight::Ok,
                probe::Weight::Limited => Weight::Warning,
                probe::Weight::Missing => Weight::Failure,
            },
            found: found.found,
            hint: (!found.remedy.is_empty()).then_some(found.remedy),
        });
    }
    let now = clock::wall();
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since > CLOCK_OLDEST => fine(findings, "clock", "plausible"),
        _ => warn(
            findings,
            "clock",
            "it is before 2025",
            "set the clock: whitelists and revisions carry dates",
        ),
    }
}

fn space(findings: &mut Vec<Finding>, state: &State) {
    let dir = state.dir().display();
    match rustix::fs::statvfs(state.dir()) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let found = format!("{dir}, {} free", output::bytes(free));
            match free < FREE_BYTES_FEW {
                true => warn(
                    findings,
                    "state",
                    found,
                    "make room: staged files and objects go there",
                ),
                false => fine(findings, "state", found),
            }
        }
        Err(e) => {
            let failure = Failure::failed(format!("cannot look at {dir}"));
            failed(findings, "state", failure.because(&std::io::Error::from(e)));
        }
    }
}

fn daemon(findings: &mut Vec<Finding>, context: &Context, state: &State) {
    let last = state.daemon_info();
    let client = match Client::connect(&state.socket()) {
        Ok(Some(client)) => client,
        Ok(None) => {
            match last.filter(|info| session::is_stale(&info.mountpoint)) {
                Some(info) => warn(
                    findings,
                    "daemon",
                    format!(
                        "none, and a dead one's mount is left on {}",
                        info.mountpoint.display()
                    ),
                    "`prepub mount` takes it off and goes on; `prepub unmount` only takes it off",
                ),
                None => fine(findings, "daemon", "none; `prepub mount` starts it"),
            }
            return;
        }
        Err(failure) => return failed(findings, "daemon", failure),
    };
    let info = client.ask(&Request::Health, &context.display);
    match info.map(serde_json::from_value::<Option<DaemonInfo>>) {
        Ok(Ok(Some(info))) => {
            let version = &info.version;
            fine(
                findings,
                "daemon",
                format!("process {}, version {version}", info.pid),
            );
            mount(findings, &info.mountpoint);
        }
        Ok(_) => failed(
            findings,
            "daemon",
            Failure::failed("it answers in another language"),
        ),
        Err(failure) => failed(findings, "daemon", failure),
    }
}

/// Asks the mount from a thread of its own: one that hangs must not take us along.
fn mount(findings: &mut Vec<Finding>, mountpoint: &Path) {
    let (answer, answered) = mpsc::channel();
    let place = mountpoint.to_owned();
    std::thread::spawn(move || {
        let _ = answer.send(rustix::fs::statvfs(&place).map_err(std::io::Error::from));
    });
    let found = mountpoint.display().to_string();
    match answered.recv_timeout(ANSWER_WAIT) {
        Ok(Ok(_)) => fine(findings, "mount", found),
        Ok(Err(e)) => failed(findings, "mount", Failure::failed(found).because(&e)),
        Err(_) => failed(
            findings,
            "mount",
            Failure::failed(format!("{found} does not answer")).hint(
                "the log says what the daemon is doing; staged changes are kept if it is ended",
            ),
        ),
    }
}

fn repository(findings: &mut Vec<Finding>, state: &State, settings: &Settings, name: &str) {
    let now = clock::wall();
    let published = match Published::open(state, settings, name) {
        Ok(published) => published,
        Err(failure) => return failed(findings, name, failure),
    };
    if let Some(publisher) = published.gateway() {
        gateway::look(findings, settings, &published.home, publisher);
    }
    in_a_bucket(findings, &published.home);
    if let Some(publisher) = published.server() {
        server::look(findings, publisher);
    }
    match published.head(now) {
        Ok((_, Some(expired))) => failed(findings, name, expired),
        Ok((head, None)) => {
            let left = head
                .whitelist()
                .ends()
                .duration_since(now)
                .unwrap_or_default();
            let days = left.as_secs_f64() / 86_400.0;
            let found = format!(
                "revision {}, trusted for {days:.1} more days",
                head.manifest().revision
            );
            let published = Duration::from_secs(head.manifest().published);
            let ahead = published
                > now
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default()
                    + CLOCK_SLACK;
            if ahead {
                let found = format!("{found}; published ahead of this machine's clock");
                warn(
                    findings,
                    name,
                    found,
                    "set the clock: new revisions will carry the same time",
                );
            } else if days < DAYS_FEW {
                let hint = format!("`prepub resign {name}` renews the whitelist");
                warn(findings, name, found, hint);
            } else {
                fine(findings, name, found);
            }
        }
        Err(failure) => failed(findings, name, failure),
    }
}

/// A bucket that can be read says who else reads it. That it can be written shows only in writing.
fn in_a_bucket(findings: &mut Vec<Finding>, home: &RepoHome) {
    let Ok(place @ Place::Bucket(_)) = home.place() else {
        return;
    };
    let looked = || -> Result<String> {
        let storage = place.open(&home.name)?;
        let conf = home.conf()?;
        let url = conf.value("CVMFS_STRATUM0").ok().flatten();
        let url = url.ok_or_else(|| {
            Failure::failed("CVMFS_STRATUM0 does not say where clients read it")
                .hint(format!("set it in {}", home.conf_file.display()))
        })?;
        front::look(url, storage.as_ref())?;
        Ok(format!("{} is read by clients at {url}", place.describe()))
    };
    match looked() {
        Ok(found) => fine(findings, &home.name, found),
        Err(failure) => failed(findings, &home.name, failure),
    }
}

fn describe(diagnosis: &Diagnosis) -> String {
    let mut out = String::new();
    for finding in &diagnosis.findings {
        let mark = match finding.weight {
            Weight::Ok => "ok      ",
            Weight::Warning => "warning ",
            Weight::Failure => "FAILURE ",
        };
        let found = finding.found.replace('\n', "\n          ");
        out.push_str(&format!("{mark} {}: {found}\n", finding.subject));
        if let Some(hint) = &finding.hint {
            out.push_str(&format!("          {hint}\n"));
        }
    }
    out
}
