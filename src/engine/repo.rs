//! One repository, open: what is published, and its stage.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use commit::warm::Warmer;
use commit::{Queue, RepoHome};
use formats::Hash;
use fsimpl::seal::{SealParams, Sealer};
use fsimpl::{FLUSH_AFTER, Space, Stage, StageConfig, StageParams, StagePolicy};
use parking_lot::Mutex;

use super::claims::Claims;
use super::commits::Commits;
use super::health::Looked;
use super::published::Published;
use super::turn::Turn;
use crate::access::WriteRules;
use crate::clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::report::{Context, Result};
use crate::state::State;

/// A repository with its stage.
pub struct Repo {
    /// What is published.
    pub published: Arc<Published>,
    /// What is staged.
    pub stage: Arc<Stage>,
    /// Held by whoever publishes, rolls back or aborts.
    pub claims: Claims,
    /// Held by whoever makes a snapshot.
    pub turn: Turn,
    /// Who waits for the publisher.
    pub queue: Arc<Queue>,
    /// The commits that are under way.
    pub commits: Commits,
    /// Where commits keep their state, each below the number of its snapshot.
    txn_root: PathBuf,
    /// Who serves the Stratum 1s; none if that cannot be.
    pub warmer: Option<Arc<Warmer>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What `status` last saw of the catalogs.
    pub(super) looked: Mutex<Option<Looked>>,
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
        (sealer, space): (Arc<Sealer>, Arc<Space>),
        warmer: Option<Arc<Warmer>>,
        metrics: Arc<Metrics>,
        progress: &dyn fsimpl::Progress,
    ) -> Result<Self> {
        let name = published.name.clone();
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
        let config = StageConfig {
            dir,
            name: name.clone(),
            repository: Arc::clone(published.repository()),
            root,
            params: params_of(&published.home)?,
            clock: clock::now,
            sealer,
            policy: policy(settings, &name),
            flush_after: FLUSH_AFTER,
            space,
            content_cache_bytes: settings.file.stage.content_cache.0,
            boot_id: clock::boot_id(),
        };
        let stage = Stage::open(config, progress)?;
        metrics.show(&name);
        let txn_root = state.txn(&name);
        crate::state::make_dir(&txn_root)
            .context(format_args!("cannot make {}", txn_root.display()))?;
        let repo = Self {
            published,
            stage,
            claims: Claims::default(),
            turn: Turn::default(),
            queue: Arc::default(),
            commits: Commits::default(),
            txn_root,
            warmer,
            metrics,
            looked: Mutex::default(),
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

    /// Where the commit of a snapshot keeps its state.
    #[must_use]
    pub fn txn_dir(&self, snapshot: u64) -> PathBuf {
        self.txn_root.join(snapshot.to_string())
    }

    /// Where commits that are not under way have left their state.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn txns(&self) -> Result<Vec<PathBuf>> {
        let unreadable = || format!("cannot read {}", self.txn_root.display());
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&self.txn_root).context(unreadable())? {
            let entry = entry.context(unreadable())?;
            let name = entry.file_name();
            let snapshot = name.to_str().and_then(|name| name.parse().ok());
            if snapshot.is_some_and(|snapshot| !self.commits.have(snapshot)) {
                left.push(entry.path());
            }
        }
        Ok(left)
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

/// What the configuration says of a stage, as far as that may change while it is open.
pub(super) fn policy(settings: &Settings, name: &str) -> StagePolicy {
    let own = settings.repository(name);
    let owner = rustix::process::geteuid().as_raw();
    let rules = WriteRules::of(settings, name, owner);
    StagePolicy {
        settle: own.settle,
        quota_bytes: own.quota,
        quota_files: own.quota_files,
        backing_max_bytes: own.backing_max,
        writers: rules.map(|rules| Arc::new(rules) as Arc<dyn fsimpl::Writers>),
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
