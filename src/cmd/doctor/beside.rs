//! Repositories that `cvmfs_server` made: whether prepub may publish them, and what stands in its way.

use commit::home::KeyFile;
use commit::stratum0::beside;
use commit::{Place, RepoHome};
use rustix::fs::{Access, access};

use super::{failed, fine, warn};
use crate::api::reply::Finding;
use crate::config::{PublisherKind, Settings};
use crate::report::{Failure, Kind, Result, transaction_hint};
use crate::repositories;
use crate::users;

/// Looks at one repository, or at all that the configuration names.
pub fn look(findings: &mut Vec<Finding>, settings: &Settings, only: Option<&str>) -> Result<()> {
    let homes = match only {
        Some(name) => vec![repositories::official(settings, name)?],
        None => repositories::configured(settings)?,
    };
    for home in homes.iter().filter(|home| home.exists()) {
        let publisher = settings.repository(&home.name).publisher;
        if let Err(failure) = repository(findings, home, publisher) {
            failed(findings, &home.name, failure);
        }
    }
    Ok(())
}

fn repository(
    findings: &mut Vec<Finding>,
    home: &RepoHome,
    publisher: PublisherKind,
) -> Result<()> {
    let name = &home.name;
    let found = beside(home)?;
    let me = rustix::process::geteuid();
    let owner = users::name_of(found.owner);
    match me.is_root() || me.as_raw() == found.owner {
        true => fine(
            findings,
            name,
            format!("made by cvmfs_server, belongs to {owner}"),
        ),
        false => failed(
            findings,
            name,
            Failure::new(
                Kind::Denied,
                format!("belongs to {owner}, and we are another user"),
            )
            .hint(format!("run prepub as root or as {owner}")),
        ),
    }
    if publisher == PublisherKind::Stratum0 {
        storage(findings, home)?;
        keys(findings, home);
    }
    if let Some((uid, since)) = found.transaction {
        let text = "cvmfs_server has a transaction open; commits are refused until it ends";
        warn(findings, name, text, transaction_hint(name, uid, since));
    }
    if found.is_checked_out {
        warn(
            findings,
            name,
            "an older revision is checked out; commits are refused",
            format!("`cvmfs_server checkout {name}` goes back to the newest one"),
        );
    }
    if home.conf()?.get("CVMFS_AUTO_REPAIR_MOUNTPOINT") != Some("true") && found.shown.is_some() {
        warn(
            findings,
            name,
            "CVMFS_AUTO_REPAIR_MOUNTPOINT is off: while /cvmfs is in use its mounts stay behind a commit, and cvmfs_server refuses",
            format!("set it to true in {}", home.conf_file.display()),
        );
    }
    Ok(())
}

fn storage(findings: &mut Vec<Finding>, home: &RepoHome) -> Result<()> {
    // a bucket is looked at with the rest of the repository
    let Place::Directory(dir) = home.place()? else {
        return Ok(());
    };
    let txn = dir.join("data/txn");
    match access(&txn, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => fine(
            findings,
            &home.name,
            format!("{} can be written", txn.display()),
        ),
        Err(error) => failed(
            findings,
            &home.name,
            Failure::failed(format!("cannot write to {}", txn.display()))
                .because(&std::io::Error::from(error)),
        ),
    }
    Ok(())
}

fn keys(findings: &mut Vec<Finding>, home: &RepoHome) {
    for (which, needed_for) in [
        (KeyFile::Key, "commit"),
        (KeyFile::Certificate, "commit"),
        (KeyFile::MasterKey, "resign"),
    ] {
        let file = home.key_file(which);
        if let Err(error) = access(&file, Access::READ_OK) {
            let found = format!("`prepub {needed_for}` cannot read {}", file.display());
            match which {
                // it may well be kept elsewhere
                KeyFile::MasterKey => warn(
                    findings,
                    &home.name,
                    format!("{found}: {error}"),
                    "renew the whitelist where the master key is kept",
                ),
                _ => failed(
                    findings,
                    &home.name,
                    Failure::failed(found).because(&std::io::Error::from(error)),
                ),
            }
        }
    }
}
