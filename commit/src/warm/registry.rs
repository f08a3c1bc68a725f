//! Who the sites are, and by which certificate each is known.
//!
//! A certificate counts only if its serial is the one that stands here under its name: what was
//! revoked, or replaced by a newer one, is nobody's. Every file is replaced as a whole and synced; a
//! serial is written down as revoked before the site is taken out, so that no crash brings it back.
//! A site's key is given out once and not kept.

mod broker;
mod own;
mod text;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use formats::warm::Enrolment;
use formats::warm::identity::{
    Authority, IdentityError, NodeName, PeerIdentity, Role, Serial, Subject,
};
use store::{Injected, failpoint};

use super::broker::BrokerAddress;
use crate::home::{HomeError, replace_file};
pub use broker::BrokerFile;
pub use own::OwnCredentials;
use text::{at, unix};

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const SITES: &str = "sites.toml";
const REVOKED: &str = "revoked";
const REVOCATIONS: &str = "crl.pem";

/// Why the register of sites cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file of it.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it cannot be replaced.
    #[error(transparent)]
    Write(#[from] HomeError),
    /// The list of sites is unreadable. The message has line and key.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A certificate or key.
    #[error("the certificates in {dir}")]
    Identity {
        /// Where they lie.
        dir: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// An address that no receiver has.
    #[error("{0:?} is no receiver's address; write it as https://HOST:PORT")]
    BadUrl(String),
    /// A site that pulls needs to know from where.
    #[error(
        "a site that pulls needs this publisher's own address; set `url` and `listen` in [warm]"
    )]
    NoOwnUrl,
    /// It would be taken for the publisher where only names count: on a broker.
    #[error("{0} is this publisher's own name; name the site otherwise")]
    OwnName(NodeName),
    /// There is no such site.
    #[error("there is no site {0}; `prepub site list` names all")]
    Unknown(NodeName),
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// How objects get to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// They are sent to its receiver: `https://HOST:PORT`, without a slash at the end.
    Push {
        /// The receiver's address.
        url: String,
    },
    /// It comes for them.
    Pull,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteEntry {
    /// Its name.
    pub name: NodeName,
    /// How objects get there.
    pub way: Way,
    /// Repositories that it takes; empty: all.
    pub repositories: Vec<String>,
    /// The serial of its certificate.
    pub serial: Serial,
    /// When that runs out.
    pub not_after: SystemTime,
    /// Since when it has been a site under that certificate.
    pub added: SystemTime,
    /// Most bytes a second that are sent there; none: as many as go.
    pub bandwidth: Option<u64>,
}

impl SiteEntry {
    /// True if it takes this repository.
    #[must_use]
    pub fn takes(&self, repo: &str) -> bool {
        self.repositories.is_empty() || self.repositories.iter().any(|one| one == repo)
    }
}

/// What a new site is to be.
#[derive(Clone, Debug)]
pub struct NewSite {
    /// Its name.
    pub name: NodeName,
    /// How objects get there.
    pub way: Way,
    /// Repositories that it takes; empty: all.
    pub repositories: Vec<String>,
    /// Most bytes a second.
    pub bandwidth: Option<u64>,
}

/// Who the publisher is.
#[derive(Clone, Debug)]
pub struct Us {
    /// Its name.
    pub name: NodeName,
    /// Where sites that pull ask for work: `https://HOST:PORT`.
    pub url: Option<String>,
    /// The broker that it and its sites are connected to.
    pub broker: Option<BrokerAddress>,
}

/// The register. It keeps nothing in memory; its user sees to it that one call ends before the next.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
}

impl Registry {
    /// The register in a directory, which need not be there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All sites, by name.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], [`RegistryError::Io`].
    pub fn sites(&self) -> Result<Vec<SiteEntry>, RegistryError> {
        let path = self.dir.join(SITES);
        let Some(text) = self.read(SITES)? else {
            return Ok(Vec::new());
        };
        let damaged = |what| RegistryError::Damaged {
            path: path.clone(),
            what,
        };
        let text = String::from_utf8(text).map_err(|e| damaged(e.to_string()))?;
        let mut sites = text::parse(&text).map_err(damaged)?;
        sites.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sites)
    }

    /// Makes somebody a site, or gives a site a new certificate, after which the old one is good for
    /// nothing.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn add(&self, new: NewSite, us: &Us, now: SystemTime) -> Result<Enrolment, RegistryError> {
        if new.name == us.name {
            return Err(RegistryError::OwnName(new.name));
        }
        let host = match &new.way {
            Way::Push { url } => Some(host_of(url)?),
            Way::Pull if us.url.is_none() => return Err(RegistryError::NoOwnUrl),
            Way::Pull => None,
        };
        let authority = self.authority(now)?;
        self.own(&authority, us, now)?;
        let subject = Subject {
            role: Role::Site,
            name: &new.name,
            hosts: &host.into_iter().collect::<Vec<_>>(),
        };
        let issued = authority.issue(subject, now).map_err(self.identity())?;
        let mut sites = self.sites()?;
        if let Some(old) = sites.iter().find(|site| site.name == new.name) {
            self.note_revoked(&authority, &old.serial, now)?;
        }
        sites.retain(|site| site.name != new.name);
        sites.push(SiteEntry {
            name: new.name.clone(),
            way: new.way.clone(),
            repositories: new.repositories.clone(),
            serial: issued.serial,
            not_after: issued.not_after,
            added: now,
            bandwidth: new.bandwidth,
        });
        self.write_sites(&sites)?;
        let text = |pem: Vec<u8>| String::from_utf8_lossy(&pem).into_owned();
        Ok(Enrolment {
            site: new.name,
            publisher: us.name.clone(),
            publisher_url: (new.way == Way::Pull).then(|| us.url.clone()).flatten(),
            repositories: new.repositories,
            broker: us.broker.as_ref().map(|broker| broker.url.clone()),
            broker_ca: us.broker.as_ref().and_then(|broker| broker.ca.clone()),
            ca: text(authority.certificate_pem().map_err(self.identity())?),
            certificate: text(issued.certificate),
            key: text(issued.key),
        })
    }

    /// Ends a site. Its certificate is good for nothing from now on.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError`].
    pub fn revoke(&self, name: &NodeName, now: SystemTime) -> Result<SiteEntry, RegistryError> {
        let mut sites = self.sites()?;
        let at = sites.iter().position(|site| site.name == *name);
        let at = at.ok_or_else(|| RegistryError::Unknown(name.clone()))?;
        let site = sites.remove(at);
        self.note_revoked(&self.authority(now)?, &site.serial, now)?;
        failpoint::pass("sites::revoked")?;
        self.write_sites(&sites)?;
        Ok(site)
    }

    /// True if the certificate is the one that a site has now.
    ///
    /// # Errors
    /// As [`Registry::sites`].
    pub fn knows(&self, peer: &PeerIdentity) -> Result<Option<SiteEntry>, RegistryError> {
        if peer.role != Role::Site {
            return Ok(None);
        }
        let mut sites = self.sites()?.into_iter();
        Ok(sites.find(|site| site.name == peer.name && site.serial == peer.serial))
    }

    fn authority(&self, now: SystemTime) -> Result<Authority, RegistryError> {
        if let (Some(certificate), Some(key)) = (self.read(CA_CERTIFICATE)?, self.read(CA_KEY)?) {
            return Authority::from_pem(&certificate, &key).map_err(self.identity());
        }
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir);
        made.map_err(self.io("make", &self.dir))?;
        let authority = Authority::generate(now).map_err(self.identity())?;
        let key = authority.key_pem().map_err(self.identity())?;
        let certificate = authority.certificate_pem().map_err(self.identity())?;
        // a key without its certificate is made anew; no certificate is without its key
        replace_file(&self.dir.join(CA_KEY), &key, 0o600)?;
        failpoint::pass("sites::authority")?;
        replace_file(&self.dir.join(CA_CERTIFICATE), &certificate, 0o644)?;
        Ok(authority)
    }

    fn note_revoked(
        &self,
        authority: &Authority,
        serial: &Serial,
        now: SystemTime,
    ) -> Result<(), RegistryError> {
        let mut revoked = self.revoked()?;
        if !revoked.iter().any(|(one, _)| one == serial) {
            revoked.push((serial.clone(), now));
        }
        let lines = revoked.iter();
        let lines: String = lines
            .map(|(serial, since)| format!("{serial} {}\n", unix(*since)))
            .collect();
        replace_file(&self.dir.join(REVOKED), lines.as_bytes(), 0o644)?;
        let list = authority
            .revocations(&revoked, now)
            .map_err(self.identity())?;
        Ok(replace_file(&self.dir.join(REVOCATIONS), &list, 0o644)?)
    }

    fn revoked(&self) -> Result<Vec<(Serial, SystemTime)>, RegistryError> {
        let text = self.read(REVOKED)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let line = |line: &str| {
            let (serial, since) = line.split_once(' ')?;
            Some((serial.parse().ok()?, at(since.parse().ok()?)))
        };
        let damaged = |text: &str| RegistryError::Damaged {
            path: self.dir.join(REVOKED),
            what: format!("{text:?} is no serial and time"),
        };
        text.lines()
            .map(|text| line(text).ok_or_else(|| damaged(text)))
            .collect()
    }

    fn write_sites(&self, sites: &[SiteEntry]) -> Result<(), RegistryError> {
        let path = self.dir.join(SITES);
        let text = text::render(sites).map_err(|what| RegistryError::Damaged {
            path: path.clone(),
            what,
        })?;
        replace_file(&path, text.as_bytes(), 0o600)?;
        Ok(failpoint::pass("sites::written")?)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("read", &path)(error)),
        }
    }

    fn io<'p>(
        &self,
        action: &'static str,
        path: &'p Path,
    ) -> impl Fn(io::Error) -> RegistryError + 'p {
        move |source| RegistryError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    fn identity(&self) -> impl Fn(IdentityError) -> RegistryError + '_ {
        |source| RegistryError::Identity {
            dir: self.dir.clone(),
            source,
        }
    }
}

/// The host of `https://HOST:PORT`, without the brackets of an address.
fn host_of(url: &str) -> Result<&str, RegistryError> {
    let bad = || RegistryError::BadUrl(url.chars().take(200).collect());
    let parsed = reqwest::Url::parse(url).map_err(|_| bad())?;
    let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.username().is_empty();
    let rest = url.strip_prefix("https://").ok_or_else(bad)?;
    let authority = rest.trim_end_matches('/');
    let host = match authority.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    match plain && !host.is_empty() {
        true => Ok(host),
        false => Err(bad()),
    }
}

#[cfg(test)]
mod tests;
