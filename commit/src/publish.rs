//! The straight way from a frozen change set to a visible revision.
//!
//! ```text
//! frozen      the transaction is recorded
//! stored      every object lies in the publisher's storage
//! warmed      as many Stratum 1s have them as the policy asks for, where there are any
//! leased      other publishers are kept out; the base is the newest revision, read after that
//!             (conflicts, catalogs)
//! submitted   nothing but the last step is left
//! visible     the manifest names the new root catalog
//! ```
//!
//! A failure before the last step leaves nothing visible, and the change set can be published again.
//! What the stage does about it is the caller's affair: it retires the snapshot once it is visible,
//! and thaws it otherwise.

mod idle;
mod patience;
mod queue;
mod request;
mod resume;
mod warmed;

use std::path::Path;
use std::time::{Instant, SystemTime};

use formats::hash::Hash;
use formats::history::{TagNameError, check_tag_name};
use formats::limit::LimitExceeded;
use formats::path::RepoPath;
use formats::server_conf::Params;
use store::{Injected, RepoError, failpoint};

use crate::catalogs::{CatalogsError, Plan, Wish};
use crate::conflicts::{self, Conflicts};
use crate::cvmfs_server::ServerError;
use crate::objects::{self, ObjectsError, StoredObjects};
use crate::policy;
use crate::publisher::{NewRevision, Publisher, PublisherError};
use crate::txn::{self, State, Txn, TxnError};
use crate::warm::{SiteOutcome, SiteState, WarmError};

use patience::Leased;
use warmed::{Begun, Warmed};

pub use queue::Queue;
pub use request::{NoProgress, OnConflict, Outcome, Progress, Request, Seconds, Step, Visible};
pub use resume::{Resumed, give_back, resume};

/// New bytes from which on the storage is synced before the lease too, so that the sync under the
/// lease finds little to do.
const SYNC_EARLY_BYTES: u64 = 64 << 20;

/// How often the way is gone again from the lease on, after a last step that did not publish: once,
/// for what failed twice will fail a third time.
const AGAIN_MAX: u32 = 1;

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The change set is another repository's.
    #[error("the changes are for {found}, not for {repo}")]
    WrongRepository {
        /// The publisher's.
        repo: String,
        /// The change set's.
        found: String,
    },
    /// Nobody wants it any more.
    #[error("the commit of {repo} was called off; everything is staged as before")]
    CalledOff {
        /// Which repository.
        repo: String,
    },
    /// A tag that cannot be.
    #[error(transparent)]
    TagName(#[from] TagNameError),
    /// Another publisher changed the same paths.
    #[error("{} collide with revision {revision} of {repo}", count(.conflicts))]
    Conflicts {
        /// Which repository.
        repo: String,
        /// The newest revision.
        revision: u64,
        /// What collides.
        conflicts: Conflicts,
    },
    /// Limits that are enforced.
    #[error("{} of {repo} exceeded: {}", limits_text(.exceeded), .exceeded.first().map(ToString::to_string).unwrap_or_default())]
    Limits {
        /// Which repository.
        repo: String,
        /// Which.
        exceeded: Vec<LimitExceeded>,
    },
    /// Objects.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
    /// Catalogs.
    #[error(transparent)]
    Catalogs(#[from] CatalogsError),
    /// Published catalogs that conflicts are looked for in.
    #[error("cannot compare with the newest revision of {repo}")]
    Compare {
        /// Which repository.
        repo: String,
        /// Why.
        source: RepoError,
    },
    /// The publisher.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
    /// Not as many Stratum 1s have the objects as the policy asks for.
    #[error("{} of {} Stratum 1s have the objects of {repo}, {}", warm(.sites), .sites.len(), why(*.is_late))]
    Quorum {
        /// Which repository.
        repo: String,
        /// The deadline passed; else too many sites failed.
        is_late: bool,
        /// How each site stood.
        sites: Vec<SiteOutcome>,
    },
    /// The Stratum 1s cannot be served.
    #[error(transparent)]
    Warm(#[from] WarmError),
    /// The commit's own record.
    #[error(transparent)]
    Txn(#[from] TxnError),
}

impl CommitError {
    /// True if a revision is visible all the same, and is not what was wanted.
    #[must_use]
    pub fn is_published(&self) -> bool {
        let Self::Publisher(PublisherError::Server { source, .. }) = self else {
            return false;
        };
        matches!(**source, ServerError::Differs { .. })
    }
}

impl From<Injected> for CommitError {
    fn from(fault: Injected) -> Self {
        Self::Txn(fault.into())
    }
}

fn count(conflicts: &Conflicts) -> String {
    match conflicts.named.len() as u64 + conflicts.more {
        1 => "1 path".to_owned(),
        n => format!("{n} paths"),
    }
}

fn warm(sites: &[SiteOutcome]) -> usize {
    let warm = sites.iter().filter(|site| site.state == SiteState::Warm);
    warm.count()
}

fn why(is_late: bool) -> &'static str {
    match is_late {
        true => "and the deadline has passed",
        false => "and too many failed",
    }
}

fn limits_text(exceeded: &[LimitExceeded]) -> String {
    match exceeded.len() {
        1 => "a limit".to_owned(),
        n => format!("{n} limits"),
    }
}

/// Publishes a change set. `txn_dir` keeps the state of this commit; once the outcome is visible and
/// the stage retired, [`crate::txn::clear`] ends it.
///
/// # Errors
/// [`CommitError`]; then nothing is visible.
pub fn publish(
    request: &Request,
    publisher: &dyn Publisher,
    txn_dir: &Path,
    progress: &dyn Progress,
) -> Result<Outcome, CommitError> {
    let begun = Instant::now();
    if request.change_set.repo != publisher.name() {
        return Err(CommitError::WrongRepository {
            repo: publisher.name().to_owned(),
            found: request.change_set.repo.clone(),
        });
    }
    if let Some(tag) = &request.tag {
        check_tag_name(tag)?;
    }
    let txn = Txn::begin(
        txn_dir,
        publisher.name(),
        request.snapshot,
        &request.boot_id,
    )?;
    let commit = Commit {
        request,
        publisher,
        progress,
        txn: &txn,
        since: begun,
        begun: Begun::default(),
    };
    publisher.begins();
    let outcome = commit.run();
    publisher.ended();
    let is_known = match &outcome {
        Ok(Outcome::Visible(_)) => txn.drop_work().map(|()| true)?,
        Ok(Outcome::Nothing) => commit.abandon().map(|()| true)?,
        // after the last step failed, only the world knows
        Err(_) => commit.give_up()?,
    };
    commit.tell_sites(&outcome, is_known)?;
    outcome
}

/// What was done before the lease.
struct Before {
    stored: StoredObjects,
    warmed: Warmed,
    seconds: Seconds,
}

struct Commit<'a> {
    request: &'a Request,
    publisher: &'a dyn Publisher,
    progress: &'a dyn Progress,
    txn: &'a Txn,
    since: Instant,
    /// What the sites were sent.
    begun: Begun,
}

impl Commit<'_> {
    fn now(&self) -> SystemTime {
        (self.request.clock)()
    }

    fn run(&self) -> Result<Outcome, CommitError> {
        failpoint::pass("commit::frozen")?;
        let params = self.publisher.params()?;
        // an expired whitelist is better known before gigabytes are stored
        let (head, _) = self.publisher.head(self.now())?;
        self.check_limits(&params, &head)?;
        self.publisher.fits(&self.request.change_set, &head)?;
        if self.is_idle(&params, &head)? {
            return Ok(Outcome::Nothing);
        }

        let begun = Instant::now();
        let stored = self.store(&params)?;
        self.deliver()?;
        let mut seconds = Seconds {
            store: begun.elapsed().as_secs_f64(),
            ..Seconds::default()
        };
        self.txn.set(State::Stored)?;
        failpoint::pass("commit::stored")?;

        let begun = Instant::now();
        let warmed = self.warm()?;
        if warmed.is_some() {
            seconds.warm = begun.elapsed().as_secs_f64();
            self.txn.set(State::Warmed)?;
            failpoint::pass("commit::warmed")?;
        }
        let before = Before {
            stored,
            warmed: warmed.unwrap_or_default(),
            seconds,
        };

        let mut again = 0;
        loop {
            let leased = self.lease()?;
            self.txn.set(State::Leased)?;
            failpoint::pass("commit::leased")?;
            match self.under_lease(leased, &params, &before) {
                Err(CommitError::Publisher(error @ PublisherError::NotDone { .. }))
                    if again < AGAIN_MAX =>
                {
                    again += 1;
                    tracing::warn!(repo = self.publisher.name(), %error, "trying once more");
                }
                outcome => return outcome,
            }
        }
    }

    /// Enforced limits are checked against what is published now, before anything is stored.
    fn check_limits(&self, params: &Params, head: &store::Head) -> Result<(), CommitError> {
        if !params.limits.enforce {
            return Ok(());
        }
        let large: Vec<LimitExceeded> =
            policy::oversized(params, &self.request.change_set).collect();
        self.refuse(large)?;
        let work = self.txn.work_dir("limits")?;
        let wish = self.wish(params, self.now(), true, None);
        let repository = self.publisher.repository();
        let plan = Plan::of(repository, &head.manifest().root_catalog, &wish, &work)?;
        self.refuse(plan.report.limits)
    }

    fn refuse(&self, exceeded: Vec<LimitExceeded>) -> Result<(), CommitError> {
        if exceeded.is_empty() {
            return Ok(());
        }
        Err(CommitError::Limits {
            repo: self.publisher.name().to_owned(),
            exceeded,
        })
    }

    fn store(&self, _params: &Params) -> Result<StoredObjects, CommitError> {
        let storage = self.publisher.storage().as_ref();
        let names = objects::needed(&self.request.change_set)?;
        if storage.local_dir().is_some() {
            // they are not synced one by one: should the machine stop, they are not trusted
            self.txn.note_objects(names.iter().map(|(name, _)| name))?;
            failpoint::pass("commit::noted")?;
        }
        let stored = objects::store_all(
            &self.request.change_set,
            &names,
            self.request.objects.as_ref(),
            storage,
            self.progress,
        )?;
        if stored.bytes >= SYNC_EARLY_BYTES {
            storage.sync().map_err(|source| PublisherError::Storage {
                repo: self.publisher.name().to_owned(),
                what: "sync",
                source,
            })?;
        }
        Ok(stored)
    }

    /// A garbage collection that ran before the lease may have taken what lay there already.
    fn store_again(&self) -> Result<(), CommitError> {
        let storage = self.publisher.storage().as_ref();
        storage.forget();
        let names = objects::needed(&self.request.change_set)?;
        let stored = objects::store_all(
            &self.request.change_set,
            &names,
            self.request.objects.as_ref(),
            storage,
            &NoProgress,
        )?;
        if stored.new > 0 {
            tracing::info!(
                objects = stored.new,
                "stored again what was collected as garbage"
            );
        }
        Ok(())
    }

    fn wish<'w>(
        &'w self,
        params: &'w Params,
        now: SystemTime,
        remake: bool,
        merged_below: Option<&'w RepoPath>,
    ) -> Wish<'w> {
        Wish {
            change_set: &self.request.change_set,
            params,
            staged: self.request.objects.as_ref(),
            storage: self.publisher.storage().as_ref(),
            remake_parents: remake,
            merged_below,
            now: seconds(now),
        }
    }

    /// Conflicts, catalogs, and the last steps; the lease ends when this returns.
    fn under_lease(
        &self,
        leased: Leased<'_>,
        params: &Params,
        before: &Before,
    ) -> Result<Outcome, CommitError> {
        let mut spent = before.seconds;
        let now = self.now();
        let lease = &leased.lease;
        let manifest = lease.head().manifest().clone();
        if let Some(tag) = &self.request.tag {
            lease.check_tag(tag)?;
        }
        self.check_conflicts(&manifest.root_catalog, manifest.revision, params)?;

        let begun = Instant::now();
        let work = self.txn.work_dir("catalogs")?;
        let remake = self.request.on_conflict == OnConflict::Ours;
        let wish = self.wish(params, now, remake, lease.merged_below());
        let repository = self.publisher.repository();
        let plan = Plan::of(repository, &manifest.root_catalog, &wish, &work)?;
        if plan.is_empty() && !self.request.allow_empty {
            return Ok(Outcome::Nothing);
        }
        if params.limits.enforce {
            self.refuse(plan.report.limits.clone())?;
        }
        let storage = self.publisher.storage().as_ref();
        objects::check_referred(&plan.referred, storage)?;
        let report = plan.report.clone();
        let closed = plan.close(
            self.publisher.catalogs().as_ref(),
            seconds(now),
            manifest.revision.saturating_add(1),
            &mut |done, total| self.progress.step(Step::Catalogs, done, total),
        )?;
        spent.catalogs = begun.elapsed().as_secs_f64();
        failpoint::pass("commit::catalogs")?;
        if params.garbage_collection {
            self.store_again()?;
        }
        let revision = NewRevision {
            root_hash: closed.root,
            root_bytes: closed.root_bytes,
            revision: closed.revision,
            previous_root: manifest.root_catalog,
            timestamp: seconds(now),
            ttl_seconds: params.ttl_seconds,
            tag: self.request.tag.clone(),
            message: self.request.message.clone(),
        };
        let mut visible = Box::new(Visible::of(
            &revision,
            report,
            before.stored,
            &closed.catalogs,
        ));
        visible.whitelist_left = lease.head().whitelist().remaining(now).unwrap_or_default();
        visible.seconds = spent;
        visible.stratum1.clone_from(&before.warmed.sites);
        visible.push.clone_from(&before.warmed.push);
        self.submit(leased, &revision, visible, now)
    }

    fn submit(
        &self,
        leased: Leased<'_>,
        revision: &NewRevision,
        mut visible: Box<Visible>,
        now: SystemTime,
    ) -> Result<Outcome, CommitError> {
        self.still_wanted()?;
        self.progress.step(Step::Submit, 0, 1);
        let Leased {
            lease,
            since,
            _holding,
        } = leased;
        let submitted = lease.submit(revision.clone(), now, &mut |revision| {
            visible.stands_as(revision);
            self.txn.set(State::Submitted {
                revision: revision.clone(),
                report: visible.clone(),
            })
        });
        let submitted = submitted.or_else(|error| {
            // the last step may have worked although it reported a failure
            let may_be_visible = matches!(
                txn::find(self.txn.dir())?.map(|found| found.state),
                Some(State::Submitted { .. })
            );
            let landed = match may_be_visible {
                true => self.publisher.landed(revision, now)?,
                false => None,
            };
            landed.ok_or(CommitError::from(error))
        })?;
        visible.stands_as(&submitted);
        visible.seconds.lease_held = since.elapsed().as_secs_f64();
        visible.seconds.total = self.since.elapsed().as_secs_f64();
        self.progress.step(Step::Submit, 1, 1);
        failpoint::pass("commit::visible")?;
        self.txn.set(State::Visible {
            report: visible.clone(),
        })?;
        Ok(Outcome::Visible(visible))
    }

    fn check_conflicts(
        &self,
        root: &Hash,
        revision: u64,
        params: &Params,
    ) -> Result<(), CommitError> {
        if self.request.on_conflict == OnConflict::Ours {
            return Ok(());
        }
        let compare = |source| CommitError::Compare {
            repo: self.publisher.name().to_owned(),
            source,
        };
        let repository = self.publisher.repository();
        let head = repository.revision(root).map_err(compare)?;
        let conflicts = conflicts::find(repository, &head, params, &self.request.change_set)
            .map_err(compare)?;
        if conflicts.is_empty() {
            return Ok(());
        }
        Err(CommitError::Conflicts {
            repo: self.publisher.name().to_owned(),
            revision,
            conflicts,
        })
    }

    /// Forgets a commit of which nothing is visible; its objects are left to the next one.
    fn abandon(&self) -> Result<(), TxnError> {
        let names = txn::noted_objects(self.txn.dir())?;
        if let Err(error) = objects::settle(&names, self.publisher.storage().as_ref(), true) {
            // the record stays, and the next commit tries again
            tracing::warn!(%error, "the storage cannot be synced");
            return Ok(());
        }
        self.txn.abandon()
    }

    /// After a failure: forgets the commit if nothing can have become visible; true if so.
    fn give_up(&self) -> Result<bool, TxnError> {
        match txn::find(self.txn.dir())?.map(|found| found.state) {
            // asked the world already, or cannot: a restart will ask again
            Some(State::Submitted { .. } | State::Visible { .. }) => {
                self.txn.drop_work().map(|()| false)
            }
            _ => self.abandon().map(|()| true),
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    crate::stratum0::seconds(time).cast_signed()
}
