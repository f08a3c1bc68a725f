//! One repository, open: what is published, and its stage.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use commit::RepoHome;
use formats::Hash;
use fsimpl::seal::{SealParams, Sealer};
use fsimpl::{FLUSH_AFTER, Space, Stage, StageConfig, StageParams};
use parking_lot::Mutex;

use super::health::Looked;
use super::published::Published;
use super::turn::Turn;
use crate::access::WriteRules;
use crate::api::Step;
use crate::clock;
use crate::config::Settings;
use crate::report::{Context, Result};
use crate::state::State;

/// A repository with its stage.
pub struct Repo {
    /// What is published.
    pub published: Arc<Published>,
    /// What is staged.
    pub stage: Arc<Stage>,
    /// Held by whoever publishes, rolls back or aborts.
    pub turn: Turn,
    /// Where a commit keeps its state.
    pub txn_dir: PathBuf,
    /// What `status` last saw of the catalogs.
    pub(super) looked: Mutex<Option<Looked>>,
    /// What the commit under way is doing, and since when it is under way.
    under_way: Mutex<Option<(Step, Instant)>>,
}

/// A commit, for as long as it is under way.
pub struct UnderWay<'r>(&'r Repo);

impl UnderWay<'_> {
    /// It has come to this step.
    pub fn at(&self, step: Step) {
        if let Some((at, _)) = &mut *self.0.under_way.lock() {
            *at = step;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock() = None;
    }
}

impl Repo {
    /// Opens the stage; what an earlier process left staged is staged again.
    ///
    /// # Errors
    /// A stage that cannot be opened; a published head that cannot be used where there is no stage
    /// yet that knows another one.
    pub fn open(
        published: Arc<Published>,
        state: &State,
        settings: &Settings,
        sealer: Arc<Sealer>,
        space: Arc<Space>,
        progress: &dyn fsimpl::Progress,
    ) -> Result<Self> {
        let name = published.name.clone();
        let own = settings.repository(&name);
        let dir = state.stage(&name);
        let head = published.head(clock::wall());
        let root = match &head {
            Ok((head, expired)) => {
                if let Some(failure) = expired {
                    tracing::warn!("{failure}");
                }
                head.manifest().root_catalog
            }
            Err(failure) if dir.join("journal").exists() => {
                tracing::error!("{name}: going on with the revision that is known: {failure}");
                Hash::null()
            }
            Err(failure) => return Err(failure.clone()),
        };
        let owner = rustix::process::geteuid().as_raw();
        let config = StageConfig {
            dir,
            name: name.clone(),
            repository: Arc::clone(published.repository()),
            root,
            params: params_of(&published.home)?,
            clock: clock::now,
            sealer,
            settle: own.settle,
            flush_after: FLUSH_AFTER,
            quota_bytes: own.quota,
            quota_files: own.quota_files,
            writers: WriteRules::of(settings, &name, owner)
                .map(|rules| Arc::new(rules) as Arc<dyn fsimpl::Writers>),
            space,
            backing_max_bytes: own.backing_max,
            content_cache_bytes: settings.file.stage.content_cache.0,
            boot_id: clock::boot_id(),
        };
        let stage = Stage::open(config, progress)?;
        let txn_dir = state.txn(&name);
        crate::state::make_dir(&txn_dir)
            .context(format_args!("cannot make {}", txn_dir.display()))?;
        let repo = Self {
            published,
            stage,
            turn: Turn::default(),
            txn_dir,
            looked: Mutex::default(),
            under_way: Mutex::new(None),
        };
        if head.is_ok()
            && repo.stage.frozen().is_empty()
            && let Err(failure) = repo.follow(&root)
        {
            tracing::error!("{name}: cannot go on to the published revision: {failure}");
        }
        Ok(repo)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.published.name
    }

    /// Says that a commit is under way.
    #[must_use]
    pub fn begin(&self) -> UnderWay<'_> {
        *self.under_way.lock() = Some((Step::Recover, Instant::now()));
        UnderWay(self)
    }

    /// What the commit under way is doing, and for how long it has been under way.
    #[must_use]
    pub fn under_way(&self) -> Option<(Step, Duration)> {
        let under_way = *self.under_way.lock();
        under_way.map(|(step, since)| (step, since.elapsed()))
    }

    /// Lets unstaged paths follow a published revision.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn follow(&self, root: &Hash) -> Result<()> {
        if self.stage.base_root() != *root {
            self.stage.refresh(root)?;
            self.stage.wait_told();
        }
        Ok(())
    }
}

/// Reads `server.conf` again whenever it changed; one that cannot be understood leaves the last one
/// in force until a commit refuses it.
fn params_of(home: &RepoHome) -> Result<Arc<dyn Fn() -> StageParams + Send + Sync>> {
    let first = read_params(home)?;
    let home = home.clone();
    let known = Mutex::new((stamp(&home), first));
    Ok(Arc::new(move || {
        let mut known = known.lock();
        let now = stamp(&home);
        if now != known.0 {
            match read_params(&home) {
                Ok(params) => known.1 = params,
                Err(failure) => tracing::error!("{}: {failure}", home.name),
            }
            known.0 = now;
        }
        known.1.clone()
    }))
}

fn stamp(home: &RepoHome) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(&home.conf_file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_params(home: &RepoHome) -> Result<StageParams> {
    let params = home.params()?;
    Ok(StageParams {
        seal: Arc::new(SealParams {
            algorithm: params.algorithm,
            compression: params.compression,
            chunking: params.chunking,
            bulk_chunks: params.bulk_chunks,
        }),
        hardlink_groups: params.hardlink_groups,
        limits: params.limits,
    })
}
