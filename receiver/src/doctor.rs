//! The self-test: every thing that must be so for objects to come in, looked at one by one.
//!
//! It changes nothing: what it writes to try the storage has no name and is gone at once. Beside a
//! receiver that runs it does not touch the ledger.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::config::Config;
use crate::headroom::Headroom;
use crate::pull;
use crate::replica::Replica;
use crate::trust::{Enrolled, Trust};

/// A certificate that ends within this is told of.
const SOON: Duration = Duration::from_secs(30 * 86_400);
/// Clocks that are further apart are told of: certificates begin a day early, so more would do harm.
const SKEW: Duration = Duration::from_secs(300);
/// How long our own listener may take.
const LISTENER_WAIT: Duration = Duration::from_secs(5);

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Good.
    Ok,
    /// It works, and will not always.
    Warning,
    /// Objects do not come in.
    Failed,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// All checks.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl Report {
    /// True if objects come in.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checks
            .iter()
            .all(|check| check.verdict != Verdict::Failed)
    }

    fn add(&mut self, name: &str, verdict: Verdict, found: impl Into<String>, hint: &str) {
        self.checks.push(Check {
            name: name.to_owned(),
            verdict,
            found: found.into(),
            hint: (!hint.is_empty() && verdict != Verdict::Ok).then(|| hint.to_owned()),
        });
    }

    fn ok(&mut self, name: &str, found: impl Into<String>) {
        self.add(name, Verdict::Ok, found, "");
    }

    fn failed(&mut self, name: &str, error: &dyn std::error::Error, hint: &str) {
        self.add(name, Verdict::Failed, store::chain(error), hint);
    }
}

/// Looks at everything.
pub async fn examine(config: &Config, now: SystemTime) -> Report {
    let mut report = Report::default();
    let blocking = {
        let config = config.clone();
        move || {
            let mut report = Report::default();
            state(&config, &mut report);
            replicas(&config, &mut report);
            report
        }
    };
    match tokio::task::spawn_blocking(blocking).await {
        Ok(done) => report = done,
        Err(e) => report.failed(
            "the storage",
            &e,
            "this is a fault of the program: report it",
        ),
    }
    let trust = Trust::read(&config.enrolments);
    enrolments(config, &trust, now, &mut report);
    for who in &trust.enrolled {
        publisher(who, now, &mut report).await;
    }
    if let Some(who) = trust.enrolled.first() {
        listener(config, who, &mut report).await;
    }
    report
}

fn state(config: &Config, report: &mut Report) {
    let dir = &config.state_dir;
    let tried = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir));
    match tried {
        Ok(_) => report.ok("state", format!("{} can be written", dir.display())),
        Err(e) => {
            let name = format!("state {}", dir.display());
            report.failed(
                &name,
                &e,
                "run it as the user of the service, or set `state_dir`",
            );
        }
    }
}

fn replicas(config: &Config, report: &mut Report) {
    if config.repository.is_empty() {
        let hint = "name each in a [repository.\"NAME\"] section of receiver.toml";
        report.add("replicas", Verdict::Failed, "none is configured", hint);
    }
    for (name, said) in &config.repository {
        let what = format!("replica {name}");
        let replica = match Replica::open(config, name, said) {
            Ok(replica) => replica,
            Err(e) => {
                report.failed(&what, &e, "");
                continue;
            }
        };
        report.ok(&what, format!("its storage is {}", replica.place));
        owner(&replica, &what, report);
        written(&replica, &what, report);
        room(config, &replica, &what, report);
        lock(&replica, &what, report);
        command(config, name, report);
    }
}

/// The files must be the replica's owner's, or its garbage collection cannot remove them.
fn owner(replica: &Replica, what: &str, report: &mut Report) {
    let Some(dir) = replica.store.local_dir() else {
        return;
    };
    let owner = std::fs::metadata(dir).map(|meta| meta.uid());
    let us = rustix::process::geteuid();
    match owner {
        Ok(uid) if us.is_root() || us.as_raw() == uid => {
            report.ok(
                what,
                format!("objects will be user {uid}'s, as the storage is"),
            );
        }
        Ok(uid) => {
            let found = format!(
                "the storage is user {uid}'s, and this runs as user {}",
                us.as_raw()
            );
            let hint = "run the receiver as root or as the storage's owner";
            report.add(what, Verdict::Failed, found, hint);
        }
        Err(e) => report.failed(what, &e, ""),
    }
}

fn written(replica: &Replica, what: &str, report: &mut Report) {
    let tried = replica.store.begin().and_then(|mut pending| {
        let wrote = pending
            .write_all(b"prepub-receiver doctor")
            .and_then(|()| pending.spill());
        wrote.map_err(|e| store::StoreError::io("write to", replica.place.as_str(), e))
    });
    match tried {
        Ok(()) if replica.store.local_dir().is_some() => report.ok(what, "it can be written"),
        Ok(()) => bucket(replica, what, report),
        Err(e) => report.failed(what, &e, ""),
    }
}

/// A bucket is asked for an object that nobody has.
fn bucket(replica: &Replica, what: &str, report: &mut Report) {
    let nobody = formats::Hash::of(formats::Algorithm::Sha1, b"prepub-receiver doctor");
    let name = formats::ObjectName::new(nobody, formats::ObjectKind::Data);
    match replica.store.has(&name) {
        Ok(_) => report.ok(what, "the bucket answers"),
        Err(e) => report.failed(what, &e, "see the bucket's address and key in its s3.conf"),
    }
}

fn room(config: &Config, replica: &Replica, what: &str, report: &mut Report) {
    let keep = config.keep.headroom;
    match Headroom::new(std::sync::Arc::clone(&replica.store), keep.0).room() {
        Ok(Some(0)) => {
            let hint = "free some space, or lower `headroom` in [keep]";
            report.add(
                what,
                Verdict::Failed,
                format!("less than {keep} are free"),
                hint,
            );
        }
        Ok(Some(room)) => report.ok(what, format!("{} MB may come", room / 1_000_000)),
        Ok(None) => report.ok(what, "nothing bounds how much may come"),
        Err(e) => report.failed(what, &e, ""),
    }
}

fn lock(replica: &Replica, what: &str, report: &mut Report) {
    match (&replica.spool, replica.hold_off()) {
        (None, _) => {
            let found = "nothing says where cvmfs_server has its lock, so objects never expire";
            let hint = format!("set `spool` in [repository.\"{}\"]", replica.name);
            report.add(what, Verdict::Warning, found, &hint);
        }
        (Some(spool), Err(e)) => {
            let hint = format!(
                "the receiver must be able to lock files in {}",
                spool.display()
            );
            report.failed(what, &e, &hint);
        }
        (Some(_), Ok(Some(_))) => report.ok(what, "snapshots can be held off"),
        (Some(_), Ok(None)) => report.ok(what, "a snapshot is running at the moment"),
    }
}

fn command(config: &Config, repo: &str, report: &mut Report) {
    let Some(program) = config.snapshot.command.first() else {
        report.ok(
            "snapshot",
            format!("none is run after a publication of {repo}"),
        );
        return;
    };
    if program.contains('/') && !Path::new(program).exists() {
        let found = format!("{program} is not there");
        report.add(
            "snapshot",
            Verdict::Failed,
            found,
            "see `command` in [snapshot]",
        );
    } else {
        report.ok(
            "snapshot",
            format!("{program} runs after a publication of {repo}"),
        );
    }
}

fn enrolments(config: &Config, trust: &Trust, now: SystemTime, report: &mut Report) {
    for (file, problem) in &trust.problems {
        let name = format!("enrolment {}", file.display());
        let hint = "have the publisher make it again: `prepub site add`";
        report.add(&name, Verdict::Failed, problem, hint);
    }
    if trust.enrolled.is_empty() {
        let found = format!(
            "no publisher is enrolled in {}",
            config.enrolments.display()
        );
        let hint = "put the file there that `prepub site add NAME` made on the publisher";
        report.add("enrolments", Verdict::Failed, found, hint);
    }
    for who in &trust.enrolled {
        let name = format!("enrolment of {}", who.enrolment.publisher);
        let hint = format!("have it renewed: `prepub site add {}`", who.enrolment.site);
        if who.begins().is_ok_and(|begins| begins > now) {
            let found = "its certificate is not valid yet: this machine's clock is behind, or the publisher's was ahead when it was made";
            let hint = format!("set both clocks by NTP; then, if it says so still: {hint}");
            report.add(&name, Verdict::Failed, found, &hint);
        }
        match who.ends() {
            Ok(ends) if ends <= now => {
                let found = "its certificate has run out, by this machine's clock";
                report.add(&name, Verdict::Failed, found, &hint);
            }
            Ok(ends) if ends <= now + SOON => {
                report.add(
                    &name,
                    Verdict::Warning,
                    "its certificate ends within 30 days",
                    &hint,
                );
            }
            Ok(_) => report.ok(&name, format!("we are its site {}", who.enrolment.site)),
            Err(e) => report.failed(&name, &e, &hint),
        }
        for repo in &who.enrolment.repositories {
            if !config.repository.contains_key(repo) {
                let found = format!("it names {repo}, of which there is no replica here");
                let hint = format!("add [repository.\"{repo}\"] to receiver.toml");
                report.add(&name, Verdict::Warning, found, &hint);
            }
        }
    }
}

/// Where the publisher is to be asked, it must answer, know us, and have our time.
async fn publisher(who: &Enrolled, now: SystemTime, report: &mut Report) {
    let Some(url) = &who.enrolment.publisher_url else {
        return;
    };
    let name = format!("publisher {}", who.enrolment.publisher);
    let before = std::time::Instant::now();
    match pull::greet(who, url).await {
        Ok(theirs) => {
            report.ok(&name, format!("{url} answers and knows us"));
            let ours = now + before.elapsed();
            let skew = theirs.map(|theirs| apart(theirs, ours));
            if let Some(skew) = skew.filter(|skew| *skew > SKEW) {
                let found = format!("its clock and ours are {} s apart", skew.as_secs());
                report.add(&name, Verdict::Warning, found, "set both by NTP");
            }
        }
        Err(e) => {
            let hint =
                "is `[warm] listen` set there, may we connect, and was this site not revoked?";
            report.failed(&name, &e, hint);
        }
    }
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b)
        .or_else(|_| b.duration_since(a))
        .unwrap_or_default()
}

/// The receiver that runs here shows our certificate; being no publisher, we are let no further.
async fn listener(config: &Config, who: &Enrolled, report: &mut Report) {
    let Some(address) = config.listen else {
        report.ok("listener", "there is none: this site only pulls");
        return;
    };
    let host = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        ip if ip.is_unspecified() => "::1".to_owned(),
        ip => ip.to_string(),
    };
    let port = address.port();
    match store::peer::connect(&who.credentials, &host, port, LISTENER_WAIT).await {
        Ok(_) => report.ok("listener", format!("it answers on port {port}")),
        Err(e) => {
            let hint = "is the service running (`systemctl status prepub-receiver`), and is `listen` this address?";
            report.failed("listener", &e, hint);
        }
    }
}

/// What a `Date` header says.
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    // IMF-fixdate, the only form that may be sent [RFC 9110, 5.6.7]
    let mut parts = text.split(' ').skip(1);
    let day: u64 = parts.next()?.parse().ok()?;
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = parts.next()?.parse().ok().filter(|year| *year >= 1970)?;
    let mut time = parts
        .next()?
        .split(':')
        .map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    // days since 1970 by shifting the year's begin to March
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let since = days.checked_sub(719_468)? * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), at(784_111_777));
        assert_eq!(
            http_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            at(1_709_164_800)
        );
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), at(0));
        assert_eq!(http_date("yesterday"), None);
    }
}
