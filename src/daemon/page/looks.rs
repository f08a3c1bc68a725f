//! What is looked at whenever a page is asked for: stages, the state's disk, the Stratum 1s.

use std::collections::BTreeMap;
use std::sync::Arc;

use commit::warm::SiteStatus;
use formats::Hash;
use fsimpl::{SpaceReport, StageSummary};
use parking_lot::Mutex;
use store::figures::Look;

use crate::engine::Engine;
use crate::engine::repo::Repo;

/// See the module's head.
#[derive(Default)]
pub struct Looks {
    stages: Mutex<BTreeMap<String, Arc<StageLook>>>,
    /// The filesystem of the stages.
    pub space: Look<Result<SpaceReport, String>>,
    /// The Stratum 1s.
    pub sites: Look<Sites>,
}

/// A repository's.
#[derive(Default)]
pub struct StageLook {
    /// What was seen.
    pub look: Look<Stage>,
    /// The revision that the stage lies over, when that was last known.
    base: Arc<Mutex<Option<(Hash, u64)>>>,
}

/// What a stage holds.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What is staged.
    pub summary: Summary,
    /// The revision below it, where that is known.
    pub base_revision: Option<u64>,
    /// Why changes cannot be recorded.
    pub trouble: Option<String>,
}

/// A [`StageSummary`] without its lists.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// Paths by what happened to them.
    pub paths: [(&'static str, u64); 4],
    /// Raw bytes of staged files.
    pub bytes: u64,
    /// Closed files that are not sealed.
    pub unsealed_files: u64,
    /// Their bytes.
    pub unsealed_bytes: u64,
    /// Files open for writing.
    pub open_files: u64,
    /// Files that cannot be sealed.
    pub errors: u64,
}

/// How the Stratum 1s and the broker stand.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    /// Each site.
    pub sites: Vec<SiteStatus>,
    /// Why the broker is not connected, and how many messages did not count; none: there is none.
    pub broker: Option<(Option<String>, u64)>,
}

impl From<StageSummary> for Summary {
    fn from(of: StageSummary) -> Self {
        Self {
            paths: [
                ("added", of.added),
                ("modified", of.modified),
                ("removed", of.removed),
                ("renamed", of.renamed),
            ],
            bytes: of.bytes,
            unsealed_files: of.unsealed_files,
            unsealed_bytes: of.unsealed_bytes,
            open_files: of.open_files.len() as u64,
            errors: of.errors.len() as u64,
        }
    }
}

impl Looks {
    /// Looks at all of it anew; what is looked at still is left to that.
    pub fn begin(&self, engine: &Engine) {
        let repos = engine.open_repos();
        self.stages
            .lock()
            .retain(|name, _| repos.iter().any(|repo| repo.name() == name));
        for repo in repos {
            let own = self.stage(repo.name());
            let base = Arc::clone(&own.base);
            own.look.begin(move || look_at(&repo, &base));
        }
        if let Some(space) = engine.space_in_use() {
            self.space
                .begin(move || space.report().map_err(|e| e.to_string()));
        }
        if let Some(warmer) = engine.warmer_in_use() {
            self.sites.begin(move || Sites {
                sites: warmer.status(false),
                broker: warmer.broker(),
            });
        }
    }

    /// Returns when nothing is being looked at.
    pub async fn ended(&self) {
        let stages: Vec<_> = self.stages.lock().values().map(Arc::clone).collect();
        for stage in stages {
            stage.look.ended().await;
        }
        self.space.ended().await;
        self.sites.ended().await;
    }

    /// A repository's look.
    pub fn stage(&self, name: &str) -> Arc<StageLook> {
        Arc::clone(self.stages.lock().entry(name.to_owned()).or_default())
    }
}

fn look_at(repo: &Repo, base: &Mutex<Option<(Hash, u64)>>) -> Stage {
    let root = repo.stage.base_root();
    let mut base = base.lock();
    if let Some(head) = repo.published.known().head
        && head.root == root
    {
        *base = Some((root, head.revision));
    }
    Stage {
        summary: repo.stage.summary().into(),
        base_revision: base.filter(|(of, _)| *of == root).map(|(_, number)| number),
        trouble: repo.stage.settle_journal().err().map(|e| e.to_string()),
    }
}
