//! Who brings objects to the sites, beside a commit and after it.
//!
//! A commit begins pushes, waits for as many sites as its policy asks for, and says in the end whether
//! its revision became visible (sending.rs, ending.rs). Everything else goes on by itself: sites that are
//! not through with a push keep getting it until they are, or it is too old to be worth it. A site that
//! lost its place fetches from the Stratum 0 like any replica. Here is who does all this.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use formats::warm::Enrolment;
use formats::warm::identity::{IdentityError, NodeName};
use store::{Injected, ObjectStore};

use super::address::Address;
use super::board::{Board, Clock, lock};
use super::broker::Link;
use super::client::Client;
use super::policy::Policy;
use super::push::{Claim, Progress, Push};
use super::registry::{
    BrokerFile, NewSite, OwnCredentials, Registry, RegistryError, SiteEntry, Us, Way,
};
use super::site::Site;
use super::transfer::Sources;
use crate::objects::ObjectsError;

/// How soon a commit that waits for sites hears that it was called off.
pub(super) const HEARING: Duration = Duration::from_millis(100);

/// A transfer has a push's list in memory, 12 MB of it, and a site up to four transfers: far below what a
/// receiver takes at once (`formats::warm::NAMES_MAX`).
pub const OBJECTS_PER_PUSH: usize = 250_000;

/// Why sites cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WarmError {
    /// The register of sites.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The publisher's own certificate.
    #[error("this publisher's certificate for its sites")]
    Own(#[source] IdentityError),
    /// HTTPS cannot be set up.
    #[error("HTTPS to the site {site} cannot be set up")]
    Https {
        /// Which.
        site: NodeName,
        /// Why.
        source: reqwest::Error,
    },
    /// What is sent cannot be recorded.
    #[error("cannot record what the sites are sent in {path}")]
    Record {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the sites are to have cannot be told.
    #[error("the objects that the sites are to have")]
    Objects(#[from] ObjectsError),
    /// A failpoint.
    #[error(transparent)]
    Injected(#[from] Injected),
}

/// What a warmer is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who the publisher is.
    pub us: Us,
    /// Connections to a site, each with one bundle at a time.
    pub connections: usize,
    /// For how long a push is kept for sites that are behind.
    pub keep: Duration,
    /// Objects of one push, [`OBJECTS_PER_PUSH`] or fewer; a commit of more has several.
    pub objects_per_push: usize,
}

/// What of a commit concerns the sites.
#[derive(Clone)]
pub struct Warming {
    /// Who serves them.
    pub warmer: Arc<Warmer>,
    /// Which of them are waited for.
    pub policy: Policy,
    /// Held until it was said how the commit ended, or left to whoever settles it.
    pub claim: Claim,
}

impl std::fmt::Debug for Warming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}

/// Finds where a repository's published objects lie.
pub type Published = Arc<dyn Fn(&str) -> Option<Arc<dyn ObjectStore>> + Send + Sync>;

/// See the module's head.
pub struct Warmer {
    registry: Mutex<Registry>,
    pub(super) options: Options,
    published: Published,
    pub(super) board: Arc<Board>,
    pub(super) sites: Mutex<BTreeMap<NodeName, Arc<Site>>>,
    /// This process stays, and serves the sites.
    goes_on: AtomicBool,
    /// What sites that pull have yet to take, by site and transaction.
    pub(super) pulling: Mutex<BTreeMap<(NodeName, String), super::pull::Left>>,
    /// When each of them asked last.
    pub(super) asked: Mutex<BTreeMap<NodeName, super::pull::Asker>>,
}

impl std::fmt::Debug for Warmer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Warmer")
    }
}

impl Warmer {
    /// Serves the sites that are registered in `registry`. What an earlier process did not bring to its
    /// end is known, and goes on with [`Warmer::catch_up`].
    ///
    /// # Errors
    /// [`WarmError`].
    pub fn open(
        registry: Registry,
        options: Options,
        published: Published,
        clock: Clock,
    ) -> Result<Arc<Self>, WarmError> {
        let board = Arc::new(Board::new(clock));
        let warmer = Self {
            registry: Mutex::new(registry),
            options,
            published,
            board,
            sites: Mutex::default(),
            goes_on: AtomicBool::new(false),
            pulling: Mutex::default(),
            asked: Mutex::default(),
        };
        let entries = lock(&warmer.registry).sites()?;
        for entry in entries {
            let site = warmer.site(entry)?;
            lock(&warmer.sites).insert(site.entry.name.clone(), site);
        }
        warmer.find_pushes()?;
        Ok(Arc::new(warmer))
    }

    /// From now on this process serves the sites, and is connected to the broker.
    pub(super) fn stay(&self) {
        self.goes_on.store(true, Ordering::Relaxed);
        self.connect();
    }

    /// Connects to the broker, if there is one and it was not done, from [`Warmer::catch_up`] on: who looks
    /// at the register alone has no business there. Before the first site there is no certificate to do it
    /// with. A commit does without.
    fn connect(&self) {
        if !self.goes_on.load(Ordering::Relaxed) {
            return;
        }
        let mut link = lock(&self.board.link);
        let (None, Some(broker)) = (&*link, &self.options.us.broker) else {
            return;
        };
        let connected = match self.credentials() {
            Ok(None) => return,
            Ok(Some(own)) => {
                Link::connect(broker, &self.options.us.name, &own).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match connected {
            Ok(connected) => *link = Some(Arc::new(connected)),
            Err(error) => tracing::error!(broker = broker.url, error, "the broker is not used"),
        }
    }

    pub(super) fn pushes_dir(&self) -> PathBuf {
        lock(&self.registry).dir().join("pushes")
    }

    /// What the publisher shows and trusts; none before the first site.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn credentials(&self) -> Result<Option<OwnCredentials>, RegistryError> {
        lock(&self.registry).credentials(&self.options.us, self.board.now())
    }

    fn site(&self, entry: SiteEntry) -> Result<Arc<Site>, WarmError> {
        let client = match &entry.way {
            Way::Pull => None,
            Way::Push { url } => {
                let https = |source| WarmError::Https {
                    site: entry.name.clone(),
                    source,
                };
                let own = self.credentials()?;
                let own = own.ok_or(WarmError::Own(IdentityError::Nameless("there is none")))?;
                let whom = (&entry.name, &entry.serial);
                let address = Address::new(url, &own).map_err(WarmError::Own)?;
                Some(Client::new(address, whom, &own, self.options.connections).map_err(https)?)
            }
        };
        let board = Arc::clone(&self.board);
        Ok(Site::new(entry, client, self.options.connections, board))
    }

    fn find_pushes(&self) -> Result<(), WarmError> {
        let dir = self.pushes_dir();
        let failed = |source| WarmError::Record {
            path: dir.clone(),
            source,
        };
        for repo in directories(&dir).map_err(failed)? {
            for txn in directories(&repo).map_err(failed)? {
                let name = repo.file_name().unwrap_or_default().to_string_lossy();
                let sources = Sources((self.published)(&name).into_iter().collect());
                match Push::found(&txn, sources) {
                    Ok(Some(push)) => {
                        self.board.pushes().insert(push.txn.clone(), Arc::new(push));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!("{}: {error}; left alone", txn.display());
                    }
                }
            }
        }
        Ok(())
    }

    /// All sites.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn list(&self) -> Result<Vec<SiteEntry>, RegistryError> {
        lock(&self.registry).sites()
    }

    /// Makes somebody a site, at once.
    ///
    /// # Errors
    /// [`WarmError`].
    pub fn add(&self, new: NewSite) -> Result<Enrolment, WarmError> {
        let name = new.name.clone();
        let (enrolment, entries) = {
            let registry = lock(&self.registry);
            let enrolment = registry.add(new, &self.options.us, self.board.now())?;
            (enrolment, registry.sites()?)
        };
        let entry = entries.into_iter().find(|entry| entry.name == name);
        let entry = entry.ok_or(RegistryError::Unknown(name))?;
        let site = self.site(entry)?;
        self.connect();
        let old = lock(&self.sites).insert(site.entry.name.clone(), Arc::clone(&site));
        if let Some(old) = old {
            old.end();
            lock(&self.asked).remove(&old.entry.name);
        }
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        for push in pushes {
            let is_of_it = {
                let mut state = push.state();
                let progress = state.sites.get_mut(&site.entry.name);
                progress
                    .map(|progress| *progress = Progress::new(false))
                    .is_some()
            };
            if is_of_it {
                site.enqueue(&push);
            }
        }
        Ok(enrolment)
    }

    /// What a broker on these hosts is set up with.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn broker_files(&self, hosts: &[&str]) -> Result<Vec<BrokerFile>, RegistryError> {
        lock(&self.registry).broker(hosts, &self.options.us, self.board.now())
    }

    /// Ends a site, at once: what is on its way there is cut, and no commit counts on it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`WarmError`].
    pub fn revoke(&self, name: &NodeName) -> Result<SiteEntry, WarmError> {
        let entry = lock(&self.registry).revoke(name, self.board.now())?;
        if let Some(site) = lock(&self.sites).remove(name) {
            site.end();
        }
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        for push in pushes {
            if push.state().sites.contains_key(name) {
                self.board.knows_end(&push, name);
            }
        }
        self.board.tell();
        Ok(entry)
    }

    pub(super) fn site_of(&self, name: &NodeName) -> Option<Arc<Site>> {
        lock(&self.sites).get(name).cloned()
    }
}

/// The directories in a directory, if that is there.
fn directories(dir: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    Ok(paths?.into_iter().filter(|path| path.is_dir()).collect())
}
