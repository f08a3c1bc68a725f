//! `sites.toml`: who is a site, a table each.

use std::time::{Duration, SystemTime};

use formats::warm::identity::IdentityError;
use serde::{Deserialize, Serialize};

use super::{SiteEntry, Way};

/// What the file says; an error is a sentence with line and key.
pub(super) fn parse(text: &str) -> Result<Vec<SiteEntry>, String> {
    let read: Text = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    read.site.into_iter().map(SiteText::entry).collect()
}

/// The file's text.
pub(super) fn render(sites: &[SiteEntry]) -> Result<String, String> {
    let text = Text {
        site: sites.iter().map(SiteText::of).collect(),
    };
    toml::to_string(&text).map_err(|e| e.to_string())
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    site: Vec<SiteText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteText {
    name: String,
    url: Option<String>,
    #[serde(default)]
    pull: bool,
    #[serde(default)]
    repositories: Vec<String>,
    serial: String,
    /// Seconds since 1970, as the other one.
    not_after: u64,
    added: u64,
    bandwidth: Option<u64>,
}

impl SiteText {
    fn of(entry: &SiteEntry) -> Self {
        let url = match &entry.way {
            Way::Push { url } => Some(url.clone()),
            Way::Pull => None,
        };
        Self {
            name: entry.name.to_string(),
            pull: url.is_none(),
            url,
            repositories: entry.repositories.clone(),
            serial: entry.serial.to_string(),
            not_after: unix(entry.not_after),
            added: unix(entry.added),
            bandwidth: entry.bandwidth,
        }
    }

    fn entry(self) -> Result<SiteEntry, String> {
        let way = match (self.url, self.pull) {
            (Some(url), false) => Way::Push { url },
            (None, true) => Way::Pull,
            _ => return Err(format!("{}: either `url` or `pull = true`", self.name)),
        };
        Ok(SiteEntry {
            name: self
                .name
                .parse()
                .map_err(|e: IdentityError| e.to_string())?,
            way,
            repositories: self.repositories,
            serial: self
                .serial
                .parse()
                .map_err(|e: IdentityError| e.to_string())?,
            not_after: at(self.not_after),
            added: at(self.added),
            bandwidth: self.bandwidth,
        })
    }
}

pub(super) fn unix(time: SystemTime) -> u64 {
    crate::stratum0::seconds(time)
}

pub(super) fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX)))
}
