//! The publisher "gateway": what can be known of it from here. Nothing is published and nothing stored.

use std::time::{Duration, SystemTime};

use commit::{Gateway, Place, Publisher, PublisherError, RepoHome};
use formats::server_conf::{ServerConf, Upstream};
use rustix::fs::{Access, access};

use super::{failed, fine, warn};
use crate::api::reply::Finding;
use crate::clock;
use crate::config::Settings;
use crate::engine::gateway::storage_place;
use crate::report::{Failure, Result};
use crate::repositories;

/// How far the gateway's clock may be from ours without a word: an answer tells whole seconds, and is
/// some time on its way. Whitelists count hours, and clients go by the revision's time.
const APART_FEW: Duration = Duration::from_secs(60);
/// Leases that end sooner are worth a warning: a merge of some hundred thousand paths takes minutes.
const LEASE_SHORT: Duration = Duration::from_secs(600);
/// What a receiver leaves undefined where its `server.conf` has no such line [CVMFS
/// `receiver/params.cc:GetParamsFromFile`].
const LEFT_TO_CHANCE: [&str; 3] = [
    "CVMFS_ENFORCE_LIMITS",
    "CVMFS_AUTOCATALOGS_MAX_WEIGHT",
    "CVMFS_AUTOCATALOGS_MIN_WEIGHT",
];

/// Looks at one repository's gateway.
pub fn look(findings: &mut Vec<Finding>, settings: &Settings, home: &RepoHome, gateway: &Gateway) {
    let name = gateway.name();
    match gateway.standing() {
        Ok(standing) => {
            if let Some(theirs) = standing.time {
                clocks(findings, name, theirs, clock::wall());
            }
            lease(findings, gateway, &standing.path);
        }
        Err(error) => failed(findings, name, error.into()),
    }
    if let Err(failure) = storage(findings, settings, gateway) {
        failed(findings, name, failure);
    }
    if let Err(failure) = receiver(findings, settings, home) {
        failed(findings, name, failure);
    }
}

fn clocks(findings: &mut Vec<Finding>, name: &str, theirs: SystemTime, ours: SystemTime) {
    let (apart, how) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if apart > APART_FEW {
        let found = format!(
            "the gateway's clock is {} s {how} this machine's",
            apart.as_secs()
        );
        warn(
            findings,
            name,
            found,
            "set both by one source (NTP): whitelists, tags and revisions carry times of either",
        );
    }
}

fn lease(findings: &mut Vec<Finding>, gateway: &Gateway, path: &str) {
    let name = gateway.name();
    let terms = match gateway.try_lease() {
        Ok(terms) => terms,
        Err(error @ PublisherError::Busy { .. }) => {
            return warn(
                findings,
                name,
                error.to_string(),
                "commits have to wait for it; whether our key may publish shows when it is over",
            );
        }
        Err(error) => return failed(findings, name, error.into()),
    };
    let seconds = terms.lifetime.as_secs();
    let spoken = match terms.version {
        Some(version) => format!("protocol version {version}"),
        None => "a protocol version that it does not name".to_owned(),
    };
    fine(
        findings,
        name,
        format!(
            "its gateway lets us publish below {path}, leases last {seconds} s, it speaks {spoken}"
        ),
    );
    if terms.lifetime < LEASE_SHORT {
        warn(
            findings,
            name,
            format!(
                "the gateway's leases last {seconds} s, and a commit of many paths may take longer"
            ),
            "raise max_lease_time in the gateway's user.json, and restart it",
        );
    }
}

/// Whether what we write is what the gateway's clients see.
fn storage(findings: &mut Vec<Finding>, settings: &Settings, gateway: &Gateway) -> Result<()> {
    let name = gateway.name();
    let Some(place) = storage_place(settings, name) else {
        fine(
            findings,
            name,
            "objects go through the gateway; its storage is not written from here",
        );
        return Ok(());
    };
    if gateway.is_storage_shown()? == Some(false) {
        return Err(Failure::failed(format!(
            "{} and the Stratum 0's URL show different revisions",
            place.describe()
        ))
        .hint(format!(
            "let `storage` below [repository.\"{name}\".gateway] in {} name the gateway's own storage, and `stratum0` the server itself, with no cache in between",
            settings.config_file().display()
        )));
    }
    let Place::Directory(dir) = &place else {
        fine(
            findings,
            name,
            format!(
                "{} is the gateway's storage; whether it can be written shows a commit",
                place.describe()
            ),
        );
        return Ok(());
    };
    for part in [dir.join("data"), dir.join("data/txn")] {
        access(&part, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
            Failure::failed(format!("cannot write to {}", part.display()))
                .because(&std::io::Error::from(error))
                .hint(format!(
                    "give prepub's user the right to write there, or take `storage` of {name} out of {}: then objects go through the gateway",
                    settings.config_file().display()
                ))
        })?;
    }
    fine(
        findings,
        name,
        format!(
            "{} is the gateway's storage, and can be written",
            place.describe()
        ),
    );
    Ok(())
}

/// What the receiver's `server.conf` says, where it can be read, and ours otherwise.
fn receiver(findings: &mut Vec<Finding>, settings: &Settings, home: &RepoHome) -> Result<()> {
    let name = &home.name;
    let official = repositories::official(settings, name)?;
    // on the gateway's own machine
    let theirs = match official.exists() {
        true => Some(official.conf()?).filter(is_receivers),
        false => None,
    };
    let is_theirs = theirs.is_some();
    let (conf, file) = match theirs {
        Some(conf) => (conf, &official.conf_file),
        None => (home.conf()?, &home.conf_file),
    };
    let missing: Vec<&str> = LEFT_TO_CHANCE
        .into_iter()
        .filter(|key| conf.get(key).is_none())
        .collect();
    let beyond = match is_theirs {
        true => "",
        false => "; the gateway's own server.conf cannot be seen from here",
    };
    if missing.is_empty() {
        let limits = match conf.params().is_ok_and(|params| params.limits.enforce) {
            true => "enforced",
            false => "not enforced",
        };
        fine(
            findings,
            name,
            format!("limits are {limits} by {}{beyond}", file.display()),
        );
    } else {
        warn(
            findings,
            name,
            format!(
                "{} does not set {}; a receiver leaves to chance what its server.conf does not set{beyond}",
                file.display(),
                missing.join(", ")
            ),
            format!(
                "set them in /etc/cvmfs/repositories.d/{name}/server.conf on the gateway's machine{}",
                match is_theirs {
                    true => "",
                    false => ", and here alike",
                }
            ),
        );
    }
    Ok(())
}

fn is_receivers(conf: &ServerConf) -> bool {
    !matches!(conf.upstream(), Ok(Upstream::Gateway { .. }) | Err(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let told = |theirs| {
            let mut findings = Vec::new();
            clocks(&mut findings, "test.example.org", theirs, ours);
            findings.pop().map(|finding: Finding| finding.found)
        };
        assert_eq!(told(ours + APART_FEW), None);
        assert_eq!(told(ours - APART_FEW), None);
        let [ahead, behind] = [ours + 2 * APART_FEW, ours - 2 * APART_FEW].map(told);
        assert!(ahead.unwrap().contains("120 s ahead of"));
        assert!(behind.unwrap().contains("120 s behind"));
    }
}
