//! Who brings objects to the sites, beside a commit and after it.
//!
//! A commit begins a push, waits for as many sites as its policy asks for, and says in the end whether
//! its revision became visible. Everything else goes on by itself: sites that are not through with a
//! push keep getting it until they are, or it is too old to be worth it. A site that lost its place
//! fetches from the Stratum 0 like any replica.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use formats::warm::identity::{IdentityError, NodeName};
use formats::warm::message::rfc3339;
use formats::warm::{Enrolment, Listed, NAMES_MAX};
use store::{Injected, ObjectStore, failpoint};

use super::broker::Link;
use super::client::Client;
use super::policy::{Policy, Verdict};
use super::push::{Fate, Progress, Push, SiteOutcome, Told};
use super::registry::{NewSite, OwnCredentials, Registry, RegistryError, SiteEntry, Us, Way};
use super::site::Site;
use super::transfer::Sources;

/// Pushes that are kept for sites that are behind, of all repositories together: a busy week's. The
/// oldest go first.
const PUSHES_MAX: usize = 1000;

/// Objects that all of these may name: 290 MB of lists.
const LISTED_MAX: u64 = 10_000_000;

/// How soon a commit that waits for sites hears that it was called off.
const HEARING: Duration = Duration::from_millis(100);

/// A site that pulls has asked within this time, if it is there: it waits at most a minute for work.
const PULLS_WITHIN: Duration = Duration::from_secs(120);

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
    /// More than a site is ever told of.
    #[error("{0} objects at once; sites take at most {NAMES_MAX}")]
    TooMany(usize),
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
}

/// What of a commit concerns the sites.
#[derive(Clone)]
pub struct Warming {
    /// Who serves them.
    pub warmer: Arc<Warmer>,
    /// Which of them are waited for.
    pub policy: Policy,
}

impl std::fmt::Debug for Warming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.policy.fmt(f)
    }
}

/// How a site stands.
#[derive(Clone, Debug)]
pub struct SiteStatus {
    /// The site.
    pub entry: SiteEntry,
    /// It answered when it was last asked; none: not asked yet.
    pub connected: Option<bool>,
    /// Visible revisions whose objects it does not have all.
    pub behind_revisions: u64,
    /// Objects of these that it lacks.
    pub behind_objects: u64,
    /// Their bytes.
    pub behind_bytes: u64,
    /// Bytes a second, of what was sent last.
    pub rate: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Finds where a repository's published objects lie.
pub type Published = Arc<dyn Fn(&str) -> Option<Arc<dyn ObjectStore>> + Send + Sync>;

/// What time it is.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What all sites' threads have in common.
pub(super) struct Board {
    pushes: Mutex<BTreeMap<String, Arc<Push>>>,
    changes: Mutex<u64>,
    changed: Condvar,
    clock: Clock,
    link: Mutex<Option<Arc<Link>>>,
}

impl Board {
    pub(super) fn now(&self) -> SystemTime {
        (self.clock)()
    }

    /// The broker, if there is one.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }

    pub(super) fn pushes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Push>>> {
        lock(&self.pushes)
    }

    /// Something changed.
    pub(super) fn tell(&self) {
        *lock(&self.changes) += 1;
        self.changed.notify_all();
    }

    /// Waits for a change after `seen`, at most so long, and says which the last one was.
    pub(super) fn wait(&self, seen: u64, most: Duration) -> u64 {
        let changes = lock(&self.changes);
        let waited = self
            .changed
            .wait_timeout_while(changes, most, |now| *now == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// A site has everything of a push.
    pub(super) fn has_all(&self, push: &Push, site: &NodeName) {
        let fate = {
            let mut state = push.state();
            if let Some(progress) = state.sites.get_mut(site) {
                progress.took = Some(progress.since.elapsed());
                progress.missing = Some((0, 0));
                progress.trouble = None;
            }
            state.fate.clone()
        };
        if push.is_eager && fate == Fate::Open {
            self.knows_end(push, site);
        }
        self.tell();
    }

    /// A site is through with a push, or need not hear of it again.
    pub(super) fn knows_end(&self, push: &Push, site: &NodeName) {
        let is_over = {
            let mut state = push.state();
            state.sites.remove(site);
            state.sites.is_empty() && !(state.is_live && state.fate == Fate::Open)
        };
        let kept = match is_over || (push.is_eager && push.state().sites.is_empty()) {
            true => {
                self.pushes().remove(&push.txn);
                push.remove()
            }
            false => push.record(),
        };
        if let Err(error) = kept {
            // the site is told once more, after a restart
            tracing::warn!(txn = push.txn, %error, "cannot record what a site knows");
        }
        self.tell();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // every change is a single one, so what a panic leaves is whole
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module's head.
pub struct Warmer {
    registry: Mutex<Registry>,
    options: Options,
    published: Published,
    pub(super) board: Arc<Board>,
    sites: Mutex<BTreeMap<NodeName, Arc<Site>>>,
    /// What sites that pull have yet to take, by site and transaction.
    pub(super) pulling: Mutex<BTreeMap<(NodeName, String), super::pull::Left>>,
    /// When each of them asked last.
    pub(super) asked: Mutex<BTreeMap<NodeName, Instant>>,
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
        let board = Arc::new(Board {
            pushes: Mutex::default(),
            changes: Mutex::default(),
            changed: Condvar::new(),
            clock,
            link: Mutex::default(),
        });
        let warmer = Self {
            registry: Mutex::new(registry),
            options,
            published,
            board,
            sites: Mutex::default(),
            pulling: Mutex::default(),
            asked: Mutex::default(),
        };
        let entries = lock(&warmer.registry).sites()?;
        for entry in entries {
            let site = warmer.site(entry)?;
            lock(&warmer.sites).insert(site.entry.name.clone(), site);
        }
        warmer.find_pushes()?;
        warmer.connect();
        Ok(Arc::new(warmer))
    }

    /// Connects to the broker, if there is one and it was not done: before the first site there is no
    /// certificate to do it with. A commit does without.
    fn connect(&self) {
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

    /// How the broker stands: why it is not connected, and how many messages did not count. None:
    /// there is none.
    #[must_use]
    pub fn broker(&self) -> Option<(Option<String>, u64)> {
        let link = self.board.link()?;
        Some((link.trouble(), link.refused()))
    }

    fn pushes_dir(&self) -> PathBuf {
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
                Some(Client::new(url, whom, &own, self.options.connections).map_err(https)?)
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

    fn site_of(&self, name: &NodeName) -> Option<Arc<Site>> {
        lock(&self.sites).get(name).cloned()
    }

    /// Begins to bring objects to the sites that take a repository, from `places`, looked through in
    /// their order. None: there is no such site.
    ///
    /// # Errors
    /// [`WarmError::TooMany`], [`WarmError::Record`]; then no site has heard of it.
    pub fn begin(
        &self,
        repo: &str,
        list: &[Listed],
        places: Vec<Arc<dyn ObjectStore>>,
    ) -> Result<Option<Arc<Push>>, WarmError> {
        self.begin_one(repo, list, places, false)
    }

    /// As [`Warmer::begin`], for objects that no commit has yet: nobody waits for it, and it leaves
    /// nothing behind.
    ///
    /// # Errors
    /// As [`Warmer::begin`].
    pub fn begin_early(
        &self,
        repo: &str,
        list: &[Listed],
        places: Vec<Arc<dyn ObjectStore>>,
    ) -> Result<Option<Arc<Push>>, WarmError> {
        self.begin_one(repo, list, places, true)
    }

    fn begin_one(
        &self,
        repo: &str,
        list: &[Listed],
        places: Vec<Arc<dyn ObjectStore>>,
        is_eager: bool,
    ) -> Result<Option<Arc<Push>>, WarmError> {
        let sites: Vec<Arc<Site>> = lock(&self.sites).values().cloned().collect();
        let mut sites: Vec<_> = sites.into_iter().filter(|s| s.entry.takes(repo)).collect();
        if is_eager {
            // what comes early is a kindness: whoever is away gets it with the commit
            sites.retain(|site| !site.is_down());
        }
        if sites.is_empty() {
            return Ok(None);
        }
        if list.len() > NAMES_MAX as usize {
            return Err(WarmError::TooMany(list.len()));
        }
        self.expire();
        let now = self.board.now();
        let dir = self.pushes_dir();
        let failed = |source| WarmError::Record {
            path: dir.clone(),
            source,
        };
        let mut random = [0; 8];
        openssl::rand::rand_bytes(&mut random).map_err(|e| failed(e.into()))?;
        let kind = if is_eager { "e" } else { "c" };
        let txn = format!(
            "{kind}{:x}-{:016x}",
            crate::stratum0::seconds(now),
            u64::from_le_bytes(random)
        );
        let sources = Sources(places);
        let push = Push::begin(&dir, (repo, &txn), list, sources, now, is_eager).map_err(failed)?;
        {
            let mut state = push.state();
            for site in &sites {
                let progress = Progress::new(site.is_down());
                state.sites.insert(site.entry.name.clone(), progress);
            }
        }
        push.record().map_err(failed)?;
        failpoint::pass("warm::begun")?;
        let push = Arc::new(push);
        self.board.pushes().insert(txn, Arc::clone(&push));
        if let Some(link) = self.board.link() {
            link.announce(&push);
        }
        for site in &sites {
            site.enqueue(&push);
        }
        self.board.tell();
        Ok(Some(push))
    }

    /// Waits for as many sites as the policy asks for.
    pub fn wait(
        &self,
        push: &Push,
        policy: &Policy,
        called_off: &AtomicBool,
        hear: &dyn Fn(&SiteOutcome),
    ) -> Verdict {
        let begun = Instant::now();
        let mut told: BTreeMap<String, SiteOutcome> = BTreeMap::new();
        let mut seen = 0;
        loop {
            for outcome in push.outcomes(policy.reach_within) {
                let is_new = told.get(&outcome.site).is_none_or(|old| {
                    (old.objects, old.state, old.missing_objects)
                        != (outcome.objects, outcome.state, outcome.missing_objects)
                });
                if is_new {
                    hear(&outcome);
                    told.insert(outcome.site.clone(), outcome);
                }
            }
            if let Some(verdict) = judge(push, policy) {
                return verdict;
            }
            if called_off.load(Ordering::Relaxed) {
                return Verdict::CalledOff;
            }
            let left = policy.deadline.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Verdict::Late;
            }
            seen = self.board.wait(seen, left.min(HEARING));
        }
    }

    /// A push's revision is visible: each site is told as soon as it has everything. Durable when this
    /// returns; said again, it changes nothing.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn visible(
        &self,
        txn: &str,
        (root_hash, revision): (String, u64),
        since: SystemTime,
    ) -> Result<(), WarmError> {
        let unix = crate::stratum0::seconds(since).cast_signed();
        let told = Told {
            root_hash,
            revision,
            published_at: rfc3339(unix),
        };
        let push = self.board.pushes().get(txn).cloned();
        if let (Some(push), Some(link)) = (push, self.board.link()) {
            link.published(&push, &told);
        }
        self.decide(txn, Fate::Visible(told))
    }

    /// A push's revision never becomes visible: each site may forget it.
    ///
    /// # Errors
    /// [`WarmError::Record`].
    pub fn give_up(&self, txn: &str) -> Result<(), WarmError> {
        self.decide(txn, Fate::GivenUp)
    }

    /// Gives up what no commit of this process answers for, of a repository whose interrupted commits
    /// are all settled.
    pub fn settle(&self, repo: &str) {
        let is_orphan = |push: &&Arc<Push>| {
            let state = push.state();
            push.repo == repo && !state.is_live && state.fate == Fate::Open && !push.is_eager
        };
        let orphans: Vec<_> = self
            .board
            .pushes()
            .values()
            .filter(is_orphan)
            .cloned()
            .collect();
        for push in orphans {
            if let Err(error) = self.give_up(&push.txn) {
                tracing::warn!(txn = push.txn, %error, "a push that nobody answers for");
            }
        }
    }

    /// A commit that began a push is over without saying how: that is found out later.
    pub fn leave(&self, push: &Push) {
        push.state().is_live = false;
    }

    fn decide(&self, txn: &str, fate: Fate) -> Result<(), WarmError> {
        let push = self.board.pushes().get(txn).cloned();
        let Some(push) = push else {
            return Ok(());
        };
        {
            let mut state = push.state();
            state.is_live = false;
            if state.fate != Fate::Open {
                return Ok(());
            }
            state.fate = fate.clone();
        }
        let recorded = push.record().map_err(|source| WarmError::Record {
            path: self.pushes_dir(),
            source,
        });
        failpoint::pass("warm::decided")?;
        if fate == Fate::GivenUp {
            push.call_off();
        }
        self.go_on(&push);
        recorded
    }

    /// Has every site that is not through with a push served.
    fn go_on(&self, push: &Arc<Push>) {
        let (names, fate) = {
            let state = push.state();
            (
                state.sites.keys().cloned().collect::<Vec<_>>(),
                state.fate.clone(),
            )
        };
        for name in &names {
            match self.site_of(name) {
                // it forgets by itself what was never published
                Some(site) if site.entry.way == Way::Pull && fate == Fate::GivenUp => {
                    self.board.knows_end(push, name);
                }
                Some(site) => site.enqueue(push),
                None => self.board.knows_end(push, name),
            }
        }
        if names.is_empty() {
            self.board.pushes().remove(&push.txn);
            if let Err(error) = push.remove() {
                tracing::warn!(txn = push.txn, %error, "cannot remove what all sites have");
            }
        }
        self.board.tell();
    }

    /// Goes on with what earlier processes left, but for what no commit has answered for yet.
    pub fn catch_up(&self) {
        self.expire();
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        for push in pushes {
            let is_open = push.state().fate == Fate::Open;
            if !is_open {
                self.go_on(&push);
            }
        }
    }

    /// Forgets pushes that are too old, or too many.
    fn expire(&self) {
        let now = self.board.now();
        let mut pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        pushes.retain(|push| !push.state().is_live);
        pushes.sort_by_key(|push| std::cmp::Reverse(push.begun));
        let mut listed = 0;
        for (at, push) in pushes.iter().enumerate() {
            listed += u64::from(push.objects);
            let age = now.duration_since(push.begun).unwrap_or_default();
            if at < PUSHES_MAX && listed <= LISTED_MAX && age < self.options.keep {
                continue;
            }
            push.call_off();
            self.board.pushes().remove(&push.txn);
            tracing::info!(
                repo = push.repo,
                txn = push.txn,
                "sites fetch what they lack of it themselves"
            );
            if let Err(error) = push.remove() {
                tracing::warn!(txn = push.txn, %error, "cannot remove an old push");
            }
        }
    }

    /// How each site stands. With `ask`, those that are not being sent anything are asked whether they
    /// are there.
    #[must_use]
    pub fn status(&self, ask: bool) -> Vec<SiteStatus> {
        let sites: Vec<_> = lock(&self.sites).values().cloned().collect();
        if ask {
            std::thread::scope(|scope| {
                for site in &sites {
                    scope.spawn(|| site.probe());
                }
            });
        }
        let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
        sites
            .iter()
            .map(|site| self.status_of(site, &pushes))
            .collect()
    }

    fn status_of(&self, site: &Site, pushes: &[Arc<Push>]) -> SiteStatus {
        let seen = site.seen();
        let asked = lock(&self.asked).get(&site.entry.name).copied();
        let mut status = SiteStatus {
            entry: site.entry.clone(),
            connected: match site.entry.way {
                Way::Push { .. } => seen.connected,
                Way::Pull => Some(
                    asked.is_some_and(|asked| asked.elapsed() < PULLS_WITHIN)
                        || (self.board.link()).is_some_and(|link| link.is_online(&site.entry.name)),
                ),
            },
            behind_revisions: 0,
            behind_objects: 0,
            behind_bytes: 0,
            rate: seen.rate,
            last_error: seen.last_error,
        };
        for push in pushes.iter().filter(|push| !push.is_eager) {
            let state = push.state();
            let Some(progress) = state.sites.get(&site.entry.name) else {
                continue;
            };
            if progress.has_all() || !matches!(state.fate, Fate::Visible(_)) {
                continue;
            }
            let whole = (u64::from(push.objects), push.bytes);
            let (objects, bytes) = progress.missing.unwrap_or(whole);
            status.behind_revisions += 1;
            status.behind_objects += objects;
            status.behind_bytes += bytes;
        }
        status
    }

    /// Returns when every site that has everything of a visible revision was told, or after so long:
    /// for a process that is about to end.
    pub fn linger(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut seen = 0;
        loop {
            let pushes: Vec<_> = self.board.pushes().values().cloned().collect();
            let is_due = |push: &Arc<Push>| {
                let state = push.state();
                let decided = state.fate != Fate::Open;
                let mut sites = state.sites.iter();
                decided
                    && sites.any(|(name, progress)| {
                        let pushed = self.site_of(name).is_some_and(|s| s.entry.way != Way::Pull);
                        pushed && progress.trouble.is_none() && progress.has_all()
                    })
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !pushes.iter().any(is_due) {
                return;
            }
            seen = self.board.wait(seen, left.min(HEARING));
        }
    }
}

/// Whether waiting is over.
fn judge(push: &Push, policy: &Policy) -> Option<Verdict> {
    let state = push.state();
    let all = state.sites.len();
    let with = |wanted: &dyn Fn(&Progress) -> bool| {
        let sites = state.sites.iter();
        let names: BTreeSet<&NodeName> = sites
            .filter(|(_, progress)| wanted(progress))
            .map(|(name, _)| name)
            .collect();
        policy.quorum.is_met(&names, all)
    };
    if with(&Progress::has_all) {
        return Some(Verdict::Met);
    }
    let may_have =
        |progress: &Progress| progress.has_all() || !progress.is_hopeless(policy.reach_within);
    // whoever publishes all the same may as well have those who can
    let is_due = |progress: &Progress| !progress.has_all() && may_have(progress);
    let goes_on = policy.commit_anyway && state.sites.values().any(is_due);
    (!goes_on && !with(&may_have)).then_some(Verdict::Impossible)
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
