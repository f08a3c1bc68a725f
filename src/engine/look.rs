//! Looking: `status` and `diff`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use commit::{PathPreview, Preview, RepoHome, What};
use formats::{Change, ChangeSet, Hash, RepoPath};
use fsimpl::StageSummary;

use super::patience::PATIENCE;
use super::published::Published;
use super::repo::Repo;
use super::{Engine, days_until};
use crate::api::reply::{self, DroppedXattr, Limit, OpenFile, RepoStatus, Summary, Trouble};
use crate::api::{PathText, Progress, Status, Step, Unit, Watch};
use crate::clock;
use crate::report::{Failure, Kind, Result};

/// For good: sealing ends when it is done, not when somebody loses patience.
const FOR_GOOD: Duration = Duration::from_secs(365 * 86_400);

/// A stage's progress, as the API says it.
pub struct Sealing<'a> {
    watch: &'a dyn Watch,
    most: std::sync::atomic::AtomicU64,
}

impl<'a> Sealing<'a> {
    /// Tells `watch`.
    pub fn new(watch: &'a dyn Watch) -> Self {
        Self {
            watch,
            most: 0.into(),
        }
    }
}

impl fsimpl::Progress for Sealing<'_> {
    fn unsealed(&self, files: u64, _bytes: u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let most = self.most.fetch_max(files, Relaxed).max(files);
        self.watch.progress(Progress {
            step: Step::Seal,
            done: most - files,
            total: most,
            unit: Unit::Files,
            site: None,
        });
    }

    fn rehashed(&self, done: u64, total: u64) {
        self.watch.progress(Progress {
            step: Step::Recover,
            done,
            total,
            unit: Unit::Objects,
            site: None,
        });
    }
}

impl Engine {
    pub(super) fn status(&self, args: &Status, watch: &dyn Watch) -> Result<reply::Status> {
        let names = match &args.repo {
            Some(name) => {
                self.home(name)?;
                vec![name.clone()]
            }
            None => self.names()?,
        };
        let repositories = names
            .iter()
            .map(|name| self.status_of(name, args.wait, watch))
            .collect();
        let sites = match args.sites {
            true => Some(self.site_status()?),
            false => None,
        };
        let broker = sites.as_ref().and_then(|_| self.broker_status());
        let (drained, running) = self.gate.stands();
        Ok(reply::Status {
            drained,
            running,
            daemon: self.live().map(|live| live.info.clone()),
            stale_mount: self.stale_mount(),
            state_dir: self.state.dir().display().to_string(),
            repositories,
            sites,
            broker,
        })
    }

    fn stale_mount(&self) -> Option<String> {
        let last = self.state.daemon_info()?.mountpoint;
        let stale = self.live().is_none() && fsimpl::session::is_stale(&last);
        stale.then(|| last.display().to_string())
    }

    fn status_of(&self, name: &str, wait: bool, watch: &dyn Watch) -> RepoStatus {
        let mut status = RepoStatus {
            repo: name.to_owned(),
            on_unmount: self.settings().repository(name).on_unmount,
            ..RepoStatus::default()
        };
        if let Some(live) = self.live() {
            status.path = Some(live.info.mountpoint.join(name).display().to_string());
        }
        let answers = match self.published(name) {
            Ok(published) => {
                status.url = self.url(&published.home);
                self.look_at_published(&published, &mut status)
            }
            Err(failure) => {
                status.errors.push(of_repository(failure));
                true
            }
        };
        match self.repo(name) {
            Ok(repo) => {
                if wait {
                    repo.stage.wait_sealed(FOR_GOOD, &Sealing::new(watch));
                }
                if self.look_at_stage(&repo, answers, &mut status) && answers {
                    self.describe_health(&repo, &mut status);
                }
            }
            Err(failure) => {
                if !status.errors.iter().any(|t| t.failure.kind == failure.kind) {
                    status.errors.push(of_repository(failure));
                }
            }
        }
        status
    }

    /// Where clients find a repository: at our own server, or where its configuration says.
    fn url(&self, home: &RepoHome) -> Option<String> {
        // a bucket is not ours to serve
        let is_served = matches!(home.place(), Ok(commit::Place::Directory(_)));
        if home.is_foreign || !is_served {
            return home.conf().ok()?.stratum0_url().map(str::to_owned).ok();
        }
        let http = self.live()?.info.http.as_ref()?;
        Some(format!("{http}/cvmfs/{}", home.name))
    }

    /// Looks at what is published; false if its storage does not answer.
    fn look_at_published(&self, published: &Arc<Published>, status: &mut RepoStatus) -> bool {
        let (looked_at, so_far) = (Arc::clone(published), status.clone());
        let seen = self
            .looks
            .within_patience(format!("{}: published", status.repo), move || {
                let mut seen = so_far;
                describe_published(&looked_at, &mut seen);
                seen
            });
        let answers = seen.is_some();
        match seen {
            Some(seen) => *status = seen,
            None => status.errors.push(of_repository(silent(
                &format!("the storage of {}", published.name),
                "what is staged or cached can be read and written meanwhile; commits wait for it",
            ))),
        }
        answers
    }

    /// Looks at what is staged; false if the state directory does not answer.
    fn look_at_stage(
        &self,
        repo: &Arc<Repo>,
        storage_answers: bool,
        status: &mut RepoStatus,
    ) -> bool {
        let under_way = repo.commits.seen().into_iter();
        let under_way = under_way.map(|seen| reply::UnderWay {
            paths: texts(&seen.paths),
            step: seen.step,
            seconds: seen.lasts.as_secs_f64(),
        });
        status.commits = under_way.collect();
        let (so_far, looked_at) = (status.clone(), Arc::clone(repo));
        let seen = self
            .looks
            .within_patience(format!("{}: stage", status.repo), move || {
                let mut seen = so_far;
                describe_stage(&looked_at, storage_answers, &mut seen);
                seen
            });
        let answers = seen.is_some();
        match seen {
            Some(seen) => *status = seen,
            None => status.errors.push(of_repository(silent(
                &format!("the stage in {}", self.state.stage(repo.name()).display()),
                "whoever writes waits for it",
            ))),
        }
        answers
    }

    pub(super) fn diff(&self, name: &str, paths: &[PathText]) -> Result<reply::Diff> {
        let repo = self.repo(name)?;
        let targets: Vec<RepoPath> = match paths {
            [] => vec![RepoPath::root()],
            paths => paths.iter().map(|p| p.0.clone()).collect(),
        };
        let change_set = changes(&repo, &targets)?;
        let work = self.scratch()?;
        let preview = commit::preview(
            &change_set,
            repo.stage.objects().as_ref(),
            repo.published.publisher(),
            clock::wall(),
            &work.0,
        )?;
        Ok(describe(name, preview))
    }
}

/// What is staged at all targets, as one change set.
pub(super) fn changes(repo: &Repo, targets: &[RepoPath]) -> Result<ChangeSet> {
    let mut all: BTreeMap<RepoPath, Change> = BTreeMap::new();
    for target in targets {
        let set = repo.stage.changes(target)?;
        all.extend(set.changes.into_iter().map(|c| (c.path.clone(), c)));
    }
    Ok(ChangeSet {
        repo: repo.name().to_owned(),
        targets: targets.to_vec(),
        changes: all.into_values().collect(),
    })
}

fn of_repository(failure: Failure) -> Trouble {
    Trouble {
        path: None,
        failure,
    }
}

/// What has not answered in time.
fn silent(what: &str, meanwhile: &str) -> Failure {
    let seconds = PATIENCE.as_secs();
    Failure::failed(format!("{what} has not answered for {seconds} s"))
        .hint(format!("see whether its disk or server hangs; {meanwhile}"))
}

fn describe_published(published: &Published, status: &mut RepoStatus) {
    let now = clock::wall();
    match published.head(now) {
        Ok((head, expired)) => {
            status.published_revision = Some(head.manifest().revision);
            status.root_hash = Some(head.manifest().root_catalog.to_string());
            status.whitelist_days = Some(days_until(head.whitelist().ends(), now));
            status.errors.extend(expired.map(of_repository));
        }
        Err(failure) => status.errors.push(of_repository(failure)),
    }
}

fn describe_stage(repo: &Repo, storage_answers: bool, status: &mut RepoStatus) {
    let base = repo.stage.base_root();
    status.base_revision = match &status.root_hash {
        Some(root) if *root == base.to_string() => status.published_revision,
        _ if storage_answers => repo.published.number_of(&base),
        _ => None,
    };
    let StageSummary {
        added,
        modified,
        removed,
        renamed,
        bytes,
        unsealed_files,
        unsealed_bytes,
        open_files,
        errors,
    } = repo.stage.summary();
    status.staged = reply::Staged {
        added,
        modified,
        removed,
        renamed,
        bytes,
    };
    status.unsealed_files = unsealed_files;
    status.unsealed_bytes = unsealed_bytes;
    status.open_files = open_files.iter().map(open_file).collect();
    status.errors.extend(errors.into_iter().map(|e| {
        Trouble {
            path: Some(e.path.into()),
            failure: match e.no_space {
                true => Failure::new(Kind::NoSpace, e.reason)
                    .hint("make room; it is tried again as soon as there is some"),
                false => Failure::new(Kind::Failed, e.reason),
            },
        }
    }));
}

/// A file open for writing, as the API says it.
pub fn open_file(file: &fsimpl::OpenFile) -> OpenFile {
    OpenFile {
        path: (&file.path).into(),
        pid: file.pid,
        command: file.command.clone(),
    }
}

/// Paths as the API says them.
pub fn texts(paths: &[RepoPath]) -> Vec<PathText> {
    paths.iter().map(PathText::from).collect()
}

/// Hard-link groups as the API says them.
pub fn groups(groups: &[Vec<RepoPath>]) -> Vec<Vec<PathText>> {
    groups.iter().map(|group| texts(group)).collect()
}

/// A dropped attribute as the API says it.
pub fn dropped(xattr: &commit::policy::DroppedXattr) -> DroppedXattr {
    let why = serde_json::to_value(xattr.why).unwrap_or_default();
    DroppedXattr {
        path: (&xattr.path).into(),
        name: xattr.name.escape_ascii().to_string(),
        why: why.as_str().unwrap_or("unknown").to_owned(),
    }
}

/// A limit as the API says it.
pub fn limit(limit: &formats::LimitExceeded) -> Limit {
    Limit {
        path: (&limit.path).into(),
        message: limit.to_string(),
    }
}

fn describe(name: &str, preview: Preview) -> reply::Diff {
    let changes: Vec<reply::Change> = preview.paths.iter().map(change).collect();
    let mut summary = Summary::default();
    for change in &changes {
        let count = match change.what {
            reply::What::Added => &mut summary.added,
            reply::What::Removed => &mut summary.removed,
            reply::What::Modified => &mut summary.modified,
            reply::What::MetadataOnly => &mut summary.metadata_only,
            reply::What::Renamed => &mut summary.renamed,
            reply::What::Generated => &mut summary.generated,
        };
        *count += 1;
        if matches!(change.what, reply::What::Added | reply::What::Modified) {
            summary.bytes += change.size;
        }
    }
    let mut conflicts: Vec<String> = preview
        .conflicts
        .named
        .iter()
        .map(ToString::to_string)
        .collect();
    if preview.conflicts.more > 0 {
        conflicts.push(format!("and {} more", preview.conflicts.more));
    }
    let mut refused: Vec<String> = preview.refused.iter().map(ToString::to_string).collect();
    if preview.refused_more > 0 {
        refused.push(format!("and {} more", preview.refused_more));
    }
    reply::Diff {
        repo: name.to_owned(),
        revision: preview.revision,
        changes,
        summary,
        catalogs: texts(&preview.catalogs),
        ungenerated: texts(&preview.ungenerated),
        dropped_xattrs: preview.dropped_xattrs.iter().map(dropped).collect(),
        dropped_xattrs_more: preview.dropped_xattrs_more,
        special_skipped: texts(&preview.special_skipped),
        broken_links: groups(&preview.broken_links),
        limits: preview.limits.iter().map(limit).collect(),
        conflicts,
        refused,
    }
}

fn change(path: &PathPreview) -> reply::Change {
    let (what, from) = match &path.what {
        What::Added => (reply::What::Added, None),
        What::Removed => (reply::What::Removed, None),
        What::Modified => (reply::What::Modified, None),
        What::MetadataOnly => (reply::What::MetadataOnly, None),
        What::RenamedFrom(from) => (reply::What::Renamed, Some(from.into())),
        What::Generated => (reply::What::Generated, None),
    };
    reply::Change {
        path: (&path.path).into(),
        what,
        from,
        directory: path.is_dir,
        size: path.size,
        size_before: path.size_before,
        catalog: path.catalog.as_ref().map(PathText::from),
    }
}

/// The publisher's word on how long the whitelist holds, before a commit begins.
///
/// # Errors
/// [`Kind::Expired`] if that is less than configured.
pub fn whitelist_holds(published: &Published, least: Duration) -> Result<Head> {
    let (head, left) = published.publisher().head(clock::wall())?;
    if left < least {
        return Err(Failure::new(
            Kind::Expired,
            format!(
                "the whitelist of {} is valid for only {} more minutes",
                published.name,
                left.as_secs() / 60
            ),
        )
        .hint(format!(
            "`prepub resign {}` renews it; `whitelist_min` in [commit] of the configuration is the limit",
            published.name
        )));
    }
    Ok(Head {
        revision: head.manifest().revision,
        root: head.manifest().root_catalog,
    })
}

/// What stands before a commit.
pub struct Head {
    /// Its number.
    pub revision: u64,
    /// Its root catalog.
    pub root: Hash,
}
