//! Everything that runs, and the order in which it comes and goes.
//!
//! ```text
//! up    replicas and ledger, leftovers of an earlier process, listeners, then what asks and looks
//! down  no new connections, requests under way end, the ledger is let go
//! ```
//! Being killed loses nothing either: the ledger is always ahead of the storage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use store::peer::{Acceptor, ListenLimits, PeerError, listen};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::Door;
use crate::config::Config;
use crate::site::{Site, SiteError};
use crate::{Clock, broker, local, pull, snapshot};

/// How often enrolments are looked at: whoever is revoked here is out within that.
const TRUST_INTERVAL: Duration = Duration::from_secs(2);

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its replicas and its ledger.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// An address.
    #[error(
        "cannot listen on {address}; is another receiver running? `{key}` in receiver.toml names another address"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The configuration's key.
        key: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A storage.
    #[error("what an earlier process left behind cannot be cleared away")]
    Leftovers(#[from] store::StoreError),
}

/// What runs.
#[derive(Debug)]
pub struct Daemon {
    /// What it does it to.
    pub site: Arc<Site>,
    /// Where publishers call, if they may.
    pub listen: Option<SocketAddr>,
    /// Where `/health` is.
    pub local: SocketAddr,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Daemon {
    /// Starts everything; needs a runtime around it.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub async fn start(config: Config, clock: Clock) -> Result<Self, DaemonError> {
        // a bucket's store has a runtime of its own, and must not be opened on another's threads
        let opened = tokio::task::spawn_blocking(|| open(config, clock)).await;
        let site = opened.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?;
        for (file, problem) in &site.trust().problems {
            tracing::warn!("enrolment {}: {problem}", file.display());
        }
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let local = bind(site.config.local, "local").await?;
        let local_at = local.local_addr().unwrap_or(site.config.local);
        tasks.spawn(local::serve(local, Arc::clone(&site), stopping.clone()));
        let mut listen_at = None;
        if let Some(address) = site.config.listen {
            let listener = bind(address, "listen").await?;
            listen_at = listener.local_addr().ok();
            tasks.spawn(door(listener, Arc::clone(&site), stopping.clone()));
        }
        for name in site.repos().keys() {
            let run = snapshot::run(Arc::clone(&site), name.clone(), stopping.clone());
            tasks.spawn(run);
        }
        tasks.spawn(pull::run(Arc::clone(&site), stopping.clone()));
        tasks.spawn(broker::run(Arc::clone(&site), stopping.clone()));
        tasks.spawn(look(Arc::clone(&site), stopping));
        Ok(Self {
            site,
            listen: listen_at,
            local: local_at,
            tasks,
            stop,
        })
    }

    /// Ends in order: requests under way come to their end. The site must be let go of where one may
    /// block.
    #[must_use]
    pub async fn end(mut self) -> Arc<Site> {
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        self.site
    }
}

fn open(config: Config, clock: Clock) -> Result<Arc<Site>, DaemonError> {
    let site = Site::open(config, clock)?;
    for repo in site.repos().values() {
        let left = repo.vault.store().clean_leftovers()?;
        if left > 0 {
            tracing::info!("{}: {left} files half made are gone", repo.replica.name);
        }
    }
    Ok(Arc::new(site))
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, DaemonError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| DaemonError::Listen {
        address,
        key,
        source,
    })
}

/// Lets publishers in, from when there is one, as the enrolments say at the moment.
async fn door(listener: TcpListener, site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let mut interval = tokio::time::interval(TRUST_INTERVAL);
    let first = loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stopped(&mut stop) => return,
        }
        match acceptor(&site).await {
            Ok(acceptor) => break acceptor,
            Err(PeerError::Empty) => {}
            Err(error) => tracing::error!("no publisher can be let in: {error}"),
        }
    };
    let (fresh, acceptors) = watch::channel(first);
    let limits = ListenLimits {
        connections: site.config.limits.connections,
        ..ListenLimits::default()
    };
    let host = Arc::new(Door::new(Arc::clone(&site)));
    let listening = listen(listener, acceptors, limits, host, stop.clone());
    let mut listening = std::pin::pin!(listening);
    let mut known = site.trust();
    loop {
        tokio::select! {
            () = &mut listening => return,
            _ = interval.tick() => {}
        }
        if Arc::ptr_eq(&known, &site.trust()) {
            continue;
        }
        known = site.trust();
        match acceptor(&site).await {
            Ok(acceptor) => {
                tracing::info!(
                    "the enrolments changed: {} publishers",
                    known.enrolled.len()
                );
                let _ = fresh.send(acceptor);
            }
            // each request is checked against the enrolments, so that an old acceptor lets nobody do anything
            Err(PeerError::Empty) => tracing::warn!("no publisher is enrolled any more"),
            Err(error) => tracing::error!("the enrolments cannot be used: {error}"),
        }
    }
}

async fn acceptor(site: &Arc<Site>) -> Result<Acceptor, PeerError> {
    Acceptor::new(&site.trust().credentials())
}

/// Looks after enrolments, and after what has to go.
async fn look(site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let mut trust = tokio::time::interval(TRUST_INTERVAL);
    let mut sweep = tokio::time::interval(site.config.keep.look.0);
    loop {
        let here = Arc::clone(&site);
        let work = tokio::select! {
            _ = trust.tick() => tokio::task::spawn_blocking(move || { here.refresh_trust(); }),
            _ = sweep.tick() => tokio::task::spawn_blocking(move || here.sweep()),
            () = stopped(&mut stop) => return,
        };
        if let Err(error) = work.await {
            tracing::error!("looking after things failed: {error}");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
