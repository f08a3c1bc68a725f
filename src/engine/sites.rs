//! The Stratum 1s: who they are, how they stand, and what a commit asks of them.

use std::sync::Arc;
use std::time::Duration;

use commit::warm::{
    BrokerAddress, Claim, NewSite, OBJECTS_PER_PUSH, Options, Policy, Quorum, Registry,
    RegistryError, SiteEntry, Us, WarmError, Warmer, Warming, Way,
};
use formats::warm::{IdentityError, NodeName};
use store::ObjectStore;

use super::published::Published;
use super::repo::Repo;
use super::{Engine, days_until};
use crate::api::reply::{
    BrokerFile, BrokerFiles, BrokerStatus, Site, SiteAdded, SiteStatus, Sites,
};
use crate::api::{SiteAdd, SiteBroker, SiteRevoke};
use crate::clock;
use crate::config::warm::{Push, Quorum as Configured};
use crate::report::{Context, Failure, Kind, Result};

/// The longest name of a host [RFC 1035, 2.3.4].
const HOST_MAX: usize = 255;

/// How long a process that ends may go on telling sites of what became visible.
pub const LINGER: Duration = Duration::from_secs(5);

impl Engine {
    /// Who serves the sites.
    ///
    /// # Errors
    /// A register of sites that cannot be read.
    pub fn warmer(&self) -> Result<Arc<Warmer>> {
        if let Some(warmer) = self.warmer.get() {
            return Ok(Arc::clone(warmer));
        }
        let settings = self.settings();
        let section = &settings.file.warm;
        let options = Options {
            us: Us {
                name: self.own_name()?,
                url: section.url.clone(),
                broker: self.broker()?,
            },
            connections: section.connections,
            keep: section.keep.0,
            objects_per_push: OBJECTS_PER_PUSH,
        };
        let (state, in_force) = (self.state.clone(), self.settings.clone());
        let published = move |name: &str| {
            let published = Published::open(&state, &in_force.get(), name);
            let published = published.inspect_err(|failure| tracing::warn!("{failure}"));
            Some(Arc::clone(published.ok()?.repository().store()) as Arc<dyn ObjectStore>)
        };
        let registry = Registry::new(self.state.dir().join("sites"));
        let opened = Warmer::open(
            registry,
            options,
            Arc::new(published),
            Arc::new(clock::wall),
        );
        let opened = opened.map_err(|error| failed(&error))?;
        Ok(Arc::clone(self.warmer.get_or_init(|| opened)))
    }

    /// The same, if there is anybody yet.
    #[must_use]
    pub fn warmer_in_use(&self) -> Option<Arc<Warmer>> {
        self.warmer.get().map(Arc::clone)
    }

    /// The same, for whoever can do without.
    pub(super) fn warmer_or_none(&self) -> Option<Arc<Warmer>> {
        self.warmer()
            .inspect_err(|failure| tracing::error!("Stratum 1s are not served: {failure}"))
            .ok()
    }

    fn own_name(&self) -> Result<NodeName> {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let settings = self.settings();
        let name = settings.file.warm.name.as_ref().unwrap_or(&host);
        name.parse().map_err(|e: IdentityError| {
            Failure::usage("this publisher has no name for its sites")
                .because(&e)
                .hint("set `name` in [warm]")
        })
    }

    /// The broker that the configuration names.
    fn broker(&self) -> Result<Option<BrokerAddress>> {
        let settings = self.settings();
        let section = &settings.file.warm;
        let Some(url) = section.broker.clone() else {
            return Ok(None);
        };
        let ca = section.broker_ca.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .context(format_args!("[warm]: cannot read {}", path.display()))
        });
        let ca = ca.transpose()?;
        Ok(Some(BrokerAddress { url, ca }))
    }

    pub(super) fn site_add(&self, args: &SiteAdd) -> Result<SiteAdded> {
        let way = match &args.url {
            Some(url) => Way::Push {
                url: url.trim_end_matches('/').to_owned(),
            },
            None => Way::Pull,
        };
        for repo in &args.repositories {
            commit::home::check_name(repo)
                .map_err(|e| Failure::usage(format!("--repo {repo:?}")).because(&e))?;
        }
        let new = NewSite {
            name: node(&args.site)?,
            way,
            repositories: args.repositories.clone(),
            bandwidth: args.bandwidth,
        };
        let enrolment = self.warmer()?.add(new).map_err(|error| failed(&error))?;
        Ok(SiteAdded {
            site: enrolment.site.to_string(),
            enrolment: enrolment.text(),
        })
    }

    pub(super) fn site_revoke(&self, args: &SiteRevoke) -> Result<Site> {
        let name = node(&args.site)?;
        let entry = self.warmer()?.revoke(&name);
        self.metrics.forget_site(name.as_str());
        Ok(site(&entry.map_err(|error| failed(&error))?))
    }

    pub(super) fn site_list(&self) -> Result<Sites> {
        let entries = self.warmer()?.list().map_err(|e| failed(&e.into()))?;
        Ok(Sites {
            sites: entries.iter().map(site).collect(),
        })
    }

    pub(super) fn site_broker(&self, args: &SiteBroker) -> Result<BrokerFiles> {
        let is_host = |host: &String| {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':');
            !host.is_empty() && host.len() <= HOST_MAX && host.bytes().all(good)
        };
        if let Some(bad) = args.hosts.iter().find(|host| !is_host(host)) {
            return Err(Failure::usage(format!(
                "not the name or address of a host: {bad:?}"
            )));
        }
        let hosts: Vec<&str> = args.hosts.iter().map(String::as_str).collect();
        let files = self.warmer()?.broker_files(&hosts);
        let files = files.map_err(|e| failed(&e.into()))?.into_iter();
        Ok(BrokerFiles {
            files: files
                .map(|file| BrokerFile {
                    name: file.name.to_owned(),
                    text: file.text,
                    secret: file.is_secret,
                })
                .collect(),
        })
    }

    pub(super) fn broker_status(&self) -> Option<BrokerStatus> {
        let url = self.settings().file.warm.broker.clone()?;
        let (trouble, messages_refused) = self.warmer().ok()?.broker()?;
        Some(BrokerStatus {
            url,
            trouble,
            messages_refused,
        })
    }

    pub(super) fn site_status(&self) -> Result<Vec<SiteStatus>> {
        let statuses = self.warmer()?.status(true).into_iter();
        let reply = statuses.map(|status| {
            let own = site(&status.entry);
            SiteStatus {
                site: own.site,
                url: own.url,
                repositories: own.repositories,
                connected: status.connected,
                behind_revisions: status.behind_revisions,
                behind_objects: status.behind_objects,
                behind_bytes: status.behind_bytes,
                rate: status.rate,
                objects_sent: status.objects_sent,
                bytes_sent: status.bytes_sent,
                failures: status.failures,
                clock_ahead: status.clock_ahead,
                last_error: status.last_error,
                certificate_days: own.certificate_days,
            }
        });
        Ok(reply.collect())
    }

    /// What a commit of a repository asks of its sites.
    ///
    /// # Errors
    /// Sites that cannot be served, where none may be left out.
    pub fn warming(&self, repo: &Repo) -> Result<Option<Warming>> {
        let own = self.settings().repository(repo.name()).warm;
        if own.push == Push::Off {
            return Ok(None);
        }
        let Some(warmer) = repo.warmer.clone() else {
            return match own.commit_anyway {
                true => Ok(None),
                false => Err(self.warmer().err().unwrap_or_else(|| {
                    Failure::new(Kind::Quorum, "the Stratum 1s are not served")
                        .hint("unmount and mount again")
                })),
            };
        };
        let quorum = match own.quorum {
            Configured::All => Quorum::All,
            Configured::Percent(percent) => Quorum::Fraction(f64::from(percent) / 100.0),
            Configured::Number(number) => Quorum::Number(number),
            Configured::Named(names) => {
                let names = names.iter().map(|name| node(name));
                Quorum::Named(names.collect::<Result<_>>()?)
            }
        };
        let policy = Policy {
            quorum,
            deadline: own.deadline,
            reach_within: self.settings().file.warm.reach_within.0,
            commit_anyway: own.commit_anyway,
        };
        Ok(Some(Warming {
            warmer,
            policy,
            claim: Claim::default(),
        }))
    }
}

fn node(name: &str) -> Result<NodeName> {
    name.parse()
        .map_err(|e: IdentityError| Failure::usage("that cannot be a site").because(&e))
}

fn site(entry: &SiteEntry) -> Site {
    Site {
        site: entry.name.to_string(),
        url: match &entry.way {
            Way::Push { url } => Some(url.clone()),
            Way::Pull => None,
        },
        repositories: entry.repositories.clone(),
        serial: entry.serial.to_string(),
        certificate_days: days_until(entry.not_after, clock::wall()),
        bandwidth: entry.bandwidth,
    }
}

fn failed(error: &WarmError) -> Failure {
    let kind = match error {
        WarmError::Registry(RegistryError::Unknown(_)) => Kind::NotFound,
        WarmError::Registry(
            RegistryError::BadUrl(_) | RegistryError::NoOwnUrl | RegistryError::OwnName(_),
        ) => Kind::Usage,
        WarmError::Registry(RegistryError::Damaged { .. }) => Kind::Damaged,
        _ => Kind::Failed,
    };
    let failure = Failure::new(kind, error.to_string());
    match std::error::Error::source(error) {
        Some(source) => failure.because(source),
        None => failure,
    }
}
