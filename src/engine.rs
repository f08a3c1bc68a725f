//! What prepub can do, wherever it is asked from: the daemon's API, or a command that holds the
//! state's lock itself. One function a verb; [`Engine::handle`] is the table of contents.
//!
//! Nothing here prints or knows of sockets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use commit::RepoHome;
use commit::warm::Warmer;
use fsimpl::seal::{Sealer, SealerLimits};
use fsimpl::{Fs, Space};
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::Serialize;
use serde_json::Value;

use crate::api::{Progress, Request, Watch};
use crate::config::Settings;
use crate::hook;
use crate::metrics::Metrics;
use crate::report::{Context, Failure, Kind, Result};
use crate::repositories;
use crate::state::{DaemonInfo, Lock, State};

pub mod claims;
pub mod commits;
mod drain;
pub mod front;
mod gate;
pub mod gateway;
mod gc;
mod health;
pub mod in_force;
mod look;
mod manage;
mod patience;
pub mod published;
pub mod repo;
pub mod server;
mod sites;
pub mod turn;

use gate::Gate;
use in_force::InForce;
pub use look::{Sealing, dropped, groups, limit, open_file, texts, whitelist_holds};
use published::Published;
use repo::Repo;

/// A state, held by this process alone.
pub struct Engine {
    state: State,
    settings: InForce,
    gate: Gate,
    reloading: Mutex<()>,
    sealer: OnceLock<Arc<Sealer>>,
    space: OnceLock<Arc<Space>>,
    opening: Mutex<()>,
    repos: RwLock<BTreeMap<String, Arc<Repo>>>,
    live: OnceLock<Live>,
    scratches: AtomicU64,
    looks: patience::Looks,
    called_off: Arc<AtomicBool>,
    warmer: OnceLock<Arc<Warmer>>,
    metrics: Arc<Metrics>,
    /// Repositories that could not be opened, and why.
    left_out: Mutex<BTreeMap<String, String>>,
    _lock: Lock,
}

/// A directory that goes when it is dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Nobody asks how far it has come.
struct NotWatched;

impl Watch for NotWatched {
    fn progress(&self, _: Progress) {}
    fn note(&self, _: &str) {}
}

/// What only a daemon has.
pub struct Live {
    /// The mounted filesystem.
    pub fs: Arc<Fs>,
    /// What the daemon says of itself.
    pub info: DaemonInfo,
}

impl Engine {
    /// An engine for a state; repositories are opened when they are needed.
    #[must_use]
    pub fn new(state: State, settings: Settings, lock: Lock) -> Self {
        Self {
            gate: Gate::new(state.dir().join("drained")),
            state,
            settings: InForce::new(settings),
            reloading: Mutex::new(()),
            sealer: OnceLock::new(),
            space: OnceLock::new(),
            opening: Mutex::new(()),
            repos: RwLock::default(),
            live: OnceLock::new(),
            scratches: AtomicU64::new(0),
            looks: patience::Looks::default(),
            called_off: Arc::default(),
            warmer: OnceLock::new(),
            metrics: Arc::default(),
            left_out: Mutex::default(),
            _lock: lock,
        }
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The configuration that holds at the moment.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.get()
    }

    /// Puts another configuration in force: what is read whenever it is needed is as it says from now on,
    /// and so are the stages that are open.
    pub fn put_in_force(&self, settings: Settings) {
        self.settings.set(settings);
        for repo in self.open_repos() {
            repo.stage
                .set_policy(repo::policy(&self.settings(), repo.name()));
        }
    }

    /// Held by whoever takes up another configuration.
    pub fn reloading(&self) -> MutexGuard<'_, ()> {
        self.reloading.lock()
    }

    /// Whether commits are let in.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Says that repositories are mounted from now on.
    pub fn go_live(&self, live: Live) {
        // a daemon mounts once
        let _ = self.live.set(live);
    }

    /// Set, it ends commits that are under way and have not come to their last step.
    #[must_use]
    pub fn called_off(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.called_off)
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// A repository is not shown, since it could not be opened.
    pub fn leave_out(&self, name: &str, why: &Failure) {
        self.left_out
            .lock()
            .insert(name.to_owned(), why.to_string());
    }

    /// The repositories that are not shown, and why.
    #[must_use]
    pub fn left_out(&self) -> BTreeMap<String, String> {
        self.left_out.lock().clone()
    }

    /// What only a daemon has.
    #[must_use]
    pub fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn handle(&self, request: &Request, watch: &dyn Watch) -> Result<Value> {
        match request {
            Request::Health => json(self.live().map(|live| &live.info)),
            Request::Mkfs(args) => json(self.mkfs(args)?),
            Request::Status(args) => json(self.status(args, watch)?),
            Request::Diff(args) => json(self.diff(&args.repo, &args.paths)?),
            Request::Commit(args) if args.dry_run => json(self.diff(&args.repo, &args.paths)?),
            Request::Commit(args) => json(hook::commit(self, args, watch)?),
            Request::Abort(args) => json(hook::abort(self, args)?),
            Request::TagList(args) => json(self.tags(&args.repo)?),
            Request::TagAdd(args) => json(self.tag_add(args)?),
            Request::TagRemove(args) => json(self.tag_remove(args)?),
            Request::Rollback(args) => json(self.rollback(args)?),
            Request::Check(args) => json(self.check(args, watch)?),
            Request::Resign(args) => json(self.resign(args, watch)?),
            Request::Rmfs(args) => json(self.rmfs(&args.repo)?),
            Request::SiteAdd(args) => json(self.site_add(args)?),
            Request::SiteRevoke(args) => json(self.site_revoke(args)?),
            Request::SiteList => json(self.site_list()?),
            Request::SiteBroker(args) => json(self.site_broker(args)?),
            Request::Drain(args) => json(self.drain(args, watch)?),
            Request::Gc(args) => json(self.gc(args, watch)?),
            Request::Unmount(args) => json(hook::before_unmount(self, args.staged, watch)?),
            // what only a daemon does, it does itself
            Request::Reload | Request::LogLevel(_) => Err(Failure::new(
                Kind::Unreachable,
                format!(
                    "no daemon runs on the state in {}",
                    self.state.dir().display()
                ),
            )),
        }
    }

    /// A repository without its stage.
    ///
    /// # Errors
    /// If prepub does not serve it.
    pub fn published(&self, name: &str) -> Result<Arc<Published>> {
        if let Some(repo) = self.repos.read().get(name) {
            return Ok(Arc::clone(&repo.published));
        }
        Published::open(&self.state, &self.settings(), name).map(Arc::new)
    }

    /// A repository with its stage; opened, and an interrupted commit of it resumed, if need be.
    ///
    /// # Errors
    /// If prepub does not serve it; whatever stands in the way of its stage.
    pub fn repo(&self, name: &str) -> Result<Arc<Repo>> {
        self.repo_watched(name, &NotWatched)
    }

    /// As [`Engine::repo`]; `watch` hears how far looking at its stage has come, where that takes
    /// long.
    ///
    /// # Errors
    /// As [`Engine::repo`].
    pub fn repo_watched(&self, name: &str, watch: &dyn Watch) -> Result<Arc<Repo>> {
        if let Some(repo) = self.repos.read().get(name) {
            return Ok(Arc::clone(repo));
        }
        let _one_at_a_time = self.opening.lock();
        if let Some(repo) = self.repos.read().get(name) {
            return Ok(Arc::clone(repo));
        }
        #[cfg(feature = "failpoints")]
        fail::fail_point!("engine::open");
        let published = self.published(name)?;
        let sealing = Sealing::new(watch);
        let (sealer, space) = (self.sealer()?, self.space()?);
        let warmer = self.warmer_or_none();
        let repo = Repo::open(
            published,
            &self.state,
            &self.settings(),
            (sealer, space),
            warmer,
            Arc::clone(&self.metrics),
            &sealing,
        )
        .map_err(|f| f.while_doing(format!("cannot open {name}")))?;
        let repo = Arc::new(repo);
        if let Err(failure) = hook::resume(&repo) {
            // the stage stays frozen as it is; the next commit tries again
            tracing::error!("{name}: an interrupted commit cannot be resumed yet: {failure}");
        }
        if let Some(live) = self.live() {
            live.fs
                .add_repository(Arc::clone(&repo.stage))
                .context(format_args!("cannot show {name} below the mount"))?;
        }
        self.left_out.lock().remove(name);
        self.repos
            .write()
            .insert(name.to_owned(), Arc::clone(&repo));
        Ok(repo)
    }

    /// Repositories that are open.
    #[must_use]
    pub fn open_repos(&self) -> Vec<Arc<Repo>> {
        self.repos.read().values().map(Arc::clone).collect()
    }

    /// Forgets an open repository; its stage is closed when the last user is done.
    fn forget(&self, name: &str) {
        if let Some(live) = self.live() {
            live.fs.remove_repository(name);
        }
        self.left_out.lock().remove(name);
        let removed = self.repos.write().remove(name);
        if let Some(repo) = removed {
            close_stage(&repo);
        }
        self.metrics.forget(name);
    }

    fn sealer(&self) -> Result<Arc<Sealer>> {
        if let Some(sealer) = self.sealer.get() {
            return Ok(Arc::clone(sealer));
        }
        let mut limits = SealerLimits::default();
        let workers = self.settings().file.stage.workers;
        if workers > 0 {
            limits.workers = workers;
        }
        let sealer = Sealer::new(limits).context("cannot start the sealing threads")?;
        Ok(Arc::clone(self.sealer.get_or_init(|| Arc::new(sealer))))
    }

    /// The filesystem that all stages lie on.
    fn space(&self) -> Result<Arc<Space>> {
        if let Some(space) = self.space.get() {
            return Ok(Arc::clone(space));
        }
        let dir = self.state.stages();
        let space = Space::open(&dir).context(format_args!(
            "cannot watch the free space of {}",
            dir.display()
        ))?;
        Ok(Arc::clone(self.space.get_or_init(|| space)))
    }

    /// The same, if anything lies there yet.
    #[must_use]
    pub fn space_in_use(&self) -> Option<Arc<Space>> {
        self.space.get().map(Arc::clone)
    }

    /// Who seals, if anybody did yet.
    #[must_use]
    pub fn sealer_in_use(&self) -> Option<Arc<Sealer>> {
        self.sealer.get().map(Arc::clone)
    }

    /// An empty directory for as long as one look or check takes.
    fn scratch(&self) -> Result<Scratch> {
        let root = self.state.dir().join("cache/work");
        let number = self.scratches.fetch_add(1, Ordering::Relaxed);
        if number == 0 {
            // what a process that was killed left there; the state is ours alone
            let _ = std::fs::remove_dir_all(&root);
        }
        let dir = root.join(number.to_string());
        std::fs::create_dir_all(&dir).context(format_args!("cannot make {}", dir.display()))?;
        Ok(Scratch(dir))
    }

    /// Names of the repositories that are served, sorted.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        repositories::names(&self.state, &self.settings())
    }

    /// Where a repository has its things.
    fn home(&self, name: &str) -> Result<RepoHome> {
        match self.repos.read().get(name) {
            Some(repo) => Ok(repo.published.home.clone()),
            None => repositories::home(&self.state, &self.settings(), name),
        }
    }

    /// Closes every stage: everything staged is on disk afterwards.
    pub fn close(&self) {
        let repos = std::mem::take(&mut *self.repos.write());
        for repo in repos.into_values() {
            close_stage(&repo);
        }
        if let Some(sealer) = self.sealer.get() {
            sealer.shutdown();
        }
        if let Some(warmer) = self.warmer.get() {
            warmer.linger(sites::LINGER);
        }
    }
}

/// What was fsynced is safe without it; what was not survives all but a power loss.
fn close_stage(repo: &Repo) {
    if let Err(error) = repo.stage.close() {
        tracing::warn!(repo = %repo.stage.repository_name(), %error, "the stage was not synced");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn json(reply: impl Serialize) -> Result<Value> {
    serde_json::to_value(reply).context("cannot write the answer as JSON")
}

/// Days from now until then; 0 if that has passed.
fn days_until(then: SystemTime, now: SystemTime) -> f64 {
    let left = then.duration_since(now).unwrap_or_default();
    let days = left.as_secs_f64() / 86_400.0;
    (days * 100.0).round() / 100.0
}
